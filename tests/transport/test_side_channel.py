"""Applications between the middleware and an upstream that know nothing of the protocol between the two.

Whatever such an application does by the rules of WSGI, the client receives the right status and error, and no
connection is left open.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

from openai_compat import OpenAICompat, Settings, Upstream
from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel, is_remote, side_channel
from openai_compat.transport.wsgi_call import WSGICall
from tests.chaos import CHUNKED, CLOSE, FIN, FRAMINGS, SIZED, WAIT, Chaos, Step, answer, head, refusing
from tests.contract import frames
from tests.generation.streams import beside
from tests.transport.gateways import HELLO, line, streamed, upstream

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


# -- right answers ----------------------------------------------------------------------------


@all_wrappers
def test_a_good_answer_arrives_and_every_body_is_closed_once(server: Chaos, wrapper: Wrapper) -> None:
    outer = Closes(wrapper(inner := Closes(upstream(server))))
    app = OpenAICompat(outer)
    for case in CASES.values():
        script(server, case)
        reply = case.send(app)
        assert (reply.status, reply.error) == (200, None)
        assert case.expected in json.dumps(reply.events)
        assert outer.counts == inner.counts == [1] * len(server.requests)


@each([passes_on, is_lazy, is_all_of_them, *BUFFERING])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_f11_a_connection_is_reused_after_a_good_answer(server: Chaos, wrapper: Wrapper, framing: str) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in CASES.values():
        script(server, case, framing=framing)
        assert case.send(app).status == 200
    assert server.connections == (len(server.requests) if framing == CLOSE else 1)


@all_wrappers
def test_f1_an_upstream_that_is_down(wrapper: Wrapper) -> None:
    with refusing() as nowhere:
        app = OpenAICompat(outer := Closes(wrapper(Upstream(f"http://{nowhere}"))))
        assert {name: case.send(app).failure for name, case in CASES.items()} == dict.fromkeys(CASES, UNREACHABLE)
    assert outer.counts == [1] * len(CASES)


@all_wrappers
def test_f3_an_upstream_that_is_silent(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server, timeout=(WAIT, 0.01, WAIT))))
    for case in KINDS:
        server.script(b"")
        assert case.send(app).failure == TIMEOUT
        server.gone.get(timeout=WAIT)


@all_wrappers
@pytest.mark.parametrize(("status", "expected"), [(401, AUTH), (403, AUTH), (302, REDIRECT)])
def test_f14_f17_what_the_operator_must_correct(
    server: Chaos, wrapper: Wrapper, status: int, expected: tuple[int, str, str]
) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in CASES.values():
        server.script(*answer({"error": "secret"}, status=status, headers=[("Location", "/login")]))
        assert case.send(app).failure == expected
        server.gone.get(timeout=WAIT)


@each([wrapper for wrapper in STREAMING + BUFFERING if wrapper not in (rewrites_error_pages, is_all_of_them)])
def test_a_model_that_does_not_exist(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in [case for case in CASES.values() if case.path != "/v1/models"]:
        server.script(*answer({"error": "model 'demo' not found"}, status=404))
        status, code, message = case.send(app).failure
        assert (status, code) == (404, "model_not_found")
        assert message.endswith("model 'demo' not found")


@all_wrappers
def test_f7_a_break_in_the_middle(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(outer := Closes(wrapper(upstream(server))))
    for name, case in CASES.items():
        server.script(*broken(case, FIN))
        reply = case.send(app)
        if case.is_stream and wrapper not in BUFFERING:
            assert reply.late_failure == BROKEN[1:], name
        else:
            assert reply.failure == BROKEN, name
    assert outer.counts == [1] * (0 if wrapper in (buffers, writes) else len(CASES))  # those raise and return none


@all_wrappers
def test_f4_a_silence_in_the_middle(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server, timeout=(WAIT, WAIT, 0.01))))
    for case in KINDS:
        server.script(*broken(case, FIN)[:-1])
        reply = case.send(app)
        if case.is_stream and wrapper not in BUFFERING:
            assert reply.late_failure == TIMEOUT[1:]
        else:
            assert reply.failure == TIMEOUT
        assert server.gone.get(timeout=WAIT)


@all_wrappers
def test_f33_an_error_line_in_the_middle(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(outer := Closes(wrapper(upstream(server))))
    cases = {name: case for name, case in CASES.items() if name not in DOCUMENTS}
    for name, case in cases.items():
        server.script(*answer(case.native[0][0], {"error": "boom"}))
        reply = case.send(app)
        # The head is out in every case: the first line is a good one.
        assert (reply.late_failure if case.is_stream else reply.failure[1:]) == ("upstream_error", "boom"), name
        assert reply.status == (200 if case.is_stream else 502)
    assert outer.counts == [1] * len(cases)


@each([passes_on, is_lazy, is_all_of_them, *BUFFERING])
def test_f27_an_early_end(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    message = "The backend's answer ended before it was complete."
    for case in [CASES["chat"], CASES["chat, streamed"]]:
        server.script(*answer(say("Hel")))
        reply = case.send(app)
        assert (reply.late_failure if case.is_stream else reply.failure[1:]) == ("upstream_error", message)


# -- applications that answer in another way --------------------------------------------------


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


def test_a_second_upstream_answers_for_one_that_is_down(server: Chaos) -> None:
    with refusing() as nowhere:
        app = OpenAICompat(attempts(Upstream(f"http://{nowhere}"), upstream(server)))
        for case in CASES.values():
            script(server, case)
            reply = case.send(app)
            assert (reply.status, reply.error) == (200, None)
            assert case.expected in json.dumps(reply.events)


@pytest.mark.parametrize("name", CASES)
def test_an_application_in_process_answers_for_an_upstream_that_is_down(name: str) -> None:
    case, application = CASES[name], FakeOllama()
    paths = {"/v1/completions": "/api/generate", "/v1/embeddings": "/api/embed"}
    if "models" not in case.path:
        for lines in case.native:
            application.script(paths.get(case.path, "/api/chat"), *lines)
    with refusing() as nowhere:
        reply = case.send(OpenAICompat(attempts(Upstream(f"http://{nowhere}"), application)))
    assert (reply.status, reply.error) == (200, None)
    assert case.expected in json.dumps(reply.events)
    assert application.opened == application.closed == len(case.native)


@pytest.mark.parametrize("first", ["busy", "broken", "unauthorized", "redirecting", "silent"])
def test_a_second_attempt_answers_for_the_first(server: Chaos, first: str) -> None:
    remote = upstream(server, timeout=(WAIT, 0.2 if first == "silent" else WAIT, WAIT))
    app = OpenAICompat(attempts(remote, remote))
    for name in ("chat", "chat, streamed", "embeddings"):
        case = CASES[name]
        scripts = {
            "busy": answer({"error": "no"}, status=503),
            "broken": broken(case, FIN),
            "unauthorized": answer({"error": "no"}, status=401),
            "redirecting": answer(status=302),
            "silent": [b""],
        }
        server.script(*scripts[first])
        script(server, case)
        reply = case.send(app)
        assert (reply.status, reply.error) == (200, None)
        assert case.expected in json.dumps(reply.events)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, (503, "overloaded", "no")),
        (401, AUTH),
        (302, REDIRECT),
        (404, (404, "model_not_found", "The model `demo` does not exist or you do not have access to it. not found")),
    ],
)
def test_the_last_attempt_counts(server: Chaos, status: int, expected: tuple[int, str, str]) -> None:
    with refusing() as nowhere:
        app = OpenAICompat(attempts(Upstream(f"http://{nowhere}"), upstream(server)))
        server.script(*answer({"error": "not found" if status == 404 else "no"}, status=status))
        assert CASES["chat"].send(app).failure == expected


def test_f1_two_upstreams_that_are_down() -> None:
    with refusing() as one, refusing() as other:
        app = OpenAICompat(attempts(Upstream(f"http://{one}"), Upstream(f"http://{other}")))
        assert {name: case.send(app).failure for name, case in CASES.items()} == dict.fromkeys(CASES, UNREACHABLE)


def canned(app: App, lines: list[dict[str, Any]], *, cut: bool = False) -> App:
    """Answer with lines of its own in place of a failure, or after what came of a body that broke."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        sent: list[bytes] = []
        found, body = response(app, environ)
        try:
            for item in body:
                sent.append(item)
            is_failure = found.status >= "400"
        except Exception:
            is_failure = True
        finally:
            close_body(body)
        if is_failure:
            found = Head("200 OK", [("Content-Type", "application/x-ndjson")])
            sent = [*(sent if cut else []), *map(line, lines)]
        start_response(*found)
        return sent

    return wrapper


