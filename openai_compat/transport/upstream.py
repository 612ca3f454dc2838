"""A remote Ollama as a WSGI application.

Requests go to the paths below only. Of the client's headers they have ``Accept`` and ``Content-Type``; cookies,
credentials and proxies of the environment, redirects and compression, which requests would use by default, are off.
Every exception of requests, urllib3 and sockets is translated in one place.

This module imports ``requests``, which must not be imported before gevent has patched: import it where an ``Upstream``
is made, not at the top of a module.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from http.client import responses
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
import urllib3
from urllib3.exceptions import HTTPError

from openai_compat.errors import APIError, bad_gateway
from openai_compat.transport.cancel import calling
from openai_compat.transport.connection import PoolAdapter, StaleConnection, socket_of
from openai_compat.transport.headers import checked_headers, passed_on
from openai_compat.transport.side_channel import SideChannel, refused_credentials, side_channel
from openai_compat.transport.urls import checked_url, redacted, redacted_text
from openai_compat.wire import json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("openai_compat")

Timeout = float | tuple[float, float, float]

#: (connect, head, idle) in seconds: a model may take minutes to load, and Ollama sends no head before its first token
DEFAULT_TIMEOUT = (5.0, 600.0, 300.0)

#: native paths that are always allowed → their methods
PATHS: dict[str, frozenset[str]] = {
    "/": frozenset(("GET", "HEAD")),
    "/api/chat": frozenset(("POST",)),
    "/api/generate": frozenset(("POST",)),
    "/api/embed": frozenset(("POST",)),
    "/api/embeddings": frozenset(("POST",)),
    "/api/tags": frozenset(("GET", "HEAD")),
    "/api/show": frozenset(("POST",)),
    "/api/ps": frozenset(("GET", "HEAD")),
    "/api/version": frozenset(("GET", "HEAD")),
}

#: the request that deletes a model
DELETE = ("DELETE", "/api/delete")

#: native paths that change the server, allowed by ``native_admin`` only
_ADMIN = re.compile(r"/api/(pull|push|create|copy|delete|blobs/sha256[:-][0-9a-f]{64})")

#: the header that counts the gateways a request has passed
HOPS = "openai-compat-hops"
#: gateways that a request may pass before it counts as a loop; one or two in a row are usual
MAX_HOPS = 4

#: bytes of one read at most; a read returns what has arrived, which is usually one line
_READ = 65536
#: seconds for reading the end of a body after its last line, to reuse the connection: about a long round trip. Opening
#: a new connection costs no more.
_GRACE = 0.25
#: bytes of that: the end of a chunked body has 5, and blank lines some more
_GRACE_BYTES = 4096


class Upstream:
    """A WSGI application that sends native requests to an Ollama behind a URL.

    :param url: ``http://host:port``, with a path if Ollama is mounted below one. ``user:password@`` is sent as Basic
        authorization and never shown.
    :param timeout: seconds, or ``(connect, head, idle)``: for connecting, until the response begins, between two reads.
    :param headers: sent with every request, such as ``{"Authorization": "Bearer …"}``.
    :param verify: whether to check the certificate, or the path of a CA bundle.
    :param proxies: ``{"https": "http://…"}``; those of the environment are not used.
    :param native_admin: pass pull, push, create, copy, delete and blobs through.
    :param pool_size: connections that stay open for reuse.
    :raises ValueError: the URL, a header or the time-out is not valid, or the URL is one of an OpenAI API.
    """

    #: it may be called in several threads at once (see ``side_channel.py``)
    is_remote = True

    def __init__(
        self,
        url: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        native_admin: bool = False,
        pool_size: int = 64,
    ) -> None:
        self.url = checked_url(url)
        self.connect, self.head, self.idle = _timeouts(timeout)
        self._headers = checked_headers(headers or {})
        self._verify = verify
        self._proxies = dict(proxies or {})
        self._native_admin = native_admin
        self._pool_size = pool_size
        self._session: tuple[int, requests.Session] | None = None

    def __repr__(self) -> str:
        return f"<Upstream {redacted(self.url)}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Forward the request, and return the response or, if that fails, a native error response."""
        channel = side_channel(environ)
        if channel is not None:
            channel.reset()
        try:
            response = self._send(environ, channel)
        except APIError as error:
            if channel is not None:
                channel.failure = error
            return _native_error(error, environ, start_response)
        status = f"{response.status} {response.reason or 'Unknown'}"
        if not status.isascii() or not status.isprintable():
            status = f"{response.status} Unknown"
        start_response(status, passed_on(list(response.headers.items()), response.CONTENT_DECODERS))
        return _Body(response, self, channel)

    def _send(self, environ: WSGIEnvironment, channel: SideChannel | None) -> urllib3.BaseHTTPResponse:
        """Send the request, and return the response after its head.

        :raises APIError: the request is not allowed, the upstream cannot be reached, or its status is not usable.
        """
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "") or "/"
        self._check_path(method, path, is_ours=channel is not None)
        if _hops(environ) >= MAX_HOPS:
            log.error("%r: its requests arrive at this server again; check its URL", self)
            raise APIError(502, "The backend is this server itself.", code="upstream_loop", retry=False)
        request = requests.Request(
            method,
            self.url + quote(path, safe="/:"),
            headers=self._request_headers(environ),
            data=_body(environ, is_ours=channel is not None),
        )
        try:
            with calling(channel.cancel if channel is not None else None):
                raw = self._send_over_pool(request)
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            raise self.translated(error, channel) from error
        if raw.status < 200:  # the final response is still to come on this connection (F18)
            log.error("the upstream answered %d", raw.status)
            raw.close()
            raise bad_gateway()
        if channel is not None:
            _check_status(raw)
        return raw

    def _send_over_pool(self, request: requests.Request) -> urllib3.BaseHTTPResponse:
        session = self._process_session()
        prepared = session.prepare_request(request)
        # Not Session.send(): it reads the body of a redirect, and handles cookies.
        adapter = session.get_adapter(self.url)

        def send() -> urllib3.BaseHTTPResponse:
            response = adapter.send(
                prepared,
                stream=True,
                timeout=(self.connect, self.head),
                verify=self._verify,
                proxies=self._proxies,
            )
            raw: urllib3.BaseHTTPResponse = response.raw
            return raw

        try:
            return send()
        except requests.ConnectionError as error:
            # One retry, and only if the server closed an idle connection before the request arrived (F11).
            if not StaleConnection.caused(error) or not isinstance(prepared.body, bytes | None):
                raise
        adapter.close()  # the other idle connections have probably been closed too
        return send()

    def _process_session(self) -> requests.Session:
        """Return the session of this process; processes that share a connection get each other's responses (F72)."""
        if self._session is None or self._session[0] != os.getpid():
            session = requests.Session()
            session.trust_env = False
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.headers.clear()
            adapter = PoolAdapter(idle_timeout=self.idle, pool_size=self._pool_size)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            self._session = (os.getpid(), session)
        return self._session[1]

    def _check_path(self, method: str, path: str, *, is_ours: bool) -> None:
        """Raise unless the request may be sent.

        :param is_ours: it is a native call of the middleware, not a client's request that is passed through.
        :raises APIError: 403, 404 or 405.
        """
        if (method, path) == DELETE and is_ours:  # allowed by the setting delete_models
            return
        if path in PATHS:
            if method not in PATHS[path]:
                allow = ", ".join(sorted(PATHS[path]))
                raise APIError(405, "method not allowed", headers=(("Allow", allow),))
        elif not _ADMIN.fullmatch(path):
            raise APIError(404, "not found")
        elif not self._native_admin:
            raise APIError(403, "this gateway does not allow this operation")

    def _request_headers(self, environ: WSGIEnvironment) -> dict[str, str]:
        headers = {
            "User-Agent": "openai-compat",
            "Accept": environ.get("HTTP_ACCEPT", "*/*"),
            "Accept-Encoding": "identity",
        }
        if environ.get("CONTENT_TYPE"):
            headers["Content-Type"] = environ["CONTENT_TYPE"]
        return headers | self._headers | {HOPS: str(_hops(environ) + 1)}

    def translated(self, error: Exception, channel: SideChannel | None) -> APIError:
        """Translate an exception of requests, urllib3 or a socket to the client's error, which has no URL or key."""
        causes = list(_causes(error))
        level = logging.INFO if channel is not None and channel.cancel.is_set else logging.WARNING
        log.log(level, "%r: %s", self, redacted_text(f"{type(causes[-1]).__name__}: {causes[-1]}"))
        # In this order: urllib3's exception for a refused connection is a subclass of its time-out.
        if any(isinstance(cause, _UNREACHABLE) for cause in causes):
            return APIError(502, "The backend could not be reached.", code="upstream_unreachable")
        if any(isinstance(cause, _TIMEOUTS) for cause in causes):
            return APIError(504, "The backend took too long.", code="upstream_timeout", retry=False)
        return bad_gateway("The connection to the backend broke.")


