"""What real programs sent to api.openai.com: answered, or refused by the name of a parameter; never a 500."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from tests.contract import check, check_events, check_response, check_stream, check_text_stream, shared

#: a demo model that calls a tool where there are tools, and answers with JSON where a schema is given
DEMO: dict[str, Any] = {"aliases": {"*": "demo-tools"}}


def recorded(path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    text = shared("contract/recorded/requests.jsonl").read_text()
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [row["body"] for row in rows if row["path"] == path]


@pytest.mark.slow
def test_recorded_chat_requests() -> None:
    bodies = recorded()
    assert len(bodies) == 109
    answered = 0
    for body in bodies:
        fake = FakeOllama()
        response = Client(OpenAICompat(fake, **DEMO)).post("/v1/chat/completions", json=body)
        if response.status_code == 200:
            answered += 1
            if body.get("stream"):
                check_stream(response.data)
                assert b'"tool_calls":[{' in response.data or b'"content":"' in response.data
            else:
                check("CreateChatCompletionResponse", response.get_json())
                assert response.get_json()["model"] == body["model"]
                assert len(response.get_json()["choices"]) == (body.get("n") or 1)
        else:
            error = response.get_json()["error"]
            assert response.status_code == 400
            assert error["param"].startswith("messages["), error
            assert error["code"] in ("invalid_value", "invalid_image_url", "unsupported_parameter"), error
    assert answered == (102 if find_spec("pypdf") else 92)


def test_recorded_completions_requests() -> None:
    bodies = recorded("/v1/completions")
    assert len(bodies) == 4
    for body in bodies:
        response = Client(OpenAICompat(FakeOllama(), aliases={"*": "demo"})).post("/v1/completions", json=body)
        assert response.status_code == 200
        if body.get("stream"):
            assert check_text_stream(response.data)
        else:
            check("CreateCompletionResponse", response.get_json())


def test_recorded_embeddings_requests() -> None:
    bodies = recorded("/v1/embeddings")
    assert len(bodies) == 5
    for body in bodies:
        app = OpenAICompat(FakeOllama(), aliases={"text-*": "demo-embed"})
        response = Client(app).post("/v1/embeddings", json=body)
        assert response.status_code == (404 if body["model"] == "nonexistent" else 200)
        if response.status_code == 200:
            found = [base64.b64decode(item["embedding"]) for item in response.get_json()["data"]]
            inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
            assert [len(vector) for vector in found] == [4 * body.get("dimensions", 64)] * len(inputs)


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


# -- responses --------------------------------------------------------------------------------


def recorded_responses() -> list[dict[str, Any]]:
    """Those of many programs, and of Codex and the AI SDK."""
    rows = [json.loads(line) for line in shared("contract/recorded/agents.jsonl").read_text().split("\n") if line]
    return recorded("/v1/responses") + [row["body"] for row in rows if row["path"] == "/v1/responses"]


#: why a recorded request is refused → how many there are; all of them are sent both as recorded and the other way
REFUSED = {
    # There is no store of files, and nothing is fetched by default.
    "There is no store of files": 2,
    "does not store files": 2,
    "Files are not fetched by their URL": 5,
    "image URLs are not currently supported": 3,
    # A test of an error.
    "Expected a value >= 0, but got -1": 1,
}


class Stateful:
    """An application with a store, which has what recorded requests refer to."""

    def __init__(self) -> None:
        self.app = OpenAICompat(FakeOllama(), **DEMO, store="sqlite://")
        self.client = Client(self.app)
        self.parent = self.client.post("/v1/responses", json={"model": "demo", "input": "Hi"}).get_json()["id"]
        self.conversation = self.client.post("/v1/conversations", json={}).get_json()["id"]

    def known(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that refers to what is stored here."""
        ids = {"previous_response_id": self.parent, "conversation": self.conversation}
        return {**body, **{name: id for name, id in ids.items() if body.get(name)}}

    def end(self, response: Any, *, stream: bool) -> dict[str, Any]:
        """The response at its end, which one in the background reaches later."""
        if stream:
            return check_events(response.data)[-1]["response"]  # type: ignore[no-any-return]
        found = response.get_json()
        while found["status"] in ("queued", "in_progress"):
            background = self.app._background
            assert background is not None
            background.wait()
            found = self.client.get(f"/v1/responses/{found['id']}").get_json()
        return check_response(found)


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [False, True])
def test_recorded_responses_requests(flipped: bool) -> None:
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    pytest.importorskip("pypdf", reason="the extra 'pdf' is not installed")
    bodies = recorded_responses()
    assert len(bodies) == 227
    refused = dict.fromkeys(REFUSED, 0)
    stateful = Stateful()
    for body in bodies:
        stream = bool(body.get("stream")) is not flipped
        response = stateful.client.post("/v1/responses", json={**stateful.known(body), "stream": stream})
        if response.status_code != 200:
            assert response.status_code == 400
            check("ErrorResponse", response.get_json())
            error = response.get_json()["error"]
            assert error["param"].startswith(("input[", "temperature")), error
            [reason] = [reason for reason in REFUSED if reason in error["message"]] or [json.dumps(error)]
            refused[reason] = refused.get(reason, 0) + 1
            continue
        found = stateful.end(response, stream=stream)
        assert found["model"] == body["model"]
        assert found["status"] in ("completed", "incomplete")
        assert found["output"] or found["status"] == "incomplete"
        assert found["instructions"] == (body.get("instructions") or None)
        assert len(found["tools"]) == len(body.get("tools") or ())
    assert refused == REFUSED
    assert stateful.app.store is not None
    stateful.app.store.close()


