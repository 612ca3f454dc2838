"""The middleware class: every request enters here, and is routed to an endpoint or passed through.

Requests below the prefix are answered by an endpoint; all others go to the wrapped application with their own environ,
and its response is returned unchanged. ``responder.py`` sends responses.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from werkzeug.exceptions import MethodNotAllowed, NotFound

from openai_compat.endpoints.contract import Call, EventStream
from openai_compat.errors import APIError, invalid
from openai_compat.middleware import routes
from openai_compat.middleware.request_body import read_body
from openai_compat.middleware.responder import INTERNAL_ERROR, RequestOutcome, Responder, encoded, new_id
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.storage.store import Store
from openai_compat.translate.messages import Fetch
from openai_compat.transport.cancel import Cancel

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from openai_compat.settings import Options

log = logging.getLogger("openai_compat")


class OpenAICompat:
    """Gives an Ollama-native backend OpenAI's HTTP API.

    :param app: a WSGI application that speaks ``/api/*``, or the URL of an Ollama. With *upstream*: a site of its own,
        which receives all requests that are not below the prefix, or match no route.
    :param upstream: where native calls go instead: a URL, or a WSGI application.
    :param settings: all options at once, as :class:`Settings`; *options* then change single ones.
    :param options: the fields of :class:`Settings`, as keywords.
    :raises ValueError: an option out of its range, or a URL that is not valid.
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
        self._limits = KnownLimits()
        self.store = opened_store(self.settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        responder = Responder(environ, start_response, self._request_ended)
        path = self._below_prefix(environ.get("PATH_INFO", ""))
        if path is None:
            return self.app(environ, responder.pass_through)
        try:
            route, arguments = routes.match(environ["REQUEST_METHOD"], path)
        except NotFound:
            if self._has_site:
                return self.app(environ, responder.pass_through)
            return responder.fail(_not_found(environ, path, self.settings.prefix))
        except MethodNotAllowed as error:
            return responder.refuse_method(error.valid_methods or ())
        backend = Backend(self.backend, environ, self.settings, self._limits, Cancel())
        responder.attach(route.path, backend.usage, backend.cancel)
        try:
            reply = route.endpoint(self._call(environ, arguments), backend)
            if not isinstance(reply, EventStream):
                body = encoded(reply)
        except APIError as error:
            return responder.fail(error)
        except Exception:
            log.exception("a request failed: this is a defect of openai_compat")
            return responder.fail(INTERNAL_ERROR)
        return responder.stream(reply) if isinstance(reply, EventStream) else responder.send(reply, body)

    def _request_ended(self, outcome: RequestOutcome) -> None:
        """Log the outcome of a request."""
        usage = outcome.usage
        log.debug(
            "%s %s: status %d, %s, %.3f s; model %s, %d native calls, %d + %d tokens",
            outcome.method,
            outcome.route or "passed through",
            outcome.status,
            outcome.error_code or ("complete" if outcome.is_complete else "not followed to its end"),
            outcome.seconds,
            usage.model,
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
        )

    def _below_prefix(self, path: str) -> str | None:
        """Return the part of a path below the prefix; None if the path is not below it.

        The raw path is compared: a path that a router would normalise first does not match (F65).
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
            new_id=new_id,
            query=_query(environ),
            content_type=environ.get("CONTENT_TYPE", ""),
            store=self.store,
            fetch=_fetcher(self.settings) if self.settings.fetch_images else None,
        )


def _application(app: WSGIApplication | str, settings: Settings) -> WSGIApplication:
    if callable(app):
        return app
    if not isinstance(app, str):
        raise TypeError(f"a WSGI application or a URL is wanted, not {type(app).__name__}")
    # Imported late: it imports requests, which gevent must be able to patch first.
    from openai_compat.transport.upstream import Upstream

    return Upstream(app, timeout=settings.timeout, native_admin=settings.native_admin, pool_size=settings.pool_size)


def opened_store(settings: Settings) -> Store | None:
    """Return the store that the settings name, if they do; nothing is connected before its first use.

    :raises ValueError: the URL is not valid, or a package that it needs is not installed.
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
    from openai_compat.transport.images import Fetcher

    return Fetcher(max_bytes=settings.max_image, timeout=settings.image_timeout)


#: arguments of a URL that are read
_MAX_ARGUMENTS = 100


def _query(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """Return the query parameters of a request.

    :raises APIError: 400 for too many.
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
