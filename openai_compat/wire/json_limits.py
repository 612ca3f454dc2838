"""Limits of a JSON text that are checked before it is decoded: depth, number of values, range of numbers, UTF-8.

A text is scanned in blocks of 64 KiB, so that the scan needs little memory, and one that exceeds a limit is refused
before the rest is scanned. Every step is a few C calls for each block. What a text means is decided in ``json.py``.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from itertools import accumulate

#: arrays and objects in a request; commas and colons may be four times as many. Decoded, such a body takes about 40 MB;
#: 10,000 messages (the default limit) of several content parts each are still within it.
MAX_VALUES = 100_000

#: levels of arrays and objects, in a request and in JSON text inside it. Decoders recurse once a level, and a thread
#: with a small stack ends in a segmentation fault; no schema in use comes near 64.
MAX_DEPTH = 64

#: members of one object whose members have a meaning, such as a request or its ``options``
MAX_MEMBERS = 1000

_BLOCK = 65536


class Unacceptable(Exception):
    """A JSON text exceeds a limit. ``kind`` says which."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        #: ``deep``, ``unbalanced`` (brackets that do not match, which may be deep too), ``values`` or ``number``
        self.kind = kind


def is_utf8(text: bytes) -> bool:
    """Return whether a text is strict UTF-8."""
    if text.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _BLOCK):
            decoder.decode(text[start : start + _BLOCK])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


#: digits as 0, exponents as e: searching for a few bytes is much faster than a regular expression
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
#: what a number beyond the range of a 64-bit float has: an exponent of three digits, or 300 digits
_LARGE = (b"0e000", b"0e+000", b"0" * 300)


def _may_be_infinite(text: bytes) -> bool:
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK + len(_LARGE[-1])].translate(_DIGITS)
        if any(part in block for part in _LARGE):
            return True
    return False


def check(text: bytes) -> None:
    """Check the depth, the number of values and the range of all numbers of a JSON text, which need not be valid.

    :raises Unacceptable: it exceeds a limit.
    """
    few_brackets = text.count(b"[") + text.count(b"{") <= MAX_DEPTH
    if few_brackets and text.count(b",") + text.count(b":") <= 4 * MAX_VALUES and not _may_be_infinite(text):
        return
    depths, numbers = _Depths(), _Numbers()
    containers = separators = 0
    for outside in _outside_strings(text):
        containers += outside.count(b"[") + outside.count(b"{")
        separators += outside.count(b",") + outside.count(b":")
        if containers > MAX_VALUES or separators > 4 * MAX_VALUES:
            raise Unacceptable("values")
        depths.feed(outside)
        numbers.feed(outside)
    depths.end()
    numbers.feed(b" ")


def too_deep(text: bytes) -> bool:
    """Return whether arrays and objects are nested deeper than :data:`MAX_DEPTH`.

    Brackets that do not match may count as too deep, because a decoder could recurse into them.
    """
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    depths = _Depths()
    try:
        for outside in _outside_strings(text):
            depths.feed(outside)
        depths.end()
    except Unacceptable:
        return True
    return False


def has_many_members(text: bytes) -> bool:
    """Return whether an object has more than :data:`MAX_MEMBERS` members, or an array as many items."""
    if text.count(b",") < MAX_MEMBERS:
        return False
    depth = members = 0
    for outside in _outside_strings(text):
        marks = outside.translate(_MARKS, _NOT_MARKS)
        steps = list(accumulate(map(_MARK_STEPS.__getitem__, marks), initial=depth))
        members += sum(mark == _COMMA and level == 1 for mark, level in zip(marks, steps[1:], strict=True))
        depth = steps[-1]
        if members >= MAX_MEMBERS:
            return True
    return False


# -- what is outside of strings ---------------------------------------------------------------

_STRING = re.compile(rb'"[^"]*"?')


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """Yield what is outside of strings, block by block."""
    start, in_string = 0, False
    while start < len(text):
        block = text[start : start + _BLOCK]
        if b"\\" in block:
            if (len(block) - len(block.rstrip(b"\\"))) % 2:  # the block ends between a backslash and what it escapes
                block = text[start : start + _BLOCK + 1]
            start += len(block)
            # Without escaped backslashes and then escaped quotes, every quote begins or ends a string.
            block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        else:
            start += len(block)
        quotes = block.count(b'"')
        if in_string:
            block = b'"' + block
        in_string ^= bool(quotes % 2)
        yield _STRING.sub(b"", block)


_COMMA = 3
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MARKS = bytes(set(range(256)) - set(b"[]{},"))
#: brackets as indexes of the steps below
_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\x00\x00")
_MARKS = bytes.maketrans(b"[{]},", b"\x01\x01\x00\x00\x03")
_STEPS = (-1, 1)
_MARK_STEPS = (-1, 1, 0, 0)


class _Depths:
    """The depth of nesting, over the blocks of a text."""

    def __init__(self) -> None:
        self._depth = 0

    def feed(self, outside: bytes) -> None:
        """Add a block.

        :raises Unacceptable: the text is nested too deep, or a bracket closes that was never opened.
        """
        brackets = outside.translate(_BRACKETS, _NOT_BRACKETS)
        if not brackets:
            return
        depths = list(accumulate(map(_STEPS.__getitem__, brackets), initial=self._depth))
        if min(depths) < 0:
            raise Unacceptable("unbalanced")
        if max(depths) > MAX_DEPTH:
            raise Unacceptable("deep")
        self._depth = depths[-1]

    def end(self) -> None:
        """Check the end of the text.

        :raises Unacceptable: a bracket was never closed.
        """
        if self._depth:
            raise Unacceptable("unbalanced")


_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_NUMBER_CHARACTERS = b"0123456789.eE+-"


class _Numbers:
    """The range of the numbers, over the blocks of a text. Decoders accept integers of any length."""

    def __init__(self) -> None:
        #: a number that may go on in the next block
        self._tail = b""

    def feed(self, outside: bytes) -> None:
        """Add a block.

        :raises Unacceptable: a number is out of the range of a 64-bit float, or longer than a block.
        """
        outside = self._tail + outside
        rest = outside.rstrip(_NUMBER_CHARACTERS)
        self._tail = outside[len(rest) :]
        if len(self._tail) > _BLOCK:
            raise Unacceptable("number")
        if _may_be_infinite(rest) and any(math.isinf(float(number)) for number in _NUMBER.findall(rest)):
            raise Unacceptable("number")
