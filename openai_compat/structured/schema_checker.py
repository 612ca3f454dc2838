"""Checking a finished answer against the client's JSON Schema.

The schema is untrusted, and the library that evaluates it (jsonschema) trusts schemas: it fetches references, compiles
regular expressions, recurses, and quotes whole answers in its messages. So the library never sees the client's schema,
only a sanitised copy: known keywords with valid values, references resolved, without names and dialects, with short
texts. ``schema_evaluation.py`` evaluates the copy within a step budget. A reported mismatch is always a real one;
whatever else can happen is :class:`Uncheckable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from openai_compat.structured.schema_evaluation import (
    MAX_NESTING,
    MAX_QUOTE,
    MAX_STEPS,
    MAX_TEXT,
    NEVER,
    UNSEEN,
    Budget,
    Uncheckable,
    canonical,
    is_number,
    library,
    line,
    verdict,
)
from openai_compat.structured.schema_keywords import SCHEMA, SCHEMA_ARRAY, SCHEMA_MAP
from openai_compat.wire import json_pointer
from openai_compat.wire.json_limits import MAX_DEPTH, MAX_VALUES, too_deep

__all__ = ["MAX_NESTING", "MAX_SIZE", "MAX_STEPS", "MAX_TEXT", "Checker", "Uncheckable", "checker"]

#: bytes of a schema: twice OpenAI's limit, which is 120,000 characters of names and values
MAX_SIZE = 256 * 1024


@dataclass(frozen=True)
class Checker:
    """A compiled schema; any number of threads may use one."""

    #: keywords of the schema that are not evaluated, sorted
    unevaluated: tuple[str, ...]
    _validator: Any = field(repr=False, compare=False)
    #: of all checks together; None: each check has its own
    _budget: Budget | None = field(default=None, repr=False, compare=False)

    def shared(self) -> Checker:
        """Return a checker of the same schema whose checks share a budget: for the choices of one request."""
        return replace(self, _budget=Budget())

    def mismatch(self, text: str) -> str | None:
        """Return None if *text* is one JSON document that the schema admits, else one line that says where and why.

        The line has at most :data:`MAX_TEXT` characters: a JSON path and a reason, which may quote short excerpts of
        the answer and of the schema.

        :raises Uncheckable: the answer is too large, or the check takes too long.
        """
        if too_deep(text.encode("utf-8", "replace")):
            return f"$: the answer is not one JSON document of at most {MAX_DEPTH} levels"
        if text.count("[") + text.count("{") > MAX_VALUES or text.count(",") + text.count(":") > 4 * MAX_VALUES:
            raise Uncheckable("the answer holds too many values")
        try:
            answer = _load(text)
        except json.JSONDecodeError as error:
            return line("$", f"the answer is not one JSON document: {error.msg} (character {error.pos})")
        except ValueError:
            return "$: the answer holds a number that is not valid or out of range"
        return verdict(self._validator, answer, self._budget or Budget())


def checker(schema: bytes) -> Checker:
    """Compile a JSON Schema of the dialect 2020-12, whatever ``$schema`` says.

    :param schema: its JSON, as the client sent it.
    :raises Uncheckable: the extra ``schema`` is not installed, or the schema is too large, too deep or not valid.
    """
    text = bytes(schema)
    if len(text) > MAX_SIZE:
        raise Uncheckable("the schema is too large")
    if too_deep(text):
        raise Uncheckable("the schema is nested too deep")
    try:
        root = _load(text.decode())
    except ValueError as error:
        raise Uncheckable("the schema is not JSON") from error
    try:
        validator, registry = library()
    except ImportError as error:
        raise Uncheckable("the extra 'schema' is not installed") from error
    copy = _Copy(root)
    return Checker(tuple(sorted(copy.unevaluated)), validator(copy.schema, registry=registry))


# -- values with a short repr(), which jsonschema puts into its messages -----------------------


class _Text(str):
    """A string that is longer than an excerpt may be."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self[:MAX_QUOTE] + "...")


