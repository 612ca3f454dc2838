"""The wrapped application as an Ollama: the only module that calls it.

Every native call is a call of a WSGI application, in process or remote, with an environ of its own. Only the paths
below are called. A call returns decoded messages or raises :class:`APIError`; nothing here knows OpenAI's requests.

Source: ollama ``middleware/openai.go``, where ``c.Next()`` runs the native handler.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from openai_compat.errors import APIError, bad_gateway
from openai_compat.log import log
from openai_compat.native import errors
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits, ModelFacts
from openai_compat.native.stream import NativeStream
from openai_compat.native.usage import NativeUsage
from openai_compat.settings import Settings
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.headers import is_header
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel, is_remote, speaks_native_only
from openai_compat.transport.urls import redacted, without_query
from openai_compat.transport.wsgi_call import WSGICall
from openai_compat.wire import json

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")
L = TypeVar("L", bound=native.StreamLine)

#: a function that makes one native call and reads its first message; its argument cancels this call alone
StartCall = Callable[[Cancel], NativeStream[L]]

#: bytes of a native error that are read: Ollama's is one line, and the client sees 500 characters of it at most
_MAX_ERROR = 1024 * 1024

_decode_chat = json.native_decoder(native.ChatResponse)
_decode_generate = json.native_decoder(native.GenerateResponse)
_decode_embed = json.native_decoder(native.EmbedResponse)
_decode_list = json.native_decoder(native.ListResponse)
_decode_version = json.native_decoder(native.VersionResponse)
_decode_show = json.native_decoder(native.ShowResponse)

#: models that are described for one list, seconds for all of them, and calls at once: a list must not take long; those
#: that are missing are described for the next one
_MAX_SHOWN, _SHOW_TIME, _SHOW_THREADS = 100, 3.0, 8

#: keys of the client's environ that describe its own body and connection, which a native call does not share
_NOT_FORWARDED = frozenset(
    (
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_CONTENT_ENCODING",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_MD5",
        "HTTP_CONTENT_TYPE",
        "HTTP_DIGEST",
        "HTTP_EXPECT",
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_RANGE",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_X_HTTP_METHOD_OVERRIDE",
        "RAW_URI",
        "REQUEST_URI",
    )
)

#: beginnings of keys under which frameworks cache the client's request: a native call is another request
_FRAMEWORKS = (
    *(
        "bottle.",
        "django.",
        "falcon.",
        "flask.",
        "morepath.",
        "paste.parsed",
        "pyramid.",
        "route.",
        "routes.",
        "webapp2.",
    ),
    *("webob.", "werkzeug.", "wsgi.post_form", "wsgiorg.routing_args"),
)


class Backend:
    """The native API as methods, for one request of a client.

    :param app: the WSGI application that speaks ``/api/*``.
    :param environ: the client's environ; it is copied for every call and never changed.
    :param limits: what this backend is known not to have.
    :param cancel: ends every call; a new one if not given.
    """

    def __init__(
        self,
        app: WSGIApplication,
        environ: WSGIEnvironment,
        settings: Settings,
        limits: KnownLimits,
        cancel: Cancel | None = None,
    ) -> None:
        self._app = app
        self._environ = environ
        self._settings = settings
        self.limits = limits
        self.cancel = cancel or Cancel()
        #: of all calls that were made so far
        self.usage = NativeUsage()

    @property
    def is_remote(self) -> bool:
        """Return whether several calls may run at once, in threads; an application in process may not allow it."""
        return is_remote(self._app)

    @property
    def is_whole(self) -> bool:
        """Return whether the whole native API is there; an application of another kind may have a part of it."""
        return speaks_native_only(self._app)

    def chat(
        self, request: native.ChatRequest, *, model: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[native.ChatResponse]:
        """Call ``POST /api/chat``, streamed, and read the first message.

        :param model: the client's name for the model, if it differs from the request's.
        :param cancel: ends this call alone; the one of all calls ends it too.
        :raises APIError: the native error; 502 for a response that is not valid, 504 for one that takes too long.
        """
        return self._stream("/api/chat", _decode_chat, request, model or request.model, cancel)

    def generate(
        self, request: native.GenerateRequest, *, model: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[native.GenerateResponse]:
        """Call ``POST /api/generate``, streamed; as :meth:`chat`."""
        return self._stream("/api/generate", _decode_generate, request, model or request.model, cancel)

    def embed(self, request: native.EmbedRequest, *, model: str | None = None) -> native.EmbedResponse:
        """Call ``POST /api/embed``; *model* and errors as in :meth:`chat`."""
        response = self._collect(_decode_embed, "POST", "/api/embed", request, model or request.model)
        self.usage.add(response)
        return response

    def delete(self, model: str) -> None:
        """Call ``DELETE /api/delete``: delete a model."""
        self._call("DELETE", "/api/delete", native.DeleteRequest(model, model), model=model).finish()

    def version(self) -> native.VersionResponse:
        """Call ``GET /api/version``."""
        return self._collect(_decode_version, "GET", "/api/version")

    def loaded(self) -> native.ListResponse:
        """Call ``GET /api/ps``: list the models that are in memory."""
        return self._collect(_decode_list, "GET", "/api/ps")

    def context_lengths(self) -> dict[str, int]:
        """Return the context length in force of each loaded model, in tokens; empty where it is not known.

        The response that it goes into is valid without it, so a failure is logged and not raised. A server without the
        path is not called for it again for a while.
        """
        if "/api/ps" in self.limits.absent_paths:
            return {}
        try:
            found = self.loaded().models or []
        except APIError as error:
            if self.cancel.is_set:
                raise
            log.info("cannot list the loaded models: %s", error.message)
            if error.code == "backend_not_ollama" or error.status == 404:  # it names no model: the path is missing
                self.limits.absent_paths.add("/api/ps")
            return {}
        return {model.request_name: int(model.context_length) for model in found if model.context_length}

    def tags(self) -> native.ListResponse:
        """Call ``GET /api/tags``: list the models that are installed."""
        return self._collect(_decode_list, "GET", "/api/tags")

    def facts(self, models: Sequence[native.ListedModel]) -> dict[str, ModelFacts]:
        """Return what ``/api/show`` says of models, by their digests.

        ``/api/tags`` has capabilities too, but says ``completion`` of embedding models. Each digest is asked for once,
        several at a time where the backend allows it, all of them within a few seconds; what is known by then is
        returned. A model without a digest, which no Ollama has, is not asked for.
        """
        known, found, unknown = self.limits.facts, dict[str, ModelFacts](), dict[str, native.ListedModel]()
        for model in models:
            if model.digest:
                facts = known.get(model.digest)
                if facts is None:
                    unknown[model.digest] = model
                else:
                    found[model.digest] = facts
        for digest, shown in self._show_all(dict(list(unknown.items())[:_MAX_SHOWN])):
            found[digest] = ModelFacts(shown.capabilities, shown.num_ctx)
            known.add(digest, found[digest])
        return found

    def _show_all(self, models: Mapping[str, native.ListedModel]) -> Iterator[tuple[str, native.ShowResponse]]:
        """Yield the descriptions of models that arrive in time, with the models' digests."""
        cancel, deadline = self.cancel.child(), time.monotonic() + _SHOW_TIME

        def show(model: native.ListedModel) -> native.ShowResponse | None:
            if time.monotonic() > deadline:
                return None
            try:
                return self.show(model.request_name, cancel=cancel.child())
            except APIError as error:
                log.info("cannot describe a model: %s", error.message)
                return None

        if not models or not self.is_remote:
            yield from ((digest, shown) for digest, model in models.items() if (shown := show(model)) is not None)
            return
        executor = ThreadPoolExecutor(min(_SHOW_THREADS, len(models)), "openai-compat-show")
        # Each runs in a copy of this context, so that logging and tracing see the request in its native calls too.
        futures = {executor.submit(copy_context().run, show, model): digest for digest, model in models.items()}
        try:
            wait(futures, timeout=_SHOW_TIME)
            for future, digest in futures.items():
                if future.done() and (shown := future.result()) is not None:
                    yield digest, shown
        finally:
            cancel.set()
            executor.shutdown(wait=False, cancel_futures=True)

    def show(self, name: str, *, model: str | None = None, cancel: Cancel | None = None) -> native.ShowResponse:
        """Call ``POST /api/show``: describe one model.

        The request has ``name``, like that of Ollama's own middleware; if a server answers 400, it is sent again with
        ``model``.

        :param model: the client's name for the model, if it differs.
        :param cancel: ends this call alone.
        """
        model = model or name
        try:
            return self._collect(_decode_show, "POST", "/api/show", native.ShowRequest(name=name), model, cancel)
        except APIError as error:
            if error.status != 400:
                raise
        return self._collect(_decode_show, "POST", "/api/show", native.ShowRequest(model=name), model, cancel)

    def _stream(
        self, path: str, decode: Callable[[bytes], L], request: object, model: str, cancel: Cancel | None
    ) -> NativeStream[L]:
        call = self._call("POST", path, request, model=model, cancel=cancel)
        max_line, operation = self._settings.max_line, f"POST {path}"
        stream = NativeStream(call, decode, max_line=max_line, model=model, operation=operation, on_end=self.usage.add)
        return stream.open()

    def _collect(
        self,
        decode: Callable[[bytes], T],
        method: str,
        path: str,
        request: object = None,
        model: str | None = None,
        cancel: Cancel | None = None,
    ) -> T:
        call = self._call(method, path, request, model=model, cancel=cancel)
        try:
            body = call.read(self._settings.max_answer)
            failure = call.take_failure()
        finally:
            call.close()
        try:
            return decode(body)
        except json.Malformed as error:
            # An application may catch the upstream's failure: what it sends then counts if it is a document.
            raise failure or errors.unreadable(body, operation=f"{method} {path}") from error

    def _call(
        self, method: str, path: str, request: object, *, model: str | None, cancel: Cancel | None = None
    ) -> WSGICall:
        cancel = cancel or self.cancel.child()
        if cancel.is_set:
            raise bad_gateway("The request was cancelled.")
        self.usage.begin(None if path == "/api/show" else model)
        environ = self._native_environ(method, path, request)
        environ[SIDE_CHANNEL] = SideChannel(cancel)
        call = WSGICall(self._app, environ)
        if call.status == 200:
            return call
        try:
            raise call.take_failure() or self._failure(call, model, f"{method} {path}")
        finally:
            call.close()

    def _failure(self, call: WSGICall, model: str | None, operation: str) -> APIError:
        status = call.status
        if status in _REDIRECTS:
            return _redirected(call, operation, self._environ.get("SCRIPT_NAME", ""))
        if status in (401, 403):
            return _login_required(call)
        if status < 400:
            log.error("the backend answered %s with %d", operation, status)
            return bad_gateway()
        retry_after = call.header("retry-after")
        return errors.from_status(status, call.read(_MAX_ERROR), model, operation=operation, retry_after=retry_after)

    def _native_environ(self, method: str, path: str, request: object) -> dict[str, Any]:
        body = b"" if request is None else json.encode(request)
        environ = {
            key: value
            for key, value in self._environ.items()
            if key not in _NOT_FORWARDED and not key.startswith(_FRAMEWORKS)
        }
        environ.update(
            {
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": "",
                "HTTP_ACCEPT": "application/x-ndjson, application/json",
                "wsgi.input": io.BytesIO(body),
                "wsgi.input_terminated": True,
            }
        )
        if request is not None:
            environ["CONTENT_TYPE"] = "application/json"
            environ["CONTENT_LENGTH"] = str(len(body))
        return environ


_REDIRECTS = (301, 302, 303, 307, 308)


def _redirected(call: WSGICall, operation: str, script_name: str) -> APIError:
    """Return the error for a redirect by an application in process.

    One to the same path (of another scheme or host, or with another slash) is a matter of its configuration; one to
    another path is a login page.
    """
    location, path = call.header("location"), operation.partition(" ")[2]
    target = without_query(location)
    log.error("the wrapped application redirects %s to %r", operation, redacted(target)[:_MAX_LOCATION])
    try:
        target_path = re.sub("/+", "/", urlsplit(urljoin(path, target)).path)
    except ValueError:
        target_path = path
    if target_path.rstrip("/") in (path, script_name + path):
        return APIError(502, "The backend redirects.", code="upstream_redirect", retry=False)
    return _login_required(call)


_MAX_LOCATION = 300


def _login_required(call: WSGICall) -> APIError:
    """Return the error for an application in process that wants a login: its 401 or 403, or 401 for a login page."""
    status = call.status if call.status in (401, 403) else 401
    challenge = call.header("www-authenticate")
    text = "You must be signed in." if status == 401 else "You are not allowed to do this."
    return APIError(
        status,
        text,
        code="invalid_api_key" if status == 401 else None,
        headers=(("WWW-Authenticate", challenge),) if challenge and is_header("WWW-Authenticate", challenge) else (),
    )
