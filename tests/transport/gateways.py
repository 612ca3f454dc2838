"""Ways to ask the middleware in front of an upstream, and what its failures must look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder, TestResponse, run_wsgi_app

from openai_compat import OpenAICompat, Upstream
from openai_compat.testing import done, say
from tests.chaos import FRAMINGS, WAIT, Chaos
from tests.contract import frames

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}

#: a native answer that ends well
HELLO = (say("Hel"), say("lo"), done())

both = pytest.mark.parametrize("stream", [False, True], ids=["collected", "streamed"])
framings = pytest.mark.parametrize("framing", FRAMINGS)

#: no time-out takes part unless a test is about it
PATIENT = {"connect_timeout": WAIT, "head_timeout": WAIT, "idle_timeout": WAIT}


def gateway(server: Chaos, **options: Any) -> OpenAICompat:
    """The middleware in front of *server*, by its URL."""
    return OpenAICompat(server.url, **{**PATIENT, **options})


def upstream(server: Chaos, **arguments: Any) -> Upstream:
    return Upstream(server.url, **{"timeout": WAIT, **arguments})


def ask(app: Any, *, stream: bool = False, headers: Any = None, content: str = "Hi") -> TestResponse:
    """One chat, its whole answer."""
    chat = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": content}]}
    return Client(app).post("/v1/chat/completions", json=chat, headers=headers, buffered=True)


@contextmanager
def streamed(app: Any, path: str = "/v1/chat/completions") -> Iterator[Iterator[bytes]]:
    """The items of one streamed chat, as a server takes them one by one; closed at the end of the block."""
    builder = EnvironBuilder(path=path, method="POST", json={**CHAT, "stream": True})
    with closing(builder):
        items, status, _ = run_wsgi_app(app, builder.get_environ())
    assert status.startswith("200 ")
    with closing(items):  # type: ignore[type-var]
        yield iter(items)


def text_of(response: TestResponse) -> str:
    """The text of a good answer, streamed or not."""
    assert response.status_code == 200
    if response.mimetype == "application/json":
        choice = response.get_json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])
    *chunks, last = frames(response.data)
    assert last == "[DONE]"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    return "".join(texts(chunks))


def texts(chunks: list[Any]) -> list[str]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def failed(response: TestResponse, status: int = 502, code: str = "upstream_error") -> dict[str, Any]:
    """The error of a failure before the head."""
    assert response.status_code == status
    assert response.mimetype == "application/json"
    error: dict[str, Any] = response.get_json()["error"]
    assert (error["type"], error["code"]) == ("server_error" if status >= 500 else "invalid_request_error", code)
    return error


def broken_off(body: bytes, code: str = "upstream_error") -> list[str]:
    """The pieces of text before the error event of a stream that failed after the head (MID)."""
    assert b"[DONE]" not in body
    *chunks, last = frames(body)
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", code)
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    return texts(chunks)


def line(message: dict[str, Any]) -> bytes:
    """One native line."""
    return json.dumps(message).encode() + b"\n"
