"""How each request field is supported: a row beside the field, read by the code and by the README.

A request struct annotates every field with a :class:`Field`: ``Annotated[float | None,
mapped("options.temperature", low=0, high=2)]``. No field is silently ignored: it is mapped, emulated, accepted (and
listed in a response header if it has no effect), or refused by name.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from typing import Literal, get_type_hints

import msgspec

from openai_compat.errors import invalid, not_supported
from openai_compat.settings import Settings

log = logging.getLogger("openai_compat")

Status = Literal["mapped", "emulated", "accepted", "policy"]

#: an integer, which a client may also write ``100.0``
Integer = int | float | None

#: the integers that Ollama can read
INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Field:
    """One row: how a field is supported.

    ``status``: *mapped* to the field ``native``; *emulated* here, since Ollama does not support it; *accepted* without
    a native counterpart; *policy*: accepted or refused, as the setting ``unsupported`` says.
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
    #: whether the field has an effect; if not, it is listed as ignored
    effect: bool = True


def mapped(native: str, note: str = "", *, low: float | None = None, high: float | None = None) -> Field:
    """Describe a field that becomes a native one."""
    return Field("mapped", native, note, low, high)


def mapped_integer(native: str, note: str = "", *, low: float = INT64[0], high: float = INT64[1]) -> Field:
    """Describe an integer field that becomes a native one."""
    return Field("mapped", native, note, low, high, is_integer=True)


def emulated(note: str, native: str = "") -> Field:
    """Describe a field that Ollama does not have and that is implemented here."""
    return Field("emulated", native, note)


def emulated_integer(note: str, *, low: float = INT64[0], high: float = INT64[1]) -> Field:
    """Describe an integer field that Ollama does not have and that is implemented here."""
    return Field("emulated", "", note, low, high, is_integer=True)


def accepted(note: str = "") -> Field:
    """Describe a field that cannot change the meaning of the answer; without a note it is listed as ignored."""
    return Field("accepted", "", note or "no effect", effect=bool(note))


def policy(note: str) -> Field:
    """Describe a parameter that Ollama cannot support, and why."""
    return Field("policy", "", note, effect=False)


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
    return [(name, row) for name, row in rows(struct).items() if row.low is not None or row.high is not None]


def check_ranges(request: msgspec.Struct) -> None:
    """Check every number against the range of its row; convert the integers among them to ``int``.

    :raises APIError: 400 with OpenAI's text and code.
    """
    for name, row in _ranged(type(request)):
        value = getattr(request, name)
        if value is not None:
            value = check_number(name, value, row)
            if row.is_integer:
                setattr(request, name, value)


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
        if getattr(request, name) is None:
            continue
        if row.status == "policy":
            ignored.unsupported(name, row.note)
        else:
            ignored.add(name)


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

    def unsupported(self, name: str, why: str) -> None:
        """List a parameter that Ollama cannot support.

        :raises APIError: 400 under ``unsupported="error"``.
        """
        if self._refuse:
            raise not_supported(name, why)
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
