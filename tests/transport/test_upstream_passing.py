"""What leaves for a remote Ollama, and what passes through to it and back."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import traceback
from threading import Event
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import APIError, OpenAICompat, Upstream
from openai_compat.testing import done, say
from openai_compat.transport.upstream import PATHS
from tests.chaos import FIN, RST, SIZED, WAIT, Chaos, Step, answer, refusing
from tests.harness import call
from tests.transport.gateways import CHAT, HELLO, ask, framings, gateway, line, streamed, text_of, upstream

# -- what leaves ------------------------------------------------------------------------------

CLIENTS_OWN = {
    "Host": "evil.example",
    "Origin": "https://evil.example",
    "Referer": "https://evil.example/page",
    "Cookie": "session=theirs",
    "Authorization": "Bearer theirs",
    "Proxy-Authorization": "Basic theirs",
    "Accept-Encoding": "gzip, br",
    "Accept-Language": "de",
    "User-Agent": "their client",
    "X-Api-Key": "theirs",
    "X-Forwarded-For": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "OpenAI-Organization": "org",
    "Traceparent": "00-1-2-03",
    "Connection": "keep-alive, X-Api-Key",
    "TE": "trailers",
    "Expect": "100-continue",
}
OURS = {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-length", "openai-compat-hops"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_no_header_of_the_client_leaves(server: Chaos, path: str) -> None:
    server.script(*answer(*HELLO))
    response = Client(gateway(server)).post(path, json=CHAT, headers=CLIENTS_OWN, buffered=True)
    assert response.status_code == 200
    (request,) = server.requests
    assert request.names == OURS
    assert request.all("host") == [f"{server.host}:{server.port}"]
    assert request.all("accept-encoding") == ["identity"]
    assert request.all("user-agent") == ["openai-compat"]
    assert not any("their" in value or "evil" in value for _, value in request.headers)


def test_a_translated_call_as_it_leaves(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    ask(gateway(server))
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/api/chat")
    assert request.all("content-type") == ["application/json"]
    assert request.all("content-length") == [str(len(request.body))]
    assert json.loads(request.body)["stream"] is True


def test_headers_of_the_operator_are_sent(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    keys = {"Authorization": "Bearer s3cret", "X-Team": "a", "user-agent": "gateway"}
    assert text_of(ask(OpenAICompat(upstream(server, headers=keys)), headers=CLIENTS_OWN)) == "Hello"
    (request,) = server.requests
    assert request.names == OURS | {"authorization", "x-team"}
    assert request.all("authorization") == ["Bearer s3cret"]
    assert request.all("user-agent") == ["gateway"]


def test_the_environment_s_proxies_are_not_used(server: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(*answer(*HELLO))
    with Chaos() as spy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, spy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert text_of(ask(gateway(server))) == "Hello"
        assert spy.connections == 0


def test_netrc_is_not_read(server: Chaos, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.script(*answer(*HELLO))
    server.script(*answer(*HELLO))
    assert text_of(ask(gateway(server))) == "Hello"
    assert text_of(ask(OpenAICompat(upstream(server, headers={"Authorization": "Bearer ours"})))) == "Hello"
    assert [request.all("authorization") for request in server.requests] == [[], ["Bearer ours"]]


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags"])
def test_cookies_of_the_upstream_are_not_sent_back(server: Chaos, path: str) -> None:
    for _ in range(2):
        server.script(*answer(b'{"models": []}', headers=[("Set-Cookie", "session=for-one-user; Path=/")]))
    client = Client(gateway(server), use_cookies=False)
    assert [client.get(path, buffered=True).status_code for _ in range(2)] == [200, 200]
    assert [request.all("cookie") for request in server.requests] == [[], []]


def test_user_and_password_become_basic_authorization(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    assert text_of(ask(OpenAICompat(server.url.replace("//", "//user:s3cr%C3%A9t@")))) == "Hello"
    (request,) = server.requests
    assert request.all("authorization") == ["Basic " + base64.b64encode("user:s3crét".encode("latin-1")).decode()]
    assert request.target == "/api/chat"


def credentials(server: Chaos) -> str:
    return server.url.replace("//", "//user:s3cret@")


def test_user_and_password_are_not_in_the_repr(server: Chaos) -> None:
    assert repr(Upstream(credentials(server))) == f"<Upstream http://***@{server.host}:{server.port}>"


@pytest.mark.parametrize(
    "steps",
    [[FIN], [RST], answer(*HELLO)[:2] + [FIN], answer(b"", status=401), answer(b"", status=302), answer(*HELLO)],
    ids=["no answer", "reset", "cut", "401", "302", "good"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_user_and_password_are_in_no_log_and_no_answer(
    server: Chaos, caplog: pytest.LogCaptureFixture, steps: list[Step], path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(*steps)
    encoded = base64.b64encode(b"user:s3cret").decode()
    shown = []
    try:
        response = Client(OpenAICompat(credentials(server))).post(path, json=CHAT, buffered=True)
        shown += [response.get_data(as_text=True), str(response.headers)]
    except APIError:  # a native answer that was cut: the server breaks it off, and may log the traceback
        shown.append(traceback.format_exc())
    shown.append(caplog.text)
    assert server.requests[0].all("authorization") == [f"Basic {encoded}"]
    assert caplog.records
    assert not any("s3cret" in text or encoded in text for text in shown)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/demo"),
        ("GET", "/v1/models/library/demo:latest"),
        ("GET", "/v1/models/..%2F..%2Fapi%2Fdelete"),
        ("GET", "/v1/models/%2e%2e/%2e%2e/api/pull"),
        ("GET", "/v1/models/http://evil.example/api/pull"),
        ("GET", "/v1/models/demo%0d%0aX-Evil:%201"),
        ("POST", "/v1/api/pull"),
        ("DELETE", "/v1/models/demo"),
        ("GET", "/v1/../api/pull"),
    ],
)
def test_translated_calls_ask_for_the_native_paths_only(server: Chaos, method: str, path: str) -> None:
    for _ in range(4):
        server.script(*answer({"error": "x"}, status=400))
    response = Client(gateway(server)).open(path, method=method, json=CHAT if method == "POST" else None, buffered=True)
    assert response.status_code < 500
    assert {(request.method, request.target) for request in server.requests} <= {
        (verb, known) for known, verbs in PATHS.items() for verb in verbs
    }
    assert not any("evil" in value.lower() for request in server.requests for _, value in request.headers)


# -- what passes through ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path, methods in PATHS.items() for method in sorted(methods)]
)
def test_native_paths_pass(server: Chaos, method: str, path: str) -> None:
    body = b"" if method == "HEAD" else b'{"native": true}'
    server.script(*answer(body, framing=SIZED, length=16, content_type="application/json"))
    response = Client(gateway(server)).open(path, method=method, buffered=True)
    assert (response.status_code, response.data) == (200, body)
    assert (response.content_type, response.content_length) == ("application/json", 16)
    assert [(request.method, request.target) for request in server.requests] == [(method, path)]


def test_the_query_is_not_passed_on(server: Chaos) -> None:
    server.script(*answer(b"{}"))
    assert Client(gateway(server)).get("/api/tags?key=1", buffered=True).status_code == 200
    assert server.requests[0].target == "/api/tags"


def test_a_passed_answer_is_sound_wsgi(server: Chaos) -> None:
    server.script(*answer(say("Hello"), done(), headers=[("X-Kept", "1"), ("Keep-Alive", "timeout=5")]))
    answered = call(gateway(server), "POST", "/api/chat", body=b'{"model": "demo"}')
    assert answered.status == 200
    assert answered.body == line(say("Hello")) + line(done())
    assert server.requests[0].body == b'{"model": "demo"}'


@pytest.mark.parametrize("status", [200, 201, 400, 404, 500, 503])
def test_a_native_status_and_body_pass_as_they_are(server: Chaos, status: int) -> None:
    server.script(*answer(b'{"error":\n"as it is"}', status=status, content_type="application/json"))
    response = Client(gateway(server)).post("/api/show", json={"model": "demo"}, buffered=True)
    assert (response.status, response.data) == (f"{status} Whatever", b'{"error":\n"as it is"}')


@framings
def test_a_passed_answer_is_streamed(server: Chaos, framing: str) -> None:
    gate = Event()
    first, one, *rest = answer(*HELLO, framing=framing)
    server.script(first, one, gate, *rest)
    with streamed(gateway(server), "/api/chat") as items:
        assert next(items) == line(say("Hel"))
        assert not gate.is_set()
        gate.set()
        assert b"".join(items) == line(say("lo")) + line(done())


@pytest.mark.parametrize(
    "path", ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/blobs/sha256:" + "a" * 64]
)
def test_paths_that_change_the_server_are_refused(server: Chaos, path: str) -> None:
    response = Client(gateway(server)).post(path, json={"model": "demo"}, buffered=True)
    assert (response.status_code, list(response.get_json())) == (403, ["error"])
    assert server.connections == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:" + "a" * 64),
        ("POST", "/api/blobs/sha256-" + "0" * 64),
    ],
)
def test_paths_that_change_the_server_pass_if_allowed(server: Chaos, method: str, path: str) -> None:
    server.script(*answer(b"", framing=SIZED))
    body = b"" if method == "HEAD" else b'{"model": "demo"}'
    response = Client(gateway(server, native_admin=True)).open(path, method=method, data=body, buffered=True)
    assert response.status_code == 200
    assert [(request.method, request.target, request.body) for request in server.requests] == [(method, path, body)]


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/chat/",
        "//api/chat",
        "/api/chat/../pull",
        "/api/pull/x",
        "/api/pull%2f",
        "/api/blobs/sha256:" + "a" * 63,
        "/api/blobs/sha256:../../pull",
        "/api/experimental",
        "/metrics",
        "/api/tags%0d%0aX: 1",
    ],
)
@pytest.mark.parametrize("native_admin", [False, True])
def test_a_path_that_nobody_knows_goes_nowhere(server: Chaos, path: str, native_admin: bool) -> None:
    response = Client(gateway(server, native_admin=native_admin)).post(path, buffered=True)
    assert (response.status_code, response.get_json()) == (404, {"error": "not found"})
    assert server.connections == 0


@pytest.mark.parametrize(("method", "path", "allow"), [("GET", "/api/chat", "POST"), ("DELETE", "/", "GET, HEAD")])
def test_a_native_path_with_another_verb_goes_nowhere(server: Chaos, method: str, path: str, allow: str) -> None:
    response = Client(gateway(server)).open(path, method=method, buffered=True)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)
    assert list(response.get_json()) == ["error"]
    assert server.connections == 0


def test_w6_hop_by_hop_headers_are_dropped(server: Chaos) -> None:
    dropped = [
        ("Connection", "keep-alive, X-Named , close"),
        ("X-Named", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
    ]
    kept = [("X-Kept", "1"), ("Date", "today"), ("X-Kept", "2"), ("ETag", '"3"')]
    server.script(*answer(b"{}", headers=[*dropped, *kept]))
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert sorted(response.headers) == sorted([("Content-Type", "application/x-ndjson"), *kept])
    assert response.headers.getlist("X-Kept") == ["1", "2"]


def test_f69_unsound_header_values_are_dropped(server: Chaos) -> None:
    first, *body = answer(b"{}", headers=[("X-Bad", "a\x01b"), ("X-Nul", "a\x00b"), ("X-Good", "a b\tc")])
    assert isinstance(first, bytes)
    server.script(first.replace(b"Whatever\r\n", b"Whatever\r\nX-Folded: a\r\n b\r\n"), *body)
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.headers["X-Good"] == "a b\tc"
    assert response.headers.get("X-Folded") in (None, "a b")
    assert {"X-Bad", "X-Nul"}.isdisjoint(response.headers.keys())


@pytest.mark.parametrize("reason", [b"", b" ", b" \xe9\xff", b" a\x00b"], ids=["none", "empty", "bytes", "NUL"])
def test_f69_an_unsound_reason_is_replaced(server: Chaos, reason: bytes) -> None:
    server.script(b"HTTP/1.1 418" + reason + b"\r\nContent-Length: 2\r\n\r\n{}")
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert (response.status, response.data) == ("418 Unknown", b"{}")


def test_f19_a_passed_answer_is_decoded(server: Chaos) -> None:
    packed = gzip.compress(b'{"models": []}')
    server.script(*answer(packed, framing=SIZED, headers=[("Content-Encoding", "gzip")]))
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.data == b'{"models": []}'
    assert {"Content-Encoding", "Content-Length"}.isdisjoint(response.headers.keys())


@framings
def test_f7_f10_a_passed_answer_that_breaks_off_has_no_good_end(server: Chaos, framing: str) -> None:
    gate = Event()
    server.script(*answer(b'{"model', gate, RST, framing=framing, length=100))
    with streamed(gateway(server), "/api/show") as items:
        assert next(items) == b'{"model'
        gate.set()
        with pytest.raises(APIError, match="The connection to the backend broke"):
            next(items)


@pytest.mark.parametrize(
    ("steps", "options", "status", "text"),
    [
        ([FIN], {}, 502, "The connection to the backend broke."),
        ([b"garbage\r\n", FIN], {}, 502, "The connection to the backend broke."),
        ([b""], {"head_timeout": 0.3}, 504, "The backend took too long."),
    ],
    ids=["closed", "garbage", "silent"],
)
def test_a_failure_has_the_native_shape(
    server: Chaos, steps: list[Step], options: dict[str, float], status: int, text: str
) -> None:
    server.script(*steps)
    response = Client(gateway(server, **options)).post("/api/chat", json=CHAT, buffered=True)
    assert (response.status_code, response.content_type) == (status, "application/json")
    assert response.get_json() == {"error": text}


def test_f1_an_upstream_that_is_down_has_the_native_shape() -> None:
    with refusing() as nowhere:
        response = Client(OpenAICompat("http://" + nowhere)).get("/api/tags", buffered=True)
    assert (response.status_code, response.get_json()) == (502, {"error": "The backend could not be reached."})


# -- bodies that pass through -----------------------------------------------------------------


class Input(io.BytesIO):
    """A client's body; before its second read the head must have arrived upstream. Reads past its end fail."""

    def __init__(self, body: bytes, server: Chaos, *, terminated: bool = False) -> None:
        super().__init__(body)
        self._server = server
        self._terminated = terminated
        self.arrived: list[Any] = []

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= 65536
        assert self._terminated or size <= len(self.getvalue()) - self.tell()
        if self.tell():
            self.arrived = self.arrived or [self._server.heads.get(timeout=WAIT)]
        return super().read(size)


