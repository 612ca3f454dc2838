"""The attempts of a choice: how the native request of each looks, and how its answer is read.

A model may lack tools, or lose its calls; an answer may have to be JSON. So there are four ways to generate a choice,
and what is known of a model chooses the first one. Why a second attempt follows is decided in ``judge.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from msgspec import UNSET, structs

from openai_compat.errors import APIError
from openai_compat.generation.built import BuiltChoice
from openai_compat.generation.choice import ChoiceBuilder
from openai_compat.generation.plan import ChatPlan
from openai_compat.generation.thinking import start_call
from openai_compat.log import log
from openai_compat.native import errors
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.native.stream import NativeStream
from openai_compat.settings import Settings
from openai_compat.structured.answer_format import AnswerFormat
from openai_compat.structured.content_reader import ContentReader, JSONReader, TextReader, WrittenCallsReader
from openai_compat.structured.emulated_answer import EmulatedReader
from openai_compat.structured.emulated_choice import ChatBuilder, EmulatedForcedBuilder
from openai_compat.structured.emulation import emulated_request, has_calls, written_history
from openai_compat.structured.forced_choice import ForcedChoiceBuilder
from openai_compat.structured.forced_request import forced_request
from openai_compat.structured.instructions import instructed
from openai_compat.structured.strict_calls import StrictCalls
from openai_compat.structured.written.scanner import CallScanner
from openai_compat.structured.written.whole import read_calls, read_raw
from openai_compat.translate.fields import Ignored
from openai_compat.translate.sampling import seeded
from openai_compat.translate.tools import CallIds
from openai_compat.transport.cancel import Cancel

#: *native*: the tools as they are; *formatted*: the client's format, if any; *forced*: a call of a model with tools, in
#: a format of ours; *emulated*: the tools of a model without tools, in a format of ours
Way = Literal["native", "formatted", "forced", "emulated"]


#: the level of thinking of a model that answers nothing under a format while it does not think
_LEAST = "low"
#: models that are such, where none can be found out by trying
_GPT_OSS = re.compile(r"(^|/)gpt-oss([:.-]|$)", re.I)


@dataclass(frozen=True)
class Attempt:
    """One native call of a choice."""

    way: Way
    request: native.ChatRequest
    #: text is held until it is known to be what the client's format wants
    holds_text: bool = False

    @property
    def has_own_format(self) -> bool:
        """Return whether the format is ours."""
        return self.way in ("forced", "emulated")

    @property
    def is_thinking(self) -> bool:
        """Return whether a model thinks under a format of ours."""
        return self.has_own_format and self.request.think == _LEAST


class Attempts:
    """The attempts that are possible for the choices of one plan.

    :param ignored: lists the fields that turn out to have no effect.
    """

    def __init__(self, plan: ChatPlan, backend: Backend, settings: Settings, ignored: Ignored) -> None:
        self.plan = plan
        self.backend = backend
        self.settings = settings
        self.ignored = ignored
        tools = plan.native_request.tools or ()
        self.strict = StrictCalls(tools, plan.strict_tools, ignored)

    @property
    def _request(self) -> native.ChatRequest:
        return self.plan.native_request

    @property
    def has_tools(self) -> bool:
        """Return whether the model may call tools."""
        return bool(self._request.tools)

    # -- choices of one attempt ---------------------------------------------------------------

    @property
    def is_single(self) -> bool:
        """Return whether no second attempt can follow, whatever the model answers."""
        return not self.has_tools and self.plan.checker is None

    def single(self, index: int, ids: CallIds, cancel: Cancel) -> BuiltChoice[native.ChatResponse]:
        """Start the only attempt of a choice: nothing stands between its messages and the builder.

        :param index: of the choice, for its seed.
        :raises APIError: the native errors.
        """
        attempt = self.first()
        return BuiltChoice(self.start(attempt, index, cancel), self.builder(attempt, ids).feed)

    def start(self, attempt: Attempt, index: int, cancel: Cancel) -> NativeStream[native.ChatResponse]:
        """Start the native call of an attempt, and read its first message.

        :raises APIError: the native errors.
        """
        plan, backend = self.plan, self.backend
        think_field = None if attempt.has_own_format else plan.fields.think
        request = seeded(attempt.request, index)
        start = start_call(backend.chat, request, plan.model, think_field, backend.limits, self.ignored)
        return start(cancel)

    # -- requests -----------------------------------------------------------------------------

    def first(self) -> Attempt:
        """Return the first attempt: without the native side's tools, where the model is known to have none."""
        plan, request = self.plan, self._request
        if self._lacks_tools():
            if self.has_tools:
                return self.emulated
            request = structs.replace(request, messages=written_history(request.messages))
        if plan.forced is not None:
            return self._forced
        if not self.has_tools:
            return Attempt("formatted", structs.replace(request, format=plan.answer_format))
        if plan.answer_format is UNSET or plan.max_tokens_is_zero:
            return Attempt("native", request)
        if self.settings.tools_with_format == "format":
            self.ignored.add(plan.fields.tools, "They have no effect beside a format.")
            return Attempt("formatted", structs.replace(request, format=plan.answer_format))
        messages = instructed(request.messages, self.answer_format.instruction())
        return Attempt("native", structs.replace(request, messages=messages), holds_text=True)

    @cached_property
    def emulated(self) -> Attempt:
        """Return an attempt with emulated tools."""
        plan = self.plan
        self._note_switched_off()
        request = emulated_request(
            self._request,
            plan.fields.parameters,
            plan.fields.tools,
            answer=self.answer_format.schema,
            forced=plan.forced,
            is_single=plan.single_tool_call,
        )
        return self._own(Attempt("emulated", request))

    @cached_property
    def can_emulate(self) -> bool:
        """Return whether an attempt with emulated tools is possible, after one in which they were the native side's."""
        if not (self.has_tools and self.settings.emulate_tools):
            return False
        try:
            return bool(self.emulated)
        except APIError as error:  # their schemas take too much memory in a format
            log.warning("tools cannot be emulated: %s", error.message)
            return False

    def after_loss(self) -> Attempt:
        """Return the attempt after one of which Ollama lost the calls: the last one, which must not be silent."""
        return _thinking(self.emulated) if _GPT_OSS.search(self._request.model) else self.emulated

    @cached_property
    def _forced(self) -> Attempt:
        plan, forced = self.plan, self.plan.forced
        assert forced is not None
        self._note_switched_off()
        if plan.answer_format is not UNSET:
            self.ignored.add(plan.fields.format)
        if self._request.options.get("stop"):
            self.ignored.add("stop", "A call has no text.")
        request = forced_request(self._request, forced, plan.fields.parameters, plan.fields.tools)
        return self._own(Attempt("forced", request))

    @cached_property
    def formatted(self) -> Attempt:
        """Return an attempt with the client's format and without tools."""
        return Attempt("formatted", structs.replace(self._request, tools=UNSET, format=self.plan.answer_format))

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """Return the client's format of an answer without calls."""
        return AnswerFormat(self.plan.answer_format, self.plan.checker)

    def _own(self, attempt: Attempt) -> Attempt:
        return _thinking(attempt) if self._request.model in self.backend.limits.must_think else attempt

    def after_silence(self, attempt: Attempt) -> Attempt:
        """Return the attempt after one in which a model that did not think answered nothing under a format of ours.

        A model that cannot think has another reason: its parser of calls, which tools of the native side switch on.
        """
        cannot_think = self._request.model in self.backend.limits.cannot_think
        return self.emulated if cannot_think and self.can_emulate else _thinking(attempt)

    def remember_thinking(self) -> None:
        """Remember that the model answers under a format of ours if it thinks."""
        self.backend.limits.must_think.add(self._request.model)

    @staticmethod
    def corrected(attempt: Attempt, messages: Sequence[native.Message]) -> Attempt:
        """Return the attempt with messages that say what is wrong with its answer."""
        if attempt.way == "emulated":
            messages = written_history(messages)
        request = structs.replace(attempt.request, messages=[*attempt.request.messages, *messages])
        return replace(attempt, request=request)

    def _note_switched_off(self) -> None:
        """List what has no effect under a format of ours."""
        request, fields = self._request, self.plan.fields
        if fields.think is not None and request.think is not UNSET and request.think is not False:
            self.ignored.add(fields.think)
        if request.logprobs:
            self.ignored.add(fields.logprobs)

    # -- what a model lacks -------------------------------------------------------------------

    def _lacks_tools(self) -> bool:
        """Return whether the model is known to have no tools; where only the history has calls, find out.

        A request with tools finds out by itself: Ollama refuses it. An application in process that may not have the
        whole native API is called for nothing else.
        """
        model, limits = self._request.model, self.backend.limits
        if not self.settings.emulate_tools or not (self.has_tools or has_calls(self._request.messages)):
            return False
        if model in limits.cannot_call or model in limits.may_call or self.has_tools or not self.backend.is_whole:
            return model in limits.cannot_call
        try:
            capabilities = self.backend.show(model, model=self.plan.model).capabilities
        except APIError as error:
            if self.backend.cancel.is_set:
                raise
            log.info("cannot describe a model: %s", error.message)
            capabilities = None
        lacks = capabilities is not None and "tools" not in capabilities
        (limits.cannot_call if lacks else limits.may_call).add(model)
        return lacks

    def learn(self, error: APIError) -> bool:
        """Remember a model that has no tools, as an error says; return whether another attempt can do without."""
        if not (self.has_tools and self.settings.emulate_tools and errors.refuses_tools(error)):
            return False
        self.backend.limits.cannot_call.add(self._request.model)
        return True

    # -- answers ------------------------------------------------------------------------------

    def builder(self, attempt: Attempt, ids: CallIds) -> ChatBuilder:
        """Return the builder for the answer of an attempt."""
        plan = self.plan
        read_name = self._read_name if self.has_tools and self.settings.rescue_tool_calls else None
        if plan.forced is not None and attempt.way == "forced" and not plan.max_tokens_is_zero:
            return ForcedChoiceBuilder(
                plan.forced,
                ids,
                single_tool_call=plan.single_tool_call,
                tool_name=plan.tool_name,
                read_text=self._read_calls,
                read_name=read_name,
            )
        builder = ChoiceBuilder(
            ids,
            single_tool_call=plan.single_tool_call or (plan.forced is not None and plan.forced.is_named),
            closes_after_call=plan.closes_after_call,
            max_tokens_is_zero=plan.max_tokens_is_zero,
            allowed=plan.allowed,
            tool_name=plan.tool_name,
            reader=self._reader(attempt),
            read_name=read_name,
            needs_usage=plan.needs_usage,
        )
        if plan.forced is not None and not plan.max_tokens_is_zero:
            return EmulatedForcedBuilder(builder, plan.forced, plan.tool_name)
        return builder

    def _reader(self, attempt: Attempt) -> ContentReader | None:
        plan = self.plan
        if plan.max_tokens_is_zero:
            return None
        if attempt.way == "emulated":
            is_text = plan.answer_format is UNSET
            stops = self._request.options.get("stop") or ()
            return EmulatedReader(self._text_reader() or TextReader(), is_text=is_text, stops=stops)
        if attempt.way == "formatted":
            return None if plan.answer_format is UNSET else JSONReader()
        return self._text_reader()

    def _text_reader(self) -> ContentReader | None:
        """Return the reader of text in which calls may be written; None where they are not looked for."""
        if not (self.has_tools and self.settings.rescue_tool_calls):
            return None
        return WrittenCallsReader(CallScanner(self._request.tools or (), self.plan.tool_name))

    def _read_calls(self, text: str) -> Sequence[native.ToolCall]:
        if not self.settings.rescue_tool_calls:
            return ()
        return tuple(read_calls(text, self._request.tools or (), self.plan.tool_name))

    def _read_name(self, name: str) -> Sequence[native.ToolCall] | None:
        """Return the calls that the name of a native call is; None for a name, nothing for what cannot be read."""
        if not _is_written(name):
            return None
        calls = self._read_calls(name)
        if not calls:
            log.warning("dropped a tool call whose name is text that cannot be read")
        return calls

    def has_readable(self, calls: Sequence[native.ToolCall]) -> bool:
        """Return whether one of native calls is a call: a name may be text that cannot be read."""
        names = [call.function.name for call in calls]
        return any(not _is_written(name) or self._read_calls(name) for name in names)

    def read_failure(self, error: errors.UnparsableOutput) -> Sequence[native.ToolCall]:
        """Return the calls that a native error quotes."""
        if not self.settings.rescue_tool_calls:
            return ()
        return read_raw(error.text, self._request.tools or (), self.plan.tool_name)


def _thinking(attempt: Attempt) -> Attempt:
    """Return the attempt with the least of thinking."""
    return replace(attempt, request=structs.replace(attempt.request, think=_LEAST))


def _is_written(name: str) -> bool:
    """Return whether the name of a call is no name: a written call, of which the native side made one."""
    return any(mark in name for mark in '{<\n"')
