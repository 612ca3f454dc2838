"""What of a choice leaves, and whether a second attempt follows: decided delta by delta, without any call.

What left stays: a second attempt follows only while nothing of the first has left but thinking, or where the response
is not sent before it is whole. ``reasons.py`` says in which order the reasons count.
"""

from __future__ import annotations

from msgspec import Raw

from openai_compat.errors import APIError, invalid_output
from openai_compat.generation import reasons
from openai_compat.generation.attempts import Attempt, Attempts
from openai_compat.generation.reasons import Reason
from openai_compat.log import log
from openai_compat.native import types as native
from openai_compat.structured.emulated_choice import ChatBuilder
from openai_compat.structured.forced_choice import not_the_call
from openai_compat.structured.schema_checker import Uncheckable
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import ToolCallDelta, ToolCallOut, add_deltas
from openai_compat.wire import json


class Judge:
    """The judge of one choice.

    :param is_whole: nothing is sent before the choice is complete.
    """

    def __init__(self, attempts: Attempts, *, is_whole: bool) -> None:
        self._attempts = attempts
        self._plan = attempts.plan
        self._is_whole = is_whole
        self._retries = attempts.settings.retry_strict
        #: the attempt that is to follow
        self.next: Attempt | None = None
        #: what stands if it cannot begin
        self.otherwise: ChoiceDelta | APIError | None = None
        #: no further attempt is possible
        self.is_second = False
        #: text or a call left
        self.has_left = False
        self._has_thinking = False
        #: the next attempt takes the place of this one, of which nothing was sent
        self._restarts = False

    def begin(self, attempt: Attempt, builder: ChatBuilder) -> None:
        """Begin with an attempt, whose messages a builder maps to deltas."""
        self.next = self.otherwise = None
        self._attempt = attempt
        self._builder = builder
        if self._restarts:
            self._has_thinking = self.has_left = False
        #: thinking is shown once
        self._hides_thinking = self._has_thinking
        #: anything came; of a forced call, anything but thinking and calls that cannot be read
        self._has_output = self._has_answer = False
        self._held = _HeldText()
        self._content: list[str] = []
        self._calls: list[ToolCallOut] = []
        #: the call that is to be made once more, and why
        self._rejected: tuple[ToolCallOut, str] | None = None
        #: what did not leave of it and of what follows it
        self._dropped: list[ToolCallDelta] = []

    def before(self, message: native.ChatResponse) -> ChoiceDelta | None:
        """Return text that was held and leaves before a message with thinking; None if there is none."""
        if message.message is None or not message.message.thinking:
            return None
        text = self._builder.interrupt()
        return self._judged(ChoiceDelta(content=text)) if text else None

    def delta(self, message: native.ChatResponse) -> ChoiceDelta:
        """Return what a message adds to the choice; where it is the last one, decide about a second attempt."""
        answer = message.message
        if self._attempt.way == "forced" and answer is not None and not self._has_answer:
            has_text = bool((answer.content or "").strip())
            self._has_answer = has_text or self._attempts.has_readable(answer.tool_calls or ())
        if not self._has_output and answer is not None and (answer.content or answer.thinking or answer.tool_calls):
            self._has_output = True
            if self.is_second and self._attempt.is_thinking:
                self._attempts.remember_thinking()
        if message.done and self._is_silent(message):
            if self.is_second:  # there is no third
                self._attempts.remember_thinking()
                return self._judged(self._builder.feed(message))
            self.repeat(reasons.SILENT, self._attempts.after_silence(self._attempt))
            self.otherwise = ChoiceDelta(finish_reason="stop") if self._plan.forced is None else not_the_call()
            return ChoiceDelta()
        if message.done and self._has_thought_only(message):
            self.repeat(reasons.LOST, self._attempts.after_loss())
            self.otherwise = not_the_call()
            return ChoiceDelta(thinking=(answer.thinking or "") if answer is not None else "")
        return self._judged(self._builder.feed(message))

    def _is_silent(self, message: native.ChatResponse) -> bool:
        """Return whether a model that does not think answered nothing under a format of ours."""
        attempt = self._attempt
        is_silent = not self._has_output and attempt.has_own_format and attempt.request.think is False
        return is_silent and message.done_reason == "stop" and not self._plan.max_tokens_is_zero

    def _has_thought_only(self, message: native.ChatResponse) -> bool:
        """Return whether a forced call was lost: a parser of Ollama may take it for thinking."""
        is_forced = self._attempt.way == "forced" and not self._has_answer
        return is_forced and message.done_reason == "stop" and not self._plan.max_tokens_is_zero and self.can_emulate()

    def _judged(self, delta: ChoiceDelta) -> ChoiceDelta:
        """Return what may leave of a delta."""
        delta.restarts, self._restarts = self._restarts, False
        if self._hides_thinking:
            delta.thinking = ""
        if self._attempt.holds_text:
            self._held.add(delta)
        self._check_calls(delta)
        if self._rejected is not None:
            self._dropped += delta.calls
            delta.content, delta.calls, delta.logprobs = "", [], []
        if self._plan.checker is not None and delta.content:
            self._content.append(delta.content)
        if delta.finish_reason is not None:
            self._finish(delta)
        self._has_thinking = self._has_thinking or bool(delta.thinking)
        self.has_left = self.has_left or bool(delta.content.strip() or delta.calls)
        return delta

    def _finish(self, delta: ChoiceDelta) -> None:
        """Complete the choice, or begin a second attempt, for which the delta is then not the last one."""
        if self._plan.max_tokens_is_zero:
            return
        second = self._second(delta)
        if second is not None:
            delta.finish_reason = None
            self.repeat(*second)

    def repeat(self, reason: Reason, attempt: Attempt) -> None:
        """Let a second attempt follow."""
        log.info("a choice is generated once more: %s", reason.when)
        self.next = attempt

    def _second(self, delta: ChoiceDelta) -> tuple[Reason, Attempt] | None:
        """Return why and what attempt is to follow; None where this one is the choice."""
        if self._rejected is not None:
            self.otherwise = ChoiceDelta(calls=self._dropped, finish_reason=delta.finish_reason)
            return reasons.STRICT_CALL, self._corrected_call(*self._rejected)
        if self._has_lost(delta):
            self.otherwise = ChoiceDelta(content=delta.content, finish_reason=delta.finish_reason)
            delta.content = ""
            return reasons.LOST, self._attempts.after_loss()
        if self._held.is_used and not self._is_not_the_format(delta):
            return None
        if self._held.is_used and not self.is_second:
            return reasons.NOT_THE_FORMAT, self._attempts.formatted
        mismatch = self._mismatch(delta)
        if mismatch is None:
            return None
        if not (self._retries and self._is_whole and not self.is_second):
            message = f"The model's answer does not match the schema of {self._plan.fields.format}: {mismatch}"
            raise invalid_output(message, "response_format_failed")
        return reasons.STRICT_ANSWER, self._corrected_answer(mismatch)

    # -- calls that Ollama lost ---------------------------------------------------------------

    def can_emulate(self) -> bool:
        """Return whether an attempt with emulated tools may follow one with native tools."""
        has_native_tools = self._attempt.way in ("native", "forced")
        return has_native_tools and not (self.is_second or self.has_left) and self._attempts.can_emulate

    def _has_lost(self, delta: ChoiceDelta) -> bool:
        """Return whether an attempt with tools ended without text and without a call."""
        says_something = delta.content.strip() or delta.calls or self._held.has_text
        return not says_something and delta.finish_reason == "stop" and self.can_emulate()

    # -- a format beside tools ----------------------------------------------------------------

    def _is_not_the_format(self, delta: ChoiceDelta) -> bool:
        """Return whether the text is not what the format wants, and no call came; let text leave that is."""
        text, logprobs = self._held.take()
        found = self._attempts.answer_format.found_in(text) if text else None
        if found is not None:
            delta.content, delta.logprobs = found, logprobs
            return False
        if self.has_left or delta.calls:
            return False  # text beside a call does not leave: clients would take it for the answer, in the format
        if self.is_second:  # there is no third
            delta.content, delta.logprobs = text, logprobs
            self._content.append(text)
        return not (delta.finish_reason == "length" and not text.strip())

    # -- strict functions and schemas ---------------------------------------------------------

    def _check_calls(self, delta: ChoiceDelta) -> None:
        """Check the calls that are complete against the schemas of strict functions."""
        strict = self._attempts.strict
        if not strict or self._rejected is not None:
            return
        checked = len(self._calls)
        add_deltas(self._calls, delta.calls)
        if self._attempt.way == "forced":  # its arguments arrive in pieces
            if delta.finish_reason in (None, "length"):
                return
            checked = 0
        for call in self._calls[checked:]:
            mismatch = self._mismatch_of(call, delta)
            if mismatch is None:
                continue
            if self._can_correct_call():
                self._rejected = call, mismatch
                return
            strict.note(self._plan.tool_name(call.function.name), mismatch)

    def _mismatch_of(self, call: ToolCallOut, delta: ChoiceDelta) -> str | None:
        name, arguments = self._plan.tool_name(call.function.name), call.function.arguments
        if delta.finish_reason == "length" and not json.is_native_object(arguments.encode("utf-8", "replace")):
            return None  # it was cut
        return self._attempts.strict.mismatch(name, arguments)

    def _can_correct_call(self) -> bool:
        return self._retries and not self.is_second and (self._is_whole or not self.has_left)

    def stand(self) -> ChoiceDelta | None:
        """Return what stands without a second attempt; None if nothing does.

        :raises APIError: the error of the first attempt.
        """
        if self._rejected is not None:
            call, mismatch = self._rejected
            self._attempts.strict.note(self._plan.tool_name(call.function.name), mismatch)
        if isinstance(self.otherwise, APIError):
            raise self.otherwise
        return self.otherwise

    def _corrected_call(self, call: ToolCallOut, mismatch: str) -> Attempt:
        self._restarts = self._is_whole
        function = native.ToolCallFunction(call.function.name, Raw(call.function.arguments.encode()))
        made = native.Message("assistant", tool_calls=[native.ToolCall(function, call.id)])
        text = f"The call was not made: its arguments do not match the JSON Schema of the function. {mismatch}"
        result = native.Message("tool", text, tool_name=call.function.name, tool_call_id=call.id)
        return self._attempts.corrected(self._attempt, [made, result])

    def _mismatch(self, delta: ChoiceDelta) -> str | None:
        """Return why the answer does not match its strict schema; None if it does, was cut, or cannot be checked."""
        if self._plan.checker is None or delta.finish_reason != "stop":
            return None
        try:
            return self._plan.checker.mismatch("".join(self._content))
        except Uncheckable as error:
            self._attempts.ignored.add(self._plan.fields.strict, str(error))
            return None

    def _corrected_answer(self, mismatch: str) -> Attempt:
        text = "".join(self._content)
        self._restarts = self._is_whole
        correction = f"This does not match the required JSON Schema. {mismatch} Answer again, so that it does."
        messages = [native.Message("assistant", text), native.Message("user", correction)]
        return self._attempts.corrected(self._attempt, messages)


class _HeldText:
    """Text that is held until its end, with its log-probabilities."""

    def __init__(self) -> None:
        self.is_used = False
        self._pieces: list[str] = []
        self._logprobs: list[native.Logprob] = []

    def add(self, delta: ChoiceDelta) -> None:
        """Move the text of a delta here."""
        self.is_used = True
        if delta.content:
            self._pieces.append(delta.content)
        self._logprobs += delta.logprobs
        delta.content, delta.logprobs = "", []

    @property
    def has_text(self) -> bool:
        """Return whether there is text but for blanks."""
        return any(map(str.strip, self._pieces))

    def take(self) -> tuple[str, list[native.Logprob]]:
        """Return the text and its log-probabilities."""
        return "".join(self._pieces), self._logprobs
