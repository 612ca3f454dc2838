"""The messages of a native stream: bytes in, decoded messages out, one at a time.

Lines are re-framed, however the bytes arrive. Only a message with ``done`` ends a stream properly; an error line in
mid-stream and an early end are raised.

Source: ollama ``middleware/openai.go`` ``ChatWriter.Write``, which takes each write for one document.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from msgspec import UNSET

from openai_compat.errors import APIError, bad_gateway
from openai_compat.log import log
from openai_compat.native import errors
from openai_compat.native import types as native
from openai_compat.transport.wsgi_call import WSGICall
from openai_compat.wire import json
from openai_compat.wire.ndjson import Lines, LineTooLong

L = TypeVar("L", bound="native.StreamLine")


class NativeStream(Generic[L]):
    """The messages of one native stream, in order. Iterate it once, close it once.

    :param decode: decodes one line.
    :param max_line: bytes of a line.
    :param model: the client's name for the model, for errors.
    :param operation: method and path, for errors.
    :param on_end: is called with the final message, the one with ``done``.
    """

    def __init__(
        self,
        call: WSGICall,
        decode: Callable[[bytes], L],
        *,
        max_line: int,
        model: str | None = None,
        operation: str = "",
        on_end: Callable[[L], object] = lambda message: None,
    ) -> None:
        self._call = call
        self._decode = decode
        self._splitter = Lines(max_line)
        self._model = model
        self._operation = operation
        self._on_end = on_end
        self._lines: deque[bytes] = deque()
        self._at_end = False
        self._first: L | None = None
        self._count = 0
        #: the final message was read
        self.done = False
        #: bytes of the response that were read so far
        self.size = 0

    def open(self) -> NativeStream[L]:
        """Read the first message, so that an early failure can still set the status of the response."""
        try:
            self._first = self._next()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def pending(self) -> bool:
        """Return whether the next message can be read without waiting."""
        return bool(self._lines) or self.done

    def __iter__(self) -> Iterator[L]:
        return self

    def __next__(self) -> L:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self.done:
            raise StopIteration
        try:
            return self._next()
        except APIError as error:
            # Tokens were generated: a client that retries pays for them twice. What could not be parsed is lost anyway.
            error.retry = None if isinstance(error, errors.UnparsableOutput) else False
            raise

    def _next(self) -> L:
        """Return the next message.

        :raises APIError: as :meth:`_read`; the failure of the upstream, if the application caught it and sent an error
            line or a page, or ended the body.
        """
        try:
            return self._read()
        except APIError as error:
            failure = self._call.take_failure()
            if failure is None or failure is error:
                raise
            raise failure from error

    def _read(self) -> L:
        """Return the next message.

        :raises APIError: the native error of an error line; 502 for a line that is not a message.
        """
        start = self.size
        while not self._lines:
            self._fill()
            # An incomplete line has at most half of these bytes; the others are blank lines.
            if self.size - start > 2 * self._splitter.limit:
                raise bad_gateway("The backend sent too many blank lines.")
        line = self._lines.popleft()
        try:
            message = self._decode(line)
        except json.Malformed as error:
            message = self._decode_document(line, error)
        # Some servers send "error": "" in every message.
        if message.error is not UNSET and (message.error or not message.is_answer()):
            raise errors.from_line(message.error, model=self._model, operation=self._operation)
        if not message.is_answer():
            log.error("the backend sent a line that is not a message")
            raise bad_gateway()
        self._count += 1
        if message.done:
            self.done = True
            self._on_end(message)
        return message

    def _fill(self) -> None:
        """Read the next bytes of the response, which may complete no line or several.

        :raises APIError: 502 at an end before the final message, and for a line that is too long.
        """
        if self._at_end:
            log.error("the backend's stream ended before it was done")
            raise bad_gateway("The backend's answer ended before it was complete.")
        try:
            data = next(self._call, None)
            if data is not None:
                self.size += len(data)
                self._lines.extend(self._splitter.feed(data))
                return
            self._at_end = True
            last = self._splitter.end()
        except LineTooLong as error:
            raise bad_gateway("The backend sent a line that is too long.") from error
        if last:
            self._lines.append(last)

    def _decode_document(self, line: bytes, error: json.Malformed) -> L:
        """Decode a first line that is not a message as the beginning of one document over several lines (F16)."""
        if self._count or "ndjson" in self._call.header("content-type"):
            if self._at_end and not self._lines:
                raise bad_gateway("The backend's answer ended before it was complete.") from error
            log.error("the backend sent a line that is not a message")
            raise bad_gateway() from error
        lines = [line]
        while not self._at_end or self._lines:
            if self._lines:
                lines.append(self._lines.popleft())
            else:
                self._fill()
            if self.size > self._splitter.limit:
                raise bad_gateway("The backend sent a line that is too long.") from error
        try:
            return self._decode(b"\n".join(lines))
        except json.Malformed as document_error:
            raise errors.unreadable(b"\n".join(lines), operation=self._operation) from document_error

    def close(self) -> None:
        """Close the native response; after ``done`` the application may first run to its own end."""
        # Bytes after the end belong to no response: the connection is not used again (F35).
        ended = self.done and not self._lines and not self._splitter.end()
        self._lines.clear()
        if ended:
            self._call.finish()
        else:
            self._call.close()
