"""Tests of ``openai_compat.middleware.app``."""