class _Array(list[Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        return "an array"


class _Object(dict[str, Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        return "an object"


def _load(text: str) -> Any:
    try:
        return _with_short_repr(json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number))
    except RecursionError as error:
        raise Uncheckable("the stack is full") from error


def _number(text: str) -> int | float:
    """Return a finite number, as an integer however it is written: JSON Schema does not tell 1.0 from 1."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("out of range")
    if text.lstrip("-").isdigit():
        return int(text)
    return int(value) if value.is_integer() else value


def _with_short_repr(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_QUOTE else _Text(value)
    if isinstance(value, list):
        return _Array([_with_short_repr(item) for item in value])
    if isinstance(value, dict):
        return _Object([(_with_short_repr(name), _with_short_repr(item)) for name, item in value.items()])
    return value


# -- the copy of a schema ---------------------------------------------------------------------

_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_names(names) and 0 < len(names) <= len(_TYPES) and _TYPES.issuperset(names)


#: keywords whose value is data → whether a value is valid
_DATA: dict[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "enum": lambda value: isinstance(value, list),
    "const": lambda value: True,
    "multipleOf": lambda value: is_number(value) and value > 0,
    "uniqueItems": lambda value: isinstance(value, bool),
    "required": _is_names,
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_is_names, value.values())),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), is_number),
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxContains", "minContains"), _is_count),
    **dict.fromkeys(("maxProperties", "minProperties"), _is_count),
}
#: keywords that identify parts of a schema by other means than a JSON pointer
_IDENTIFIERS = frozenset(("$id", "$dynamicRef", "$recursiveRef"))
_KEYWORDS = frozenset((*_DATA, *SCHEMA, *SCHEMA_ARRAY, *SCHEMA_MAP, *UNSEEN, *_IDENTIFIERS, "$ref"))
#: keywords with a meaning of their own; a schema without any of them is replaced by ``true``, which costs no steps
_ACTIVE = _KEYWORDS - {"then", "else", "minContains", "maxContains"}


class _Copy:
    """The sanitised copy of a schema: only known keywords, with values that they can have.

    It is made without recursion, since a chain of references may be long. A reference becomes the copy of its target,
    so a copy may contain itself.
    """

    def __init__(self, root: Any) -> None:
        self.unevaluated: set[str] = set()
        self._root = root
        self._copies: dict[int, _Object] = {}
        self._pending: list[tuple[dict[str, Any], _Object]] = []
        self.schema = self._copy_of(root)
        while self._pending:
            self._fill(*self._pending.pop())

    def _copy_of(self, original: Any) -> dict[str, Any] | bool:
        if isinstance(original, bool):
            return original or NEVER
        if not isinstance(original, dict):
            raise Uncheckable("a part of the schema is neither an object nor a boolean")
        if _ACTIVE.isdisjoint(original):
            return True
        if id(original) not in self._copies:
            self._copies[id(original)] = _Object()
            self._pending.append((original, self._copies[id(original)]))
        return self._copies[id(original)]

    def _fill(self, original: dict[str, Any], copy: _Object) -> None:
        for keyword, value in original.items():
            if keyword in SCHEMA:
                copy[keyword] = self._copy_of(value)
            elif keyword in SCHEMA_ARRAY and isinstance(value, list) and value:
                copy[keyword] = _Array(map(self._copy_of, value))
            elif keyword in SCHEMA_MAP and isinstance(value, dict):
                copy[keyword] = _Object((name, self._copy_of(part)) for name, part in value.items())
            elif keyword in _DATA and _DATA[keyword](value):
                copy[keyword] = value
            elif keyword in UNSEEN:
                copy[keyword] = UNSEEN[keyword]
                self.unevaluated.add(keyword)
            elif keyword == "$ref":
                copy[keyword] = self._copy_of(self._target(value))
            elif keyword in _IDENTIFIERS:
                if keyword != "$id" or original is not self._root:
                    raise Uncheckable(f"'{keyword}' is not supported in a schema")
            elif keyword in _KEYWORDS:
                raise Uncheckable(f"'{keyword}' has a value in the schema that is not valid")
        for keyword in copy.keys() & {"enum", "const"}:
            values = copy[keyword] if keyword == "enum" else [copy[keyword]]
            copy[keyword] = dict.fromkeys(map(canonical, values)).keys()
        if "patternProperties" in copy and copy.pop("additionalProperties", True) is not True:
            self.unevaluated.add("additionalProperties")  # it depends on the patterns

    def _target(self, reference: Any) -> Any:
        """Return the part that a reference refers to, which must be a JSON pointer into the schema."""
        try:
            return json_pointer.resolve(self._root, reference)
        except ValueError:
            raise Uncheckable("the schema has a $ref that is not a JSON pointer into it") from None
        except LookupError:
            raise Uncheckable("the schema has a $ref that has no target") from None
