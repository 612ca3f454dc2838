"""The answer to a forced tool call, as far as chats do not show it."""

from __future__ import annotations

import time
import tracemalloc
from itertools import count

import pytest

from openai_compat.errors import APIError
from openai_compat.native.types import AnswerMessage, ChatResponse
from openai_compat.structured.forced_choice import ForcedChoiceBuilder
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.translate.tools import CallIds

MEBIBYTE = 1024 * 1024


def builder() -> ForcedChoiceBuilder:
    numbers = count()
    return ForcedChoiceBuilder(
        ForcedChoice(frozenset(["f"]), is_named=False), CallIds(lambda prefix: f"{prefix}{next(numbers)}")
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


def call_of(content: str, cut: int, *, reason: str = "stop") -> tuple[str, str, str | None]:
    """The name, the arguments and the finish reason of a call that arrives in parts."""
    choice, name, arguments = builder(), "", ""
    deltas = [choice.feed(text(content[i : i + cut])) for i in range(0, len(content), cut)]
    deltas.append(choice.feed(ChatResponse(done=True, done_reason=reason)))
    for delta in deltas:
        for made in delta.calls:
            name += made.function.name or ""
            arguments += made.function.arguments
    return name, arguments, deltas[-1].finish_reason


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "content",
    [
        '{"name":"f","parameters":{"a":"}{\\"]"}}',
        ' { "name" : "f" ,\n"arguments" :\t{"a":"}{\\"]"} } \n',
        '{"name":"\\u0066","parameters":{"a":"}{\\"]"}}',
        '{"parameters":{"a":"}{\\"]"},"name":"f"}',
        '{"name":"f","x":1,"parameters":{"a":"}{\\"]"}}',
        '```json\n{"name":"f","parameters":{"a":"}{\\"]"}}\n```\n',
        '<think>so</think>{"name":"f","parameters":{"a":"}{\\"]"}}',
    ],
)
def test_a_call_is_recognised_in_whatever_parts_it_arrives(content: str, cut: int) -> None:
    assert call_of(content, cut) == ("f", '{"a":"}{\\"]"}', "tool_calls")


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "content",
    [
        "Hello",
        "{",
        '{"name":"f"',
        '{"name":"g","parameters":{}}',
        '{"name":"f","parameters":[]}',
        '{"name":"f","parameters":{}',
        '{"name":"f","parameters":{}}}',
        '{"name":"f","parameters":{}},',
        '{"name":"f","parameters":{},"x":1}',
        '{"name":"f","parameters":{"a":}}',
        '{"name":5,"parameters":{}}',
        '{"name":"f\\","parameters":{}}',
        '{"named":"f","parameters":{}}',
        '{"name":"' + "f" * 2000 + '","parameters":{}}',
    ],
)
def test_what_is_no_call_is_a_502_in_whatever_parts_it_arrives(content: str, cut: int) -> None:
    with pytest.raises(APIError) as raised:
        call_of(content, cut)
    assert (raised.value.status, raised.value.code) == (502, "tool_choice_failed")


def test_the_name_leaves_when_the_arguments_begin() -> None:
    choice = builder()
    assert not choice.feed(text('{"name":"f","parameters": ')).calls
    assert choice.feed(text("{")).calls[0].function.name == "f"


def test_a_call_that_is_cut_by_length_leaves_as_far_as_it_came() -> None:
    assert call_of('{"name":"f","parameters":{"a":', 3, reason="length") == ("f", '{"a":', "length")


HOSTILE = {
    "blanks in the head": lambda n: "{" + " " * n,
    "blanks before the arguments": lambda n: '{"name":"f","parameters":' + " " * n,
    "a long name": lambda n: '{"name":"' + "f" * n,
    "escapes in the name": lambda n: '{"name":"' + "\\n" * (n // 2),
    "brackets in the name": lambda n: '{"name":"' + "{" * n,
    "another order": lambda n: '{"parameters":{"a":"' + "x" * n,
    "arguments": lambda n: '{"name":"f","parameters":{"a":"' + '\\"' * (n // 2),
    "what follows the arguments": lambda n: '{"name":"f","parameters":{}' + " " * (n // 2) + "}" * (n // 2),
    "prose": lambda n: "x " * (n // 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text(name: str, cut: int) -> None:
    def seconds(content: str) -> float:
        def once() -> float:
            messages = [text(content[i : i + cut]) for i in range(0, len(content), cut)]
            choice = builder()
            began = time.process_time()
            for message in messages:
                choice.feed(message)
            return time.process_time() - began

        return min(once() for _ in range(3))

    small, large = seconds(HOSTILE[name](3000)), seconds(HOSTILE[name](30_000))
    assert large < 40 * max(small, 0.0002)


def test_nothing_is_held_of_what_follows_the_arguments() -> None:
    choice = builder()
    choice.feed(text('{"name":"f","parameters":{}'))
    tracemalloc.start()
    try:
        for _ in range(1000):
            choice.feed(text(" x" * 1000))
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
