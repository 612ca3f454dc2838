"""The wrapped application seen as Ollama: the one place that calls it.

Every native call is a call of a WSGI application, in process or remote, with an environ of its own.
Only the paths below are ever asked for. What comes back is decoded messages, or an :class:`APIError`.

Source: ollama ``middleware/openai.go``, where ``c.Next()`` runs the native handler.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from openai_compat.errors import APIError, broken
from openai_compat.native import failures
from openai_compat.native import messages as native
from openai_compat.native.cancel import CANCEL, Cancel
from openai_compat.native.exchange import Exchange
from openai_compat.native.headers import is_header
from openai_compat.native.memory import Learnt
from openai_compat.native.stream import NativeStream
from openai_compat.settings import Settings
from openai_compat.wire import json

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger("openai_compat")

T = TypeVar("T")
L = TypeVar("L", bound=native.StreamLine)

#: set in the environ of translated calls: ``Upstream`` then raises :class:`APIError` instead of answering natively
TRANSLATED = "openai_compat.translated"

#: bytes of a native error that are read
_MAX_ERROR = 1024 * 1024

_decode_chat = json.native_decoder(native.ChatResponse)
_decode_generate = json.native_decoder(native.GenerateResponse)
_decode_embed = json.native_decoder(native.EmbedResponse)
_decode_list = json.native_decoder(native.ListResponse)
_decode_version = json.native_decoder(native.VersionResponse)
_decode_show = json.native_decoder(native.ShowResponse)

# What belongs to the client's own body and connection, not to the call that is made of it.
_CLIENTS_OWN = frozenset(
    (
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_CONTENT_ENCODING",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_TYPE",
        "HTTP_EXPECT",
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_RANGE",
        "HTTP_TRANSFER_ENCODING",
        "RAW_URI",
        "REQUEST_URI",
        "werkzeug.request",
    )
)


class Backend:
    """The native API as methods, for one request of a client.

    :param app: the WSGI application that speaks ``/api/*``.
    :param environ: the client's environ; it is copied for every call and never changed.
    :param learnt: what was found out about this native side.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment, settings: Settings, learnt: Learnt) -> None:
        self._app = app
        self._environ = environ
        self._settings = settings
        self.learnt = learnt

    @property
    def is_remote(self) -> bool:
        """Whether several calls can run side by side, in threads; an application in process may not stand that."""
        return bool(getattr(self._app, "is_remote", False))

    def chat(
        self, request: native.ChatRequest, *, asked: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[native.ChatResponse]:
        """``POST /api/chat``, streamed. The first message has been read.

        :param asked: the name that the client has for the model, if another.
        :param cancel: ends the call.
        :raises APIError: the native failure, or 502 and 504 for none or no sound answer.
        """
        return self._stream("/api/chat", _decode_chat, request, asked or request.model, cancel)

    def generate(
        self, request: native.GenerateRequest, *, asked: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[native.GenerateResponse]:
        """``POST /api/generate``, streamed; as :meth:`chat`."""
        return self._stream("/api/generate", _decode_generate, request, asked or request.model, cancel)

    def embed(self, request: native.EmbedRequest, *, asked: str | None = None) -> native.EmbedResponse:
        """``POST /api/embed``."""
        return self._collect(_decode_embed, "POST", "/api/embed", request, asked or request.model)

    def delete(self, model: str) -> None:
        """``DELETE /api/delete``: delete a model."""
        self._call("DELETE", "/api/delete", native.DeleteRequest(model, model), model=model).finish()

    def version(self) -> native.VersionResponse:
        """``GET /api/version``."""
        return self._collect(_decode_version, "GET", "/api/version")

    def loaded(self) -> native.ListResponse:
        """``GET /api/ps``: the models that are in memory."""
        return self._collect(_decode_list, "GET", "/api/ps")

    def context_lengths(self) -> dict[str, int]:
        """The context in force of each model that is in memory; nothing where the native side cannot tell.

        It adorns an answer, so no failure of it is one of the answer; a side that has no such path is not
        asked again for a while.
        """
        if "/api/ps" in self.learnt.absent:
            return {}
        try:
            found = self.loaded().models or []
        except APIError as error:
            log.info("which models are loaded is not known: %s", error.message)
            if error.code == "backend_not_ollama" or error.status == 404:  # no model was named: it is the path
                self.learnt.absent.add("/api/ps")
            return {}
        return {model.called: int(model.context_length) for model in found if model.context_length}

    def tags(self) -> native.ListResponse:
        """``GET /api/tags``: the models that are there."""
        return self._collect(_decode_list, "GET", "/api/tags")

    def show(self, model: str, *, asked: str | None = None) -> native.ShowResponse:
        """``POST /api/show``: one model.

        Asked by ``name``, as Ollama's own middleware does; a server that wants ``model`` is asked again.
        """
        asked = asked or model
        try:
            return self._collect(_decode_show, "POST", "/api/show", native.ShowRequest(name=model), asked)
        except APIError as error:
            if error.status != 400:
                raise
        return self._collect(_decode_show, "POST", "/api/show", native.ShowRequest(model=model), asked)

    def _stream(
        self,
        path: str,
        decode: Callable[[bytes], L],
        request: object,
        model: str,
        cancel: Cancel | None,
    ) -> NativeStream[L]:
        exchange = self._call("POST", path, request, model=model, cancel=cancel)
        max_line = self._settings.max_line
        return NativeStream(exchange, decode, max_line=max_line, model=model, asked=f"POST {path}").open()

    def _collect(
        self, decode: Callable[[bytes], T], method: str, path: str, request: object = None, model: str | None = None
    ) -> T:
        exchange = self._call(method, path, request, model=model)
        try:
            body = exchange.read(self._settings.max_answer)
        finally:
            exchange.close()
        try:
            return decode(body)
        except json.Malformed as error:
            raise failures.unreadable(body, asked=f"{method} {path}") from error

    def _call(
        self, method: str, path: str, request: object, *, model: str | None, cancel: Cancel | None = None
    ) -> Exchange:
        environ = self._native_environ(method, path, request)
        if cancel is not None:
            environ[CANCEL] = cancel
        exchange = Exchange(self._app, environ)
        if exchange.status == 200:
            return exchange
        try:
            raise self._failure(exchange, model, f"{method} {path}")
        finally:
            exchange.close()

    def _failure(self, exchange: Exchange, model: str | None, asked: str) -> APIError:
        status = exchange.status
        if status in (401, 403, *_REDIRECTS):
            return _not_let_in(exchange)
        if status < 400:
            log.error("the backend answered %s with %d", asked, status)
            return broken()
        return failures.from_status(status, exchange.read(_MAX_ERROR), model, asked=asked)

    def _native_environ(self, method: str, path: str, request: object) -> dict[str, Any]:
        body = b"" if request is None else json.encode(request)
        environ = {
            key: value
            for key, value in self._environ.items()
            if key not in _CLIENTS_OWN and not key.startswith("webob.")
        }
        environ.update(
            {
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": "",
                "HTTP_ACCEPT": "application/x-ndjson, application/json",
                "wsgi.input": io.BytesIO(body),
                "wsgi.input_terminated": True,
                TRANSLATED: True,
            }
        )
        if request is not None:
            environ["CONTENT_TYPE"] = "application/json"
            environ["CONTENT_LENGTH"] = str(len(body))
        return environ


_REDIRECTS = (301, 302, 303, 307, 308)


def _not_let_in(exchange: Exchange) -> APIError:
    """An application in process that wants a login: its 401 or 403 stands, a login page is a 401."""
    status = exchange.status if exchange.status in (401, 403) else 401
    challenge = exchange.header("www-authenticate")
    text = "You must be signed in." if status == 401 else "You are not allowed to do this."
    return APIError(
        status,
        text,
        code="invalid_api_key" if status == 401 else None,
        headers=(("WWW-Authenticate", challenge),) if challenge and is_header("WWW-Authenticate", challenge) else (),
    )
