"""``wire/json_string.py``: whole, byte by byte and at random cuts it says what a JSON decoder says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_compat.wire.json_string import StringDecoder


def decoded(parts: list[str]) -> tuple[str, StringDecoder]:
    decoder = StringDecoder()
    text = "".join(decoder.feed(part) for part in parts)
    return text + decoder.end(), decoder


@given(st.text(), st.booleans(), st.lists(st.integers(0, 40), max_size=5))
def test_any_string_at_any_cuts(text: str, ascii: bool, cuts: list[int]) -> None:
    written = json.dumps(text, ensure_ascii=ascii)[1:] + ' } tail"'
    edges = [0, *sorted(cut for cut in cuts if cut < len(written)), len(written)]
    parts = [written[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    found, decoder = decoded(parts)
    assert found == text
    assert decoder.ended
    assert decoded(list(written))[0] == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"a\ud83d\ude00b", "a\U0001f600b"),
        (r"\ud83dx", "\ufffdx"),
        (r"\ud83d\n", "\ufffd\n"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ude00", "\ufffd"),
        (r"\/\b\f\t\\\"", '/\b\f\t\\"'),
        (r"\u00e9\U", "\u00e9\\U"),
        (r"\u12x", "\\u12x"),
        (r"\x41", "\\x41"),
        ("line\nfeed", "line\nfeed"),
    ],
)
def test_escapes(written: str, text: str) -> None:
    assert decoded([written + '"'])[0] == text
    assert decoded(list(written + '"'))[0] == text


@pytest.mark.parametrize(("cut", "text"), [(r"ab\u12", "ab"), (r"ab\ud83d", "ab\ufffd"), ("ab\\", "ab"), (r"\u12", "")])
def test_a_string_that_is_cut(cut: str, text: str) -> None:
    found, decoder = decoded(list(cut))
    assert found == text
    assert not decoder.ended


def test_what_follows_the_string_is_kept_apart() -> None:
    decoder = StringDecoder()
    assert decoder.feed('abc", "x": 1}') == "abc"
    assert decoder.rest == ', "x": 1}'
    assert decoder.feed("more") == ""


def test_text_leaves_at_once() -> None:
    decoder = StringDecoder()
    assert decoder.feed("plain text") == "plain text"
    assert decoder.feed("\\u00") == ""
    assert decoder.feed("e9!") == "\u00e9!"
