"""Counts and reasons."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.native.types import ChatResponse, GenerateResponse
from openai_compat.translate.usage import to_finish_reason, to_usage


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, (0, 0, 0, 0)),
        ({"prompt_eval_count": 3, "eval_count": 4}, (3, 4, 7, 0)),
        ({"prompt_eval_count": 3.0, "eval_count": 4, "prompt_eval_cached_count": 2}, (3, 4, 7, 2)),
        ({"prompt_eval_count": 3, "prompt_eval_cached_count": 9}, (3, 0, 3, 3)),
        ({"prompt_eval_count": 10**400, "eval_count": -1}, (0, 0, 0, 0)),
    ],
)
def test_f36_usage_is_sane(counts: dict[str, Any], expected: tuple[int, ...]) -> None:
    usage = to_usage([ChatResponse(**counts)])
    cached = usage.prompt_tokens_details.cached_tokens
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cached) == expected


def test_usage_of_several_is_their_sum() -> None:
    ends = [
        ChatResponse(prompt_eval_count=3, eval_count=4, prompt_eval_cached_count=9),
        GenerateResponse(prompt_eval_count=5, eval_count=6, prompt_eval_cached_count=1),
    ]
    usage = to_usage(ends)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (8, 10, 18)
    assert usage.prompt_tokens_details.cached_tokens == 4


@pytest.mark.parametrize(
    ("reason", "tool_calls", "expected"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("length", True, "length"),
        ("length", False, "length"),
        ("load", False, "stop"),
        ("unload", False, "stop"),
        ("unload", True, "tool_calls"),
        ("", False, "stop"),
        (None, False, "stop"),
        (None, True, "tool_calls"),
    ],
)
def test_length_beats_tool_calls_beats_stop(reason: str | None, tool_calls: bool, expected: str) -> None:
    assert to_finish_reason(reason, tool_calls=tool_calls) == expected