@pytest.mark.parametrize("name", CASES)
def test_a_successful_response_in_place_of_a_failure_is_used(name: str) -> None:
    case = CASES[name]
    with refusing() as nowhere:
        reply = case.send(OpenAICompat(canned(Upstream(f"http://{nowhere}"), case.native[0])))
    assert (reply.status, reply.error) == (200, None)
    assert case.expected in json.dumps(reply.events)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_in_place_of_one_that_breaks_is_used(server: Chaos, name: str) -> None:
    case = CASES[name]
    for _ in case.native:
        server.script(*broken(case, FIN))
    reply = case.send(OpenAICompat(canned(upstream(server), case.native[0])))
    assert (reply.status, reply.error) == (200, None)
    assert case.expected in json.dumps(reply.events)


@both
def test_lines_after_those_of_a_body_that_broke_are_used(server: Chaos, stream: bool) -> None:
    server.script(*answer(say("Hel"), FIN))
    app = OpenAICompat(canned(upstream(server), [say("lo"), done()], cut=True))
    reply = CASES["chat, streamed" if stream else "chat"].send(app)
    assert (reply.status, reply.error) == (200, None)
    assert "lo" in json.dumps(reply.events)


def adds(app: App, item: bytes) -> App:
    """Send an item of its own after a body that breaks."""

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        except Exception:
            yield item
        finally:
            close_body(body)

    return wrapper


