"""Errors in OpenAI's shape."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.errors import APIError, bad_gateway, invalid, missing, not_supported, too_long
from openai_compat.testing import FakeOllama
from tests.contract import check


@pytest.mark.parametrize(
    ("status", "type"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (429, "rate_limit_error"), (502, "server_error")],
)
def test_the_type_follows_from_the_status(status: int, type: str) -> None:
    assert APIError(status, "x").type == type


@pytest.mark.parametrize(
    "error",
    [APIError(500, "x"), invalid("x", "p"), missing("p"), too_long("p", 1, 2), not_supported("p", "x"), bad_gateway()],
)
def test_all_four_keys_are_always_there(error: APIError) -> None:
    check("ErrorResponse", error.body())
    assert list(error.body()["error"]) == ["message", "type", "param", "code"]
    assert str(error) == error.message


LONG = "v" * 1000
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": LONG, "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": LONG}]}]},
        {"reasoning_effort": LONG},
        {"think": LONG},
        {"response_format": {"type": LONG}},
        {"tools": [{"type": LONG}]},
        {"tools": [TOOL], "tool_choice": LONG},
        {"tools": [TOOL], "tool_choice": {"type": LONG}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": LONG}}},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": LONG}}},
        {
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": LONG}]}},
        },
        {"functions": [TOOL["function"]], "function_call": LONG},
    ],
    ids=lambda fields: ", ".join(fields),
)
def test_a_refusal_of_a_chat_repeats_64_characters_at_most(fields: dict[str, Any]) -> None:
    response = Client(OpenAICompat(FakeOllama())).post("/v1/chat/completions", json={**CHAT, **fields})
    assert_repeats(response, 400, 64)


def test_other_refusals_repeat_64_characters_at_most() -> None:
    client = Client(OpenAICompat(FakeOllama()))
    embeddings = {"model": "demo-embed", "input": "a", "encoding_format": LONG}
    assert_repeats(client.post("/v1/embeddings", json=embeddings), 400, 64)
    form = {"model": "demo", "response_format": LONG, "file": (io.BytesIO(b"RIFF"), "a.wav")}
    assert_repeats(client.post("/v1/audio/transcriptions", data=form), 400, 64)


def test_refusals_of_what_is_stored_repeat_little() -> None:
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    app = OpenAICompat(FakeOllama(), store="sqlite://")
    client = Client(app)
    assert_repeats(client.get("/v1/chat/completions", query_string={"order": LONG}), 400, 64)
    assert_repeats(client.get(f"/v1/chat/completions/{LONG}"), 404, 128)
    assert app.store is not None
    app.store.close()


def assert_repeats(response: TestResponse, status: int, characters: int) -> None:
    """Check that a refusal has as many characters of what was sent, and no more."""
    assert response.status_code == status, response.data
    message = response.get_json()["error"]["message"]
    assert re.findall("v{10,}", message) == [LONG[:characters]]
