"""gunicorn's threaded worker, except that a request is read before it takes a thread.

The stock worker reads head and body in a thread: as many slow clients as it has threads stop the server. Here the main
loop, which polls the sockets anyway, collects the head and up to 1 MiB of the body, within a deadline; only then the
request goes to a thread, by way of the parser's buffer. What a thread itself has to read (the rest of a larger body)
has a deadline too.

The bytes are looked at before they are taken, so that those of the next request stay in the socket and make it readable
again, as gunicorn's loop expects. Nothing of gunicorn's is copied: ``enqueue_req`` and ``murder_keepalived``, which it
calls in each round of the loop, are extended, and versions 22 to 27 have them alike. TLS and HTTP/2 are left to it.

It can be used without ``openai-compat serve``::

    gunicorn --worker-class openai_compat.server.buffering_worker.BufferingThreadWorker --threads 64 module:application
"""

from __future__ import annotations

import errno
import io
import selectors
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from http.client import responses
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from openai_compat.errors import APIError
from openai_compat.middleware.responder import new_id
from openai_compat.server.incoming_request import RECEIVE_TIMEOUT, IncomingRequest
from openai_compat.wire import json

#: bytes that a worker holds of all requests that no thread has taken yet
MAX_BUFFERED = 64 * 1024 * 1024
#: bytes of one look at a socket: other connections wait as long as these take
_READ_SIZE = 65536
#: bytes per second: a thread that receives at least so many goes on reading a large body
_MIN_RATE = 65536
#: seconds that a request whose beginning is there may take to arrive once the server stops
_STOPPING = 5.0
#: seconds that a new connection has then until its first bytes are there: the client may have sent them already
_ON_ITS_WAY = 0.5


class BufferingThreadWorker(ThreadWorker):  # type: ignore[misc, unused-ignore]
    """A threaded worker whose threads are taken by complete requests only.

    An attribute ``receive_timeout`` of gunicorn's application object overrides the default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeout: float = getattr(self.app, "receive_timeout", RECEIVE_TIMEOUT)
        #: connections whose request has not arrived, the oldest first; only the main thread uses it
        self._incoming: dict[TConn, IncomingRequest] = {}
        #: bytes of incoming requests, and of complete ones that wait for a thread
        self._buffered = 0
        self._buffered_lock = threading.Lock()
        #: connections that incomplete requests leave to others
        self._reserve = max(2, self.worker_connections // 10)
        self._is_stopping = False
        protocols = getattr(self.cfg, "http_protocols", None) or ()
        is_http = getattr(self.cfg, "protocol", "http") == "http" and "h2" not in protocols
        self._is_plain_http1 = is_http and not self.cfg.is_ssl

    # -- what gunicorn calls ------------------------------------------------------------------

    def enqueue_req(self, conn: TConn) -> None:
        """Receive a request, now or as the main loop finds the socket readable; then give it to a thread."""
        if not self._is_plain_http1:
            super().enqueue_req(conn)
            return
        if conn.parser is not None and conn.parser.unreader.has_timed_out:
            # Nobody knows where the next request begins.
            self.nr_conns -= 1
            conn.close()
            return
        conn.sock.setblocking(False)
        timeout = self._timeout if self.alive else min(self._timeout, _STOPPING)
        request = self._incoming[conn] = IncomingRequest(time.monotonic() + timeout)
        if conn.parser is not None and (rest := conn.parser.unreader.buf.getvalue()):
            # gunicorn's parser has read ahead, into this request.
            conn.parser.unreader.buf = io.BytesIO()
            used = request.feed(rest)
            self._count(len(request.data))
            if request.is_complete:
                self._hand_over(conn, rest[used:])
                return
        self._receive(conn)
        if conn in self._incoming:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def murder_keepalived(self, *args: Any, **kwargs: Any) -> None:
        """Close the connections whose time is over, also those whose request has not arrived."""
        super().murder_keepalived(*args, **kwargs)
        if not self.alive and not self._is_stopping:
            self._is_stopping = True
            now = time.monotonic()
            for request in self._incoming.values():
                request.deadline = min(request.deadline, now + (_STOPPING if request.data else _ON_ITS_WAY))
        self._refuse_late()
        # gunicorn accepts nobody while its connections are too many, and versions 22 and 23 do not even poll.
        while self.nr_conns > self.worker_connections - self._reserve and self._incoming:
            self._refuse(next(iter(self._incoming)), _OVERLOADED)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events; gunicorn 24 and 25 would wait for the whole graceful time-out when they stop."""
        super().wait_for_and_dispatch_events(min(timeout, 1.0))

    def handle(self, conn: TConn) -> Any:
        """Handle a request in a thread; gunicorn calls this there."""
        if self._is_plain_http1:
            self._count(-conn.parser.unreader.buf.getbuffer().nbytes)
        return super().handle(conn)

    def run(self) -> None:
        """Serve until the worker stops."""
        super().run()
        for conn in self._incoming:  # those that gunicorn does not wait for
            conn.close()

    # -- receiving, in the main thread --------------------------------------------------------

    def _on_readable(self, conn: TConn, sock: socket.socket) -> None:
        if conn in self._incoming:  # another event of the same round may have ended it
            self._receive(conn)

    def _receive(self, conn: TConn) -> None:
        """Read what has arrived; a complete request goes to a thread."""
        request = self._incoming[conn]
        try:
            data = conn.sock.recv(_READ_SIZE, socket.MSG_PEEK)
            if data:
                self._take(conn, request, data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the client has reset the connection
            data = b""
        if not data:
            self._close(conn)
        elif request.is_complete:
            self._hand_over(conn)
        else:
            self._make_room()

    def _take(self, conn: TConn, request: IncomingRequest, data: bytes) -> None:
        """Take from the socket what belongs to the request.

        :param data: what the socket has; it is still there.
        """
        before = len(request.data)
        used = request.feed(data)
        self._count(len(request.data) - before)
        while used:
            used -= len(conn.sock.recv(used))
        if request.expects_continue and not request.is_complete:
            request.expects_continue = False
            conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hand_over(self, conn: TConn, rest: bytes = b"") -> None:
        """Give a complete request to a thread.

        :param rest: what gunicorn's parser had read of the requests after it.
        """
        request = self._forget(conn)
        conn.init()
        if not isinstance(conn.parser.unreader, _Unreader):
            conn.parser.unreader = _Unreader(conn.sock)
        conn.parser.unreader.deadline = time.monotonic() + self._timeout
        conn.parser.unreader.unread(bytes(request.data) + rest)
        self._count(len(rest))
        super().enqueue_req(conn)

    def _make_room(self) -> None:
        """Refuse the oldest incomplete requests while those of all clients together take too much memory."""
        while self._buffered > MAX_BUFFERED and self._incoming:
            self._refuse(next(iter(self._incoming)), _OVERLOADED)

    def _refuse_late(self) -> None:
        """Refuse the requests whose deadline has passed."""
        now = time.monotonic()
        oldest = next(iter(self._incoming.values()), None)
        if oldest is None or (oldest.deadline > now and self.alive):
            return  # all others came later
        for conn, request in list(self._incoming.items()):
            if request.deadline <= now:
                self._refuse(conn, _TIMED_OUT if self.alive else _STOPS)

    def _refuse(self, conn: TConn, answer: _Answer) -> None:
        """Close a connection; the client gets an answer if it has begun a request."""
        if self._incoming[conn].data:
            try:
                conn.sock.send(answer.encoded())
                conn.sock.shutdown(socket.SHUT_WR)
                # With unread bytes in the socket, closing would reset the connection, and the answer could be lost.
                conn.sock.recv(_READ_SIZE)
            except OSError:
                pass  # the client has left, or there is nothing to read
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self._count(-len(self._forget(conn).data))
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: TConn) -> IncomingRequest:
        """Stop waiting for a request, and return what has arrived of it."""
        with suppress(KeyError, ValueError):  # it may have come at once
            self.poller.unregister(conn.sock)
        return self._incoming.pop(conn)

    def _count(self, size: int) -> None:
        with self._buffered_lock:
            self._buffered += size


