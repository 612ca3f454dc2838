"""A forced ``tool_choice`` of a model without tools: of its emulated answer, only the calls are passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from openai_compat.native import types as native
from openai_compat.structured.forced_choice import not_the_call
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.translate.choice_delta import ChoiceDelta


class ChatBuilder(Protocol):
    """A builder of one choice of a chat."""

    def feed(self, response: native.ChatResponse, /) -> ChoiceDelta:
        """Return the delta of the next native message."""

    def interrupt(self) -> str:
        """Return text that is held and leaves before what follows, since thinking follows."""


class EmulatedForcedBuilder:
    """Builds a choice that must be a tool call.

    :param builder: reads the emulated answer.
    :param tool_name: returns the name of the tool that a model means by a name.
    """

    def __init__(self, builder: ChatBuilder, forced: ForcedChoice, tool_name: Callable[[str], str]) -> None:
        self._builder = builder
        self._forced = forced
        self._tool_name = tool_name
        self._has_called = False

    def interrupt(self) -> str:
        """Return nothing: no text leaves."""
        return ""

    def feed(self, response: native.ChatResponse) -> ChoiceDelta:
        """Take the next native message and return what it adds.

        :raises APIError: 502 ``tool_choice_failed`` for an answer that is not such a call.
        """
        delta = self._builder.feed(response)
        delta.content, delta.logprobs = "", []
        for call in delta.calls:
            if self._tool_name(str(call.function.name or "")) not in self._forced.names:
                raise not_the_call()
            self._has_called = True
        if delta.finish_reason is not None and delta.finish_reason != "length":
            if not self._has_called:
                raise not_the_call()
            delta.finish_reason = "stop" if self._forced.is_named else "tool_calls"
        return delta
