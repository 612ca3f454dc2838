"""Evaluation of a sanitised schema copy by jsonschema, within a step budget.

Every evaluation of a keyword costs steps, so that a check ends whatever the schema and the answer are; texts are cut.
Several checks may share a budget, as those of the choices of a request do.
jsonschema is an extra, and this is the only module that imports it; the copy comes from ``schema_checker.py``.

Keywords that are not evaluated (:data:`UNSEEN`, such as ``pattern``) count as satisfied. Where satisfying a subschema
speaks against the answer, as in ``not``, such a result is uncertain and is not reported: see
:func:`_evaluate_subschema`.
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

#: steps of a budget, together about a second: a step is one evaluation of a keyword (about 5 µs), one error, 16
#: items or members, or 256 characters that are compared
MAX_STEPS = 200_000

#: keywords that are evaluated within each other, references included: a level takes up to 1.6 KiB of stack (Python
#: 3.10), and a thread may have 256 KiB only
MAX_NESTING = 64

#: characters of a line about a mismatch, which becomes part of error messages and of the prompt of a retry
MAX_TEXT = 300

#: characters of an excerpt, and of either end of a path: a line has room for two or three of them
MAX_QUOTE = 60

#: errors of one keyword, and excerpts in one message: only one error is reported, the others help to choose it
_MAX_ERRORS = 8


class Uncheckable(Exception):
    """An answer cannot be checked against a schema. The text is a short reason that quotes neither."""


# -- what a copy and its evaluation agree on --------------------------------------------------

#: keywords that are not evaluated → the type of the values that they apply to
UNSEEN: dict[str, type] = {
    "pattern": str,
    "format": str,
    "patternProperties": dict,
    "unevaluatedProperties": dict,
    "dependencies": dict,
    "unevaluatedItems": list,
}

#: the schema ``false``, written as a keyword: for ``false`` itself jsonschema reports no path
NEVER: dict[str, Any] = {"false": True}

#: encodes equal values as the same text, so that a set can compare them. A set of the values themselves could be made
#: slow: integers with equal hashes are easily constructed
canonical = json.JSONEncoder(sort_keys=True).encode


def is_number(value: Any) -> bool:
    """Return whether a value is one of JSON's numbers, which a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- a check ----------------------------------------------------------------------------------

_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any]]


class Budget:
    """The steps that are left, of one check or of several."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS


class _Run:
    """The state of one check."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.nesting = 0
        #: how often a keyword that is not evaluated applied
        self.unsure = 0

    def spend(self, steps: int) -> None:
        """Take steps from the budget.

        :raises Uncheckable: it is exhausted.
        """
        self._budget.steps -= steps
        if self._budget.steps < 0:
            raise Uncheckable("the check takes too many steps")


#: a context variable, since jsonschema passes no state of the caller to the functions of keywords
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
    keywords = {**base.VALIDATORS, **_KEYWORDS}
    return extend(base, {name: _within_budget(keyword) for name, keyword in keywords.items()}), referencing.Registry()


def _within_budget(keyword: _Keyword) -> _Keyword:
    """Return the function of a keyword that spends steps and limits nesting and errors."""

    def evaluate(validator: Any, value: Any, instance: Any, schema: Any) -> list[Any]:
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

    return evaluate


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def verdict(validator: Any, answer: Any, budget: Budget) -> str | None:
    """Return None if the schema admits the answer, else one line that says where and why.

    :raises Uncheckable: the check takes more steps than are left, or fails.
    """
    worst = _shallowest(_errors(validator, answer, budget))
    return None if worst is None else line(_path(worst.path), _message(worst))


def _errors(validator: Any, answer: Any, budget: Budget) -> list[Any]:
    """Return the first errors; one that was found before the budget was exhausted is still a real mismatch."""
    found: list[Any] = []
    _run.set(_Run(budget))
    try:
        for error in islice(validator.iter_errors(answer), _MAX_ERRORS):
            found.append(error)
    except Uncheckable:
        if not found:
            raise
    except Exception as error:  # such as a RecursionError
        raise Uncheckable("the check failed") from error
    return found


def _evaluate_subschema(validator: Any, instance: Any, schema: Any) -> tuple[list[Any], bool]:
    """Return the errors of a subschema, and whether its result is certain.

    An error always is; a match is not if a keyword applied that is not evaluated.
    """
    run = _run.get()
    before = run.unsure
    errors = list(islice(validator.descend(instance, schema), _MAX_ERRORS))
    if errors:
        run.unsure = before
    return errors, run.unsure == before


