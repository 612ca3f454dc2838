"""Limits of JSON text: the scan in blocks sees what one over the whole text would see."""

from __future__ import annotations

import json

import pytest

from openai_compat.wire import json_limits
from openai_compat.wire.json_limits import MAX_DEPTH, MAX_MEMBERS, Unacceptable, check, has_many_members, is_utf8

hypothesis = pytest.importorskip("hypothesis", reason="the package hypothesis is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)

BLOCK = 65536


def kind(text: bytes) -> str:
    try:
        check(text)
    except Unacceptable as error:
        return error.kind
    return ""


#: what stands across the border of two blocks
_INSIDE = [b"\\\\", b'\\"', b"[", b"]", b'\\\\\\"']
BORDER = [*_INSIDE, b'"', b'"[', b'\\\\"']


@pytest.mark.parametrize("shift", range(-4, 5))
@pytest.mark.parametrize("piece", BORDER)
def test_a_string_across_blocks_is_one_string(piece: bytes, shift: int) -> None:
    filler = b"x" * (BLOCK - 6 - len(piece) + shift)
    deep = b"[" * (MAX_DEPTH + 10)
    if piece in _INSIDE:
        assert kind(b'{"a":"' + filler + piece + deep + b'"}') == ""
    else:  # the piece ends the string
        assert kind(b'{"a":"' + filler + piece + b"," + deep) in ("deep", "unbalanced")


@pytest.mark.parametrize("shift", range(-5, 6))
def test_a_number_across_blocks_is_one_number(shift: int) -> None:
    for number, expected in ((b"1e400", "number"), (b"1" * 400, "number"), (b"1e-400", ""), (b"12.5e+30", "")):
        assert kind(b"[" + b" " * (BLOCK - 4 + shift) + number + b"]") == expected


def test_a_number_longer_than_a_block_is_refused() -> None:
    assert kind(b"[0." + b"1" * 3 * BLOCK + b"]") == "number"


def test_a_number_at_the_end_of_the_text_counts() -> None:
    assert kind(b"1e400") == "number"


def test_a_text_is_refused_at_the_block_that_exceeds_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    original = json_limits._outside_strings

    def counting(text: bytes):  # type: ignore[no-untyped-def]
        nonlocal seen
        for block in original(text):
            seen += 1
            yield block

    monkeypatch.setattr(json_limits, "_outside_strings", counting)
    assert kind(b"[" * 4_000_000 + b"]" * 4_000_000) == "deep"
    assert seen == 1


VALUES = st.recursive(
    st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.slow
@PROFILE
@given(VALUES)
def test_valid_text_within_the_limits_passes_at_any_size_of_a_block(value: object) -> None:
    text = json.dumps(value).encode()
    blocks = [b"".join(json_limits._outside_strings(text))]
    for size in (1, 2, 3, 7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_limits, "_BLOCK", size)
            blocks.append(b"".join(json_limits._outside_strings(text)))
    assert len(set(blocks)) == 1


@pytest.mark.parametrize("text", ["é" * BLOCK, "x" + "é" * BLOCK, "\U0001f99c" * BLOCK, "xyz" + "\U0001f99c" * BLOCK])
def test_utf8_across_blocks(text: str) -> None:
    data = text.encode()
    assert is_utf8(data)
    assert not is_utf8(data[:-1])
    assert not is_utf8(data + b"\xff")


def test_members_are_counted_at_the_first_level_only() -> None:
    inner = b",".join(b"%d" % i for i in range(5000))
    assert not has_many_members(b'{"a":[' + inner + b'],"b":"' + inner + b'"}')
    many = b",".join(b'"%d":[1,2]' % i for i in range(MAX_MEMBERS + 1))
    assert has_many_members(b"{" + many + b"}")
    assert not has_many_members(b"{" + many.rpartition(b',"')[0] + b"}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [b"1" * 299 + b"a", b'"', b"\\", b'\\"', b"[]", b"[", b"e000 ", b"1e00", b"\\\\", b'"["', b"1", b",", b"\xc3\xa9"],
    ids=repr,
)
def test_the_scan_is_linear_whatever_the_text_repeats(unit: bytes) -> None:
    """Counted in bytes that are scanned, since times vary: no block is longer than 64 KiB and its rest."""
    text = b'{"a":"' + unit * (1_000_000 // len(unit))
    lengths = [len(block) for block in json_limits._outside_strings(text)]
    assert sum(lengths) <= len(text)
    assert len(lengths) <= len(text) // BLOCK + 1
