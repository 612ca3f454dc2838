"""The HTTP client of an upstream: requests and urllib3, with what they do unasked turned off.

Cookies, credentials and proxies of the environment, redirects and retries are off, and every exception of requests,
urllib3 and sockets is translated in one place. This module imports ``requests``, which must not be imported before
gevent has patched: ``upstream.py`` imports it at the first request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from urllib3.exceptions import HTTPError

from openai_compat.errors import APIError, bad_gateway
from openai_compat.log import log
from openai_compat.transport.cancel import Cancel, calling
from openai_compat.transport.connection import PoolAdapter, StaleConnection, set_deadline, socket_of
from openai_compat.transport.side_channel import SideChannel
from openai_compat.transport.urls import redacted_text

#: bytes of one read at most; a read returns what has arrived, which is usually one line
_READ = 65536
#: seconds for reading the end of a body after its last line, to reuse the connection: about a long round trip. Opening
#: a new connection costs no more.
_GRACE = 0.25
#: bytes of that: the end of a chunked body has 5, and blank lines some more
_GRACE_BYTES = 4096
#: seconds of reading without a wait after which other greenlets get a turn, where threads are greenlets
_TURN = 0.01

#: what can go wrong in a request
_FAILURES = (requests.RequestException, HTTPError, OSError, UnicodeError)


class HTTPClient:
    """The connections of one process to an upstream.

    :param name: of the upstream, for the log; without secrets.
    :param timeout: ``(connect, idle)`` in seconds.
    :param unix_path: path of a Unix socket.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: tuple[float, float],
        verify: bool | str,
        proxies: Mapping[str, str],
        pool_size: int,
        unix_path: str | None,
    ) -> None:
        self._name = name
        self._connect, self.idle = timeout
        self._verify, self._proxies = verify, dict(proxies)
        session = self._session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.headers.clear()
        adapter = PoolAdapter(idle_timeout=self.idle, pool_size=pool_size, unix_path=unix_path)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        self._adapter = adapter

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Any, cancel: Cancel | None, *, head: float
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and return the response after its head.

        :param body: bytes, an iterable, or None.
        :param head: seconds until the head of the response is complete.
        :raises APIError: the upstream cannot be reached, takes too long or breaks the connection.
        """
        try:
            prepared = self._session.prepare_request(requests.Request(method, url, headers=dict(headers), data=body))
            with calling(cancel):
                return self._send(prepared, head)
        except _FAILURES as error:
            raise self.translated(error, cancel) from error

    def _send(self, prepared: requests.PreparedRequest, head: float) -> urllib3.BaseHTTPResponse:
        try:
            return self._send_once(prepared, head)
        except requests.ConnectionError as error:
            # One retry, and only if the server closed an idle connection before the request arrived (F11).
            if not StaleConnection.caused(error) or not _rewind(prepared.body):
                raise
        self._adapter.close()  # the other idle connections have probably been closed too
        return self._send_once(prepared, head)

    def _send_once(self, prepared: requests.PreparedRequest, head: float) -> urllib3.BaseHTTPResponse:
        # Not Session.send(): it reads the body of a redirect, and handles cookies.
        response = self._adapter.send(
            prepared, stream=True, timeout=(self._connect, head), verify=self._verify, proxies=self._proxies
        )
        raw: urllib3.BaseHTTPResponse = response.raw
        return raw

    def translated(self, error: Exception, cancel: Cancel | None) -> APIError:
        """Translate an exception of requests, urllib3 or a socket to the client's error, which has no URL or key."""
        causes = list(_causes(error))
        level = logging.INFO if cancel is not None and cancel.is_set else logging.WARNING
        log.log(level, "%s: %s", self._name, redacted_text(f"{type(causes[-1]).__name__}: {causes[-1]}"))
        # In this order: urllib3's exception for a refused connection is a subclass of its time-out.
        if any(isinstance(cause, _UNREACHABLE) for cause in causes):
            return APIError(502, "The backend could not be reached.", code="upstream_unreachable")
        if any(isinstance(cause, _TIMEOUTS) for cause in causes):
            return APIError(504, "The backend took too long.", code="upstream_timeout", retry=False)
        return bad_gateway("The connection to the backend broke.")


_TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
_UNREACHABLE = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.NameResolutionError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
    requests.exceptions.SSLError,
    requests.exceptions.InvalidURL,
    UnicodeError,
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all its causes, which requests and urllib3 store in ``args`` or ``reason`` too."""
    todo, seen = [error], set()
    while todo:
        error = todo.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        inner = (*error.args, error.__cause__, error.__context__, getattr(error, "reason", None))
        todo.extend(cause for cause in inner if isinstance(cause, BaseException))


def _rewind(body: Any) -> bool:
    """Return whether a body can be sent again, and let it begin again."""
    return isinstance(body, bytes | None) or body.rewind()


class Body:
    """The body of an upstream's response, in chunks as they arrive.

    A translated response is a stream of lines, and must complete one within the idle time-out; blank lines and parts of
    a line do not count. Any other body must go on within it. The time in which nobody reads does not count.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, client: HTTPClient, channel: SideChannel | None) -> None:
        self._response = response
        self._client = client
        self._channel = channel
        self._left = client.idle
        self._line_has_text = False
        self._turn_began = time.monotonic()
        self._first: bytes | None = None
        if channel is not None:
            channel.drain = partial(_drain, response)  # a bound method would make a reference cycle with the channel

    def read_first(self) -> None:
        """Read the first chunk, so that a failure before it can still be an error response.

        :raises APIError: the response breaks, takes too long or is not valid.
        """
        self._first = next(self, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            data, self._first = self._first, None
        else:
            data = self._read()
        if not data:
            raise StopIteration
        return data

    def _read(self) -> bytes:
        cancel = self._channel.cancel if self._channel is not None else None
        began = time.monotonic()
        try:
            set_deadline(self._response, self._left)
            # read1 returns what has arrived, whether the body is chunked, has a length, or ends with the connection.
            data = self._response.read1(_READ, decode_content=True)
            if not data and cancel is not None:
                cancel.check()  # if the body ends with the connection, cancelling looks like its end
        except (HTTPError, OSError, ValueError) as error:
            failure = self._client.translated(error, cancel)
            if self._channel is not None:
                self._channel.failure = failure
            raise failure from error
        now = time.monotonic()
        self._left = self._client.idle if self._is_progress(data) else self._left - (now - began)
        if now - self._turn_began > _TURN:
            self._turn_began = now
            time.sleep(0)
        return data

    def _is_progress(self, data: bytes) -> bool:
        """Return whether these bytes are a sign of life: of a stream of lines, whether they end one that has text."""
        if self._channel is None:
            return True
        line, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._line_has_text = self._line_has_text or not data.isspace()
            return False
        ends_line = self._line_has_text or bool(line.strip())
        self._line_has_text = bool(rest.strip())
        return ends_line

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end, else close it."""
        self._response.close()


def _drain(response: urllib3.BaseHTTPResponse) -> bool:
    """Read the end of the body if it arrives within :data:`_GRACE`, so that the connection can be reused.

    Return whether the body has ended.
    """
    left = _GRACE_BYTES
    set_deadline(response, _GRACE)
    try:
        # After its end the response has released its connection, which another request may use already (F45).
        while left > 0 and socket_of(response) is not None and not response.closed:
            data = response.read1(left, decode_content=False)
            if not data or data.strip():
                break  # the end, or data after the last line, which makes the connection unusable (F35)
            left -= len(data)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        log.info("an upstream connection cannot be reused: %s", type(error).__name__)
        return False
    return bool(response.closed)
