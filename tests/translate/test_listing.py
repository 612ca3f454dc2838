"""The arguments of lists that are read page by page."""

from __future__ import annotations

import pytest

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.listing import PageQuery, from_query


def limit(*query: tuple[str, str]) -> int:
    return from_query(query, PageQuery, Ignored(Settings(), [])).limit


@pytest.mark.parametrize(
    ("value", "expected"), [("", 20), ("0", 20), ("1", 1), ("99", 99), ("100", 100), ("101", 100), ("999999999", 100)]
)
def test_a_page_has_20_items_or_what_is_asked_for_up_to_100(value: str, expected: int) -> None:
    assert limit(("limit", value)) == expected


def test_a_page_has_20_items_where_nothing_is_asked_for() -> None:
    assert limit() == 20


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("-1", "integer_below_min_value"),
        ("1.0", "invalid_type"),
        ("many", "invalid_type"),
        ("\u0661", "invalid_type"),
        ("1" * 10, "invalid_type"),
        ("1" * 5000, "invalid_type"),
    ],
    ids=lambda value: value[:12],
)
def test_a_limit_that_is_none_is_a_400(value: str, code: str) -> None:
    with pytest.raises(APIError) as raised:
        limit(("limit", value))
    assert (raised.value.status, raised.value.param, raised.value.code) == (400, "limit", code)
