"""The edge: who sees which path, the headers of every answer, closing, errors; linted on both sides."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, create_environ

from openai_compat import APIError, OpenAICompat, Settings, Upstream
from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.middleware.routes import ROUTES, Route
from openai_compat.testing import FakeOllama, Gate, done, say
from tests.contract import check, frames
from tests.harness import Answered, call, compat

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"


def chat(app: Any, path: str = PATH, **environ: Any) -> Answered:
    extra = environ.pop("extra", {})
    return call(app, "POST", path, body=json.dumps({**CHAT, **extra}).encode(), **environ)


def error(answered: Answered) -> dict[str, Any]:
    value = json.loads(answered.body)
    check("ErrorResponse", value)
    found: dict[str, Any] = value["error"]
    assert list(found) == ["message", "type", "param", "code"]
    return found


# -- every answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_headers_of_an_answer(stream: bool) -> None:
    app, inner = compat(FakeOllama())
    answered = chat(app, extra={"stream": stream})
    assert answered.status == 200
    assert answered.header("openai-version") == "2020-10-01"
    assert re.fullmatch("[0-9]+", answered.header("openai-processing-ms") or "")
    assert re.fullmatch("req_[0-9a-f]{32}", answered.header("x-request-id") or "")
    if stream:
        assert answered.header("content-type") == "text/event-stream; charset=utf-8"
        assert answered.header("cache-control") == "no-cache, no-store"
        assert answered.header("x-accel-buffering") == "no"
        assert answered.header("content-length") is None
    else:
        assert answered.header("content-type") == "application/json"
        assert answered.header("content-length") == str(len(answered.body))
    assert inner.closes == inner.calls == 1


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/nothing"), ("GET", PATH), ("OPTIONS", PATH), ("GET", "/v1/models")]
)
def test_every_answer_has_openai_s_headers(method: str, path: str) -> None:
    answered = call(compat(FakeOllama())[0], method, path)
    for name in ("x-request-id", "openai-processing-ms", "openai-version"):
        assert answered.header(name)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("trace-1.2:3/4", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ('"', False), ("ü", False)],
)
def test_a_sane_request_id_is_the_client_s(given: str, kept: bool) -> None:
    answered = chat(compat(FakeOllama())[0], HTTP_X_REQUEST_ID=given)
    assert (answered.header("x-request-id") == given) is kept


def test_ids_are_random_and_long() -> None:
    app, _ = compat(FakeOllama())
    ids = {json.loads(chat(app).body)["id"] for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch("chatcmpl-[0-9a-f]{32}", id) for id in ids)


# -- which path is whose ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/v1/nothing", "/v1", "/v1/", "/v1/models/", "/v1//models", "/v1/chat", "/v1/chat/completions/", "/v1/MODELS"]
    + ["/v1/../v1/models", "/v1/models;x", "/v1/\xff"],
)
def test_f65_an_unknown_path_below_the_prefix_is_our_404(path: str) -> None:
    app, inner = compat(FakeOllama())
    answered = call(app, "GET", path)
    assert answered.status == 404
    assert error(answered)["message"].startswith("Invalid URL (GET /v1")
    assert inner.calls == 0


@pytest.mark.parametrize("path", ["//v1/models", "/V1/models", "/v1x", "/", "/api/tags", "/other"])
def test_f65_a_path_that_is_not_below_the_prefix_is_the_wrapped_app_s(path: str) -> None:
    app, inner = compat(FakeOllama())
    answered = call(app, "GET", path)
    assert inner.calls == 1
    assert answered.header("openai-version") is None


def test_w12_pass_through_hands_on_the_environ_and_the_iterable_themselves() -> None:
    seen = []
    answer = iter([b"x"])

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(environ)
        start_response("299 Odd", headers)
        return answer

    headers = [("B", "1"), ("A", "2"), ("B", "3")]
    told: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/page"}
    found = OpenAICompat(app)(environ, lambda *head: told.append(head))
    assert found is answer  # the same object: a wsgi.file_wrapper stays one (W11)
    assert seen[0] is environ
    assert told == [("299 Odd", headers)]
    assert told[0][1] is headers


def test_a_site_gets_what_is_not_ours_and_its_answer_stands() -> None:
    fake = FakeOllama()

    def site(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"the site's own: " + environ["PATH_INFO"].encode()]

    app, inner = compat(site, upstream=fake)
    assert call(app, "GET", "/v1/files").body == b"the site's own: /v1/files"
    assert call(app, "GET", "/api/tags").body == b"the site's own: /api/tags"
    assert inner.calls == 2
    assert fake.requests == []
    assert chat(app).status == 200
    assert [request.path for request in fake.requests] == ["/api/chat"]
    assert inner.calls == 2


@pytest.mark.parametrize("prefix", ["/v1", "/ai/openai", ""])
def test_a_prefix_of_one_s_own(prefix: str) -> None:
    app, inner = compat(FakeOllama(), prefix=prefix)
    assert chat(app, f"{prefix}/chat/completions").status == 200
    assert call(app, "GET", f"{prefix}/nothing").status == 404
    assert inner.calls == 1
    assert call(app, "GET", "/api/tags").header("openai-version") is None


def test_works_below_a_mount_point() -> None:
    fake = FakeOllama()
    client = Client(DispatcherMiddleware(FakeOllama(), {"/ai": OpenAICompat(fake)}))
    response = client.post("/ai/v1/chat/completions", json=CHAT)
    assert response.status_code == 200
    assert fake.requests[0].path == "/api/chat"
    assert client.get("/ai/v1/nothing").get_json()["error"]["message"] == "Invalid URL (GET /v1/nothing)"


def test_the_mount_point_is_the_native_call_s_too() -> None:
    environs = []

    def app(environ: Any, start_response: Any) -> Any:
        environs.append(environ)
        return FakeOllama()(environ, start_response)

    chat(OpenAICompat(app), SCRIPT_NAME="/ai")
    assert (environs[0]["SCRIPT_NAME"], environs[0]["PATH_INFO"]) == ("/ai", "/api/chat")


@pytest.mark.parametrize("host", ["x/?", "x/#", "x@y", "", "v1/models"])
def test_f64_the_host_decides_nothing(host: str) -> None:
    app, _ = compat(FakeOllama())
    assert chat(app, HTTP_HOST=host).status == 200
    assert call(app, "GET", "/v1/nothing", HTTP_HOST=host).status == 404


# -- methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "TRACE", "PATCH"])
def test_f68_a_wrong_method_is_405_with_allow(method: str) -> None:
    app, inner = compat(FakeOllama())
    answered = call(app, method, "/v1/embeddings")
    assert answered.status == 405
    assert answered.header("allow") == "OPTIONS, POST"
    assert inner.calls == 0
    if method != "HEAD":
        assert error(answered)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/a", "DELETE, GET, HEAD, OPTIONS"),
    ],
)
def test_options_tells_the_methods(path: str, allow: str) -> None:
    app, inner = compat(FakeOllama())
    answered = call(app, "OPTIONS", path)
    assert answered.status == 204
    assert answered.header("allow") == allow
    assert inner.calls == 0


def test_head_is_get_without_a_body() -> None:
    app, inner = compat(FakeOllama())
    get, head = call(app, "GET", "/v1/models"), call(app, "HEAD", "/v1/models")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == get.header("content-length")
    assert inner.closes == inner.calls == 4


# -- streams ----------------------------------------------------------------------------------


def test_rule_3_each_line_s_events_leave_before_the_next_line_is_asked_for() -> None:
    fake, gates = FakeOllama(), [Gate(), Gate()]
    fake.script("/api/chat", say("one"), gates[0], say("two"), gates[1], done())
    response = Client(OpenAICompat(fake)).post(PATH, json={**CHAT, "stream": True})
    items = response.iter_encoded()
    first = next(items)
    assert b'"role":"assistant"' in first
    assert b'"content":"one"' in first
    assert not gates[0].reached.is_set()
    gates[0].open()
    assert b'"content":"two"' in next(items)
    assert not gates[1].reached.is_set()
    gates[1].open()
    last = next(items)
    assert b'"finish_reason":"stop"' in last
    assert last.endswith(b"data: [DONE]\n\n")
    assert list(items) == []
    response.close()


def test_lines_that_come_together_leave_together() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *[say(str(i)) for i in range(50)], done(), cut=0)
    answered = chat(compat(fake)[0], extra={"stream": True})
    assert len(answered.items) == 1
    assert len(list(frames(answered.body))) == 53


def test_w2_a_stream_closed_before_its_first_item_closes_the_backend_once() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"), Gate(), done())
    response = Client(OpenAICompat(fake)).post(PATH, json={**CHAT, "stream": True}, buffered=False)
    assert (fake.opened, fake.closed) == (1, 0)
    response.close()
    assert fake.closed == 1


def test_rule_4_a_stream_closed_in_the_middle_closes_the_backend_once() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"), say("y"), Gate(), done())
    response = Client(OpenAICompat(fake)).post(PATH, json={**CHAT, "stream": True})
    next(response.iter_encoded())
    response.close()
    response.close()
    assert fake.closed == 1


def test_a_server_that_fails_to_start_the_response_closes_the_backend() -> None:
    fake = FakeOllama()

    def start_response(*head: Any) -> Any:
        raise OSError("gone")

    body = json.dumps({**CHAT, "stream": True}).encode()
    environ = create_environ(PATH, method="POST", data=body)
    with pytest.raises(OSError, match="gone"):
        OpenAICompat(fake)(environ, start_response)
    assert fake.closed == fake.opened == 1


# -- errors -----------------------------------------------------------------------------------


def test_rule_2_a_failure_before_the_first_line_has_its_own_status() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", b'{"error":"model \'demo\' not found"}', status="404 Not Found")
    app, inner = compat(fake)
    answered = chat(app, extra={"stream": True})
    assert answered.status == 404
    assert answered.header("content-type") == "application/json"
    assert error(answered)["code"] == "model_not_found"
    assert inner.closes == 1


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param([{"error": "out of memory"}], "out of memory", id="an error line"),
        pytest.param([], "The backend's answer ended before it was complete.", id="no done line"),
        pytest.param([RuntimeError("boom")], "The backend failed.", id="an exception"),
        pytest.param([b"<html>"], "The backend's answer ended before it was complete.", id="cut"),
        pytest.param([b"[1]\n"], "The backend sent an answer that could not be understood.", id="no object"),
        pytest.param([b"{}{}\n"], "The backend sent an answer that could not be understood.", id="two on a line"),
        pytest.param([b'{"x":1}\n'], "The backend sent an answer that could not be understood.", id="another object"),
    ],
)
def test_a_failure_after_the_first_line_is_the_last_event(
    steps: list[Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("Hello"), *steps)
    app, inner = compat(fake)
    answered = chat(app, extra={"stream": True})
    *chunks, last = frames(answered.body)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "Hello"]
    check("ErrorResponse", last)
    assert last["error"] == {"message": text, "type": "server_error", "param": None, "code": "upstream_error"}
    assert inner.closes == 1
    assert caplog.records


def test_a_defect_of_ours_is_a_500_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: Call, backend: Any) -> Reply:
        return Answer({"x": object()})

    route = Route("GET", "/models", broken, None)
    monkeypatch.setattr("openai_compat.middleware.routes.match", lambda method, path: (route, {}))
    answered = call(compat(FakeOllama())[0], "GET", "/v1/models")
    assert answered.status == 500
    assert error(answered) == {
        "message": "The gateway failed.",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert answered.header("x-should-retry") == "false"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_defect_of_ours_in_a_stream_is_its_last_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **options: Any) -> Iterator[Any]:
        yield [{"n": 1}]
        raise KeyError("x")

    monkeypatch.setattr("openai_compat.endpoints.chat.to_chunks", broken)
    answered = chat(compat(FakeOllama())[0], extra={"stream": True})
    first, last = frames(answered.body)
    assert first == {"n": 1}
    assert last["error"]["code"] == "internal_error"
    assert caplog.records


def test_an_error_may_have_headers_and_say_whether_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: Call, backend: Any) -> Reply:
        raise APIError(503, "busy", code="overloaded", headers=(("Retry-After", "2"),), retry=True)

    route = Route("GET", "/models", fail, None)
    monkeypatch.setattr("openai_compat.middleware.routes.match", lambda method, path: (route, {}))
    answered = call(compat(FakeOllama())[0], "GET", "/v1/models")
    assert answered.header("retry-after") == "2"
    assert answered.header("x-should-retry") == "true"


def test_busy_is_503_with_retry_after() -> None:
    fake = FakeOllama()
    text = "server busy, please try again.  maximum pending requests exceeded"
    fake.script("/api/chat", json.dumps({"error": text}).encode(), status="503 Service Unavailable")
    answered = chat(compat(fake)[0])
    assert (answered.status, answered.header("retry-after")) == (503, "2")
    assert error(answered) == {"message": text, "type": "server_error", "param": None, "code": "overloaded"}


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("401 Unauthorized", [("WWW-Authenticate", "Basic realm=x")], (401, "invalid_api_key", "Basic realm=x")),
        ("403 Forbidden", [], (403, None, None)),
        ("302 Found", [("Location", "/login")], (401, "invalid_api_key", None)),
    ],
)
def test_an_app_in_process_that_wants_a_login(status: str, headers: Any, expected: tuple[int, Any, Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", b"<html>log in</html>", status=status, headers=headers, content_type="text/html")
    answered = chat(compat(fake)[0])
    assert (answered.status, error(answered)["code"], answered.header("www-authenticate")) == expected
    assert answered.header("location") is None
    assert b"html" not in answered.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://localhost/api/chat", (502, "upstream_redirect")),
        ("/api/chat/", (502, "upstream_redirect")),
        ("http://other.example:8080/api/chat?token=secret", (502, "upstream_redirect")),
        ("//other.example/api/chat", (502, "upstream_redirect")),
        ("/api//chat", (502, "upstream_redirect")),
        ("?next=1", (502, "upstream_redirect")),
        ("", (502, "upstream_redirect")),
        ("/mounted/api/chat/", (401, "invalid_api_key")),
        ("/en/api/chat", (401, "invalid_api_key")),
        ("/login?next=/api/chat&token=secret", (401, "invalid_api_key")),
        ("https://login.example/oauth?redirect_uri=/api/chat", (401, "invalid_api_key")),
        ("http://[broken", (502, "upstream_redirect")),
    ],
)
def test_a_redirect_in_process_to_the_same_path_is_no_login_page(
    location: str, expected: tuple[int, str], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", b"", status="307 X", headers=[("Location", location)])
    response = Client(OpenAICompat(fake)).post(PATH, json={**CHAT, "stream": stream})
    assert (response.status_code, response.get_json()["error"]["code"]) == expected
    assert "Location" not in response.headers
    assert location.partition("?")[0] in caplog.text
    assert "secret" not in caplog.text


def test_a_redirect_to_the_same_path_of_a_mounted_application_is_no_login_page() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", b"", status="307 X", headers=[("Location", "/mounted/api/chat/")])
    response = Client(OpenAICompat(fake)).post(PATH, json=CHAT, environ_overrides={"SCRIPT_NAME": "/mounted"})
    assert response.get_json()["error"]["code"] == "upstream_redirect"


def test_an_app_in_process_sees_the_client_s_credentials() -> None:
    fake = FakeOllama()
    chat(compat(fake)[0], HTTP_AUTHORIZATION="Bearer k", HTTP_COOKIE="s=1", HTTP_ACCEPT_ENCODING="gzip")
    headers = fake.requests[0].headers
    assert (headers["authorization"], headers["cookie"]) == ("Bearer k", "s=1")
    assert "accept-encoding" not in headers


# -- construction -----------------------------------------------------------------------------


def test_a_url_becomes_an_upstream() -> None:
    app = OpenAICompat("http://127.0.0.1:11434/", connect_timeout=1, head_timeout=2, idle_timeout=3)
    assert isinstance(app.app, Upstream)
    assert app.app is app.backend
    assert (app.app.url, app.app.connect, app.app.head, app.app.idle) == ("http://127.0.0.1:11434", 1, 2, 3)


def test_a_url_of_openai_s_side_is_refused() -> None:
    with pytest.raises(ValueError, match="'http://x:8080/v1' is an OpenAI API; .* 'http://x:8080'"):
        OpenAICompat("http://x:8080/v1/")


def test_options_change_single_settings() -> None:
    app = OpenAICompat(FakeOllama(), settings=Settings(max_tools=3, max_stop=4), max_stop=5)
    assert (app.settings.max_tools, app.settings.max_stop) == (3, 5)


@pytest.mark.parametrize("app", [None, 3, b"http://x"])
def test_what_is_neither_an_application_nor_a_url_is_refused(app: Any) -> None:
    with pytest.raises(TypeError, match="a WSGI application or a URL is wanted"):
        OpenAICompat(app)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        OpenAICompat(FakeOllama(), colour="blue")  # type: ignore[call-arg]


def test_every_route_is_below_the_prefix_and_has_one_endpoint() -> None:
    assert len({(method, path) for method, path, *_ in ROUTES}) == len(ROUTES)
    assert all(path.startswith("/") for _, path, *_ in ROUTES)


def test_a_challenge_that_is_no_header_is_not_handed_on() -> None:
    fake = FakeOllama()
    headers = [("WWW-Authenticate", "Basic\r\nX-Evil: 1")]
    fake.script("/api/chat", b"x", status="401 X", headers=headers, content_type="text/plain")
    answered = chat(OpenAICompat(fake))
    assert (answered.status, answered.header("www-authenticate")) == (401, None)


def test_a_refusal_repeats_only_the_beginning_of_what_was_sent() -> None:
    app = OpenAICompat(FakeOllama())
    unknown = error(_answered(app, "M" * 1000, "/v1/" + "p" * 1000))["message"]
    assert unknown == f"Invalid URL ({'M' * 20} /v1/{'p' * 196})"
    assert error(_answered(app, "M" * 1000, PATH))["message"] == f"Not allowed to {'M' * 20} on this URL."


def _answered(app: Any, method: str, path: str) -> Answered:
    """Without the linters, which warn of a method that is none of HTTP's."""
    heads: list[Any] = []
    environ = create_environ(path, method=method)
    items = list(app(environ, lambda *head: heads.append(head)))
    return Answered(*heads[0], items)


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
def test_f47_the_largest_body_is_a_setting(more: int, status: int) -> None:
    size = len(json.dumps(CHAT).encode())
    answered = chat(OpenAICompat(FakeOllama(), max_body=size - more))
    assert answered.status == status
    if more:
        assert error(answered)["code"] == "request_too_large"
