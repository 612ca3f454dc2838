"""The middleware class, through which every request passes.

A request below the prefix is routed to an endpoint; any other goes to the wrapped application with its environ, and the
response is returned unchanged. Here it is only decided who handles a request: ``responder.py`` sends responses, and
endpoints make native calls.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from werkzeug.exceptions import MethodNotAllowed, NotFound

from openai_compat.endpoints.contract import RESPONSE, Call, EventStream
from openai_compat.endpoints.responses.background import ended_body
from openai_compat.errors import INTERNAL_ERROR, APIError, invalid
from openai_compat.generation.background import Background
from openai_compat.log import log
from openai_compat.middleware import routes
from openai_compat.middleware.access import Access, Headers, preflight_headers
from openai_compat.middleware.request_body import read_body
from openai_compat.middleware.responder import RequestOutcome, Responder, encoded, new_id
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import IN_MEMORY, Settings
from openai_compat.storage.store import Store
from openai_compat.translate.content import Fetch
from openai_compat.translate.files import Files
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import speaks_native_only
from openai_compat.transport.upstream import Upstream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from openai_compat.settings import Options


class OpenAICompat:
    """A WSGI application that gives an Ollama-native backend OpenAI's HTTP API.

    :param app: a WSGI application with Ollama's native API, or the URL of an Ollama. With *upstream*: any WSGI
        application, which receives every request that is not below the prefix or matches no route.
    :param upstream: the backend of native calls, if it is not *app*: a URL, or a WSGI application.
    :param settings: all settings at once; *options* override single ones.
    :param options: the fields of :class:`Settings`, as keywords.
    :raises ValueError: a setting is out of its range, or a URL is not valid.
    :raises TypeError: *app* or *upstream* is neither a WSGI application nor a URL.
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
        self._is_guarded = not self._has_site and speaks_native_only(self.app)
        self._access = Access(self.settings)
        self._limits = KnownLimits()
        self.store = make_store(self.settings)
        self._background: Background | None = None
        if self.store is not None:
            threads = self.settings.max_background
            self._background = Background(self.store, RESPONSE, threads=threads, ended=ended_body)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, as WSGI defines it."""
        responder = Responder(environ, start_response, self._request_ended)
        path = self._below_prefix(environ.get("PATH_INFO", ""))
        if path is None or (self._has_site and not routes.exists(path)):
            return self._pass_through(environ, responder)
        try:
            owner, preflight = self._admit(environ, responder)
        except APIError as error:
            return responder.fail(error)
        if preflight is not None:
            return responder.send_empty(preflight)
        return self._respond(environ, path, owner, responder)

    def stop(self) -> None:
        """End the work in the background of this process as failed, and the streams that follow such work.

        For a server that is asked to stop: it may wait for its streams, and ends before the work does.
        """
        if self._background is not None:
            self._background.close()

    def _pass_through(self, environ: WSGIEnvironment, responder: Responder) -> Iterable[bytes]:
        """Let the wrapped application handle a request; before one that is only an Ollama the same guards stand."""
        if self._is_guarded:
            try:
                _, preflight = self._admit(environ, responder)
            except APIError as error:
                return responder.fail_natively(error)
            if preflight is not None:
                return responder.send_empty(preflight)
            path = environ.get("PATH_INFO", "")
            if path != "/" and (routes.exists(path) or routes.not_offered(path)):
                return responder.fail(_without_prefix(environ, self.settings.prefix))
        return self.app(environ, responder.pass_through)

    def _admit(self, environ: WSGIEnvironment, responder: Responder) -> tuple[str | None, Headers | None]:
        """Return the owner of a request, and for a preflight request the headers of the response.

        :raises APIError: 401 or 403 for a request that is not allowed.
        """
        self._access.check_host(environ)
        responder.common_headers = self._access.cors_headers(environ)
        preflight = preflight_headers(environ) if responder.common_headers else None
        return (None if preflight is not None else self._access.owner(environ)), preflight

    def _respond(self, environ: WSGIEnvironment, path: str, owner: str | None, responder: Responder) -> Iterable[bytes]:
        """Handle a request below the prefix."""
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            return responder.fail(_NO_WEBSOCKETS)
        try:
            route, arguments = routes.match(environ["REQUEST_METHOD"], path)
        except NotFound:
            return responder.fail(_not_found(environ, path, self.settings.prefix))
        except MethodNotAllowed as error:
            return responder.refuse_method(error.valid_methods or ())
        backend = Backend(self.backend, environ, self.settings, self._limits, Cancel())
        responder.attach(route.path, backend.usage, backend.cancel)
        try:
            reply = route.endpoint(self._call(environ, route, arguments, owner), backend)
            if not isinstance(reply, EventStream):
                body = encoded(reply)
        except APIError as error:
            return responder.fail(error)
        except Exception:
            log.exception("a request failed because of a defect in openai_compat")
            return responder.fail(INTERNAL_ERROR)
        return responder.stream(reply) if isinstance(reply, EventStream) else responder.send(reply, body)

    def _request_ended(self, outcome: RequestOutcome) -> None:
        """Log the outcome of a request. A response that was passed through has no known end."""
        usage = outcome.usage
        log.debug(
            "%s %s: status %d, %s, %.3f s; model %s, %d native calls, %d + %d tokens",
            outcome.method,
            outcome.route or "no route",
            outcome.status,
            outcome.error_code or ("complete" if outcome.is_complete else "not known to be complete"),
            outcome.seconds,
            usage.model,
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
        )

    def _below_prefix(self, path: str) -> str | None:
        """Return the part of a path below the prefix; None if the path is not below it.

        The path is compared as it was received: one that matches only after normalisation does not match (F65).
        With an empty prefix ``/`` and ``/api/*`` are passed through.
        """
        prefix = self.settings.prefix
        if path == prefix and prefix:
            return "/"
        if not path.startswith(prefix + "/") or (not prefix and re.match(r"/(api(/|$)|$)", path)):
            return None
        return path[len(prefix) :]

    def _call(
        self, environ: WSGIEnvironment, route: routes.Route, arguments: dict[str, str], owner: str | None
    ) -> Call:
        return Call(
            body=read_body(environ, self.settings.max_body, is_used=route.request is not None),
            path=arguments,
            settings=self.settings,
            now=int(time.time()),
            new_id=new_id,
            query=_query(environ),
            content_type=environ.get("CONTENT_TYPE", ""),
            store=self.store,
            owner=owner,
            background=self._background,
            is_store_shared=self.settings.store not in IN_MEMORY or not environ.get("wsgi.multiprocess"),
            fetch=_fetcher(self.settings) if self.settings.fetch_images else None,
            files=_files(self.settings),
            past_fetch=_fetcher(self.settings, _PAST) if self.settings.fetch_images else None,
            past_files=_files(self.settings, _PAST),
        )


#: Codex tries a WebSocket first, and falls back to HTTP at once for this status only
_NO_WEBSOCKETS = APIError(426, "There are no WebSockets here; use HTTP.", code="websockets_not_offered", retry=False)


def _application(app: WSGIApplication | str, settings: Settings) -> WSGIApplication:
    """Return a WSGI application; for a URL, one that forwards requests to it."""
    if callable(app):
        return app
    if not isinstance(app, str):
        raise TypeError(f"a WSGI application or a URL is wanted, not {type(app).__name__}")
    return Upstream(app, timeout=settings.timeout, native_admin=settings.native_admin, pool_size=settings.pool_size)


def make_store(settings: Settings) -> Store | None:
    """Return the store of the settings, if they name one. It connects at its first use.

    :raises ValueError: its URL is not valid, or a required package is not installed.
    """
    if settings.store is None:
        return None
    return Store(
        settings.store,
        ttl=settings.store_ttl,
        max_objects=settings.store_max_objects,
        max_bytes=settings.store_max_bytes,
        timeout=settings.store_timeout,
    )


#: images, pages and text of a stored history, in those of a request: it was made of many. Its bytes and the time for it
#: have their own limits.
_PAST = 8


def _fetcher(settings: Settings, requests: int = 1) -> Fetch:
    from openai_compat.transport.images import Fetcher

    number = settings.max_images * requests
    return Fetcher(max_bytes=settings.max_image, timeout=settings.image_timeout, max_number=number)


def _files(settings: Settings, requests: int = 1) -> Files:
    fetch = None
    if settings.fetch_files:
        from openai_compat.transport.images import FILE, Fetcher

        number, size, timeout = settings.max_files * requests, settings.max_file, settings.file_timeout
        fetch = Fetcher(FILE, max_bytes=size, timeout=timeout, max_number=number)
    return Files(
        max_files=settings.max_files * (1 if requests == 1 else settings.max_messages),
        max_bytes=settings.max_file,
        max_pages=settings.max_pages * requests,
        max_text=settings.max_file_text * requests,
        timeout=settings.file_timeout,
        fetch=fetch,
    )


#: query parameters of a URL: listing has the most, about 20, of which 16 are metadata
_MAX_QUERY = 100


def _query(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """Return the query parameters of a request, in order.

    :raises APIError: 400 for too many parameters.
    """
    text = environ.get("QUERY_STRING", "")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_QUERY, errors="replace")
    except ValueError as error:
        raise invalid(f"The URL cannot have more than {_MAX_QUERY} query parameters.", code=None) from error


def _not_found(environ: WSGIEnvironment, path: str, prefix: str) -> APIError:
    """Return the error for a path without a route; a route that only OpenAI has gets a code of its own."""
    where = _where(environ)
    name = routes.not_offered(path)
    if name is None:
        twice = prefix and path.startswith(prefix + "/") and routes.exists(path[len(prefix) :])
        hint = f": the path has {prefix} twice; the client's base_url should end in {prefix} once" if twice else ""
        return APIError(404, f"Invalid URL ({where}){hint}")
    text = f"this server does not offer OpenAI's {name}. GET {prefix}/compatibility lists the routes that it offers."
    return APIError(404, f"Invalid URL ({where}): {text}", code="route_not_offered")


def _without_prefix(environ: WSGIEnvironment, prefix: str) -> APIError:
    """Return the error for one of OpenAI's paths without the prefix, which no Ollama has."""
    return APIError(404, f"Invalid URL ({_where(environ)}): the client's base_url should end in {prefix}.")


def _where(environ: WSGIEnvironment) -> str:
    """Return the method and the path of a request for an error's text."""
    where = f"{environ['REQUEST_METHOD'][:20]} {environ['PATH_INFO'][:200]}"
    return where.encode("utf-8", "replace").decode()
