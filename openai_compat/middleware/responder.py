"""The response side of the WSGI edge: heads, bodies, event streams, errors, and the outcome of a request.

The head of every response is sent by :class:`Responder`, that of a request which is passed through too. Nothing is sent
before the status is certain; a stream that fails afterwards says so in its last event.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, Any

from openai_compat.endpoints.contract import Answer, EventStream, Headers, NamedEvent, Text
from openai_compat.errors import APIError
from openai_compat.native.usage import NativeUsage
from openai_compat.transport.cancel import Cancel
from openai_compat.wire import json, sse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("openai_compat")

#: what a client sees of a defect of this package; the log has the rest
INTERNAL_ERROR = APIError(500, "The gateway failed.", code="internal_error", retry=False)

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_STREAM_HEADERS = (("Cache-Control", "no-cache, no-store"), ("X-Accel-Buffering", "no"))

_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


@dataclass(frozen=True)
class RequestOutcome:
    """How a request ended and what it used: one value, known when its response ends.

    For a request that is passed through it is known when the head is sent, and has no usage.
    """

    method: str
    #: the route's path below the prefix, as in ``ROUTES``; None if there is none, or the request was passed through
    route: str | None
    #: of the response
    status: int
    #: of the failure, one after the status was out too
    error_code: str | None
    #: the answer was given to the server to its end, without a failure
    is_complete: bool
    #: from the entry of the request to the end of the answer
    seconds: float
    #: the client's name for the model, tokens and native times
    usage: NativeUsage


def new_id(prefix: str) -> str:
    """Return a random id of 128 bits with a prefix."""
    return prefix + secrets.token_hex(16)


def encoded(answer: Answer | Text) -> bytes:
    """Encode the body of a whole response."""
    return answer.text.encode("utf-8", "replace") if isinstance(answer, Text) else json.encode(answer.value)


class Responder:
    """Sends the response to one request.

    :param on_end: is called with the outcome, once.
    """

    def __init__(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        on_end: Callable[[RequestOutcome], object] = lambda outcome: None,
    ) -> None:
        self._began = time.monotonic()
        self._environ = environ
        self._start_response = start_response
        self._on_end = on_end
        self._method: str = environ["REQUEST_METHOD"]
        self._status = 0
        self._route: str | None = None
        self._usage = NativeUsage()
        self._cancel = Cancel()

    def attach(self, route: str, usage: NativeUsage, cancel: Cancel) -> None:
        """Set the route of the request, the usage of its native calls, and what cancels them."""
        self._route, self._usage, self._cancel = route, usage, cancel

    # -- kinds of answers ---------------------------------------------------------------------

    def pass_through(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """Send the head of an application's own response, as its ``start_response``."""
        if not self._status:
            self._status = int(status[:3]) if status[:3].isdigit() else 0
            self._end(None, is_complete=False)
        # Without exc_info as the application called it: some servers take two arguments only.
        return self._start_response(status, headers, *((exc_info,) if exc_info else ()))

    def stream(self, stream: EventStream) -> Iterable[bytes]:
        """Send an event stream; a failure becomes its last event."""
        body = _Events(stream, self._cancel, self._end)
        try:
            self._start(200, [("Content-Type", sse.CONTENT_TYPE), *_STREAM_HEADERS, *stream.headers])
        except BaseException:
            body.close()
            raise
        return body

    def send(self, answer: Answer | Text, body: bytes) -> Iterable[bytes]:
        """Send a whole response. Its body is :func:`encoded` before: a failure to encode has a status of its own."""
        return self._send(200, body, answer.headers, _TEXT if isinstance(answer, Text) else _JSON)

    def fail(self, error: APIError) -> Iterable[bytes]:
        """Send an error in OpenAI's format."""
        headers = list(error.headers)
        if error.retry is not None:
            headers.append(("x-should-retry", "true" if error.retry else "false"))
        return self._send(error.status, json.encode(error.body()), headers, _JSON, error.code)

    def refuse_method(self, methods: Iterable[str]) -> Iterable[bytes]:
        """Answer a method that the URL does not support: OPTIONS with the list of methods, any other with 405."""
        allow = ("Allow", ", ".join(sorted({*methods, "OPTIONS"})))
        if self._method == "OPTIONS":
            self._start(204, [allow])
            self._end(None, is_complete=True)
            return []
        text = f"Not allowed to {self._method[:20]} on this URL."
        return self.fail(APIError(405, text, code="method_not_allowed", headers=(allow,)))

    # -- heads and ends -----------------------------------------------------------------------

    def _send(
        self, status: int, body: bytes, headers: Headers, content_type: str, error_code: str | None = None
    ) -> Iterable[bytes]:
        own = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        self._start(status, [*own, *headers])
        self._end(error_code, is_complete=True)
        return [] if self._method == "HEAD" else [body]

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        given = self._environ.get("HTTP_X_REQUEST_ID", "")
        own = [
            ("x-request-id", given if _SANE_ID.fullmatch(given) else new_id("req_")),
            ("openai-processing-ms", str(int((time.monotonic() - self._began) * 1000))),
            ("openai-version", "2020-10-01"),
        ]
        self._status = status
        self._start_response(f"{status} {responses.get(status, 'Error')}", [*headers, *own])

    def _end(self, error_code: str | None, *, is_complete: bool) -> None:
        seconds = time.monotonic() - self._began
        self._on_end(
            RequestOutcome(self._method, self._route, self._status, error_code, is_complete, seconds, self._usage)
        )


