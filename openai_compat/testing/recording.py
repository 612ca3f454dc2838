"""Recordings: files with one exchange with an Ollama a line, as JSON.

.. code-block:: text

    {"name": "native/1", "native": {"method": "POST", "path": "/api/chat", "request": {…},
     "status": 200, "content_type": "application/x-ndjson", "transfer_encoding": "chunked", "body": "…",
     "chunks": [97, 95], "complete": true}}

``request`` is the decoded JSON, or a text if it is none; null without a body. ``body`` is the raw response. ``chunks``,
the lengths in bytes of the parts in which it arrived, and ``complete``, whether it came to its end, may be absent. An
exchange with OpenAI's routes stands under ``openai`` in the place of ``native``, or beside the native one that it led
to. An exchange may also be the whole line, beside ``name``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from http.client import responses
from typing import Any

#: top-level keys of a native request that say what the answer is about
_SUBJECT = ("model", "name", "messages", "prompt", "suffix", "input", "format", "tools")


@dataclass
class Exchange:
    """A recorded request, and its response."""

    name: str
    method: str
    path: str
    #: decoded JSON; a text if the body was none; None without a body
    request: Any
    status: int
    content_type: str
    body: bytes
    #: lengths of the parts of the body; none if they are not known
    chunks: list[int] = field(default_factory=list)
    #: whether the body came to its end
    is_complete: bool = True
    #: whether it was replayed
    is_used: bool = False

    @property
    def status_line(self) -> str:
        """Return the status with its reason, as WSGI wants it."""
        return f"{self.status} {responses.get(self.status, 'Unknown')}"

    def items(self) -> list[bytes]:
        """Return the body in the parts in which it arrived."""
        found, start = [], 0
        for length in self.chunks:
            found.append(self.body[start : start + length])
            start += length
        return list(filter(None, [*found, self.body[start:]]))

    def likeness(self, request: Any) -> tuple[bool, bool, int]:
        """Return how much another request is like the recorded one; greater is more.

        Whether a response is streamed counts least: a native call of the middleware always streams.
        """
        ours, theirs = _streaming(self.request), _streaming(request)
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            return ours == theirs, ours == theirs, 0
        equal = {key for key in ours.keys() | theirs.keys() if key in ours and ours[key] == theirs.get(key)}
        other = (ours.keys() | theirs.keys()) - equal
        return other <= {"stream"}, not other & set(_SUBJECT), len(equal)


def _streaming(request: Any) -> Any:
    return {"stream": True, **request} if isinstance(request, dict) else request


def decoded(body: bytes) -> Any:
    """Return a request body as a recording has it: decoded JSON, otherwise a text; None if it is empty."""
    if not body:
        return None
    try:
        found = json.loads(body)
        json.dumps(found, allow_nan=False)  # not every text that Python reads is JSON
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    return found


def read_recording(path: str | os.PathLike[str]) -> list[Exchange]:
    """Return the exchanges of a file: the native one of a line that has it.

    :raises ValueError: a line is not a recorded exchange.
    :raises OSError: the file cannot be read.
    """
    found = []
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    found.append(_exchange(json.loads(line)))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{os.fspath(path)}, line {number}: no recorded exchange ({error!r})") from error
    return found


def _exchange(row: dict[str, Any]) -> Exchange:
    side = row.get("native") or row.get("openai") or row
    return Exchange(
        name=str(row.get("name") or side["path"]),
        method=side["method"],
        path=side["path"],
        request=side.get("request"),
        status=int(side["status"]),
        content_type=side.get("content_type") or "application/json",
        body=side["body"].encode("utf-8", "surrogatepass"),
        chunks=list(side.get("chunks") or ()),
        is_complete=side.get("complete", True),
    )


class Recording:
    """The exchanges of a file, from which responses are chosen. The caller provides for its threads."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges

    def choose(self, method: str, path: str, request: Any) -> Exchange | None:
        """Return the exchange of this path whose request is most like this one, and mark it as used.

        Of several that are alike it is the first that was not used yet. None if none has the path.
        """
        verb = "GET" if method == "HEAD" else method
        chosen: Exchange | None = None
        best: tuple[Any, ...] = ()
        for exchange in self.exchanges:
            if exchange.path == path and exchange.method in (method, verb):
                score = (*exchange.likeness(request), not exchange.is_used)
                if chosen is None or score > best:
                    chosen, best = exchange, score
        if chosen is not None:
            chosen.is_used = True
        return chosen
