"""Request bodies: read once, checked against their length and a limit, and decompressed.

WSGI servers differ in how they treat chunked bodies, conflicting lengths and bodies that are cut short. Here all are
treated alike: a body is complete, has the announced length and is within the limit, or the response is a 4xx
(F47–F52). What a body means belongs to the endpoints.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError, invalid
from openai_compat.log import log

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: bytes of one read: a large body needs few reads, a small one little memory
_READ_SIZE = 65536


def read_body(environ: WSGIEnvironment, limit: int, *, is_used: bool = True) -> bytes:
    """Read and decompress the body of a request; for a method without a body return no bytes.

    :param limit: bytes, of the body as sent and of the decompressed body.
    :param is_used: the route has a body; otherwise one without a length is none.
    :raises APIError: 400 for a body that is shorter than its length, or not valid; 411 without a length; 413 for a body
        above the limit; 415 for a content encoding that is not supported.
    """
    if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
        return b""
    decompress = _decompressor(environ.get("HTTP_CONTENT_ENCODING", "").strip().lower())
    length = _length(environ, is_used=is_used)
    if length is not None and length > limit:
        raise too_large(limit)
    body = _read(environ["wsgi.input"], limit + 1 if length is None else length)
    if length is not None and len(body) < length:
        raise invalid("The request body is shorter than its Content-Length.", code=None)
    if len(body) > limit:
        raise too_large(limit)
    return decompress(body, limit)


def too_large(limit: int) -> APIError:
    """Return a 413 for a body above the limit in bytes."""
    return APIError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _length(environ: WSGIEnvironment, *, is_used: bool) -> int | None:
    """Return the length that the head announces; None if the server marks the end of the input itself (chunked).

    :raises APIError: 400 for a length that is not valid, or contradicts ``Transfer-Encoding``; 411 without a length.
    """
    text = environ.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if text and chunked:
        raise invalid("A request cannot have both Content-Length and Transfer-Encoding.", code=None)
    if text:
        if not re.fullmatch("[0-9]{1,18}", text):
            raise invalid("The Content-Length of the request is not a valid length.", code=None)
        return int(text)
    if environ.get("wsgi.input_terminated"):
        return None
    if not chunked and (environ["REQUEST_METHOD"] == "DELETE" or not is_used):
        return 0
    raise APIError(411, "The request needs a Content-Length.", code="length_required")


def _read(stream: Any, size: int) -> bytes:
    """Read up to *size* bytes.

    :raises APIError: 400 if reading fails, as it does when the client disconnects; 408 if it takes too long.
    """
    chunks = []
    try:
        while size > 0 and (chunk := stream.read(min(size, _READ_SIZE))):
            chunks.append(chunk)
            size -= len(chunk)
    except TimeoutError as error:
        raise APIError(408, "The request did not arrive in time.", code="request_timeout") from error
    except Exception as error:  # each server has an exception of its own for a client that disconnects
        log.info("reading a request body failed: %s", type(error).__name__)
        raise invalid("The request body could not be read.", code=None) from error
    return b"".join(chunks)


# -- content encodings ------------------------------------------------------------------------

#: decompresses a body; its second argument is the limit in bytes
Decompress = Callable[[bytes, int], bytes]


def _decompressor(encoding: str) -> Decompress:
    if encoding == "zstd" and not _zstd():
        raise APIError(415, "zstd request bodies need the extra 'zstd'.", code="unsupported_encoding")
    try:
        return _DECOMPRESSORS[encoding]
    except KeyError:
        supported = "gzip, deflate, zstd"
        raise APIError(415, f"The Content-Encoding must be one of {supported}.", code="unsupported_encoding") from None


def _identity(body: bytes, limit: int) -> bytes:
    return body


def _gzip(body: bytes, limit: int) -> bytes:
    return _decompressed(lambda: zlib.decompressobj(_GZIP_FORMAT), body, limit)


def _deflate(body: bytes, limit: int) -> bytes:
    # RFC 9110 means zlib's format by "deflate", but many clients send raw deflate data. A zlib header names method 8
    # and is a multiple of 31 (RFC 1950).
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return _decompressed(lambda: zlib.decompressobj(_ZLIB_FORMAT if is_zlib else _RAW_FORMAT), body, limit)


def _decompress_zstd(body: bytes, limit: int) -> bytes:
    return _decompressed(_zstd()[0], body, limit)


def _decompressed(new_decompressor: Callable[[], Any], body: bytes, limit: int) -> bytes:
    """Decompress all members of a body, and at most one byte above the limit.

    :raises APIError: 400 for data that is incomplete or not valid, or has more members than :data:`_MAX_MEMBERS`; 413
        above the limit.
    """
    data, view, position, members = bytearray(), memoryview(body), 0, 0
    try:
        while position < len(body):
            members += 1
            if members > _MAX_MEMBERS:
                raise invalid(f"The compressed request body has more than {_MAX_MEMBERS} members.", code=None)
            decompressor = new_decompressor()
            while not decompressor.eof:
                block = view[position : position + _BLOCK]
                if not block:
                    raise invalid("The compressed request body is incomplete.", code=None)
                data += decompressor.decompress(block, limit + 1 - len(data))
                if len(data) > limit:
                    raise too_large(limit)
                position += len(block)
            position -= len(decompressor.unused_data)
    except (zlib.error, *_zstd()[1:]) as error:
        raise invalid("The request body could not be decompressed.", code=None) from error
    return bytes(data)


def _zstd() -> tuple[Any, ...]:
    """Return zstd's decompressor class and exception, from Python 3.14 or the extra ``zstd``; empty without both."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            return ()
    return (zstd.ZstdDecompressor, zstd.ZstdError)


#: members of a compressed body, or frames of zstd. Clients write one, tools that compress in parallel one a block
_MAX_MEMBERS = 1024
#: bytes that are decompressed at once: a decompressor copies what follows the end of its member
_BLOCK = 65536

#: values of zlib's ``wbits``: the largest window, with gzip's header, zlib's header or none
_GZIP_FORMAT, _ZLIB_FORMAT, _RAW_FORMAT = 31, 15, -15

#: by content coding, in lower case
_DECOMPRESSORS: dict[str, Decompress] = {
    "": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _decompress_zstd,
}
