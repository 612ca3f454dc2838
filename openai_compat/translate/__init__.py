"""What two or more endpoints share: pure mapping, both ways."""
