"""Calls, both ways."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec import UNSET, Raw

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.translate.tools import CallIds, to_deltas, to_tool_calls


def call(arguments: bytes | None, id: Any = UNSET) -> native.ToolCall:
    given = UNSET if arguments is None else Raw(arguments)
    return native.ToolCall(native.ToolCallFunction("f", given, 7), id)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (b'{"b":1,"a":2}', '{"b":1,"a":2}'),
        (b" {} ", "{}"),
        (b"null", "{}"),
        (None, "{}"),
        (b'""', "{}"),
        (b'"{\\"a\\":1}"', '{"a":1}'),
    ],
)
def test_arguments_of_an_answer_are_a_string(arguments: bytes | None, text: str) -> None:
    [made] = to_tool_calls([call(arguments)], CallIds(lambda prefix: prefix + "new"))
    assert (made.id, made.type, made.function.name, made.function.arguments) == ("call_new", "function", "f", text)


@pytest.mark.parametrize("arguments", [b"[1]", b"1", b'"x"', b'{"a":' * 70 + b"1" + b"}" * 70])
def test_f37_f54_arguments_that_are_no_object_are_a_failure(arguments: bytes) -> None:
    with pytest.raises(APIError) as raised:
        to_tool_calls([call(arguments)], CallIds(str))
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")


@pytest.mark.parametrize(("given", "kept"), [("call_1", True), (UNSET, False), (None, False), ("", False)])
def test_an_id_is_made_where_there_is_none(given: Any, kept: bool) -> None:
    [made] = to_tool_calls([call(b"{}", given)], CallIds(lambda prefix: prefix + "new"))
    assert made.id == ("call_1" if kept else "call_new")


def test_calls_are_numbered_by_arrival_whatever_the_native_side_says() -> None:
    numbers = itertools.count()
    deltas = to_deltas([call(b"{}"), call(b"{}")], CallIds(lambda prefix: f"{prefix}{next(numbers)}"), start=2)
    assert [delta.index for delta in deltas] == [2, 3]


def test_two_calls_of_one_answer_never_have_one_id() -> None:
    numbers = itertools.count()
    ids = CallIds(lambda prefix: f"{prefix}{next(numbers)}")
    made = to_tool_calls([call(b"{}", "a"), call(b"{}", "a"), call(b"{}", "b")], ids)
    later = to_tool_calls([call(b"{}", "b"), call(b"{}", "c")], ids)
    assert [item.id for item in [*made, *later]] == ["a", "call_0", "b", "call_1", "c"]


def test_ids_differ_from_those_of_the_conversation() -> None:
    numbers = itertools.count()
    ids = CallIds(lambda prefix: f"{prefix}{next(numbers)}", iter(["a", "b"]))
    assert [ids.of(given) for given in ("a", "c", "b", None)] == ["call_0", "c", "call_1", "call_2"]


def test_threads_never_get_one_id() -> None:
    ids = CallIds(lambda prefix: f"{prefix}{uuid.uuid4().hex}")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ids.of, ["a", "b"] * 500))
    assert len(set(found)) == 1000


def test_a_call_without_a_name_is_a_failure() -> None:
    with pytest.raises(APIError) as raised:
        to_tool_calls([native.ToolCall(native.ToolCallFunction("", Raw(b"{}")))], CallIds(str))
    assert (raised.value.status, raised.value.code, raised.value.retry) == (502, "upstream_error", False)
