"""The request of emulated tools: what the model is told, and a history that is text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw

from openai_compat.native import types as native
from openai_compat.structured.emulation import emulated_request, has_calls, written_history
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.wire import json as wire

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str = "weather", parameters: Any = PARAMETERS) -> native.Tool:
    schema = UNSET if parameters is None else Raw(json.dumps(parameters).encode())
    return native.Tool(native.ToolFunction(name, f"Tells the {name}", schema))


def request(*tools: native.Tool, messages: list[native.Message] | None = None, **fields: Any) -> native.ChatRequest:
    messages = messages or [native.Message("user", "Hi")]
    return native.ChatRequest("m", messages, fields.pop("options", {}), tools=list(tools), **fields)


def schema_of(sent: native.ChatRequest) -> Any:
    assert isinstance(sent.format, Raw)
    return json.loads(bytes(sent.format))


def call(name: str = "weather", id: str | None = None, **arguments: Any) -> native.ToolCall:
    return native.ToolCall(native.ToolCallFunction(name, Raw(json.dumps(arguments).encode())), id or UNSET)


# -- the request ------------------------------------------------------------------------------


def test_the_model_is_told_of_the_tools() -> None:
    given = request(
        tool(), tool("clock", None), messages=[native.Message("system", "Be brief."), native.Message("user")]
    )
    before = wire.encode(given)
    sent = emulated_request(given, {})
    assert wire.encode(given) == before
    first, second = sent.messages
    assert first.content.startswith("Be brief.\n\n")
    for text in ("Tells the weather", '"city"', "Tells the clock", '{"calls": [', '{"answer": "'):
        assert text in first.content
    assert second.role == "user"
    assert sent.tools is UNSET


def test_what_does_not_go_with_the_format_is_left_out() -> None:
    options = {"stop": ["a"], "seed": 1}
    sent = emulated_request(request(tool(), options=options, think=True, logprobs=True, top_logprobs=2), {})
    assert (sent.options, sent.think) == ({"seed": 1}, False)
    assert (sent.logprobs, sent.top_logprobs) == (UNSET, UNSET)
    assert options == {"stop": ["a"], "seed": 1}


def test_the_format_admits_calls_or_an_answer() -> None:
    item = {
        "type": "object",
        "properties": {"name": {"const": "weather"}, "parameters": PARAMETERS},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
    calls, answer = schema_of(emulated_request(request(tool()), {}))["anyOf"]
    assert calls["properties"]["calls"] == {"type": "array", "items": item, "minItems": 1, "maxItems": 16}
    assert (calls["required"], calls["additionalProperties"]) == (["calls"], False)
    assert answer["properties"] == {"answer": {"type": "string"}}
    two = schema_of(emulated_request(request(tool(), tool("clock")), {}, is_single=True))["anyOf"][0]
    assert two["properties"]["calls"]["maxItems"] == 1
    names = [alternative["properties"]["name"]["const"] for alternative in two["properties"]["calls"]["items"]["anyOf"]]
    assert names == ["weather", "clock"]


@pytest.mark.parametrize("parameters", [None, {}, {"type": "string"}])
def test_parameters_that_are_no_object_are_one(parameters: Any) -> None:
    calls = schema_of(emulated_request(request(tool(parameters=parameters)), {}))["anyOf"][0]
    assert calls["properties"]["calls"]["items"]["properties"]["parameters"] == {"type": "object"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'"json"', {"type": "object"}),
        (
            b'{"type":"object","properties":{"a":{"type":"integer"}}}',
            {"type": "object", "properties": {"a": {"type": "integer"}}},
        ),
        (b'{"type":"array","items":{"type":"integer"}}', {"type": "array", "items": {"type": "integer"}}),
        (b'{"$schema":"x","type":"string"}', {"type": "string"}),
    ],
)
def test_an_answer_may_be_the_client_s_format(answer: bytes, expected: Any) -> None:
    sent = emulated_request(request(tool()), {}, answer=answer)
    assert schema_of(sent)["anyOf"][1]["properties"]["answer"] == expected
    assert '{"answer": {' in sent.messages[0].content


def test_definitions_have_names_of_their_own() -> None:
    tree = {"$defs": {"A": {"type": "integer"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    schema = schema_of(emulated_request(request(tool(parameters=tree)), {}, answer=json.dumps(tree).encode()))
    calls, answer = schema["anyOf"]
    of_call = calls["properties"]["calls"]["items"]["properties"]["parameters"]["properties"]["a"]["$ref"]
    of_answer = answer["properties"]["answer"]["properties"]["a"]["$ref"]
    assert of_call != of_answer
    for reference in (of_call, of_answer):
        assert schema["$defs"][reference.removeprefix("#/$defs/")] == {"type": "integer"}


@pytest.mark.parametrize("is_named", [False, True])
def test_a_forced_call_has_no_answer(is_named: bool) -> None:
    forced = ForcedChoice(frozenset(["weather"]), is_named=is_named)
    sent = emulated_request(request(tool()), {}, answer=b'"json"', forced=forced)
    schema = schema_of(sent)
    assert set(schema["properties"]) == {"calls"}
    assert (schema["properties"]["calls"]["maxItems"] == 1) is is_named
    assert "answer" not in sent.messages[0].content.split("To call a function")[1].replace("answer with this JSON", "")


# -- the history ------------------------------------------------------------------------------


def test_calls_and_results_are_text() -> None:
    messages = [
        native.Message("user", "How cold?"),
        native.Message("assistant", "Let me see.", thinking="hm", tool_calls=[call(id="1", city="Oslo")]),
        native.Message("tool", "5 degrees", tool_call_id="1", images=["aGk="]),
        native.Message("assistant", "5."),
    ]
    _, made, result, said = written_history(messages)
    text, _, written = made.content.partition("\n\n")
    assert (text, made.thinking, made.tool_calls) == ("Let me see.", "hm", UNSET)
    assert json.loads(written) == {"calls": [{"name": "weather", "parameters": {"city": "Oslo"}}]}
    assert result == native.Message("user", "Result of weather:\n5 degrees", images=["aGk="])
    assert said is messages[3]
    assert has_calls(messages)
    assert not has_calls(written_history(messages))


@pytest.mark.parametrize(("fields", "title"), [({"tool_name": "clock"}, "Result of clock:"), ({}, "Result:")])
def test_a_result_is_named_as_far_as_it_is_known(fields: dict[str, Any], title: str) -> None:
    [sent] = written_history([native.Message("tool", "5", **fields)])
    assert sent == native.Message("user", f"{title}\n5")


def test_neighbours_of_what_became_text_are_one_message() -> None:
    messages = [
        native.Message("user", "a"),
        native.Message("user", "b"),
        native.Message("assistant", "c", thinking="t"),
        native.Message("assistant", tool_calls=[call(), call("clock")], thinking="u"),
        native.Message("tool", "1", tool_name="weather", images=["x"]),
        native.Message("tool", "2", tool_name="clock", images=["y"]),
        native.Message("user", "d"),
        native.Message("user", "e"),
        native.Message("system", "f"),
    ]
    first, second, made, results, system = written_history(messages)
    assert (first, second, system) == (messages[0], messages[1], messages[-1])  # as the client wrote them
    assert made.content.startswith('c\n\n{"calls":')
    assert made.thinking == "t\nu"
    assert results.content == "Result of weather:\n1\n\nResult of clock:\n2\n\nd\n\ne"
    assert results.images == ["x", "y"]


def test_without_calls_nothing_changes() -> None:
    messages = [native.Message("user", "a"), native.Message("user", "b"), native.Message("assistant", "c")]
    assert written_history(messages) == messages
