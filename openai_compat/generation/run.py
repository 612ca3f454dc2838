"""Runs of native calls: choices that grow delta by delta, in the order in which native messages arrive.

:class:`Run` is the loop over the choices, for every endpoint; :class:`ChatRun` carries out the plan of a chat.
How a message becomes a delta belongs to a builder, and the response format to an endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from openai_compat.errors import answer_too_long, bad_gateway
from openai_compat.generation.attempts import Attempts
from openai_compat.generation.built import Step
from openai_compat.generation.chat_choice import ChatChoice
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.parallel import Source, StartSource, Streams, streams
from openai_compat.generation.plan import ChatPlan
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.fields import Ignored
from openai_compat.translate.tools import CallIds
from openai_compat.transport.cancel import Cancel

L = TypeVar("L", bound="native.StreamLine")


class Run(Generic[L]):
    """Native calls in progress, and their choices. Iterate it once.

    It yields ``(index of the choice, native message, delta)`` in the order of arrival, and ends when every choice has a
    finish reason. The owner of a run closes its ``streams``.

    :param n: number of choices.
    :param now: Unix seconds; used if the first message has no ``created_at``.
    :param collect: sum up the deltas in ``choices``.
    :param max_answer: bytes of all native responses together, above which collecting fails.
    """

    def __init__(self, streams: Streams[Step[L]], n: int, *, now: int, collect: bool, max_answer: int) -> None:
        self.streams = streams
        self.n = n
        #: Unix seconds at which generation began; *now* until the first message is read
        self.created = now
        #: the collected choices; empty if the run does not collect
        self.choices = [CollectedChoice() for _ in range(n)] if collect else []
        #: every choice has a finish reason
        self.is_complete = False
        #: the final message of each native call, for the usage; a call that was closed early has none
        self.final_messages: list[L] = []
        self._max_answer = max_answer

    def __iter__(self) -> Iterator[tuple[int, L, ChoiceDelta]]:
        unfinished, is_first, choices = self.n, True, self.choices
        for index, (message, delta) in self.streams:
            if is_first:
                self.created = native.unix_time(message.created_at, self.created)
                is_first = False
            if choices:
                choices[index].add(delta)
                if self.streams.size > self._max_answer:
                    raise answer_too_long()
            if message.done:
                self.final_messages.append(message)
            if delta.finish_reason is not None:
                unfinished -= 1
                self.is_complete = not unfinished
                if not message.done:
                    self.streams.stop(index)
            yield index, message, delta
            if not unfinished:
                return
        # A stream that breaks off raises by itself: only cancelled streams end before their choices are finished.
        raise bad_gateway("The request was cancelled.")

    def finish(self) -> list[CollectedChoice]:
        """Read all messages, close the streams, and return the collected choices.

        :raises APIError: the native errors; 502 if the responses are too long.
        """
        with closing(self.streams):
            for _ in self:
                pass
        return self.choices


class Context(Protocol):
    """What a run needs of the client's request: an endpoint's ``Call`` has it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def now(self) -> int:
        """Return the time, in Unix seconds."""

    @property
    def new_id(self) -> Callable[[str], str]:
        """Return a function that returns a new id with the given prefix."""


@dataclass(frozen=True)
class ChatRun:
    """A chat that is carried out as planned.

    :param ignored: lists the fields that turn out to have no effect.
    """

    plan: ChatPlan
    backend: Backend
    ignored: Ignored
    call: Context

    def start(self, *, collect: bool = False, cancel: Cancel | None = None) -> Run[native.ChatResponse]:
        """Start the native calls of a streamed response.

        With a strict schema each choice is checked when it finishes; the run then raises a 502,
        ``response_format_failed``, for one that does not match.

        :param collect: collect the choices, to store them.
        :param cancel: ends the calls, of work that its client's request does not end.
        :raises APIError: the native errors.
        """
        return self._start(collect=collect, is_whole=False, cancel=cancel or self.backend.cancel)

    def finish(self) -> Run[native.ChatResponse]:
        """Run the native calls to their end; return the run, with its choices collected and checked.

        :raises APIError: the native errors; 502 ``response_format_failed`` for a choice that does not match.
        """
        run = self._start(collect=True, is_whole=True, cancel=self.backend.cancel)
        run.finish()
        return run

    def _start(self, *, collect: bool, is_whole: bool, cancel: Cancel) -> Run[native.ChatResponse]:
        plan, settings = self.plan, self.call.settings
        attempts = Attempts(plan, self.backend, settings, self.ignored)
        used = (call.id for message in plan.native_request.messages for call in message.tool_calls or () if call.id)
        ids = CallIds(self.call.new_id, used)

        def start(index: int, cancel: Cancel) -> Source[Step[native.ChatResponse]]:
            if attempts.is_single:
                return attempts.single(index, ids, cancel)
            choice = ChatChoice(attempts, index, ids, cancel, is_whole=is_whole, max_answer=settings.max_answer)
            return choice.open()

        starts: list[StartSource[Step[native.ChatResponse]]] = [partial(start, index) for index in range(plan.n)]
        source = streams(starts, threads=plan.n if self.backend.is_remote else 1, cancel=cancel)
        return Run(source, plan.n, now=self.call.now, collect=collect, max_answer=settings.max_answer)
