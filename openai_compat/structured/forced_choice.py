"""The answer to a forced ``tool_choice``: one tool call, in whatever way the model writes it.

The call arrives as JSON text, or as a native tool call where the template parses it. Both are accepted, and name and
arguments are checked; anything else is an error, never plain text. The request is made in ``tool_choice.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import APIError, invalid_output
from openai_compat.native import types as native
from openai_compat.structured.json_text import Brackets, JSONUnwrapper
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import FunctionCallDelta, ToolCallDelta, to_tool_calls
from openai_compat.wire import json

#: how a call begins: its name, and all before its arguments
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)')
_TAIL = re.compile(r"\s*\}\s*")

#: characters of text that may come before it is a call
_MAX_HELD = 1024 * 1024


class _WrittenCall(Struct):
    name: str
    parameters: Raw | UnsetType = UNSET
    arguments: Raw | UnsetType = UNSET


class ForcedChoiceBuilder:
    """Builds a choice that is one tool call.

    Of JSON text, the name is passed on as soon as it is complete, and the arguments as they arrive.

    :param new_id: makes the id of a call that was written as text.
    :param single_tool_call: pass on the first native tool call only.
    """

    def __init__(self, forced: ForcedChoice, new_id: Callable[[str], str], *, single_tool_call: bool = False) -> None:
        self._forced = forced
        self._new_id = new_id
        self._single_tool_call = single_tool_call
        self._unwrapper = JSONUnwrapper()
        self._held = ""
        self._arguments: list[str] = []
        self._brackets: Brackets | None = None
        self._calls = 0

    def feed(self, response: native.ChatResponse) -> ChoiceDelta:
        """Take the next native message and return what it adds.

        :raises APIError: 502 ``tool_choice_failed`` for an answer that is not such a call.
        """
        delta, message = ChoiceDelta(), response.message
        if message is not None:
            delta.thinking = message.thinking or ""
            if message.tool_calls:
                delta.calls = self._native(message.tool_calls)
        thinking, text = self._unwrapper.feed(message.content or "" if message is not None else "")
        if response.done:
            more, rest = self._unwrapper.end()
            thinking, text = thinking + more, text + rest
        delta.thinking += thinking
        if self._brackets is not None or not self._calls:
            delta.calls += self._written(text)
        if response.done:
            self._finish(delta, response.done_reason)
        return delta

    def _native(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        if self._brackets is not None:
            return []  # the same call, which a template understood after all
        if self._single_tool_call or self._forced.is_named:
            calls = calls[: 1 - self._calls]
        found = []
        for call in to_tool_calls(calls, self._new_id):
            self._check_name(call.function.name)
            function = FunctionCallDelta(call.function.name, call.function.arguments)
            found.append(ToolCallDelta(self._calls, function, call.id, "function"))
            self._calls += 1
        return found

    def _written(self, text: str) -> list[ToolCallDelta]:
        """Return what text adds to the call."""
        if self._brackets is not None:
            return self._argument(text)
        self._held += text
        if len(self._held) > _MAX_HELD:
            raise _no_call()
        head = _HEAD.match(self._held)
        if head is None:
            return []
        try:
            name = _decode_name(head[1].encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _no_call() from error
        rest, self._held = self._held[head.end() :], ""
        return self._begin(name) + self._argument(rest)

    def _begin(self, name: str) -> list[ToolCallDelta]:
        self._check_name(name)
        self._brackets = Brackets()
        self._calls = 1
        return [ToolCallDelta(0, FunctionCallDelta(name, ""), self._new_id("call_"), "function")]

    def _argument(self, text: str) -> list[ToolCallDelta]:
        assert self._brackets is not None
        end = self._brackets.feed(text)
        self._held += text[end:]
        if not end:
            return []
        self._arguments.append(text[:end])
        return [ToolCallDelta(0, FunctionCallDelta(arguments=text[:end]))]

    def _finish(self, delta: ChoiceDelta, reason: str | None) -> None:
        if reason == "length":
            delta.finish_reason = "length"
            return
        if not self._calls:
            delta.calls = self._otherwise_written()
        elif self._brackets is not None and not (
            _TAIL.fullmatch(self._held) and json.is_object("".join(self._arguments).encode())
        ):
            raise _no_call()
        delta.finish_reason = "stop" if self._forced.is_named else "tool_calls"

    def _otherwise_written(self) -> list[ToolCallDelta]:
        """Return a call whose keys are in another order, or more than expected."""
        try:
            call = _decode(self._held.encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _no_call() from error
        text = json.text_of(call.parameters) or json.text_of(call.arguments)
        if not json.is_object(text):
            raise _no_call()
        return [*self._begin(call.name), ToolCallDelta(0, FunctionCallDelta(arguments=text.decode()))]

    def _check_name(self, name: str) -> None:
        if name not in self._forced.names:
            raise _no_call()


_decode = json.native_decoder(_WrittenCall)
_decode_name = json.native_decoder(str)


def _no_call() -> APIError:
    return invalid_output(
        "The model did not answer with the tool call that tool_choice asks for.", "tool_choice_failed"
    )
