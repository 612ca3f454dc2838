"""Reading the request body, once and within bounds.

Servers disagree about odd requests: chunked bodies, two lengths, bodies cut short. Here they are treated alike: the
body arrived whole, has the announced length and is below the limit, or the response is a 4xx (F47–F52).
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError, invalid

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("openai_compat")

_READ = 65536


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """Read and decompress the body of a request; it is empty for methods that have none.

    :param limit: bytes, both as sent and decompressed.
    :raises APIError: 400 for a length that is not valid or not true, 411, 413, 415.
    """
    if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
        return b""
    inflate = _inflater(environ.get("HTTP_CONTENT_ENCODING", "").strip().lower())
    length = _length(environ)
    if length is not None and length > limit:
        raise too_large(limit)
    body = _read(environ["wsgi.input"], limit + 1 if length is None else length)
    if length is not None and len(body) < length:
        raise invalid("The request body is shorter than its Content-Length.", code=None)
    if len(body) > limit:
        raise too_large(limit)
    return inflate(body, limit)


def too_large(limit: int) -> APIError:
    """Return the error for a body above the limit: 413."""
    return APIError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _length(environ: WSGIEnvironment) -> int | None:
    """Return the announced length; None if the server itself ends the stream (a chunked body)."""
    text = environ.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if text and chunked:
        raise invalid("A request has a Content-Length or a Transfer-Encoding, not both.", code=None)
    if text:
        if not re.fullmatch("[0-9]{1,18}", text):
            raise invalid("The Content-Length of the request is no length.", code=None)
        return int(text)
    if environ.get("wsgi.input_terminated"):
        return None
    if environ["REQUEST_METHOD"] == "DELETE" and not chunked:
        return 0
    raise APIError(411, "The request needs a Content-Length.", code="length_required")


def _read(stream: Any, size: int) -> bytes:
    pieces = []
    try:
        while size > 0 and (piece := stream.read(min(size, _READ))):
            pieces.append(piece)
            size -= len(piece)
    except Exception as error:  # servers have an exception each for a client that is gone
        log.info("reading a request body failed: %s", type(error).__name__)
        raise invalid("The request body could not be read.", code=None) from error
    return b"".join(pieces)


# -- content encodings ------------------------------------------------------------------------

Inflate = Callable[[bytes, int], bytes]


def _inflater(encoding: str) -> Inflate:
    if encoding == "zstd" and not _zstd():
        raise APIError(415, "zstd request bodies need the extra 'zstd'.", code="unsupported_encoding")
    try:
        return _INFLATERS[encoding]
    except KeyError:
        supported = "gzip, deflate, zstd"
        raise APIError(415, f"The Content-Encoding is not one of {supported}.", code="unsupported_encoding") from None


def _identity(body: bytes, limit: int) -> bytes:
    return body


def _gzip(body: bytes, limit: int) -> bytes:
    return _inflated(lambda: zlib.decompressobj(31), body, limit)


def _deflate(body: bytes, limit: int) -> bytes:
    # "deflate" is zlib's format by the standard, and bare deflate data from many clients.
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return _inflated(lambda: zlib.decompressobj(15 if is_zlib else -15), body, limit)


def _inflate_zstd(body: bytes, limit: int) -> bytes:
    return _inflated(_zstd()[0], body, limit)


def _inflated(new: Callable[[], Any], body: bytes, limit: int) -> bytes:
    """Decompress all members of *body*, never more than one byte over the limit."""
    found = bytearray()
    try:
        while body:
            inflater = new()
            found += inflater.decompress(body, limit + 1 - len(found))
            if len(found) > limit:
                raise too_large(limit)
            if not inflater.eof:
                raise invalid("The compressed request body is cut short.", code=None)
            body = inflater.unused_data
    except (zlib.error, *_zstd()[1:]) as error:
        raise invalid("The request body could not be decompressed.", code=None) from error
    return bytes(found)


def _zstd() -> tuple[Any, ...]:
    """Return zstd's decompressor class and exception: Python's own from 3.14, else the extra's, else nothing."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            return ()
    return (zstd.ZstdDecompressor, zstd.ZstdError)


_INFLATERS: dict[str, Inflate] = {
    "": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _inflate_zstd,
}
