"""Which call a result answers: by id, by name, by order."""

from __future__ import annotations

from openai_compat.native import types as native
from openai_compat.translate.past_calls import PastCalls


def past(*turns: list[tuple[str, str]]) -> PastCalls:
    """Turns of calls, each with an id and a name."""
    calls = PastCalls()
    for turn in turns:
        for id, name in turn:
            calls.add(native.ToolCall(native.ToolCallFunction(name), id))
        calls.end_turn()
    return calls


def answered(calls: PastCalls, id: str | None = None, name: str | None = None) -> tuple[object, str] | None:
    call = calls.answered(id, name)
    return None if call is None else (call.id, call.function.name)


def test_results_without_ids_are_in_the_order_of_the_calls() -> None:
    calls = past([("1", "f"), ("", "g"), ("3", "f")])
    assert [answered(calls) for _ in range(4)] == [("1", "f"), ("", "g"), ("3", "f"), None]


def test_a_name_means_the_first_call_of_it_without_a_result() -> None:
    calls = past([("1", "f"), ("2", "g"), ("3", "g")])
    assert answered(calls, name="g") == ("2", "g")
    assert answered(calls, name="h") is None
    assert answered(calls, name="g") == ("3", "g")
    assert answered(calls, name="g") is None
    assert answered(calls) == ("1", "f")


def test_an_id_answers_its_call() -> None:
    calls = past([("1", "f"), ("2", "g")])
    assert answered(calls, "1", "other") == ("1", "f")
    assert answered(calls, "x") is None
    assert answered(calls, "1") == ("1", "f")
    assert [answered(calls), answered(calls)] == [("2", "g"), None]


def test_of_one_id_the_latest_turn_counts_and_in_it_the_order() -> None:
    calls = past([("0", "f")], [("0", "g"), ("0", "h")])
    assert [answered(calls, "0") for _ in range(3)] == [("0", "g"), ("0", "h"), ("0", "h")]


def test_only_the_last_turn_is_answered_by_order() -> None:
    assert answered(past([("1", "f")], [("2", "g")])) == ("2", "g")
    calls = past([("1", "f")], [("2", "g")])
    assert answered(calls, "1") == ("1", "f")
    assert [answered(calls, name="f"), answered(calls), answered(calls)] == [None, ("2", "g"), None]


def test_calls_of_several_messages_in_a_row_are_one_turn() -> None:
    calls = PastCalls()
    for id in ("1", "2"):
        calls.add(native.ToolCall(native.ToolCallFunction("f"), id))
    assert [answered(calls), answered(calls)] == [("1", "f"), ("2", "f")]
    assert answered(PastCalls()) is None
