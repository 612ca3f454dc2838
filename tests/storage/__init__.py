"""Tests of ``openai_compat.storage``."""
