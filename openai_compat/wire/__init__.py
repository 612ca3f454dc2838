"""Bytes ↔ values, nothing else: no request, no environ, no I/O."""
