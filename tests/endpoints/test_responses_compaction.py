"""Compaction: a conversation is made short, by a request of its own or by the last item of an input."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.sealed_text import seal
from tests.contract import check, check_events, check_response, named_frames, said
from tests.endpoints.requests import RESPONSES, Endpoint

COMPACT = Endpoint("/v1/responses/compact", "/api/chat", {"model": "demo", "input": "Hello"}, done())
TRIGGER = {"type": "compaction_trigger"}
TOOL = {"type": "function", "name": "f"}
STRICT = {"strict": True, "schema": {"type": "object"}}
CALL = {"function": {"name": "f", "arguments": {}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def last_line(**message: Any) -> dict[str, Any]:
    """A final line that also says something."""
    return {**done(), "message": {"role": "assistant", "content": "", **message}}


# -- a trigger in the input -------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [done()],
        [last_line(content=" \n")],
        [last_line(thinking="Hm.")],
        [last_line(tool_calls=[CALL])],
        [say(thinking="Hm."), done()],
    ],
    ids=["empty", "blanks", "thinking", "a call", "thinking before"],
)
def test_a_stream_without_a_summary_has_its_first_events(steps: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = RESPONSES.post(fake, stream=True, input=[user("1"), TRIGGER])
    events = check_events(response.data)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert events[2]["code"] == "compaction_failed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_summary_that_is_cut_is_an_incomplete_response(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("They"), done("length"))
    response = RESPONSES.post(fake, stream=stream, input=[user("1"), TRIGGER])
    found = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    assert (found["status"], found["output"]) == ("incomplete", [])


#: fields of a request with a trigger → what is listed as ignored
SWITCHED_OFF: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "fields that ask for nothing": (
        {
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "text": {"format": {"type": "text"}},
            "format": "",
            "top_logprobs": 0,
            "include": [],
            "reasoning": {"effort": "low"},
        },
        set(),
    ),
    "tools": ({"tools": [TOOL]}, {"tools"}),
    "no call": ({"tools": [TOOL], "tool_choice": "none"}, {"tools"}),
    "OpenAI's own tools": ({"tools": [{"type": "web_search"}]}, {"tools", "tools[].web_search"}),
    "a required call": ({"tools": [TOOL], "tool_choice": "required"}, {"tools", "tool_choice"}),
    "a named call": ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, {"tools", "tool_choice"}),
    "one call": ({"tools": [TOOL], "parallel_tool_calls": False}, {"tools", "parallel_tool_calls"}),
    "JSON": ({"text": {"format": {"type": "json_object"}}}, {"text.format"}),
    "a strict schema": ({"text": {"format": {"type": "json_schema", "name": "n", **STRICT}}}, {"text.format"}),
    "a native format": ({"format": "json"}, {"format"}),
    "both formats": ({"format": "json", "text": {"format": {"type": "json_object"}}}, {"format", "text.format"}),
    "log-probabilities": ({"top_logprobs": 3}, {"top_logprobs"}),
    "included": (
        {"include": ["message.output_text.logprobs", "reasoning.encrypted_content", "x"]},
        {"include.message.output_text.logprobs", "include.reasoning.encrypted_content", "include.x"},
    ),
    "a summary of the reasoning": ({"reasoning": {"summary": "auto"}}, {"reasoning.summary"}),
}


@pytest.mark.parametrize("name", SWITCHED_OFF)
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_summary_has_not_is_listed(name: str, stream: bool) -> None:
    fields, listed = SWITCHED_OFF[name]
    fake = FakeOllama()
    fake.script("/api/chat", say("They greeted."), done())
    response = RESPONSES.post(fake, stream=stream, input=[user("1"), TRIGGER], **fields)
    found = list(named_frames(response.data))[-1]["response"] if stream else response.get_json()
    check("Response", found)
    assert [item["type"] for item in found["output"]] == ["compaction"]
    assert set(filter(None, response.headers.get("openai-compat-ignored", "").split(", "))) == listed
    sent = fake.requests[0].json
    assert sent.keys() & {"tools", "format", "logprobs", "top_logprobs"} == set()
    assert [message["role"] for message in sent["messages"]] == ["user", "user"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "foo"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.schema"),
        ({"format": 5}, "format"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"input": [TRIGGER]}, "input"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_valid_is_refused_beside_a_trigger(fields: dict[str, Any], param: str, stream: bool) -> None:
    error = RESPONSES.refused(**{"stream": stream, "input": [user("1"), TRIGGER], **fields})
    assert error["param"] == param


def test_keys_of_a_trigger_are_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("They greeted."), done())
    response = RESPONSES.post(fake, input=[user("1"), {**TRIGGER, "depth": 1}])
    assert response.headers["openai-compat-ignored"] == "input[].depth"


@pytest.mark.parametrize("last", [user("compaction_trigger"), {"type": "other", "of": "compaction_trigger"}])
def test_what_only_looks_like_a_trigger_is_none(last: dict[str, Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("Hello"), done())
    assert said(RESPONSES.post(fake, input=[user("1"), last]).get_json()) == [("text", "Hello", [], "completed")]


# -- an item in the input ---------------------------------------------------------------------


def answered(*items: Any) -> tuple[set[str], list[tuple[str, str]]]:
    """What is listed as ignored, and role and text of the native messages."""
    fake = FakeOllama()
    response = RESPONSES.post(fake, input=list(items))
    assert response.status_code == 200, response.data
    listed = set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))
    return listed, [(message["role"], message["content"]) for message in fake.requests[0].json["messages"]]


def test_an_item_replaces_what_precedes_it_in_an_input() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("They counted."), done())
    given = [user("1"), {"role": "assistant", "content": "One"}]
    made = RESPONSES.post(fake, input=[*given, TRIGGER]).get_json()["output"]
    summary = ("user", "Summary of the conversation so far:\n\nThey counted.")
    assert answered(*given, *made, user("2")) == (set(), [("user", "1"), summary, ("user", "2")])
    assert answered(*made, user("2")) == (set(), [summary, ("user", "2")])


def test_an_item_of_another_server_replaces_nothing_and_is_listed() -> None:
    foreign = {"type": "compaction", "encrypted_content": "gAAAAB"}
    messages = [("user", "1"), ("assistant", "One"), ("user", "2")]
    given = [user("1"), {"role": "assistant", "content": "One"}, foreign, user("2")]
    assert answered(*given) == ({"input[].compaction"}, messages)


def test_an_error_has_the_place_of_its_item_after_a_compaction() -> None:
    own = {"type": "compaction", "encrypted_content": seal("So far.", "compaction")}
    given = [user("1"), {"role": "assistant", "content": "One"}, own, {"role": "user", "content": [{"type": "x"}]}]
    assert RESPONSES.refused(input=given)["param"] == "input[3].content[0]"


# -- a request to compact ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps", [[say("They"), done("length")], [last_line(content="They") | {"done_reason": "length"}]]
)
def test_a_part_of_a_summary_replaces_nothing(steps: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = COMPACT.post(fake)
    error = response.get_json()["error"]
    check("ErrorResponse", response.get_json())
    assert (response.status_code, error["code"]) == (502, "compaction_failed")
    assert response.headers["x-should-retry"] == "false"
    assert fake.opened == fake.closed == 1


def test_a_summary_has_no_summary_of_its_reasoning() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(thinking="Hm."), say("They greeted."), done())
    response = COMPACT.post(fake, reasoning={"effort": "low", "summary": "auto"})
    assert response.headers["openai-compat-ignored"] == "reasoning.summary"


def test_tools_of_the_input_are_not_those_of_a_summary() -> None:
    call = {"type": "tool_search_call", "call_id": "1", "execution": "client", "arguments": {}}
    result = {"type": "tool_search_output", "call_id": "1", "execution": "client", "tools": [TOOL]}
    for endpoint, given in ((COMPACT, [user("1"), call, result]), (RESPONSES, [user("1"), call, result, TRIGGER])):
        fake = FakeOllama()
        fake.script("/api/chat", say("A summary."), done())
        assert endpoint.post(fake, input=given).status_code == 200
        assert "tools" not in fake.requests[0].json
