"""Rows of fields: ranges, whole numbers, and the header that lists what has no effect."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Field, Ignored, Integer, accepted, check_ranges, mapped, mapped_integer, rows


class Request(msgspec.Struct):
    plain: str = ""
    level: Annotated[float | None, mapped("options.level", low=0, high=2)] = None
    count: Annotated[Integer, mapped_integer("options.count", low=1, high=128)] = None
    free: Annotated[Integer, mapped_integer("options.free")] = None
    note: Annotated[Any, accepted()] = None


def test_rows_stand_in_the_order_of_the_fields() -> None:
    assert list(rows(Request)) == ["level", "count", "free", "note"]
    assert rows(Request)["note"] == Field("accepted", note="no effect", effect=False)


@pytest.mark.parametrize(
    "request_",
    [Request(), Request(level=0), Request(level=2.0, count=1), Request(count=128), Request(free=2**63 - 1)],
)
def test_what_is_in_range_passes(request_: Request) -> None:
    check_ranges(request_)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    request = Request(count=100.0)
    check_ranges(request)
    assert type(request.count) is int


@pytest.mark.parametrize(
    ("request_", "param", "code", "text"),
    [
        (
            Request(level=-1),
            "level",
            "decimal_below_min_value",
            "Invalid 'level': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        ),
        (
            Request(level=2.5),
            "level",
            "decimal_above_max_value",
            "Invalid 'level': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
        ),
        (
            Request(count=0),
            "count",
            "integer_below_min_value",
            "Invalid 'count': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            Request(count=129.0),
            "count",
            "integer_above_max_value",
            "Invalid 'count': integer above maximum value. Expected a value <= 128, but got 129 instead.",
        ),
        (
            Request(count=1.5),
            "count",
            "invalid_type",
            "Invalid type for 'count': expected an integer, but got a decimal number instead.",
        ),
    ],
)
def test_f59_out_of_range_is_said_in_openai_s_words(request_: Request, param: str, code: str, text: str) -> None:
    with pytest.raises(APIError) as raised:
        check_ranges(request_)
    assert (raised.value.status, raised.value.param, raised.value.code) == (400, param, code)
    assert raised.value.message == text


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_an_integer_that_ollama_cannot_read_is_a_400(value: int) -> None:
    with pytest.raises(APIError):
        check_ranges(Request(free=value))


def header(*names: str) -> str | None:
    found = dict(Ignored(Settings(), list(names)).headers())
    return found.get("openai-compat-ignored")


def test_nothing_ignored_is_no_header() -> None:
    assert header() is None
    assert header("") is None


def test_names_are_sorted_once_and_harmless() -> None:
    ignored = Ignored(Settings(), ["user", "b", "x\r\nSet-Cookie: a", "é", "z" * 100])
    ignored.add("user")
    ignored.add("messages[].name")
    assert dict(ignored.headers())["openai-compat-ignored"] == (
        f"_, b, messages[].name, user, x__Set-Cookie__a, {'z' * 64}"
    )


def test_the_header_is_bounded() -> None:
    names = [f"field-{i:04}" for i in range(1000)]
    value = header(*names)
    assert value is not None
    assert value.isascii()
    assert len(value) <= 1024
    *kept, rest = value.split(", ")
    assert kept == names[: len(kept)]
    assert rest == f"...+{1000 - len(kept)}"
    assert len(kept) > 80


def test_policy_warn_lists_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    ignored = Ignored(Settings(), [])
    ignored.unsupported("logit_bias", "Ollama cannot.")
    assert dict(ignored.headers()) == {"openai-compat-ignored": "logit_bias"}
    assert caplog.messages == ["ignored parameter logit_bias: Ollama cannot."]


def test_policy_error_refuses() -> None:
    with pytest.raises(APIError) as raised:
        Ignored(Settings(unsupported="error"), []).unsupported("logit_bias", "Ollama cannot.")
    assert (raised.value.status, raised.value.param) == (400, "logit_bias")
    assert raised.value.code == "unsupported_parameter"


def test_policy_error_is_not_about_unknown_fields() -> None:
    assert Ignored(Settings(unsupported="error"), ["x"]).headers()
