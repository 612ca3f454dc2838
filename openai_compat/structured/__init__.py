"""Answers that are held to a form: forced tool calls, JSON text, JSON Schemas."""
