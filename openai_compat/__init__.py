"""OpenAI's HTTP API for any Ollama-native backend, as a WSGI middleware.

The names in ``__all__`` are the public API; every other name of the package may change without notice.

Identifiers such as F45 or W8 in comments name a requirement; the tests that check it have the identifier in their
names (``test_f45_…``).
"""

from __future__ import annotations

from openai_compat.errors import APIError
from openai_compat.middleware.app import OpenAICompat
from openai_compat.settings import Sampling, Settings
from openai_compat.transport.upstream import Upstream

__version__ = "0.1.0"

__all__ = ["APIError", "OpenAICompat", "Sampling", "Settings", "Upstream", "__version__"]
