"""Ollama's side: its messages, the wrapped app seen as Ollama, a remote Ollama as a WSGI app."""
