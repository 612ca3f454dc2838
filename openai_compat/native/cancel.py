"""Ending a native call from another thread.

A thread that waits for a remote server can only be woken by its socket: closing the response would wait for the
very read that it should end. So the socket is shut down, by whoever holds the call's :class:`Cancel`, as long as
it belongs to the call: from the moment it is connected to the moment before it goes back to its pool (F45).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

#: the environ key under which a native call carries its :class:`Cancel`
CANCEL = "openai_compat.cancel"


class Cancelled(OSError):
    """The call was ended by its own side."""


class Cancel:
    """Ends one native call, before, during or after it; from any thread, any number of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_set = False

    def set(self) -> None:
        """End the call: whoever waits on its socket wakes."""
        with self._lock:
            self.is_set = True
            if self._socket is not None:
                with suppress(OSError):  # its other side was first
                    # Not the method of a TLS socket: that one would talk to the other side.
                    # Nor that of urllib3's TLS in TLS, which is no socket, but has one.
                    socket.socket.shutdown(getattr(self._socket, "socket", self._socket), socket.SHUT_RDWR)

    def check(self) -> None:
        """
        :raises Cancelled: it was ended already.
        """
        if self.is_set:
            raise Cancelled("the call was cancelled")

    def watch(self, sock: socket.socket) -> None:
        """The call waits on this socket from now on.

        :raises Cancelled: it was ended already.
        """
        with self._lock:
            self.check()
            self._socket = sock

    def release(self) -> None:
        """The socket is not the call's any more."""
        with self._lock:
            self._socket = None


_current: ContextVar[Cancel | None] = ContextVar("openai_compat_cancel", default=None)


def current() -> Cancel | None:
    """The cancel of the call that this thread is making."""
    return _current.get()


@contextmanager
def calling(cancel: Cancel | None) -> Iterator[None]:
    """Make a call that *cancel* can end: connections made or used meanwhile find it by :func:`current`."""
    token = _current.set(cancel)
    try:
        yield
    finally:
        _current.reset(token)