@pytest.mark.parametrize(("path", "schema"), [("compact", "CompactResource"), ("input_tokens", "TokenCountsResource")])
def test_recorded_requests_to_compact_and_to_count(path: str, schema: str) -> None:
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    bodies = recorded(f"/v1/responses/{path}")
    assert len(bodies) == {"compact": 7, "input_tokens": 3}[path]
    stateful = Stateful()
    for body in bodies:
        response = stateful.client.post(f"/v1/responses/{path}", json=stateful.known(body))
        assert response.status_code == 200, response.data
        check(schema, response.get_json())


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_sdk_tests_send_for_a_response(stream: bool) -> None:
    """All parameters at once, as the tests of OpenAI's own SDK send them, save a prompt's id and those of state."""
    tool = {
        "type": "function",
        "name": "name",
        "parameters": {"foo": "bar"},
        "strict": True,
        "allowed_callers": ["direct"],
        "async": True,
        "defer_loading": True,
        "description": "description",
        "output_schema": {"foo": "bar"},
    }
    body = {
        "model": "demo",
        "input": "string",
        "access_programs": ["string"],
        "context_management": [{"type": "type", "compact_threshold": 1000}],
        "include": ["file_search_call.results"],
        "instructions": "instructions",
        "max_output_tokens": 16,
        "max_tool_calls": 0,
        "metadata": {"foo": "string"},
        "moderation": {"model": "model"},
        "parallel_tool_calls": True,
        "prompt_cache_key": "prompt-cache-key-1234",
        "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
        "prompt_cache_retention": "in_memory",
        "reasoning": {
            "context": "auto",
            "effort": "none",
            "generate_summary": "auto",
            "mode": "string",
            "summary": "auto",
        },
        "safety_identifier": "safety-identifier-1234",
        "service_tier": "auto",
        "store": True,
        "stream": stream,
        "stream_options": {"include_obfuscation": True},
        "temperature": 1,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": "none",
        "tools": [tool],
        "top_logprobs": 0,
        "top_p": 1,
        "truncation": "auto",
        "user": "user-1234",
    }
    fake = FakeOllama()
    response = Client(OpenAICompat(fake)).post("/v1/responses", json=body)
    assert response.status_code == 200, response.data
    found = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    assert found["max_tool_calls"] == 0
    ignored = response.headers["openai-compat-ignored"].split(", ")
    assert {
        "access_programs",
        "context_management",
        "include.file_search_call.results",
        "moderation",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning.context",
        "reasoning.mode",
        "stream_options.include_obfuscation",
        "text.verbosity",
        "tools[].allowed_callers",
        "tools[].async",
        "tools[].defer_loading",
        "tools[].output_schema",
        "user",
    } == set(ignored) - {"store"}
    assert "tools" not in fake.requests[0].json
    assert fake.requests[0].json["think"] is False
