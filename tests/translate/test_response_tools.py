from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.response_tools import (
    KnownTool,
    ToolNames,
    from_response_tools,
    joined,
)


def names_of(*tools: tuple[str | None, str]) -> ToolNames:
    names = ToolNames()
    for namespace, name in tools:
        names.add(KnownTool("function", name, namespace, ""))
    return names


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [
        (None, "f", "f"),
        ("", "f", "f"),
        ("a", "f", "a.f"),
        ("a", "a.f", "a.f"),
        ("a.b", "f", "a.b.f"),
        ("a", "af", "a.af"),
        ("a", "a", "a.a"),
    ],
)
def test_joined(namespace: str | None, name: str, expected: str) -> None:
    assert joined(namespace, name) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.f", ("a", "f")),
        ("a__f", ("a", "f")),
        ("f", ("a", "f")),
        ("g", (None, "g")),
        ("h", (None, "h")),
        ("a.h", (None, "a.h")),
        ("d", (None, "d")),
        ("b.d", ("b", "d")),
        ("", (None, "")),
    ],
)
def test_the_tool_that_a_model_calls(given: str, expected: tuple[str | None, str]) -> None:
    tool = names_of(("a", "f"), (None, "g"), ("b", "d"), ("c", "d")).of(given)
    assert (tool.namespace, tool.name) == expected


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [
        ("a", "f", "a.f"),
        ("a", "a.f", "a.f"),
        ("a", "a__f", "a.f"),
        (None, "a.f", "a.f"),
        (None, "a__f", "a.f"),
        (None, "f", "a.f"),
        ("", "f", "a.f"),
        ("b", "f", None),
        (None, "g", "g"),
        ("a", "g", None),
        (None, "d", None),
        ("c", "d", "c.d"),
        (None, "nobody", None),
    ],
)
def test_the_name_of_a_tool_of_the_client(namespace: str | None, name: str, expected: str | None) -> None:
    names = names_of(("a", "f"), (None, "g"), ("b", "d"), ("c", "d"))
    assert names.native_name(namespace, name) == expected


def test_a_function_has_its_name_before_a_namespace_s_spelling() -> None:
    names = names_of(("a", "b"), (None, "b"), (None, "a__b"))
    assert names.native_name(None, "b") == "b"
    assert names.native_name(None, "a__b") == "a__b"
    assert names.native_name("a", "b") == "a.b"
    assert names.of("b").namespace is None


def test_names_are_those_of_one_tool() -> None:
    names = ToolNames()
    tools = [KnownTool("function", "a.b", None, "1"), KnownTool("function", "b", "a", "2")]
    assert [names.add(tool) for tool in tools] == ["a.b", "a.b_2"]
    assert names.add(KnownTool("custom", "b", "a", "3")) == "a.b_2"
    assert names.paths() == {"a.b": "1", "a.b_2": "3"}
    assert names.of("a.b_2").kind == "custom"


def test_the_path_of_a_tool_is_where_it_stands() -> None:
    tools: list[Any] = [
        {"type": "web_search"},
        {"type": "namespace", "name": "a", "tools": [{"name": "f"}, {"type": "custom", "name": "c"}]},
        {"function": {"name": "g"}},
    ]
    ignored = Ignored(Settings(), [])
    sent, names = from_response_tools([Raw(json.dumps(tool).encode()) for tool in tools], Settings(), ignored)
    assert [tool.function.name for tool in sent] == ["a.f", "a.c", "g"]
    assert names.paths() == {
        "a.f": "tools[1].tools[0].parameters",
        "a.c": "tools[1].tools[1]",
        "g": "tools[2].function.parameters",
    }
    assert dict(ignored.headers())["openai-compat-ignored"] == "tools[].web_search"


def test_the_limit_counts_all_tools() -> None:
    nested = Raw(b'{"type":"namespace","name":"a","tools":[{"name":"f"},{"name":"g"}]}')
    tools = [Raw(b'{"type":"web_search"}'), nested]
    assert len(from_response_tools(tools, Settings(max_tools=3), Ignored(Settings(), []))[0]) == 2
    with pytest.raises(APIError) as raised:
        from_response_tools(tools, Settings(max_tools=2), Ignored(Settings(), []))
    assert (raised.value.param, raised.value.code) == ("tools", "array_above_max_length")
