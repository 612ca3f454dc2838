"""Connection classes for the pool of an upstream, which urllib3 allows a pool to replace.

They add what requests and urllib3 lack: an idle time-out after the head (requests has one read time-out for both), the
socket of a response (for cancelling and draining), and the difference between a server that closed an idle connection
and one that failed. No URL, header or path is known here.
"""

from __future__ import annotations

import os
import socket
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import InvalidHeader

from openai_compat.transport.cancel import current

#: bytes of one send: few enough that a slow link takes each within the idle time-out, and few sends for a large body
_BLOCK = 262144

_SOCKET_ATTRIBUTE = "openai_compat_socket"


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


class _NoResponse(RemoteDisconnected):
    """The server closed or reset the connection without sending a byte."""


class _Response(HTTPResponse):
    """A response that distinguishes an end before the first byte, after which a retry is allowed, from a later one."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._cancel, self._sock = current(), sock
        super().__init__(sock, *args, **kwargs)

    def _close_conn(self) -> None:
        if self._cancel is not None:  # http.client calls this at the end of the body, before the connection is reused
            self._cancel.release(self._sock)
        super()._close_conn()  # type: ignore[misc]

    def begin(self) -> None:
        """Read the head.

        :raises _NoResponse: the connection ended before the first byte.
        """
        try:
            received = self.fp.peek(1)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _NoResponse(str(error)) from error
        if not received:
            raise _NoResponse("Remote end closed connection without response")
        super().begin()


class _ConnectionMixin:
    """What is common to our subclasses of urllib3's two connection classes."""

    response_class = _Response
    idle_timeout: float
    sock: socket.socket | None
    _served = False

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
            return
        for start in range(0, len(data), _BLOCK):
            super().send(data[start : start + _BLOCK])  # type: ignore[misc]

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
            if self._served:
                raise StaleConnection from error
            raise
        except InvalidHeader:  # urllib3 does not close the file of the response, which holds the socket open
            if sock is not None:
                os.close(sock.detach())
            raise
        self._served = True
        if sock is not None:
            sock.settimeout(self.idle_timeout)
        setattr(response, _SOCKET_ATTRIBUTE, sock)
        return response


class PoolAdapter(HTTPAdapter):
    """A transport adapter of requests with the connection classes of this module, without retries.

    :param idle_timeout: seconds between two reads of a body.
    :param pool_size: connections that stay open for reuse; any beyond are closed after one request.
    """

    def __init__(self, *, idle_timeout: float, pool_size: int) -> None:
        http = type("_HTTP", (_ConnectionMixin, HTTPConnection), {"idle_timeout": idle_timeout})
        https = type("_HTTPS", (_ConnectionMixin, HTTPSConnection), {"idle_timeout": idle_timeout})
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
