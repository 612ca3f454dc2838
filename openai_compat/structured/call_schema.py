"""The JSON Schema of a call of one of the tools, for Ollama's ``format``.

llama.cpp's grammar converter, which Ollama uses, resolves only ``#/…`` pointers from the root of the schema that it is
given. So each part of a tool's schema that a ``$ref`` refers to, in whatever way, is written once, under ``$defs`` of
the whole schema with a name of ours (``tool-0-1``), and referred to by that pointer; the tool's own ``$defs`` are not
copied.

What the converter cannot express, or would refuse, is widened, never narrowed. A widened schema admits every value that
the tool's schema admits, and others; a narrowed one excludes some of them. Narrowing could make a correct call
impossible; widening only leaves a wrong call to the client, which checks arguments anyway.
Keywords that no grammar can hold (``not``, ``if``) stay as they are. Everything else is unchanged, in its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from msgspec import Raw

from openai_compat.errors import APIError
from openai_compat.structured.schema_keywords import SCHEMA, SCHEMA_ARRAY, SCHEMA_MAP
from openai_compat.wire import json, json_pointer

# A tool's schema may be of any dialect, so the schemas in keywords of earlier dialects are converted too; so are those
# in keywords that the converter ignores, since it still resolves the references there.
_SCHEMA = SCHEMA | {"additionalItems", "contentSchema", "unevaluatedItems", "unevaluatedProperties"}
_SCHEMA_ARRAY = SCHEMA_ARRAY | {"items"}
_SCHEMA_MAP = SCHEMA_MAP | {"dependencies", "patternProperties"}
#: keywords that are left out: their parts are written where they are needed
_LEFT_OUT = frozenset(("$defs", "definitions"))
#: keywords whose value may change
_SUBSCHEMAS = _SCHEMA | _SCHEMA_ARRAY | _SCHEMA_MAP | _LEFT_OUT | {"enum"}
#: keywords whose ``true`` or ``false`` is passed on as it is
_BOOLEAN_OR_SCHEMA = frozenset(("additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"))

#: a schema without ``type`` that has one of these keywords is an object schema
_OBJECT_KEYWORDS = frozenset(
    (
        "additionalProperties",
        "dependentRequired",
        "dependentSchemas",
        "maxProperties",
        "minProperties",
        "patternProperties",
        "properties",
        "propertyNames",
        "required",
        "unevaluatedProperties",
    )
)
#: a schema without ``type`` that has one of these may be an object schema, and is passed on
_COMBINING_KEYWORDS = frozenset(("$ref", "allOf", "anyOf", "oneOf"))

#: references in a row that are followed; generated schemas have one or two, so a longer chain counts as circular
_MAX_HOPS = 32

#: the type of a schema that admits any value; the converter takes an empty schema for an object schema
_ANY_TYPE = ["object", "array", "string", "number", "boolean", "null"]
#: the converter refuses a schema that has none of these keywords
_CONVERTIBLE_KEYWORDS = frozenset(
    ("$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "additionalProperties")
    + ("items", "prefixItems", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems")
)
_OBJECT: dict[str, Any] = {"type": "object"}
#: stands for a subschema that admits no value, and for a keyword that is left out
_NOTHING: Any = object()


def calls_schema(tools: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Return the schema of ``{"name": …, "parameters": {…}}`` for a call of one of *tools*, with keys in this order.

    Parameters that are not an object schema become ``{"type": "object"}``. A subschema ``true``, and a reference that
    is remote, circular or without a target, admits any value; an alternative ``false`` is left out.

    :param tools: at least one: its name and the JSON of its parameters, empty for none.
    """
    calls, definitions = _calls(tools)
    return {"anyOf": calls, **({"$defs": definitions} if definitions else {})}


#: calls of one answer: a bound for a model that repeats itself, far above what clients run side by side
_MAX_CALLS = 16


def answer_schema(
    tools: Iterable[tuple[str, bytes]], answer: bytes | None, *, can_answer: bool = True, is_single: bool = False
) -> dict[str, Any]:
    """Return the schema of ``{"calls": [one or several]}`` or ``{"answer": …}``, for a model without tools.

    :param tools: as in :func:`calls_schema`.
    :param answer: Ollama's ``format`` of an answer without calls, ``"json"`` or a schema; None for text.
    :param can_answer: an answer without calls is possible.
    :param is_single: at most one call is possible.
    """
    calls, definitions = _calls(tools)
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    array = {"type": "array", "items": items, "minItems": 1, "maxItems": 1 if is_single else _MAX_CALLS}
    branches = [_object_with("calls", array)]
    if can_answer:
        schema, more = _answer(answer)
        definitions.update(more)
        branches.append(_object_with("answer", schema))
    root = {"anyOf": branches} if can_answer else branches[0]
    return {**root, **({"$defs": definitions} if definitions else {})}


