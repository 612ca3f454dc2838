"""Tests of ``openai_compat.transport``."""
