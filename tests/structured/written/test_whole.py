"""A text that is nothing but calls, and the text of a native error that quotes one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.native import types as native
from openai_compat.structured.written.reading import MAX_SIZE
from openai_compat.structured.written.whole import read_calls, read_raw
from tests.structured.written.tools import ROWS, TOOLS, plain, tool

J = '{"city": "Oslo"}'
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
EXPECTED = [{"name": "get_weather", "arguments": J}]
WEATHER = TOOLS[:1]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["calls"] and not row.get("left", "").strip()], ids=lambda row: row["name"]
)
def test_every_form_is_read(row: dict[str, Any]) -> None:
    assert plain(read_calls(row["text"], TOOLS)) == row["calls"]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (CALL, J),  # glm-4.7
        ('{"arguments": {"city": "Oslo"}, "name": "get_weather"}', J),
        ("<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>", '{"city":"Oslo"}'),  # laguna
    ],
)
def test_the_name_of_a_native_call(text: str, arguments: str) -> None:
    assert plain(read_calls(text, TOOLS)) == [{"name": "get_weather", "arguments": arguments}]


@pytest.mark.parametrize(
    "text",
    ["", "get_weather", "other", J, CALL + " x", CALL[:-2], "[]", "{}", "<tool_call>", "`", CALL + " " * MAX_SIZE],
)
def test_no_call(text: str) -> None:
    assert read_calls(text, TOOLS) == []


def test_without_tools() -> None:
    assert read_calls(CALL, []) == []


def test_another_spelling() -> None:
    calls = read_calls(CALL.replace("get_weather", "weather"), TOOLS, lambda name: "get_" + name)
    assert plain(calls) == EXPECTED


def error(raw: str, cause: str = ", err: invalid character '<' after top-level value") -> str:
    return f"error parsing tool call: raw='{raw}'{cause}"


@pytest.mark.parametrize(
    "raw",
    [
        f"{J}<|call|>",
        J,
        f" {J}\n",
        f"{J}<|call|><|end|>\n",
        f"<|constrain|>json{J}",
        f"{J}<｜end▁of▁sentence｜>",
        f"{CALL}<|call|>",
        f"<tool_call>{CALL}</tool_call>",
        f"<|channel|>commentary to=functions.get_weather<|message|>{J}<|call|>",
    ],
)
@pytest.mark.parametrize("cause", [", err: unexpected end", ", err=invalid character '<' after top-level value"])
def test_what_an_error_quotes(raw: str, cause: str) -> None:
    assert plain(read_raw(error(raw, cause), WEATHER)) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        f"incomplete GLM tool call: tool {json.dumps(CALL)} is not declared",
        f"failed to parse function call {json.dumps(CALL)}: invalid function call format",
        f"tool {json.dumps('<tool_call>' + CALL)} is not declared",
    ],
)
def test_what_go_quotes(text: str) -> None:
    assert plain(read_raw(text, WEATHER)) == EXPECTED
    assert read_raw(text.replace("get_weather", "other"), WEATHER) == []


def test_a_quote_that_looks_like_the_end_of_another() -> None:
    arguments = '{"city": "a\', err: b"}'
    assert plain(read_raw(error(arguments), WEATHER)) == [{"name": "get_weather", "arguments": arguments}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error",
        "raw='",
        error(""),
        error("no JSON"),
        error('{"city": '),
        error(f"{J} and text"),
        error(f"{J}{J}"),
        error('["Oslo"]'),
        error('{"city": "' + "x" * MAX_SIZE + '"}'),
        f"raw='{J}'",
    ],
    ids=range(11),
)
def test_nothing_can_be_read(text: str) -> None:
    assert read_raw(text, WEATHER) == []


def test_without_tools_an_error_stays() -> None:
    assert read_raw(error(J), []) == []


A_CITY = tool("a", ["city"], city={"type": "string"})
A_NUMBER = tool("b", ["count"], count={"type": "integer"})
MAYBE = tool("c", [], query={"type": "string"})


@pytest.mark.parametrize(
    ("tools", "name"),
    [
        ([A_CITY, A_NUMBER], "a"),
        ([A_NUMBER, A_CITY], "a"),
        ([A_CITY, MAYBE], "a"),  # both admit it, and one has the parameter
        ([A_CITY, tool("d", [], city={"type": "string"})], None),
        ([A_NUMBER, tool("e", ["x"])], None),
        ([A_NUMBER], "b"),  # there is no other
    ],
)
def test_arguments_are_of_the_one_tool_that_admits_them(tools: list[Any], name: str | None) -> None:
    assert [call.function.name for call in read_raw(error(J), tools)] == ([name] if name else [])


def test_a_schema_that_cannot_be_checked_admits_nothing() -> None:
    broken = tool("f")
    broken.function.parameters = Raw(b'"no schema"')
    assert [call.function.name for call in read_raw(error(J), [broken, A_CITY])] == ["a"]


@pytest.mark.parametrize("schema", [b"1e999", b'"x"', b'{"properties": []}', b"null"])
def test_a_parameter_without_a_readable_schema_is_text(schema: bytes) -> None:
    function = native.ToolFunction("f", parameters=Raw(schema))
    calls = read_calls("<function=f><parameter=x>1</parameter></function>", [native.Tool(function)])
    assert plain(calls) == [{"name": "f", "arguments": '{"x":"1"}'}]
