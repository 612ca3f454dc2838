"""Runs of native calls: messages become deltas of choices, which are collected, checked and generated again.

:class:`Run` is the loop over native messages, for every endpoint; :class:`ChatRun` carries out the plan of a chat.
How a message becomes a delta belongs to a builder, and the response format to an endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from msgspec import structs

from openai_compat.errors import APIError, answer_too_long, bad_gateway, invalid_output
from openai_compat.generation.choice import ChoiceBuilder
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.parallel import Streams, streams
from openai_compat.generation.plan import ChatPlan
from openai_compat.generation.thinking import start_call
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.structured.forced_choice import ForcedChoiceBuilder
from openai_compat.structured.json_text import JSONUnwrapper
from openai_compat.structured.schema_checker import Uncheckable
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.fields import Ignored
from openai_compat.translate.sampling import seeded
from openai_compat.translate.tools import CallIds
from openai_compat.transport.cancel import Cancel

L = TypeVar("L", bound="native.StreamLine")
L_contra = TypeVar("L_contra", bound="native.StreamLine", contravariant=True)


class Builder(Protocol[L_contra]):
    """A builder of one choice, from the messages of one native stream."""

    def feed(self, response: L_contra, /) -> ChoiceDelta:
        """Return the delta of the next native message."""


class Run(Generic[L]):
    """Native calls in progress, and their choices. Iterate it once.

    It yields ``(index of the choice, native message, delta)`` in the order of arrival, and ends when every choice has a
    finish reason. The owner of a run closes its ``streams``.

    :param builders: one for each stream.
    :param now: Unix seconds; used if the first message has no ``created_at``.
    :param collect: sum up the deltas in ``choices``.
    :param max_answer: bytes of all native responses together, above which collecting fails.
    :param check: is called with each collected choice when it finishes, before its last delta is yielded; it may raise.
    """

    def __init__(
        self,
        streams: Streams[L],
        builders: Sequence[Builder[L]],
        *,
        now: int,
        collect: bool,
        max_answer: int,
        check: Callable[[CollectedChoice], None] | None = None,
    ) -> None:
        self.streams = streams
        self.builders = builders
        #: Unix seconds at which generation began; *now* until the first message is read
        self.created = now
        #: the collected choices; empty if the run does not collect
        self.choices = [CollectedChoice() for _ in builders] if collect or check else []
        #: every choice has a finish reason
        self.is_complete = False
        #: the final message of each native call, for the usage; a call that was closed early has none
        self.final_messages: list[L] = []
        self._max_answer = max_answer
        self._check = check

    def __iter__(self) -> Iterator[tuple[int, L, ChoiceDelta]]:
        unfinished, is_first = len(self.builders), True
        builders, choices = self.builders, self.choices
        for index, message in self.streams:
            if is_first:
                self.created = native.unix_time(message.created_at, self.created)
                is_first = False
            delta = builders[index].feed(message)
            if choices:
                self._collect(choices[index], delta)
            if delta.finish_reason is not None:
                unfinished -= 1
                self.is_complete = not unfinished
                if message.done:
                    self.final_messages.append(message)
                else:
                    self.streams.stop(index)
            yield index, message, delta
            if not unfinished:
                return
        # A stream that breaks off raises by itself: only cancelled streams end before their choices are finished.
        raise bad_gateway("The request was cancelled.")

    def _collect(self, choice: CollectedChoice, delta: ChoiceDelta) -> None:
        choice.add(delta)
        if self.streams.size > self._max_answer:
            raise answer_too_long()
        if self._check is not None and delta.finish_reason is not None:
            self._check(choice)

    def finish(self) -> list[CollectedChoice]:
        """Read all messages, close the streams, and return the collected choices.

        :raises APIError: the native errors; 502 if the responses are too long.
        """
        with closing(self.streams):
            for _ in self:
                pass
        return self.choices


@dataclass(frozen=True)
class ChatRun:
    """A chat that is carried out as planned.

    :param ignored: lists the fields that turn out to have no effect.
    :param new_id: returns an id of a tool call, with the given prefix.
    :param now: Unix seconds.
    :param max_answer: bytes of all native responses together, above which collecting fails.
    """

    plan: ChatPlan
    backend: Backend
    ignored: Ignored
    new_id: Callable[[str], str]
    now: int
    max_answer: int

    def start(self, *, collect: bool = False, cancel: Cancel | None = None) -> Run[native.ChatResponse]:
        """Start the native calls of a streamed response.

        With a strict schema each choice is checked when it finishes; the run then raises a 502,
        ``response_format_failed``, for one that does not match.

        :param collect: collect the choices, to store them.
        :param cancel: ends the calls, of work that its client's request does not end.
        :raises APIError: the native errors.
        """
        check = None if self.plan.checker is None else self._require_match
        return self._start(self._requests(), collect=collect, check=check, cancel=cancel)

    def finish(self, *, retry_strict: bool) -> Run[native.ChatResponse]:
        """Run the native calls to their end; return the run, with its choices collected and checked.

        :param retry_strict: generate a choice that does not match its strict schema a second time, with the reason in
            the messages.
        :raises APIError: the native errors; 502 ``response_format_failed`` for a choice that does not match.
        """
        run = self._start(self._requests(), collect=True)
        run.finish()
        if self.plan.checker is not None:
            for index in range(self.plan.n):
                self._check_choice(run, index, retry=retry_strict)
        return run

    def _requests(self) -> list[native.ChatRequest]:
        return [seeded(self.plan.native_request, index) for index in range(self.plan.n)]

    def _start(
        self,
        requests: Sequence[native.ChatRequest],
        *,
        collect: bool,
        check: Callable[[CollectedChoice], None] | None = None,
        cancel: Cancel | None = None,
    ) -> Run[native.ChatResponse]:
        plan, backend = self.plan, self.backend
        start_calls = [
            start_call(backend.chat, request, plan.model, plan.think_field, backend.limits, self.ignored)
            for request in requests
        ]
        threads = len(requests) if backend.is_remote else 1
        source = streams(start_calls, threads=threads, cancel=cancel or backend.cancel)
        ids = CallIds(self.new_id, (c.id for m in plan.native_request.messages for c in m.tool_calls or () if c.id))
        builders = [self._builder(ids) for _ in requests]
        return Run(source, builders, now=self.now, collect=collect, max_answer=self.max_answer, check=check)

    def _builder(self, ids: CallIds) -> Builder[native.ChatResponse]:
        plan = self.plan
        if plan.forced is not None and not plan.max_tokens_is_zero:
            return ForcedChoiceBuilder(
                plan.forced, ids, single_tool_call=plan.single_tool_call, tool_name=plan.tool_name
            )
        return ChoiceBuilder(
            ids,
            single_tool_call=plan.single_tool_call,
            closes_after_call=plan.closes_after_call,
            max_tokens_is_zero=plan.max_tokens_is_zero,
            allowed=plan.allowed,
            tool_name=plan.tool_name,
            unwrapper=JSONUnwrapper() if plan.is_json else None,
        )

    # -- strict schemas -----------------------------------------------------------------------

    def _check_choice(self, run: Run[native.ChatResponse], index: int, *, retry: bool) -> None:
        """Check a collected choice against the strict schema; with *retry*, replace one that does not match."""
        choice = run.choices[index]
        mismatch = self._mismatch(choice)
        if mismatch is not None and retry:
            second = self._start([self._corrected(choice, mismatch, index)], collect=True)
            [choice] = second.finish()
            run.choices[index] = choice
            run.final_messages += second.final_messages
            mismatch = self._mismatch(choice)
        if mismatch is not None:
            raise self._not_matching(mismatch)

    def _corrected(self, choice: CollectedChoice, mismatch: str, index: int) -> native.ChatRequest:
        """Return the native request of a second attempt: its messages end with the first one and what is wrong."""
        request = self.plan.native_request
        correction = f"This does not match the required JSON Schema. {mismatch} Answer again, so that it does."
        messages = [native.Message("assistant", choice.text), native.Message("user", correction)]
        return structs.replace(seeded(request, index), messages=[*request.messages, *messages])

    def _require_match(self, choice: CollectedChoice) -> None:
        mismatch = self._mismatch(choice)
        if mismatch is not None:
            raise self._not_matching(mismatch)

    def _not_matching(self, mismatch: str) -> APIError:
        message = f"The model's answer does not match the schema of {self.plan.format_field}: {mismatch}"
        return invalid_output(message, "response_format_failed")

    def _mismatch(self, choice: CollectedChoice) -> str | None:
        """Return why a choice does not match the strict schema; None if it does, was cut, or cannot be checked."""
        if self.plan.checker is None or choice.finish_reason != "stop":
            return None
        try:
            return self.plan.checker.mismatch(choice.text)
        except Uncheckable as error:
            self.ignored.add(self.plan.strict_field, str(error))
            return None
