"""Token counts and finish reasons, from native to OpenAI's.

Source: ollama ``openai/openai.go`` ``ToUsage``.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from openai_compat.native import types as native
from openai_compat.native.usage import count
from openai_compat.translate.fields import Ignored, RequestObject


class PromptTokensDetails(Struct):
    """Source: OpenAI's ``CompletionUsage.prompt_tokens_details``."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(Struct):
    """Source: OpenAI's ``CompletionUsage.completion_tokens_details``."""

    #: always 0: Ollama counts them with the other tokens
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


class StreamOptions(RequestObject):
    """``stream_options`` of every endpoint that streams chunks."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def includes_usage(options: StreamOptions | None, ignored: Ignored) -> bool:
    """Return whether a last chunk with the usage is requested; other options are listed as ignored."""
    if options is not None and options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation")
    return options is not None and bool(options.include_usage)


def to_usage(final_messages: Iterable[native.StreamLine]) -> CompletionUsage:
    """Return the usage of one or several native calls together. A count that is absent or out of range is 0.

    :param final_messages: the final message of each call.
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
    """Map ``done_reason``: ``length`` wins over tool calls, which win over ``stop``; all others are ``stop``.

    Source: ``ToChatCompletion``, ``FinishChunk``. Differs: never null and never a reason that OpenAI does not have.
    """
    if done_reason == "length":
        return "length"
    return "tool_calls" if tool_calls else "stop"
