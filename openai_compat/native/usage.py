"""What the native calls of one request used, added up as they end.

Counts come from a server that may be broken: every number passes :func:`count`.
"""

from __future__ import annotations

import threading

from openai_compat.native import types as native

#: counts from here on are not valid (F36): up to here, JSON's numbers are exact in every decoder
_MAX_COUNT = 2**53


def count(value: float | None) -> int:
    """Return a native count or duration as an integer; 0 if it is absent or out of range (F36)."""
    return int(value) if value is not None and 0 <= value < _MAX_COUNT else 0


class NativeUsage:
    """The tokens and native times of a request's calls. Threads may add to it; durations are nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: the client's name for the model of the first call that had one
        self.model: str | None = None
        #: native calls that were made
        self.calls = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.total_duration = 0
        self.load_duration = 0
        self.prompt_eval_duration = 0
        self.eval_duration = 0

    def begin(self, model: str | None) -> None:
        """Count a call, and note the client's name for its model."""
        with self._lock:
            self.calls += 1
            self.model = self.model or model

    def add(self, metrics: native.Metrics) -> None:
        """Add the counts and durations of a final message, or of a whole response."""
        with self._lock:
            self.prompt_tokens += count(metrics.prompt_eval_count)
            self.completion_tokens += count(metrics.eval_count)
            self.total_duration += count(metrics.total_duration)
            self.load_duration += count(metrics.load_duration)
            self.prompt_eval_duration += count(metrics.prompt_eval_duration)
            self.eval_duration += count(metrics.eval_duration)
