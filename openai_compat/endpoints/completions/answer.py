"""The answer of a completion: texts, as one answer or as chunks.

Source: ollama ``openai/openai.go`` ``ToCompletion``, ``ToCompleteChunk`` (at fb3076099). Differs: log-probabilities
are there, thinking is not, usage is null until it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from openai_compat.errors import broken
from openai_compat.native import messages as native
from openai_compat.translate.logprobs import ContentLogprobs, LegacyLogprobs, characters, to_legacy_logprobs
from openai_compat.translate.sampling import silence
from openai_compat.translate.usage import CompletionUsage, to_finish_reason, to_usage

FINGERPRINT = "fp_ollama"


class Choice(Struct, kw_only=True):
    text: str
    index: int
    logprobs: LegacyLogprobs | None = None
    finish_reason: str | None = None


class Completion(Struct, kw_only=True):
    """Source: OpenAI's ``CreateCompletionResponse``, which is its own chunk too."""

    id: str
    object: str = "text_completion"
    #: Unix seconds
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[Choice]
    #: null on all chunks but the last if usage was asked for, else absent
    usage: CompletionUsage | UnsetType | None = UNSET


@dataclass(frozen=True)
class Form:
    """What all chunks of an answer share."""

    id: str
    #: the name that the client has for the model
    model: str
    #: Unix seconds; used where the first message has no ``created_at``
    now: int
    has_logprobs: bool


class Writing:
    """One text, as it grows: native messages in, what each adds out.

    :param echo: what stands before it.
    :param is_silent: nothing was asked for: pass on the end only.
    """

    def __init__(self, form: Form, echo: str, *, is_silent: bool) -> None:
        self._form = form
        self._echo = echo
        self._is_silent = is_silent
        self._kept = ContentLogprobs()
        self._offset = 0
        self._told = False
        #: of every token of the text
        self.logprobs: list[native.Logprob] = []

    def feed(self, index: int, response: native.GenerateResponse) -> Choice | None:
        """What a message adds; None for one that adds nothing.

        :raises APIError: 502 for an end that says nothing at all.
        """
        self._told = self._told or bool(response.response or response.thinking or response.logprobs)
        if response.is_bare_end and not self._told:
            raise broken("The backend answered nothing, and gave no reason.")
        if self._is_silent:
            if not response.done:
                return None
            silence(response)
            response.response = ""
        text = response.response or ""
        entries = self._kept.of(response, text, response.thinking or "")
        self.logprobs += entries
        text, self._echo = self._echo + text, ""
        if not (text or entries or response.done):
            return None
        logprobs = None
        if self._form.has_logprobs:
            logprobs = to_legacy_logprobs(entries, self._offset)
            self._offset += sum(map(characters, entries))
        reason = to_finish_reason(response.done_reason, tool_calls=False) if response.done else None
        return Choice(text=text, index=index, logprobs=logprobs, finish_reason=reason)


def to_chunks(
    form: Form,
    messages: Iterable[tuple[int, native.GenerateResponse]],
    writings: Sequence[Writing],
    *,
    include_usage: bool = False,
) -> Iterator[list[Completion]]:
    """Translate native streams; each step gives the chunks of one native message.

    The finish reason stands on the last chunk of each text; then, if *include_usage*, there is a chunk without choices.

    Source: ``ToCompleteChunk``; ``CompleteWriter``.
    """
    created = None
    ends: list[native.GenerateResponse] = []
    usage = None if include_usage else UNSET
    for index, response in messages:
        if created is None:
            created = native.unix_time(response.created_at, form.now)
        chunks = []
        choice = writings[index].feed(index, response)
        if choice is not None:
            chunks = [Completion(id=form.id, created=created, model=form.model, choices=[choice], usage=usage)]
        if response.done:
            ends.append(response)
        is_last = len(ends) == len(writings)
        if is_last and include_usage:
            total = to_usage(ends)
            chunks.append(Completion(id=form.id, created=created, model=form.model, choices=[], usage=total))
        yield chunks
        if is_last:
            return


def joined(parts: Sequence[Choice], index: int) -> Choice:
    """One choice of the parts of its text."""
    told = [part.logprobs for part in parts if part.logprobs is not None]
    logprobs = None
    if told:
        logprobs = LegacyLogprobs([], [], [], [])
        for part in told:
            logprobs.tokens += part.tokens
            logprobs.token_logprobs += part.token_logprobs
            logprobs.top_logprobs += part.top_logprobs
            logprobs.text_offset += part.text_offset
    text = "".join(part.text for part in parts)
    return Choice(text=text, index=index, logprobs=logprobs, finish_reason=parts[-1].finish_reason)
