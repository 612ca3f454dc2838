"""One JSON value that is read as it arrives, and taken as it is written.

It is checked in full, so that text which only begins like JSON is known at the first character that differs.
"""

from __future__ import annotations

import re

from openai_compat.structured.json_text import Pieces
from openai_compat.structured.written.reading import NoCall, Reader, Source
from openai_compat.wire.json_limits import MAX_DEPTH

_BLANKS = re.compile(r"[ \t\r\n]+")
_CHARACTERS = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_UNFINISHED_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SCALAR_CHARACTERS = re.compile(r"[-+.0-9A-Za-z]*")
#: characters of a number
_MAX_SCALAR = 1024
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")

_CLOSING = {"{": "}", "[": "]"}


def read_value(source: Source) -> Reader[str]:
    """Read a value, and return it as it is written, without the blanks around it."""
    yield from source.blanks()
    taken, place = Pieces(), _Place()
    while not place.is_at_end:
        character = yield from source.peek()
        if not character:
            raise NoCall
        if character in " \t\r\n":
            taken.add(source.take(_BLANKS))
            continue
        place.step(character)
        if character == '"':
            yield from _take_string(source, taken)
        elif character in "{}[],:":
            source.skip()
            taken.add(character)
        else:
            taken.add((yield from _read_scalar(source)))
    return taken.take()


class _Place:
    """A place between the tokens of a value."""

    def __init__(self) -> None:
        #: closing brackets that are due, the last one first to come
        self._due: list[str] = []
        #: what may come next: a ``value``, a ``key`` or a ``colon``; ``comma`` also stands for the end of the brackets
        self._next = "value"
        #: the brackets were opened just now, so that they may be empty
        self._is_first = False

    @property
    def is_at_end(self) -> bool:
        """Return whether the value is complete."""
        return self._next == "comma" and not self._due

    def step(self, character: str) -> None:
        """Go on over a token that begins with *character*."""
        is_first, self._is_first = self._is_first, False
        if character in "}]":
            if not (is_first or self._next == "comma") or not self._due or self._due.pop() != character:
                raise NoCall
            self._next = "comma"
        elif character in ",:":
            if self._next != ("comma" if character == "," else "colon"):
                raise NoCall
            self._next = "key" if character == "," and self._due[-1] == "}" else "value"
        elif self._next == "key" and character == '"':
            self._next = "colon"
        elif self._next == "value":
            self._open(character)
        else:
            raise NoCall

    def _open(self, character: str) -> None:
        self._next = "comma"
        if character in _CLOSING:
            self._next = "key" if character == "{" else "value"
            self._is_first = True
            self._due.append(_CLOSING[character])
            if len(self._due) > MAX_DEPTH:
                raise NoCall


def _read_scalar(source: Source) -> Reader[str]:
    scalar = yield from source.run(_SCALAR_CHARACTERS, _MAX_SCALAR)
    if not _SCALAR.fullmatch(scalar):
        raise NoCall
    return scalar


def read_string(source: Source) -> Reader[str]:
    """Read a string, and return it as it is written, with its quotes."""
    taken = Pieces()
    if (yield from source.peek()) != '"':
        raise NoCall
    yield from _take_string(source, taken)
    return taken.take()


def _take_string(source: Source, taken: Pieces) -> Reader[None]:
    source.skip()
    taken.add('"')
    while True:
        taken.add(source.take(_CHARACTERS))
        character = yield from source.peek()
        if character == '"':
            source.skip()
            taken.add('"')
            return
        if character == "\\":
            taken.add((yield from _read_escape(source)))
        elif not character or character < " ":
            raise NoCall


def _read_escape(source: Source) -> Reader[str]:
    while True:
        escape = source.take(_ESCAPE)
        if escape:
            return escape
        if source.has_ended or not source.begins(_UNFINISHED_ESCAPE):
            raise NoCall
        yield
