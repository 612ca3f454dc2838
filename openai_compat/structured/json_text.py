"""Text that should be JSON: code fences and thinking around it are removed.

Where the native side applies ``format`` there is nothing to remove. Remote models, and some thinking models, write a
Markdown fence or ``<think>…</think>`` around the JSON, and then ``.parse()`` of OpenAI's client fails. A fence around
anything that does not begin like JSON stays. The text that waits for a decision is bounded, and each character is
looked at once, in whatever parts the text arrives.
"""

from __future__ import annotations

import io
import re
from typing import Literal

_THINK, _END_OF_THINK = "<think>", "</think>"
_FENCE = "```"

#: how JSON that a format can require begins: an object, an array or a string
_BEGINNINGS = ("{", "[", '"')

#: characters that are held until it is clear what the text is; only thinking without a start tag takes as many, and
#: longer text without an end tag is passed on as it is
_MAX_HELD = 32 * 1024

#: characters that are looked at together, since what follows a tag is copied
_STEP = 4096

#: what an opening fence consists of, and a closing one
_OPENING = (re.compile(r"[ \t]*"), re.compile(r"[A-Za-z0-9_+-]*"), re.compile(r"\s*"))
_BLANKS = re.compile(r"\s*")

_State = Literal["start", "thinking", "untagged", "opening", "fenced", "closing", "open"]


