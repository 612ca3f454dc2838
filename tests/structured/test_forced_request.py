"""The memory of a required tool call: bounded by the size of the tools' schemas."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from msgspec import UNSET, Raw

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.structured.emulation import emulated_request
from openai_compat.structured.forced_request import forced_request
from openai_compat.structured.tool_choice import ForcedChoice

MEBIBYTE = 1024 * 1024


def listed(around: str, item: Callable[[int], str], n: int) -> str:
    """The text *around*, with *n* items in place of its ``%``."""
    return around.replace("%", ",".join(map(item, range(n))))


PROPERTIES, DATA = '{"properties":{%}}', '{"type":"object","default":[%]}'
DEFINED = '{"properties":{"p":{"$ref":"#/$defs/A0"}},"$defs":{%}}'

SHAPES: dict[str, Callable[[int], str]] = {
    "empty properties": lambda n: listed(PROPERTIES, lambda i: f'"p{i}":{{}}', n),
    "true properties": lambda n: listed(PROPERTIES, lambda i: f'"p{i}":true', n),
    "properties": lambda n: listed(PROPERTIES, lambda i: f'"p{i}":{{"type":"string"}}', n),
    "keywords": lambda n: listed('{"type":"object",%}', lambda i: f'"p{i}":1', 2 * n),
    "alternatives": lambda n: listed('{"anyOf":[%]}', lambda i: "{}", n),
    "true alternatives": lambda n: listed('{"anyOf":[%]}', lambda i: "true", n),
    "references": lambda n: listed(PROPERTIES, lambda i: f'"p{i}":{{"$ref":"#/properties/p{i + 1}"}}', n),
    "definitions": lambda n: listed(DEFINED, lambda i: f'"A{i}":{{"items":{{"$ref":"#/$defs/A{i + 1}"}}}}', n // 2),
    "objects as data": lambda n: listed(DATA, lambda i: '{"a":1}', n),
    "arrays as data": lambda n: listed(DATA, lambda i: "[]", n),
    "numbers": lambda n: listed(DATA, lambda i: "1.5", 3 * n),
    "nested": lambda n: listed(PROPERTIES, lambda i: f'"p{i}":{{"items":{{"items":{{"items":{{}}}}}}}}', n // 4),
}


FORCED = ForcedChoice(frozenset(["f0"]), is_named=True)


def force(*schemas: str, field: str = "tools", emulated: bool = False) -> native.ChatRequest:
    tools = [native.Tool(native.ToolFunction(f"f{i}", parameters=Raw(text.encode()))) for i, text in enumerate(schemas)]
    sent = native.ChatRequest("m", [native.Message("user", "Hi")], {}, tools=tools)
    if emulated:
        return emulated_request(sent, {}, field)
    return forced_request(sent, FORCED, {}, field)


SIZES = [(60_000, 1), (20_000, 10)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "count", "emulated"),
    [(name, *size, False) for name in SHAPES for size in SIZES]
    + [(name, *SIZES[1], True) for name in ("properties", "true alternatives", "nested", "objects as data")],
)
def test_the_memory_of_a_required_call_is_bounded_by_its_tools(name: str, n: int, count: int, emulated: bool) -> None:
    schema, refusal = SHAPES[name](n // count), None
    force("{}", emulated=emulated)
    tracemalloc.start()
    try:
        force(*[schema] * count, emulated=emulated)
    except APIError as error:
        refusal = (error.status, error.param)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert refusal in (None, (400, "tools"))
    assert peak < 12 * len(schema) * count + 8 * MEBIBYTE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["empty properties", "true properties", "properties"])
def test_a_required_call_may_have_ninety_thousand_properties(name: str) -> None:
    assert force(SHAPES[name](90_000)).format is not UNSET


@pytest.mark.slow
@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_that_take_too_much_memory_are_refused_by_the_field_s_name(field: str, emulated: bool) -> None:
    with pytest.raises(APIError) as raised:
        force(SHAPES["alternatives"](90_000), field=field, emulated=emulated)
    assert (raised.value.status, raised.value.param) == (400, field)
    assert raised.value.code == "object_above_max_properties"


def test_ordinary_tools_are_far_from_that() -> None:
    schema = listed(PROPERTIES, lambda i: f'"p{i}":{{"type":"string","enum":["a","b"],"description":"A, b."}}', 50)
    assert force(*[schema] * 128).format is not UNSET
