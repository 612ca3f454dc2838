"""Where a request ends: bytes in, numbers out, at every cut."""

from __future__ import annotations

import pytest

from openai_compat.server.incoming_request import LIMIT, IncomingRequest

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
NEXT = b"GET /v1/models HTTP/1.1\r\n\r\n"

WHOLE = {
    "no body": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "no fields": b"GET / HTTP/1.0\r\n\r\n",
    "an empty body": HEAD + b"Content-Length: 0\r\n\r\n",
    "a length": HEAD + b"Content-Length: 11\r\n\r\n{\r\n\r\nabcde}",
    "a length in another case": HEAD + b"CONTENT-length:\t2 \r\nX: y\r\n\r\n{}",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\nA ;x=y\r\n0123456789\r\n0\r\n\r\n",
    "chunks with a trailer": HEAD + b"Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n00\r\nX: y\r\nZ: 0\r\n\r\n",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an old version that expects": b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("cut", [1, 2, 7, 4096])
@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
def test_a_request_ends_where_it_ends_at_every_cut(request_bytes: bytes, cut: int) -> None:
    request, used = IncomingRequest(0.0), 0
    text = request_bytes + NEXT
    while not request.is_complete:
        assert used < len(request_bytes)
        used += request.feed(text[used : used + cut])
    assert used == len(request_bytes)
    assert bytes(request.data) == request_bytes
    assert not request.expects_continue


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
def test_a_request_without_its_last_byte_is_incomplete(request_bytes: bytes) -> None:
    request = IncomingRequest(0.0)
    assert request.feed(request_bytes[:-1]) == len(request_bytes) - 1
    assert not request.is_complete


UNKNOWN = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n",
    "no number": b"Content-Length: +2\r\n\r\n",
    "an absurd number": b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "length and coding": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another coding": b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no size": b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a negative size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "an absurd size": b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 9 + b"\r\n",
    "a size line without end": b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 8192,
}


@pytest.mark.parametrize("fields", UNKNOWN.values(), ids=UNKNOWN)
def test_what_has_no_known_end_is_left_to_the_server(fields: bytes) -> None:
    request = IncomingRequest(0.0)
    request.feed(HEAD + fields)
    assert request.is_complete
    assert bytes(request.data) == HEAD + fields


LARGE = {
    "a head": b"GET / HTTP/1.1\r\nX: " + b"x" * LIMIT,
    "a length": HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 2 * LIMIT,
    "one chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 2 * LIMIT,
    "many chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + (b"x" * 4096 + b"\r\n1000\r\n") * 300,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_at_most_the_limit_is_held(text: bytes) -> None:
    request, used = IncomingRequest(0.0), 0
    while not request.is_complete:
        used += request.feed(text[used : used + 65536])
    assert LIMIT <= used <= LIMIT + 65536 + len(HEAD) + 100
    assert bytes(request.data) == text[:used]


EXPECTING = {
    "last": (b"Content-Length: 2\r\n", b"Expect: 100-continue\r\n", b"\r\n{}"),
    "first": (b"", b"EXPECT:\t100-Continue \r\n", b"Content-Length: 2\r\n\r\n{}"),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b"expect:100-continue\r\n", b"\r\n2\r\n{}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("cut", [1, 7, 4096])
@pytest.mark.parametrize(("before", "field", "after"), EXPECTING.values(), ids=EXPECTING)
def test_the_expectation_of_continue_is_taken_from_the_head(
    before: bytes, field: bytes, after: bytes, cut: int
) -> None:
    request, used = IncomingRequest(0.0), 0
    text = HEAD + before + field + after
    while not request.is_complete:
        assert used < len(text)
        used += request.feed((text + NEXT)[used : used + cut])
    assert request.expects_continue
    assert used == len(text)
    assert bytes(request.data) == HEAD + before + after


@pytest.mark.parametrize(
    "fields",
    [
        b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
        b"Expect: 100-continue\r\n more\r\nContent-Length: 2\r\n\r\n{}",
        b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        b"Expect: 100-continue\r\n\r\n",
    ],
    ids=["another", "continued", "twice", "without a body"],
)
def test_other_expectations_are_left_to_the_server(fields: bytes) -> None:
    request = IncomingRequest(0.0)
    request.feed(HEAD + fields)
    assert (bytes(request.data), request.expects_continue) == (HEAD + fields, False)
    assert request.is_complete


def test_the_cost_grows_with_the_bytes() -> None:
    """Byte by byte, no byte is looked at again but the last few."""
    request = IncomingRequest(0.0)
    for _ in range(100_000):
        request.feed(b"x")
    assert not request.is_complete
    assert len(request.data) == 100_000
