"""One choice of a chat as it grows: from one native call, or from two where the first gave no answer.

At most two calls generate a choice, whatever comes together. ``judge.py`` decides what leaves, and whether a second
attempt follows; the calls are made here.
"""

from __future__ import annotations

from openai_compat.errors import APIError, answer_too_long
from openai_compat.generation import reasons
from openai_compat.generation.attempts import Attempt, Attempts
from openai_compat.generation.built import Step
from openai_compat.generation.judge import Judge
from openai_compat.log import log
from openai_compat.native import types as native
from openai_compat.native.errors import UnparsableOutput
from openai_compat.native.stream import NativeStream
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import CallIds
from openai_compat.transport.cancel import Cancel

ChatStep = Step[native.ChatResponse]


class ChatChoice:
    """The native messages of one choice, each with what it adds. Open it first; iterate it once, close it once.

    :param index: of the choice, for its seed.
    :param is_whole: nothing is sent before the choice is complete.
    :param max_answer: bytes of the native responses, above which text that is held or checked is too long.
    """

    def __init__(
        self, attempts: Attempts, index: int, ids: CallIds, cancel: Cancel, *, is_whole: bool, max_answer: int
    ) -> None:
        self._attempts = attempts
        self._plan = attempts.plan
        self._index = index
        self._ids = ids
        self._cancel = cancel
        self._max_answer = max_answer
        self._judge = Judge(attempts, is_whole=is_whole)
        self._stream: NativeStream[native.ChatResponse] | None = None
        #: bytes of the stream that was closed
        self._closed_size = 0
        #: what is read already
        self._waiting: list[ChatStep] = []
        self._is_finished = False
        #: the last message was read
        self.done = False
        self._begin_attempt(attempts.first())

    def _begin_attempt(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._judge.begin(attempt, self._attempts.builder(attempt, self._ids))

    # -- the source of a run ------------------------------------------------------------------

    def open(self) -> ChatChoice:
        """Start the first native call and read its first message, so that a failure can still set the status.

        Where that message ends the attempt, and nothing of it is to leave, the second one starts, too.

        :raises APIError: the native errors.
        """
        try:
            first = self._step()
            if self._judge.next is not None and first[1] == ChoiceDelta():
                self._waiting.append(self._step())
            self._waiting.append(first)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def pending(self) -> bool:
        """Return whether the next message is available without waiting."""
        if self._waiting:
            return True
        return self._judge.next is None and self._stream is not None and self._stream.pending

    @property
    def size(self) -> int:
        """Return the number of bytes read so far."""
        return self._closed_size + (self._stream.size if self._stream is not None else 0)

    def __iter__(self) -> ChatChoice:
        return self

    def __next__(self) -> ChatStep:
        if self._waiting:
            return self._waiting.pop()
        if self._is_finished:
            raise StopIteration
        return self._step()

    def close(self) -> None:
        """Close the native stream that is open."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._closed_size += stream.size
            stream.close()

    # -- native calls -------------------------------------------------------------------------

    def _step(self) -> ChatStep:
        """Return the next message and its delta."""
        try:
            message = self._read()
        except UnparsableOutput as error:
            return self._after_failure(error)
        if isinstance(message, ChoiceDelta):
            return self._ended(native.ChatResponse(done=True), message)
        before = self._judge.before(message)
        step = self._ended(message, self._judge.delta(message))
        if self._is_held_too_long():
            raise answer_too_long()
        if before is None:
            return step
        self._waiting.append(step)
        return native.ChatResponse(), before

    def _ended(self, message: native.ChatResponse, delta: ChoiceDelta) -> ChatStep:
        self._is_finished = delta.finish_reason is not None
        self.done = self._is_finished and bool(message.done)
        return message, delta

    def _read(self) -> native.ChatResponse | ChoiceDelta:
        """Return the next message, of the next attempt where one follows; a delta where that cannot begin."""
        if self._judge.next is not None:
            try:
                self._begin_second(self._judge.next)
            except APIError as error:
                return self._without_second(error)
        elif self._stream is None:
            self._begin_first()
        assert self._stream is not None
        message = next(self._stream, None)
        if message is None:  # it ends with ``done``, after which nothing is read
            raise AssertionError("a native stream ended without a final message")
        return message

    def _begin_first(self) -> None:
        try:
            self._stream = self._start(self._attempt)
        except APIError as error:
            if not self._attempts.learn(error):
                raise
            self._begin_attempt(self._attempts.first())  # refused, so nothing was generated
            self._stream = self._start(self._attempt)

    def _begin_second(self, attempt: Attempt) -> None:
        self._judge.is_second = True
        self.close()
        stream = self._start(attempt)
        self._begin_attempt(attempt)
        self._stream = stream

    def _without_second(self, error: APIError) -> ChoiceDelta:
        """Return what stands without the second attempt.

        :raises APIError: the error of the first attempt, or of the second where the first left none.
        """
        error.retry = False  # tokens were generated: a client that retries pays for them twice
        if self._cancel.is_set:
            raise error
        log.warning("a choice cannot be generated once more: %s", error.message)
        delta = self._judge.stand()
        if delta is None:
            raise error
        return delta

    def _after_failure(self, error: UnparsableOutput) -> ChatStep:
        """Return the step that follows when Ollama could not parse what the model wrote.

        :raises APIError: the error, where something left already, or nothing else is possible.
        """
        judge = self._judge
        if judge.has_left or self._plan.max_tokens_is_zero or self._attempt.way not in ("native", "forced"):
            raise error
        calls = self._attempts.read_failure(error)
        if calls:
            answer = native.AnswerMessage(tool_calls=list(calls))
            message = native.ChatResponse(message=answer, done=True, done_reason="stop")
            return self._ended(message, judge.delta(message))
        if not judge.can_emulate():
            raise error
        judge.repeat(reasons.UNPARSABLE, self._attempts.after_loss())
        judge.otherwise = error
        return native.ChatResponse(), ChoiceDelta()

    def _start(self, attempt: Attempt) -> NativeStream[native.ChatResponse]:
        return self._attempts.start(attempt, self._index, self._cancel)

    def _is_held_too_long(self) -> bool:
        holds = self._attempt.holds_text or self._attempt.has_own_format or self._plan.checker is not None
        return holds and self.size > self._max_answer