class _Events:
    """The body of an event stream: whole frames; it is closed once, even before its first item (W2).

    :param cancel: is set when the server closes the stream before its end, so that its native calls end at once.
    :param on_end: is called with the code of a failure, and whether the stream was sent to its end.
    """

    def __init__(self, stream: EventStream, cancel: Cancel, on_end: Callable[..., None]) -> None:
        self._stream = stream
        self._cancel = cancel
        self._on_end = on_end
        self._error_code: str | None = None
        self._is_exhausted = False
        self._is_closed = False
        self._frames = self._make_frames()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._frames)

    def close(self) -> None:
        """Close the stream and report its outcome, once."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_exhausted:
            self._cancel.set()
        self._frames.close()
        self._stream.source.close()
        self._on_end(self._error_code, is_complete=self._is_exhausted and self._error_code is None)

    def _make_frames(self) -> Generator[bytes, None, None]:
        """Yield frames, several in one item if they are ready together; none waits for the next native line.

        A failure is the last frame: after the status was sent, a mere end would look complete (MID).
        """
        stream, held = self._stream, list[bytes]()
        source, encode, frame = stream.source, json.encode, sse.frame
        try:
            for events in stream.events:
                for event in events:
                    if isinstance(event, NamedEvent):
                        held.append(frame(encode(event.data), event.name))
                    else:
                        held.append(frame(encode(event)))
                if held and (not source.pending or len(held) >= _MAX_FRAMES):
                    yield b"".join(held)
                    held.clear()
            if stream.ends_with_done:
                held.append(sse.DONE)
        except APIError as error:
            log.warning("a stream failed: %s", error.code)
            held += self._failure_frames(error)
        except Exception:
            log.exception("a stream failed: this is a defect of openai_compat")
            held += self._failure_frames(INTERNAL_ERROR)
        self._is_exhausted = True
        if held:
            yield b"".join(held)

    def _failure_frames(self, error: APIError) -> list[bytes]:
        self._error_code = error.code or error.type
        return [_frame(event) for event in self._stream.failure_events(error)]


#: frames that leave together at most: where an application gives a whole stream in one item, its events would
#: otherwise be held in memory all at once
_MAX_FRAMES = 256


def _frame(event: object) -> bytes:
    if isinstance(event, NamedEvent):
        return sse.frame(json.encode(event.data), event.name)
    return sse.frame(json.encode(event))
