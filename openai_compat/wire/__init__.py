"""Conversion between bytes and values: JSON, NDJSON and server-sent events. No environ and no I/O belongs here."""
