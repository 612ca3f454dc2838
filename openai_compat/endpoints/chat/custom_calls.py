"""Calls of custom tools in a chat: their text instead of arguments, whole and in the pieces of a stream.

Source: OpenAI's ``ChatCompletionMessageCustomToolCall``. Its description has no such calls in chunks; these have the
form that OpenAI's client for Node reads, and that of a call of a function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import UNSET, Struct, UnsetType

from openai_compat.translate.custom_input import InputReader, custom_input
from openai_compat.translate.tools import ToolCallDelta, ToolCallOut


class CustomOut(Struct):
    """Source: OpenAI's ``ChatCompletionMessageCustomToolCall.custom``."""

    name: str
    input: str


class CustomCallOut(Struct):
    """Source: OpenAI's ``ChatCompletionMessageCustomToolCall``."""

    id: str
    custom: CustomOut
    type: str = "custom"


class CustomDelta(Struct):
    """What a chunk adds to a call of a custom tool; only the first chunk has the name."""

    name: str | UnsetType = UNSET
    input: str = ""


class CustomCallDelta(Struct):
    """A call of a custom tool in a chunk, or what one adds to it."""

    index: int
    custom: CustomDelta
    #: in the first chunk of a call only
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


def to_calls(calls: Sequence[ToolCallOut], custom: frozenset[str]) -> list[ToolCallOut | CustomCallOut]:
    """Return the calls of a response.

    :param custom: names of the custom tools.
    """
    return [_to_custom(call) if call.function.name in custom else call for call in calls]


def _to_custom(call: ToolCallOut) -> CustomCallOut:
    return CustomCallOut(call.id, CustomOut(call.function.name, custom_input(call.function.arguments)))


class CustomCalls:
    """Finds the calls of custom tools among the deltas of one choice, whose calls come one after the other.

    :param names: of the custom tools.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._index = 0
        #: of the call that the deltas add to; None for a function's
        self._reader: InputReader | None = None

    def feed(self, call: ToolCallDelta) -> Iterator[ToolCallDelta | CustomCallDelta]:
        """Yield what a delta becomes."""
        if call.id is not UNSET:
            yield from self.end()
            name = call.function.name
            if name in self._names:
                self._index, self._reader = call.index, InputReader()
                yield CustomCallDelta(call.index, CustomDelta(name), call.id, "custom")
        if self._reader is None:
            yield call
        else:
            yield from self._add(self._reader.feed(call.function.arguments))

    def end(self) -> Iterator[CustomCallDelta]:
        """End the present call: yield what its text still lacks."""
        if self._reader is not None:
            yield from self._add(self._reader.end())
            self._reader = None

    def _add(self, text: str) -> Iterator[CustomCallDelta]:
        if text:
            yield CustomCallDelta(self._index, CustomDelta(input=text))
