"""OpenAI's HTTP API for any Ollama-native backend, as a WSGI middleware.

The names here are the whole public API. ``Upstream`` is loaded on first use: it brings in ``requests``,
which must not be imported before gevent has patched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError
from openai_compat.middleware.app import OpenAICompat
from openai_compat.settings import Sampling, Settings

if TYPE_CHECKING:
    from openai_compat.transport.upstream import Upstream

__version__ = "0.1.0"

__all__ = ["APIError", "OpenAICompat", "Sampling", "Settings", "Upstream", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Upstream":
        from openai_compat.transport.upstream import Upstream

        return Upstream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
