"""Chats that must call a tool, may call one only, or say it in the old form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream, frames
from tests.endpoints.requests import MESSAGES, answered, ignored, post, refused, sent, streamed

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": CITY}}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
NAMED_FUNCTION = {"function": {"name": "weather"}}
NAMED = {"type": "function", **NAMED_FUNCTION}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def single_tool_call(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


# -- the request ------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [NAMED, allowed("required", "weather")])
def test_only_the_tool_that_is_allowed_goes_up(choice: Any) -> None:
    found = sent(*CALLED, tools=TOOLS, tool_choice=choice)
    assert found["tools"] == [WEATHER]
    assert found["format"] == {"anyOf": [single_tool_call("weather", CITY)]}
    assert list(found["format"]["anyOf"][0]["properties"]) == ["name", "parameters"]
    assert found["think"] is False


def test_required_admits_every_tool() -> None:
    found = sent(*CALLED, tools=TOOLS, tool_choice="required")
    assert found["tools"] == TOOLS
    assert found["format"] == {
        "anyOf": [single_tool_call("weather", CITY), single_tool_call("time", {"type": "object"})]
    }


def test_of_allowed_tools_the_model_may_choose_none() -> None:
    found = sent(tools=TOOLS, tool_choice=allowed("auto", "time"))
    assert found["tools"] == [TIME]
    assert "format" not in found
    assert "think" not in found
    assert found["messages"] == MESSAGES


def test_a_word_may_be_the_type_of_an_object() -> None:
    assert "tools" not in sent(tools=TOOLS, tool_choice={"type": "none"})
    assert sent(tools=TOOLS, tool_choice={"type": "auto"})["tools"] == TOOLS
    assert "format" in sent(*CALLED, tools=TOOLS, tool_choice={"type": "required"})


def test_a_call_after_none_is_dropped_whichever_way_it_was_written() -> None:
    for choice in ("none", {"type": "none"}):
        [found] = answered(*CALLED, tools=TOOLS, tool_choice=choice)["choices"]
        assert "tool_calls" not in found["message"]


def test_an_empty_type_of_an_allowed_tool_is_none() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{**TIME, "type": ""}]}}
    assert sent(tools=TOOLS, tool_choice=choice)["tools"] == [TIME]


def test_what_a_choice_does_not_use_is_listed() -> None:
    fields = {"tools": TOOLS, "model": "demo-tools"}
    given = {**allowed("auto", "time"), "function": {"name": "weather"}}
    assert ignored(tool_choice=given, **fields) == {"tool_choice.function"}
    assert ignored(tool_choice={"type": "auto", **NAMED_FUNCTION}, **fields) == {"tool_choice.function"}
    assert ignored(tool_choice={"type": "auto", "function": {}, "allowed_tools": {}}, **fields) == set()


def test_the_model_is_told() -> None:
    found = sent(*CALLED, tools=TOOLS, tool_choice=NAMED)
    assert [message["role"] for message in found["messages"]] == ["system", "user"]
    assert '"weather"' in found["messages"][0]["content"]
    given = [{"role": "developer", "content": "Be brief."}, *MESSAGES]
    found = sent(*CALLED, tools=TOOLS, tool_choice="required", messages=given)
    assert [message["role"] for message in found["messages"]] == ["system", "user"]
    assert found["messages"][0]["content"].startswith("Be brief.\n\nYou must call one of the functions")


def test_what_a_forced_call_overrides_is_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *CALLED)
    overridden = {"reasoning_effort": "high", "response_format": {"type": "json_object"}, "logprobs": True}
    response = post(fake, tools=TOOLS, tool_choice=NAMED, **overridden)
    assert response.headers["openai-compat-ignored"] == "logprobs, reasoning_effort, response_format"
    assert fake.requests[0].json["think"] is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "any", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": TOOLS}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}, "tools": TOOLS}, "tool_choice.custom.name"),
        ({"tool_choice": {"type": "custom"}, "tools": TOOLS}, "tool_choice.custom.name"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": TOOLS}, "tool_choice.name"),
        ({"tool_choice": {"function": {"name": "x"}}, "tools": TOOLS}, "tool_choice.type"),
        ({"tool_choice": 1, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": allowed("auto", "x"), "tools": TOOLS}, "tool_choice.allowed_tools.tools[0].function.name"),
        ({"tool_choice": allowed("auto"), "tools": TOOLS}, "tool_choice.allowed_tools.tools"),
        ({"tool_choice": allowed("maybe", "time"), "tools": TOOLS}, "tool_choice.allowed_tools.mode"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "tool_choice.allowed_tools"),
        ({"tool_choice": {"type": "any"}, "tools": TOOLS}, "tool_choice.type"),
        ({"tool_choice": {"type": "", "function": {"name": "time"}}, "tools": TOOLS}, "tool_choice.type"),
        ({"tool_choice": allowed("", "time"), "tools": TOOLS}, "tool_choice.allowed_tools.mode"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}, "tools": TOOLS},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
                },
                "tools": TOOLS,
            },
            "tool_choice.allowed_tools.tools[0].type",
        ),
        ({"tool_choice": NAMED, "functions": [{"name": "f"}]}, "tool_choice"),
        ({"function_call": {"name": "x"}, "functions": [{"name": "f"}]}, "function_call.function.name"),
        ({"function_call": "required", "functions": [{"name": "f"}]}, "function_call"),
    ],
)
def test_a_choice_that_is_none_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields)["param"] == param


# -- the answer -------------------------------------------------------------------------------

CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TEXT = '{"name": "weather", "parameters": {"city": "Oslo"}}'
CALLED = (say(TEXT), done())


def text(content: str, size: int = 3) -> list[dict[str, Any]]:
    return [say(content[i : i + size]) for i in range(0, len(content), size)]


WAYS = {
    "text": [*text(TEXT), done()],
    "text at once": [say(TEXT), done()],
    "text on the last line": [{**done(), "message": {"role": "assistant", "content": TEXT}}],
    "characters": [*text(TEXT, 1), done()],
    "arguments": [*text('{"name":"weather","arguments":{"city":"Oslo"}}'), done()],
    "another order": [*text('{"parameters": {"city": "Oslo"}, "name": "weather"}'), done()],
    "fenced": [*text(f"```json\n{TEXT}\n```"), done()],
    "after thinking": [*text(f"<think>hm</think>{TEXT}"), done()],
    "native": [say(tool_calls=[CALL]), done()],
    "native on the last line": [{**done(), "message": {"role": "assistant", "content": "", "tool_calls": [CALL]}}],
    "native after text": [say("I will."), say(tool_calls=[CALL]), done()],
    "both": [*text(TEXT), say(tool_calls=[CALL]), done()],
}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": TOOLS, "tool_choice": NAMED}, "stop"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_calls"),
        ({"tools": TOOLS, "tool_choice": allowed("required", "weather")}, "tool_calls"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_call_is_taken_whichever_way_it_is_written(way: str, fields: dict[str, Any], reason: str) -> None:
    [choice] = answered(*WAYS[way], **fields)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, reason)
    [call] = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    assert added_up(streamed(*WAYS[way], **fields)) == [("weather", {"city": "Oslo"}, reason)]


def added_up(chunks: list[dict[str, Any]]) -> list[tuple[str, Any, str]]:
    """The calls of a stream as OpenAI's clients add them up; and its reason."""
    found: list[dict[str, Any]] = []
    for delta in [choice["delta"] for chunk in chunks for choice in chunk["choices"]]:
        assert not delta.get("content")
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(found):
                found.append({"name": call["function"]["name"], "arguments": ""})
                assert call["id"].startswith("call_")
                assert call["type"] == "function"
            else:
                assert "id" not in call
                assert "name" not in call["function"]
            found[call["index"]]["arguments"] += call["function"]["arguments"]
    [reason] = {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]} - {None}
    return [(call["name"], json.loads(call["arguments"]), reason) for call in found]


