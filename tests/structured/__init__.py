"""Tests of ``openai_compat.structured``."""