@both
@pytest.mark.parametrize("item", [b"<h1>Oops</h1>", b"<h1>Oops</h1>\n", b'{"error": "Oops"}\n'])
def test_f7_what_follows_a_body_that_breaks_is_a_failure(server: Chaos, item: bytes, stream: bool) -> None:
    server.script(*answer(say("Hel"), FIN))
    reply = CASES["chat, streamed" if stream else "chat"].send(OpenAICompat(adds(upstream(server), item)))
    assert (reply.late_failure[0] if stream else reply.failure[1]) == "upstream_error"
    assert reply.status == (200 if stream else 502)


@both
@pytest.mark.parametrize(
    "item",
    [b"<h1>Oops</h1>", b"<h1>Oops</h1>\n", b'{"error": "Oops"}\n'],
)
def test_f4_what_follows_a_silence_in_the_middle_is_a_timeout(server: Chaos, item: bytes, stream: bool) -> None:
    """The application is right that the call failed; why, the upstream knows better."""
    server.script(*answer(say("Hel"), FIN)[:-1])
    remote = upstream(server, timeout=(WAIT, WAIT, 0.01))
    reply = CASES["chat, streamed" if stream else "chat"].send(OpenAICompat(adds(remote, item)))
    assert (reply.late_failure if stream else reply.failure[1:]) == TIMEOUT[1:]
    assert reply.status == (200 if stream else 504)


