"""Evaluation of a sanitised schema copy by jsonschema, within a step budget.

Every evaluation of a keyword costs steps, so that a check ends whatever the schema and the answer are; texts are cut.
jsonschema is an extra, and this is the only module that imports it; the copy comes from ``schema_checker.py``.

Keywords that are not evaluated (:data:`UNSEEN`, such as ``pattern``) count as satisfied. Where satisfying a subschema
speaks against the answer, as in ``not``, such a result is uncertain and is not reported: see :func:`_tried`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, KeysView
from contextvars import ContextVar
from fractions import Fraction
from itertools import islice
from typing import Any

#: what one check may cost: a step is one keyword at one place, about 5 µs, one error, or 16 members gone through
MAX_STEPS = 200_000

#: keywords within keywords, references too; a level takes up to 1.6 KiB of the stack (Python 3.10), of which a thread
#: may have 256 KiB
MAX_NESTING = 64

#: the longest line about a mismatch, in characters
MAX_TEXT = 300

#: the longest excerpt in it of a text or of a path's end, in characters
MAX_QUOTE = 60

_MAX_ERRORS = 8


class Uncheckable(Exception):
    """An answer cannot be checked against a schema. The text is a short reason that quotes neither."""


# -- what a copy and its evaluation agree on --------------------------------------------------

#: keywords that are not looked at, and what they apply to
UNSEEN: dict[str, type] = {
    "pattern": str,
    "format": str,
    "patternProperties": dict,
    "unevaluatedProperties": dict,
    "dependencies": dict,
    "unevaluatedItems": list,
}

#: the schema that is false, as a keyword: of a false one itself, the library loses the place
NEVER: dict[str, Any] = {"false": True}

#: the same text for equal values. Their hashes would not do: integers whose hashes are equal are easily made
canonical = json.JSONEncoder(sort_keys=True).encode


def is_number(value: Any) -> bool:
    """Return whether a value is one of JSON's numbers, which a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- a check ----------------------------------------------------------------------------------

_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any]]


