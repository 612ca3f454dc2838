"""Cancelling of native calls from another thread.

A thread that reads from an upstream can only be woken by shutting down its socket; closing the response from another
thread would wait for that read. :class:`Cancel` may shut the socket down only while it belongs to the call: from the
moment it is connected until just before the connection returns to its pool (F45).

Each request of a client has one :class:`Cancel`, and each native call that it leads to has a child of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar


class Cancelled(OSError):
    """The native call was cancelled."""


class Cancel:
    """A switch that ends one native call, or all native calls of a request.

    It may be set before, during or after a call. Every method may be called from any thread, any number of times.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._children: list[Cancel] = []
        self.is_set = False

    def child(self) -> Cancel:
        """Return a new cancel for one native call. Setting this one sets the child too, but not the reverse."""
        child = Cancel()
        with self._lock:
            self._children.append(child)
        if self.is_set:
            child.set()
        return child

    def set(self) -> None:
        """End the call and those of the children. Threads that wait on their sockets wake up.

        All are set before the first wakes up: its thread may begin another call of the request otherwise.
        """
        for cancel in self._mark():
            cancel._shut_down()

    def _mark(self) -> list[Cancel]:
        """Set this one and its children, and return them."""
        with self._lock:
            self.is_set = True
            children = list(self._children)
        return [self, *(cancel for child in children for cancel in child._mark())]

    def _shut_down(self) -> None:
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):  # the server may have closed the connection already
                    # Not the method of a TLS socket: it discards the TLS state, and the thread that reads would take
                    # encrypted bytes for the response. urllib3's TLS in TLS is not a socket, but its `socket` is one.
                    socket.socket.shutdown(getattr(self._socket, "socket", self._socket), socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise if the call was cancelled.

        :raises Cancelled: the call was cancelled.
        """
        if self.is_set:
            raise Cancelled("the call was cancelled")

    def watch(self, sock: socket.socket) -> None:
        """Register the socket of the call's connection.

        :raises Cancelled: the call was cancelled.
        """
        with self._lock:
            self.check()
            self._socket = sock

    def release(self, sock: socket.socket) -> None:
        """Unregister a socket, before its connection returns to the pool or is closed.

        Another one stays registered: an application may close the response of a first attempt after it began a second.
        """
        with self._lock:
            if self._socket is sock:
                self._socket = None


_current: ContextVar[Cancel | None] = ContextVar("openai_compat_cancel", default=None)


def current() -> Cancel | None:
    """Return the cancel of the call that the current thread is making; None if it has none."""
    return _current.get()


@contextmanager
def calling(cancel: Cancel | None) -> Iterator[None]:
    """Run a block whose native call *cancel* can end. Connections used in the block get it from :func:`current`."""
    token = _current.set(cancel)
    try:
        yield
    finally:
        _current.reset(token)
