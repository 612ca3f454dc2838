"""A remote Ollama as a WSGI application.

Requests go to the paths below only. Of the client's headers they have ``Accept`` and ``Content-Type``; cookies,
credentials and proxies of the environment, redirects and compression, which requests would use by default, are off.

Nothing of ``requests`` is imported before the first request, so that gevent can patch the standard library until then.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from openai_compat.errors import APIError, bad_gateway
from openai_compat.log import log
from openai_compat.transport.headers import checked_headers, passed_on
from openai_compat.transport.side_channel import SideChannel, refused_credentials, side_channel
from openai_compat.transport.urls import checked_url, redacted, unix_path, without_query
from openai_compat.wire import json

if TYPE_CHECKING:
    import urllib3
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from openai_compat.transport.http_client import HTTPClient

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

#: bytes of one read of a client's body
_READ = 65536
#: bytes of a client's body that are kept for sending it twice
_REPEATABLE = 1024 * 1024


class Upstream:
    """A WSGI application that sends native requests to an Ollama behind a URL.

    :param url: ``http://host:port``, with a path if Ollama is mounted below one, or ``unix:///path`` of a Unix socket.
        ``user:password@`` is sent as Basic authorization and never shown.
    :param timeout: seconds, or ``(connect, head, idle)``: for connecting, until the head of the response is complete,
        and between two lines of it.
    :param headers: sent with every request, such as ``{"Authorization": "Bearer …"}``.
    :param verify: whether to check the certificate, or the path of a CA bundle.
    :param proxies: ``{"https": "http://…"}``; those of the environment are not used.
    :param native_admin: pass pull, push, create, copy, delete and blobs through.
    :param pool_size: connections that stay open for reuse.
    :raises ValueError: the URL, a header or the time-out is not valid, or the URL is one of an OpenAI API.
    """

    #: it may be called in several threads at once (see ``side_channel.py``)
    is_remote = True
    speaks_native_only = True

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
        #: by process id; at most one stays
        self._clients: dict[int, HTTPClient] = {}
        self._unix_path = unix_path(self.url)
        self._base_url = "http://localhost" if self._unix_path else self.url

    def __repr__(self) -> str:
        return f"<Upstream {redacted(self.url)}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Forward the request, and return the response or, if that fails, a native error response."""
        channel = side_channel(environ)
        if channel is not None:
            channel.reset()
        try:
            response = self._send(environ, channel)
            body = self._body(response, channel)
        except APIError as error:
            if channel is not None:
                channel.failure = error
            return _native_error(error, environ, start_response)
        status = f"{response.status} {response.reason or 'Unknown'}"
        if not status.isascii() or not status.isprintable():
            status = f"{response.status} Unknown"
        start_response(status, passed_on(list(response.headers.items()), response.CONTENT_DECODERS))
        return body

    def _body(self, response: urllib3.BaseHTTPResponse, channel: SideChannel | None) -> Iterable[bytes]:
        """Return the body of a response; that of a client's request after its first chunk was read.

        :raises APIError: it failed before the first chunk, so that the client can still get an error response.
        """
        from openai_compat.transport.http_client import Body

        body = Body(response, self._client(), channel)
        if channel is None:
            try:
                body.read_first()
            except BaseException:
                body.close()
                raise
        return body

    def _send(self, environ: WSGIEnvironment, channel: SideChannel | None) -> urllib3.BaseHTTPResponse:
        """Send the request, and return the response after its head.

        :raises APIError: the request is not allowed, the upstream cannot be reached, or its status is not usable.
        """
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "") or "/"
        self._check_path(method, path, is_ours=channel is not None)
        if _hops(environ) >= MAX_HOPS:
            log.error("%r: its requests arrive at this server again; check its URL", self)
            raise APIError(502, "The backend is this server itself.", code="upstream_loop", retry=False)
        raw = self._client().send(
            method,
            self._base_url + quote(path, safe="/:"),
            self._request_headers(environ),
            _body(environ, is_ours=channel is not None),
            channel.cancel if channel is not None else None,
            head=self.head,
        )
        if raw.status < 200:  # the final response is still to come on this connection (F18)
            log.error("the upstream answered %d", raw.status)
            raw.close()
            raise bad_gateway()
        if channel is not None:
            _check_status(raw)
        return raw

    def _client(self) -> HTTPClient:
        """Return the client of this process; processes that share a connection get each other's responses (F72)."""
        pid = os.getpid()
        if (client := self._clients.get(pid)) is None:
            # Threads of a first burst may each make one: the first that is stored serves all, so that no connection is
            # lost with another's pool. No lock, which a fork could leave locked.
            client = self._clients.setdefault(pid, self._new_client())
            for other in set(self._clients) - {pid}:
                self._clients.pop(other, None)
        return client

    def _new_client(self) -> HTTPClient:
        # Imported late: it imports requests, before which gevent must have patched the standard library.
        from openai_compat.transport.http_client import HTTPClient

        return HTTPClient(
            repr(self),
            timeout=(self.connect, self.idle),
            verify=self._verify,
            proxies=self._proxies,
            pool_size=self._pool_size,
            unix_path=self._unix_path,
        )

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


