"""Lines: however the bytes were cut."""

from __future__ import annotations

import pytest

from openai_compat.wire.ndjson import BOM, Lines, LineTooLong


def lines(data: bytes, size: int, limit: int = 1000) -> list[bytes]:
    splitter = Lines(limit)
    found = [line for i in range(0, len(data), size) for line in splitter.feed(data[i : i + size])]
    return found + [line for line in [splitter.end()] if line]


TEXT = '{"a":"é"}\n{"b":"海洋 🦜"}\r\n\n{"c":"x\u2028y\u0085z"}\n  \n{"d":1}'.encode()


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1))
def test_f23_f26_the_same_lines_at_every_cut(size: int) -> None:
    assert lines(TEXT, size) == [
        '{"a":"é"}'.encode(),
        '{"b":"海洋 🦜"}'.encode(),
        '{"c":"x\u2028y\u0085z"}'.encode(),
        b'{"d":1}',
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_f25_what_is_tolerated(size: int) -> None:
    assert lines(BOM + b'{"a":1} \t\r\n\r\n \n{"b":2}\n', size) == [b'{"a":1}', b'{"b":2}']


def test_a_lone_cr_ends_no_line() -> None:
    assert lines(b"a\rb\n", 100) == [b"a\rb"]


def test_f24_lines_that_come_together_are_given_together() -> None:
    assert Lines(100).feed(b"a\nb\nc") == [b"a", b"b"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_f29_a_line_over_the_limit_is_refused_at_the_limit(size: int) -> None:
    assert lines(b"x" * 10 + b"\ny\n", size, limit=10) == [b"x" * 10, b"y"]
    with pytest.raises(LineTooLong):
        lines(b"x" * 11, size, limit=10)
    with pytest.raises(LineTooLong):
        lines(b"x" * 11 + b"\n", size, limit=10)


def test_f28_a_long_line_in_small_pieces_is_copied_once() -> None:
    splitter, piece = Lines(2**23), b"x" * 1024
    for _ in range(8191):
        assert splitter.feed(piece) == []
    assert splitter.feed(b"\n") == [piece * 8191]
    assert splitter.end() == b""
