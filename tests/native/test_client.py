"""The native client: which calls it makes, and what it makes of the responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from werkzeug.test import Client, create_environ

from openai_compat import OpenAICompat, Upstream
from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.capabilities import ExpiringSet, KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel
from openai_compat.transport.wsgi_call import WSGICall
from tests.chaos import SIZED, Chaos, answer, head, refusing
from tests.transport.gateways import gateway, upstream

CHAT = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})
GENERATE = native.GenerateRequest(model="demo", prompt="Hi", options={})
EMBED = native.EmbedRequest(model="demo", input="Hi")


def backend(app: Any, environ: dict[str, Any] | None = None, **settings: Any) -> Backend:
    return Backend(app, create_environ() if environ is None else environ, Settings(**settings), KnownLimits())


def test_chat_streams_messages() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), say("b"), done())
    found = backend(fake).chat(CHAT)
    assert [message.message.content for message in found if message.message] == ["a", "b", ""]
    found.close()
    request = fake.requests[0]
    assert (request.method, request.path) == ("POST", "/api/chat")
    assert request.json == {
        "model": "demo",
        "messages": [{"role": "user", "content": "Hi"}],
        "options": {},
        "stream": True,
    }


def test_w8_a_native_call_has_an_environ_of_its_own() -> None:
    client = create_environ(
        "/v1/chat/completions?api-version=1",
        method="POST",
        data=b"the client's own",
        headers={
            "Authorization": "Bearer k",
            "Content-Encoding": "gzip",
            "Transfer-Encoding": "chunked",
            "Accept": "text/html",
            "Accept-Encoding": "gzip",
            "Expect": "100-continue",
            "Range": "bytes=0-1",
            "If-None-Match": "x",
        },
    )
    client.update({"RAW_URI": "/v1/x", "REQUEST_URI": "/v1/x", "werkzeug.request": object(), "webob.x": 1, "my.key": 2})
    caches = {name: object() for name in ("bottle.request", "bottle.app", "route.handle", "django.x", "flask.app")}
    client.update(caches)
    before, seen = dict(client), {}

    def app(environ: Any, start_response: Any) -> Any:
        seen.update(environ)
        return FakeOllama()(environ, start_response)

    backend(app, client).chat(CHAT).close()
    assert client == before
    gone = {"RAW_URI", "REQUEST_URI", "werkzeug.request", "webob.x", "HTTP_CONTENT_ENCODING", "HTTP_RANGE"}
    gone |= set(caches)
    gone |= {"HTTP_TRANSFER_ENCODING", "HTTP_ACCEPT_ENCODING", "HTTP_EXPECT", "HTTP_IF_NONE_MATCH"}
    assert not gone & set(seen)
    assert seen["HTTP_AUTHORIZATION"] == "Bearer k"
    assert seen["my.key"] == 2
    assert seen["CONTENT_TYPE"] == "application/json"
    assert seen["QUERY_STRING"] == ""
    assert "ndjson" in seen["HTTP_ACCEPT"]
    assert isinstance(seen[SIDE_CHANNEL], SideChannel)
    assert seen["wsgi.input"] is not client["wsgi.input"]


def test_tags_show_ps_and_version() -> None:
    fake = FakeOllama()
    ollama = backend(fake)
    assert [model.name for model in ollama.tags().models or []][0] == "demo:latest"
    assert ollama.show("demo").modified_at == "2026-01-01T00:00:00Z"
    assert ollama.loaded().models == []
    assert "demo" in ollama.version().version
    paths = [(request.method, request.path) for request in fake.requests]
    assert paths == [("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/api/ps"), ("GET", "/api/version")]
    assert fake.closed == fake.opened == 4


def test_show_asks_by_name_and_by_model_where_that_is_wanted() -> None:
    fake = FakeOllama()
    fake.script("/api/show", b'{"error":"model is required"}', status="400 Bad Request")
    assert backend(fake).show("demo").modified_at
    assert [request.json for request in fake.requests] == [{"name": "demo"}, {"model": "demo"}]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"models":3}', b""])
def test_a_200_that_is_no_list_is_a_502(body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/tags", body)
    with pytest.raises(APIError) as raised:
        backend(fake).tags()
    assert raised.value.status == 502
    assert fake.closed == 1


def test_no_models_is_a_list_without_models() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", b'{"models":null}')
    assert backend(fake).tags().models is None


def test_f40_an_answer_over_the_cap_is_a_502() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", json.dumps({"models": [{"name": "x" * 1000}]}).encode())
    with pytest.raises(APIError, match="too long"):
        backend(fake, max_answer=500).tags()


@pytest.mark.parametrize("status", [201, 204, 304])
def test_f18_other_statuses_below_400(status: int) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", status=f"{status} X")
    with pytest.raises(APIError) as raised:
        backend(fake).chat(CHAT)
    assert raised.value.status == 502
    assert fake.closed == 1


# -- a text -----------------------------------------------------------------------------------


def wrote(response: str = "", **more: Any) -> dict[str, Any]:
    """One line of a native text."""
    return {"model": "demo", "created_at": "2026-01-01T00:00:00Z", "response": response, "done": False, **more}


def test_generate_streams_messages() -> None:
    fake = FakeOllama()
    counts = {"done": True, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 2}
    fake.script("/api/generate", wrote(thinking="hm"), wrote("a"), wrote("b"), wrote(**counts))
    found = backend(fake).generate(GENERATE)
    messages = list(found)
    assert [message.response for message in messages] == ["", "a", "b", ""]
    assert [message.thinking for message in messages] == ["hm", None, None, None]
    last = messages[-1]
    assert (last.done_reason, last.prompt_eval_count, last.eval_count) == ("length", 3, 2)
    found.close()
    request = fake.requests[0]
    assert (request.method, request.path) == ("POST", "/api/generate")
    assert request.json == {"model": "demo", "prompt": "Hi", "options": {}, "stream": True}
    assert fake.closed == fake.opened == 1


def test_generate_asks_for_what_it_is_told_to() -> None:
    fake = FakeOllama()
    ollama = native.GenerateRequest(
        model="demo", prompt="a", options={"seed": 1}, suffix="b", raw=True, logprobs=True, top_logprobs=2, think=False
    )
    fake.script("/api/generate", wrote(done=True))
    backend(fake).generate(ollama).close()
    assert fake.requests[0].json == {
        "model": "demo",
        "prompt": "a",
        "options": {"seed": 1},
        "suffix": "b",
        "stream": True,
        "raw": True,
        "think": False,
        "logprobs": True,
        "top_logprobs": 2,
    }


@pytest.mark.parametrize("steps", [[], [wrote("a")], [b"{}\n"], [b"<html>"], [b'{"message":{"content":"a"}}\n']])
def test_f8_f16_a_text_without_a_sound_line_or_end_is_a_502(steps: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/generate", *steps)
    with pytest.raises(APIError) as raised, closing(backend(fake).generate(GENERATE)) as found:
        list(found)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    assert fake.closed == 1


# -- embeddings -------------------------------------------------------------------------------


def test_embed_keeps_each_embedding_as_it_is_written() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"model":"demo","embeddings":[[0.10,-1e-3],[]],"prompt_eval_count":4}')
    found = backend(fake).embed(native.EmbedRequest(model="demo", input=["a", "b"], dimensions=2, truncate=False))
    assert [bytes(each) for each in found.embeddings or []] == [b"[0.10,-1e-3]", b"[]"]
    assert found.prompt_eval_count == 4
    request = fake.requests[0]
    assert (request.method, request.path) == ("POST", "/api/embed")
    assert request.json == {"model": "demo", "input": ["a", "b"], "truncate": False, "dimensions": 2}
    assert fake.closed == fake.opened == 1


def test_embed_asks_one_text_as_a_text() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"embeddings":[[0.5]]}')
    assert backend(fake).embed(EMBED).embeddings
    assert fake.requests[0].json == {"model": "demo", "input": "Hi"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"embeddings":3}', b'{"embedding":[1]}'])
def test_a_200_without_embeddings_is_a_502(body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", body)
    with pytest.raises(APIError) as raised:
        backend(fake).embed(EMBED)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    assert fake.closed == 1


def test_f40_embeddings_over_the_cap_are_a_502() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"embeddings":[[' + b"0," * 500 + b"0]]}")
    with pytest.raises(APIError, match="too long"):
        backend(fake, max_answer=500).embed(EMBED)


# -- deleting ---------------------------------------------------------------------------------


def test_delete_names_the_model_both_ways() -> None:
    fake, seen = FakeOllama(), {}
    fake.script("/api/delete", b"")

    def app(environ: Any, start_response: Any) -> Any:
        seen.update(environ)
        return fake(environ, start_response)

    client = create_environ("/v1/models/demo", method="DELETE", data=b"the client's own")
    backend(app, client).delete("demo")
    request = fake.requests[0]
    assert (request.method, request.path) == ("DELETE", "/api/delete")
    assert request.json == {"model": "demo", "name": "demo"}
    assert (seen["CONTENT_TYPE"], seen["CONTENT_LENGTH"]) == ("application/json", str(len(request.body)))
    assert fake.closed == fake.opened == 1


def test_a_model_that_is_not_there_cannot_be_deleted() -> None:
    fake = FakeOllama()
    fake.script("/api/delete", b'{"error":"model \'demo\' not found"}', status="404 Not Found")
    with pytest.raises(APIError, match="`demo`") as raised:
        backend(fake).delete("demo")
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")
    assert fake.closed == 1


@pytest.mark.parametrize("native_admin", [False, True])
def test_an_upstream_lets_a_translated_delete_through(server: Chaos, native_admin: bool) -> None:
    server.script(*answer(framing=SIZED))
    backend(upstream(server, native_admin=native_admin)).delete("demo")
    request = server.requests[0]
    assert (request.method, request.target) == ("DELETE", "/api/delete")
    assert json.loads(request.body) == {"model": "demo", "name": "demo"}
    assert request.all("content-type") == ["application/json"]
    assert request.all("content-length") == [str(len(request.body))]


def test_a_client_s_own_delete_is_refused(server: Chaos) -> None:
    headers = {"openai-compat-translated": "1", "openai_compat.translated": "1"}
    response = Client(gateway(server)).delete("/api/delete", json={"model": "demo"}, headers=headers, buffered=True)
    assert response.status_code == 403
    assert list(response.get_json()) == ["error"]
    assert server.connections == 0


def test_a_client_s_own_delete_passes_where_that_is_wanted(server: Chaos) -> None:
    server.script(*answer(framing=SIZED))
    app = gateway(server, native_admin=True)
    assert Client(app).delete("/api/delete", json={"model": "demo"}, buffered=True).status_code == 200
    assert [request.method for request in server.requests] == ["DELETE"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/delete"), ("DELETE", "/api/pull"), ("DELETE", "/api/create")]
)
def test_an_upstream_lets_no_other_translated_call_through(server: Chaos, method: str, path: str) -> None:
    channel = SideChannel(Cancel())
    call = WSGICall(upstream(server), {**create_environ(path, method=method), SIDE_CHANNEL: channel})
    assert call.status == 403
    assert channel.failure is not None
    assert channel.failure.status == 403
    assert server.connections == 0


# -- the context of loaded models -------------------------------------------------------------


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def calls_again(fake: FakeOllama, ollama: Backend, *, after: float = 0.0) -> bool:
    """Whether one more look at the contexts makes a native call."""
    clock = Clock()
    if after:
        ollama.limits.absent_paths = ExpiringSet(clock)
        assert ollama.context_lengths() == {}
        clock.now += after
    before = len(fake.requests)
    ollama.context_lengths()
    return len(fake.requests) > before


def test_context_lengths_are_those_of_loaded_models() -> None:
    fake = FakeOllama()
    models = [
        {"name": "a:latest", "model": "a:latest", "context_length": 4096},
        {"name": "b:latest", "context_length": 8192.0},
        {"name": "old", "model": "old"},
        {"name": "none", "model": "none", "context_length": None},
        {"name": "zero", "model": "zero", "context_length": 0},
    ]
    fake.script("/api/ps", json.dumps({"models": models}).encode())
    found = backend(fake).context_lengths()
    assert found == {"a:latest": 4096, "b:latest": 8192}
    assert all(type(length) is int for length in found.values())
    assert (fake.requests[0].method, fake.requests[0].path) == ("GET", "/api/ps")


@pytest.mark.parametrize("body", [b'{"models":null}', b'{"models":[]}'])
def test_where_no_model_is_loaded_there_is_no_context(body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/ps", body)
    ollama = backend(fake)
    assert ollama.context_lengths() == {}
    assert calls_again(fake, ollama)


ABSENT = [
    (404, b"404 page not found"),
    (404, b'{"detail":"Not Found"}'),
    (404, b'{"error":"not found"}'),
    (404, b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'),
    (404, b'{"error":"Unexpected endpoint or method. (GET /api/ps)"}'),
    (405, b"Method Not Allowed"),
]


@pytest.mark.parametrize(("status", "body"), ABSENT)
def test_a_side_that_cannot_tell_of_loaded_models_is_not_asked_again(status: int, body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/ps", body, status=f"{status} X")
    ollama = backend(fake)
    assert ollama.context_lengths() == {}
    assert "/api/ps" in ollama.limits.absent_paths
    assert not calls_again(fake, ollama)
    assert fake.closed == fake.opened == 1


def test_nor_by_another_request_of_the_same_middleware() -> None:
    fake = FakeOllama()
    fake.script("/api/ps", status="404 X")
    limits = KnownLimits()
    for _ in range(2):
        assert Backend(fake, create_environ(), Settings(), limits).context_lengths() == {}
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("after", "again"), [(ExpiringSet.LIFETIME - 1, False), (ExpiringSet.LIFETIME + 1, True)])
def test_it_is_asked_again_after_a_while(after: float, again: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/ps", status="404 X")
    assert calls_again(fake, backend(fake), after=after) is again


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b'{"models":3}'),
        (200, b'{"error":"boom"}'),
        (204, b""),
        (302, b""),
        (400, b'{"error":"bad"}'),
        (401, b""),
        (403, b""),
        (429, b'{"error":"slow"}'),
        (500, b'{"error":"boom"}'),
        (502, b"<html>"),
        (503, b'{"error":"busy"}'),
        (504, b""),
    ],
)
def test_after_another_failure_it_is_asked_again(status: int, body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/ps", body, status=f"{status} X")
    ollama = backend(fake)
    assert ollama.context_lengths() == {}
    assert "/api/ps" not in ollama.limits.absent_paths
    assert calls_again(fake, ollama)


def test_nor_is_a_defect_or_a_broken_connection_taken_for_a_path_that_is_not_there(server: Chaos) -> None:
    fake = FakeOllama()
    fake.script("/api/ps", ValueError("a defect"))
    server.script(head(headers=[("Content-Length", "9")]), b"{")
    remote = upstream(server, timeout=0.3)
    with refusing() as nowhere:
        for app in (fake, remote, Upstream("http://" + nowhere)):
            ollama = backend(app)
            assert ollama.context_lengths() == {}
            assert "/api/ps" not in ollama.limits.absent_paths


# -- who is ollama, and by what name -----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/api/chat", lambda backend: backend.chat(CHAT, model="gpt-4")),
        ("/api/generate", lambda backend: backend.generate(GENERATE, model="gpt-4")),
        ("/api/embed", lambda backend: backend.embed(EMBED, model="gpt-4")),
        ("/api/show", lambda backend: backend.show("demo", model="gpt-4")),
    ],
)
def test_a_404_shows_the_name_that_the_client_has(path: str, ask: Callable[[Backend], Any]) -> None:
    fake = FakeOllama()
    fake.script(path, b'{"error":"model not found"}', status="404 Not Found")
    with pytest.raises(APIError, match="The model `gpt-4` does not exist") as raised:
        ask(backend(fake))
    assert raised.value.code == "model_not_found"
    assert "demo" in fake.requests[0].json.values()


@pytest.mark.parametrize(
    ("path", "ask", "param"),
    [
        ("/api/chat", lambda backend: backend.chat(CHAT), "messages"),
        ("/api/generate", lambda backend: backend.generate(GENERATE), "prompt"),
        ("/api/embed", lambda backend: backend.embed(EMBED), "input"),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_overflow_names_the_field_that_holds_the_prompt(
    path: str, ask: Callable[[Backend], Any], param: str, status: int
) -> None:
    fake = FakeOllama()
    fake.script(path, b'{"error":"the input length exceeds the context length"}\n', status=f"{status} X")
    with pytest.raises(APIError) as raised:
        ask(backend(fake))
    error = raised.value
    assert (error.status, error.param, error.code) == (400, param, "context_length_exceeded")


def test_only_a_url_is_remote() -> None:
    assert backend(Upstream("http://127.0.0.1:9")).is_remote is True
    assert backend(FakeOllama()).is_remote is False
    assert backend(OpenAICompat(FakeOllama())).is_remote is False
