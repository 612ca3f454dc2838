"""The answer to a forced tool call, as far as chats do not show it."""

from __future__ import annotations

from itertools import count

import pytest

from openai_compat.errors import APIError
from openai_compat.native.types import AnswerMessage, ChatResponse
from openai_compat.structured.forced_choice import ForcedChoiceBuilder
from openai_compat.structured.tool_choice import ForcedChoice

MEBIBYTE = 1024 * 1024


def builder() -> ForcedChoiceBuilder:
    numbers = count()
    return ForcedChoiceBuilder(
        ForcedChoice(frozenset(["f"]), is_named=False), lambda prefix: f"{prefix}{next(numbers)}"
    )


def text(content: str) -> ChatResponse:
    return ChatResponse(message=AnswerMessage(content))


def test_f40_text_that_is_no_call_is_held_up_to_a_mebibyte() -> None:
    choice = builder()
    choice.feed(text("{" + " " * (MEBIBYTE - 2)))
    with pytest.raises(APIError) as raised:
        choice.feed(text("  "))
    assert (raised.value.status, raised.value.code) == (502, "tool_choice_failed")


def test_the_arguments_of_a_call_are_not_bounded_by_that() -> None:
    choice = builder()
    choice.feed(text('{"name": "f", "parameters": {"x": "'))
    for _ in range(3):
        delta = choice.feed(text("y" * MEBIBYTE))
        assert len(delta.calls[0].function.arguments) == MEBIBYTE
    choice.feed(text('"}}'))
    assert choice.feed(ChatResponse(done=True)).finish_reason == "tool_calls"