def test_w8_a_client_s_body_is_streamed_with_its_length(server: Chaos) -> None:
    body = bytes(range(256)) * 1000
    sent = Input(body, server)
    server.script(*answer(b"{}"))
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": sent, "CONTENT_LENGTH": str(len(body))}
    assert Client(gateway(server)).open("/api/show", environ_overrides=environ, buffered=True).status_code == 200
    (request,) = server.requests
    assert request.body == body
    assert request.all("content-length") == [str(len(body))]
    assert request.all("transfer-encoding") == []
    assert sent.arrived, "nothing left before the whole body was read"
    assert not sent.closed


def test_w8_a_body_of_unknown_length_is_streamed_in_chunks(server: Chaos) -> None:
    body = bytes(range(256)) * 1000
    sent = Input(body, server, terminated=True)
    server.script(*answer(b"{}"))
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": sent, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    assert Client(gateway(server)).open("/api/show", environ_overrides=environ, buffered=True).status_code == 200
    (request,) = server.requests
    assert request.body == body
    assert request.all("transfer-encoding") == ["chunked"]
    assert request.all("content-length") == []
    assert sent.arrived


@pytest.mark.parametrize("length", ["", "-1", "1e3", "٣", "2, 3", "9" * 19])
def test_w8_a_body_without_a_sound_length_is_not_read(server: Chaos, length: str) -> None:
    server.script(*answer(b"{}"))
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": Input(b"", server), "CONTENT_LENGTH": length}
    assert Client(gateway(server)).open("/api/show", environ_overrides=environ, buffered=True).status_code == 200
    assert server.requests[0].body == b""


def test_f49_a_body_shorter_than_announced(server: Chaos) -> None:
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b'{"a": 1}'), "CONTENT_LENGTH": "100"}
    response = Client(gateway(server)).open("/api/show", environ_overrides=environ, buffered=True)
    assert response.status_code == 400
    assert response.get_json() == {"error": "The request body is shorter than its Content-Length."}
    assert server.gone.get(timeout=WAIT) == 1
    assert server.requests == []
