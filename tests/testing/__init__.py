"""Tests of ``openai_compat.testing``."""
