"""What real programs sent to api.openai.com: answered, or refused by the name of a parameter; never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream, shared

#: what a later version builds, or Ollama cannot take: the only parameters that may be refused
REFUSED = {"tool_choice", "parallel_tool_calls", "n", "functions"}


def recorded() -> list[dict[str, Any]]:
    text = shared("contract/recorded/requests.jsonl").read_text()
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [row["body"] for row in rows if row["path"] == "/v1/chat/completions"]


def test_recorded_chat_requests() -> None:
    bodies = recorded()
    assert len(bodies) == 109
    answered = 0
    for body in bodies:
        fake = FakeOllama()
        fake.script("/api/chat", say("Hello"), done())
        response = Client(OpenAICompat(fake)).post("/v1/chat/completions", json=body)
        if response.status_code == 200:
            answered += 1
            if body.get("stream"):
                check_stream(response.data)
            else:
                check("CreateChatCompletionResponse", response.get_json())
            assert fake.requests[0].json["model"] == body["model"]
        else:
            error = response.get_json()["error"]
            assert response.status_code == 400
            is_part = error["param"].startswith("messages[") and error["code"] in ("invalid_value", "invalid_image_url")
            assert is_part or error["param"] in REFUSED, error
    assert answered >= 83


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_sdk_tests_send(stream: bool) -> None:
    """All parameters at once, as the tests of OpenAI's own SDK send them, save those of a later version."""
    body = {
        "messages": [{"content": "string", "role": "developer", "name": "name"}],
        "model": "demo",
        "audio": {"format": "wav", "voice": "string"},
        "frequency_penalty": -2,
        "function_call": "none",
        "functions": [{"name": "name", "description": "description", "parameters": {"foo": "bar"}}],
        "logit_bias": {"foo": 0},
        "logprobs": True,
        "max_completion_tokens": 0,
        "max_tokens": 0,
        "metadata": {"foo": "string"},
        "modalities": ["text"],
        "moderation": {},
        "n": 1,
        "parallel_tool_calls": True,
        "prediction": {"content": "string", "type": "content"},
        "presence_penalty": -2,
        "prompt_cache_key": "prompt-cache-key-1234",
        "reasoning_effort": "none",
        "response_format": {"type": "text"},
        "safety_identifier": "safety-identifier-1234",
        "seed": -9007199254740991,
        "service_tier": "auto",
        "stop": "\n",
        "store": True,
        "stream": stream,
        "stream_options": {"include_obfuscation": True, "include_usage": True},
        "temperature": 1,
        "tool_choice": "none",
        "tools": [{"function": {"name": "name", "parameters": {"foo": "bar"}, "strict": True}, "type": "function"}],
        "top_logprobs": 0,
        "top_p": 1,
        "user": "user-1234",
        "verbosity": "low",
        "web_search_options": {},
    }
    fake = FakeOllama()
    response = Client(OpenAICompat(fake)).post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.data
    ignored = response.headers["openai-compat-ignored"].split(", ")
    assert ignored == sorted(ignored)
    assert {"logit_bias", "metadata", "user", "web_search_options", "stream_options.include_obfuscation"} <= set(
        ignored
    )
    sent = fake.requests[0].json
    assert sent["options"]["seed"] == -9007199254740991
    assert sent["options"]["num_predict"] == 1
    assert "tools" not in sent
    assert sent["think"] is False
