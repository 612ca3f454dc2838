"""Splitting of a byte stream into lines.

The chunks of the stream may end anywhere. Only ``\\n`` ends a line; U+2028 and a lone CR do not. The parts of an
unfinished line are collected in a list and joined once, and only new bytes are searched, so that a long line takes
linear time.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


class LineTooLong(Exception):
    """A line is longer than the limit."""


class Lines:
    """A splitter of one byte stream.

    :param limit: bytes of the longest line.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes, without line ends and blank lines.

        :raises LineTooLong: a line, complete or not, is longer than the limit.
        """
        *complete, rest = data.split(b"\n")
        lines = [line for line in map(self._complete, complete) if line]
        self._append(rest)
        return lines

    def end(self) -> bytes:
        """Return the last line if the stream ended without a line end, else ``b""``."""
        return self._complete(b"")

    def _append(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self.limit:
            raise LineTooLong
        if part:
            self._parts.append(part)

    def _complete(self, part: bytes) -> bytes:
        self._append(part)
        line = part if len(self._parts) == 1 and part else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if not self._started:
            self._started = True
            line = line.removeprefix(BOM)
        return line.strip(_BLANK)