@pytest.mark.parametrize(
    ("name", "framing"), [*[(name, CHUNKED) for name in CASES], ("chat", SIZED), ("chat, streamed", CLOSE)]
)
def test_code_after_the_last_item_of_an_application_runs(server: Chaos, name: str, framing: str) -> None:
    sizes: list[int] = []

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        size = 0
        for item in remote(environ, start_response):
            size += len(item)
            yield item
        sizes.append(size)

    remote, case = upstream(server), CASES[name]
    script(server, case, framing=framing)
    assert case.send(OpenAICompat(wrapper)).error is None
    assert sizes == [sum(len(line(message)) for message in lines) for lines in case.native]
    assert server.connections == (len(server.requests) if framing == CLOSE else 1)


@each(LAZY)
def test_w3_a_response_without_a_body_has_a_status(server: Chaos, wrapper: Wrapper) -> None:
    server.script(*answer())
    app = OpenAICompat(outer := Closes(wrapper(upstream(server))), delete_models=True)
    found = Client(app).delete("/v1/models/demo")
    assert (found.status_code, found.get_json()) == (200, {"id": "demo", "object": "model", "deleted": True})
    assert outer.counts == [1]


@each([wrapper for wrapper in STREAMING + BUFFERING if wrapper not in LAZY])
def test_deleting_a_model(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)), delete_models=True)
    server.script(*answer())
    assert Client(app).delete("/v1/models/demo").status_code == 200
    server.script(*answer({"error": "model 'demo' not found"}, status=401))
    found = Client(app).delete("/v1/models/demo")
    assert (found.status_code, found.get_json()["error"]["code"]) == AUTH[:2]


