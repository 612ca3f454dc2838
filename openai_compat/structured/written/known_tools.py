"""The tools of a request, as what is written may name them, and the types of their parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET, Raw, UnsetType

from openai_compat.native import types as native
from openai_compat.wire import json, json_limits, surrogates

#: what models write before a name, and Kimi after it
_PREFIX = re.compile(r"(?:functions?|tools|default_api)\.")
_SUFFIX = re.compile(r":[0-9]+\Z|\.call\Z")

#: an id that tells calls apart also in another answer: ``0``, ``call_1`` and the like are used in each
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

#: the kinds of JSON, by their first character
_KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}


class KnownTools:
    """The tools of a request.

    :param tool_name: returns the name of the tool that is meant by another spelling, and otherwise the same text.
    """

    def __init__(self, tools: Sequence[native.Tool], tool_name: Callable[[str], str] = str) -> None:
        self._tools = {tool.function.name: tool.function for tool in tools}
        self._tool_name = tool_name
        self._properties: dict[str, dict[str, Any]] = {}
        #: what a text asks for again and again, and a schema is searched for once
        self._needs_nothing: dict[str, bool] = {}
        self._parameter_types: dict[tuple[str, str], frozenset[str]] = {}

    def has(self, name: str) -> bool:
        """Return whether this is a tool's own name."""
        return name in self._tools

    def name(self, written: str) -> str | None:
        """Return the name of the tool that is meant by a written name; None if there is none."""
        for name in (written, _SUFFIX.sub("", written), _PREFIX.sub("", _SUFFIX.sub("", written), count=1)):
            own = self._tool_name(name)
            if own in self._tools:
                return own
        return None

    def begins_name(self, text: str) -> bool:
        """Return whether a tool's own name begins with *text*."""
        return any(name.startswith(text) for name in self._tools)

    def parameters(self, name: str) -> set[str]:
        """Return the parameters of a tool."""
        return set(self._properties_of(name))

    def needs_nothing(self, name: str) -> bool:
        """Return whether a tool can do without arguments."""
        if name not in self._needs_nothing:
            self._needs_nothing[name] = not _schema(self._tools[name]).get("required")
        return self._needs_nothing[name]

    def call(self, name: str, arguments: str, id: str | None = None) -> native.ToolCall | None:
        """Return a call of a tool; None if its arguments are not one JSON object.

        :param name: the tool's own name.
        :param arguments: JSON as it is written.
        :param id: what the text has as an id.
        """
        text = surrogates.mended(arguments.encode("utf-8", "replace"))
        if not json.is_native_object(text):
            return None
        usable: str | UnsetType = id if id and _USABLE_ID.fullmatch(id) else UNSET
        return native.ToolCall(native.ToolCallFunction(name, Raw(text)), usable)

    def value(self, tool: str, parameter: str, text: str) -> object:
        """Return the value of a parameter that is written as plain text, to be encoded as JSON.

        The tool's schema decides: text where it admits a string or says nothing, else JSON if the text is such.
        """
        types = self._types_of(tool, parameter)
        if "string" in types or not types:
            return None if "null" in types and text == "null" else text
        return _json_of(text, types) or text

    def _types_of(self, tool: str, parameter: str) -> frozenset[str]:
        properties = self._properties_of(tool)
        if parameter not in properties:
            return frozenset()
        if (tool, parameter) not in self._parameter_types:
            self._parameter_types[tool, parameter] = _types(properties[parameter])
        return self._parameter_types[tool, parameter]

    def _properties_of(self, tool: str) -> dict[str, Any]:
        if tool not in self._properties:
            properties = _schema(self._tools[tool]).get("properties")
            self._properties[tool] = properties if isinstance(properties, dict) else {}
        return self._properties[tool]


def json_value(text: str) -> object:
    """Return text as the JSON value that it is, or as text; what is returned is to be encoded."""
    return _json_of(text) or text


def _json_of(text: str, types: frozenset[str] = frozenset()) -> Raw | None:
    """Return the text of a value, if it is JSON of one of *types*, or of any type if there are none."""
    written = text.strip()
    written = _WORDS.get(written.lower(), written)
    data = surrogates.mended(written.encode("utf-8", "replace"))
    if not data or json_limits.too_deep(data):
        return None
    kind = _KINDS.get(written[0], "number")
    is_whole = kind == "number" and not set(".eE") & set(written)
    if types and kind not in types and not (is_whole and "integer" in types):
        return None
    raw = Raw(data)
    try:
        json.decode_raw(raw)
    except ValueError:
        return None
    return raw


def _schema(function: native.ToolFunction) -> dict[str, Any]:
    try:
        schema = json.decode_raw(Raw(json.text_of(function.parameters) or b"{}"))
    except ValueError:
        return {}
    return schema if isinstance(schema, dict) else {}


def _types(schema: object, depth: int = 8) -> frozenset[str]:
    """Return the types that the schema of a parameter admits; none if it does not say."""
    if not isinstance(schema, dict) or not depth:
        return frozenset()
    given = schema.get("type")
    found = {given} if isinstance(given, str) else set(filter(_is_text, given)) if isinstance(given, list) else set()
    for keyword in ("anyOf", "oneOf", "allOf"):
        alternatives = schema.get(keyword)
        for alternative in alternatives if isinstance(alternatives, list) else ():
            found |= _types(alternative, depth - 1)
    values = schema.get("enum")
    if not found and isinstance(values, list) and any(map(_is_text, values)):
        found.add("string")
    return frozenset(found)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
