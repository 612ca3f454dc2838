"""What the models of the demo say: instances of schemas, calls, tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.testing.demo_text import instance, text_for, tokens_of, tool_calls, written

INSTANCES: dict[str, tuple[Any, Any]] = {
    "string": ({"type": "string"}, "demo"),
    "integer": ({"type": "integer"}, 1),
    "number": ({"type": "number"}, 1.5),
    "boolean": ({"type": "boolean"}, True),
    "null": ({"type": "null"}, None),
    "list of types": ({"type": ["integer", "null"]}, 1),
    "enum": ({"enum": ["red", "blue"]}, "red"),
    "const": ({"const": 7}, 7),
    "array": ({"type": "array", "items": {"type": "integer"}}, [1]),
    "minItems": ({"type": "array", "minItems": 2, "items": {"type": "boolean"}}, [True, True]),
    "object": ({"type": "object", "properties": {"a": {"type": "null"}}}, {"a": None}),
    "no type": ({"properties": {"a": {}}}, {"a": "demo"}),
    "no properties": ({"type": "object"}, {}),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    "oneOf": ({"oneOf": [{"const": 1}, {"const": 2}]}, 1),
    "allOf": ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"const": 3}}}, 3),
    "$ref": (
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}},
        {"a": 1},
    ),
    "$ref to nowhere": ({"$ref": "#/$defs/B"}, None),
    "boolean schema": (True, None),
}


@pytest.mark.parametrize(("schema", "value"), INSTANCES.values(), ids=INSTANCES)
def test_a_schema_has_an_instance(schema: Any, value: Any) -> None:
    assert instance(schema) == value


def test_the_instance_of_a_recursive_schema_ends() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}}
    assert "null" in json.dumps(instance(schema))


def test_a_schema_of_itself_has_a_small_instance() -> None:
    node = {"type": "object", "properties": {name: {"$ref": "#/$defs/Node"} for name in "abcdefghij"}}
    found = instance({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert found == dict.fromkeys("abcdefghij")


def test_an_array_of_many_is_small() -> None:
    assert len(instance({"type": "array", "items": {"type": "integer"}, "minItems": 10**9})) <= 16


def test_a_schema_of_references_to_references_is_small() -> None:
    defs = {
        f"N{i}": {"type": "object", "properties": {key: {"$ref": f"#/$defs/N{i + 1}"} for key in "ab"}}
        for i in range(24)
    }
    assert instance({"$ref": "#/$defs/N0", "$defs": defs})


def test_an_instance_has_a_thousand_values_at_most() -> None:
    found = instance({"properties": {str(i): {"type": "integer"} for i in range(2000)}})
    assert list(found.values()).count(1) == 999  # one is the object itself


def test_an_instance_has_64_levels_at_most() -> None:
    def chain(length: int) -> Any:
        defs: dict[str, Any] = {f"N{i}": {"$ref": f"#/$defs/N{i + 1}"} for i in range(length)}
        return {"$ref": "#/$defs/N0", "$defs": {**defs, f"N{length}": {"type": "integer"}}}

    assert instance(chain(63)) == 1
    assert instance(chain(64)) is None


def test_nested_arrays_do_not_multiply() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(30):
        schema = {"type": "array", "minItems": 16, "items": schema}
    assert len(json.dumps(instance(schema))) < 20_000


# -- alternatives -----------------------------------------------------------------------------

CALLS = {"properties": {"calls": {"type": "integer"}}}
ANSWER = {"properties": {"answer": {"type": "string"}}}
AGENT = {"anyOf": [CALLS, ANSWER]}
TOLD = "This is the openai-compat demo, not a model. The tool said: "


def call(name: str) -> dict[str, Any]:
    return {"properties": {"name": {"const": name}, "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "last", "value"),
    [
        (AGENT, {"role": "user", "content": "Hi"}, {"calls": 1}),
        (AGENT, {"role": "user"}, {"calls": 1}),
        (AGENT, {"role": "user", "content": "Results:\n1"}, {"answer": f"{TOLD}Results:\n1"}),
        (AGENT, {"role": "user", "content": "<tool_result>1"}, {"answer": f"{TOLD}<tool_result>1"}),
        (AGENT, {"role": "tool", "content": "1"}, {"answer": f"{TOLD}1"}),
        (
            {
                "anyOf": [{"$ref": "#/$defs/C"}, {"$ref": "#/$defs/A"}],
                "$defs": {"C": CALLS, "A": {"properties": {"answer": {"type": "integer"}}}},
            },
            {"role": "tool", "content": "1"},
            {"answer": 1},
        ),
        ({"anyOf": [call("f"), call("g")]}, {"role": "tool", "content": "1"}, {"name": "f", "parameters": {}}),
        ({"anyOf": [call("f"), call("g")]}, {"role": "user", "content": "g!"}, {"name": "g", "parameters": {}}),
        ({"properties": {"a": {"anyOf": [CALLS, ANSWER]}}}, {"role": "tool", "content": "1"}, {"a": {"calls": 1}}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"role": "tool", "content": "1"}, 1),
        ({"anyOf": [True, {"properties": []}]}, {"role": "tool", "content": "1"}, None),
    ],
    ids=json.dumps,
)
def test_the_alternative_that_a_message_asks_for(schema: Any, last: Any, value: Any) -> None:
    assert json.loads(text_for(last, schema)) == value


# -- the rest ---------------------------------------------------------------------------------


def test_calls_are_written_one_after_the_other() -> None:
    tools = [{"function": {"name": name}} for name in ("f", "\u00e9")]
    calls = [call for name in ("f", "\u00e9") for call in tool_calls(tools, name)]
    assert written(calls).split("\n") == [
        "<tool_call>",
        '{"name": "f", "arguments": {}}',
        "</tool_call>",
        "<tool_call>",
        '{"name": "\u00e9", "arguments": {}}',
        "</tool_call>",
    ]
    assert (tool_calls([], "f"), written([])) == ([], "")


@pytest.mark.parametrize("text", ["", "a", " a  b\n", "\n"])
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == (text if text.strip() else "")
