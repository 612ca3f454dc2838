"""The tools of a chat, in every form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.tool_definitions import (
    ToolDefinition,
    custom_names,
    from_tools,
    schema_paths,
    strict_names,
)
from openai_compat.wire.json import encode, native_decoder

OBJECT = {"type": "object"}
INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}

decode = native_decoder(list[ToolDefinition])


def sent(tools: list[Any], ignored: Ignored | None = None, **settings: Any) -> list[dict[str, Any]]:
    ignored = ignored or Ignored(Settings(), [])
    return json.loads(encode(from_tools(decode(encode(tools)), Settings(**settings), ignored)))  # type: ignore[no-any-return]


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": fields}


def test_a_schema_goes_verbatim() -> None:
    schema = b'{"type":"object","$defs":{"A":{"const":1}},"properties":{"a":{"$ref":"#/$defs/A"}},"x": 1.0}'
    tools = decode(b'[{"type":"function","function":{"name":"f","parameters":' + schema + b"}}]")
    assert schema in encode(from_tools(tools, Settings(), Ignored(Settings(), [])))


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (function(name="f"), {"name": "f"}),
        (function(name="f", description="d", parameters=None), {"name": "f", "description": "d"}),
        (function(name="f", parameters={}, unknown=1), {"name": "f", "parameters": {}}),
        (function(name="f", parameters=[]), {"name": "f", "parameters": {}}),
        (function(name="f", parameters=""), {"name": "f"}),
        ({"function": {"name": "f"}}, {"name": "f"}),
        ({"type": "function", "name": "f", "parameters": {"type": "object"}}, {"name": "f", "parameters": OBJECT}),
        ({"name": "f", "description": "d"}, {"name": "f", "description": "d"}),
        ({"type": "function", "name": "f", "function": {}}, {"name": "f"}),
    ],
)
def test_a_tool_becomes_a_native_one(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent([tool]) == [{"function": expected, "type": "function"}]


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"type": "custom", "custom": {"name": "c"}}, {"name": "c"}),
        ({"type": "custom", "custom": {"name": "c", "description": "d"}}, {"name": "c", "description": "d"}),
        ({"type": "custom", "name": "c", "description": "d"}, {"name": "c", "description": "d"}),
        ({"type": "custom", "name": "c", "custom": {}}, {"name": "c"}),
        ({"custom": {"name": "c", "format": {"type": "text"}}}, {"name": "c"}),
    ],
)
def test_a_custom_tool_is_a_function_of_one_text(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    ignored = Ignored(Settings(unsupported="error"), [])
    assert sent([tool], ignored) == [{"function": {**expected, "parameters": INPUT}, "type": "function"}]
    assert ignored.headers() == []


FLAT = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
NESTED = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a+/"}}


@pytest.mark.parametrize("format", [FLAT, NESTED, {**FLAT, "grammar": {}}], ids=["flat", "nested", "both"])
@pytest.mark.parametrize("is_flat", [False, True], ids=["in chat's form", "in the form of responses"])
def test_a_grammar_is_told(format: dict[str, Any], is_flat: bool) -> None:
    definition = {"name": "c", "description": "d", "format": format}
    tool = {"type": "custom", **definition} if is_flat else {"type": "custom", "custom": definition}
    path = "format" if is_flat else "custom.format"
    ignored = Ignored(Settings(), [])
    [made] = sent([tool], ignored)
    assert made["function"]["description"] == "d\n\nThe input must match this lark grammar:\nstart: /a+/"
    assert dict(ignored.headers()) == {"openai-compat-ignored": f"tools[].{path}"}
    with pytest.raises(APIError) as raised:
        sent([function(name="f"), tool], Ignored(Settings(unsupported="error"), []))
    assert (raised.value.status, raised.value.param) == (400, f"tools[1].{path}")


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        ({**function(name="f"), "name": "g", "description": "d"}, {"name", "description"}),
        ({**function(name="f"), "parameters": OBJECT, "strict": True}, {"parameters", "strict"}),
        ({**function(name="f"), "custom": {"name": "c"}, "format": FLAT}, {"custom", "format"}),
        ({**function(name="f"), "custom": {}, "name": "", "parameters": {}, "strict": False}, set()),
        ({"type": "custom", "custom": {"name": "c"}, "function": {"name": "f"}, "name": "c"}, {"function", "name"}),
        ({"type": "custom", "name": "c", "parameters": OBJECT}, {"parameters"}),
        ({"type": "function", "name": "f", "strict": True}, set()),
    ],
)
def test_what_a_tool_does_not_use_is_listed(tool: dict[str, Any], names: set[str]) -> None:
    ignored = Ignored(Settings(), [])
    sent([tool], ignored)
    listed = dict(ignored.headers()).get("openai-compat-ignored", "")
    assert set(filter(None, listed.split(", "))) == {f"tools[].{name}" for name in names}


def test_the_last_of_two_tools_says_whether_it_is_custom() -> None:
    custom, flat = {"type": "custom", "custom": {"name": "c"}}, {"type": "custom", "name": "d"}
    assert custom_names(decode(encode([custom, function(name="f"), flat]))) == {"c", "d"}
    assert custom_names(decode(encode([custom, function(name="c")]))) == set()


def test_the_path_of_a_tool_s_schema() -> None:
    tools = [function(name="f"), {"name": "g"}, {"type": "custom", "custom": {"name": "c"}}]
    assert schema_paths(decode(encode(tools))) == {
        "f": "tools[0].function.parameters",
        "g": "tools[1].parameters",
        "c": "tools[2].custom.parameters",
    }


def test_strict_is_kept_out_and_remembered() -> None:
    ignored = Ignored(Settings(), [])
    assert sent([function(name="f", strict=True)], ignored) == [{"function": {"name": "f"}, "type": "function"}]
    assert ignored.headers() == []
    tools = [function(name="f", strict=True), function(name="g"), {"name": "h", "strict": True}]
    assert strict_names(decode(encode(tools))) == {"f": "tools[].function.strict", "h": "tools[].strict"}


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "web_search"}, "tools[1].type"),
        ({"type": "custom", "custom": {}}, "tools[1].custom.name"),
        ({"type": "custom"}, "tools[1].custom.name"),
        ({"type": "custom", "name": ""}, "tools[1].custom.name"),
        ({"type": "function", "name": "g", "parameters": [1]}, "tools[1].parameters"),
        ({"type": "function"}, "tools[1].function"),
        (function(), "tools[1].function.name"),
        (function(name=""), "tools[1].function.name"),
        (function(name="f", parameters=[1]), "tools[1].function.parameters"),
        (function(name="f", parameters="x"), "tools[1].function.parameters"),
    ],
)
def test_what_is_no_tool_is_named(tool: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as raised:
        sent([function(name="f"), tool])
    assert (raised.value.status, raised.value.param) == (400, param)


def test_too_many_tools() -> None:
    assert len(sent([function(name="f")] * 3, max_tools=3)) == 3
    with pytest.raises(APIError) as raised:
        sent([function(name="f")] * 4, max_tools=3)
    assert (raised.value.param, raised.value.code) == ("tools", "array_above_max_length")
