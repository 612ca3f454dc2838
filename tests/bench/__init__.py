"""Benchmarks: ``python -m tests.bench NAME``. They measure and print; nothing here asserts a time."""
