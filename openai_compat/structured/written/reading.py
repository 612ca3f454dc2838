"""A text that is read as it arrives: readers are generators, which yield where they need more of it.

Every character is looked at a bounded number of times. A reader yields only while what it has not taken yet is short: a
part of a literal, of a name or of an escape. The rule of the room: a reader takes from :class:`Source` what it has
decided about, raises :exc:`NoCall` at the first character that no call can have there, and never looks back.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import Literal, TypeVar

from openai_compat.native import types as native
from openai_compat.structured.json_text import Pieces
from openai_compat.structured.written.known_tools import KnownTools

T = TypeVar("T")

#: it yields for more text, and returns what it read
Reader = Generator[None, None, T]

#: characters up to where an opener is complete: of bare JSON that is the name, with keys and blanks before it
LONGEST_OPENER = 512
#: characters of a candidate, from its opener: longer ones are text
MAX_SIZE = 1024 * 1024

#: characters of a name, an id or a tag
_MAX_NAME = 128

_BLANKS = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[\w.:/-]*")

#: where a call is written: this decides how much of JSON counts as one
Setting = Literal["bare", "fence", "tag"]


class NoCall(Exception):
    """The text is no call."""


class Literals:
    """Texts that a form consists of, none of which begins with another one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self.longest = max(map(len, self.texts))
        self.pattern = re.compile("|".join(map(re.escape, self.texts)))
        self._beginnings = frozenset(text[:size] for text in self.texts for size in range(len(text)))

    def begin_with(self, text: str) -> bool:
        """Return whether *text* is only the beginning of one of them."""
        return text in self._beginnings


class Source:
    """A text that arrives in parts, and what was found in it."""

    def __init__(self, tools: KnownTools, setting: Setting = "tag") -> None:
        self.tools = tools
        self.setting: Setting = setting
        #: the opener is complete: a name, or a token that nothing else begins with
        self.is_opened = setting == "tag"
        #: a call may be written as a name and what follows it
        self.takes_names = setting == "tag"
        #: no more text arrives
        self.has_ended = False
        self.thinking = Pieces()
        self.text = Pieces()
        self.calls: list[native.ToolCall] = []
        self._text = ""
        self._position = 0

    def add(self, text: str) -> None:
        """Add the next part."""
        self._text = self._text[self._position :] + text
        self._position = 0

    @property
    def rest(self) -> str:
        """Return what arrived and was not taken."""
        return self._text[self._position :]

    def take(self, pattern: re.Pattern[str]) -> str:
        """Take what *pattern* matches of what arrived; it may be empty."""
        match = pattern.match(self._text, self._position)
        if match is None:
            return ""
        self._position = match.end()
        return match[0]

    def begins(self, pattern: re.Pattern[str]) -> bool:
        """Return whether *pattern* matches what arrived and was not taken."""
        return pattern.match(self._text, self._position) is not None

    def skip(self) -> None:
        """Take the character that :meth:`peek` returned."""
        self._position += 1

    def peek(self) -> Reader[str]:
        """Return the next character, which is not taken; ``""`` at the end."""
        while self._position == len(self._text) and not self.has_ended:
            yield
        return self._text[self._position : self._position + 1]

    def blanks(self) -> Reader[str]:
        """Take blanks, and return the next character, which is not taken."""
        while True:
            self.take(_BLANKS)
            if self._position < len(self._text) or self.has_ended:
                return self._text[self._position : self._position + 1]
            yield

    def match(self, literals: Literals) -> Reader[str]:
        """Take one of *literals* and return it; ``""`` if none follows."""
        while True:
            found = self.take(literals.pattern)
            if found or self.has_ended or len(self._text) - self._position >= literals.longest:
                return found
            if not literals.begin_with(self.rest):
                return ""
            yield

    def expect(self, literals: Literals) -> Reader[str]:
        """Take one of *literals* and return it."""
        found = yield from self.match(literals)
        if not found:
            raise NoCall
        return found

    def run(self, pattern: re.Pattern[str], most: int = _MAX_NAME) -> Reader[str]:
        """Take characters of a class, at most *most* of them.

        :param pattern: the class, any number of times.
        """
        found = ""
        while True:
            found += self.take(pattern)
            if len(found) > most:
                raise NoCall
            if self._position < len(self._text) or self.has_ended:
                return found
            yield

    def name(self) -> Reader[str]:
        """Take the name of a function, as it is written."""
        name = yield from self.run(_NAME)
        if not name:
            raise NoCall
        return name

    def tool(self, written: str) -> str:
        """Return the name of the tool that is meant by a name: the opener is complete."""
        name = self.tools.name(written)
        if name is None:
            raise NoCall
        self.is_opened = True
        return name

    def until(self, literals: Literals, most: int = MAX_SIZE) -> Reader[tuple[str, str]]:
        """Take the text up to one of *literals*, and that; return both."""
        taken = Pieces()
        while True:
            match = literals.pattern.search(self._text, self._position)
            end = max(self._position, len(self._text) - literals.longest + 1) if match is None else match.start()
            taken.add(self._text[self._position : end])
            self._position = end if match is None else match.end()
            if taken.size > most or (match is None and self.has_ended):
                raise NoCall
            if match is not None:
                return taken.take(), match[0]
            yield

    def add_call(self, name: str, arguments: str, id: str | None = None) -> None:
        """Add a call that was read.

        :param name: of a tool, as :meth:`tool` returned it.
        :param arguments: one JSON object.
        :param id: what the text has as the call's id.
        """
        call = self.tools.call(name, arguments, id)
        if call is None:
            raise NoCall
        self.calls.append(call)
