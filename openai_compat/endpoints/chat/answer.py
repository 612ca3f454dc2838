"""The answer of a chat: what its choices add up to, as one completion or as chunks.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``, ``FinishChunk`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import UNSET, Struct, UnsetType

from openai_compat.native import messages as native
from openai_compat.translate.logprobs import ChoiceLogprobs, to_logprobs
from openai_compat.translate.tools import FunctionCallDelta, FunctionCallOut, ToolCallDelta, ToolCallOut, add_deltas
from openai_compat.translate.turn import Piece
from openai_compat.translate.usage import CompletionUsage, to_usage

FINGERPRINT = "fp_ollama"


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
    #: the old form
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
    system_fingerprint: str = FINGERPRINT
    #: of kept completions
    metadata: dict[str, str] | UnsetType = UNSET


class Delta(Struct, kw_only=True):
    """What a chunk adds. ``{}`` in the finish chunk; ``role`` in the first one only."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    #: the old form
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
    system_fingerprint: str = FINGERPRINT
    choices: list[ChunkChoice]
    #: null on all chunks but the last if usage was asked for, else absent
    usage: CompletionUsage | UnsetType | None = UNSET


class Choosing(Protocol):
    """What makes pieces of a choice out of native messages: ``Turn``, ``ForcedTurn``."""

    def feed(self, response: native.ChatResponse) -> Piece: ...


@dataclass(frozen=True)
class Form:
    """What all chunks of an answer share."""

    id: str
    #: the name that the client has for the model
    model: str
    #: Unix seconds; used where the first message has no ``created_at``
    now: int
    #: spell reasoning both ways
    reasoning_content: bool = True
    #: calls leave as ``function_call``
    is_old_form: bool = False


# -- one completion ---------------------------------------------------------------------------


class Collected:
    """One choice, collected."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.thinking: list[str] = []
        self.calls: list[ToolCallOut] = []
        self.logprobs: list[native.Logprob] = []
        self.finish_reason = "stop"

    def add(self, piece: Piece) -> None:
        self.content.append(piece.content)
        self.thinking.append(piece.thinking)
        self.logprobs += piece.logprobs
        if piece.calls:
            add_deltas(self.calls, piece.calls)
        if piece.finish_reason is not None:
            self.finish_reason = piece.finish_reason

    @property
    def text(self) -> str:
        return "".join(self.content)


def to_chat_completion(
    form: Form, choices: Iterable[Collected], ends: Iterable[native.ChatResponse], created: int
) -> ChatCompletion:
    """Put collected choices together.

    :param ends: the done line of every native call that was made for them.
    :param created: Unix seconds.

    Source: ``ToChatCompletion``.
    """
    made = [_to_choice(form, index, choice) for index, choice in enumerate(choices)]
    return ChatCompletion(id=form.id, created=created, model=form.model, choices=made, usage=to_usage(ends))


def _to_choice(form: Form, index: int, collected: Collected) -> Choice:
    message, reason = ChatCompletionMessage(content=collected.text), collected.finish_reason
    if collected.calls:
        message.content = message.content or None
        if form.is_old_form:
            message.function_call = collected.calls[0].function
        else:
            message.tool_calls = collected.calls
    reasoned = "".join(collected.thinking)
    if reasoned:
        message.reasoning = reasoned
        if form.reasoning_content:
            message.reasoning_content = reasoned
    logprobs = to_logprobs(collected.logprobs) if collected.logprobs else None
    return Choice(index=index, message=message, logprobs=logprobs, finish_reason=_reason(form, reason))


def _reason(form: Form, reason: str) -> str:
    return "function_call" if form.is_old_form and reason == "tool_calls" else reason


# -- chunks -----------------------------------------------------------------------------------


def to_chunks(
    form: Form,
    messages: Iterable[tuple[int, native.ChatResponse]],
    turns: Sequence[Choosing],
    *,
    include_usage: bool = False,
    stop: Callable[[int], None],
    ends: list[native.ChatResponse],
    collected: Sequence[Collected] = (),
) -> Iterator[list[ChatCompletionChunk]]:
    """Translate native streams; each step gives the chunks of one native message.

    The roles of all choices come first, each in a chunk of its own, beside the first delta; thinking and content
    have chunks of their own; then each choice has a finish chunk with an empty delta; then, if *include_usage*,
    there is a chunk without choices.

    :param messages: with the index of the choice of each.
    :param stop: told of a choice that ended before its native stream did.
    :param ends: gets the done line of every native stream.
    :param collected: of each choice, where the answer is to be kept too.
    :raises APIError: the native side's failures, such as an end before ``done``.

    Source: ``ToStreamChunks``, ``FinishChunk``; ``ChatWriter``, whose flags are local variables here.
    """
    created, left = None, len(turns)
    for index, response in messages:
        piece = turns[index].feed(response)
        choices: list[ChunkChoice] = []
        if created is None:
            created = native.unix_time(response.created_at, form.now)
            choices = [_first_choice(i, response, len(turns)) for i in range(len(turns))]
        choices += _choices(form, index, piece)
        if collected:
            collected[index].add(piece)
        if piece.finish_reason is not None:
            left -= 1
            if response.done:
                ends.append(response)
            else:
                stop(index)
        total = to_usage(ends) if include_usage and not left else None
        # Also when there are none: what is held for company must not wait for the next line.
        yield _enveloped(form, created, choices, total, include_usage=include_usage)
        if not left:
            return


def _enveloped(
    form: Form, created: int, choices: list[ChunkChoice], total: CompletionUsage | None, *, include_usage: bool
) -> list[ChatCompletionChunk]:
    """A chunk for each choice, and one for the usage."""
    usage = None if include_usage else UNSET
    chunks = [
        ChatCompletionChunk(id=form.id, created=created, model=form.model, choices=[choice], usage=usage)
        for choice in choices
    ]
    if total is not None:
        chunks.append(ChatCompletionChunk(id=form.id, created=created, model=form.model, choices=[], usage=total))
    return chunks


def _first_choice(index: int, response: native.ChatResponse, n: int) -> ChunkChoice:
    """The role; no content yet, and none at all (null) where the answer begins with a call."""
    message = response.message
    only_calls = message is not None and message.tool_calls and not message.content and not message.thinking
    content = None if only_calls and n == 1 else ""
    return ChunkChoice(index=index, delta=Delta(role="assistant", content=content, refusal=None))


def _choices(form: Form, index: int, piece: Piece) -> Iterator[ChunkChoice]:
    """What one piece adds: to the reasoning, to the content, to the calls; and the end."""
    if piece.thinking:
        spelt = piece.thinking if form.reasoning_content else UNSET
        yield ChunkChoice(index=index, delta=Delta(reasoning=piece.thinking, reasoning_content=spelt))
    if piece.content or piece.logprobs:
        logprobs = to_logprobs(piece.logprobs) if piece.logprobs else None
        yield ChunkChoice(index=index, delta=Delta(content=piece.content), logprobs=logprobs)
    for call in piece.calls:
        delta = Delta(function_call=call.function) if form.is_old_form else Delta(tool_calls=[call])
        yield ChunkChoice(index=index, delta=delta)
    if piece.finish_reason is not None:
        yield ChunkChoice(index=index, delta=Delta(), finish_reason=_reason(form, piece.finish_reason))
