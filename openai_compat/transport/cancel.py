"""Cancelling native calls from another thread.

A thread that waits for a remote server can only be woken by its socket: closing the response would wait for the
very read that it should end. So the socket is shut down, by whoever holds the call's :class:`Cancel`, as long as
it belongs to the call: from the moment it is connected to the moment before it goes back to its pool (F45).

A request of a client has one :class:`Cancel`, and each native call of it a child of that one.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar


class Cancelled(OSError):
    """A call was cancelled by its caller."""


class Cancel:
    """Ends a native call, or all those of a request, before, while or after they run.

    Every method may be called from any thread, any number of times.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._children: list[Cancel] = []
        self.is_set = False

    def child(self) -> Cancel:
        """Make the cancel of one native call: it can be set alone, and is set with this one."""
        child = Cancel()
        with self._lock:
            self._children.append(child)
        if self.is_set:
            child.set()
        return child

    def set(self) -> None:
        """End the call and those of the children: whoever waits on a socket of theirs wakes."""
        with self._lock:
            self.is_set = True
            children = list(self._children)
            if self._socket is not None:
                with suppress(OSError):  # its other side was first
                    # Not the method of a TLS socket: that one would talk to the other side.
                    # Nor that of urllib3's TLS in TLS, which is no socket, but has one.
                    socket.socket.shutdown(getattr(self._socket, "socket", self._socket), socket.SHUT_RDWR)
        for child in children:
            child.set()

    def check(self) -> None:
        """Raise if the call was cancelled.

        :raises Cancelled: it was.
        """
        if self.is_set:
            raise Cancelled("the call was cancelled")

    def watch(self, sock: socket.socket) -> None:
        """Name the socket that the call waits on from now on.

        :raises Cancelled: the call was cancelled already.
        """
        with self._lock:
            self.check()
            self._socket = sock

    def release(self) -> None:
        """Forget the socket: it belongs to its pool, or to nobody."""
        with self._lock:
            self._socket = None


_current: ContextVar[Cancel | None] = ContextVar("openai_compat_cancel", default=None)


def current() -> Cancel | None:
    """Return the cancel of the call that this thread is making."""
    return _current.get()


@contextmanager
def calling(cancel: Cancel | None) -> Iterator[None]:
    """Make a call that *cancel* can end: connections made or used meanwhile find it by :func:`current`."""
    token = _current.set(cancel)
    try:
        yield
    finally:
        _current.reset(token)
