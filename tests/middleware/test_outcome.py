"""What a request came to: one value, known when its answer ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import create_environ

from openai_compat import OpenAICompat
from openai_compat.middleware.responder import RequestOutcome
from openai_compat.testing import FakeOllama, done, say
from tests.harness import call

MESSAGES = [{"role": "user", "content": "Hi"}]
TIMES = {"total_duration": 50, "load_duration": 10, "prompt_eval_duration": 15, "eval_duration": 20}


class Watched(OpenAICompat):
    """The middleware, with the outcomes that it noted."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.outcomes: list[RequestOutcome] = []

    def _request_ended(self, outcome: RequestOutcome) -> None:
        super()._request_ended(outcome)
        self.outcomes.append(outcome)


def post(app: Any, path: str = "/v1/chat/completions", **fields: Any) -> Any:
    body = {"model": "demo", "messages": MESSAGES, **fields}
    return call(app, "POST", path, body=json.dumps(body).encode())


def outcome(app: Watched) -> RequestOutcome:
    [found] = app.outcomes
    assert found.seconds >= 0
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_of_a_chat(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), say("b"), done(prompt=7, made=2, **TIMES))
    app = Watched(fake, aliases={"gpt-4o": "demo"})
    post(app, model="gpt-4o", stream=stream)
    found = outcome(app)
    assert (found.method, found.route, found.status) == ("POST", "/chat/completions", 200)
    assert (found.is_complete, found.error_code) == (True, None)
    usage = found.usage
    assert (usage.model, usage.calls, usage.prompt_tokens, usage.completion_tokens) == ("gpt-4o", 1, 7, 2)
    assert {name: getattr(usage, name) for name in TIMES} == TIMES


@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_of_several_calls_is_their_sum(stream: bool) -> None:
    fake = FakeOllama()
    for made in (1, 2, 3):
        fake.script("/api/chat", say("a"), done(prompt=5, made=made, **TIMES))
    app = Watched(fake)
    post(app, n=3, stream=stream)
    usage = outcome(app).usage
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (3, 15, 6)
    assert usage.eval_duration == 3 * TIMES["eval_duration"]


def test_a_call_that_is_repeated_without_thinking_counts_twice() -> None:
    fake = FakeOllama()
    app = Watched(fake)
    post(app, reasoning_effort="high")
    assert outcome(app).usage.calls == len(fake.requests) == 2


def test_the_usage_of_embeddings() -> None:
    fake = FakeOllama()
    for _ in range(2):
        fake.script("/api/embed", {"embeddings": [[0.5]], "prompt_eval_count": 3, "total_duration": 4})
    app = Watched(fake, embed_batch=1)
    post(app, "/v1/embeddings", input=["a", "b"])
    found = outcome(app)
    assert (found.route, found.usage.calls) == ("/embeddings", 2)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_duration) == (6, 0, 8)


def test_a_failure_in_mid_stream_is_told_apart_from_an_end() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), {"error": "boom"})
    app = Watched(fake)
    assert post(app, stream=True).status == 200
    found = outcome(app)
    assert (found.status, found.is_complete, found.error_code) == (200, False, "upstream_error")


def test_a_stream_that_its_client_left_did_not_end() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), say("b"), done())
    app = Watched(fake)
    environ = _environ({"model": "demo", "messages": MESSAGES, "stream": True})
    body: Any = app(environ, lambda status, headers: lambda data: None)
    next(iter(body))
    assert app.outcomes == []
    body.close()
    body.close()
    found = outcome(app)
    assert (found.status, found.is_complete, found.error_code) == (200, False, None)
    assert found.usage.completion_tokens == 0
    assert fake.closed == 1


def test_a_stream_that_was_never_read_ends_too() -> None:
    app = Watched(FakeOllama())
    environ = _environ({"model": "demo", "messages": MESSAGES, "stream": True})
    body: Any = app(environ, lambda status, headers: lambda data: None)
    body.close()
    assert not outcome(app).is_complete


@pytest.mark.parametrize(
    ("method", "path", "fields", "route", "status", "code"),
    [
        ("POST", "/v1/chat/completions", {"temperature": 9}, "/chat/completions", 400, "decimal_above_max_value"),
        ("POST", "/v1/chat/completions", {"model": "nobody"}, "/chat/completions", 404, "model_not_found"),
        ("POST", "/v1/nowhere", {}, None, 404, None),
        ("POST", "/v1/models", {}, None, 405, "method_not_allowed"),
    ],
)
def test_a_refusal(method: str, path: str, fields: Any, route: str | None, status: int, code: str | None) -> None:
    app = Watched(FakeOllama())
    assert post(app, path, **fields).status == status
    found = outcome(app)
    assert (found.method, found.route, found.status, found.error_code) == (method, route, status, code)
    assert found.is_complete


def test_a_request_that_is_passed_through_is_known_by_its_head() -> None:
    app = Watched(FakeOllama())
    assert call(app, "GET", "/api/version").status == 200
    assert call(app, "GET", "/api/nowhere").status == 404
    assert [(found.route, found.status) for found in app.outcomes] == [(None, 200), (None, 404)]
    assert [found.usage.calls for found in app.outcomes] == [0, 0]


def test_the_answer_of_a_site_is_passed_through_as_it_is() -> None:
    body = [b"page"]
    heads: list[Any] = []

    def site(environ: Any, start_response: Any) -> Any:
        start_response("299 Odd", [("X-Site", "1")], None)
        return body

    app = Watched(site, upstream=FakeOllama())
    found = app(_environ({}, "/page"), lambda *head: heads.append(head))
    assert found is body
    assert heads == [("299 Odd", [("X-Site", "1")])]
    assert outcome(app).status == 299


def test_write_and_exc_info_of_a_site_reach_the_server() -> None:
    written: list[bytes] = []
    heads: list[Any] = []

    def site(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"early")
        try:
            raise KeyError("x")
        except KeyError as error:
            start_response("500 Oops", [], (KeyError, error, None))
        return []

    def start_response(*head: Any) -> Any:
        heads.append(head)
        return written.append

    app = Watched(site, upstream=FakeOllama())
    app(_environ({}, "/page"), start_response)
    assert written == [b"early"]
    assert [len(head) for head in heads] == [2, 3]
    assert outcome(app).status == 200


def _environ(body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    return create_environ(path, method="POST", json=body)
