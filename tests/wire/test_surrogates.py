"""Lone surrogates: only their escapes change, whatever stands around them."""

from __future__ import annotations

import json

import pytest

from openai_compat.wire import surrogates
from openai_compat.wire.surrogates import mended

hypothesis = pytest.importorskip("hypothesis", reason="the package hypothesis is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDE00"', rb'"\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\\ud83d\ude00"', rb'"\\ud83d\ufffd"'),
        (rb'"\ud83d\\ude00"', rb'"\ufffd\\ude00"'),
        (rb'{"\ud83d": 1.0 , "a":"\u0041"}', rb'{"\ufffd": 1.0 , "a":"\u0041"}'),
        (b"", b""),
        (b'"\\ud8', b'"\\ud8'),
        (b'"\x00\\ud83d"', b'"\x00\\ud83d"'),
    ],
)
def test_only_the_escape_of_a_lone_surrogate_changes(text: bytes, expected: bytes) -> None:
    assert mended(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        rb"\ud83d\ude00",
        rb"a\ud83d",
        rb"\ude00b",
        rb"\\ud83d\ud83dx",
        rb"\\\ud83d\\\\ud83d",
        rb"\ud83d\ud83d\ude00\n",
        b"\\",
    ],
)
def test_text_in_parts_is_mended_as_a_whole(text: bytes) -> None:
    for size in range(1, len(text) + 1):
        mender = surrogates.Mender()
        parts = [mender.feed(text[i : i + size]) for i in range(0, len(text), size)]
        assert b"".join([*parts, mender.end()]) == mended(text)


def test_little_is_held_of_a_text_in_parts() -> None:
    mender = surrogates.Mender()
    assert mender.feed(b"x" * 1000 + rb"\ud83d\ud") == b"x" * 1000
    assert mender.feed(b"e00 y") == rb"\ud83d\ude00 y"
    assert mender.feed(b"\\" * 1000) == b"\\" * 1000
    assert mender.feed(b"\\") == b""


@PROFILE
@given(st.lists(st.sampled_from(["\\", "\\\\", "\ud83d", "\ude00", "a", '"', "\U0001f600", "u"])))
def test_the_result_means_the_text_with_its_lone_surrogates_replaced(parts: list[str]) -> None:
    text = "".join(parts)
    # A high and a low surrogate side by side are one character, in JSON as in UTF-16.
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    expected = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in joined)
    written = json.dumps(text).encode()
    assert json.loads(mended(written)) == expected
    for size in (13, 20, 31):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(surrogates, "_BLOCK", size)
            assert json.loads(mended(written)) == expected
