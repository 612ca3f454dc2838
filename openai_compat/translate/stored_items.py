"""Items as they are stored and listed: complete, with an id, in the form that OpenAI's lists have.

A client may leave out most of an item: its type, the form of its content, its status. Nothing else is changed: what a
client sent is what it gets back.

Source: OpenAI's ``ItemResource``, ``ConversationItem``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, Raw

from openai_compat.errors import invalid, missing
from openai_compat.storage.store import Item
from openai_compat.translate.item_types import item_type
from openai_compat.wire import json

#: the beginnings of ids, by the type of the item
_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "reasoning": "rs_",
    "compaction": "cmp_",
}
#: types whose items have a status
_WITH_STATUS = frozenset(_PREFIXES) - {"reasoning", "compaction"}

_EMPTY_LIST = Raw(b"[]")


def to_stored_item(raw: Raw, path: str, new_id: Callable[[str], str]) -> Item:
    """Return an item of a request as it is stored, with an id of its own.

    :param path: of the item in the request, for errors.
    :param new_id: returns a new id with the given prefix.
    :raises APIError: 400 for an item without a type, a message without a role or with content of another kind, and a
        call without a name: no request could go on from them.
    """
    members: dict[str, Any] = dict(json.members_of(bytes(raw), path))
    kind = item_type(members, path)
    id = new_id(_PREFIXES.get(kind, "item_"))
    item = {**members, "id": id, "type": kind}
    if kind in _WITH_STATUS and not json.text_of(members.get("status", UNSET)):
        item["status"] = "completed"
    if kind == "message":
        item["content"] = _content(members.get("content", UNSET), _needed(members, "role", path), path)
    elif kind == "reasoning" and "summary" not in members:
        item["summary"] = _EMPTY_LIST
    elif kind in ("function_call", "custom_tool_call"):
        _needed(members, "name", path)
    if kind == "function_call":
        arguments = json.text_of(members.get("arguments", UNSET)) or b"{}"
        item["arguments"] = Raw(arguments) if arguments[:1] == b'"' else arguments.decode()
    return Item(id, json.encode({"id": id, "type": kind, **item}))


def _needed(members: dict[str, Any], name: str, path: str) -> str:
    """Return a text that an item must have."""
    text = json.text_of(members.get(name, UNSET))
    found = json.string(text)
    if found is None and text:
        raise invalid(f"Invalid type for '{path}.{name}': expected a string.", f"{path}.{name}", "invalid_type")
    if not found:
        raise missing(f"{path}.{name}")
    return found


def _content(content: Any, role: str, path: str) -> Any:
    """Return the content of a message as a list of parts."""
    text = json.text_of(content)
    if text[:1] == b"[":
        parts = json.items_of(content, f"{path}.content")
        return [_part(part, role, f"{path}.content[{i}]") for i, part in enumerate(parts)]
    if text and text[:1] != b'"' and not json.is_blank(content):
        wanted = "expected a string or an array"
        raise invalid(f"Invalid type for '{path}.content': {wanted}.", f"{path}.content", "invalid_type")
    return [_text_part(Raw(text), role)] if text[:1] == b'"' else []


def _text_part(text: Raw, role: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _part(part: Raw, role: str, path: str) -> Any:
    """Return a part of a message's content; text has the type that its role wants."""
    members: dict[str, Any] = dict(json.members_of(bytes(part), path))
    kind = json.string(json.text_of(members.get("type", UNSET)))
    if kind in ("input_text", "output_text", "text") or (kind is None and "text" in members):
        members.pop("type", None)
        return {**_text_part(Raw(b'""'), role), **members}
    if kind == "input_image":
        return {"detail": "auto", **members}
    return part
