"""The names of tools that came with an item, and which items bring tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.translate.item_tools import names_of, tools_of


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def nested(depth: int) -> dict[str, Any]:
    return {"name": "f"} if not depth else {"type": "namespace", "name": "a", "tools": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        ([], []),
        ([{"name": "f"}, {"type": "custom", "name": "c"}], ["f", "c"]),
        ([nested(1)], ["a.f"]),
        ([nested(4), {"name": "g"}], ["a.a.a.a.f", "g"]),
        ([nested(9), {"name": "g"}], ["g"]),
    ],
    ids=json.dumps,
)
def test_the_names_of_tools(tools: list[Any], names: list[str]) -> None:
    assert list(names_of(map(raw, tools))) == names


def test_a_text_that_names_such_an_item_brings_nothing() -> None:
    items = [{"role": "user", "content": "additional_tools"}, {"type": "additional_tools", "tools": [{"name": "f"}]}]
    assert [(path, [bytes(tool) for tool in tools]) for path, tools in tools_of(map(raw, items))] == [
        ("input[1].tools", [b'{"name": "f"}'])
    ]
