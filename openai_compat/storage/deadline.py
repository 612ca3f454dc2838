"""The time of an operation of the store: one deadline, at which every wait of the operation ends.

A time-out cannot bound the wait for a PostgreSQL server that is stopped: its kernel still acknowledges what is sent,
so that neither TCP nor the driver notices. Therefore a timer shuts the sockets down.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """An operation did not end in time."""


class Deadline:
    """The end of an operation that begins now. It is left as a context manager.

    :param seconds: how long the operation may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None
        self._has_fired = False

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:  # a timer that has begun ends first
            while self._sockets:
                self._sockets.pop().close()

    @property
    def has_passed(self) -> bool:
        """Return whether the operation has taken all of its time."""
        return self._has_fired or not self.rest

    @property
    def rest(self) -> float:
        """Return the seconds until the deadline; 0 if it has passed."""
        return max(0.0, self._end - time.monotonic())

    def remaining(self) -> float:
        """Return the seconds until the deadline.

        :raises DeadlinePassed: it has passed.
        """
        seconds = self.rest
        if not seconds:
            raise self._passed()
        return seconds

    def shut_down(self, fileno: int) -> None:
        """Shut a connected socket down at the deadline, unless the operation has ended by then.

        :raises DeadlinePassed: the deadline has passed.
        """
        seconds = self.remaining()
        # A duplicate, whose number cannot become another socket's. The family does not matter for a shutdown.
        duplicate = socket.fromfd(fileno, socket.AF_INET, socket.SOCK_STREAM)
        with self._lock:
            self._sockets.append(duplicate)
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._shut_all_down)
            _start(self._timer)
        elif self._has_fired:  # just before the socket was added
            self._shut_all_down()

    def _shut_all_down(self) -> None:
        with self._lock:
            self._has_fired = True
            for watched in self._sockets:
                with suppress(OSError):  # the server may have closed the connection already
                    watched.shutdown(socket.SHUT_RDWR)

    def call(self, function: Callable[[], T], discard: Callable[[T], object]) -> T:
        """Call a function that cannot be interrupted, in a thread that may outlive the operation.

        :param discard: is called with a result that comes after the deadline.
        :raises DeadlinePassed: the deadline has passed.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # raised below, in the caller's thread
                future.set_exception(error)

        def discard_late(future: Future[T]) -> None:
            error = future.exception()
            if error is None:
                discard(future.result())
            while error is not None:  # its frames hold what the function opened
                error.__traceback__, error = None, error.__context__

        seconds = self.remaining()
        _start(threading.Thread(target=run))
        if not wait([future], seconds).done:
            future.add_done_callback(discard_late)
            raise self._passed()
        return future.result()

    def _passed(self) -> DeadlinePassed:
        return DeadlinePassed(f"no answer within {self.seconds:g} s")


def _start(thread: threading.Thread) -> None:
    """Start a thread that does not keep the process alive.

    :raises OSError: the system has no room for another thread.
    """
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError("a thread could not be started") from error