def test_arguments_are_streamed_as_they_come() -> None:
    chunks = streamed(*text(TEXT, 4), done(), tools=TOOLS, tool_choice=NAMED)
    parts = [
        call["function"]["arguments"]
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert parts[0] == ""
    assert len(parts) > 4
    assert "".join(parts) == '{"city": "Oslo"}'


@pytest.mark.parametrize(
    "steps",
    [
        [say("It rains."), done()],
        [say(""), done()],
        [say('{"name": "nobody", "parameters": {}}'), done()],
        [say('{"name": "time", "parameters": {}}'), done()],
        [say('{"name": "weather"}'), done()],
        [say('{"name": "weather", "parameters": "Oslo"}'), done()],
        [say('{"name": "weather", "parameters": {"city": "Oslo"}'), done()],
        [say('{"name": "weather", "parameters": {"city": "Oslo"'), done()],
        [say('{"name": "weather", "parameters": {"city": }}'), done()],
        [say('{"name": "weather", "parameters": {"city": "Oslo"}} and more'), done()],
        [say('{"name": "weather", "parameters": {"city": "Oslo"}, "x": 1}'), done()],
        [say('{"name": "\\ud800", "parameters": {}}'), done()],
        [say("[1]"), done()],
        [say('"weather"'), done()],
        [say(tool_calls=[{"function": {"name": "time", "arguments": {}}}]), done()],
        [say("x" * 1_100_000), done()],
    ],
)
def test_what_is_no_call_is_an_error_never_text(steps: list[Any]) -> None:
    for stream in (False, True):
        fake = FakeOllama()
        fake.script("/api/chat", *steps)
        response = post(fake, tools=TOOLS, tool_choice=NAMED, stream=stream)
        if stream and response.status_code == 200:  # what the first message shows to be wrong has a status
            *chunks, last = frames(response.data)
            assert not any(choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"])
            assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
        else:
            assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
            last = response.get_json()
        check("ErrorResponse", last)
        assert (last["error"]["code"], last["error"]["type"]) == ("tool_choice_failed", "server_error")
        response.close()
        assert fake.opened == fake.closed


@pytest.mark.parametrize(
    ("cut_off", "calls"),
    [
        ('{"name": "weather", "parameters": {"city": "Os', [("weather", '{"city": "Os')]),
        ('{"name": "weather", "parameters": {', [("weather", "{")]),
        ('{"name": "wea', []),
        ("", []),
    ],
)
def test_a_call_that_is_cut_off_says_so(cut_off: str, calls: list[Any]) -> None:
    [choice] = answered(say(cut_off), done("length"), tools=TOOLS, tool_choice=NAMED)["choices"]
    found = [
        (call["function"]["name"], call["function"]["arguments"]) for call in choice["message"].get("tool_calls", ())
    ]
    assert (found, choice["finish_reason"]) == (calls, "length")
    assert choice["message"]["content"] == (None if calls else "")


def test_where_nothing_is_asked_for_no_call_is() -> None:
    completion = answered(say("{"), done("length", prompt=9), tools=TOOLS, tool_choice=NAMED, max_tokens=0)
    [choice] = completion["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert (completion["usage"]["prompt_tokens"], completion["usage"]["completion_tokens"]) == (9, 0)


def test_several_native_calls_may_come_where_one_is_required() -> None:
    calls = [CALL, {"function": {"name": "time", "arguments": {}}}]
    steps = [say(tool_calls=[call]) for call in calls]
    [choice] = answered(*steps, done(), tools=TOOLS, tool_choice="required")["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather", "time"]
    [choice] = answered(*steps, done(), tools=TOOLS, tool_choice="required", parallel_tool_calls=False)["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]


# -- one call only ----------------------------------------------------------------------------

TWO = [
    say(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]),
    say(tool_calls=[{"function": {"name": "time", "arguments": {}}}]),
]


@pytest.mark.parametrize("steps", [[*TWO, done()], [say(tool_calls=TWO[0]["message"]["tool_calls"] * 3), done()]])
def test_only_the_first_call_is_passed_on(steps: list[Any]) -> None:
    completion = answered(*steps, tools=TOOLS, parallel_tool_calls=False)
    [choice] = completion["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
    assert choice["finish_reason"] == "tool_calls"
    assert completion["usage"]["prompt_tokens"] == 1
    chunks = streamed(*steps, tools=TOOLS, parallel_tool_calls=False)
    assert added_up(chunks) == [("weather", {"city": "Oslo"}, "tool_calls")]


def test_the_native_side_is_left_after_the_first_call_where_nobody_waits_for_its_usage() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *TWO, AssertionError("it was read on"), done())
    response = post(fake, tools=TOOLS, parallel_tool_calls=False, stream=True)
    assert added_up(check_stream(response.data)) == [("weather", {"city": "Oslo"}, "tool_calls")]
    response.close()
    assert fake.closed == 1


def test_usage_is_waited_for() -> None:
    options = {"stream_options": {"include_usage": True}}
    chunks = streamed(*TWO, done(prompt=7), tools=TOOLS, parallel_tool_calls=False, **options)
    assert added_up(chunks) == [("weather", {"city": "Oslo"}, "tool_calls")]
    assert chunks[-1]["usage"]["prompt_tokens"] == 7


def test_text_before_the_call_is_passed_on() -> None:
    chunks = streamed(say("Let me see."), *TWO, tools=TOOLS, parallel_tool_calls=False)
    assert "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]) == "Let me see."


@pytest.mark.parametrize("fields", [{}, {"tool_choice": "required"}], ids=["native", "forced"])
def test_ids_are_unique_over_a_conversation(fields: dict[str, Any]) -> None:
    calls = [{"id": "f:0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "f:0", "content": "r"},
    ]
    again = say(tool_calls=[{**CALL, "id": "f:0"}, {**CALL, "id": "f:1"}])
    [made] = answered(again, done(), tools=TOOLS, messages=history, **fields)["choices"]
    first, second = (call["id"] for call in made["message"]["tool_calls"])
    assert first.startswith("call_")
    assert second == "f:1"
    [made] = answered(again, done(), tools=TOOLS, **fields)["choices"]
    assert made["message"]["tool_calls"][0]["id"] == "f:0"


# -- the old form -----------------------------------------------------------------------------

FUNCTIONS = [WEATHER["function"], TIME["function"]]


def test_functions_become_tools() -> None:
    assert sent(functions=FUNCTIONS)["tools"] == TOOLS


@pytest.mark.parametrize(
    ("way", "fields", "reason"),
    [
        ("native", {}, "function_call"),
        ("native", {"function_call": {"name": "weather"}}, "stop"),
        ("text", {"function_call": {"name": "weather"}}, "stop"),
    ],
)
def test_calls_leave_in_the_old_form(way: str, fields: dict[str, Any], reason: str) -> None:
    [choice] = answered(*WAYS[way], functions=FUNCTIONS, **fields)["choices"]
    assert choice["finish_reason"] == reason
    call = choice["message"]["function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Oslo"})
    assert "tool_calls" not in choice["message"]
    chunks = streamed(*WAYS[way], functions=FUNCTIONS, **fields)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert [call["name"] for call in calls if "name" in call] == ["weather"]
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Oslo"}
    assert not any("tool_calls" in delta for delta in deltas)
    assert {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]} == {None, reason}


def test_the_old_form_has_one_call() -> None:
    [choice] = answered(*TWO, done(), functions=FUNCTIONS)["choices"]
    assert choice["message"]["function_call"]["name"] == "weather"


def test_what_the_model_says_instead_of_a_function_is_text() -> None:
    [choice] = answered(say("Hi"), done(), functions=FUNCTIONS)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "stop")


# -- calls that nobody wanted -----------------------------------------------------------------


@pytest.mark.parametrize("choice", ["none", allowed("auto", "time")])
def test_a_call_that_the_choice_does_not_allow_is_dropped(choice: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A template can find a call in a text, whatever tools went up."""
    steps = [say("So:"), NOT_ALLOWED, done()]
    [choice_] = answered(*steps, tools=TOOLS, tool_choice=choice)["choices"]
    assert (choice_["message"]["content"], choice_["finish_reason"]) == ("So:", "stop")
    assert "tool_calls" not in choice_["message"]
    assert "does not allow" in caplog.text
    [choice_] = answered(NOT_ALLOWED, done(), functions=FUNCTIONS, function_call="none")["choices"]
    assert "function_call" not in choice_["message"]


NOT_ALLOWED = say(tool_calls=[CALL])


def test_without_a_choice_every_call_is_passed_on() -> None:
    [choice] = answered(NOT_ALLOWED, done())["choices"]
    assert choice["finish_reason"] == "tool_calls"


def test_the_old_form_beside_tools_is_listed() -> None:
    fields = {"tools": TOOLS, "functions": FUNCTIONS, "function_call": "none", "model": "demo-tools"}
    assert ignored(**fields) == {"functions", "function_call"}
