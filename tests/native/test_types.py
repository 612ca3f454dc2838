"""Native structs and times."""

from __future__ import annotations

import pytest

from openai_compat.native.types import ShowResponse, unix_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-06-16T17:03:22Z", 1686935002),
        ("2026-11-21T03:59:54.308661386Z", 1795233594),
        ("2026-11-21T03:59:54.3Z", 1795233594),
        ("2026-11-21T05:59:54.308661386+02:00", 1795233594),
        ("2026-11-20T22:29:54-05:30", 1795233594),
        ("2026-11-21t03:59:54z", 1795233594),
        ("2026-11-21T03:59:54", 1795233594),
        ("0001-01-01T00:00:00Z", 7),
        ("1969-12-31T23:59:59Z", 7),
        ("2026-13-01T00:00:00Z", 7),
        ("2026-11-21", 7),
        ("٢٠٢٦-11-21T03:59:54Z", 7),
        ("", 7),
        (None, 7),
    ],
)
def test_unix_time(text: str | None, seconds: int) -> None:
    assert unix_time(text, 7) == seconds


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, None),
        ("", None),
        ("num_ctx 8192", 8192),
        ('stop "x"\nnum_ctx    8192   \ntemperature 1', 8192),
        ("num_ctx 999999999", 999_999_999),
        ("num_ctx 1000000000", None),
        ("num_ctx " + "1" * 5000, None),
        ("num_ctx -1", None),
        ("num_ctx_more 5", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_context_length_of_a_modelfile(parameters: str | None, expected: int | None) -> None:
    assert ShowResponse(parameters=parameters).num_ctx == expected
