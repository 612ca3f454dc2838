"""The values of a request as its response has them: what was used, in the form that OpenAI's schema of a response has.

Clients check a response against that schema. So a value that is accepted without effect and has no place in it is left
out here, and so is a null or an empty member, which a request may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import UNSET, Raw

from openai_compat.endpoints.responses.request import SUMMARIES, ResponseRequest
from openai_compat.endpoints.responses.text_format import VERBOSITIES, TextConfig, TextFormat, json_schema, text_kind
from openai_compat.translate.response_tools import BUILT_IN, joined
from openai_compat.wire import json

#: efforts that OpenAI does not have, by what they are mapped to
_EFFORTS = {"ultra": "max"}


def shown_reasoning(request: ResponseRequest) -> Raw:
    """Return ``reasoning`` as it was requested, always with ``effort`` and ``summary``."""
    given = request.reasoning
    summaries = () if given is None else (given.summary, given.generate_summary)
    found = (json.string(json.text_of(raw)) for raw in summaries)
    summary = next((text for text in found if text in SUMMARIES), None)
    effort = (given.effort if given is not None else None) or request.reasoning_effort or None
    return Raw(json.encode({"effort": _EFFORTS.get(effort or "", effort), "summary": summary}))


def shown_text(request: ResponseRequest) -> Raw:
    """Return ``text`` as it was requested, always with a format."""
    given = request.text if isinstance(request.text, TextConfig) else TextConfig()
    text: dict[str, Any] = {"format": _format(given.format if isinstance(given.format, TextFormat) else TextFormat())}
    if given.verbosity in VERBOSITIES:
        text["verbosity"] = given.verbosity
    return Raw(json.encode(text))


def _format(given: TextFormat) -> dict[str, Any]:
    kind = text_kind(given)
    if kind != "json_schema":
        return {"type": "json_object" if kind == "json_object" else "text"}
    used, _ = json_schema(given)
    schema = Raw(b"{}") if json.is_blank(used.schema) else used.schema
    shown = {"type": kind, "name": used.name or "response", "schema": schema, "strict": bool(used.strict)}
    return shown | ({"description": used.description} if used.description else {})


# -- tools ------------------------------------------------------------------------------------


def shown_tools(tools: list[Raw] | None) -> list[Raw]:
    """Return tools as they were given, with the members that OpenAI's tools of their type always have.

    Left out are those that OpenAI's schema has no place for.
    """
    return [Raw(json.encode(tool)) for raw in tools or () for tool in _tool(json.members_of(bytes(raw)))]


def _tool(members: dict[str, Raw]) -> Iterator[dict[str, Any]]:
    kind = _string(members, "type") or "function"
    if kind == "namespace":
        yield from _namespace(members, None)
    elif kind in BUILT_IN:
        shown = _without_blanks(Raw(json.encode(members)))
        if shown.keys() >= BUILT_IN[kind]:
            yield shown
    else:
        yield from _own_tool(members, kind)


def _own_tool(members: dict[str, Raw], kind: str) -> Iterator[dict[str, Any]]:
    """Yield a function or a custom tool."""
    shown = _function(members) if kind == "function" else _custom(members) if kind == "custom" else {}
    if shown.get("name"):
        yield shown


def _namespace(members: dict[str, Raw], outer: str | None) -> Iterator[dict[str, Any]]:
    """Yield a namespace, and those within it after it: to OpenAI a namespace has tools only, and one at least."""
    name = joined(outer, _string(members, "name") or "")
    text = json.text_of(members.get("tools", UNSET))
    own: list[dict[str, Any]] = []
    inner: list[dict[str, Any]] = []
    for raw in json.items_of(Raw(text), "tools") if text[:1] == b"[" else ():
        tool = json.members_of(bytes(raw))
        kind = _string(tool, "type") or "function"
        if kind == "namespace":
            inner += _namespace(tool, name)
        else:
            own += _own_tool(tool, kind)
    if own:
        yield {"type": "namespace", "name": name, "description": _string(members, "description") or "", "tools": own}
    yield from inner


def _function(members: dict[str, Raw]) -> dict[str, Any]:
    """Return a function in the form of this API; the members of chat's ``function`` are read as in the mapping."""
    nested = json.text_of(members.get("function", UNSET))
    if nested[:1] == b"{" and not _string(members, "name"):
        members = json.members_of(nested)
    parameters = json.text_of(members.get("parameters", UNSET))
    strict = json.text_of(members.get("strict", UNSET))
    return {
        "type": "function",
        "name": _string(members, "name"),
        "description": _string(members, "description"),
        "parameters": Raw(b"{}" if json.is_blank(Raw(parameters)) else parameters) if _is_schema(parameters) else None,
        "strict": strict == b"true" if strict in (b"true", b"false") else None,
        **_others(members, ("type", "name", "description", "parameters", "strict", "function")),
    }


def _is_schema(text: bytes) -> bool:
    """Return whether a text is an object, or PHP's empty one."""
    return text[:1] == b"{" or (text[:1] == b"[" and json.is_blank(Raw(text)))


def _custom(members: dict[str, Raw]) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "custom", "name": _string(members, "name")}
    description = _string(members, "description")
    if description is not None:
        shown["description"] = description
    text = json.text_of(members.get("format", UNSET))
    text_format = _custom_format(json.members_of(text)) if text[:1] == b"{" else None
    if text_format is not None:
        shown["format"] = text_format
    return shown | _others(members, ("type", "name", "description", "format"))


def _custom_format(members: dict[str, Raw]) -> dict[str, str] | None:
    """Return the format of a custom tool; None for a grammar in a syntax that OpenAI does not have."""
    definition, syntax = _string(members, "definition"), _string(members, "syntax")
    if definition:
        known = syntax if syntax in ("lark", "regex") else None
        return {"type": "grammar", "syntax": known, "definition": definition} if known else None
    return {"type": "text"} if _string(members, "type") == "text" else None


def _others(members: dict[str, Raw], known: tuple[str, ...]) -> dict[str, Any]:
    """Return the members that have no effect, but for those that OpenAI's schema would refuse."""
    return {
        key: value
        for key, raw in members.items()
        if key not in known and _is_sound(key, raw) and (value := _without_blanks(raw)) is not None
    }


def _is_sound(key: str, raw: Raw) -> bool:
    text = json.text_of(raw)
    if key == "defer_loading":
        return text in (b"true", b"false")
    if key == "output_schema":
        return text[:1] == b"{"
    if key == "allowed_callers":
        callers = json.items_of(raw, key) if text[:1] == b"[" else []
        return bool(callers) and all(json.string(caller) in ("direct", "programmatic") for caller in callers)
    return True


def _without_blanks(raw: Raw) -> Any:
    """Return a value without the null, ``""`` and ``{}`` in its objects; None if it is such a value itself."""
    text = json.text_of(raw)
    if text[:1] != b"{":
        return None if text in (b"", b'""') else raw
    members = {
        key: value for key, item in json.members_of(text).items() if (value := _without_blanks(item)) is not None
    }
    return members or None


def _string(members: dict[str, Raw], key: str) -> str | None:
    return json.string(json.text_of(members.get(key, UNSET)))
