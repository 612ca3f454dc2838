"""The response of a text completion: its choices as one response, or as chunks. Choices are mapped here, not changed.

Source: ollama ``openai/openai.go`` ``ToCompletion``, ``ToCompleteChunk`` (at fb3076099). Differs: log-probabilities are
returned, thinking is not, and the usage is null in all chunks but the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from openai_compat.endpoints.contract import SYSTEM_FINGERPRINT
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.run import Run
from openai_compat.native import types as native
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.logprobs import LegacyLogprobs, characters, to_legacy_logprobs
from openai_compat.translate.usage import CompletionUsage, to_usage


class Choice(Struct, kw_only=True):
    """Source: OpenAI's ``CreateCompletionResponse.choices[]``."""

    text: str
    index: int
    logprobs: LegacyLogprobs | None = None
    finish_reason: str | None = None


class Completion(Struct, kw_only=True):
    """A response, or a chunk of a stream.

    Source: OpenAI's ``CreateCompletionResponse``.
    """

    id: str
    object: str = "text_completion"
    #: Unix seconds
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[Choice]
    #: with ``include_usage`` null in all chunks but the last; otherwise absent
    usage: CompletionUsage | UnsetType | None = UNSET


@dataclass(frozen=True)
class ResponseEnvelope:
    """Values that all chunks of a response share, and whether choices have log-probabilities."""

    id: str
    #: the client's name for the model
    model: str
    has_logprobs: bool


def to_completion(
    envelope: ResponseEnvelope, run: Run[native.GenerateResponse], choices: Sequence[CollectedChoice]
) -> Completion:
    """Map a complete run to a response.

    :param choices: the choices to return, in order: all of the run, or the best ones.

    Source: ``ToCompletion``.
    """
    items = [_to_choice(envelope, index, choice, 0) for index, choice in enumerate(choices)]
    usage = to_usage(run.final_messages)
    return Completion(id=envelope.id, created=run.created, model=envelope.model, choices=items, usage=usage)


def to_chunks(
    envelope: ResponseEnvelope, run: Run[native.GenerateResponse], *, include_usage: bool = False
) -> Iterator[list[Completion]]:
    """Map a run to chunks; each item has the chunks of one native message.

    The finish reason is in the last chunk of each choice. With *include_usage* a last chunk has the usage and no
    choices.

    :raises APIError: the native errors, such as a stream that ends too early.

    Source: ``ToCompleteChunk``; ``CompleteWriter``.
    """
    usage = None if include_usage else UNSET
    offsets = [0] * run.n
    for index, _, delta in run:
        chunks = []
        if delta.content or delta.logprobs or delta.finish_reason is not None:
            choices = [_to_choice(envelope, index, delta, offsets[index])]
            offsets[index] += sum(map(characters, delta.logprobs))
            chunks = [_chunk(envelope, run, choices, usage)]
        if run.is_complete and include_usage:
            chunks.append(_chunk(envelope, run, [], to_usage(run.final_messages)))
        yield chunks


def _chunk(
    envelope: ResponseEnvelope,
    run: Run[native.GenerateResponse],
    choices: list[Choice],
    usage: CompletionUsage | UnsetType | None,
) -> Completion:
    return Completion(id=envelope.id, created=run.created, model=envelope.model, choices=choices, usage=usage)


def _to_choice(envelope: ResponseEnvelope, index: int, part: CollectedChoice | ChoiceDelta, offset: int) -> Choice:
    """Map a collected choice, or a delta for a chunk.

    :param offset: characters of the choice's text before this part, for ``text_offset``.
    """
    text = part.text if isinstance(part, CollectedChoice) else part.content
    logprobs = to_legacy_logprobs(part.logprobs, offset) if envelope.has_logprobs else None
    return Choice(text=text, index=index, logprobs=logprobs, finish_reason=part.finish_reason)
