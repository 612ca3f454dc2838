"""Tests of ``openai_compat.generation``."""
