"""What was learnt of the native side, for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Memory:
    """Names that something was learnt of, forgotten after a while. Shared by all requests of a middleware."""

    #: seconds
    LIFETIME = 600.0
    LIMIT = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        with self._lock:
            if len(self._until) >= self.LIMIT:
                self._until.clear()
            self._until[name] = self._clock() + self.LIFETIME

    def __contains__(self, name: str) -> bool:
        return self._until.get(name, 0.0) > self._clock()


class Learnt:
    """What a middleware has found out about its native side."""

    def __init__(self) -> None:
        #: models that have no thinking
        self.cannot_think = Memory()
        #: native paths that are not there
        self.absent = Memory()
