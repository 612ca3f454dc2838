"""For tests, and for trying the middleware without an Ollama: a scriptable fake, and the demo backend.

The names listed here are public. :mod:`openai_compat.testing.fake` has the fake, :mod:`openai_compat.testing.demo` the
demo backend.
"""

from openai_compat.testing.fake import FakeOllama, Gate, Recorded, Step, done, say

__all__ = ["FakeOllama", "Gate", "Recorded", "Step", "done", "say"]