def _timeouts(timeout: Timeout) -> tuple[float, float, float]:
    seconds: tuple[float, ...] = timeout if isinstance(timeout, tuple) else (timeout,) * 3
    if len(seconds) != 3 or not all(type(value) in (int, float) and value > 0 for value in seconds):
        raise ValueError(f"timeout must be seconds above 0, or three of them, not {timeout!r}")
    return seconds[0], seconds[1], seconds[2]


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


class _Body:
    """The body of an upstream's response, in chunks as they arrive."""

    def __init__(self, response: urllib3.BaseHTTPResponse, upstream: Upstream, channel: SideChannel | None) -> None:
        self._response = response
        self._channel = channel
        self._translated = upstream.translated
        if channel is not None:
            channel.drain = partial(_drain, response)  # a bound method would make a reference cycle with the channel

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            # read1 returns what has arrived, whether the body is chunked, has a length, or ends with the connection.
            data = self._response.read1(_READ, decode_content=True)
            if not data and self._channel is not None:
                self._channel.cancel.check()  # if the body ends with the connection, cancelling looks like its end
        except (HTTPError, OSError, ValueError) as error:
            failure = self._translated(error, self._channel)
            if self._channel is not None:
                self._channel.failure = failure
            raise failure from error
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end, else close it."""
        self._response.close()


def _drain(response: urllib3.BaseHTTPResponse) -> bool:
    """Read the end of the body if it arrives within :data:`_GRACE`, so that the connection can be reused.

    Return whether the body has ended.
    """
    sock = socket_of(response)
    left, until = _GRACE_BYTES, time.monotonic() + _GRACE
    try:
        # After its end the response has released its connection, which another request may use already (F45).
        while sock is not None and left > 0 and not response.closed and time.monotonic() < until:
            sock.settimeout(_GRACE)
            data = response.read1(left, decode_content=False)
            if not data or data.strip():
                break  # the end, or data after the last line, which makes the connection unusable (F35)
            left -= len(data)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        log.info("an upstream connection cannot be reused: %s", type(error).__name__)
        return False
    return bool(response.closed)


def _hops(environ: WSGIEnvironment) -> int:
    """Return how many gateways the request has passed; a value that is not valid counts as too many."""
    text = environ.get("HTTP_OPENAI_COMPAT_HOPS", "")
    return int(text) if re.fullmatch("[0-9]", text) else MAX_HOPS if text else 0


def _body(environ: WSGIEnvironment, *, is_ours: bool) -> Any:
    """Return the request body: bytes of a native call, or the client's body as a stream of known or unknown length."""
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return None
    if is_ours:
        return environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    length = environ.get("CONTENT_LENGTH") or ""
    if re.fullmatch("[0-9]{1,18}", length):
        return _SizedBody(environ["wsgi.input"], int(length))
    if environ.get("wsgi.input_terminated"):
        return iter(lambda: _read_client(environ["wsgi.input"], _READ), b"")
    return None


