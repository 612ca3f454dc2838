"""What a model's text is, other than text to pass on: readers of content, one for each way in which a model answers.

A reader takes the text of a native stream in parts and tells text from calls and thinking. It knows no message and no
choice. Each character is looked at once, in whatever parts the text arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from openai_compat.native import types as native
from openai_compat.structured.json_text import JSONUnwrapper
from openai_compat.structured.written.scanner import CallScanner


class CutCall(NamedTuple):
    """A call that was cut by the end of the tokens, as far as it came."""

    name: str
    #: JSON text without an end
    arguments: str


class Read(NamedTuple):
    """What a part of the text turned out to be; empty where it is not known yet."""

    thinking: str = ""
    text: str = ""
    calls: Sequence[native.ToolCall] = ()
    cut_call: CutCall | None = None


NOTHING = Read()


def joined(parts: Sequence[Read]) -> Read:
    """Return what consecutive parts of a text are together."""
    return Read(
        "".join(part.thinking for part in parts),
        "".join(part.text for part in parts),
        [call for part in parts for call in part.calls],
        next((part.cut_call for part in parts if part.cut_call), None),
    )


class ContentReader(Protocol):
    """A reader of the text of one native stream."""

    @property
    def holding(self) -> bool:
        """Return whether text is held that may leave later."""

    @property
    def stopped(self) -> bool:
        """Return whether a stop sequence was read: what follows is dropped."""

    def feed(self, text: str) -> Read:
        """Take the next part."""

    def release(self) -> str:
        """Give up: return what is held, and pass on what follows."""

    def interrupt(self) -> str:
        """Return what is held and can be text only, as something else than text follows."""

    def end(self, *, is_cut: bool) -> Read:
        """Return what is held.

        :param is_cut: the text has no end, since no more tokens were allowed.
        """


class JSONReader:
    """A reader of an answer that is JSON: what stands around it is removed."""

    holding = False
    stopped = False

    def __init__(self) -> None:
        self._unwrapper = JSONUnwrapper()

    def feed(self, text: str) -> Read:
        """Take the next part."""
        thinking, content = self._unwrapper.feed(text)
        return Read(thinking, content)

    def release(self) -> str:
        """Return nothing: a call beside JSON changes nothing of it."""
        return ""

    def interrupt(self) -> str:
        """Return nothing: what is held is of the JSON, or nothing."""
        return ""

    def end(self, *, is_cut: bool) -> Read:
        """Return what is held, without a closing fence."""
        thinking, content = self._unwrapper.end()
        return Read(thinking, content)


class TextReader:
    """A reader of an answer that is text, whatever it looks like."""

    holding = False
    stopped = False

    def feed(self, text: str) -> Read:
        """Take the next part."""
        return Read(text=text)

    def release(self) -> str:
        """Return nothing: nothing is held."""
        return ""

    def interrupt(self) -> str:
        """Return nothing: nothing is held."""
        return ""

    def end(self, *, is_cut: bool) -> Read:
        """Return nothing: nothing is held."""
        return NOTHING


#: characters of blanks that are held at the beginning of an answer, since a call may follow
_MAX_BLANKS = 64


class WrittenCallsReader:
    """A reader of an answer in which the model may write its calls as text.

    Blanks at the beginning are held for a moment: before a call they are no text, of which clients would show a block.
    """

    stopped = False

    def __init__(self, scanner: CallScanner) -> None:
        self._scanner = scanner
        #: blanks at the beginning; None after text
        self._blanks: str | None = ""

    @property
    def holding(self) -> bool:
        """Return whether text is held that may leave later."""
        return bool(self._blanks) or self._scanner.holding

    def feed(self, text: str) -> Read:
        """Take the next part."""
        text = self._scanner.feed(text)
        return Read("", text if self._blanks is None else self._after_blanks(text))

    def _after_blanks(self, text: str) -> str:
        """Return what leaves of a text that the scanner lets go at the beginning."""
        text = (self._blanks or "") + text
        is_blank = not text.strip(" \t\r\n") and len(text) <= _MAX_BLANKS
        self._blanks = text if is_blank else None
        return "" if is_blank else text

    def _take_blanks(self) -> str:
        blanks, self._blanks = self._blanks or "", None
        return blanks

    def release(self) -> str:
        """Give up: a native call came, so the model does not write them."""
        return self._take_blanks() + self._scanner.release()

    def interrupt(self) -> str:
        """Return what is only the beginning of an opener; blanks go on being held."""
        text = self._scanner.interrupt()
        return self._take_blanks() + text if text else ""

    def end(self, *, is_cut: bool) -> Read:
        """Return the calls that end the answer, or the text that was held."""
        found, blanks = self._scanner.end(), self._take_blanks()
        return Read(found.thinking, found.text if found.calls else blanks + found.text, found.calls)