def _timeouts(timeout: Timeout) -> tuple[float, float, float]:
    seconds: tuple[float, ...] = timeout if isinstance(timeout, tuple) else (timeout,) * 3
    if len(seconds) != 3 or not all(type(value) in (int, float) and value > 0 for value in seconds):
        raise ValueError(f"timeout must be seconds above 0, or three of them, not {timeout!r}")
    return seconds[0], seconds[1], seconds[2]


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
        return _ChunkedBody(environ["wsgi.input"], None)
    return None


class ClientBody:
    """A client's body that is passed through, never read past its end (W8).

    Its beginning is kept, so that a request whose connection turns out to have been closed can be sent again.

    :param length: bytes; None if the server marks the end of the input.
    """

    def __init__(self, stream: Any, length: int | None) -> None:
        self._stream = stream
        self._remaining = length
        self._kept: deque[bytes] | None = deque()
        self._kept_size = 0
        self._again: deque[bytes] = deque()

    def rewind(self) -> bool:
        """Go back to the beginning, and return whether that is possible."""
        if self._kept is None:
            return False
        self._again = deque(self._kept)
        return True

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes.

        :raises APIError: 400 for a body that ends too early, or cannot be read.
        """
        if self._again:
            return self._again.popleft()
        size = min(size if size >= 0 else _READ, _READ)
        if self._remaining is not None:
            size = min(size, self._remaining)
        if size == 0:
            return b""
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:  # every WSGI server has its own exceptions for a client that disconnected
            raise APIError(400, "The request body could not be read.") from error
        if self._remaining is not None:
            if not data:
                raise APIError(400, "The request body is shorter than its Content-Length.")
            self._remaining -= len(data)
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        self._kept_size += len(data)
        if self._kept_size > _REPEATABLE:
            self._kept = None
        elif self._kept is not None and data:
            self._kept.append(data)


class _SizedBody(ClientBody):
    """A body of known length, by which requests sets ``Content-Length``."""

    def __init__(self, stream: Any, length: int) -> None:
        super().__init__(stream, length)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_READ), b"")


class _ChunkedBody(ClientBody):
    """A body of unknown length, which requests sends in chunks."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_READ), b"")


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    """Raise a gateway error for a status that is no fault of the client (F14, F17, F18)."""
    status = response.status
    if status in (401, 403, 407):
        # The response is not forwarded: its challenge or sign-in hint concerns the gateway's credentials.
        response.close()
        raise refused_credentials()
    if 300 <= status < 400:
        target = without_query(redacted(response.headers.get("Location", "")))
        log.error("the upstream answered %d, a redirect to %r; check its URL", status, target)
        response.close()
        raise APIError(502, "The backend redirects.", code="upstream_redirect", retry=False)


def _native_error(error: APIError, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = json.encode({"error": error.message})
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers]
    start_response(f"{error.status} {responses.get(error.status, 'Error')}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
