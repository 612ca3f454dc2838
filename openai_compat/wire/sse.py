"""Server-sent events: frames, and nothing else.

A frame is one line of JSON: what is framed must hold no raw CR or LF, which JSON text never does, and
none of U+2028, U+2029, U+0085, at which some clients cut lines (``wire.json`` escapes them).
"""

from __future__ import annotations

CONTENT_TYPE = "text/event-stream; charset=utf-8"

#: the last frame of a chat or completions stream that ended well
DONE = b"data: [DONE]\n\n"


def frame(data: bytes, name: str | None = None) -> bytes:
    """Write one event: *data* is one line of JSON.

    :param name: of the event, where it has one; no line end may stand in it.
    """
    if name is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
