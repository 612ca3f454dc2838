"""Applications between the middleware and an upstream that know nothing of the protocol between the two.

Whatever such an application does by the rules of WSGI, the client receives the right status and error, and no
connection is left open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client, create_environ

from openai_compat import OpenAICompat, Upstream
from openai_compat.errors import APIError
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel, is_remote, side_channel
from openai_compat.transport.wsgi_call import WSGICall
from tests.chaos import CHUNKED, CLOSE, FIN, FRAMINGS, SIZED, WAIT, Chaos, answer, head, refusing
from tests.transport.gateways import HELLO, line, upstream
from tests.transport.wrappers import (
    AUTH,
    BROKEN,
    BUFFERING,
    CASES,
    DOCUMENTS,
    KINDS,
    LAZY,
    REDIRECT,
    REQUEST,
    STREAMING,
    TIMEOUT,
    UNREACHABLE,
    App,
    Closes,
    Head,
    Wrapper,
    all_wrappers,
    attempts,
    backend,
    both,
    broken,
    buffers,
    close_body,
    each,
    gets_a_webob_response,
    is_all_of_them,
    is_lazy,
    items,
    passes_on,
    response,
    rewrites_error_pages,
    script,
    writes,
)

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
