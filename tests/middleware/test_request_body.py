"""Request bodies: read whole, within bounds, however the server announces them."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zlib
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.middleware.request_body import read_body

LIMIT = 1000


class Stream(io.BytesIO):
    """Counts what is read; never gives more than 7 bytes at once, as a socket may."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        data = super().read(min(size, 7))
        self.taken += len(data)
        return data


def environ(body: bytes, length: str | None, **more: Any) -> dict[str, Any]:
    found = {"REQUEST_METHOD": "POST", "wsgi.input": Stream(body), **more}
    if length is not None:
        found["CONTENT_LENGTH"] = length
    return found


def refused(given: dict[str, Any]) -> tuple[int, str | None]:
    with pytest.raises(APIError) as raised:
        read_body(given, LIMIT)
    return raised.value.status, raised.value.code


def test_a_body_of_known_length_is_read_to_it_and_no_further() -> None:
    given = environ(b"x" * 100 + b"the next request", "100")
    assert read_body(given, LIMIT) == b"x" * 100
    assert given["wsgi.input"].taken == 100


def test_a_chunked_body_that_the_server_ends() -> None:
    given = environ(b"x" * 100, None, **{"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"})
    assert read_body(given, LIMIT) == b"x" * 100


@pytest.mark.parametrize("length", [None, ""])
def test_f50_no_length_and_no_end_is_411(length: str | None) -> None:
    assert refused(environ(b"", length)) == (411, "length_required")
    assert refused(environ(b"", length, HTTP_TRANSFER_ENCODING="chunked")) == (411, "length_required")


def test_f51_length_and_transfer_encoding_is_400() -> None:
    assert refused(environ(b"{}", "2", HTTP_TRANSFER_ENCODING="chunked"))[0] == 400


@pytest.mark.parametrize("length", ["2, 3", "-1", "1e3", "٣", "+2", "0x2", " 2", "2 ", "9" * 5000, "2.0"])
def test_f51_a_length_that_is_none_is_400(length: str) -> None:
    assert refused(environ(b"{}", length))[0] == 400


def test_f47_a_body_over_the_limit_is_413_unread() -> None:
    assert len(read_body(environ(b"x" * LIMIT, str(LIMIT)), LIMIT)) == LIMIT
    given = environ(b"x" * 2 * LIMIT, str(LIMIT + 1))
    assert refused(given) == (413, "request_too_large")
    assert given["wsgi.input"].taken == 0


def test_f48_a_chunked_body_over_the_limit_is_read_to_the_limit_and_one_more() -> None:
    given = environ(b"x" * 2 * LIMIT, None, **{"wsgi.input_terminated": True})
    assert refused(given) == (413, "request_too_large")
    assert given["wsgi.input"].taken == LIMIT + 1


def test_f49_a_body_cut_short_is_400() -> None:
    assert refused(environ(b'{"a":1}', "100"))[0] == 400


