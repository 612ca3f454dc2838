"""Backends without a model: a scriptable Ollama for tests, and a demo for trying the middleware.

The names in ``__all__`` are the public ones, for tests. The demo is :class:`openai_compat.testing.demo.Demo`.
"""

from openai_compat.testing.fake import FakeOllama, Gate, Recorded, Step, done, say

__all__ = ["FakeOllama", "Gate", "Recorded", "Step", "done", "say"]
