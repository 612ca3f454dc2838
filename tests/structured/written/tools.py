"""The tools of these tests, and what a scanner makes of a text in parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET, Raw

from openai_compat.native import types as native
from openai_compat.structured.written.scanner import CallScanner, Found

CUTS = [None, 1, 7, 4096]

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "written_calls.json").read_text(encoding="utf-8")
)

#: of a row that is checked, in the shape of the data
Call = dict[str, str]


def tool(name: str, required: Sequence[str] = (), **properties: Any) -> native.Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return native.Tool(native.ToolFunction(name, "x", Raw(json.dumps(schema).encode())))


TOOLS = [
    tool("get_weather", ["city"], city={"type": "string"}, days={"type": "integer"}),
    tool("get_time"),
    tool(
        "everything",
        text={"type": "string"},
        count={"type": "integer"},
        ratio={"type": "number"},
        flag={"type": "boolean"},
        list={"type": "array"},
        object={"type": "object"},
        nothing={"type": "null"},
        maybe={"type": ["string", "null"]},
        either={"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        wrong={"type": "object"},
    ),
    tool("odd", unit={"enum": ["1", "2"]}, broken={"type": "array"}, deep={"type": "array"}),
]


def pieces(text: str, cut: int | None) -> list[str]:
    size = cut or len(text) or 1
    return [text[i : i + size] for i in range(0, len(text), size)]


def scanned(
    parts: Iterable[str], tools: Sequence[native.Tool] = TOOLS, tool_name: Callable[[str], str] = str
) -> tuple[str, Found]:
    """What left before the end, and what was found at the end."""
    scanner = CallScanner(tools, tool_name)
    left = "".join([scanner.feed(part) for part in parts])
    return left, scanner.end()


def plain(calls: Iterable[native.ToolCall]) -> list[Call]:
    """Calls in the shape of the data."""
    found = []
    for call in calls:
        arguments = call.function.arguments
        assert isinstance(arguments, Raw)
        row = {"name": call.function.name, "arguments": bytes(arguments).decode()}
        if call.id is not UNSET:
            assert call.id
            row["id"] = call.id
        found.append(row)
    return found