class Pieces:
    """Text that arrives in parts and is needed as a whole, once or never."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        #: characters
        self.size = 0

    def add(self, text: str) -> None:
        """Add the next part."""
        self.size += self._text.write(text)

    def take(self) -> str:
        """Return the text, and forget it."""
        if not self.size:
            return ""
        text = self._text.getvalue()
        self._text, self.size = io.StringIO(), 0
        return text


class JSONUnwrapper:
    """A filter that removes what surrounds a JSON text.

    The text arrives in parts; each part returns ``(thinking, text)``, either of which may be empty.
    """

    def __init__(self) -> None:
        self._state: _State = "start"
        #: text that waits for a decision
        self._held = Pieces()
        #: its last characters, which may begin a tag
        self._tail = ""
        self._brackets = Brackets()
        #: backticks of the present fence, and the part of an opening fence that comes after them
        self._backticks = 0
        self._part = 0

    def feed(self, text: str) -> tuple[str, str]:
        """Take the next part, and return the thinking and the text that can be told apart by now."""
        thinking, content = [], []
        for start in range(0, len(text), _STEP):
            if self._state == "open":
                content.append(text[start:])
                break
            rest = text[start : start + _STEP]
            while rest:
                thought, passed, rest = self._step(rest)
                thinking.append(thought)
                content.append(passed)
        return "".join(thinking), "".join(content)

    def end(self) -> tuple[str, str]:
        """Return what was held back, without a closing fence."""
        if self._state == "thinking":
            return self._tail, ""
        is_closed = self._state == "closing" and self._backticks in (0, len(_FENCE))
        return "", "" if is_closed else self._held.take()

    def _step(self, text: str) -> tuple[str, str, str]:
        """Return the thinking and the text at the beginning of *text*, and what is left for the next state."""
        if self._state == "thinking":
            thought, rest = self._think(text)
            return thought, "", rest
        if self._state == "untagged":
            thought, rest = self._untagged(text)
            return thought, "", rest
        if self._state == "fenced":
            end = self._brackets.feed(text)
            if self._brackets.closed:
                self._state = "closing"
            return "", text[:end], text[end:]
        if self._state == "start":
            return "", "", self._start(text)
        if self._state == "opening":
            return "", "", self._opening(text)
        if self._state == "closing":
            return "", "", self._closing(text)
        return "", text, ""

    def _start(self, text: str) -> str:
        """Decide what begins, from its first characters."""
        text = (self._held.take() + text).lstrip()
        if text.startswith(_THINK):
            self._state = "thinking"
            return text[len(_THINK) :]
        if text.startswith(_BEGINNINGS):
            self._state = "open"
        elif text.startswith("`"):
            self._state, self._backticks, self._part = "opening", 0, 0
        elif _THINK.startswith(text):  # a part of it, or nothing
            self._held.add(text)
            return ""
        else:
            self._state = "untagged"
        return text

    def _think(self, text: str) -> tuple[str, str]:
        """Return the thinking, except what may be the beginning of its end tag, and what follows the tag."""
        text = self._tail + text
        thought, tag, rest = text.partition(_END_OF_THINK)
        if tag:
            self._state, self._tail = "start", ""
            return thought, rest
        size = len(_END_OF_THINK) - 1
        self._tail = text[-size:]
        return text[:-size], ""

    def _untagged(self, text: str) -> tuple[str, str]:
        """Hold text that is thinking if its end tag comes: some templates have the start tag in the prompt."""
        recent = self._tail + text
        self._held.add(text)
        end = recent.find(_END_OF_THINK)
        if end >= 0:
            rest = recent[end + len(_END_OF_THINK) :]
            thought = self._held.take()
            self._state, self._tail = "start", ""
            return thought[: len(thought) - len(rest) - len(_END_OF_THINK)], rest
        self._tail = recent[1 - len(_END_OF_THINK) :]
        return "", self._pass_on() if self._held.size > _MAX_HELD else ""

    def _opening(self, text: str) -> str:
        """Hold what may become an opening fence, and leave it out if JSON follows."""
        position = self._count_backticks(text)
        is_fence = self._backticks == len(_FENCE)
        while is_fence and position < len(text) and self._part < len(_OPENING):
            position = _end(_OPENING[self._part], text, position)
            self._part += position < len(text)
        if position == len(text):
            self._held.add(text)
            return self._pass_on() if self._held.size > _MAX_HELD else ""
        if not is_fence or text[position] not in "{[":
            return self._pass_on(text)
        self._held.take()
        self._state, self._backticks = "fenced", 0
        return text[position:]

    def _closing(self, text: str) -> str:
        """Hold what may become a closing fence; anything else is passed on at once, with the fence."""
        position = 0
        if not self._backticks:
            position = _end(_BLANKS, text, position)
        position = self._count_backticks(text, position)
        if self._backticks == len(_FENCE):
            position = _end(_BLANKS, text, position)
        if position < len(text):
            return self._pass_on(text)
        self._held.add(text)
        if self._held.size > _MAX_HELD:  # of blanks, which mean nothing here
            self._held.take()
        return ""

    def _count_backticks(self, text: str, position: int = 0) -> int:
        """Count the backticks of a fence, and return where they end."""
        while self._backticks < len(_FENCE) and text.startswith("`", position):
            self._backticks += 1
            position += 1
        return position

    def _pass_on(self, text: str = "") -> str:
        """Return the held text and *text*, which nothing is removed from, nor from what follows."""
        self._state = "open"
        self._held.add(text)
        return self._held.take()


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None
    return match.end()


_MARK = re.compile(r'["\\\[\]{}]')


class Brackets:
    """A counter of the brackets of a JSON text that arrives in parts."""

    def __init__(self) -> None:
        #: the last bracket was read, so that the value is complete
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str, position: int = 0) -> int:
        """Return where the value ends in *text*, whose next part begins at a position: after its last bracket.

        After the value has ended this is the position.
        """
        while position < len(text) and not self.closed:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
                continue
            mark = _MARK.search(text, position)
            if mark is None:
                return len(text)
            position = mark.end()
            self._step(mark[0])
        return position

    def _step(self, mark: str) -> None:
        if self._in_string:
            self._in_string = mark != '"'
            self._is_escaped = mark == "\\"
        elif mark == '"':
            self._in_string = True
        elif mark in "[{":
            self._depth += 1
        elif mark in "]}":
            self._depth -= 1
            self.closed = self._depth <= 0
