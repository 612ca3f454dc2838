"""Repair of JSON objects that cannot be decoded into their struct, guided by the struct's types.

Decoders are strict: an unknown key or a value of another type fails. Most texts decode at once; only for one that does
not, this module looks for what can be left out without a change of meaning. Values that stay are never re-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
from msgspec import Raw, inspect

#: returns a decoder of values of a type, which raises a ValueError
NewDecoder = Callable[[Any], Callable[[bytes], Any]]


class Codec(Protocol):
    """The functions of a JSON codec that a repair needs."""

    def members(self, text: bytes) -> dict[str, Raw]:
        """Return the members of an object, their values not decoded."""

    def items(self, text: bytes) -> list[Raw]:
        """Return the items of an array, not decoded."""

    def encode(self, value: object) -> bytes:
        """Encode members or items again; those that are ``Raw`` byte for byte."""


#: a value that asks for nothing: an empty array or object, and blank text
EMPTY = re.compile(rb'\[\s*\]|\{\s*\}|"(?:\s|\\[tnrf])*"')
_KINDS = {ord("{"): "object", ord("["): "array", ord('"'): "string", ord("t"): "boolean", ord("f"): "boolean"}

#: names of unknown keys that are remembered, and characters of each: more are of no use to anybody
_MAX_UNKNOWN, _MAX_PATH = 1000, 128
#: stands for the key ""
_NO_NAME = '""'


@dataclass(frozen=True)
class Shape:
    """What a type admits: kinds of JSON values, the members of an object, the items of an array."""

    kinds: set[str] = field(default_factory=set)
    members: dict[str, Shape] | None = None
    items: Shape | None = None
    #: decodes a value that may be left out if it is not valid
    decode: Callable[[bytes], Any] | None = None


_SIMPLE = {
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.DictType: "object",
    inspect.LiteralType: "string",
}
_ALL = {"object", "array", "string", "boolean", "number"}


def shape(kind: Any, new_decoder: NewDecoder) -> Shape:
    """Return the shape of a type. A struct names members that may be left out in ``INCIDENTAL``."""
    return _Shapes(new_decoder).of(inspect.type_info(kind))


class _Shapes:
    """Shapes by their types; a struct that refers to itself has one shape."""

    def __init__(self, new_decoder: NewDecoder) -> None:
        self._new_decoder = new_decoder
        self._known: dict[Any, Shape] = {}

    def of(self, info: inspect.Type) -> Shape:
        """Return the shape of a type."""
        if isinstance(info, inspect.Metadata):
            return self.of(info.type)
        if isinstance(info, inspect.UnionType):
            return _merged([self.of(part) for part in info.types])
        if isinstance(info, inspect.StructType):
            return self._known[info.cls] if info.cls in self._known else self._struct(info)
        if isinstance(info, inspect.ListType):
            return Shape({"array"}, items=self.of(info.item_type))
        if isinstance(info, inspect.RawType | inspect.AnyType):
            return Shape(set(_ALL))
        return Shape({_SIMPLE[type(info)]} if type(info) in _SIMPLE else set())

    def _struct(self, info: inspect.StructType) -> Shape:
        members: dict[str, Shape] = {}
        self._known[info.cls] = Shape({"object"}, members)
        incidental: frozenset[str] = getattr(info.cls, "INCIDENTAL", frozenset())
        types = {item.name: item.type for item in msgspec.structs.fields(info.cls)}
        for item in info.fields:
            member = self.of(item.type)
            if item.name in incidental:
                member = replace(member, decode=self._new_decoder(types[item.name]))
            members[item.encode_name] = member
        return self._known[info.cls]


def _merged(shapes: list[Shape]) -> Shape:
    """Return the shape of a union, which has one struct and one list at most."""
    return Shape(
        set().union(*(one.kinds for one in shapes)),
        next((one.members for one in shapes if one.members is not None), None),
        next((one.items for one in shapes if one.items is not None), None),
    )


class Repair:
    """The repair of one text."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._unknown: dict[str, None] = {}

    @property
    def unknown(self) -> list[str]:
        """Return the paths of unknown keys that have a value, such as ``tools[].function.x``."""
        return list(self._unknown)

    def of(self, text: bytes, shape: Shape, path: str = "") -> bytes | None:
        """Return the text without unknown keys, empty values of another kind, and incidental values that are not valid.

        :returns: None if the value itself is an empty one of another kind: it means the same as an absent one.
        """
        text = text.strip()
        kind = _KINDS.get(text[0], "number") if text else ""
        if kind not in shape.kinds:
            return None if EMPTY.fullmatch(text) else text
        if kind == "object" and shape.members is not None:
            return self._object(text, shape, path)
        if kind == "array" and shape.items is not None and (shape.items.members or shape.items.items):
            return self._array(text, shape.items, path)
        return text

    def _object(self, text: bytes, shape: Shape, path: str) -> bytes:
        assert shape.members is not None
        kept: dict[str, Raw] = {}
        is_changed = False
        for key, raw in self._codec.members(text).items():
            member, value = shape.members.get(key), bytes(raw).strip()
            if member is None:
                if value != b"null" and not EMPTY.fullmatch(value) and len(self._unknown) < _MAX_UNKNOWN:
                    self._unknown[f"{path}{key or _NO_NAME}"[:_MAX_PATH]] = None
                new = None
            else:
                new = self.of(value, member, f"{path}{key}.")
                if new is not None and member.decode is not None and not _decodes(member.decode, new):
                    new = None
            is_changed = is_changed or new is not value
            if new is not None:
                kept[key] = Raw(new)
        return self._codec.encode(kept) if is_changed else text

    def _array(self, text: bytes, item: Shape, path: str) -> bytes:
        path = path.removesuffix(".") + "[]."
        kept, is_changed = [], False
        for raw in self._codec.items(text):
            value = bytes(raw).strip()
            new = self.of(value, item, path)
            # An item is never left out: the number and the places of items have a meaning.
            kept.append(raw if new is None else Raw(new))
            is_changed = is_changed or (new is not None and new is not value)
        return self._codec.encode(kept) if is_changed else text


def _decodes(decode: Callable[[bytes], Any], text: bytes) -> bool:
    try:
        decode(text)
    except ValueError:
        return False
    return True
