"""Counts and reasons of an answer's end: native → OpenAI.

Source: ollama ``openai/openai.go`` ``ToUsage``.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from openai_compat.native import types as native
from openai_compat.native.usage import count
from openai_compat.translate.fields import Ignored


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


class StreamOptions(Struct):
    """``stream_options``, of every endpoint that streams chunks."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def includes_usage(options: StreamOptions | None, ignored: Ignored) -> bool:
    """Whether a last chunk with the usage is asked for; what else is asked for is noted."""
    if options is not None and options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation")
    return options is not None and bool(options.include_usage)


def to_usage(final_messages: Iterable[native.StreamLine]) -> CompletionUsage:
    """Add up the usage of one or several native calls. A count that is absent or absurd is 0.

    :param final_messages: the last message of each call.
    """
    prompt = completion = cached = 0
    for final in final_messages:
        prompt += count(final.prompt_eval_count)
        completion += count(final.eval_count)
        cached += min(count(final.prompt_eval_cached_count), count(final.prompt_eval_count))
    return CompletionUsage(
        prompt, completion, prompt + completion, PromptTokensDetails(cached), CompletionTokensDetails()
    )


def to_finish_reason(done_reason: str | None, *, tool_calls: bool) -> str:
    """``length`` beats ``tool_calls`` beats ``stop``; Ollama's ``load`` and ``unload`` are ``stop``.

    Source: ``ToChatCompletion``, ``FinishChunk``. Differs: never null and never a reason that OpenAI does not have.
    """
    if done_reason == "length":
        return "length"
    return "tool_calls" if tool_calls else "stop"
