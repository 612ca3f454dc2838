"""Tests mirror modules; ``README.rst`` says how to run them."""
