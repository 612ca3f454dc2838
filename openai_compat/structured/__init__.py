"""Output in a required format: forced tool calls, JSON text, JSON Schemas."""
