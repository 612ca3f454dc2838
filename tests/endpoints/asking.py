"""Asking for chats: what is sent, refused, ignored, answered and streamed."""

from __future__ import annotations

from typing import Any

from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done
from tests.contract import check, check_stream

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def post(fake: FakeOllama, settings: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
    body = {"model": "demo", "messages": MESSAGES, **fields}
    return Client(OpenAICompat(fake, **(settings or {}))).post("/v1/chat/completions", json=body)


def sent(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The native request."""
    fake = FakeOllama()
    fake.script("/api/chat", done())
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return fake.requests[0].json  # type: ignore[no-any-return]


def refused(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 400, response.data
    assert fake.requests == []
    check("ErrorResponse", response.get_json())
    return response.get_json()["error"]  # type: ignore[no-any-return]


def answered(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    check("CreateChatCompletionResponse", response.get_json())
    return response.get_json()  # type: ignore[no-any-return]


def streamed(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, stream=True, **fields)
    assert response.status_code == 200, response.data
    return check_stream(response.data)


def ignored(settings: dict[str, Any] | None = None, **fields: Any) -> set[str]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))
