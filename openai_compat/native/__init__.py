"""Ollama as a client sees it: its types, the client, streams, errors, and what a server is known not to have."""
