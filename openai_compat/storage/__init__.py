"""Storage of objects between requests, in SQLite or PostgreSQL; no endpoint's types are known here."""
