"""Applications between the middleware and an upstream that know nothing of what the two agree upon beside WSGI."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from webob import Request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, create_environ

from openai_compat import OpenAICompat, Upstream
from openai_compat.errors import APIError
from openai_compat.testing import done, say
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel, is_remote, side_channel
from openai_compat.transport.wsgi_call import WSGICall
from tests.chaos import FIN, WAIT, Chaos, answer, head, refusing
from tests.contract import frames

HELLO = (say("Hel"), say("lo"), done())
PAGE = [("Content-Type", "text/html")]

App = Callable[[Any, Any], Any]


# -- applications in between ------------------------------------------------------------------


def catches(app: App) -> App:
    """Answers every exception with a page of its own, and reads the whole body to see one."""

    def wrapper(environ: Any, start_response: Any) -> Any:
        heads: list[Any] = []
        try:
            iterable = app(environ, lambda *head: heads.append(head))
            try:
                items = list(iterable)
            finally:
                iterable.close() if hasattr(iterable, "close") else None
        except Exception:
            start_response("500 Internal Server Error", PAGE)
            return [b"<h1>Oops</h1>"]
        start_response(*heads[-1][:2])
        return items

    return wrapper


def rewrites_error_pages(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        heads: list[Any] = []
        iterable = app(environ, lambda *head: heads.append(head))
        if heads[-1][0][0] in "45":
            list(iterable)
            start_response("500 Internal Server Error", PAGE)
            return [b"<h1>Oops</h1>"]
        start_response(*heads[-1][:2])
        return iterable

    return wrapper


def raises_another(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        try:
            yield from app(environ, start_response)
        except Exception as error:
            raise RuntimeError("the site failed") from error

    return wrapper


def is_lazy(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        iterable = app(environ, start_response)
        try:
            yield from iterable
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return wrapper


def ends_quietly(app: App) -> App:
    """Takes a body that breaks for one that ends."""

    def wrapper(environ: Any, start_response: Any) -> Iterator[bytes]:
        iterable = app(environ, start_response)
        try:
            yield from iterable
        except Exception:
            return
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    return wrapper


def copies_the_environ(app: App) -> App:
    return lambda environ, start_response: app(dict(environ), start_response)


def uses_webob(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        return Request(environ).get_response(app)(environ, start_response)

    return wrapper


def dispatches(app: App) -> App:
    return ProxyFix(DispatcherMiddleware(app, {}))


WRAPPERS = [
    catches,
    rewrites_error_pages,
    raises_another,
    is_lazy,
    ends_quietly,
    copies_the_environ,
    uses_webob,
    dispatches,
]
wrappers = pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.__name__)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def ask(app: Any, stream: bool = False) -> tuple[int, Any, list[Any]]:
    """Status, error and events of one chat."""
    body = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    response = Client(OpenAICompat(app)).post("/v1/chat/completions", json=body, buffered=True)
    if response.mimetype == "text/event-stream":
        events = list(frames(response.data))
        return response.status_code, events[-1]["error"] if events[-1] != "[DONE]" else None, events
    return response.status_code, response.get_json().get("error"), [response.get_json()]


def to(server: Chaos, **arguments: Any) -> Upstream:
    return Upstream(server.url, **{"timeout": WAIT, **arguments})


# -- right answers ----------------------------------------------------------------------------


@both
@wrappers
def test_a_good_answer(server: Chaos, wrapper: Any, stream: bool) -> None:
    server.script(*answer(*HELLO))
    status, error, events = ask(wrapper(to(server)), stream)
    assert (status, error) == (200, None)
    assert "lo" in json.dumps(events)


@both
@wrappers
def test_f1_an_upstream_that_is_down(wrapper: Any, stream: bool) -> None:
    with refusing() as nowhere:
        status, error, _ = ask(wrapper(Upstream(f"http://{nowhere}")), stream)
    assert (status, error["code"]) == (502, "upstream_unreachable")
    assert error["message"] == "The backend could not be reached."


@both
@wrappers
def test_f3_an_upstream_that_is_silent(server: Chaos, wrapper: Any, stream: bool) -> None:
    over = threading.Event()
    server.script(over)
    status, error, _ = ask(wrapper(to(server, timeout=(WAIT, 0.1, WAIT))), stream)
    over.set()
    assert (status, error["code"]) == (504, "upstream_timeout")


@both
@wrappers
@pytest.mark.parametrize(
    ("native", "expected"),
    [(401, (502, "upstream_auth")), (403, (502, "upstream_auth")), (302, (502, "upstream_redirect"))],
)
def test_f14_f17_what_is_the_operator_s_matter(
    server: Chaos, wrapper: Any, stream: bool, native: int, expected: tuple[int, str]
) -> None:
    server.script(*answer({"error": "secret"}, status=native, headers=[("Location", "/login")]))
    status, error, _ = ask(wrapper(to(server)), stream)
    assert (status, error["code"]) == expected
    assert "secret" not in error["message"]


@both
@pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if w is not rewrites_error_pages], ids=lambda w: w.__name__)
def test_a_model_that_is_not_there(server: Chaos, wrapper: Any, stream: bool) -> None:
    server.script(*answer({"error": "model 'demo' not found"}, status=404))
    status, error, _ = ask(wrapper(to(server)), stream)
    assert (status, error["code"]) == (404, "model_not_found")


@both
@wrappers
def test_f7_a_break_in_mid_stream_is_no_end(server: Chaos, wrapper: Any, stream: bool) -> None:
    server.script(*answer(say("Hel"), FIN))
    status, error, events = ask(wrapper(to(server)), stream)
    assert error is not None
    assert error["code"] == "upstream_error"
    assert events[-1] != "[DONE]"
    assert status == (200 if stream and len(events) > 1 else 502)


@wrappers
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/models", "/v1/models/demo"])
def test_other_endpoints(wrapper: Any, path: str) -> None:
    body = {"model": "demo", "input": "a", "prompt": "a"}
    with refusing() as nowhere:
        client = Client(OpenAICompat(wrapper(Upstream(f"http://{nowhere}"))))
        response = client.get(path) if "models" in path else client.post(path, json=body)
    assert (response.status_code, response.get_json()["error"]["code"]) == (502, "upstream_unreachable")


# -- applications that answer in another way --------------------------------------------------


@both
def test_a_second_upstream_answers_for_the_first(server: Chaos, stream: bool) -> None:
    def failover(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        for app in (first, second):
            heads: list[Any] = []
            environ["wsgi.input"] = io.BytesIO(body)
            iterable = app(environ, lambda *head, heads=heads: heads.append(head))
            if app is second or heads[-1][0] < "5":
                start_response(*heads[-1])
                return iterable
        raise AssertionError

    with refusing() as nowhere:
        first, second = Upstream(f"http://{nowhere}"), to(server)
        server.script(*answer(*HELLO))
        status, error, _ = ask(failover, stream)
    assert (status, error) == (200, None)


@both
def test_an_answer_of_its_own_stands(stream: bool) -> None:
    def answers(environ: Any, start_response: Any) -> Any:
        list(upstream(environ, lambda *head: None))
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return [json.dumps(line).encode() + b"\n" for line in HELLO]

    with refusing() as nowhere:
        upstream = Upstream(f"http://{nowhere}")
        status, error, events = ask(answers, stream)
    assert (status, error) == (200, None)
    assert "lo" in json.dumps(events)


@both
def test_a_side_channel_that_is_lost_costs_the_code_only(stream: bool) -> None:
    def forgets(environ: Any, start_response: Any) -> Any:
        known = {key: value for key, value in environ.items() if not key.startswith("openai_compat")}
        return upstream(known, start_response)

    with refusing() as nowhere:
        upstream = Upstream(f"http://{nowhere}")
        status, error, _ = ask(forgets, stream)
    assert (status, error["message"], error["code"]) == (502, "The backend could not be reached.", "upstream_error")


# -- the channel itself -----------------------------------------------------------------------


def test_a_request_that_is_passed_through_has_none() -> None:
    assert side_channel(create_environ()) is None
    assert side_channel({SIDE_CHANNEL: "text"}) is None


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
    call = WSGICall(to(server), environ)
    assert (call.status, channel.failure) == (200, None)
    assert channel.drain is not None
    call.close()
    assert channel.drain is None


def test_who_is_remote() -> None:
    assert is_remote(Upstream("http://127.0.0.1"))
    assert not is_remote(is_lazy(Upstream("http://127.0.0.1")))


def test_a_head_that_says_nothing_is_no_answer(server: Chaos) -> None:
    server.script(head(102), FIN)
    assert ask(to(server))[0] == 502


@both
def test_code_after_the_last_item_of_an_application_runs(server: Chaos, stream: bool) -> None:
    counted: list[int] = []

    def counts(environ: Any, start_response: Any) -> Iterator[bytes]:
        size = 0
        for item in upstream(environ, start_response):
            size += len(item)
            yield item
        counted.append(size)

    upstream = to(server)
    for _ in range(2):
        server.script(*answer(*HELLO))
        assert ask(counts, stream)[:2] == (200, None)
    assert len(counted) == 2
    assert server.connections == 1
