"""Stop sequences: at any cuts the text ends before the first one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_compat.structured.stop_text import StopFilter

SHORT = st.text(alphabet="ab\n", max_size=12)


def passed(text: str, stops: list[str], cut: int) -> str:
    stop = StopFilter(stops)
    parts = [stop.feed(text[i : i + cut]) for i in range(0, len(text), cut)]
    return "".join(parts) + stop.end()


@given(SHORT, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3), st.integers(1, 12))
def test_the_text_ends_where_the_first_sequence_is_complete(text: str, stops: list[str], cut: int) -> None:
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    expected = text
    if ends:
        longest = max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))
        expected = text[: ends[0] - longest]
    assert passed(text, stops, cut) == expected


def test_no_more_is_held_than_the_beginning_of_a_sequence() -> None:
    stop = StopFilter(["END", "\n\n"])
    assert [stop.feed(text) for text in ("a", "E", "N", "x", "\n", "b")] == ["a", "", "", "ENx", "", "\nb"]
    assert not stop.stopped


@pytest.mark.parametrize("text", ["", "abc"])
def test_without_sequences_all_is_passed_on(text: str) -> None:
    assert passed(text, [], 1) == text
