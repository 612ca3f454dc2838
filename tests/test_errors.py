"""Errors in OpenAI's shape."""

from __future__ import annotations

import pytest

from openai_compat.errors import APIError, bad_gateway, invalid, missing, not_supported, too_long
from tests.contract import check


@pytest.mark.parametrize(
    ("status", "type"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (429, "rate_limit_error"), (502, "server_error")],
)
def test_the_type_follows_from_the_status(status: int, type: str) -> None:
    assert APIError(status, "x").type == type


@pytest.mark.parametrize(
    "error",
    [APIError(500, "x"), invalid("x", "p"), missing("p"), too_long("p", 1, 2), not_supported("p", "x"), bad_gateway()],
)
def test_all_four_keys_are_always_there(error: APIError) -> None:
    check("ErrorResponse", error.body())
    assert list(error.body()["error"]) == ["message", "type", "param", "code"]
    assert str(error) == error.message
