"""Native structs and times."""

from __future__ import annotations

import pytest

from openai_compat.native.types import unix_time


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
