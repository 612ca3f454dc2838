"""The bytes of one HTTP/1 request while they arrive: how many belong to it, and whether they are all there.

Nothing is refused here, and no socket is used. A request whose end cannot be known in advance (a malformed head, an
unknown transfer coding) counts as complete, so that the server's own parser reads and refuses it.
"""

from __future__ import annotations

import re

#: seconds in which a request must arrive, by default
RECEIVE_TIMEOUT = 60.0
#: bytes of a request that are held before a thread reads it: the head, and as much of the body
LIMIT = 1024 * 1024
#: bytes of a chunk's size line, or of a trailer; what is longer is left to the server's parser
_MAX_LINE = 8192

#: the fields that say where a body ends, and whether the client waits before it sends one
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect):([^\r\n]*)", re.I)
#: the field that is answered before the body is read. A line that continues it is left to the server's parser.
_EXPECTATION = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n[^ \t])", re.I)


class IncomingRequest:
    """One request, from its first byte to its last.

    :param deadline: by the caller's clock; not used here.
    :param limit: bytes of the head, and of the body, after which the request counts as complete.
    """

    def __init__(self, deadline: float, limit: int = LIMIT) -> None:
        self.deadline = deadline
        #: what has arrived
        self.data = bytearray()
        #: whether the server's parser can take it: it has all that is to be held of it
        self.is_complete = False
        #: whether the client waits for ``100 Continue``; the field is removed from the head
        self.expects_continue = False
        self._limit = limit
        #: the length of the whole request; None until it is known
        self._end: int | None = None
        #: where the next line of the chunked coding begins; None for a body without it
        self._line: int | None = None
        self._has_head = self._in_trailers = False

    def feed(self, data: bytes) -> int:
        """Add the bytes that belong to this request and return their number; the rest is the next request's."""
        before = len(self.data)
        self.data += data
        removed = 0 if self._has_head else self._find_head(max(0, before - 3))
        if self._line is not None and self._end is None:
            self._find_last_chunk()
        if self._end is not None and len(self.data) >= self._end:
            del self.data[self._end :]
            self.is_complete = True
        return len(self.data) + removed - before

    def _find_head(self, start: int) -> int:
        """Look for the end of the head, and return the number of bytes that were removed from it."""
        at = self.data.find(b"\r\n\r\n", start)
        if at < 0:
            if len(self.data) >= self._limit:
                self._give_up()
            return 0
        self._has_head = True
        return self._read_head(at + 4)

    def _read_head(self, end: int) -> int:
        """Read from the head where the body ends; return the number of bytes that were removed from it."""
        head = bytes(self.data[:end])
        fields: dict[bytes, list[bytes]] = {}
        for name, value in _FRAMING.findall(head):
            fields.setdefault(name.lower(), []).append(value.strip(b" \t").lower())
        lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
        is_length = len(lengths) == 1 and re.fullmatch(rb"[0-9]{1,18}", lengths[0])
        if not lengths and not codings:
            self._end = end
            return 0
        if not (codings == [b"chunked"] and not lengths) and not (is_length and not codings):
            self._give_up()
            return 0
        removed = self._expectation(head) if fields.get(b"expect") == [b"100-continue"] else 0
        end -= removed
        if codings:
            self._line = end
        else:
            self._end = end + min(int(lengths[0]), self._limit)
        return removed

    def _expectation(self, head: bytes) -> int:
        """Note that the client waits, and remove the field; return the number of bytes removed.

        The server's parser would otherwise answer it a second time.
        """
        found = _EXPECTATION.search(head)
        if found is None or not head.partition(b"\r\n")[0].endswith(b"HTTP/1.1"):
            return 0
        self.expects_continue = True
        del self.data[found.start() : found.end()]
        return found.end() - found.start()

    def _find_last_chunk(self) -> None:
        """Go on from line to line of the chunked coding, until the empty line after the trailers."""
        assert self._line is not None
        while self._line <= len(self.data):
            end = self.data.find(b"\r\n", self._line, self._line + _MAX_LINE)
            if end < 0:
                if len(self.data) - self._line >= _MAX_LINE:
                    self._give_up()
                break
            line, self._line = self.data[self._line : end], end + 2
            if not self._in_trailers:
                size = line.partition(b";")[0].strip(b" \t")
                if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size):
                    self._give_up()
                    break
                self._in_trailers = int(size, 16) == 0
                self._line += 0 if self._in_trailers else int(size, 16) + 2
            elif not line:
                self._end = self._line
                return
        if len(self.data) >= self._limit:
            self._give_up()

    def _give_up(self) -> None:
        """Leave what has arrived to the server's parser."""
        self._end = len(self.data)
