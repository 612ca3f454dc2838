"""A WSGI middleware that records what clients and an Ollama say to each other, for :meth:`FakeOllama.replay`.

Requests and responses pass through unchanged and at once. A line of the file, as ``recording.py`` describes it, has
neither headers nor query parameters, so that no key in them is recorded; values of the request's fields that are named
like secrets are left out too, at any depth, and so is a body that is not JSON. **Prompts and answers are recorded as
they are.**
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from openai_compat.log import log
from openai_compat.testing.recording import decoded
from openai_compat.transport.side_channel import is_remote, speaks_native_only

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: bytes of a request, and of a response, that are recorded; larger ones pass, and are not
MAX_BODY = 64 * 1024 * 1024
#: paths that are recorded, the native ones by their side's name; blobs are files
_PATHS = (("native", re.compile(r"/(api/(?!blobs/).*)?")), ("openai", re.compile(r"/v1/.*")))


class Recorder:
    """Wraps a native application, and appends each exchange to a file.

    It may be called in several threads, and several processes may append to one file. The file is made for its owner
    alone (mode 0600); one that exists is continued, and loses the rights of others.

    :param app: the WSGI application, such as an ``Upstream``.
    :param path: the file.
    :raises OSError: the file cannot be opened.
    """

    def __init__(self, app: WSGIApplication, path: str | os.PathLike[str]) -> None:
        self.is_remote = is_remote(app)
        self.speaks_native_only = speaks_native_only(app)
        self._app = app
        self._file = _open_private(path)
        self._lock = threading.Lock()
        self._count = _count_lines(path)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass one request on, as WSGI defines it."""
        path = environ.get("PATH_INFO", "") or "/"
        side = next((name for name, paths in _PATHS if paths.fullmatch(path)), None)
        if side is None:
            return self._app(environ, start_response)
        environ, body = _with_body(environ)
        if body is None:
            return self._app(environ, start_response)
        # A compressed body is not a text.
        environ.pop("HTTP_ACCEPT_ENCODING", None)
        exchange = _Exchange(self, side, environ["REQUEST_METHOD"], _text(path), body, start_response)
        try:
            exchange.body = self._app(environ, exchange.start_response)
        except BaseException:
            exchange.end(is_complete=False)
            raise
        return exchange

    def append(self, side: str, exchange: dict[str, Any]) -> None:
        """Append one exchange as a line. A failure is logged, and costs no response."""
        with self._lock:
            self._count += 1
            name = f"{side}/{self._count}"
            line = json.dumps({"name": name, side: exchange}).encode() + b"\n"
            try:
                # One call, so that the lines of several processes do not mix.
                written = os.write(self._file, line)
                while written < len(line):
                    written += os.write(self._file, line[written:])
            except OSError as error:
                log.error("an exchange was not recorded: %s", error.strerror or error)

    def close(self) -> None:
        """Close the file. No request may follow."""
        with self._lock:
            os.close(self._file)


class _Exchange:
    """A response that passes through, and is recorded when it ends."""

    def __init__(
        self, recorder: Recorder, side: str, method: str, path: str, request: bytes, start_response: StartResponse
    ) -> None:
        self.body: Iterable[bytes] = ()
        self._recorder = recorder
        self._side = side
        self._line: dict[str, Any] = {"method": method, "path": path, "request": decoded(request)}
        self._start = start_response
        self._items: Iterator[bytes] | None = None
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Note the head of the response, and pass it on."""
        self._status = int(status[:3])
        self._headers = {name.lower(): value for name, value in headers}
        write: Callable[[bytes], object] = (
            self._start(status, headers, exc_info) if exc_info else self._start(status, headers)
        )

        def write_and_note(data: bytes) -> None:
            self._note(data)
            write(data)

        return write_and_note

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._items is None:
            self._items = iter(self.body)
        try:
            item = next(self._items)
        except BaseException as error:
            self.end(is_complete=isinstance(error, StopIteration))
            raise
        self._note(item)
        return item

    def close(self) -> None:
        """Close the application's response; a client that went away ends the exchange here."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.end(is_complete=False)

    def _note(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            self._parts.clear()
        elif data:
            self._parts.append(data)

    def end(self, *, is_complete: bool) -> None:
        """Record the exchange; further calls do nothing."""
        if self._ended or self._status is None:
            return
        self._ended = True
        if self._size > MAX_BODY:
            log.warning("an exchange of more than %d bytes was not recorded", MAX_BODY)
            return
        body = b"".join(self._parts)
        text = body.decode("utf-8", "replace")
        line = self._line | {
            "status": self._status,
            "content_type": self._headers.get("content-type"),
            "transfer_encoding": None if "content-length" in self._headers else "chunked",
            "body": text,
        }
        if text.encode() == body:
            line["chunks"] = [len(part) for part in self._parts]
        self._recorder.append(self._side, line | {"complete": is_complete})
        self._parts.clear()


def _with_body(environ: WSGIEnvironment) -> tuple[WSGIEnvironment, bytes | None]:
    """Return an environ whose body can be read again, and the body; None if it is too long to be recorded."""
    length, source = environ.get("CONTENT_LENGTH") or "", environ["wsgi.input"]
    if not length and not environ.get("wsgi.input_terminated"):
        return dict(environ), b""
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    if size is not None and size > MAX_BODY:
        return environ, None
    body = _read(source, MAX_BODY + 1 if size is None else size)
    if len(body) > MAX_BODY:
        return {**environ, "wsgi.input": _Joined(body, source)}, None
    if size is not None and len(body) < size:  # the client went away: the application finds it out
        return {**environ, "wsgi.input": BytesIO(body)}, None
    again = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    again.pop("HTTP_TRANSFER_ENCODING", None)
    return again, body


def _read(source: Any, size: int) -> bytes:
    """Read up to *size* bytes; a server may return less at once."""
    parts: list[bytes] = []
    while size > 0 and (part := source.read(min(size, 65536))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Joined:
    """An input stream whose beginning was read already."""

    def __init__(self, beginning: bytes, rest: Any) -> None:
        self._beginning = BytesIO(beginning)
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._beginning.read(size)
        return data or self._rest.read(size)


def _text(path: str) -> str:
    """Return a path as the text that was sent; WSGI has its bytes as characters."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


# -- the file ---------------------------------------------------------------------------------


def _open_private(path: str | os.PathLike[str]) -> int:
    """Return the descriptor of a file to append to, which only its owner can read.

    :raises OSError: it cannot be opened, or belongs to somebody else.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode):
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(file, 0o600)
            if found.st_size and os.pread(file, 1, found.st_size - 1) != b"\n":
                os.write(file, b"\n")  # the last program broke off in a line
    except BaseException:
        os.close(file)
        raise
    return file


def _count_lines(path: str | os.PathLike[str]) -> int:
    with suppress(OSError), open(path, "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return sum(1 for _ in file)
    return 0
