"""Lines of a byte stream, however it was cut.

Only ``\\n`` ends a line (U+2028 and a lone CR do not). The pieces of an unfinished line are kept in a
list and joined once, so that a long line costs linear time; only new bytes are searched.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


class LineTooLong(Exception):
    """A line went over the limit."""


class Lines:
    """Cut what is fed into lines.

    :param limit: the longest line, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pieces: list[bytes] = []
        self._held = 0
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Give the lines that *data* completes, without their ends; blank lines are left out.

        :raises LineTooLong: a line, finished or not, is longer than the limit.
        """
        *whole, rest = data.split(b"\n")
        lines = [line for line in map(self._finish, whole) if line]
        self._hold(rest)
        return lines

    def end(self) -> bytes:
        """Give what stands after the last line end: a last line without one, or nothing."""
        return self._finish(b"")

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self.limit:
            raise LineTooLong
        if piece:
            self._pieces.append(piece)

    def _finish(self, piece: bytes) -> bytes:
        self._hold(piece)
        line = piece if len(self._pieces) == 1 and piece else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if not self._started:
            self._started = True
            line = line.removeprefix(BOM)
        return line.strip(_BLANK)
