"""Mapping of fields between OpenAI's API and Ollama's, pure, for all endpoints: values in, values out, no I/O."""
