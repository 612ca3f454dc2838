"""Items as they are stored and listed: complete, with an id, in the form that OpenAI's lists have.

A client may leave out most of an item (its type, its status, the form of its content), or send chat's form of a part;
other servers write null where OpenAI's schemas have none. What an item says is not changed: a client gets back what it
sent.

Source: OpenAI's ``ItemResource``, ``ConversationItem``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Raw

from openai_compat.errors import invalid, missing
from openai_compat.storage.store import Item
from openai_compat.translate.content import HISTORY, ImageURL
from openai_compat.translate.item_types import (
    FILE_PARTS,
    IMAGE_PARTS,
    TEXT_PARTS,
    ItemPart,
    decode_part,
    item_type,
    parts_of,
    unknown_part,
)
from openai_compat.translate.messages import ROLES
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

_STATUSES = ("in_progress", "completed", "incomplete")
_IMAGE_DETAILS = ("low", "high", "auto", "original")
_FILE_DETAILS = ("auto", "low", "high")

#: members that OpenAI's lists have of other items, and that clients leave out
_DEFAULTS: dict[str, dict[str, Any]] = {
    "shell_call": {"status": "completed", "environment": None},
    "shell_call_output": {"status": "completed", "max_output_length": None},
    "tool_search_call": {"status": "completed", "execution": "server", "call_id": None, "arguments": {}},
    "tool_search_output": {"status": "completed", "execution": "server", "call_id": None, "tools": []},
    "additional_tools": {"role": "developer", "tools": []},
    **dict.fromkeys(
        (
            "apply_patch_call",
            "apply_patch_call_output",
            "code_interpreter_call",
            "computer_call",
            "file_search_call",
            "image_generation_call",
            "local_shell_call",
            "program_output",
            "web_search_call",
        ),
        {"status": "completed"},
    ),
}
_WITH_CALL_ID = ("function_call", "custom_tool_call", "custom_tool_call_output")

_Members = Mapping[str, Raw]


def to_stored_item(raw: Raw, path: str, new_id: Callable[[str], str]) -> Item:
    """Return an item of a request as it is stored, with an id of its own.

    :param path: of the item in the request, for errors.
    :param new_id: returns a new id with the given prefix.
    :raises APIError: 400 for an item without a type, a message without a role or with content of another kind, a part
        of an unknown type that is not of a history, and a call without a name: no request could go on from them.
    """
    given = json.members_of(bytes(raw), path)
    kind = item_type(given, path)
    id = new_id(_PREFIXES.get(kind, "item_"))
    if kind in _PREFIXES:
        given = _not_null(given)
    item: dict[str, Any] = {**given, "id": id, "type": kind}
    if kind in _WITH_STATUS and _string(given, "status") not in _STATUSES:
        item["status"] = "completed"
    complete = _COMPLETE.get(kind)
    if complete is not None:
        item |= complete(given, path)
    for name, value in _DEFAULTS.get(kind, {}).items():
        if not json.text_of(given.get(name, UNSET)):
            item[name] = value
    if kind in _WITH_CALL_ID and not item["call_id"]:
        item["call_id"] = new_id("call_")
    return Item(id, json.encode({"id": id, "type": kind, **item}))


def _not_null(members: _Members) -> dict[str, Raw]:
    return {name: value for name, value in members.items() if json.text_of(value)}


def _string(members: _Members, name: str) -> str | None:
    return json.string(json.text_of(members.get(name, UNSET)))


def _message(given: _Members, path: str) -> dict[str, Any]:
    role = _needed(given, "role", path)
    role = role.lower() if role.lower() in ROLES else role
    return {"role": role, "content": _content(given.get("content", UNSET), role, path)}


def _function_call(given: _Members, path: str) -> dict[str, Any]:
    _needed(given, "name", path)
    arguments = json.text_of(given.get("arguments", UNSET)) or b"{}"
    shown = Raw(arguments) if arguments[:1] == b'"' else arguments.decode()
    return {"call_id": _call_id(given, path), "arguments": shown}


def _custom_call(given: _Members, path: str) -> dict[str, Any]:
    _needed(given, "name", path)
    return {"call_id": _call_id(given, path), "input": _text(given, "input", path)}


def _call_id(given: _Members, path: str) -> str:
    """Return the id of a call, which its result names; older clients have one id only."""
    return _text(given, "call_id", path) or _text(given, "id", path)


def _function_output(given: _Members, path: str) -> dict[str, Any]:
    return {"output": _output(given.get("output", UNSET), path)}


def _custom_output(given: _Members, path: str) -> dict[str, Any]:
    return {"call_id": _text(given, "call_id", path), **_function_output(given, path)}


def _output(output: Any, path: str) -> Any:
    """Return what a tool returned as the model sees it: a string, parts, or the JSON of another value."""
    text = json.text_of(output)
    if text[:1] == b'"':
        return Raw(text)
    if text[:1] == b"[" and parts_of(Raw(text), path) is not None:
        return _parts(Raw(text), "tool", f"{path}.output")
    return text.decode()


def _reasoning(given: _Members, path: str) -> dict[str, Any]:
    found = {"summary": _texts(given.get("summary", UNSET), "summary_text")}
    if "content" in given:
        found["content"] = _texts(given["content"], "reasoning_text")
    return found


def _texts(value: Any, kind: str) -> Any:
    """Return parts of a reasoning item; a string is one part."""
    text = json.text_of(value)
    if text[:1] == b'"':
        return [{"type": kind, "text": Raw(text)}]
    return Raw(text) if text[:1] == b"[" else []


def _compaction(given: _Members, path: str) -> dict[str, Any]:
    return {"encrypted_content": _text(given, "encrypted_content", path)}


#: what OpenAI's items of a type always have, or have in one form
_COMPLETE: dict[str, Callable[[_Members, str], dict[str, Any]]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _custom_output,
    "reasoning": _reasoning,
    "compaction": _compaction,
}


def _text(members: _Members, name: str, path: str) -> str:
    """Return a text that an item may have; an absent one is empty."""
    text = json.text_of(members.get(name, UNSET))
    found = json.string(text)
    if found is None and text:
        raise invalid(f"Invalid type for '{path}.{name}': expected a string.", f"{path}.{name}", "invalid_type")
    return found or ""


def _needed(members: _Members, name: str, path: str) -> str:
    """Return a text that an item must have."""
    found = _text(members, name, path)
    if not found:
        raise missing(f"{path}.{name}")
    return found


# -- content ----------------------------------------------------------------------------------


def _content(content: Any, role: str, path: str) -> Any:
    """Return the content of a message as a list of parts."""
    text = json.text_of(content)
    if text[:1] == b"[":
        return _parts(content, role, f"{path}.content")
    if text and text[:1] != b'"' and not json.is_blank(content):
        wanted = "expected a string or an array"
        raise invalid(f"Invalid type for '{path}.content': {wanted}.", f"{path}.content", "invalid_type")
    return [_text_part(Raw(text), role)] if text[:1] == b'"' else []


def _parts(parts: Raw, role: str, path: str) -> list[Any]:
    return [_part(part, role, f"{path}[{i}]") for i, part in enumerate(json.items_of(parts, path))]


def _text_part(text: str | Raw, role: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _part(raw: Raw, role: str, path: str) -> Any:
    """Return a part of a message's content, or of a result; text has the type that its role wants."""
    part, _ = decode_part(bytes(raw), path)
    members = _not_null(json.members_of(bytes(raw), path))
    members.pop("type", None)
    if part.type in TEXT_PARTS or (part.type is None and isinstance(part.text, str)):
        return {**_text_part("", role), **members, "text": part.text or ""}
    if part.type == "refusal":
        text = part.refusal or ""
        return {**members, "type": "refusal", "refusal": text} if role == "assistant" else _text_part(text, role)
    if part.type in IMAGE_PARTS:
        return _image_part(part, members)
    if part.type in FILE_PARTS:
        return _file_part(part, members, path)
    if part.type is None:
        raise missing(f"{path}.type")
    if role in HISTORY:
        return raw
    raise unknown_part(part.type, path)


def _image_part(part: ItemPart, members: dict[str, Raw]) -> dict[str, Any]:
    given = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(part.image_url)
    detail = part.detail or given.detail
    shown = {**members, "type": "input_image", "image_url": given.url}
    return {**shown, "detail": detail if detail in _IMAGE_DETAILS else "auto"}


def _file_part(part: ItemPart, members: dict[str, Raw], path: str) -> dict[str, Any]:
    if part.type == "file":
        members |= _not_null(json.members_of(json.text_of(members.pop("file", UNSET)) or b"{}", f"{path}.file"))
    if part.detail not in _FILE_DETAILS:
        members.pop("detail", None)
    return {**members, "type": "input_file"}
