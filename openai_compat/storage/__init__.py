"""What is stored between requests: objects with an owner and items, in SQLite or PostgreSQL."""