def test_a_stream_that_fails_is_400() -> None:
    class Gone:
        def read(self, size: int) -> bytes:
            raise OSError("client gone")

    assert refused({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5", "wsgi.input": Gone()})[0] == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_methods_without_a_body_are_not_read(method: str) -> None:
    given = environ(b"x", "1", REQUEST_METHOD=method)
    assert read_body(given, LIMIT) == b""
    assert given["wsgi.input"].taken == 0


def test_delete_may_have_no_length() -> None:
    assert read_body(environ(b"", None, REQUEST_METHOD="DELETE"), LIMIT) == b""


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def packed(encoding: str, data: bytes) -> bytes:
    if encoding == "zstd":
        zstd = pytest.importorskip("backports.zstd", reason="the extra zstd is not installed")
        return bytes(zstd.compress(data))
    if encoding == "deflate":
        return zlib.compress(data)
    return raw_deflate(data) if encoding == "raw deflate" else gzip.compress(data)


ENCODINGS = ["gzip", "x-gzip", "deflate", "raw deflate", "zstd"]


def sent(encoding: str, body: bytes) -> dict[str, Any]:
    return environ(body, str(len(body)), HTTP_CONTENT_ENCODING=encoding.removeprefix("raw ").upper())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_f52_an_encoded_body_is_inflated(encoding: str) -> None:
    assert read_body(sent(encoding, packed(encoding, b'{"a":1}' * 20)), LIMIT) == b'{"a":1}' * 20


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_f52_the_limit_holds_for_what_is_inflated(encoding: str) -> None:
    assert len(read_body(sent(encoding, packed(encoding, b"x" * LIMIT)), LIMIT)) == LIMIT
    assert refused(sent(encoding, packed(encoding, b"x" * (LIMIT + 1)))) == (413, "request_too_large")
    assert refused(sent(encoding, packed(encoding, b"x" * 500_000))) == (413, "request_too_large")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoded_body_cut_short_is_400(encoding: str) -> None:
    assert refused(sent(encoding, packed(encoding, bytes(range(200)))[:-5]))[0] == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_not_encoded_as_it_says_is_400(encoding: str) -> None:
    assert refused(sent(encoding, b'{"not": "compressed"}'))[0] == 400


def test_members_after_one_another_are_one_body() -> None:
    body = gzip.compress(b"a") + gzip.compress(b"b")
    assert read_body(sent("gzip", body), LIMIT) == b"ab"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_members_that_end_anywhere_are_one_body(encoding: str) -> None:
    """Wherever the blocks end that are decompressed at once."""
    parts = [bytes(random.Random(size).randbytes(size)) for size in (0, 65_500, 30, 65_536, 1, 100_000, 0)]
    body = b"".join(packed(encoding, part) for part in parts)
    assert read_body(sent(encoding, body), 2**20) == b"".join(parts)
    assert refused(sent(encoding, body[:-1]))[0] in (400, 413)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_thousand_members_are_enough(encoding: str) -> None:
    """Each takes some time, also where it holds nothing."""
    assert read_body(sent(encoding, packed(encoding, b"") * 1024), 2**20) == b""
    given = sent(encoding, packed(encoding, b"") * 1025 + packed(encoding, b"x"))
    with pytest.raises(APIError, match="more than 1024 members") as raised:
        read_body(given, 2**30)
    assert raised.value.status == 400


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "compress"])
def test_f52_other_encodings_are_415(encoding: str) -> None:
    assert refused(sent(encoding, b"x")) == (415, "unsupported_encoding")


def test_zstd_without_its_library_is_415(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.middleware.request_body._zstd", lambda: ())
    assert refused(sent("zstd", b"x")) == (415, "unsupported_encoding")


@pytest.mark.parametrize("digits", [19, 1000])
def test_f51_a_length_of_more_than_18_digits_is_none(digits: int) -> None:
    assert refused(environ(b"{}", "9" * digits))[0] == 400
    assert refused(environ(b"{}", "9" * 18)) == (413, "request_too_large")


@pytest.mark.parametrize("length", ["1000000", None])
def test_a_body_is_read_in_pieces_of_64_kib(length: str | None) -> None:
    asked: list[int] = []

    class Sizes(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    given = {"REQUEST_METHOD": "POST", "wsgi.input": Sizes(b"x" * 10**6), "wsgi.input_terminated": True}
    if length is not None:
        given["CONTENT_LENGTH"] = length
    assert len(read_body(given, 2**30)) == 10**6
    assert max(asked) == 65536


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "zstd"])
def test_f52_a_bomb_is_not_inflated_beyond_the_limit(encoding: str) -> None:
    given = sent(encoding, packed(encoding, bytes(64 * 2**20)))
    assert int(given["CONTENT_LENGTH"]) < 2**18
    tracemalloc.start()
    try:
        with pytest.raises(APIError, match="is larger than 262144 bytes"):
            read_body(given, 2**18)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
