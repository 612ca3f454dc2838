"""Whatever we answer can be sent back as history: clients keep the messages of a conversation as they came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say

hypothesis = pytest.importorskip("hypothesis", reason="the package hypothesis is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.slow
PROFILE = settings(max_examples=40, deadline=None, derandomize=True, database=None)

PATH = "/v1/chat/completions"
QUESTION = {"role": "user", "content": "Hi"}
FUNCTIONS = [{"name": name, "parameters": {"type": "object"}} for name in ("f", "get_weather")]
TOOLS = [{"type": "function", "function": function} for function in FUNCTIONS]
CUSTOM = [{"type": "custom", "custom": {"name": function["name"]}} for function in FUNCTIONS]

TEXT = st.text(max_size=8) | st.sampled_from(["\ud83d", "a\udc00b", "{", '{"a":', "```json\n{}", "<think>", "\u2028"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(TEXT, VALUES, max_size=3)
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.sampled_from(["f", "get_weather"]), "arguments": ARGUMENTS})},
    optional={"id": st.sampled_from(["", "call_1", "a b"])},
)
MESSAGE = st.builds(say, TEXT, thinking=TEXT, tool_calls=st.lists(CALL, max_size=2) | st.none())
REASON = st.sampled_from(["stop", "length"])
#: ways to ask, by which the answer has one form or another
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "with tools": {"tools": TOOLS},
    "with one call": {"tools": TOOLS, "parallel_tool_calls": False},
    "with functions": {"functions": FUNCTIONS},
    "with custom tools": {"tools": CUSTOM},
    "as JSON": {"response_format": {"type": "json_object"}},
    "without tokens": {"max_tokens": 0},
}
FORCED: dict[str, dict[str, Any]] = {
    "required": {"tools": TOOLS, "tool_choice": "required"},
    "named": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "named, as a function": {"functions": FUNCTIONS, "function_call": {"name": "f"}},
    "named, as a custom tool": {"tools": CUSTOM, "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
}
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def ask(messages: list[Any], *steps: Any, stream: bool = False, **fields: Any) -> tuple[dict[str, Any], FakeOllama]:
    """The assistant's message, merged from its chunks as clients merge them."""
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    body = {"model": "demo", "messages": messages, "stream": stream, **fields}
    # As ASCII: a client in another language sends lone surrogates as escapes.
    response = Client(OpenAICompat(fake)).post(PATH, data=json.dumps(body), content_type="application/json")
    assert response.status_code == 200, response.data
    if not stream:
        return response.get_json()["choices"][0]["message"], fake
    events = [line[6:] for line in response.data.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]", response.data
    message: dict[str, Any] = {}
    for event in events[:-1]:
        for choice in json.loads(event)["choices"]:
            merge(message, choice["delta"])
    return message, fake


def merge(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to a message, as openai-python's accumulator does."""
    for key, value in delta.items():
        if key == "tool_calls":
            calls = message.setdefault(key, [])
            for call in value:
                if call["index"] == len(calls):
                    calls.append({})
                merge(calls[call["index"]], call)
        elif isinstance(value, dict):
            merge(message.setdefault(key, {}), value)
        elif isinstance(value, str) and isinstance(message.get(key), str) and key not in ("role", "type", "id"):
            message[key] += value
        elif value is not None or key not in message:
            message[key] = value


def forms(message: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """What clients make of a message before they send it back, and the results of its calls."""
    calls = message.get("tool_calls") or []
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls]
    if message.get("function_call"):
        results = [{"role": "function", "name": message["function_call"]["name"], "content": "1"}]
    yield [message, *results]
    nulls = dict.fromkeys(("refusal", "audio", "function_call", "tool_calls", "name", "reasoning_details"))
    yield [{**nulls, **message}, *results]
    yield [{**message, "audio": {}, "annotations": [], "tool_calls": calls or ""}, *results]
    thinking = message.get("reasoning") or ""
    text = message.get("content") or ""
    parts = [{"type": "thinking", "thinking": thinking, "signature": "x"}, {"type": "text", "text": text}]
    rest = {key: value for key, value in message.items() if not key.startswith("reasoning")}
    yield [{**rest, "content": parts}, *results]
    parts = [{"type": "reasoning", "text": thinking}, {"type": "redacted_thinking", "data": "x"}]
    yield [{**rest, "content": [*parts, {"type": "output_text", "text": text}]}, *results]
    if calls:
        custom = [
            {"id": call["id"], "type": "custom", "custom": call.get("custom") or custom_of(call, text)}
            for call in calls
        ]
        yield [{**rest, "tool_calls": custom}, *results]
        flat = [{"id": call["id"], "type": call["type"], **call[call["type"]]} for call in calls]
        yield [{**rest, "tool_calls": flat}, *results]
        if "custom" in calls[0]:
            return
        decoded = [{**call, "function": {**call["function"], "arguments": decode(call)}} for call in calls]
        yield [{**rest, "tool_calls": decoded}, *results]


def custom_of(call: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": call["function"]["name"], "input": text}


def decode(call: dict[str, Any]) -> Any:
    try:
        return json.loads(call["function"]["arguments"])
    except ValueError:
        return call["function"]["arguments"]


def check_history(message: dict[str, Any], **fields: Any) -> None:
    """Every form of an answer is taken, and becomes what Ollama can decode."""
    tools = {key: value for key, value in fields.items() if key in ("tools", "functions")}
    for history in forms(message):
        _, fake = ask([QUESTION, *history, QUESTION], say("ok"), done(), **tools)
        sent = fake.requests[-1].json["messages"]
        assert [item["role"] for item in sent] == ["user", "assistant", *["tool"] * (len(history) - 1), "user"]
        for item in sent:
            assert isinstance(item["content"], str)
            for call in item.get("tool_calls", ()):
                assert isinstance(call["function"]["arguments"], dict)
                assert call["function"]["name"]


@streaming
@pytest.mark.parametrize("name", ASKED)
@PROFILE
@given(messages=st.lists(MESSAGE, min_size=1, max_size=4), reason=REASON)
def test_what_we_answered_comes_back(name: str, stream: bool, messages: list[Any], reason: str) -> None:
    fields = ASKED[name]
    message, _ = ask([QUESTION], *messages, done(reason), stream=stream, **fields)
    check_history(message, **fields)


@streaming
@pytest.mark.parametrize("name", FORCED)
@PROFILE
@given(arguments=ARGUMENTS, cut=st.integers(0, 60), data=st.data())
def test_a_forced_call_comes_back_whole_and_cut(
    name: str, stream: bool, arguments: dict[str, Any], cut: int, data: st.DataObject
) -> None:
    fields = FORCED[name]
    written = json.dumps({"name": "f", "parameters": arguments}, ensure_ascii=True)
    pieces = data.draw(st.lists(st.integers(0, len(written)), max_size=3))
    places = sorted({0, *pieces, len(written)})
    steps = [say(written[a:b]) for a, b in zip(places, places[1:], strict=False)]
    message, _ = ask([QUESTION], *steps, done("stop"), stream=stream, **fields)
    check_history(message, **fields)
    message, _ = ask([QUESTION], say(written[:cut]), done("length"), stream=stream, **fields)
    check_history(message, **fields)
