"""Framing of server-sent events.

The data of an event is one line of JSON. It must not contain a raw CR or LF, which JSON text from ``wire.json`` never
does, nor U+2028, U+2029 or U+0085, at which some clients split lines; ``wire.json`` escapes those.
"""

from __future__ import annotations

CONTENT_TYPE = "text/event-stream; charset=utf-8"

#: the last event of a chat or completions stream that ended without an error
DONE = b"data: [DONE]\n\n"


def frame(data: bytes, name: str | None = None) -> bytes:
    """Return one event, framed.

    :param data: one line of JSON.
    :param name: the event's name, without a line end; an unnamed event by default.
    """
    if name is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
