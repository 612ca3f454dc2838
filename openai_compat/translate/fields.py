"""How each request field is supported: a row beside the field, read by the code and by the README.

A request struct annotates every field with a :class:`Field`: ``Annotated[float | None,
mapped("options.temperature", low=0, high=2)]``. No field is silently ignored: it is mapped, emulated, accepted (and
listed in a response header if it has no effect), or refused by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_type_hints

import msgspec

from openai_compat.errors import invalid, not_supported
from openai_compat.log import log
from openai_compat.settings import Settings
from openai_compat.wire import json

Status = Literal["mapped", "emulated", "accepted", "policy", "refused"]

#: an integer, which a client may also write ``100.0``
Integer = int | float | None
#: a number of Ollama's own, which a client may also write as text
NumberOrText = int | float | str | None

#: the integers that Ollama can read
INT64 = (-(2**63), 2**63 - 1)


class RequestObject(msgspec.Struct, forbid_unknown_fields=True):
    """An object in a request. Unknown keys are left out by the decoder, which returns their paths."""


@dataclass(frozen=True)
class Field:
    """One row: how a field is supported.

    ``status``: *mapped* to the field ``native``; *emulated* here, since Ollama does not support it; *accepted* without
    a native counterpart; *policy*: accepted or refused, as the setting ``unsupported`` says; *refused* always.
    """

    status: Status
    #: the native field it becomes
    native: str = ""
    #: what happens to it, for the README
    note: str = ""
    low: float | None = None
    high: float | None = None
    #: only numbers without a fraction are valid
    is_integer: bool = False
    #: a number may be written as text; blank text is none
    takes_text: bool = False
    #: whether the field has an effect; if not, it is listed as ignored
    effect: bool = True
    #: whether an empty object asks for something too
    empty_has_meaning: bool = False


def mapped(native: str, note: str = "", *, low: float | None = None, high: float | None = None) -> Field:
    """Describe a field that becomes a native one."""
    return Field("mapped", native, note, low, high)


def mapped_integer(native: str, note: str = "", *, low: float = INT64[0], high: float = INT64[1]) -> Field:
    """Describe an integer field that becomes a native one."""
    return Field("mapped", native, note, low, high, is_integer=True)


def extra(row: Field) -> Field:
    """Describe a number that only Ollama has: clients with settings pages write it as text."""
    return replace(row, takes_text=True)


def emulated(note: str, native: str = "") -> Field:
    """Describe a field that Ollama does not have and that is implemented here."""
    return Field("emulated", native, note)


def emulated_integer(note: str, *, low: float = INT64[0], high: float = INT64[1]) -> Field:
    """Describe an integer field that Ollama does not have and that is implemented here."""
    return Field("emulated", "", note, low, high, is_integer=True)


def accepted(note: str = "") -> Field:
    """Describe a field that cannot change the meaning of the answer; without a note it is listed as ignored."""
    return Field("accepted", "", note or "no effect", effect=bool(note))


def policy(note: str, *, empty_has_meaning: bool = False) -> Field:
    """Describe a parameter that Ollama cannot support, and why."""
    return Field("policy", "", note, effect=False, empty_has_meaning=empty_has_meaning)


def refused(note: str) -> Field:
    """Describe a parameter that a request cannot have, since the answer would be another one without it."""
    return Field("refused", "", note)


@functools.cache
def rows(struct: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the rows of a request struct by the field's name on the wire, in order."""
    hints = get_type_hints(struct, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(struct):
        annotations = [item for item in getattr(hints[field.name], "__metadata__", ()) if isinstance(item, Field)]
        if annotations:
            found[field.encode_name] = annotations[0]
    return found


@functools.cache
def _ranged(struct: type[msgspec.Struct]) -> list[tuple[str, Field]]:
    found = rows(struct).items()
    return [(name, row) for name, row in found if row.low is not None or row.high is not None or row.takes_text]


def check_ranges(request: msgspec.Struct) -> None:
    """Check every number against the range of its row; convert integers to ``int``, and text to numbers.

    :raises APIError: 400 with OpenAI's text and code.
    """
    for name, row in _ranged(type(request)):
        value = getattr(request, name)
        if row.takes_text and isinstance(value, str):
            value = number_of_text(value, name)
            setattr(request, name, value)
        if value is not None:
            value = check_number(name, value, row)
            if row.is_integer:
                setattr(request, name, value)


_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def number_of_text(text: str, name: str) -> float | None:
    """Return the number that a text holds; None for a blank one.

    :raises APIError: 400 for another text.
    """
    text = text.strip()
    if not text:
        return None
    if not is_number(text):
        raise invalid(f"Invalid type for '{name}': expected a number, but got a string instead.", name, "invalid_type")
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)


