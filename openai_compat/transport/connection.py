"""Connection classes for the pool of an upstream, which urllib3 allows a pool to replace.

They add what requests and urllib3 lack: deadlines for the head and for parts of the body, which bytes that arrive one
by one do not extend; the socket of a response (for cancelling and draining); Unix sockets; and the difference between a
server that closed an idle connection and one that failed. No URL, header or path is known here.
"""

from __future__ import annotations

import io
import os
import socket
import time
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import InvalidHeader, NewConnectionError

from openai_compat.transport.cancel import current

#: bytes of one send: few enough that a slow link takes each within the idle time-out, and few sends for a large body
_BLOCK = 262144

_SOCKET_ATTRIBUTE = "openai_compat_socket"
_READER_ATTRIBUTE = "openai_compat_reader"

#: seconds after a request was sent within which the end of a reused connection means that it had been closed before: a
#: long round trip. Later the server may have begun to work, and would do the work twice.
_STALE_WITHIN = 0.5


class StaleConnection(ConnectionError):
    """A reused connection was closed before the first byte of the response: the request may be sent again."""

    @classmethod
    def caused(cls, error: BaseException) -> bool:
        """Return whether *error*, which requests or urllib3 raised, was caused by this one."""
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, cls):
                return True
            inner = inner.__cause__ or inner.__context__
        return False


def socket_of(response: urllib3.BaseHTTPResponse) -> socket.socket | None:
    """Return the socket that a response is read from; None for a response of another connection class."""
    return getattr(response, _SOCKET_ATTRIBUTE, None)


def set_deadline(response: urllib3.BaseHTTPResponse, seconds: float) -> None:
    """Let every read of a response's body fail that lasts beyond *seconds* from now, however many bytes arrive."""
    reader = getattr(response, _READER_ATTRIBUTE, None)
    sock = socket_of(response)
    if reader is not None:
        reader.deadline = time.monotonic() + seconds
    elif sock is not None:
        sock.settimeout(seconds)


class _Reader(socket.SocketIO):
    """The bytes of a socket, until a deadline. A socket's own time-out starts again with every byte."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        sock._io_refs += 1  # type: ignore[attr-defined]  # as makefile() does: closing the reader releases the socket
        #: of ``time.monotonic()``; None: the socket's own time-out applies
        self.deadline: float | None = None
        #: the server closed the connection
        self.is_at_end = False

    def readinto(self, buffer: Any) -> int | None:
        """Read what has arrived, or wait for it.

        :raises TimeoutError: nothing arrived before the deadline.
        """
        if self.deadline is not None:
            seconds = self.deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(seconds)  # type: ignore[attr-defined]
        size = super().readinto(buffer)
        self.is_at_end = size == 0
        return size


class _NoResponse(RemoteDisconnected):
    """The server closed or reset the connection without sending a byte."""


class _Response(HTTPResponse):
    """A response that distinguishes an end before the first byte, after which a retry is allowed, from a later one."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._cancel, self._sock = current(), sock
        super().__init__(sock, *args, **kwargs)
        self.reader: _Reader | None = None
        if isinstance(sock, socket.socket):  # others, such as TLS within TLS, have files of their own
            self.fp.close()
            self.reader = _Reader(sock)
            self.fp = io.BufferedReader(self.reader)

    def _close_conn(self) -> None:
        if self._cancel is not None:  # http.client calls this at the end of the body, before the connection is reused
            self._cancel.release(self._sock)
        super()._close_conn()  # type: ignore[misc]

    def begin(self) -> None:
        """Read the head, within the socket's time-out in all: by now it is the one for the head.

        :raises _NoResponse: the connection ended before the first byte.
        """
        if self.reader is not None:
            seconds = self._sock.gettimeout()
            self.reader.deadline = None if seconds is None else time.monotonic() + seconds
        try:
            received = self.fp.peek(1)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _NoResponse(str(error)) from error
        if not received:
            raise _NoResponse("Remote end closed connection without response")
        super().begin()
        if self.reader is not None and self.reader.is_at_end:  # http.client takes it for the end of the head
            raise RemoteDisconnected("Remote end closed connection in the head of the response")


class _ConnectionMixin:
    """What is common to our subclasses of urllib3's two connection classes."""

    response_class = _Response
    idle_timeout: float
    #: path of a Unix socket; None for TCP
    unix_path: str | None
    sock: socket.socket | None
    timeout: float
    _served = False
    _sent_at = 0.0

    def _new_conn(self) -> socket.socket:
        if self.unix_path is None:
            sock: socket.socket = super()._new_conn()  # type: ignore[misc]
            return sock
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_path)
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, f"Failed to connect: {error}") from error  # type: ignore[arg-type]
        return sock

    def connect(self) -> None:
        """Connect, unless the call is cancelled."""
        cancel = current()
        if cancel is not None:
            cancel.check()
        super().connect()  # type: ignore[misc]
        self._served = False

    def send(self, data: Any) -> None:
        """Send in blocks, each within the idle time-out: the connect time-out is too short for a large body."""
        if self.sock is None:
            self.connect()
        if self.sock is not None:
            self.sock.settimeout(self.idle_timeout)
            cancel = current()
            if cancel is not None:
                cancel.watch(self.sock)
        if not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
        else:
            for start in range(0, len(data), _BLOCK):
                super().send(data[start : start + _BLOCK])  # type: ignore[misc]
        self._sent_at = time.monotonic()

    def getresponse(self) -> Any:
        """Return the response after its head, with its socket and the idle time-out set.

        :raises StaleConnection: the server closed a reused connection before the first byte.
        """
        sock = self.sock
        try:
            response = super().getresponse()  # type: ignore[misc]
        except _NoResponse as error:
            cancel = current()
            if cancel is not None:  # a cancelled call must not be sent again
                cancel.check()
            if self._served and time.monotonic() - self._sent_at <= _STALE_WITHIN:
                raise StaleConnection from error
            raise
        except InvalidHeader:  # urllib3 does not close the file of the response, which holds the socket open
            if sock is not None:
                os.close(sock.detach())
            raise
        self._served = True
        if sock is not None:
            sock.settimeout(self.idle_timeout)
        reader = getattr(response._original_response, "reader", None)
        if reader is not None:
            reader.deadline = None
        setattr(response, _SOCKET_ATTRIBUTE, sock)
        setattr(response, _READER_ATTRIBUTE, reader)
        return response


class PoolAdapter(HTTPAdapter):
    """A transport adapter of requests with the connection classes of this module, without retries.

    :param idle_timeout: seconds of one send, and of one read of a body without a deadline.
    :param pool_size: connections that stay open for reuse; any beyond are closed after one request.
    :param unix_path: path of a Unix socket to connect to, whatever host the URL has.
    """

    def __init__(self, *, idle_timeout: float, pool_size: int, unix_path: str | None = None) -> None:
        values = {"idle_timeout": idle_timeout, "unix_path": unix_path}
        http = type("_HTTP", (_ConnectionMixin, HTTPConnection), values)
        https = type("_HTTPS", (_ConnectionMixin, HTTPSConnection), values)
        self._pools = {
            "http": type("_HTTPPool", (HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("_HTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
        }
        super().__init__(pool_connections=2, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool manager, with the pools of this module."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool manager of a proxy, with the pools of this module."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
