"""The tokens and times of a request's native calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from openai_compat.native.types import ChatResponse
from openai_compat.native.usage import NativeUsage, count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 0),
        (0, 0),
        (7, 7),
        (7.9, 7),
        (-1, 0),
        (2**53 - 1, 2**53 - 1),
        (2**53, 0),
        (2**62, 0),
        (1e15, 10**15),
        (1e16, 0),
        (1e300, 0),
        (float("nan"), 0),
        (float("inf"), 0),
    ],
)
def test_f36_a_count_that_is_absent_or_absurd_is_0(value: float | None, expected: int) -> None:
    assert count(value) == expected


def test_it_adds_up() -> None:
    usage = NativeUsage()
    usage.begin(None)
    usage.begin("first")
    usage.begin("second")
    usage.add(ChatResponse(prompt_eval_count=2, eval_count=3, total_duration=4, load_duration=5))
    usage.add(ChatResponse(prompt_eval_count=1e300, eval_count=1, prompt_eval_duration=6, eval_duration=7))
    assert (usage.model, usage.calls) == ("first", 3)
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 4)
    assert (usage.total_duration, usage.load_duration) == (4, 5)
    assert (usage.prompt_eval_duration, usage.eval_duration) == (6, 7)


def test_threads_may_add_at_once() -> None:
    usage = NativeUsage()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(usage.begin, "m")
            pool.submit(usage.add, ChatResponse(eval_count=1))
    assert (usage.calls, usage.completion_tokens) == (400, 400)
