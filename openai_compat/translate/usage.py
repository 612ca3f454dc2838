"""Counts and reasons of an answer's end: native → OpenAI.

Source: ollama ``openai/openai.go`` ``ToUsage``.
"""

from __future__ import annotations

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


def to_usage(last: native.ChatResponse) -> CompletionUsage:
    """The usage of a done line. A count that is absent or absurd is 0."""
    prompt, completion = _count(last.prompt_eval_count), _count(last.eval_count)
    cached = min(_count(last.prompt_eval_cached_count), prompt)
    return CompletionUsage(
        prompt, completion, prompt + completion, PromptTokensDetails(cached), CompletionTokensDetails()
    )


def _count(value: float | None) -> int:
    return int(value) if value is not None and 0 <= value < _MAX_COUNT else 0


def to_finish_reason(done_reason: str | None, *, tool_calls: bool) -> str:
    """``length`` beats ``tool_calls`` beats ``stop``; Ollama's ``load`` and ``unload`` are ``stop``.

    Source: ``ToChatCompletion``, ``FinishChunk``. Differs: never null and never a reason that OpenAI does not have.
    """
    if done_reason == "length":
        return "length"
    return "tool_calls" if tool_calls else "stop"
