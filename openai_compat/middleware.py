"""The WSGI edge: routes, pass-through, limits, errors. The only module beside ``native`` that sees an environ.

What is ours is answered here; what is not goes to the wrapped application with the environ it came
with, and its answer is returned as it is. Nothing is sent to the server before the status is known.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Generator, Iterable, Iterator
from http.client import responses
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from werkzeug.exceptions import MethodNotAllowed, NotFound

from openai_compat import routes
from openai_compat.body import read_body
from openai_compat.endpoints.contract import Call, EventStream, Headers, Reply, Text
from openai_compat.errors import APIError, invalid
from openai_compat.native.backend import Backend
from openai_compat.native.memory import Learnt
from openai_compat.settings import Settings
from openai_compat.store import Store
from openai_compat.translate.messages import Fetch
from openai_compat.translate.models import check_models
from openai_compat.wire import json, sse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from openai_compat.settings import Options

log = logging.getLogger("openai_compat")


class OpenAICompat:
    """Give an Ollama-native backend OpenAI's HTTP API.

    :param app: a WSGI application that speaks ``/api/*``, or the URL of an Ollama. With *upstream*: a site
        of its own, which gets everything that is not ours.
    :param upstream: where native calls go instead: a URL, or a WSGI application.
    :param settings: all options at once, as :class:`Settings`; *options* then change single ones.
    :param options: the fields of :class:`Settings`, as keywords.
    :raises ValueError: an option out of its range, or a URL that is none.
    :raises TypeError: neither a WSGI application nor a URL.
    """

    def __init__(
        self,
        app: WSGIApplication | str,
        *,
        upstream: WSGIApplication | str | None = None,
        settings: Settings | None = None,
        **options: Unpack[Options],
    ) -> None:
        values = {**(vars(settings) if settings else {}), **options}
        self.settings = Settings(**values)
        self.app = _application(app, self.settings)
        self.backend = self.app if upstream is None else _application(upstream, self.settings)
        self._has_site = upstream is not None
        self._learnt = Learnt()
        check_models(self.settings)
        self.store = opened_store(self.settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = self._below_prefix(environ.get("PATH_INFO", ""))
        if path is None:
            return self.app(environ, start_response)
        exchange = _Exchange(environ, start_response)
        try:
            endpoint, arguments = routes.match(environ["REQUEST_METHOD"], path)
        except NotFound:
            if self._has_site:
                return self.app(environ, start_response)
            return exchange.fail(_not_found(environ, path, self.settings.prefix))
        except MethodNotAllowed as error:
            return exchange.refuse_method(error.valid_methods or ())
        try:
            reply = endpoint(self._call(environ, arguments), self._backend(environ))
            body = _encoded(reply)
        except APIError as error:
            return exchange.fail(error)
        except Exception:
            log.exception("a request failed: this is a defect of openai_compat")
            return exchange.fail(_DEFECT)
        if isinstance(reply, EventStream):
            return exchange.stream(reply)
        return exchange.send(
            200, body, reply.headers, "text/plain; charset=utf-8" if isinstance(reply, Text) else _JSON
        )

    def _below_prefix(self, path: str) -> str | None:
        """The part of a path below the prefix; None if the path is not ours.

        The raw path is compared: what a router would clean up first is not ours (F65).
        """
        prefix = self.settings.prefix
        if path == prefix and prefix:
            return "/"
        if not path.startswith(prefix + "/") or (not prefix and re.match(r"/(api(/|$)|$)", path)):
            return None
        return path[len(prefix) :]

    def _call(self, environ: WSGIEnvironment, arguments: dict[str, str]) -> Call:
        return Call(
            body=read_body(environ, self.settings.max_body),
            path=arguments,
            settings=self.settings,
            now=int(time.time()),
            new_id=_new_id,
            query=_query(environ),
            content_type=environ.get("CONTENT_TYPE", ""),
            store=self.store,
            fetch=_fetcher(self.settings) if self.settings.fetch_images else None,
        )

    def _backend(self, environ: WSGIEnvironment) -> Backend:
        return Backend(self.backend, environ, self.settings, self._learnt)


def _application(app: WSGIApplication | str, settings: Settings) -> WSGIApplication:
    if callable(app):
        return app
    if not isinstance(app, str):
        raise TypeError(f"a WSGI application or a URL is wanted, not {type(app).__name__}")
    # Imported late: it imports requests, which gevent must be able to patch first.
    from openai_compat.native.upstream import Upstream

    return Upstream(app, timeout=settings.timeout, native_admin=settings.native_admin, pool_size=settings.pool_size)


def opened_store(settings: Settings) -> Store | None:
    """What keeps objects, where the settings name it; nothing is connected before its first use.

    :raises ValueError: the URL is none, or what it needs is not installed.
    """
    if settings.store is None:
        return None
    return Store(
        settings.store,
        ttl=settings.store_ttl,
        max_objects=settings.store_max_objects,
        max_bytes=settings.store_max_bytes,
    )


def _fetcher(settings: Settings) -> Fetch:
    from openai_compat.images import Fetcher

    return Fetcher(max_bytes=settings.max_image, timeout=settings.image_timeout)


#: arguments of a URL that are read
_MAX_ARGUMENTS = 100


def _query(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """
    :raises APIError: 400 for too many arguments.
    """
    text = environ.get("QUERY_STRING", "")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_ARGUMENTS, errors="replace")
    except ValueError as error:
        raise invalid(f"The URL has more than {_MAX_ARGUMENTS} arguments.", code=None) from error


def _not_found(environ: WSGIEnvironment, path: str, prefix: str) -> APIError:
    where = f"{environ['REQUEST_METHOD'][:20]} {environ['PATH_INFO'][:200]}"
    where = where.encode("utf-8", "replace").decode()
    name = routes.not_offered(path)
    if name is None:
        return APIError(404, f"Invalid URL ({where})")
    text = f"this server does not offer OpenAI's {name}. It offers what GET {prefix}/compatibility lists."
    return APIError(404, f"Invalid URL ({where}): {text}", code="route_not_offered")


def _encoded(reply: Reply) -> bytes:
    if isinstance(reply, EventStream):
        return b""
    return reply.text.encode("utf-8", "replace") if isinstance(reply, Text) else json.encode(reply.value)


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(16)


#: what a client sees of a mistake of ours; the log has the rest
_DEFECT = APIError(500, "The gateway failed.", code="internal_error", retry=False)

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"

_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


class _Exchange:
    """Our answer to one request, from the headers on."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._began = time.monotonic()
        self._start_response = start_response
        self._method: str = environ["REQUEST_METHOD"]
        given = environ.get("HTTP_X_REQUEST_ID", "")
        self._id = given if _SANE_ID.fullmatch(given) else _new_id("req_")

    def stream(self, stream: EventStream) -> Iterable[bytes]:
        body = _Events(stream)
        try:
            self._start(200, [("Content-Type", sse.CONTENT_TYPE), *_STREAM_HEADERS, *stream.headers])
        except BaseException:
            body.close()
            raise
        return body

    def fail(self, error: APIError) -> Iterable[bytes]:
        headers = list(error.headers)
        if error.retry is not None:
            headers.append(("x-should-retry", "true" if error.retry else "false"))
        return self.send(error.status, json.encode(error.body()), headers)

    def refuse_method(self, methods: Iterable[str]) -> Iterable[bytes]:
        """OPTIONS is told the methods; any other is refused."""
        allow = ("Allow", ", ".join(sorted({*methods, "OPTIONS"})))
        if self._method == "OPTIONS":
            self._start(204, [allow])
            return []
        text = f"Not allowed to {self._method[:20]} on this URL."
        return self.fail(APIError(405, text, code="method_not_allowed", headers=(allow,)))

    def send(self, status: int, body: bytes, headers: Headers, content_type: str = _JSON) -> Iterable[bytes]:
        own = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        self._start(status, [*own, *headers])
        return [] if self._method == "HEAD" else [body]

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        took = int((time.monotonic() - self._began) * 1000)
        own = [
            ("x-request-id", self._id),
            ("openai-processing-ms", str(took)),
            ("openai-version", "2020-10-01"),
        ]
        self._start_response(f"{status} {responses.get(status, 'Error')}", [*headers, *own])


_STREAM_HEADERS = (("Cache-Control", "no-cache, no-store"), ("X-Accel-Buffering", "no"))


class _Events:
    """The body of an event stream: whole frames, closed once, even before its first item (W2)."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._frames = _frames(stream)
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._frames)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._frames.close()
            self._stream.source.close()


#: frames that leave together at most: a bound, where an application gives a whole stream in one item
_TOGETHER = 256


def _frames(stream: EventStream) -> Generator[bytes, None, None]:
    """Frames that can leave together do; none waits for a native line that is not there yet.

    A failure is the last frame: after the status is out, a quiet end would look complete (MID).
    """
    held: list[bytes] = []
    try:
        for events in stream.events:
            held += [sse.frame(json.encode(event)) for event in events]
            if held and (not stream.source.pending or len(held) >= _TOGETHER):
                yield b"".join(held)
                held.clear()
        if stream.says_done:
            held.append(sse.DONE)
    except APIError as error:
        log.warning("a stream failed: %s", error.code)
        held.append(sse.frame(json.encode(error.body())))
    except Exception:
        log.exception("a stream failed: this is a defect of openai_compat")
        held.append(sse.frame(json.encode(_DEFECT.body())))
    if held:
        yield b"".join(held)
