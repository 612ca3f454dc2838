"""Counts and reasons of an answer's end: native → OpenAI.

Source: ollama ``openai/openai.go`` ``ToUsage``.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from openai_compat.native import messages as native

#: a count beyond this is no count (F36)
_MAX_COUNT = 2**53


class PromptTokensDetails(Struct):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(Struct):
    #: Ollama does not count them apart
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Struct):
    """Source: OpenAI's ``CompletionUsage``."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


def to_usage(ends: Iterable[native.StreamLine]) -> CompletionUsage:
    """The usage of one done line, or of several together. A count that is absent or absurd is 0."""
    prompt = completion = cached = 0
    for end in ends:
        prompt += count(end.prompt_eval_count)
        completion += count(end.eval_count)
        cached += min(count(end.prompt_eval_cached_count), count(end.prompt_eval_count))
    return CompletionUsage(
        prompt, completion, prompt + completion, PromptTokensDetails(cached), CompletionTokensDetails()
    )


def count(value: float | None) -> int:
    """A native count, 0 if it is absent or absurd (F36)."""
    return int(value) if value is not None and 0 <= value < _MAX_COUNT else 0


def to_finish_reason(done_reason: str | None, *, tool_calls: bool) -> str:
    """``length`` beats ``tool_calls`` beats ``stop``; Ollama's ``load`` and ``unload`` are ``stop``.

    Source: ``ToChatCompletion``, ``FinishChunk``. Differs: never null and never a reason that OpenAI does not have.
    """
    if done_reason == "length":
        return "length"
    return "tool_calls" if tool_calls else "stop"