@pytest.mark.parametrize("status", ["204 No Content", "302 Found", "401 Unauthorized", "404 Not Found", "503 Busy"])
def test_f1_a_status_in_place_of_a_failure_is_the_failure(status: str) -> None:
    """Such as a redirect to an error page, or to a login that every failure leads to."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        found, body = response(remote, environ)
        items(body)
        start_response(status if found.status >= "400" else found.status, [("Location", "/oops")])
        return []

    with refusing() as nowhere:
        remote, app = Upstream(f"http://{nowhere}"), OpenAICompat(wrapper)
        assert {name: case.send(app).failure for name, case in CASES.items()} == dict.fromkeys(CASES, UNREACHABLE)


# -- applications that lose the side channel --------------------------------------------------

#: of PEP 3333, with the headers that a native call has
STANDARD = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")


def makes_an_environ(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        new = {
            key: value
            for key, value in environ.items()
            if key in STANDARD or key.startswith(("SERVER_", "wsgi.", "HTTP_"))
        }
        return app(new, start_response)

    return wrapper


def is_lazy_and_makes_an_environ(app: App) -> App:
    return is_lazy(makes_an_environ(app))


losing = each([makes_an_environ, is_lazy_and_makes_an_environ])


def lost(reply: Reply) -> tuple[int, str]:
    """Status and message of a failure whose code may be the general one."""
    return reply.failure[0], reply.failure[2]


@losing
def test_without_a_side_channel_a_good_answer_arrives(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(outer := Closes(wrapper(upstream(server))))
    for case in CASES.values():
        script(server, case)
        reply = case.send(app)
        assert (reply.status, reply.error) == (200, None)
        assert case.expected in json.dumps(reply.events)
    assert outer.counts == [1] * len(server.requests)


@losing
def test_f1_without_a_side_channel_an_upstream_that_is_down(wrapper: Wrapper) -> None:
    with refusing() as nowhere:
        app = OpenAICompat(wrapper(Upstream(f"http://{nowhere}")))
        found = {name: case.send(app) for name, case in CASES.items()}
    assert {name: lost(reply) for name, reply in found.items()} == dict.fromkeys(CASES, UNREACHABLE[::2])
    assert {reply.failure[1] for reply in found.values()} <= {"upstream_error", "upstream_unreachable"}


@losing
def test_f3_without_a_side_channel_an_upstream_that_is_silent(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server, timeout=(WAIT, 0.01, WAIT))))
    for case in KINDS:
        server.script(b"")
        assert case.send(app).failure == TIMEOUT


@losing
@pytest.mark.parametrize(("status", "expected"), [(401, AUTH), (403, AUTH), (302, REDIRECT)])
def test_f14_f17_without_a_side_channel_what_the_operator_must_correct(
    server: Chaos, wrapper: Wrapper, status: int, expected: tuple[int, str, str]
) -> None:
    """A 401 would tell the client that its own key is wrong."""
    app = OpenAICompat(wrapper(upstream(server)))
    headers = [("Location", "/login"), ("WWW-Authenticate", "Basic")]
    for case in CASES.values():
        server.script(*answer({"error": "secret"}, status=status, headers=headers))
        reply = case.send(app)
        assert reply.status == expected[0]
        assert reply.failure[1] in (expected[1], "upstream_error")
        assert "secret" not in reply.failure[2]


@losing
def test_without_a_side_channel_a_model_that_does_not_exist(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in [case for case in CASES.values() if case.path != "/v1/models"]:
        server.script(*answer({"error": "model 'demo' not found"}, status=404))
        assert case.send(app).failure[:2] == (404, "model_not_found")


@losing
def test_f7_without_a_side_channel_a_break_in_the_middle(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in CASES.values():
        server.script(*broken(case, FIN))
        reply = case.send(app)
        assert (reply.late_failure if case.is_stream else reply.failure[1:]) == BROKEN[1:]


# -- cancelling through applications ----------------------------------------------------------

REQUEST = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})


def backend(app: App, cancel: Cancel) -> Backend:
    return Backend(app, create_environ(), Settings(), KnownLimits(), cancel)


def ended(app: App, cancel: Cancel, when: Callable[[], object]) -> APIError:
    """Cancel a chat when *when* has returned; the error that it ends with, soon."""
    future = beside(lambda: list(backend(app, cancel).chat(REQUEST)))
    when()
    cancel.set()
    with pytest.raises(APIError) as raised:
        future.result(timeout=WAIT / 2)
    return raised.value


@all_wrappers
def test_f41_cancelling_ends_a_wait_for_the_head(server: Chaos, wrapper: Wrapper) -> None:
    server.script(b"")
    remote = upstream(server, timeout=2 * WAIT)
    assert ended(wrapper(remote), Cancel(), lambda: server.heads.get(timeout=WAIT)).status == 502
    assert server.gone.get(timeout=WAIT)


@pytest.mark.parametrize(
    ("wrapper", "framing"),
    [*[(wrapper, CHUNKED) for wrapper in STREAMING + BUFFERING], *[(is_lazy, framing) for framing in (SIZED, CLOSE)]],
)
def test_f41_cancelling_ends_a_silence_in_the_middle(server: Chaos, wrapper: Wrapper, framing: str) -> None:
    server.script(*answer(say("Hel"), FIN, framing=framing, length=1000)[:-1])
    remote = upstream(server, timeout=2 * WAIT)
    error = ended(wrapper(remote), Cancel(), lambda: server.heads.get(timeout=WAIT))
    assert (error.status, error.code) == (502, "upstream_error")
    assert server.gone.get(timeout=WAIT)


@each(STREAMING)
def test_f41_a_client_that_leaves_ends_the_call(server: Chaos, wrapper: Wrapper) -> None:
    server.script(*answer(say("Hel"), FIN)[:-1])
    app = OpenAICompat(outer := Closes(wrapper(upstream(server, timeout=2 * WAIT))))
    with streamed(app) as body:
        assert b"Hel" in next(body)
    assert server.gone.get(timeout=WAIT)
    assert outer.counts == [1]


def test_f41_a_cancelled_call_is_not_attempted_again(server: Chaos) -> None:
    server.script(b"")
    remote = upstream(server, timeout=2 * WAIT)
    ended(attempts(remote, remote, remote), Cancel(), lambda: server.heads.get(timeout=WAIT))
    assert server.gone.get(timeout=WAIT)
    assert (server.connections, server.heads.empty()) == (1, True)


@pytest.mark.parametrize("when", ["closed late", "dropped"])
def test_f41_the_end_of_a_first_response_does_not_protect_a_second_from_cancelling(server: Chaos, when: str) -> None:
    """A connection that is closed after another one was opened is not the one that the call waits for."""

    def fails_over(environ: Any, start_response: Any) -> Any:
        data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        bodies = []
        for _ in range(2):
            found, body = response(remote, {**environ, "wsgi.input": io.BytesIO(data)})
            if when == "closed late":
                bodies.append(body)
        for other in bodies[:-1]:
            other.close()
        start_response(*found)
        return body

    remote = upstream(server, timeout=(WAIT, WAIT, 0.2))
    server.script(*answer({"error": "busy"}, status=503))
    server.script(*answer(say("Hel"), FIN)[:-1])
    cancel = Cancel()
    with closing(backend(fails_over, cancel).chat(REQUEST)) as stream:
        next(stream)
        cancel.set()
        with pytest.raises(APIError, match="The connection to the backend broke"):
            next(stream)  # of a connection that is still open, it would be a time-out


# -- the channel itself -----------------------------------------------------------------------


def test_a_request_that_is_passed_through_has_none() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(side_channel(environ))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    Client(OpenAICompat(app)).get("/api/tags", buffered=True)
    assert seen == [None]
    assert side_channel({SIDE_CHANNEL: "text"}) is None


def test_every_native_call_has_one_of_its_own() -> None:
    seen: list[Any] = []

    class Seeing(FakeOllama):
        def __call__(self, environ: Any, start_response: Any) -> Any:
            seen.append(side_channel(environ))
            return super().__call__(environ, start_response)

    app = OpenAICompat(Seeing())
    for case in CASES.values():
        case.send(app)
    assert None not in seen
    assert len({id(channel) for channel in seen}) == len(seen) == sum(len(case.native) for case in CASES.values())
    assert len({id(channel.cancel) for channel in seen}) == len(seen)


def test_a_failure_is_taken_once() -> None:
    channel, failure = SideChannel(Cancel()), APIError(502, "x")
    channel.failure = failure
    assert channel.take_failure() is failure
    assert channel.take_failure() is None


def test_an_upstream_forgets_the_failure_of_an_earlier_attempt(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    channel = SideChannel(Cancel())
    channel.failure = APIError(502, "of another upstream")
    environ = {**create_environ("/api/tags"), SIDE_CHANNEL: channel}
    call = WSGICall(upstream(server), environ)
    assert (call.status, channel.failure) == (200, None)
    assert channel.drain is not None
    call.close()
    assert channel.drain is None


def test_a_call_that_was_closed_keeps_nothing_of_a_failure(server: Chaos) -> None:
    server.script(*answer(say("Hel"), FIN))
    channel = SideChannel(Cancel())
    call = WSGICall(upstream(server), {**create_environ("/api/tags"), SIDE_CHANNEL: channel})
    with pytest.raises(APIError):
        list(call)
    call.close()
    assert (channel.failure, channel.drain) == (None, None)


@each([passes_on, is_lazy, gets_a_webob_response, buffers])
def test_a_failure_is_not_its_own_cause(server: Chaos, wrapper: Wrapper) -> None:
    """Such a cycle keeps the frames of the call in memory, and hides what the connection raised."""
    server.script(*answer(say("Hel"), FIN))
    with pytest.raises(APIError) as raised:
        list(backend(wrapper(upstream(server)), Cancel()).chat(REQUEST))
    assert raised.value.__cause__ is not None
    assert not isinstance(raised.value.__cause__, APIError)


def test_which_applications_are_remote() -> None:
    assert is_remote(Upstream("http://127.0.0.1"))
    assert not is_remote(is_lazy(Upstream("http://127.0.0.1")))


def test_f18_an_informational_response_is_no_answer(server: Chaos) -> None:
    server.script(head(102), FIN)
    assert CASES["chat"].send(OpenAICompat(upstream(server))).status == 502
