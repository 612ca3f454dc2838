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

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from openai_compat.structured.schema_keywords import SCHEMA, SCHEMA_ARRAY, SCHEMA_MAP
from openai_compat.wire import json, json_pointer

# A tool's schema may be of any dialect, so the schemas in keywords of earlier dialects are converted too; so are those
# in keywords that the converter ignores, since it still resolves the references there.
_SCHEMA = SCHEMA | {"additionalItems", "contentSchema", "unevaluatedItems", "unevaluatedProperties"}
_SCHEMA_ARRAY = SCHEMA_ARRAY | {"items"}
_SCHEMA_MAP = SCHEMA_MAP | {"dependencies", "patternProperties"}
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

#: a schema that admits any value; the converter takes an empty one for an object schema
_ANYTHING: dict[str, Any] = {"type": ["object", "array", "string", "number", "boolean", "null"]}
#: the converter refuses a schema that has none of these keywords
_CONVERTIBLE_KEYWORDS = frozenset(
    ("$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "additionalProperties")
    + ("items", "prefixItems", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems")
)
_OBJECT: dict[str, Any] = {"type": "object"}
#: stands for a subschema that admits no value, and for a keyword that is left out
_NOTHING: Any = object()


def calls_schema(tools: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    """Return the schema of ``{"name": …, "parameters": {…}}`` for a call of one of *tools*, with keys in this order.

    Parameters that are not an object schema become ``{"type": "object"}``. A subschema ``true``, and a reference that
    is remote, circular or without a target, admits any value; an alternative ``false`` is left out.

    :param tools: at least one name and the JSON of its parameters, empty for none.
    """
    calls = []
    definitions: dict[str, Any] = {}
    for index, (name, text) in enumerate(tools):
        parameters, needed = _parameters(text, f"tool-{index}-")
        definitions.update(needed)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, **({"$defs": definitions} if definitions else {})}


def _parameters(text: bytes, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of a tool's parameters, and its definitions, whose names begin with *prefix*."""
    try:
        root = json.decode_raw(Raw(text)) if json.is_object(text) else {}
    except ValueError:  # a number out of range that is_object() does not detect
        root = {}
    root = _object_schema(root)
    tool = _Tool(root, prefix)
    parameters = tool.convert(root)
    return (dict(_OBJECT) if parameters in (_NOTHING, _ANYTHING) else parameters), tool.definitions()


def _object_schema(root: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema as an object schema; ``{"type": "object"}`` for a schema of other values."""
    schema = {keyword: value for keyword, value in root.items() if keyword not in ("$schema", "$id")}
    kind = schema.get("type")
    if isinstance(kind, list) and "object" in kind:
        return {**schema, "type": "object"}
    if kind is None and not _OBJECT_KEYWORDS.isdisjoint(schema):
        schema.pop("type", None)
        return {"type": "object", **schema}
    return schema if kind == "object" or kind is None and not _COMBINING_KEYWORDS.isdisjoint(schema) else dict(_OBJECT)


class _Tool:
    """A tool's schema while it is copied into the schema of the call."""

    def __init__(self, root: dict[str, Any], prefix: str) -> None:
        self._root = root
        #: references → their targets
        self._targets: dict[str, Any] = {}
        #: the parts that are referred to: their new names by identity, and themselves in that order
        self._names: dict[int, str] = {}
        self._referenced: list[dict[str, Any]] = []
        seen: set[int] = set()
        pending: list[Any] = [root]
        for part in pending:  # the loop appends to it
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            target = self._target(part.get("$ref"))
            if isinstance(target, dict) and id(target) not in self._names:
                self._names[id(target)] = f"{prefix}{len(self._names)}"
                self._referenced.append(target)
                pending.append(target)
            for keyword, value in part.items():
                _with_parts(keyword, value, pending.append)

    def definitions(self) -> dict[str, Any]:
        """Return the parts that are referred to, by their new names."""
        return {self._names[id(part)]: _or_anything(self._copy(part)) for part in self._referenced}

    def convert(self, part: Any) -> Any:
        """Return what replaces a part: a reference, a copy, or :data:`_NOTHING` for ``false``."""
        if isinstance(part, dict) and id(part) in self._names:
            return {"$ref": f"#/$defs/{self._names[id(part)]}"}
        if part is False:
            return _NOTHING
        return self._copy(part) if isinstance(part, dict) else dict(_ANYTHING)

    def _copy(self, part: dict[str, Any]) -> Any:
        """Return a copy of a part in which every subschema is converted."""
        if "$ref" in part:
            target = self._target(part["$ref"])
            if not isinstance(target, dict):
                return _NOTHING if target is False else dict(_ANYTHING)
        schema = {}
        for keyword, value in part.items():
            if keyword == "$ref":
                schema[keyword] = f"#/$defs/{self._names[id(target)]}"
            elif keyword not in ("$defs", "definitions"):
                new = _with_parts(keyword, value, self.convert)
                if new is not _NOTHING:
                    schema[keyword] = new
        return {**_ANYTHING, **schema} if _CONVERTIBLE_KEYWORDS.isdisjoint(schema) else schema

    def _target(self, reference: Any) -> Any:
        """Return the schema that a reference refers to; None if there is none, or the chain is circular or too long."""
        target = part = self._resolve(reference)
        for _ in range(_MAX_HOPS):
            if not isinstance(part, dict) or "$ref" not in part:
                return target
            part = self._resolve(part["$ref"])
        return None

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str):
            return None
        if reference not in self._targets:
            try:
                self._targets[reference] = json_pointer.resolve(self._root, reference)
            except (ValueError, LookupError):
                self._targets[reference] = None
        return self._targets[reference]


def _with_parts(keyword: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return the value of a keyword with its schemas converted; :data:`_NOTHING` to leave the keyword out."""
    if keyword in _BOOLEAN_OR_SCHEMA and isinstance(value, bool):
        return value
    if keyword in _SCHEMA_ARRAY and isinstance(value, list):
        new = [convert(part) for part in value]
        if keyword in ("prefixItems", "items"):  # the index of a schema counts
            return [_or_anything(part) for part in new] or _NOTHING
        return [part for part in new if part is not _NOTHING] or _NOTHING
    if keyword in _SCHEMA_MAP:
        if not isinstance(value, dict):
            return _NOTHING
        lists = list if keyword == "dependencies" else ()  # an array of names in place of a schema
        parts = {name: part if isinstance(part, lists) else convert(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not _NOTHING}
    if keyword in _SCHEMA:
        new = convert(value)
        # The converter takes an empty schema for an object schema here too, but not ``true``.
        return True if keyword == "additionalProperties" and new == _ANYTHING else new
    return _NOTHING if keyword == "enum" and value == [] or keyword in _SCHEMA_ARRAY else value


def _or_anything(schema: Any) -> Any:
    return dict(_ANYTHING) if schema is _NOTHING else schema
