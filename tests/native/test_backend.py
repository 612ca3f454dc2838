"""The native API as methods: what is asked, and of whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import create_environ

from openai_compat.errors import APIError
from openai_compat.native import messages as native
from openai_compat.native.backend import TRANSLATED, Backend
from openai_compat.native.memory import Memory
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, done, say

CHAT = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})


def backend(app: Any, environ: dict[str, Any] | None = None, **settings: Any) -> Backend:
    return Backend(app, create_environ() if environ is None else environ, Settings(**settings), Memory())


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
    before, seen = dict(client), {}

    def app(environ: Any, start_response: Any) -> Any:
        seen.update(environ)
        return FakeOllama()(environ, start_response)

    backend(app, client).chat(CHAT).close()
    assert client == before
    gone = {"RAW_URI", "REQUEST_URI", "werkzeug.request", "webob.x", "HTTP_CONTENT_ENCODING", "HTTP_RANGE"}
    gone |= {"HTTP_TRANSFER_ENCODING", "HTTP_ACCEPT_ENCODING", "HTTP_EXPECT", "HTTP_IF_NONE_MATCH"}
    assert not gone & set(seen)
    assert seen["HTTP_AUTHORIZATION"] == "Bearer k"
    assert seen["my.key"] == 2
    assert seen["CONTENT_TYPE"] == "application/json"
    assert seen["QUERY_STRING"] == ""
    assert "ndjson" in seen["HTTP_ACCEPT"]
    assert seen[TRANSLATED] is True
    assert seen["wsgi.input"] is not client["wsgi.input"]


def test_tags_show_ps_and_version() -> None:
    fake = FakeOllama()
    asked = backend(fake)
    assert [model.name for model in asked.tags().models or []][0] == "demo:latest"
    assert asked.show("demo").modified_at == "2026-01-01T00:00:00Z"
    assert asked.loaded().models == []
    assert "demo" in asked.version().version
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