def _object_with(key: str, schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {key: schema}, "required": [key], "additionalProperties": False}


def _answer(text: bytes | None) -> tuple[Any, dict[str, Any]]:
    """Return the schema of an answer, and its definitions."""
    if text is None:
        return {"type": "string"}, {}
    root = _decoded(text)
    if not isinstance(root, dict):
        return dict(_OBJECT), {}  # ``"json"``
    root.pop("$schema", None)
    root.pop("$id", None)
    schema = _Tool(root, "answer-", has_references=_has_references(text))
    converted = schema.convert(root)
    return (dict(_OBJECT) if converted is _NOTHING else converted), schema.definitions()


def _calls(tools: Iterable[tuple[str, bytes]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the schema of a call of each tool, and their definitions."""
    calls: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for name, text in tools:
        has_references = _has_references(text)
        root = _root(text)
        del text  # a large one
        tool = _Tool(root, f"tool-{len(calls)}-", has_references=has_references)
        parameters = tool.convert(root)
        if parameters is _NOTHING or parameters == {"type": _ANY_TYPE}:
            parameters = dict(_OBJECT)
        definitions.update(tool.definitions())
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    return calls, definitions


def _has_references(text: bytes) -> bool:
    return b"$ref" in text or b"\\u" in text


#: what a tool's schema costs, in bytes for each of these in its text: decoded and converted, and then encoded
_COSTS = ((b'"', 20), (b":", 78), (b",", 10), (b"{", 74), (b"true", 60), (b"[", 60), (b"$ref", 400))
_ANYTHING_SIZE = 62


def memory(text: bytes) -> int:
    """Return about how many bytes a tool's parameters take in :func:`calls_schema` and in the request made of them.

    It is estimated from the characters, so that nothing is decoded. Those in descriptions count too.
    """
    decoded = sum(cost * text.count(mark) for mark, cost in _COSTS)
    encoded = len(text) + _ANYTHING_SIZE * (text.count(b"{") + text.count(b"true"))
    return 2 * len(text) + max(decoded, encoded * 11 // 4)  # it is copied into the request


def _root(text: bytes) -> dict[str, Any]:
    """Decode a tool's parameters, as an object schema."""
    value = _decoded(text)
    return _object_schema(value if isinstance(value, dict) else {})


def _decoded(text: bytes) -> Any:
    """Decode a schema; None for what is no JSON within the limits of a request."""
    try:
        json.checked_body(text)
        return json.decode_raw(Raw(text))
    except (APIError, ValueError):
        return None


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema as an object schema, changed in place; ``{"type": "object"}`` for a schema of other values."""
    schema.pop("$schema", None)
    schema.pop("$id", None)
    kind = schema.get("type")
    if isinstance(kind, list) and "object" in kind:
        schema["type"] = "object"
        return schema
    if kind is None and not _OBJECT_KEYWORDS.isdisjoint(schema):
        schema.pop("type", None)
        return {"type": "object", **schema}
    return schema if kind == "object" or kind is None and not _COMBINING_KEYWORDS.isdisjoint(schema) else dict(_OBJECT)


class _Tool:
    """A tool's schema while it becomes a part of the schema of the call.

    It is converted in place, since a copy would take as much memory again: each part once, where it is written.
    """

    def __init__(self, root: dict[str, Any], prefix: str, *, has_references: bool) -> None:
        self._root = root
        #: stands for every schema that admits any value
        self._anything = {"type": list(_ANY_TYPE)}
        #: references → what they refer to, and their final targets
        self._resolved: dict[str, Any] = {}
        self._targets: dict[str, Any] = {}
        #: the parts that are referred to: the new references by identity, and themselves in that order
        self._references: dict[int, str] = {}
        self._referenced: list[dict[str, Any]] = []
        if has_references:
            self._find_references(f"#/$defs/{prefix}")

    def _find_references(self, prefix: str) -> None:
        """Resolve the references in the schema, and name their targets."""
        seen: set[int] = set()
        maps: set[int] = set()
        pending: deque[Any] = deque([self._root])
        while pending:
            part = pending.popleft()
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            target = self._target(part.get("$ref"))
            if isinstance(target, dict) and id(target) not in self._references:
                self._references[id(target)] = f"{prefix}{len(self._references)}"
                self._referenced.append(target)
                pending.append(target)
            for keyword, value in part.items():
                pending.extend(_parts(keyword, value))
                if keyword in _SCHEMA_MAP:
                    maps.add(id(value))
        # An object of schemas is no schema: one that is referred to as such must not be converted where it is.
        for index, target in enumerate(self._referenced):
            if id(target) in maps:
                self._referenced[index] = json.decode_raw(Raw(json.encode(target)))

    def definitions(self) -> dict[str, Any]:
        """Return the parts that are referred to, by their new names."""
        names = (reference.removeprefix("#/$defs/") for reference in self._references.values())
        return {
            name: self._or_anything(self._converted(part)) for name, part in zip(names, self._referenced, strict=True)
        }

    def convert(self, part: Any) -> Any:
        """Return what replaces a part: a reference, the part itself, or :data:`_NOTHING` for ``false``."""
        if isinstance(part, dict):
            reference = self._references.get(id(part))
            return self._converted(part) if reference is None else {"$ref": reference}
        return _NOTHING if part is False else self._anything

    def _converted(self, part: dict[str, Any]) -> Any:
        """Return a part in which every subschema is converted."""
        if "$ref" in part:
            target = self._targets.get(part["$ref"]) if isinstance(part["$ref"], str) else None
            if not isinstance(target, dict):
                return _NOTHING if target is False else self._anything
            part["$ref"] = self._references[id(target)]
        for keyword in _SUBSCHEMAS if len(part) > len(_SUBSCHEMAS) else list(part):
            if keyword in part:
                self._convert_keyword(part, keyword)
        if _CONVERTIBLE_KEYWORDS.isdisjoint(part):
            return {"type": self._anything["type"], **part} if part else self._anything
        return part

    def _convert_keyword(self, part: dict[str, Any], keyword: str) -> None:
        """Convert the schemas in the value of a keyword, or leave the keyword out."""
        value = part[keyword]
        if keyword in _BOOLEAN_OR_SCHEMA and isinstance(value, bool):
            return
        if keyword in _SCHEMA_ARRAY and isinstance(value, list):
            value[:] = map(self.convert, value)
            if keyword in ("prefixItems", "items"):  # the index of a schema counts
                value[:] = map(self._or_anything, value)
            else:
                value[:] = [item for item in value if item is not _NOTHING]
            new = value or _NOTHING
        elif keyword in _SCHEMA_MAP:
            new = self._converted_map(value, keyword) if isinstance(value, dict) else _NOTHING
        elif keyword in _SCHEMA:
            new = self.convert(value)
            # The converter takes an empty schema for an object schema here too, but not ``true``.
            if keyword == "additionalProperties" and new == self._anything:
                new = True
        else:
            is_left_out = keyword in _LEFT_OUT or keyword in _SCHEMA_ARRAY or (keyword == "enum" and value == [])
            new = _NOTHING if is_left_out else value
        if new is _NOTHING:
            del part[keyword]
        else:
            part[keyword] = new

    def _converted_map(self, parts: dict[str, Any], keyword: str) -> dict[str, Any]:
        lists = list if keyword == "dependencies" else ()  # an array of names in place of a schema
        left_out = []
        for name, part in parts.items():
            if not isinstance(part, lists):
                new = self.convert(part)
                if new is _NOTHING:
                    left_out.append(name)
                elif new is not part:
                    parts[name] = new
        for name in left_out:
            del parts[name]
        return parts

    def _or_anything(self, schema: Any) -> Any:
        return self._anything if schema is _NOTHING else schema

    def _target(self, reference: Any) -> Any:
        """Return the schema that a reference refers to; None if there is none, or the chain is circular or too long."""
        if not isinstance(reference, str):
            return None
        if reference not in self._targets:
            self._targets[reference] = self._end_of_chain(reference)
        return self._targets[reference]

    def _end_of_chain(self, reference: str) -> Any:
        target = part = self._resolve(reference)
        for _ in range(_MAX_HOPS):
            if not isinstance(part, dict) or "$ref" not in part:
                return target
            part = self._resolve(part["$ref"])
        return None

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str):
            return None
        if reference not in self._resolved:
            try:
                self._resolved[reference] = json_pointer.resolve(self._root, reference)
            except (ValueError, LookupError):
                self._resolved[reference] = None
        return self._resolved[reference]


def _parts(keyword: str, value: Any) -> Iterable[Any]:
    """Return the schemas in the value of a keyword."""
    if keyword in _SCHEMA_ARRAY and isinstance(value, list):
        return value
    if keyword in _SCHEMA_MAP:
        return value.values() if isinstance(value, dict) else ()
    return (value,) if keyword in _SCHEMA else ()
