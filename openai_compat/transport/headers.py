"""Headers to and from an upstream: which can be sent, and which are forwarded to the client.

Only rules for all headers belong here; code that needs a certain header reads it itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def is_header(name: str, value: str) -> bool:
    """Return whether a header can be sent: its name is a token, its value latin-1 text without control characters."""
    return bool(_HEADER_NAME.fullmatch(name)) and not _CONTROL.search(value) and max(map(ord, value), default=0) < 256


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers for an upstream, and return a copy.

    :raises ValueError: a header cannot be sent.
    """
    for name, value in headers.items():
        if not is_header(name, ""):
            raise ValueError(f"{name!r} is not a valid header name")
        if not is_header(name, value) or value[:1].isspace():  # requests would refuse a leading space in every call
            raise ValueError(f"{name!r} is not a valid header: its value has a character that cannot be sent")
    return dict(headers)


#: headers that concern the connection of the gateway to the upstream: its session, its login, its browsers
_UPSTREAMS_OWN = re.compile(
    r"set-cookie2?|www-authenticate|authentication-info|access-control-.*|timing-allow-origin|cross-origin-.*|"
    r"alt-svc|clear-site-data|link|sourcemap|refresh|x-accel-.*|x-sendfile|x-lighttpd-.*|status"
)
_LOCATIONS = frozenset(("location", "content-location"))
#: a reference to a path of the same server
_RELATIVE = re.compile(r"/(?![/\\])[^\\]*|[^:/\\?#]+(?:/[^\\:]*)?|[?#][^\\]*")
_LENGTH = re.compile(r"[0-9]{1,18}")


def passed_on(headers: Sequence[tuple[str, str]], decoders: Iterable[str]) -> list[tuple[str, str]]:
    """Return the response headers that may be forwarded: end-to-end, with valid names and values (W6, F69).

    What concerns the upstream's own session, login and CORS is left out, and so is an absolute URL of it.

    :param decoders: the content encodings that are decoded on reading; a response with one of them loses its
        ``Content-Encoding`` and ``Content-Length``.
    """
    drop = _HOP_BY_HOP | _listed(headers, "connection")
    if _listed(headers, "content-encoding") & set(decoders):
        drop |= {"content-encoding", "content-length"}
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in drop and is_header(name, value) and not _is_upstreams_own(name.lower(), value)
    ]


def _is_upstreams_own(name: str, value: str) -> bool:
    if name == "content-length":  # a server may refuse the whole response for one that is no number
        return not _LENGTH.fullmatch(value)
    return bool(_UPSTREAMS_OWN.fullmatch(name)) or (name in _LOCATIONS and not _RELATIVE.fullmatch(value))


def _listed(headers: Sequence[tuple[str, str]], name: str) -> set[str]:
    """Return the members of a comma-separated header, in lower case."""
    return {item.strip().lower() for key, value in headers if key.lower() == name for item in value.split(",")}
