"""What a backend is known not to have, remembered for a while.

Every entry expires, since a model may be replaced and a server updated. Only names belong here, never responses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class ExpiringSet:
    """A set of names, each of which is dropped some time after it was added. Threads may share one.

    :param clock: seconds, monotonic.
    """

    #: seconds until a name is dropped: a failing call in ten minutes costs little, and an update is noticed as soon
    LIFETIME = 600.0
    #: names at most: they come from requests, so the set must be bounded; a server has far fewer models
    LIMIT = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Add a name, or extend its lifetime; a full set is emptied first."""
        with self._lock:
            if len(self._until) >= self.LIMIT:
                self._until.clear()
            self._until[name] = self._clock() + self.LIFETIME

    def __contains__(self, name: str) -> bool:
        return self._until.get(name, 0.0) > self._clock()


class ExpiringMap(Generic[V]):
    """Values by their keys, each of which is dropped some time after it was added. Threads may share one.

    :param clock: seconds, monotonic.
    """

    #: seconds; the values describe content that does not change, as far as this version of the server knows it
    LIFETIME = 3600.0
    #: keys at most
    LIMIT = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def add(self, key: str, value: V) -> None:
        """Add a value; a full map is emptied first."""
        with self._lock:
            if len(self._values) >= self.LIMIT:
                self._values.clear()
            self._values[key] = (self._clock() + self.LIFETIME, value)

    def get(self, key: str) -> V | None:
        """Return the value of a key; None without one."""
        until, value = self._values.get(key, (0.0, None))
        return value if until > self._clock() else None


class ModelFacts(NamedTuple):
    """What ``/api/show`` says of a model."""

    capabilities: list[str] | None
    #: the context length that its Modelfile sets, in tokens
    num_ctx: int | None


class KnownLimits:
    """What one backend is known not to have. All requests of a middleware share one."""

    def __init__(self) -> None:
        #: models without thinking
        self.cannot_think = ExpiringSet()
        #: a model's name and a level of thinking that it does not have
        self.refused_levels = ExpiringSet()
        #: models that answer nothing under a format while they do not think
        self.must_think = ExpiringSet()
        #: models without tools, and models that were found to have them, or may have them
        self.cannot_call = ExpiringSet()
        self.may_call = ExpiringSet()
        #: native paths that the server does not have
        self.absent_paths = ExpiringSet()
        #: models by their digests, as ``/api/show`` describes them
        self.facts: ExpiringMap[ModelFacts] = ExpiringMap()
