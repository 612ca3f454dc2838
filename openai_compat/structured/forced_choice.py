"""The answer to a forced ``tool_choice``: one tool call, in whatever way the model writes it.

The call arrives as JSON text, or as a native tool call where the template parses it. Both are accepted, and name and
arguments are checked; anything else is an error, never plain text. The request is made in ``forced_request.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import APIError, invalid_output
from openai_compat.native import types as native
from openai_compat.structured.call_head import CallHead
from openai_compat.structured.json_text import Brackets, JSONUnwrapper, Pieces
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.structured.written.whole import ReadName, named_calls
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import CallIds, FunctionCallDelta, ToolCallDelta, to_tool_calls
from openai_compat.wire import json, surrogates

#: characters that are held until a call is recognised: a call whose keys are in another order is held until its end
_MAX_HELD = 1024 * 1024
_BLANKS = " \t\n\r"


class _WrittenCall(Struct):
    """A call as JSON text; models write its arguments under either key."""

    name: str
    parameters: Raw | UnsetType = UNSET
    arguments: Raw | UnsetType = UNSET


class ForcedChoiceBuilder:
    """Builds a choice that is one tool call.

    Of JSON text, the name is passed on as soon as it is complete, and the arguments as they arrive.

    :param ids: ids of tool calls.
    :param single_tool_call: pass on the first native tool call only.
    :param tool_name: returns the name of the tool that a model means by a name.
    :param read_text: reads the calls of a text that is nothing else, of a model that no format constrains.
    :param read_name: reads a native call whose name is itself written calls.
    """

    def __init__(
        self,
        forced: ForcedChoice,
        ids: CallIds,
        *,
        single_tool_call: bool = False,
        tool_name: Callable[[str], str] = str,
        read_text: Callable[[str], Sequence[native.ToolCall]] = lambda text: (),
        read_name: ReadName | None = None,
    ) -> None:
        self._forced = forced
        self._tool_name = tool_name
        self._read_text = read_text
        self._read_name = read_name
        self._ids = ids
        self._single_tool_call = single_tool_call
        self._unwrapper = JSONUnwrapper()
        self._head = CallHead()
        #: text that is not recognised yet
        self._held = Pieces()
        self._arguments = bytearray()
        self._mender = surrogates.Mender()
        self._brackets: Brackets | None = None
        #: what follows the arguments, without blanks: the call's last bracket, or anything wrong
        self._tail = ""
        self._calls = 0

    def interrupt(self) -> str:
        """Return nothing: no text leaves."""
        return ""

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
        calls = named_calls(calls, self._read_name)
        if self._single_tool_call or self._forced.is_named:
            calls = calls[: 1 - self._calls]
        found: list[ToolCallDelta] = []
        for call in to_tool_calls(calls, self._ids):
            self._check_name(call.function.name)
            function = FunctionCallDelta(call.function.name, call.function.arguments)
            found.append(ToolCallDelta(self._calls, function, call.id, "function"))
            self._calls += 1
        return found

    def _from_text(self, text: str) -> list[ToolCallDelta]:
        """Return what text adds to the call; nothing until its name is complete."""
        if self._brackets is not None:
            return self._add_arguments(text)
        begin = self._head.feed(text)
        if begin is None:
            self._held.add(text)
            if self._held.size > _MAX_HELD:
                raise not_the_call()
            return []
        self._held.take()
        try:
            name = _decode_name(self._head.name.encode("utf-8", "replace"))
        except json.Malformed as error:
            raise not_the_call() from error
        return self._begin(name) + self._add_arguments(text[begin:])

    def _begin(self, name: str) -> list[ToolCallDelta]:
        self._check_name(name)
        self._brackets = Brackets()
        self._calls = 1
        return [ToolCallDelta(0, FunctionCallDelta(name, ""), self._ids.of(), "function")]

    def _add_arguments(self, text: str) -> list[ToolCallDelta]:
        assert self._brackets is not None
        end = self._brackets.feed(text)
        if len(self._tail) < 2:  # two characters are wrong already
            self._tail += text[end:].strip(_BLANKS)[:2]
        if not end:
            return []
        arguments = self._mender.feed(text[:end].encode("utf-8", "replace"))
        self._arguments += arguments
        return [ToolCallDelta(0, FunctionCallDelta(arguments=arguments.decode()))] if arguments else []

    def _finish(self, delta: ChoiceDelta, reason: str | None) -> None:
        """Set the finish reason; a call that was cut by ``length`` is passed on as far as it came."""
        if reason == "length":
            delta.finish_reason = "length"
            rest = self._mender.end().decode()
            delta.calls += [ToolCallDelta(0, FunctionCallDelta(arguments=rest))] if rest else []
            return
        if not self._calls:
            delta.calls = self._reordered_call()
        elif self._brackets is not None and not (self._tail == "}" and json.is_object(bytes(self._arguments))):
            raise not_the_call()
        delta.finish_reason = "stop" if self._forced.is_named else "tool_calls"

    def _reordered_call(self) -> list[ToolCallDelta]:
        """Return the held text as a call whose keys are in another order, or which is written in another way."""
        held = self._held.take()
        try:
            call = _decode(held.encode("utf-8", "replace"))
        except json.Malformed as error:
            found = self._from_native(list(self._read_text(held)))
            if not found:
                raise not_the_call() from error
            return found
        text = surrogates.mended(json.text_of(call.parameters) or json.text_of(call.arguments))
        if not json.is_object(text):
            raise not_the_call()
        return [*self._begin(call.name), ToolCallDelta(0, FunctionCallDelta(arguments=text.decode()))]

    def _check_name(self, name: str) -> None:
        if self._tool_name(name) not in self._forced.names:
            raise not_the_call()


_decode = json.native_decoder(_WrittenCall)
_decode_name = json.native_decoder(str)


def not_the_call() -> APIError:
    """Return a 502 for an answer that is not the call that it must be."""
    return invalid_output(
        "The model did not answer with the tool call that tool_choice requires.", "tool_choice_failed"
    )