# -- keywords that replace jsonschema's, which have no bounds and do not know uncertain matches --


def _error(text: str) -> Any:
    from jsonschema import ValidationError

    return ValidationError(text)


def _not_evaluated(validator: Any, applies_to: type, instance: Any, schema: Any) -> Iterable[Any]:
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
    # Decimal fractions, as in the text: in binary floating point, 0.3 is not a multiple of 0.1.
    if is_number(instance) and Fraction(str(instance)) % Fraction(str(divisor)):
        yield _error(f"{instance!r} is not a multiple of {divisor!r}")


def _dependent_required(validator: Any, needs: dict[str, list[str]], instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for name, others in needs.items():
        if name in instance:
            _run.get().spend(len(others) >> 4)
            yield from (_error(f"{other!r} is a dependency of {name!r}") for other in others if other not in instance)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
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
        errors, certain = _evaluate_subschema(validator, item, wanted)
        if not errors:
            matches.append(certain)
    if len(matches) < schema.get("minContains", 1):
        yield _error("an array has too few items that match 'contains'")
    elif sum(matches) > schema.get("maxContains", len(instance)):
        yield _error("an array has too many items that match 'contains'")


def _not(validator: Any, unwanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    errors, certain = _evaluate_subschema(validator, instance, unwanted)
    if certain and not errors:
        yield _error(f"{instance!r} matches what 'not' excludes")


def _if(validator: Any, condition: Any, instance: Any, schema: Any) -> Any:
    errors, certain = _evaluate_subschema(validator, instance, condition)
    return validator.descend(instance, schema.get("else" if errors else "then", True)) if certain else ()


def _any_of(validator: Any, alternatives: Any, instance: Any, schema: Any) -> Iterator[Any]:
    closest = _Closest()
    for alternative in alternatives:
        errors, _ = _evaluate_subschema(validator, instance, alternative)
        if not errors:
            return
        closest.add(errors)
    yield closest.error()


def _one_of(validator: Any, alternatives: Any, instance: Any, schema: Any) -> Iterator[Any]:
    closest = _Closest()
    matches = certain_matches = 0
    for alternative in alternatives:
        errors, certain = _evaluate_subschema(validator, instance, alternative)
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
        # The closest alternative has the right type, then the right tag (a const or an enum), then the fewest errors.
        wrong_type = any(error.validator == "type" and not error.path for error in errors)
        rank = (wrong_type, any(error.validator in ("const", "enum") for error in errors), len(errors))
        if self._rank is None or rank < self._rank:
            self._rank, self._errors = rank, errors
        if len(self._texts) < 3:
            self._texts[_message(errors[0])] = None

    def error(self) -> Any:
        """Return the one error to report."""
        closest = _shallowest(self._errors)
        if closest.path or closest.validator not in ("type", "const", "enum"):
            return closest
        return _error("; ".join(self._texts))


_KEYWORDS: dict[str, _Keyword] = {
    "$ref": _ref,
    "additionalProperties": _additional_properties,
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
    **dict.fromkeys(UNSEEN, _not_evaluated),
}


# -- lines ------------------------------------------------------------------------------------

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_JSON_LITERALS = {"None": "null", "True": "true", "False": "false"}


def _shallowest(errors: list[Any]) -> Any:
    return min(errors, key=lambda error: len(error.path), default=None)


def _message(error: Any) -> str:
    """Return the message of an error, which often begins with a value: as JSON, not as Python."""
    word, space, rest = error.message.partition(" ")
    return f"{_JSON_LITERALS.get(word, word)}{space}{rest}"


def _path(parts: Iterable[str | int]) -> str:
    path = "$"
    for part in parts:
        path += f".{part}" if isinstance(part, str) and _PLAIN_NAME.fullmatch(part) else f"[{part!r}]"
    return path if len(path) <= 2 * MAX_QUOTE else f"{path[:MAX_QUOTE]}...{path[-MAX_QUOTE:]}"


def line(path: str, reason: str) -> str:
    """Return a line about a mismatch, of at most :data:`MAX_TEXT` characters."""
    text = f"{path}: {reason}"[: MAX_TEXT + 1]
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
