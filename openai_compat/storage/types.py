"""What is stored, and how an operation of the store can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from openai_compat.storage.circuit import StoreFailed
from openai_compat.storage.schema import encode

Order = Literal["asc", "desc"]
#: returns whether a body is what the caller stored; the store does not decode it
IsValid = Callable[[bytes], bool]
T = TypeVar("T")

#: bytes of an id: owner, kind and id share an index, whose rows have at most about 2,700 bytes in PostgreSQL
MAX_ID = 512


class TooLarge(ValueError):
    """An object alone is larger than an owner's limit, or its list is longer than the caller's."""


class UnknownCursor(LookupError):
    """*after* or *before* is not the id of a stored object or item.

    :param name: which of them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is not the id of an object or item")
        self.name = name


class UnknownParent(LookupError):
    """There is no such object to continue or to extend."""


class Damaged(StoreFailed):
    """A row is not what was stored, such as after a fault of the disk or an operator's statement."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it is stored."""

    id: str
    #: Unix time in seconds
    created: int
    model: str
    metadata: dict[str, str]
    #: JSON; the store does not decode it
    body: bytes


@dataclass(frozen=True)
class Item:
    """A part of an object, such as a message."""

    id: str
    #: JSON; the store does not decode it
    body: bytes


@dataclass(frozen=True)
class Page(Generic[T]):
    """Consecutive rows of a list, and whether more follow."""

    rows: list[T]
    has_more: bool


@dataclass(frozen=True)
class Context:
    """All items of an object, in their order."""

    items: list[Item]
    #: a position behind the last of them; what is appended later stands there or behind it
    end: int


@dataclass(frozen=True)
class Run:
    """The work of a process on an object."""

    #: who works, as it calls itself
    holder: str
    #: seconds since the holder last reported
    age: float


def size(*parts: StoredObject | Item) -> int:
    """Return the bytes of ids and bodies.

    :raises ValueError: an id is longer than :data:`MAX_ID`.
    """
    ids = [len(encode(part.id)) for part in parts]
    if max(ids, default=0) > MAX_ID:
        raise ValueError(f"an id must have at most {MAX_ID} bytes")
    return sum(ids) + sum(len(part.body) for part in parts)


def any_body(body: bytes) -> bool:
    """Take any body for valid."""
    return True
