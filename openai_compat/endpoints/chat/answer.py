"""The response of a chat: its choices as one completion, or as chunks. Choices are mapped here, not changed.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``, ``FinishChunk`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from openai_compat.endpoints.chat.custom_calls import CustomCallDelta, CustomCallOut, CustomCalls, to_calls
from openai_compat.endpoints.contract import SYSTEM_FINGERPRINT
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.run import Run
from openai_compat.native import types as native
from openai_compat.settings import ReasoningField
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.logprobs import ChoiceLogprobs, to_logprobs
from openai_compat.translate.tools import FunctionCallDelta, FunctionCallOut, ToolCallDelta, ToolCallOut
from openai_compat.translate.usage import CompletionUsage, to_usage


class ChatCompletionMessage(Struct, kw_only=True):
    """Source: OpenAI's ``ChatCompletionResponseMessage``; ``reasoning`` is Ollama's."""

    role: str = "assistant"
    #: null only with tool calls
    content: str | None
    refusal: None = None
    annotations: list[Any] = []
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: Sequence[ToolCallOut | CustomCallOut] | UnsetType = UNSET
    #: instead of ``tool_calls``, if the request has ``functions``
    function_call: FunctionCallOut | UnsetType = UNSET


class Choice(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionResponse.choices[]``."""

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
    #: only in stored completions
    metadata: dict[str, str] | UnsetType = UNSET


class Delta(Struct, kw_only=True):
    """What a chunk adds to a choice; ``{}`` in the finish chunk, ``role`` only in the first chunk.

    Source: OpenAI's ``ChatCompletionStreamResponseDelta``.
    """

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta | CustomCallDelta] | UnsetType = UNSET
    #: instead of ``tool_calls``, if the request has ``functions``
    function_call: FunctionCallDelta | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionStreamResponse.choices[]``."""

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
    #: with ``include_usage`` null in all chunks but the last; otherwise absent
    usage: CompletionUsage | UnsetType | None = UNSET


@dataclass(frozen=True)
class ResponseEnvelope:
    """Values that all chunks of a response share, and the format of reasoning and tool calls."""

    id: str
    #: the client's name for the model
    model: str
    #: the response field of reasoning
    reasoning_field: ReasoningField = "both"
    #: send a tool call as ``function_call``
    uses_functions: bool = False
    #: names of custom tools
    custom: frozenset[str] = frozenset()
    #: each choice is one tool call
    is_forced: bool = False
    #: the native request asks for thinking
    thinks: bool = False
    #: the request has tools, so that text may be held until it is known to be no call
    has_tools: bool = False


# -- one completion ---------------------------------------------------------------------------


def to_chat_completion(envelope: ResponseEnvelope, run: Run[native.ChatResponse]) -> ChatCompletion:
    """Map a complete run to a completion; the run must have collected its choices.

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
            message.tool_calls = to_calls(collected.calls, envelope.custom)
    message.reasoning, message.reasoning_content = _reasoning(envelope, collected.thinking)
    logprobs = to_logprobs(collected.logprobs) if collected.logprobs else None
    return Choice(index=index, message=message, logprobs=logprobs, finish_reason=_reason(envelope, reason))


def _reasoning(envelope: ResponseEnvelope, text: str) -> tuple[str | UnsetType, str | UnsetType]:
    """Return ``reasoning`` and ``reasoning_content``."""
    name = envelope.reasoning_field if text else "none"
    return text if name in ("both", "reasoning") else UNSET, text if name in ("both", "reasoning_content") else UNSET


def _reason(envelope: ResponseEnvelope, reason: str) -> str:
    return "function_call" if envelope.uses_functions and reason == "tool_calls" else reason


# -- chunks -----------------------------------------------------------------------------------


def to_chunks(
    envelope: ResponseEnvelope, run: Run[native.ChatResponse], *, include_usage: bool = False
) -> Iterator[list[ChatCompletionChunk]]:
    """Map a run to chunks; each item has the chunks of one native message.

    The first item begins with a chunk for each choice that has its role. Thinking, content and each tool call have
    chunks of their own. Each choice ends with a finish chunk, whose delta is empty. With *include_usage* a last chunk
    has the usage and no choices.

    :raises APIError: the native errors, such as a stream that ends too early.

    Source: ``ToStreamChunks``, ``FinishChunk``; ``ChatWriter``, whose flags are local variables here.
    """
    n, is_first = run.n, True
    customs = [CustomCalls(envelope.custom) for _ in range(n)]
    for index, _, delta in run:
        choices: list[ChunkChoice] = []
        if is_first:
            is_first = False
            content = None if envelope.is_forced or _begins_without_text(envelope, delta) else ""
            first = Delta(role="assistant", content=content, refusal=None)
            choices = [ChunkChoice(index=i, delta=first) for i in range(n)]
        choices += _choices(envelope, index, delta, customs[index])
        usage = to_usage(run.final_messages) if include_usage and run.is_complete else None
        # An empty list too: it lets the responder send frames that it holds back while messages are pending.
        yield _enveloped(envelope, run.created, choices, usage, include_usage=include_usage)


def _enveloped(
    envelope: ResponseEnvelope,
    created: int,
    choices: list[ChunkChoice],
    total: CompletionUsage | None,
    *,
    include_usage: bool,
) -> list[ChatCompletionChunk]:
    """Return a chunk for each choice, and a last one for the total usage, if there is one."""
    usage = None if include_usage else UNSET
    chunks = [
        ChatCompletionChunk(id=envelope.id, created=created, model=envelope.model, choices=[choice], usage=usage)
        for choice in choices
    ]
    if total is not None:
        last = ChatCompletionChunk(id=envelope.id, created=created, model=envelope.model, choices=[], usage=total)
        chunks.append(last)
    return chunks


def _begins_without_text(envelope: ResponseEnvelope, delta: ChoiceDelta) -> bool:
    """Return whether a choice begins with thinking or a tool call; after an empty message either is expected.

    Clients that find an empty text in the role chunk show an empty block of text before those.
    """
    return not delta.content and bool(delta.thinking or delta.calls or envelope.thinks or envelope.has_tools)


def _choices(envelope: ResponseEnvelope, index: int, delta: ChoiceDelta, customs: CustomCalls) -> Iterator[ChunkChoice]:
    """Yield the choices of the chunks for one delta: reasoning, content, each tool call, and the finish reason.

    :param customs: of this choice.
    """
    if delta.thinking and envelope.reasoning_field != "none":
        reasoning, reasoning_content = _reasoning(envelope, delta.thinking)
        yield ChunkChoice(index=index, delta=Delta(reasoning=reasoning, reasoning_content=reasoning_content))
    if delta.content or delta.logprobs:
        logprobs = to_logprobs(delta.logprobs) if delta.logprobs else None
        yield ChunkChoice(index=index, delta=Delta(content=delta.content), logprobs=logprobs)
    for call in delta.calls:
        if envelope.uses_functions:
            yield ChunkChoice(index=index, delta=Delta(function_call=call.function))
            continue
        for part in customs.feed(call):
            yield ChunkChoice(index=index, delta=Delta(tool_calls=[part]))
    if delta.finish_reason is not None:
        for part in customs.end():
            yield ChunkChoice(index=index, delta=Delta(tool_calls=[part]))
        yield ChunkChoice(index=index, delta=Delta(), finish_reason=_reason(envelope, delta.finish_reason))