def is_number(text: str) -> bool:
    """Return whether a text without surrounding blanks is a decimal number."""
    return len(text) <= 64 and bool(_NUMBER.fullmatch(text))


def check_number(name: str, value: float, row: Field) -> float:
    """Return a number that is within the range of its row, as ``int`` if the row is an integer's.

    :raises APIError: 400 for a fraction where an integer is expected, and for a number out of range.
    """
    kind = "integer" if row.is_integer else "decimal"
    if row.is_integer and isinstance(value, float):
        if not value.is_integer():
            text = f"Invalid type for '{name}': expected an integer, but got a decimal number instead."
            raise invalid(text, name, "invalid_type")
        value = int(value)
    if row.low is not None and value < row.low:
        text = f"{kind} below minimum value. Expected a value >= {_limit_text(row.low)}, but got {value} instead."
        raise invalid(f"Invalid '{name}': {text}", name, f"{kind}_below_min_value")
    if row.high is not None and value > row.high:
        text = f"{kind} above maximum value. Expected a value <= {_limit_text(row.high)}, but got {value} instead."
        raise invalid(f"Invalid '{name}': {text}", name, f"{kind}_above_max_value")
    return value


def check_integer(name: str, value: float, *, low: int = INT64[0], high: int = INT64[1]) -> int:
    """Return a number that is an integer within a range.

    :raises APIError: 400 for a fraction, and for a number out of range.
    """
    return int(check_number(name, value, Field("emulated", low=low, high=high, is_integer=True)))


def _limit_text(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def note_effectless(request: msgspec.Struct, ignored: Ignored) -> None:
    """List every given field whose row says that it has no effect, or that the policy decides.

    :raises APIError: 400 for one that the policy refuses.
    """
    for name, row in _effectless(type(request)):
        value = getattr(request, name)
        if value is None or (isinstance(value, msgspec.Raw) and _asks_nothing(value, row)) or value is msgspec.UNSET:
            continue
        if row.status == "policy":
            ignored.unsupported(name, row.note)
        else:
            ignored.add(name)


def _asks_nothing(value: msgspec.Raw, row: Field) -> bool:
    return not json.text_of(value) if row.empty_has_meaning else json.is_blank(value)


@functools.cache
def _effectless(struct: type[msgspec.Struct]) -> list[tuple[str, Field]]:
    return [(name, row) for name, row in rows(struct).items() if not row.effect]


_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.\[\]-]")
#: characters of a listed name: longer than any of OpenAI's
_MAX_NAME = 64
#: characters of the header's value: servers and proxies limit a response's head to a few KiB
_MAX_HEADER = 1024


class Ignored:
    """The parameters of a request that have no effect on its answer."""

    HEADER = "openai-compat-ignored"

    def __init__(self, settings: Settings, unknown: list[str]) -> None:
        self._refuse = settings.unsupported == "error"
        self._names = set(unknown)

    def add(self, name: str, why: str = "") -> None:
        """List a parameter that is accepted and has no effect."""
        if why:
            log.info("ignored parameter %s: %s", name, why)
        self._names.add(name)

    def refuse_wrong_url(self, param: str, prefix: str, urls: Mapping[str, str]) -> None:
        """Refuse a request without its main field that has the main field of another endpoint.

        :param param: the main field.
        :param urls: main fields of other endpoints → their paths.
        :raises APIError: 400 that names the right URL.
        """
        for field, path in urls.items():
            if field in self._names:
                text = f"Missing required parameter: '{param}'. A request with '{field}' belongs to {prefix}{path}."
                raise invalid(text, param, "missing_required_parameter")

    def unsupported(self, name: str, why: str, param: str = "") -> None:
        """List a parameter that Ollama cannot support.

        :param param: its path in the request, for the error, where the listed name is not.
        :raises APIError: 400 under ``unsupported="error"``.
        """
        if self._refuse:
            raise not_supported(param or name, why)
        log.warning("ignored parameter %s: %s", name, why)
        self._names.add(name)

    def headers(self) -> list[tuple[str, str]]:
        """Return the response header that lists them, sorted; at most 1 KiB, then ``...+N`` for the rest."""
        names = sorted({_NOT_A_NAME.sub("_", name)[:_MAX_NAME] for name in self._names} - {""})
        if not names:
            return []
        listed: list[str] = []
        size = 0
        for name in names:
            size += len(name) + 2
            if size > _MAX_HEADER - len(f"...+{len(names)}"):
                return [(self.HEADER, ", ".join([*listed, f"...+{len(names) - len(listed)}"]))]
            listed.append(name)
        return [(self.HEADER, ", ".join(listed))]
