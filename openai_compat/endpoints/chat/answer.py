"""The response of a chat: its choices as one completion, or as chunks.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``, ``FinishChunk`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from openai_compat.endpoints.contract import SYSTEM_FINGERPRINT
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.run import Run
from openai_compat.native import types as native
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.logprobs import ChoiceLogprobs, to_logprobs
from openai_compat.translate.tools import FunctionCallDelta, FunctionCallOut, ToolCallDelta, ToolCallOut
from openai_compat.translate.usage import CompletionUsage, to_usage


class ChatCompletionMessage(Struct, kw_only=True):
    """Source: OpenAI's ``ChatCompletionResponseMessage``; ``reasoning`` is Ollama's."""

    role: str = "assistant"
    #: null only beside tool calls
    content: str | None
    refusal: None = None
    annotations: list[Any] = []
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET
    #: where the request has ``functions``
    function_call: FunctionCallOut | UnsetType = UNSET


class Choice(Struct, kw_only=True):
    index: int = 0
    message: ChatCompletionMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str


class ChatCompletion(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionResponse``."""

    id: str
    object: str = "chat.completion"
    #: Unix seconds
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: str = "default"
    system_fingerprint: str = SYSTEM_FINGERPRINT
    #: of stored completions
    metadata: dict[str, str] | UnsetType = UNSET


class Delta(Struct, kw_only=True):
    """What a chunk adds. ``{}`` in the finish chunk; ``role`` in the first one only."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    #: where the request has ``functions``
    function_call: FunctionCallDelta | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionStreamResponse``."""

    id: str
    object: str = "chat.completion.chunk"
    #: Unix seconds
    created: int
    model: str
    service_tier: str = "default"
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[ChunkChoice]
    #: with ``include_usage`` null on all chunks but the last, otherwise absent
    usage: CompletionUsage | UnsetType | None = UNSET


@dataclass(frozen=True)
class ResponseEnvelope:
    """What all chunks of a response have in common, and how they are written."""

    id: str
    #: the client's name for the model
    model: str
    #: write reasoning as ``reasoning_content`` too
    reasoning_content: bool = True
    #: tool calls leave as ``function_call``
    uses_functions: bool = False


# -- one completion ---------------------------------------------------------------------------


def to_chat_completion(envelope: ResponseEnvelope, run: Run[native.ChatResponse]) -> ChatCompletion:
    """Map a run that has ended, whose choices were collected, to a completion.

    Source: ``ToChatCompletion``.
    """
    choices = [_to_choice(envelope, index, choice) for index, choice in enumerate(run.choices)]
    usage = to_usage(run.final_messages)
    return ChatCompletion(id=envelope.id, created=run.created, model=envelope.model, choices=choices, usage=usage)


def _to_choice(envelope: ResponseEnvelope, index: int, collected: CollectedChoice) -> Choice:
    message, reason = ChatCompletionMessage(content=collected.text), collected.finish_reason
    if collected.calls:
        message.content = message.content or None
        if envelope.uses_functions:
            message.function_call = collected.calls[0].function
        else:
            message.tool_calls = collected.calls
    reasoning = "".join(collected.thinking)
    if reasoning:
        message.reasoning = reasoning
        if envelope.reasoning_content:
            message.reasoning_content = reasoning
    logprobs = to_logprobs(collected.logprobs) if collected.logprobs else None
    return Choice(index=index, message=message, logprobs=logprobs, finish_reason=_reason(envelope, reason))


def _reason(envelope: ResponseEnvelope, reason: str) -> str:
    return "function_call" if envelope.uses_functions and reason == "tool_calls" else reason


# -- chunks -----------------------------------------------------------------------------------


def to_chunks(
    envelope: ResponseEnvelope, run: Run[native.ChatResponse], *, include_usage: bool = False
) -> Iterator[list[ChatCompletionChunk]]:
    """Map native streams to chunks; each step gives the chunks of one native message.

    The roles of all choices come first, each in a chunk of its own, together with the first delta; thinking and content
    have chunks of their own; then each choice has a finish chunk with an empty delta; then, if *include_usage*, there
    is a chunk without choices.

    :raises APIError: the native errors, such as an end before ``done``.

    Source: ``ToStreamChunks``, ``FinishChunk``; ``ChatWriter``, whose flags are local variables here.
    """
    n, is_first = len(run.builders), True
    for index, response, delta in run:
        choices: list[ChunkChoice] = []
        if is_first:
            is_first = False
            choices = [_first_choice(i, response, n) for i in range(n)]
        choices += _choices(envelope, index, delta)
        usage = to_usage(run.final_messages) if include_usage and run.is_complete else None
        # Also an empty list: frames that wait to be sent together must not wait for the next line.
        yield _enveloped(envelope, run.created, choices, usage, include_usage=include_usage)


def _enveloped(
    envelope: ResponseEnvelope,
    created: int,
    choices: list[ChunkChoice],
    total: CompletionUsage | None,
    *,
    include_usage: bool,
) -> list[ChatCompletionChunk]:
    """A chunk for each choice, and one for the usage."""
    usage = None if include_usage else UNSET
    chunks = [
        ChatCompletionChunk(id=envelope.id, created=created, model=envelope.model, choices=[choice], usage=usage)
        for choice in choices
    ]
    if total is not None:
        last = ChatCompletionChunk(id=envelope.id, created=created, model=envelope.model, choices=[], usage=total)
        chunks.append(last)
    return chunks


def _first_choice(index: int, response: native.ChatResponse, n: int) -> ChunkChoice:
    """The role; no content yet, and none at all (null) where the answer begins with a call."""
    message = response.message
    only_calls = message is not None and message.tool_calls and not message.content and not message.thinking
    content = None if only_calls and n == 1 else ""
    return ChunkChoice(index=index, delta=Delta(role="assistant", content=content, refusal=None))


def _choices(envelope: ResponseEnvelope, index: int, delta: ChoiceDelta) -> Iterator[ChunkChoice]:
    """What one delta adds: to the reasoning, to the content, to the calls; and the end."""
    if delta.thinking:
        reasoning_content = delta.thinking if envelope.reasoning_content else UNSET
        yield ChunkChoice(index=index, delta=Delta(reasoning=delta.thinking, reasoning_content=reasoning_content))
    if delta.content or delta.logprobs:
        logprobs = to_logprobs(delta.logprobs) if delta.logprobs else None
        yield ChunkChoice(index=index, delta=Delta(content=delta.content), logprobs=logprobs)
    for call in delta.calls:
        change = Delta(function_call=call.function) if envelope.uses_functions else Delta(tool_calls=[call])
        yield ChunkChoice(index=index, delta=change)
    if delta.finish_reason is not None:
        yield ChunkChoice(index=index, delta=Delta(), finish_reason=_reason(envelope, delta.finish_reason))