class _Unreader(SocketUnreader):  # type: ignore[misc, unused-ignore]
    """The source of gunicorn's parser: what was received before, then the socket, until a deadline."""

    deadline = 0.0
    has_timed_out = False

    def chunk(self, *args: Any) -> bytes:
        """Read from the socket, in a thread.

        :raises TimeoutError: the deadline has passed. Its number is that of a connection that was reset, so that
            gunicorn closes the connection without a traceback in the log.
        """
        timeout = self.sock.gettimeout()
        remaining = self.deadline - time.monotonic()
        try:
            if remaining <= 0:
                raise TimeoutError
            self.sock.settimeout(remaining if timeout is None else min(timeout, remaining))
            data: bytes = super().chunk(*args)
        except TimeoutError:
            self.has_timed_out = True
            raise TimeoutError(errno.ECONNRESET, "the request did not arrive in time") from None
        finally:
            self.sock.settimeout(timeout)
        self.deadline += len(data) / _MIN_RATE
        return data


class _Answer:
    """An error response in OpenAI's format, after which the connection is closed."""

    def __init__(self, error: APIError) -> None:
        self._body = json.encode(error.body())
        head = {"Content-Type": "application/json", "Content-Length": str(len(self._body)), **dict(error.headers)}
        fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._head = f"HTTP/1.1 {error.status} {responses[error.status]}\r\n{fields}Connection: close\r\n"

    def encoded(self) -> bytes:
        """Return the response, with an id of its own."""
        return f"{self._head}x-request-id: {new_id('req_')}\r\n\r\n".encode() + self._body


_RETRY = (("Retry-After", "2"),)
_TIMED_OUT = _Answer(APIError(408, "The request did not arrive in time.", code="request_timeout"))
_OVERLOADED = _Answer(APIError(503, "The server receives too many requests.", code="overloaded", headers=_RETRY))
_STOPS = _Answer(APIError(503, "The server is stopping.", code="overloaded", headers=_RETRY))
