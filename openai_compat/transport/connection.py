"""Connections of the upstream pool that know their socket.

urllib3 lets a pool use connection classes of one's own. Ours set the idle time-out once the head is
there (requests knows one read time-out only), keep the socket at hand after http.client has let
go of it, and tell a kept connection that its server had closed from a server that broke.
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

#: bytes that are sent at once
_BLOCK = 262144

_SOCKET = "openai_compat_socket"


class StaleConnection(ConnectionError):
    """A connection that had served before was closed before any byte of this answer."""

    @classmethod
    def caused(cls, error: BaseException) -> bool:
        """Whether *error* is one, under the wrappings of urllib3 and requests."""
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, cls):
                return True
            inner = inner.__cause__ or inner.__context__
        return False


def socket_of(response: urllib3.BaseHTTPResponse) -> socket.socket | None:
    """The socket that a response is read from."""
    return getattr(response, _SOCKET, None)


class _NoByte(RemoteDisconnected):
    """The server closed the connection, or broke it, and had sent nothing."""


class _Response(HTTPResponse):
    """Tells an end before the first byte from one after it: only the former may be retried."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._cancel = current()
        super().__init__(*args, **kwargs)

    def _close_conn(self) -> None:
        if self._cancel is not None:  # at its end, and before its connection goes back to the pool
            self._cancel.release()
        super()._close_conn()  # type: ignore[misc]

    def begin(self) -> None:
        try:
            came = self.fp.peek(1)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _NoByte(str(error)) from error
        if not came:
            raise _NoByte("Remote end closed connection without response")
        super().begin()


class _KnowsItsSocket:
    """Mixed into urllib3's two connection classes."""

    response_class = _Response
    idle_timeout: float
    sock: socket.socket | None
    _served = False

    def connect(self) -> None:
        cancel = current()
        if cancel is not None:
            cancel.check()
        super().connect()  # type: ignore[misc]
        self._served = False

    def send(self, data: Any) -> None:
        """Send in blocks, each within the idle time-out: a large body needs longer than connecting."""
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
        sock = self.sock
        try:
            response = super().getresponse()  # type: ignore[misc]
        except _NoByte as error:
            cancel = current()
            if cancel is not None:  # it was not the server that ended this one
                cancel.check()
            if self._served:
                raise StaleConnection from error
            raise
        except InvalidHeader:  # urllib3 leaves the reader of the body open
            if sock is not None:
                os.close(sock.detach())
            raise
        self._served = True
        if sock is not None:
            sock.settimeout(self.idle_timeout)
        setattr(response, _SOCKET, sock)
        return response


class PoolAdapter(HTTPAdapter):
    """A transport adapter with our connections, without retries.

    :param idle_timeout: seconds between two reads of a body.
    :param pool_size: connections kept open; more are made when needed, and closed after use.
    """

    def __init__(self, *, idle_timeout: float, pool_size: int) -> None:
        http = type("_HTTP", (_KnowsItsSocket, HTTPConnection), {"idle_timeout": idle_timeout})
        https = type("_HTTPS", (_KnowsItsSocket, HTTPSConnection), {"idle_timeout": idle_timeout})
        self._pools = {
            "http": type("_HTTPPool", (HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("_HTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
        }
        super().__init__(pool_connections=2, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