class _Run:
    """The budget and the state of one check."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.nesting = 0
        #: how many keywords that are not looked at have applied
        self.unsure = 0

    def spend(self, steps: int) -> None:
        """Take steps from the budget.

        :raises Uncheckable: it is exhausted.
        """
        self.steps -= steps
        if self.steps < 0:
            raise Uncheckable("the check takes too many steps")


#: the library hands nothing on from keyword to keyword that could carry it
_run: ContextVar[_Run] = ContextVar("_run")


@functools.cache
def library() -> tuple[Any, Any]:
    """Return the class of validators, and a registry of other schemas that is empty and fetches none.

    :raises ImportError: the extra ``schema`` is not installed.
    """
    import referencing
    from jsonschema import validators

    base: Any = validators.Draft202012Validator
    extend: Any = validators.extend
    keywords = {**base.VALIDATORS, **_OURS}
    return extend(base, {name: _counted(keyword) for name, keyword in keywords.items()}), referencing.Registry()


def _counted(keyword: _Keyword) -> _Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> list[Any]:
        run = _run.get()
        run.spend(1 + (_size(value) + _size(instance) >> 4))
        if run.nesting == MAX_NESTING:
            raise Uncheckable("the check is nested too deep")
        run.nesting += 1
        try:
            errors = list(islice(keyword(validator, value, instance, schema), _MAX_ERRORS))
        finally:
            run.nesting -= 1
        run.spend(len(errors))
        return errors

    return counted


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def verdict(validator: Any, answer: Any) -> str | None:
    """Return None if the schema admits the answer, else one line that says where and why.

    :raises Uncheckable: the check takes too long, or fails.
    """
    worst = _shallowest(_errors(validator, answer))
    return None if worst is None else line(_path(worst.path), _said(worst))


def _errors(validator: Any, answer: Any) -> list[Any]:
    """Return the first errors; one that was found before the budget was exhausted is still a real mismatch."""
    found: list[Any] = []
    _run.set(_Run())
    try:
        for error in islice(validator.iter_errors(answer), _MAX_ERRORS):
            found.append(error)
    except Uncheckable:
        if not found:
            raise
    except Exception as error:  # whatever the library trips over; a full stack, for one
        raise Uncheckable("the check failed") from error
    return found


def _tried(validator: Any, instance: Any, schema: Any) -> tuple[list[Any], bool]:
    """Return the errors of a subschema, and whether its result is certain.

    An error always is; a match is not if a keyword applied that is not evaluated.
    """
    run = _run.get()
    before = run.unsure
    errors = list(islice(validator.descend(instance, schema), _MAX_ERRORS))
    if errors:
        run.unsure = before
    return errors, run.unsure == before


# -- keywords of our own: the library's are not bounded, or are certain where they cannot be --


def _error(text: str) -> Any:
    from jsonschema import ValidationError

    return ValidationError(text)


def _unseen(validator: Any, applies_to: type, instance: Any, schema: Any) -> Iterable[Any]:
    if isinstance(instance, applies_to):
        _run.get().unsure += 1
    return ()


def _false(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    yield _error("no value is allowed here")


def _ref(validator: Any, target: Any, instance: Any, schema: Any) -> Any:
    return validator.descend(instance, target)


def _enum(validator: Any, allowed: KeysView[str], instance: Any, schema: Any) -> Iterator[Any]:
    text = canonical(instance)
    _run.get().spend(len(text) >> 8)
    if text not in allowed:
        names = ", ".join(name[:MAX_QUOTE] for name in islice(allowed, _MAX_ERRORS))
        yield _error(f"{instance!r} is not one of {names}")


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    if wanted and isinstance(instance, list):
        texts = [canonical(item) for item in instance]
        _run.get().spend(sum(map(len, texts)) >> 8)
        if len(set(texts)) < len(texts):
            yield _error("an array has items that are equal")


def _multiple_of(validator: Any, divisor: int | float, instance: Any, schema: Any) -> Iterator[Any]:
    # As it is written: 0.3 is three times 0.1, which binary fractions deny.
    if is_number(instance) and Fraction(str(instance)) % Fraction(str(divisor)):
        yield _error(f"{instance!r} is not a multiple of {divisor!r}")


def _dependent_required(validator: Any, needs: dict[str, list[str]], instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for name, others in needs.items():
        if name in instance:
            _run.get().spend(len(others) >> 4)
            yield from (_error(f"{other!r} is a dependency of {name!r}") for other in others if other not in instance)


def _additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    extras = [name for name in instance if name not in schema.get("properties", ())]
    if allowed is NEVER and extras:
        names = ", ".join(map(repr, extras[:_MAX_ERRORS]))
        yield _error(f"additional properties are not allowed: {names}")
        return
    for name in extras:
        yield from validator.descend(instance[name], allowed, path=name)


def _contains(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, list):
        return
    _run.get().spend(len(instance))
    matches = []
    for item in instance:
        errors, certain = _tried(validator, item, wanted)
        if not errors:
            matches.append(certain)
    if len(matches) < schema.get("minContains", 1):
        yield _error("an array has too few items that match 'contains'")
    elif sum(matches) > schema.get("maxContains", len(instance)):
        yield _error("an array has too many items that match 'contains'")


def _not(validator: Any, unwanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    errors, certain = _tried(validator, instance, unwanted)
    if certain and not errors:
        yield _error(f"{instance!r} matches what 'not' excludes")


def _if(validator: Any, condition: Any, instance: Any, schema: Any) -> Any:
    errors, certain = _tried(validator, instance, condition)
    return validator.descend(instance, schema.get("else" if errors else "then", True)) if certain else ()


def _any_of(validator: Any, alternatives: Any, instance: Any, schema: Any) -> Iterator[Any]:
    closest = _Closest()
    for alternative in alternatives:
        errors, _ = _tried(validator, instance, alternative)
        if not errors:
            return
        closest.add(errors)
    yield closest.error()


def _one_of(validator: Any, alternatives: Any, instance: Any, schema: Any) -> Iterator[Any]:
    closest = _Closest()
    matches = certain_matches = 0
    for alternative in alternatives:
        errors, certain = _tried(validator, instance, alternative)
        if errors:
            closest.add(errors)
            continue
        matches += 1
        certain_matches += certain
        if certain_matches > 1:
            yield _error(f"{instance!r} matches more than one alternative of 'oneOf'")
            return
    if not matches:
        yield closest.error()


class _Closest:
    """What is wrong with an answer that matches no alternative: the errors of the alternative it is closest to."""

    def __init__(self) -> None:
        self._rank: tuple[bool, bool, int] | None = None
        self._errors: list[Any] = []
        self._texts: dict[str, None] = {}

    def add(self, errors: list[Any]) -> None:
        """Compare the errors of another alternative."""
        # Closer is what has the right type; of objects that a tag tells apart, the one with this tag.
        wrong_type = any(error.validator == "type" and not error.path for error in errors)
        rank = (wrong_type, any(error.validator in ("const", "enum") for error in errors), len(errors))
        if self._rank is None or rank < self._rank:
            self._rank, self._errors = rank, errors
        if len(self._texts) < 3:
            self._texts[_said(errors[0])] = None

    def error(self) -> Any:
        """Return the one error to report."""
        closest = _shallowest(self._errors)
        if closest.path or closest.validator not in ("type", "const", "enum"):
            return closest
        return _error("; ".join(self._texts))


_OURS: dict[str, _Keyword] = {
    "$ref": _ref,
    "additionalProperties": _additional,
    "anyOf": _any_of,
    "const": _enum,
    "contains": _contains,
    "dependentRequired": _dependent_required,
    "enum": _enum,
    "false": _false,
    "if": _if,
    "multipleOf": _multiple_of,
    "not": _not,
    "oneOf": _one_of,
    "uniqueItems": _unique_items,
    **dict.fromkeys(UNSEEN, _unseen),
}


# -- words ------------------------------------------------------------------------------------

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}


def _shallowest(errors: list[Any]) -> Any:
    return min(errors, key=lambda error: len(error.path), default=None)


def _said(error: Any) -> str:
    """The message of an error; it most often begins with the value, in Python's words."""
    word, space, rest = error.message.partition(" ")
    return f"{_JSON_WORDS.get(word, word)}{space}{rest}"


def _path(parts: Iterable[str | int]) -> str:
    path = "$"
    for part in parts:
        path += f".{part}" if isinstance(part, str) and _PLAIN_NAME.fullmatch(part) else f"[{part!r}]"
    return path if len(path) <= 2 * MAX_QUOTE else f"{path[:MAX_QUOTE]}...{path[-MAX_QUOTE:]}"


def line(path: str, reason: str) -> str:
    """Return a line about a mismatch, of at most :data:`MAX_TEXT` characters."""
    text = f"{path}: {reason}"[: MAX_TEXT + 1]
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
