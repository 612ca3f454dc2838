"""JSON Schemas that are valid and that the native side cannot read: only what it cannot read is rewritten.

Ollama decodes the ``parameters`` of a tool into structs, and llama.cpp turns a ``format`` into a grammar. Neither takes
a boolean where it expects a schema, and each has more such places. A schema is rewritten in its text, in one pass, so
that everything else stays byte for byte: other members, their order, numbers. ``true`` becomes a schema that admits
anything; a property or an alternative ``false`` is left out, since neither has a schema that admits nothing. What is no
schema in any dialect is refused with its path.

The tables at the end say what each keyword takes. Keywords that are not in them are not read by the native side.

Source: ollama ``api/types.go`` ``ToolFunctionParameters``, ``ToolProperty`` (at fb3076099); llama.cpp
``common/json-schema-to-grammar.cpp``, ``common/json-schema.cpp``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import APIError, invalid
from openai_compat.wire import json


def tool_parameters(schema: bytes, param: str) -> bytes:
    """Return the parameters of a tool as Ollama can decode them; the same object if it can already.

    :param schema: valid JSON.
    :param param: its path in the request, for errors.
    :raises APIError: 400 with the path of what is no schema.
    """
    return _rewritten(schema, param, _PARAMETERS)


def format_schema(schema: bytes, param: str) -> bytes:
    """Return the schema of an answer as llama.cpp can make a grammar of it; the same object if it can already.

    :param schema: valid JSON.
    :param param: its path in the request, for errors.
    :raises APIError: 400 with the path of what is no schema.
    """
    return _rewritten(schema, param, _ANSWER)


def readable(schema: Raw | UnsetType, rewrite: Callable[[bytes, str], bytes], param: str) -> Raw:
    """Return a schema as *rewrite*, one of the functions above, makes it; itself if it stays as it is.

    :raises APIError: 400 for a schema that *rewrite* refuses.
    """
    text = json.text_of(schema)
    new = rewrite(text, param)
    return schema if new is text and schema is not UNSET else Raw(new)


#: bytes of a schema whose result is remembered: agents send the same tools with each request
_MAX_REMEMBERED = 8192


def _rewritten(schema: bytes, param: str, role: _Role) -> bytes:
    if len(schema) > _MAX_REMEMBERED:
        return _Rewriting(schema, param).result(role)
    result = _remembered(schema, param, role is _PARAMETERS)
    return schema if result is None else result


@functools.lru_cache(maxsize=512)
def _remembered(schema: bytes, param: str, is_tool: bool) -> bytes | None:
    """Return a rewritten schema; None if nothing has to change."""
    result = _Rewriting(schema, param).result(_PARAMETERS if is_tool else _ANSWER)
    return None if result is schema else result


# -- what a keyword takes ---------------------------------------------------------------------

_Kind = Literal["object", "array", "string", "number", "true", "false", "null"]

_KEEP: Literal["keep"] = "keep"
#: leave out the member or the item
_OMIT: Literal["omit"] = "omit"


@dataclass(frozen=True)
class _Object:
    """An object that is read."""

    #: keywords → what they take
    keywords: dict[bytes, _Role] = field(default_factory=dict)
    #: what all other members take
    others: _Role | None = None
    #: keys are compared as Go's decoder does, without regard to case; the keywords are in lower case
    folds: bool = False


@dataclass(frozen=True)
class _Array:
    """An array that is read."""

    #: what its items take; without it the array must be empty
    items: _Role | None
    #: what becomes of the array where no item is left
    if_empty: _Action = _KEEP
    #: what becomes of it otherwise
    if_not: _Action = _KEEP


#: what becomes of a value: these bytes in its place, or one of the words above
_Action = bytes | Literal["keep", "omit"]


@dataclass(frozen=True)
class _Role:
    """The values that are possible somewhere, by their kind, and what becomes of them."""

    #: in words, for errors
    expected: str
    kinds: dict[_Kind, _Action | _Object | _Array]


# -- the pass over the text -------------------------------------------------------------------

_SPACE = re.compile(rb"[ \t\r\n]*")
_LITERAL = re.compile(rb"[^ \t\r\n,\]}]*")
_MARK = re.compile(rb'["\[\]{}]')
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'

_KINDS: dict[int, _Kind] = {
    ord("{"): "object",
    ord("["): "array",
    ord('"'): "string",
    ord("t"): "true",
    ord("f"): "false",
    ord("n"): "null",
}
_KIND_NAMES = {"string": "a string", "number": "a number", "true": "a boolean", "false": "a boolean", "null": "null"}
_KIND_NAMES |= {"object": "an object", "array": "an array"}

#: characters of a property's name in an error's path
_MAX_NAME = 64


class _Frame:
    """An object or an array that is being read."""

    __slots__ = ("begin", "comma", "copied", "count", "drops", "has_members", "key", "member", "output", "rule")

    def __init__(self, rule: _Object | _Array, begin: int) -> None:
        self.rule = rule
        #: where it begins
        self.begin = begin
        #: where its present member begins, and that member's key
        self.member = begin
        self.key = (0, 0)
        #: members that were read
        self.count = 0
        #: where the comma before the present member is
        self.comma = 0
        #: a member before the present one stays
        self.has_members = False
        #: nothing stayed so far, and something was left out: so is the comma after it
        self.drops = False
        #: what was written when the present member began, to leave it out afterwards
        self.output = 0
        self.copied = 0


class _Rewriting:
    """One pass over a text; nothing is copied before the first change."""

    def __init__(self, text: bytes, param: str) -> None:
        self._text = text
        self._param = param
        self._frames: list[_Frame] = []
        self._output = bytearray()
        #: up to where the text is copied, or left out
        self._copied = 0

    def result(self, role: _Role) -> bytes:
        """Return the text with what has to change."""
        begin = self._value(role, self._after_space(0))
        while self._frames:
            frame = self._frames[-1]
            position = self._after_space(begin)
            byte = self._text[position]
            if byte == _COMMA:
                frame.comma = position
                begin = self._member(frame, self._after_space(position + 1))
            elif byte in b"]}":
                begin = self._end(position)
            else:
                begin = self._member(frame, position)
        if not self._copied:
            return self._text
        self._output += memoryview(self._text)[self._copied :]
        return bytes(self._output)

    def _after_space(self, position: int) -> int:
        match = _SPACE.match(self._text, position)
        assert match is not None
        return match.end()

    def _member(self, frame: _Frame, begin: int) -> int:
        """Begin a member of an object, or an item of an array; return where its value ends, or its content begins."""
        if frame.drops:
            self._copied, frame.drops = begin, False
        frame.member = begin
        frame.output, frame.copied = len(self._output), self._copied
        frame.count += 1
        rule = frame.rule
        if isinstance(rule, _Array):
            if rule.items is None:
                raise self._wrong("an object", "array", is_frame=True)
            return self._value(rule.items, begin)
        end = _end_of_string(self._text, begin)
        frame.key = (begin, end)
        colon = _COLON.match(self._text, end)
        if colon is None:
            raise ValueError("not valid JSON")
        return self._value(rule.others or self._role(rule, self._text[begin:end]), colon.end())

    def _role(self, rule: _Object, key: bytes) -> _Role:
        """Return what the keyword of a schema takes."""
        name = key[1:-1]
        role = rule.keywords.get(name)
        if role is None and (rule.folds or b"\\" in name):
            if b"\\" in name or not name.isascii():
                name = (json.string(key) or "").casefold().encode() if rule.folds else (json.string(key) or "").encode()
            role = rule.keywords.get(name.lower() if rule.folds else name)
        return role or _ANY

    def _value(self, role: _Role, begin: int) -> int:
        """Begin a value; return where it ends, or where its content begins."""
        kind = _KINDS.get(self._text[begin], "number")
        action = role.kinds.get(kind)
        if action is None:
            raise self._wrong(role.expected, kind)
        if isinstance(action, _Object | _Array):
            self._frames.append(_Frame(action, begin))
            return begin + 1
        end = _end_of_value(self._text, begin)
        self._act(action, begin, end)
        return end

    def _end(self, position: int) -> int:
        """End an object or an array, and return where it ends."""
        frame = self._frames.pop()
        if frame.drops:
            self._copied = position
        if isinstance(frame.rule, _Array):
            action = frame.rule.if_not if frame.has_members else frame.rule.if_empty
        else:
            action = _KEEP
        self._act(action, frame.begin, position + 1)
        return position + 1

    def _act(self, action: _Action, begin: int, end: int) -> None:
        """Keep, replace or leave out a value that ended."""
        parent = self._frames[-1] if self._frames else _Frame(_SCHEMA, begin)
        if action == _KEEP:
            parent.has_members = True
            return
        del self._output[parent.output :]  # changes within it
        self._copied = parent.copied
        if action != _OMIT:
            self._replace(begin, end, action)
            parent.has_members = True
        elif parent.has_members:
            self._replace(parent.comma, end)
        else:
            self._replace(parent.member, end)
            parent.drops = True

    def _replace(self, begin: int, end: int, new: bytes = b"") -> None:
        self._output += memoryview(self._text)[self._copied : begin]
        self._output += new
        self._copied = end

    def _wrong(self, expected: str, kind: _Kind, *, is_frame: bool = False) -> APIError:
        """Return the error for the present value, or for the object or array it is in."""
        path = self._param
        for frame in self._frames[:-1] if is_frame else self._frames:
            if isinstance(frame.rule, _Array):
                path += f"[{frame.count - 1}]"
            else:
                begin, end = frame.key
                path += f".{json.string(self._text[begin:end])}"[: _MAX_NAME + 1]
        text = f"Invalid type for '{path}': expected {expected}, but got {_KIND_NAMES[kind]} instead."
        return invalid(text, path, "invalid_type")


def _end_of_value(text: bytes, begin: int) -> int:
    """Return where a value ends that is not read."""
    byte = text[begin]
    if byte == _QUOTE:
        return _end_of_string(text, begin)
    if byte not in b"[{":
        match = _LITERAL.match(text, begin)
        assert match is not None
        return match.end()
    depth, position = 1, begin + 1
    while depth:
        mark = _MARK.search(text, position)
        if mark is None:
            raise ValueError("not valid JSON")
        position = mark.end()
        if mark[0] == b'"':
            position = _end_of_string(text, position - 1)
        else:
            depth += 1 if mark[0] in b"[{" else -1
    return position


def _end_of_string(text: bytes, begin: int) -> int:
    """Return where a string ends, by plain searches: a regular expression would need memory for each escape."""
    end = text.index(b'"', begin + 1)
    while text[end - 1] == _BACKSLASH:
        first = end - 1
        while text[first - 1] == _BACKSLASH:
            first -= 1
        if not (end - first) % 2:
            break
        end = text.index(b'"', end + 1)
    return end + 1


# -- the tables -------------------------------------------------------------------------------

_ANY = _Role("a value", dict.fromkeys(("object", "array", "string", "number", "true", "false", "null"), _KEEP))
_TEXT = _Role("a string", {"string": _KEEP, "null": _KEEP})
_NAMES = _Role("an array of strings", {"array": _Array(_TEXT), "null": _KEEP})
_TYPE_NAMES = "a string or an array of strings"
_SCHEMA_NAMES = "an object or a boolean"
_ANYTHING = b"{}"

# Ollama's structs: a null is a zero value, and so is what is absent.
_PROPERTY = _Object(folds=True)
_PROPERTY_ROLE = _Role(_SCHEMA_NAMES, {"object": _PROPERTY, "true": _ANYTHING, "false": _OMIT, "null": _KEEP})
_PROPERTIES_ROLE = _Role(
    "an object", {"object": _Object(others=_PROPERTY_ROLE), "array": _Array(None, if_empty=b"{}"), "null": _KEEP}
)
_PROPERTY.keywords.update(
    {
        b"anyof": _Role("an array of schemas", {"array": _Array(_PROPERTY_ROLE), "null": _KEEP}),
        b"description": _TEXT,
        b"enum": _Role("an array", {"array": _KEEP, "null": _KEEP}),
        b"properties": _PROPERTIES_ROLE,
        b"required": _NAMES,
        b"type": _Role(_TYPE_NAMES, {"string": _KEEP, "array": _Array(_TEXT), "null": _KEEP}),
    }
)
_ROOT_TYPE = _Array(_TEXT, if_empty=b'"object"', if_not=b'"object"')
_PARAMETERS = _Role(
    "an object",
    {
        "object": _Object(
            {
                b"properties": _PROPERTIES_ROLE,
                b"required": _NAMES,
                b"type": _Role(_TYPE_NAMES, {"string": _KEEP, "array": _ROOT_TYPE, "null": _KEEP}),
            },
            folds=True,
        ),
        "array": _Array(None, if_empty=_ANYTHING),
        "null": _KEEP,
    },
)

# llama.cpp: a keyword that is null is as if it were absent.
_SCHEMA = _Object()
_PART = _Role(_SCHEMA_NAMES, {"object": _SCHEMA, "true": _ANYTHING, "false": _OMIT, "null": _ANYTHING})
#: a schema whose place counts, or that something may refer to
_FIXED_PART = _Role(_SCHEMA_NAMES, {**_PART.kinds, "false": _ANYTHING})
#: one that is the same as no schema where it is ``true``
_ADDED_PART = _Role(_SCHEMA_NAMES, {**_PART.kinds, "true": _OMIT, "null": _OMIT})


def _map_of(role: _Role) -> _Role:
    return _Role("an object", {"object": _Object(others=role), "array": _Array(None, if_empty=b"{}"), "null": _OMIT})


def _array_of(role: _Role, expected: str = "an array of schemas") -> _Role:
    return _Role(expected, {"array": _Array(role, if_empty=_OMIT), "null": _OMIT})


_OPTIONAL_TEXT = _Role("a string", {"string": _KEEP, "null": _OMIT})
_SCHEMA.keywords.update(
    {
        b"$ref": _OPTIONAL_TEXT,
        b"additionalProperties": _Role(
            _SCHEMA_NAMES, {"object": _SCHEMA, "true": _KEEP, "false": _KEEP, "null": _OMIT}
        ),
        b"description": _TEXT,
        b"enum": _array_of(_ANY, "an array"),
        b"format": _OPTIONAL_TEXT,
        b"items": _Role(
            "an object, an array or a boolean",
            {"object": _SCHEMA, "array": _Array(_FIXED_PART), "true": _ANYTHING, "false": _OMIT, "null": _OMIT},
        ),
        b"pattern": _OPTIONAL_TEXT,
        b"required": _NAMES,
        b"type": _Role(
            _TYPE_NAMES,
            {"string": _KEEP, "array": _Array(_TEXT, if_empty=_OMIT), "null": _KEEP},
        ),
        **dict.fromkeys((b"$defs", b"definitions"), _map_of(_FIXED_PART)),
        b"properties": _map_of(_PART),
        **dict.fromkeys((b"anyOf", b"oneOf"), _array_of(_PART)),
        b"allOf": _array_of(_ADDED_PART),
        b"prefixItems": _array_of(_FIXED_PART),
        **dict.fromkeys(
            (
                *(b"minItems", b"maxItems", b"minLength", b"maxLength"),
                *(b"minimum", b"maximum", b"exclusiveMinimum", b"exclusiveMaximum"),
            ),
            _Role("a value", {**_ANY.kinds, "null": _OMIT}),
        ),
    }
)
_ANSWER = _Role("an object", {"object": _SCHEMA})