def _read_client(stream: Any, size: int) -> bytes:
    try:
        data: bytes = stream.read(size)
    except Exception as error:  # every WSGI server has its own exceptions for a client that disconnected
        raise APIError(400, "The request body could not be read.") from error
    return data


class _SizedBody:
    """A client's body of known length, which is never read past its end (W8)."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._length = length
        self._remaining = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_READ), b"")

    def read(self, size: int = -1) -> bytes:
        if self._remaining <= 0:
            return b""
        data = _read_client(self._stream, min(self._remaining, size if size >= 0 else self._remaining, _READ))
        if not data:
            raise APIError(400, "The request body is shorter than its Content-Length.")
        self._remaining -= len(data)
        return data


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    """Raise a gateway error for a status that is no fault of the client (F14, F17, F18)."""
    status = response.status
    if status in (401, 403, 407):
        # The response is not forwarded: its challenge or sign-in hint concerns the gateway's credentials.
        response.close()
        raise refused_credentials()
    if 300 <= status < 400:
        log.error("the upstream answered %d; check its URL", status)
        response.close()
        raise APIError(502, "The backend redirects.", code="upstream_redirect", retry=False)


def _native_error(error: APIError, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = json.encode({"error": error.message})
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers]
    start_response(f"{error.status} {responses.get(error.status, 'Error')}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
