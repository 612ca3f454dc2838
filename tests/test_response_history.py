"""Whatever a response says can be sent back as input: clients keep its items as they came, or almost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import calls_of, check_events, check_response, said

hypothesis = pytest.importorskip("hypothesis", reason="the package hypothesis is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.test_history import ARGUMENTS, REASON, TEXT, streaming  # noqa: E402

pytestmark = pytest.mark.slow
PROFILE = settings(max_examples=8, deadline=None, derandomize=True, database=None)

QUESTION = {"role": "user", "content": "Hi"}
TOOLS = [
    {"type": "function", "name": "f"},
    {"type": "custom", "name": "c"},
    {"type": "namespace", "name": "n", "description": "", "tools": [{"type": "function", "name": "g"}]},
]
NAMES = st.sampled_from(["f", "c", "n.g", "g"])
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": NAMES, "arguments": ARGUMENTS})},
    optional={"id": st.sampled_from(["", "call_1", "a b"])},
)
MESSAGE = st.builds(say, TEXT, thinking=TEXT, tool_calls=st.lists(CALL, max_size=2) | st.none())
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "with tools": {"tools": TOOLS},
    "with one call": {"tools": TOOLS, "parallel_tool_calls": False},
    "as JSON": {"text": {"format": {"type": "json_object"}}},
    "without tokens": {"max_output_tokens": 0},
}


def ask(items: list[Any], *steps: Any, stream: bool = False, **fields: Any) -> tuple[dict[str, Any], FakeOllama]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    # As ASCII: a client in another language sends lone surrogates as escapes.
    body = json.dumps({"model": "demo", "input": items, "stream": stream, **fields})
    response = Client(OpenAICompat(fake)).post("/v1/responses", data=body, content_type="application/json")
    assert response.status_code == 200, response.data
    return (check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())), fake


def forms(response: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """What clients make of the items of a response before they send them back, and the results of its calls."""
    output = response["output"]
    results = [
        {"type": f"{call['type']}_output", "call_id": call["call_id"], "output": "1"} for call in calls_of(response)
    ]
    yield [*output, *results]
    yield [{"phase": None, "namespace": None, "encrypted_content": None, **item} for item in output] + results
    yield [{key: value for key, value in item.items() if key not in ("id", "status")} for item in output] + results
    parsed = [
        {**item, "parsed_arguments": {"a": 1}, "content": [{**part, "parsed": {}} for part in item.get("content", ())]}
        for item in output
    ]
    yield [*parsed, *results]
    yield [item for item in output if item["type"] != "reasoning"] + results
    paired = []
    for item in output:  # each result after its call
        paired.append(item)
        paired += [result for result in results if result["call_id"] == item.get("call_id")]
    yield paired


def check_history(response: dict[str, Any], **fields: Any) -> None:
    """Every form is taken, and becomes messages with all that was said, each result after the message of its call."""
    tools = {"tools": fields["tools"]} if "tools" in fields else {}
    for number, history in enumerate(forms(response)):
        _, fake = ask([QUESTION, *history, QUESTION], say("ok"), done(), **tools)
        first, *sent, last = fake.requests[-1].json["messages"]
        assert (first, last) == (QUESTION, QUESTION)
        texts = [part["text"] for item in history for part in item.get("content") or () if item["type"] == "message"]
        thoughts = [item["summary"][0]["text"] for item in history if item["type"] == "reasoning"]
        assert_same_text([message["content"] for message in sent if message["role"] == "assistant"], texts)
        assert_same_text([message.get("thinking", "") for message in sent], thoughts)
        seen: list[str] = []
        for before, message in zip([first, *sent], sent, strict=False):
            assert message["role"] in ("assistant", "tool")
            assert isinstance(message["content"], str)
            for call in message.get("tool_calls", ()):
                assert isinstance(call["function"]["arguments"], dict)
                assert call["function"]["name"] in ("f", "c", "n.g", "g")
                seen.append(call["id"])
            if message["role"] == "tool":
                assert before["role"] == "tool" or before.get("tool_calls"), (number, sent)
                assert message["tool_call_id"] in seen
        assert sorted(seen) == sorted(call["call_id"] for call in calls_of(response))


def assert_same_text(found: list[str], expected: list[str]) -> None:
    """Nothing is lost, and the order stays; pieces may have been put together with a new line between."""
    assert "".join(found).replace("\n", "") == "".join(expected).replace("\n", "")


@streaming
@pytest.mark.parametrize("name", ASKED)
@PROFILE
@given(messages=st.lists(MESSAGE, min_size=1, max_size=4), reason=REASON)
def test_what_a_response_said_comes_back(name: str, stream: bool, messages: list[Any], reason: str) -> None:
    fields = ASKED[name]
    response, _ = ask([QUESTION], *messages, done(reason), stream=stream, **fields)
    check_history(response, **fields)


@streaming
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}, {"type": "custom", "name": "c"}])
@PROFILE
@given(arguments=ARGUMENTS, cut=st.integers(0, 60), data=st.data())
def test_a_forced_call_comes_back_whole_and_cut(
    choice: Any, stream: bool, arguments: dict[str, Any], cut: int, data: st.DataObject
) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice}
    name = "f" if choice == "required" else choice["name"]
    written = json.dumps({"name": name, "parameters": {"input": "a\n\u00e9\U0001f99c", **arguments}}, ensure_ascii=True)
    pieces = data.draw(st.lists(st.integers(0, len(written)), max_size=3))
    places = sorted({0, *pieces, len(written)})
    steps = [say(written[a:b]) for a, b in zip(places, places[1:], strict=False)]
    response, _ = ask([QUESTION], *steps, done("stop"), stream=stream, **fields)
    check_history(response, **fields)
    response, _ = ask([QUESTION], say(written[:cut]), done("length"), stream=stream, **fields)
    check_history(response, **fields)


@PROFILE
@given(messages=st.lists(MESSAGE, min_size=1, max_size=4), reason=REASON)
def test_streamed_and_whole_say_the_same(messages: list[Any], reason: str) -> None:
    streamed, _ = ask([QUESTION], *messages, done(reason), stream=True, tools=TOOLS)
    whole, _ = ask([QUESTION], *messages, done(reason), tools=TOOLS)
    assert said(streamed) == said(whole)
    assert streamed["usage"] == whole["usage"]
