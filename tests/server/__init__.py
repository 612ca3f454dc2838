"""Tests of ``openai_compat.server``."""
