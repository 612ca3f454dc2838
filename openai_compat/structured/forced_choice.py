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

#: the beginning of a call: its name, and everything before its arguments
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)')
_TAIL = re.compile(r"\s*\}\s*")

#: characters that are held until a call is recognised: a call whose keys are in another order is held until its end
_MAX_HELD = 1024 * 1024


class _WrittenCall(Struct):
    """A call as JSON text; models write its arguments under either key."""

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
                delta.calls = self._from_native(message.tool_calls)
        thinking, text = self._unwrapper.feed(message.content or "" if message is not None else "")
        if response.done:
            more, rest = self._unwrapper.end()
            thinking, text = thinking + more, text + rest
        delta.thinking += thinking
        if self._brackets is not None or not self._calls:
            delta.calls += self._from_text(text)
        if response.done:
            self._finish(delta, response.done_reason)
        return delta

    def _from_native(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        """Return the deltas of native tool calls."""
        if self._brackets is not None:
            return []  # the call that the text began already: the template parsed it as well
        if self._single_tool_call or self._forced.is_named:
            calls = calls[: 1 - self._calls]
        found = []
        for call in to_tool_calls(calls, self._new_id):
            self._check_name(call.function.name)
            function = FunctionCallDelta(call.function.name, call.function.arguments)
            found.append(ToolCallDelta(self._calls, function, call.id, "function"))
            self._calls += 1
        return found

    def _from_text(self, text: str) -> list[ToolCallDelta]:
        """Return what text adds to the call; nothing until its name is complete."""
        if self._brackets is not None:
            return self._add_arguments(text)
        self._held += text
        if len(self._held) > _MAX_HELD:
            raise _not_the_call()
        head = _HEAD.match(self._held)
        if head is None:
            return []
        try:
            name = _decode_name(head[1].encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _not_the_call() from error
        rest, self._held = self._held[head.end() :], ""
        return self._begin(name) + self._add_arguments(rest)

    def _begin(self, name: str) -> list[ToolCallDelta]:
        self._check_name(name)
        self._brackets = Brackets()
        self._calls = 1
        return [ToolCallDelta(0, FunctionCallDelta(name, ""), self._new_id("call_"), "function")]

    def _add_arguments(self, text: str) -> list[ToolCallDelta]:
        assert self._brackets is not None
        end = self._brackets.feed(text)
        self._held += text[end:]
        if not end:
            return []
        self._arguments.append(text[:end])
        return [ToolCallDelta(0, FunctionCallDelta(arguments=text[:end]))]

    def _finish(self, delta: ChoiceDelta, reason: str | None) -> None:
        """Set the finish reason; a call that was cut by ``length`` is passed on as far as it came."""
        if reason == "length":
            delta.finish_reason = "length"
            return
        if not self._calls:
            delta.calls = self._reordered_call()
        elif self._brackets is not None and not (
            _TAIL.fullmatch(self._held) and json.is_object("".join(self._arguments).encode())
        ):
            raise _not_the_call()
        delta.finish_reason = "stop" if self._forced.is_named else "tool_calls"

    def _reordered_call(self) -> list[ToolCallDelta]:
        """Return the held text as a call whose keys are in another order, or which has others too."""
        try:
            call = _decode(self._held.encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _not_the_call() from error
        text = json.text_of(call.parameters) or json.text_of(call.arguments)
        if not json.is_object(text):
            raise _not_the_call()
        return [*self._begin(call.name), ToolCallDelta(0, FunctionCallDelta(arguments=text.decode()))]

    def _check_name(self, name: str) -> None:
        if name not in self._forced.names:
            raise _not_the_call()


_decode = json.native_decoder(_WrittenCall)
_decode_name = json.native_decoder(str)


def _not_the_call() -> APIError:
    return invalid_output(
        "The model did not answer with the tool call that tool_choice requires.", "tool_choice_failed"
    )
