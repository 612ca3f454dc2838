"""What a real Ollama said, replayed byte for byte through the middleware, against what its own /v1 made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from tests.contract import DATA, check, check_stream, frames, merged, whole

RECORDINGS = [json.loads(line) for line in (DATA / "recordings.jsonl").read_text().split("\n") if line]
CUTS = [0, 1, 7, 4096]


def named(prefix: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in RECORDINGS if row["name"].startswith(prefix)]


def replay(row: dict[str, Any], cut: int) -> FakeOllama:
    """A fake that gives the recorded native answer."""
    native = row["native"]
    fake = FakeOllama()
    fake.script(
        native["path"],
        native["body"].encode(),
        status=f"{native['status']} X",
        content_type=native["content_type"],
        cut=cut,
    )
    return fake


def usage(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")} if found else {}


# Listed defects and quirks of Ollama's own /v1 (contract/ollama.md 2.1 and decisions.md): what ours says instead.
STATUS = {"chat/no-thinking-capability": 200}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", named("chat/"))
def test_chat(row: dict[str, Any], cut: int) -> None:
    theirs = row["openai"]
    fake = replay(row, cut)
    if row["name"] == "chat/no-thinking-capability":  # asked again without thinking
        text = next(other for other in RECORDINGS if other["name"] == "chat/text")["native"]
        fake.script("/api/chat", text["body"].encode(), content_type=text["content_type"], cut=cut)
    client = Client(OpenAICompat(fake, overflow="truncate"))
    response = client.post("/v1/chat/completions", json=theirs["request"])
    assert response.status_code == STATUS.get(row["name"], theirs["status"])
    assert response.data
    response.close()
    assert fake.closed == fake.opened > 0
    if response.status_code != 200:
        assert_error(response.get_json(), json.loads(theirs["body"]))
    elif theirs["request"].get("stream"):
        assert response.content_type == "text/event-stream; charset=utf-8"
        ours = merged(check_stream(response.data))
        assert_same(ours, merged(list(frames(theirs["body"].encode()))[:-1]), row)
    else:
        check("CreateChatCompletionResponse", response.get_json())
        if theirs["status"] == 200:
            assert_same(whole(response.get_json()), whole(json.loads(theirs["body"])), row)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], row: dict[str, Any]) -> None:
    if row["name"] == "chat/max-tokens-zero":  # to Ollama 0 means no limit; to OpenAI, nothing
        assert (ours["content"], ours["finish_reason"]) == ("", "length")
        return
    for key in ("content", "reasoning", "tool_calls", "finish_reason"):
        assert ours[key] == theirs[key], key
    if theirs["usage"] is None:
        assert ours["usage"] is None
    else:
        assert usage(ours["usage"]) == usage(theirs["usage"])
    if not ours["reasoning"]:  # log-probabilities of thinking belong to no content
        assert ours["logprobs"] == theirs["logprobs"]
    elif theirs["logprobs"]:
        assert "".join(token for token, _ in ours["logprobs"]).strip() == ours["content"].strip()


def assert_error(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    check("ErrorResponse", ours)
    assert set(ours["error"]) == {"message", "type", "param", "code"}
    text = theirs["error"]["message"]
    if text.startswith("{"):  # Ollama shows the runner's JSON; ours is what it says
        text = json.loads(text)["error"]["message"]
    assert text in ours["error"]["message"]
    assert ours["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_runner_that_dies_is_an_error_never_a_quiet_end(cut: int, stream: bool) -> None:
    row = next(row for row in RECORDINGS if row["name"] == "native/chat-runner-dies")
    client = Client(OpenAICompat(replay(row, cut)))
    response = client.post("/v1/chat/completions", json={**row["openai"]["request"], "stream": stream})
    text = "an error was encountered while running the model: unexpected EOF"
    if not stream:
        assert response.status_code == 502
        assert response.get_json()["error"]["message"] == text
        assert response.headers["x-should-retry"] == "false"
        return
    *chunks, last = frames(response.data)
    assert last["error"]["message"] == text
    lines = [json.loads(line) for line in row["native"]["body"].splitlines()]
    assert merged(chunks)["content"] == "".join(line["message"]["content"] for line in lines[:-1])
    assert merged(chunks)["finish_reason"] is None


NATIVE = {
    "native/chat-too-long-truncate-false": (400, "messages", "context_length_exceeded"),
    "native/chat-too-long-truncate-false-stream": (400, "messages", "context_length_exceeded"),
    "native/chat-too-long-shift-false": (400, "messages", "context_length_exceeded"),
    "native/chat-bad-option": (400, "options.temperature", "invalid_value"),
    "native/chat-bad-think": (400, "think", None),
    "native/chat-bad-json": (400, None, None),
    "native/chat-wrong-type": (400, None, None),
    "native/chat-no-model": (400, "model", None),
    "native/chat-load": (200, None, None),
    "native/chat-unload": (200, None, None),
    "native/chat-bad-role": (200, None, None),
}


def test_every_native_chat_scenario_is_here() -> None:
    names = {row["name"] for row in RECORDINGS if row["name"].startswith("native/chat-")}
    assert names == {*NATIVE, "native/chat-runner-dies"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", [row for row in named("native/chat-") if row.id in NATIVE])
def test_native_chat(row: dict[str, Any], stream: bool, cut: int) -> None:
    """Native answers that have no /v1 twin, to a request that is sound."""
    client = Client(OpenAICompat(replay(row, cut)))
    request = {"model": "ocean", "messages": [{"role": "user", "content": "Which ocean?"}], "stream": stream}
    response = client.post("/v1/chat/completions", json=request)
    status, param, code = NATIVE[row["name"]]
    assert response.status_code == status
    if status != 200:
        check("ErrorResponse", response.get_json())
        assert (response.get_json()["error"]["param"], response.get_json()["error"]["code"]) == (param, code)
        return
    line = json.loads(row["native"]["body"])
    ours = merged(check_stream(response.data)) if stream else whole(response.get_json())
    assert ours["content"] == line["message"]["content"]
    assert ours["finish_reason"] == "stop"


def test_overflow_has_both_counts() -> None:
    row = next(row for row in RECORDINGS if row["name"] == "native/chat-too-long-truncate-false")
    fake = replay(row, 0)
    response = Client(OpenAICompat(fake)).post("/v1/chat/completions", json=row["native"]["request"])
    assert fake.requests[0].json["truncate"] is False
    assert response.get_json()["error"]["message"] == (
        "This model's maximum context length is 512 tokens. However, your messages resulted in 7208 tokens. "
        "Please reduce the length of the messages."
    )


def test_models() -> None:
    row = next(row for row in RECORDINGS if row["name"] == "models/models")
    response = Client(OpenAICompat(replay(row, 0))).get("/v1/models")
    check("ListModelsResponse", response.get_json())
    assert response.get_json() == json.loads(row["openai"]["body"])


def test_model() -> None:
    row = next(row for row in RECORDINGS if row["name"] == "models/model")
    response = Client(OpenAICompat(replay(row, 0))).get("/v1/models/ocean")
    check("Model", response.get_json())
    assert response.get_json() == json.loads(row["openai"]["body"])


def test_missing_model() -> None:
    row = next(row for row in RECORDINGS if row["name"] == "models/model-missing")
    response = Client(OpenAICompat(replay(row, 0))).get("/v1/models/nothing-here")
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"
