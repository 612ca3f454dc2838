"""A remote Ollama as a WSGI application: the only module that knows ``requests``.

What leaves this process is what we wrote and nothing else: no environment, no netrc, no cookies, no
redirects, no compression asked for, no header of the client; and only to the paths named here.
Every exception of requests, urllib3 and the socket is translated in one place.

``requests`` is imported here, so this module is imported when an ``Upstream`` is made, not before:
gevent must be able to patch first.
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

#: (connect, head, idle), seconds: a model may take minutes to load, and Ollama sends no head before its first token
DEFAULT_TIMEOUT = (5.0, 600.0, 300.0)

#: the native paths that are asked for, and with which verbs
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

#: how a model is deleted
DELETE = ("DELETE", "/api/delete")

#: native paths that change the server: only with ``native_admin``
_ADMIN = re.compile(r"/api/(pull|push|create|copy|delete|blobs/sha256[:-][0-9a-f]{64})")

#: counts the gateways that a request has passed, so that a ring of them ends
HOPS = "openai-compat-hops"
MAX_HOPS = 4

#: bytes of one read
_READ = 65536
#: seconds and bytes that a body may still take after its last line, so that its connection can be used again
_GRACE = 0.25
_GRACE_BYTES = 4096


class Upstream:
    """A WSGI application that sends native requests to an Ollama behind a URL.

    :param url: ``http://host:port``, with a path if Ollama is mounted below one. ``user:password@`` is
        sent as Basic authorization and shown nowhere.
    :param timeout: seconds, or ``(connect, head, idle)``: to reach it, to its first line, between two reads.
    :param headers: sent with every request, such as ``{"Authorization": "Bearer …"}``.
    :param verify: check the certificate: a flag, or the path of a CA bundle.
    :param proxies: ``{"https": "http://…"}``; the environment is not looked at.
    :param native_admin: let pull, push, create, copy, delete and blobs through.
    :param pool_size: connections that are kept open.
    :raises ValueError: the URL is none, or names OpenAI's side of a server.
    """

    #: several calls at once need no more than a thread each
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
        self.connect, self.head, self.idle = _three(timeout)
        self._headers = checked_headers(headers or {})
        self._verify = verify
        self._proxies = dict(proxies or {})
        self._native_admin = native_admin
        self._pool_size = pool_size
        self._session: tuple[int, requests.Session] | None = None

    def __repr__(self) -> str:
        return f"<Upstream {redacted(self.url)}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
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
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "") or "/"
        self._check_path(method, path, is_ours=channel is not None)
        if _hops(environ) >= MAX_HOPS:
            log.error("%r: requests come back here; is it this server itself?", self)
            raise APIError(502, "The backend is this server itself.", code="upstream_loop", retry=False)
        request = requests.Request(
            method,
            self.url + quote(path, safe="/:"),
            headers=self._request_headers(environ),
            data=_body(environ, is_ours=channel is not None),
        )
        try:
            with calling(channel.cancel if channel is not None else None):
                raw = self._exchange(request)
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            raise self.translated(error, channel) from error
        if raw.status < 200:  # the true answer is still to come on this connection (F18)
            log.error("the upstream answered %d", raw.status)
            raw.close()
            raise bad_gateway()
        if channel is not None:
            _check_status(raw)
        return raw

    def _exchange(self, request: requests.Request) -> urllib3.BaseHTTPResponse:
        session = self._pooled()
        prepared = session.prepare_request(request)
        # The adapter itself: Session.send() would read the body of a redirect, and look at cookies.
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
            # Once, and only where the server had closed an idle connection before it saw the request (F11).
            if not StaleConnection.caused(error) or not isinstance(prepared.body, bytes | None):
                raise
        adapter.close()
        return send()

    def _pooled(self) -> requests.Session:
        """The session of this process: a pool that is shared over a fork mixes up answers (F72)."""
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
        if (method, path) == DELETE and is_ours:  # asked for by a setting of the middleware
            return
        if path in PATHS:
            if method not in PATHS[path]:
                allow = ", ".join(sorted(PATHS[path]))
                raise APIError(405, "method not allowed", headers=(("Allow", allow),))
        elif not _ADMIN.fullmatch(path):
            raise APIError(404, "not found")
        elif not self._native_admin:
            raise APIError(403, "this gateway does not let this operation through")

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
        """Translate any exception of the transport into the client's error: without host, URL or key."""
        causes = list(_causes(error))
        level = logging.INFO if channel is not None and channel.cancel.is_set else logging.WARNING
        log.log(level, "%r: %s", self, redacted_text(f"{type(causes[-1]).__name__}: {causes[-1]}"))
        # In this order: to urllib3 a refused connection is a kind of time-out.
        if any(isinstance(cause, _UNREACHABLE) for cause in causes):
            return APIError(502, "The backend could not be reached.", code="upstream_unreachable")
        if any(isinstance(cause, _TIMEOUTS) for cause in causes):
            return APIError(504, "The backend took too long.", code="upstream_timeout", retry=False)
        return bad_gateway("The connection to the backend broke.")


