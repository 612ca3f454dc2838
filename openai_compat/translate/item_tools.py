"""Tools that come with the input: those that an item adds, and those that a search of the client found.

They are tools of the request like those of ``tools``, from wherever their item stands: in the input or in the history.

Source: OpenAI's ``AdditionalToolsItemParam``, ``ToolSearchOutputItemParam``; Codex sends both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET, Raw

from openai_compat.translate.item_types import decode_tools, item_type
from openai_compat.translate.response_tools import MAX_NESTED, joined
from openai_compat.wire import json

#: types of items that bring tools
_TYPES = ("additional_tools", "tool_search_output")


def tools_of(items: Iterable[Raw], past: int = 0, field: str = "input") -> Iterator[tuple[str, list[Raw]]]:
    """Yield the tools of each item that brings some, with their path in the request.

    :param past: number of the first items, which are not of the request.
    :param field: where the others stand in the request.
    :raises APIError: 400 for such an item that is not valid.
    """
    for i, raw in enumerate(items):
        text = bytes(raw)
        if not any(kind.encode() in text for kind in _TYPES):  # without decoding each item twice
            continue
        path = f"{field}[{i - past}]" if i >= past else f"items[{i}]"
        kind = item_type(json.members_of(text, path), path)
        if kind in _TYPES:
            item, _ = decode_tools(text, path)
            if kind == "additional_tools" or item.execution == "client":
                yield f"{path}.tools", item.tools or []


def names_of(tools: Iterable[Raw], namespace: str | None = None, depth: int = MAX_NESTED) -> Iterator[str]:
    """Yield the names of tools as the model sees them, unless two have the same."""
    for raw in tools:
        members = json.members_of(bytes(raw))
        name = joined(namespace, json.string(json.text_of(members.get("name", UNSET))) or "")
        nested = json.text_of(members.get("tools", UNSET))
        if nested[:1] != b"[":
            yield name
        elif depth:
            yield from names_of(json.items_of(Raw(nested), "tools"), name, depth - 1)
