r"""Lone surrogates in JSON text, such as ``"\ud83d"`` without the second half: they are no characters.

Models produce them, clients send them back in the history, and decoders refuse the whole text. Here they become
U+FFFD. Only the escapes change, in the bytes, so that the rest of the text stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ANY = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_HIGH = re.compile(_HIGH + rb"(?!" + _LOW + rb")")
_LONE_LOW = re.compile(rb"(?<!" + _HIGH + rb")" + _LOW)
_HIGH_BEGINS, _LOW_BEGINS = re.compile(_HIGH), re.compile(_LOW)
_REPLACEMENT = rb"\\ufffd"
_BLOCK = 65536


def mended(text: bytes) -> bytes:
    """Return a JSON text in which every escape of a lone surrogate is ``\\ufffd``.

    :param text: JSON, not necessarily valid; one with NUL bytes, which is not valid, is returned as it is.
    """
    if b"\\u" not in text or not _ANY.search(text) or b"\x00" in text:
        return text
    # In place of escaped backslashes stand NUL bytes meanwhile: every other backslash begins an escape.
    text = text.replace(b"\\\\", b"\x00\x00")
    text = b"".join(_LONE_LOW.sub(_REPLACEMENT, _LONE_HIGH.sub(_REPLACEMENT, block)) for block in _blocks(text))
    return text.replace(b"\x00\x00", b"\\\\")


def _blocks(text: bytes) -> Iterator[bytes]:
    """Yield the text in blocks that end neither within an escape nor between the halves of a character.

    A substitution takes memory for each escape of what it is given.
    """
    start = 0
    while start < len(text):
        end = min(start + _BLOCK, len(text))
        begin = text.rfind(b"\\", end - 5, end)
        if start < begin and text[begin : begin + 2] == b"\\u":
            end = begin
        if start < end - 6 and _LOW_BEGINS.match(text, end) and _HIGH_BEGINS.match(text, end - 6):
            end -= 6
        yield text[start:end]
        start = end


#: what may be the beginning of an escape, or the first half of a character and the beginning of its second, at the end
_UNFINISHED = re.compile(rb"(?:" + _HIGH + rb")?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
#: bytes of the longest of these
_LONGEST = 11


class Mender:
    """Mends a JSON text that arrives in parts."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, text: bytes) -> bytes:
        """Return the text so far that is complete, mended; a few bytes at its end may be held."""
        text = self._held + text
        end = _unfinished(text)
        self._held = text[end:]
        return mended(text[:end])

    def end(self) -> bytes:
        """Return what is held, mended."""
        held, self._held = self._held, b""
        return mended(held)


def _unfinished(text: bytes) -> int:
    """Return where the unfinished escape at the end of a text begins; its length if there is none."""
    position = max(len(text) - _LONGEST, 0)
    while match := _UNFINISHED.search(text, position):
        begin = match.start()
        if begin == len(text):
            break
        before = text[:begin]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return begin
        position = begin + 1  # this backslash is escaped itself
    return len(text)