def _three(timeout: Timeout) -> tuple[float, float, float]:
    parts: tuple[float, ...] = timeout if isinstance(timeout, tuple) else (timeout,) * 3
    if len(parts) != 3 or not all(type(part) in (int, float) and part > 0 for part in parts):
        raise ValueError(f"timeout must be seconds above 0, or three of them, not {timeout!r}")
    return parts[0], parts[1], parts[2]


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
    """The error and what it was made of: requests and urllib3 keep the cause in ``args`` or ``reason``."""
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
    """The body of an upstream answer, as it comes."""

    def __init__(self, response: urllib3.BaseHTTPResponse, upstream: Upstream, channel: SideChannel | None) -> None:
        self._response = response
        self._channel = channel
        self._translated = upstream.translated
        if channel is not None:
            channel.drain = partial(_drain, response)  # not a method: the channel and the body would be a cycle

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            # read1 gives what has arrived, for chunked, sized and close-delimited bodies alike.
            data = self._response.read1(_READ, decode_content=True)
            if not data and self._channel is not None:
                self._channel.cancel.check()  # where a close is the framing, an end of our own looks like a good one
        except (HTTPError, OSError, ValueError) as error:
            failure = self._translated(error, self._channel)
            if self._channel is not None:
                self._channel.failure = failure
            raise failure from error
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        self._response.close()


def _drain(response: urllib3.BaseHTTPResponse) -> None:
    """Read to the end, if it is there or comes at once: then the connection can be used again."""
    sock = socket_of(response)
    left, until = _GRACE_BYTES, time.monotonic() + _GRACE
    try:
        # A response that was read to its end has lost its connection: it is another one's already (F45).
        while sock is not None and left > 0 and not response.closed and time.monotonic() < until:
            sock.settimeout(_GRACE)
            data = response.read1(left, decode_content=False)
            if not data or data.strip():
                break  # the end; or more after it: such a connection is not used again (F35)
            left -= len(data)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        log.info("an upstream connection is not kept: %s", type(error).__name__)


def _hops(environ: WSGIEnvironment) -> int:
    text = environ.get("HTTP_OPENAI_COMPAT_HOPS", "")
    return int(text) if re.fullmatch("[0-9]", text) else MAX_HOPS if text else 0


def _body(environ: WSGIEnvironment, *, is_ours: bool) -> Any:
    """The request body: bytes for native calls of ours, else the client's, as a stream of known or unknown length."""
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return None
    if is_ours:
        return environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    length = environ.get("CONTENT_LENGTH") or ""
    if re.fullmatch("[0-9]{1,18}", length):
        return _Input(environ["wsgi.input"], int(length))
    if environ.get("wsgi.input_terminated"):
        return iter(lambda: _read_client(environ["wsgi.input"], _READ), b"")
    return None


def _read_client(stream: Any, size: int) -> bytes:
    try:
        data: bytes = stream.read(size)
    except Exception as error:  # servers have an exception each for a client that is gone
        raise APIError(400, "The request body could not be read.") from error
    return data


class _Input:
    """A client's body of known length, never read past its end (W8)."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._length = length
        self._left = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_READ), b"")

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            return b""
        data = _read_client(self._stream, min(self._left, size if size >= 0 else self._left, _READ))
        if not data:
            raise APIError(400, "The request body is shorter than its Content-Length.")
        self._left -= len(data)
        return data


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    """Statuses of a remote server that are the operator's matter (F14, F17, F18)."""
    status = response.status
    if status in (401, 403, 407):
        # A sign-in hint or a challenge is for the operator; the client's credentials are not at fault.
        response.close()
        raise refused_credentials()
    if 300 <= status < 400:
        log.error("the upstream answered %d; is its URL right?", status)
        response.close()
        raise APIError(502, "The backend redirects.", code="upstream_redirect", retry=False)


def _native_error(error: APIError, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = json.encode({"error": error.message})
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers]
    start_response(f"{error.status} {responses.get(error.status, 'Error')}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
