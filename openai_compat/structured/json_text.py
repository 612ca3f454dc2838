"""Text that should be JSON: code fences and thinking around it are removed.

Where the native side applies ``format`` there is nothing to remove. Remote models, and some thinking models, write a
Markdown fence or ``<think>…</think>`` around the JSON, and then ``.parse()`` of OpenAI's client fails. A fence around
anything that does not begin like JSON stays. The text that waits for a decision is bounded.
"""

from __future__ import annotations

import re

_THINK, _END_OF_THINK = "<think>", "</think>"
_QUOTES = "```"
_FENCE = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*\s*(?=[{\[])")
_FENCE_SO_FAR = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*\s*")
_CLOSING_FENCE = re.compile(r"\s*(```)?\s*")

#: how JSON that a format can require begins (an object, an array or a string), and how a fence does
_BEGINNINGS = ("{", "[", '"', "`")

#: characters that are held until it is clear what the text is; only thinking without a start tag takes as many, and
#: longer text without an end tag is passed on as it is
_MAX_HELD = 32 * 1024


class JSONUnwrapper:
    """A filter that removes what surrounds a JSON text.

    The text arrives in parts; each part returns ``(thinking, text)``, either of which may be empty.
    """

    def __init__(self) -> None:
        self._held = ""
        self._is_thinking = False
        self._is_open = False
        self._fenced: Brackets | None = None

    def feed(self, text: str) -> tuple[str, str]:
        """Take the next part, and return the thinking and the text that can be told apart by now."""
        if self._is_open:
            return "", text if self._fenced is None else self._until_end(self._fenced, text)
        self._held += text
        thinking = ""
        while True:
            if self._is_thinking:
                thinking += self._take_thinking()
                if self._is_thinking:
                    return thinking, ""
            self._held = self._held.lstrip()
            if self._held.startswith(_THINK):
                self._held = self._held[len(_THINK) :]
            elif (
                self._held.startswith(_BEGINNINGS) or _END_OF_THINK not in self._held[-len(text) - len(_END_OF_THINK) :]
            ):
                return thinking, "" if self._is_undecided() else self._open()
            # Otherwise it is thinking whose start tag is part of the prompt, as in some templates.
            self._is_thinking = True

    def end(self) -> tuple[str, str]:
        """Return what was held back, without a closing fence."""
        held, self._held = self._held, ""
        if self._is_thinking:
            return held, ""
        return "", "" if self._fenced is not None and _CLOSING_FENCE.fullmatch(held) else held

    def _take_thinking(self) -> str:
        """Return the thinking that was held back, except what may be the beginning of its end tag."""
        end = self._held.find(_END_OF_THINK)
        self._is_thinking = end < 0
        if end >= 0:
            thought, self._held = self._held[:end], self._held[end + len(_END_OF_THINK) :]
            return thought
        size = len(_END_OF_THINK) - 1
        thought, self._held = self._held[:-size], self._held[-size:]
        return thought

    def _is_undecided(self) -> bool:
        """Return whether the held text may still become a fence, or thinking without a start tag."""
        if len(self._held) > _MAX_HELD:
            return False
        is_fence = _QUOTES.startswith(self._held) or bool(_FENCE_SO_FAR.fullmatch(self._held))
        return is_fence or not self._held.startswith(_BEGINNINGS)

    def _open(self) -> str:
        """Return the held text, which begins the JSON, without an opening fence."""
        self._is_open = True
        fence = _FENCE.match(self._held)
        held, self._held = self._held, ""
        if fence is None:
            return held
        self._fenced = Brackets()
        return self._until_end(self._fenced, held[fence.end() :])

    def _until_end(self, brackets: Brackets, text: str) -> str:
        """Return fenced JSON up to its last bracket, and hold back what follows."""
        end = brackets.feed(text)
        self._held += text[end:]
        return text[:end]


_MARK = re.compile(r'["\\\[\]{}]')


class Brackets:
    """A counter of the brackets of a JSON text that arrives in parts."""

    def __init__(self) -> None:
        #: the last bracket was read, so that the value is complete
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> int:
        """Return how many characters of *text* belong to the value: up to its last bracket, 0 after that."""
        position = 0
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
