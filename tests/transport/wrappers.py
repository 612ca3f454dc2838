"""Applications between the middleware and an upstream, and requests that are sent through them.

None of them knows the protocol between the two; each keeps to the rules of WSGI.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, islice
from typing import Any, NamedTuple

import pytest
from webob import Request
from webob.dec import wsgify
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, create_environ

from openai_compat import Settings
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.testing import done
from openai_compat.transport.cancel import Cancel
from tests.chaos import Chaos, Step, answer
from tests.contract import frames
from tests.transport.gateways import HELLO, line

App = Callable[[Any, Any], Any]
Wrapper = Callable[[App], App]

PAGE = [("Content-Type", "text/html")]

UNREACHABLE = (502, "upstream_unreachable", "The backend could not be reached.")
TIMEOUT = (504, "upstream_timeout", "The backend took too long.")
AUTH = (502, "upstream_auth", "The backend refused the gateway's credentials.")
REDIRECT = (502, "upstream_redirect", "The backend redirects.")
BROKEN = (502, "upstream_error", "The connection to the backend broke.")


# -- applications in between ------------------------------------------------------------------


class Head(NamedTuple):
    """A response's head, held back."""

    status: str
    headers: list[tuple[str, str]]


class Body:
    """A body of which items were read before the head was known."""

    def __init__(self, first: list[bytes], iterator: Iterator[bytes], iterable: Any) -> None:
        self._items = chain(first, iterator)
        self._iterable = iterable

    def __iter__(self) -> Iterator[bytes]:
        return self._items

    def close(self) -> None:
        close_body(self._iterable)


def response(app: App, environ: Any) -> tuple[Head, Body]:
    """The head of a response, which may come as late as its first item, and the body."""
    heads: list[Head] = []
    iterable = app(environ, lambda status, headers, exc_info=None: heads.append(Head(status, headers)))
    try:
        iterator = iter(iterable)
        first = [] if heads else list(islice(iterator, 1))
    except BaseException:
        close_body(iterable)
        raise
    return heads[-1], Body(first, iterator, iterable)


def items(body: Any) -> list[bytes]:
    """The whole body, closed."""
    try:
        return list(body)
    finally:
        close_body(body)


