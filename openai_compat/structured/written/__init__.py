"""Tool calls that a model wrote as text: how they are found in an answer, and read."""
