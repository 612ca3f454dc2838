"""The response side of the WSGI edge: heads, bodies, event streams, errors, and the outcome of each request.

:class:`Responder` sends the head of every response, also of one that is passed through. A head is sent only when its
status is certain; a stream that fails later ends with an error event. The status and text of an error are chosen where
it is raised, not here.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, Any

from openai_compat.endpoints.contract import FLUSH, Answer, EventStream, Headers, NamedEvent, Text
from openai_compat.errors import INTERNAL_ERROR, APIError
from openai_compat.log import log
from openai_compat.native.usage import NativeUsage
from openai_compat.transport.cancel import Cancel
from openai_compat.wire import json, sse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_STREAM_HEADERS = (("Cache-Control", "no-cache, no-store"), ("X-Accel-Buffering", "no"))

#: client's request ids that are returned, of any usual kind: UUIDs, trace ids, base64
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


@dataclass(frozen=True)
class RequestOutcome:
    """How a request ended and what it used; made when the response ends.

    For a request that is passed through it is made when the head is sent, without usage.
    """

    method: str
    #: the route's path below the prefix, as in ``ROUTES``; None for a request without a route
    route: str | None
    #: of the response
    status: int
    #: the error's code, also of an error after the head was sent
    error_code: str | None
    #: the server read the body to its end, and no stream failed; False for a response that was passed through
    is_complete: bool
    #: from the start of the request to the end of the response
    seconds: float
    #: of the native calls
    usage: NativeUsage


def new_id(prefix: str) -> str:
    """Return a random id: the prefix and 128 bits in hexadecimal."""
    return prefix + secrets.token_hex(16)


def encoded(answer: Answer | Text) -> bytes:
    """Return the body of a response that is not streamed."""
    return answer.text.encode("utf-8", "replace") if isinstance(answer, Text) else json.encode(answer.value)


class Responder:
    """The sender of the response to one request.

    :param on_end: is called once, with the outcome.
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
        #: added to every response, also to one that is passed through
        self.common_headers: list[tuple[str, str]] = []

    def attach(self, route: str, usage: NativeUsage, cancel: Cancel) -> None:
        """Set the route of the request, the usage of its native calls, and their cancel."""
        self._route, self._usage, self._cancel = route, usage, cancel

    # -- kinds of responses -------------------------------------------------------------------

    def pass_through(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """Send the head of the wrapped application's response: the ``start_response`` of a passed-through request."""
        if not self._status:
            self._status = int(status[:3]) if status[:3].isdigit() else 0
            self._end(None, is_complete=False)
        if self.common_headers:
            headers = [*headers, *self.common_headers]
        # exc_info is left out where the application left it out: some servers accept two arguments only.
        return self._start_response(status, headers, *((exc_info,) if exc_info else ()))

    def stream(self, stream: EventStream) -> Iterable[bytes]:
        """Send an event stream; an error after the head becomes its last event."""
        body = _EventBody(stream, self._cancel, self._end)
        try:
            self._start(200, [("Content-Type", sse.CONTENT_TYPE), *_STREAM_HEADERS, *stream.headers])
        except BaseException:
            body.close()
            raise
        if self._method == "HEAD":  # generating what nobody reads would hold the thread
            body.close()
            return []
        return body

    def send(self, answer: Answer | Text, body: bytes) -> Iterable[bytes]:
        """Send a response that is not streamed.

        :param body: the :func:`encoded` answer; encoding may fail, and then another status is sent.
        """
        return self._send(200, body, answer.headers, _TEXT if isinstance(answer, Text) else _JSON)

    def fail(self, error: APIError) -> Iterable[bytes]:
        """Send an error response in OpenAI's format."""
        headers = list(error.headers)
        if error.retry is not None:
            headers.append(("x-should-retry", "true" if error.retry else "false"))
        return self._send(error.status, json.encode(error.body()), headers, _JSON, error.code)

    def fail_natively(self, error: APIError) -> Iterable[bytes]:
        """Send an error response in Ollama's format."""
        return self._send(error.status, json.encode({"error": error.message}), error.headers, _JSON, error.code)

    def send_empty(self, headers: Headers) -> Iterable[bytes]:
        """Send a response without a body."""
        self._start(204, list(headers))
        self._end(None, is_complete=True)
        return []

    def refuse_method(self, methods: Iterable[str]) -> Iterable[bytes]:
        """Send the response to a method that the route does not support: 204 for OPTIONS, 405 for any other.

        :param methods: methods that the route supports, for ``Allow``.
        """
        allow = ("Allow", ", ".join(sorted({*methods, "OPTIONS"})))
        if self._method == "OPTIONS":
            return self.send_empty([allow])
        text = f"Not allowed to {self._method[:20]} on this URL."
        return self.fail(APIError(405, text, code="method_not_allowed", headers=(allow,)))

    # -- heads and outcomes -------------------------------------------------------------------

    def _send(
        self, status: int, body: bytes, headers: Headers, content_type: str, error_code: str | None = None
    ) -> Iterable[bytes]:
        content_headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        self._start(status, [*content_headers, *headers])
        self._end(error_code, is_complete=True)
        return [] if self._method == "HEAD" else [body]

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        request_id = self._environ.get("HTTP_X_REQUEST_ID", "")
        # OpenAI's API sends these with every response.
        common_headers = [
            ("x-request-id", request_id if _REQUEST_ID.fullmatch(request_id) else new_id("req_")),
            ("openai-processing-ms", str(int((time.monotonic() - self._began) * 1000))),
            ("openai-version", "2020-10-01"),
        ]
        self._status = status
        headers = [*headers, *common_headers, *self.common_headers]
        self._start_response(f"{status} {responses.get(status, 'Error')}", headers)

    def _end(self, error_code: str | None, *, is_complete: bool) -> None:
        seconds = time.monotonic() - self._began
        self._on_end(
            RequestOutcome(self._method, self._route, self._status, error_code, is_complete, seconds, self._usage)
        )


class _EventBody:
    """The body of an event stream. Each item is one or more complete frames; closing works before the first, too (W2).

    :param cancel: is set if the server closes the body before its end, so that the native calls end at once.
    :param on_end: is called once, with the code of an error, and whether the stream ended without one.
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
        """Yield frames. Frames that are available at once share an item; none is delayed until the next native line.

        A failure becomes the last frame, without which a client would take the stream for complete (MID).
        """
        stream, frames = self._stream, list[bytes]()
        source, encode, frame = stream.source, json.encode, sse.frame  # local names, since the loop is hot
        try:
            for events in stream.events:
                for event in events:
                    if isinstance(event, NamedEvent):
                        frames.append(frame(encode(event.data), event.name))
                    elif isinstance(event, bytes):
                        frames.append(event)
                    else:
                        frames.append(frame(encode(event)))
                if frames and (events is FLUSH or not source.pending or len(frames) >= _MAX_FRAMES):
                    yield b"".join(frames)
                    frames.clear()
            if stream.ends_with_done:
                frames.append(sse.DONE)
        except APIError as error:
            log.warning("a stream failed: %s", error.code)
            frames += self._failure_frames(error)
        except Exception:
            log.exception("a stream failed because of a defect in openai_compat")
            frames += self._failure_frames(INTERNAL_ERROR)
        self._is_exhausted = True
        if frames:
            yield b"".join(frames)

    def _failure_frames(self, error: APIError) -> list[bytes]:
        """Return the last frames of a stream that fails, and note the code for the outcome."""
        self._error_code = error.code or error.type
        return [_frame(event) for event in self._stream.failure_events(error)]


#: frames of one item: a backend may send a long stream at once, whose frames would otherwise all be in memory; with 256
#: an item is tens of KiB, for which joining costs little
_MAX_FRAMES = 256


def _frame(event: object) -> bytes:
    if isinstance(event, NamedEvent):
        return sse.frame(json.encode(event.data), event.name)
    return sse.frame(json.encode(event))