def close_body(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def buffers(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        found, body = response(app, environ)
        data = items(body)
        start_response(*found)
        return data

    return wrapper


def catches(app: App) -> App:
    """Answers every exception with a page of its own, and reads the whole body to see one."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        try:
            found, body = response(app, environ)
            data = items(body)
        except Exception:
            start_response("500 Internal Server Error", PAGE)
            return [b"<h1>Oops</h1>"]
        start_response(*found)
        return data

    return wrapper


def rewrites_error_pages(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        found, body = response(app, environ)
        if found.status[0] in "45":
            items(body)
            start_response("500 Internal Server Error", PAGE)
            return [b"<h1>Oops</h1>"]
        start_response(*found)
        return body

    return wrapper


def writes(app: App) -> App:
    """Uses the function that ``start_response`` returns."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        found, body = response(app, environ)
        write = start_response(*found)
        for item in items(body):
            write(item)
        return []

    return wrapper


def is_lazy(app: App) -> App:
    """Calls the application at its own first item."""

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        finally:
            close_body(body)

    return wrapper


def raises_another(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = None
        try:
            body = app(environ, start_response)
            yield from body
        except Exception as error:
            raise RuntimeError("the site failed") from error
        finally:
            close_body(body)

    return wrapper


def ends_quietly(app: App) -> App:
    """Takes a body that breaks for one that ends."""

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        except Exception:
            return
        finally:
            close_body(body)

    return wrapper


def counts_bytes(app: App) -> App:
    sizes: list[int] = []

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        size, body = 0, app(environ, start_response)
        try:
            for item in body:
                size += len(item)
                yield item
        finally:
            sizes.append(size)
            close_body(body)

    return wrapper


def hides_attributes(app: App) -> App:
    """Returns an iterable that has nothing but what PEP 3333 names."""

    class Plain:
        def __init__(self, body: Any) -> None:
            self._body = body

        def __iter__(self) -> Iterator[bytes]:
            return iter(self._body)

        def close(self) -> None:
            close_body(self._body)

    return lambda environ, start_response: Plain(app(environ, start_response))


def copies_the_environ(app: App) -> App:
    return lambda environ, start_response: app(dict(environ), start_response)


def works_in_a_thread(app: App) -> App:
    """Calls the application in another thread, as one that limits its time would."""

    def wrapper(environ: Any, start_response: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            found, body = pool.submit(response, app, environ).result()
        start_response(*found)
        return body

    return wrapper


def gets_a_webob_response(app: App) -> App:
    return lambda environ, start_response: Request(environ).get_response(app)(environ, start_response)


def is_webob_middleware(app: App) -> App:
    @wsgify.middleware
    def middleware(request: Any, app: App) -> Any:
        return request.get_response(app)

    return middleware(app)


def dispatches(app: App) -> App:
    return ProxyFix(DispatcherMiddleware(app, {}))


SIMPLE: list[Wrapper] = [
    rewrites_error_pages,
    is_lazy,
    raises_another,
    ends_quietly,
    counts_bytes,
    hides_attributes,
    copies_the_environ,
    works_in_a_thread,
    gets_a_webob_response,
    is_webob_middleware,
    dispatches,
]


def is_all_of_them(app: App) -> App:
    return reduce(lambda inner, wrapper: wrapper(inner), SIMPLE, app)


def passes_on(app: App) -> App:
    return lambda environ, start_response: app(environ, start_response)


#: they send the items of a body one by one
STREAMING = [passes_on, *SIMPLE, is_all_of_them]
#: generators, which call the application at their own first item
LAZY = [is_lazy, raises_another, ends_quietly, counts_bytes]
#: they read a whole body before they answer
BUFFERING: list[Wrapper] = [buffers, catches, writes]


def each(wrappers: Iterable[Wrapper]) -> Any:
    return pytest.mark.parametrize("wrapper", wrappers, ids=lambda wrapper: wrapper.__name__)


all_wrappers = each(STREAMING + BUFFERING)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class Closes:
    """An application that counts the bodies that it returned, and how often each was closed."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.counts: list[int] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        body = self._app(environ, start_response)
        self.counts.append(0)
        return _Closes(body, self.counts, len(self.counts) - 1)


class _Closes:
    def __init__(self, body: Any, counts: list[int], index: int) -> None:
        self._body, self._counts, self._index = body, counts, index

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._counts[self._index] += 1
        close_body(self._body)


# -- requests ---------------------------------------------------------------------------------

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
TEXT = [{"response": "Hel", "done": False}, {"response": "lo", "done": False}, {**done(), "response": ""}]
MODEL = {"name": "demo", "model": "demo", "modified_at": "2026-01-01T00:00:00Z", "capabilities": ["completion"]}
NOT_LOADED: list[dict[str, Any]] = [{"models": []}]


MULTIPART = "multipart/form-data; boundary=B"


def form(fields: dict[str, Any]) -> bytes:
    """A form with a recording."""
    parts = [f'name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    parts.append('name="file"; filename="a.wav"\r\n\r\nRIFF')
    return "".join(f"--B\r\nContent-Disposition: form-data; {part}\r\n" for part in parts).encode() + b"--B--\r\n"


@dataclass(frozen=True)
class Case:
    """A client's request, the lines of its native responses, and what its own response must hold."""

    path: str
    native: list[list[dict[str, Any]]]
    body: dict[str, Any] = field(default_factory=dict)
    expected: str = "lo"

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))

    def send(self, app: App) -> Reply:
        client, body = Client(app), {"model": "demo", **self.body}
        if "models" in self.path:
            found = client.get(self.path, buffered=True)
        elif "audio" in self.path:
            found = client.post(self.path, data=form(body), content_type=MULTIPART, buffered=True)
        else:
            found = client.post(self.path, json=body, buffered=True)
        if found.mimetype == "text/event-stream":
            return Reply(found.status_code, list(frames(found.data)), is_stream=True)
        return Reply(found.status_code, [found.get_json()])


@dataclass(frozen=True)
class Reply:
    """What a client received: the events of a stream, or one document."""

    status: int
    events: list[Any]
    is_stream: bool = False

    @property
    def error(self) -> dict[str, Any] | None:
        last = self.events[-1]
        found: dict[str, Any] | None = None if last == "[DONE]" else last.get("error")
        return found

    @property
    def failure(self) -> tuple[int, str, str]:
        """Status, code and message of a failure before the head."""
        assert not self.is_stream, "the head was sent"
        assert self.error is not None
        return self.status, self.error["code"], self.error["message"]

    @property
    def late_failure(self) -> tuple[str, str]:
        """Code and message of the error event that ends a stream, after which nothing follows."""
        assert self.is_stream, "a failure before the head"
        assert (self.status, self.error is not None, "[DONE]" in self.events) == (200, True, False)
        assert self.error is not None
        return self.error["code"], self.error["message"]


_AUDIO = "/v1/audio/transcriptions"
CASES = {
    "chat": Case("/v1/chat/completions", [list(HELLO)], CHAT),
    "chat, streamed": Case("/v1/chat/completions", [list(HELLO)], {**CHAT, "stream": True}),
    "two choices": Case("/v1/chat/completions", [list(HELLO)] * 2, {**CHAT, "n": 2}),
    "completions": Case("/v1/completions", [TEXT], {"prompt": "a"}),
    "completions, streamed": Case("/v1/completions", [TEXT] * 2, {"prompt": ["a", "b"], "stream": True}),
    "embeddings": Case("/v1/embeddings", [[{"embeddings": [[0.5]]}]], {"input": "a"}, "0.5"),
    "models": Case("/v1/models", [[{"models": [MODEL]}], NOT_LOADED], expected="demo"),
    "a model": Case("/v1/models/demo", [[MODEL], NOT_LOADED], expected="completion"),
    "audio": Case(_AUDIO, [list(HELLO)]),
    "audio, streamed": Case(_AUDIO, [list(HELLO)], {"stream": True}),
}
STREAMS = {name: case for name, case in CASES.items() if case.is_stream}
DOCUMENTS = ("embeddings", "models", "a model")
#: one of each kind, where every case takes a while
KINDS = [CASES[name] for name in ("chat", "chat, streamed", "embeddings", "a model", "audio, streamed")]


def script(server: Chaos, case: Case, **options: Any) -> None:
    """Good answers to all native calls of a request."""
    for lines in case.native:
        server.script(*answer(*lines, **options))


def broken(case: Case, *end: dict[str, Any] | Step) -> list[Step]:
    """An answer of which the first half arrives: a line of several, or part of a document."""
    [first, *others] = case.native[0]
    return answer(first if others else line(first)[:20], *end)


def attempts(*apps: App) -> App:
    """Try applications in order until one answers without a failure; the body is read to see one."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        for number, app in enumerate(apps, 1):
            try:
                found, body = response(app, {**environ, "wsgi.input": io.BytesIO(data)})
                sent = items(body)
            except Exception:
                if number == len(apps):
                    raise
                continue
            if found.status < "500" or number == len(apps):
                break
        start_response(*found)
        return sent

    return wrapper


REQUEST = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})


def backend(app: App, cancel: Cancel) -> Backend:
    return Backend(app, create_environ(), Settings(), KnownLimits(), cancel)
