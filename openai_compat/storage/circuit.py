"""A pause after a failure of the store, so that not every request waits for a store that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StoreFailed(Exception):
    """The store failed. The message is for the log; it has no URL, statement or stored content."""


class Circuit:
    """Whether the store is asked, for any number of threads.

    After a failure nothing is asked for *pause* seconds. Then one operation is let through; its success ends the pause,
    and its failure begins another.

    :param clock: returns seconds that only increase.
    """

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        #: why the store is not asked; None while it is
        self._reason: str | None = None
        self._until = 0.0
        #: the thread whose operation was let through
        self._probe: int | None = None

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Let one operation through.

        :raises StoreFailed: the store is not asked at present.
        """
        self.check()
        try:
            yield
        finally:
            with self._lock:
                if self._probe == threading.get_ident():
                    self._probe = None

    def check(self) -> None:
        """Return if the operation of this thread may ask the store, also after it has waited for others.

        :raises StoreFailed: the store is not asked at present.
        """
        with self._lock:
            if self._reason is None or self._probe == threading.get_ident():
                return
            if self._probe is not None or self._clock() < self._until:
                text = f"The store is not asked for {self._pause:g} s after a failure: {self._reason}."
                raise StoreFailed(text) from StoreFailed(self._reason)  # not the failure, which holds its frames
            self._probe = threading.get_ident()

    def failed(self, reason: str) -> None:
        """Begin a pause, because the store did not answer or could not be reached."""
        with self._lock:
            self._reason, self._until = reason, self._clock() + self._pause

    def answered(self) -> None:
        """End the pause, because the store answered."""
        with self._lock:
            self._reason = None
