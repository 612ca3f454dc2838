"""Finds the calls that a model wrote as text, while the text arrives.

A call stands alone or ends the answer, so that it is known at the end only. Text is held while it can still become an
opener, at most :data:`~openai_compat.structured.written.reading.LONGEST_OPENER` characters, and from a complete opener
on. At the first character that no call can have there, all that is held leaves as it came, and the search goes on
behind it. Each character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from openai_compat.native import types as native
from openai_compat.structured.json_text import Pieces
from openai_compat.structured.written import forms, sequence
from openai_compat.structured.written.forms import Form
from openai_compat.structured.written.known_tools import KnownTools
from openai_compat.structured.written.reading import LONGEST_OPENER, MAX_SIZE, Literals, NoCall, Setting, Source

#: characters that are looked at together, since what follows a candidate is copied
_STEP = 4096

#: the first characters of openers, and what begins a line
_MARK = re.compile(r"[<\[`\n]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[\w.:/-]*")
#: how JSON and lists begin that may be calls; most of what begins with a bracket is known by one more character
_BARE = re.compile(r'\{[ \t\r\n]*(?:"|\Z)|\[[ \t\r\n]*(?:[{\w]|\Z)')


class Found(NamedTuple):
    """What the end of an answer turned out to be."""

    #: what came before the call in a channel of its own
    thinking: str
    #: held text that is no call, byte for byte
    text: str
    #: with an id only where the text has a usable one
    calls: list[native.ToolCall]


class _Start(NamedTuple):
    """Where a candidate begins."""

    #: characters of the opener that are no part of what is read
    size: int
    form: Form | None
    setting: Setting
    takes_names: bool = False


#: more text decides whether a candidate begins
_WAIT = _Start(0, None, "bare")


class _Candidate:
    """Text that may be calls, up to the end of the answer."""

    def __init__(self, tools: KnownTools, start: _Start) -> None:
        self.source = Source(tools, start.setting)
        self.source.takes_names = self.source.takes_names or start.takes_names
        self._reader: Generator[None, None, None] = sequence.Sequence(self.source, start.form).read()

    def feed(self, text: str) -> None:
        """Take the next part.

        :raises NoCall: this is no call.
        """
        self.source.add(text)
        next(self._reader)

    def end(self) -> bool:
        """Return whether the answer ends with calls."""
        self.source.has_ended = True
        try:
            return next(self._reader, True) is True
        except NoCall:
            return False


class CallScanner:
    """Finds the calls that end an answer, whose text arrives in parts.

    :param tools: of the request; a call names one of them.
    :param tool_name: returns the tool's own name for another spelling of it, and otherwise the same text.
    """

    def __init__(self, tools: Sequence[native.Tool], tool_name: Callable[[str], str] = str) -> None:
        self._tools = KnownTools(tools, tool_name)
        self._is_released = not tools
        #: what may become an opener
        self._tail = ""
        self._candidate: _Candidate | None = None
        #: the text of the candidate, from its opener
        self._held = Pieces()
        #: characters of the opener that the candidate does not read
        self._unread = 0
        #: nothing but blanks came so far, in the answer and in the line
        self._is_start = self._is_line_start = True

    @property
    def holding(self) -> bool:
        """Return whether text is held."""
        return bool(self._tail or self._held.size)

    def feed(self, text: str) -> str:
        """Take the next part of the answer, and return the text that can leave by now."""
        if self._is_released:
            return text
        leaving: list[str] = []
        for start in range(0, len(text), _STEP):
            rest = text[start : start + _STEP]
            while rest:
                left, rest = self._search(rest) if self._candidate is None else self._read(self._candidate, rest)
                leaving.append(left)
        return "".join(leaving)

    def release(self) -> str:
        """Return all that is held; from now on all text passes."""
        self._is_released = True
        self._candidate = None
        held, self._tail = self._held.take() + self._tail, ""
        return held

    def interrupt(self) -> str:
        """Return what is held if it is only the beginning of an opener, as something else than text follows."""
        candidate = self._candidate
        if candidate is not None and candidate.source.is_opened:
            return ""
        self._candidate = None
        self._is_start = self._is_line_start = False
        held, self._tail = self._held.take() + self._tail, ""
        return held

    def end(self) -> Found:
        """Return what the held text is, at the end of the answer."""
        candidate = self._candidate
        if candidate is not None and candidate.end():
            source = candidate.source
            self.release()
            return Found(source.thinking.take(), source.text.take(), source.calls)
        return Found("", self.release(), [])

    def _search(self, text: str) -> tuple[str, str]:
        """Search an opener; return what leaves, and what is left to be read."""
        text, self._tail = self._tail + text, ""
        position = 0
        while True:
            if self._is_line_start:
                position = _end(_BLANKS, text, position)
            else:
                mark = _MARK.search(text, position)
                if mark is None:
                    return text, ""
                position = mark.end() if mark[0] == "\n" else mark.start()
                if mark[0] == "\n":
                    self._is_line_start = True
                    continue
            if position == len(text):
                return text, ""
            start = self._start(text, position)
            if start is _WAIT:
                self._tail = text[position:]
                return text[:position], ""
            if start is not None:
                self._candidate = _Candidate(self._tools, start)
                self._unread = start.size
                return text[:position], text[position:]
            self._is_start = self._is_line_start = False
            position += 1

    def _start(self, text: str, position: int) -> _Start | None:
        """Return the candidate that begins at *position*; :data:`_WAIT` if more text decides it."""
        for literals, table in self._tables():
            match = literals.pattern.match(text, position)
            if match is not None:
                form = table[match[0]]
                return _Start(len(match[0]), form, "tag" if match[0] != forms.FENCE else "fence")
            if len(text) - position < literals.longest and literals.begin_with(text[position:]):
                return _WAIT
        if not self._is_line_start:
            return None
        if text[position] in "{[":
            return _Start(0, None, "bare") if _BARE.match(text, position) else None
        end = _end(_NAME, text, position)
        name = text[position:end]
        if end == len(text):
            return _WAIT if self._tools.begins_name(name) else None
        if self._tools.has(name) and (self._is_start or text[end] != "("):
            return _Start(0, None, "bare", takes_names=True)
        return None

    def _tables(self) -> list[tuple[Literals, dict[str, Form]]]:
        found = [(forms.ANYWHERE, forms.OPENERS)]
        if self._is_line_start:
            found.append((forms.AT_LINE, forms.LINE_OPENERS))
        return found

    def _read(self, candidate: _Candidate, text: str) -> tuple[str, str]:
        """Read on; return what leaves, and what is left to be searched."""
        limit = MAX_SIZE if candidate.source.is_opened else LONGEST_OPENER
        room = limit - self._held.size
        piece, left = text[:room], text[room:]
        self._held.add(piece)
        skipped = min(self._unread, len(piece))
        self._unread -= skipped
        try:
            if room:
                candidate.feed(piece[skipped:])
                return "", left
        except NoCall:
            pass
        held = self._held.take()
        end = max(len(held) - len(candidate.source.rest), 1)
        self._candidate = None
        self._is_start = False
        self._is_line_start = held[:end].rstrip(" \t\r").endswith("\n")
        return held[:end], held[end:] + left


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None
    return match.end()
