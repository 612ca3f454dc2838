"""The items of a response, built of what native messages add, and the events that tell of them. Pure: no I/O.

Items stand in the order in which the model made them. Text after a call is another message, reasoning after text
another item. A streamed response and a whole one are built by the same code; a whole one drops the events.

Source: ollama ``openai/responses.go`` ``ResponsesStreamConverter`` (at fb3076099). Differs: no text is lost beside
calls; every item ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from msgspec import UNSET, Raw

from openai_compat.endpoints.responses import events
from openai_compat.endpoints.responses.answer import (
    CustomCallItem,
    FunctionCallItem,
    MessageOut,
    OutItem,
    OutputText,
    ReasoningOut,
    SearchCallItem,
    SummaryText,
    new_compaction,
)
from openai_compat.native import types as native
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.custom_input import custom_input
from openai_compat.translate.logprobs import TokenLogprob, to_logprobs
from openai_compat.translate.response_tools import KnownTool, ToolNames
from openai_compat.translate.sealed_text import seal
from openai_compat.translate.tools import ToolCallDelta
from openai_compat.wire import json


class OpenItem(Protocol):
    """An item that is not complete; each method yields the events of what it does."""

    def begin(self) -> Iterator[events.Event]:
        """Begin the item."""

    def finish(self, status: str) -> Iterator[events.Event]:
        """Complete the item, which is then in the output."""


class Output:
    """The items of one response so far.

    :param names: the request's tools.
    :param new_id: returns a new id with the given prefix.
    :param compacts: the text is a summary, which becomes a compaction; thinking is dropped.
    """

    def __init__(self, names: ToolNames, new_id: Callable[[str], str], *, compacts: bool = False) -> None:
        #: complete items
        self.items: list[OutItem] = []
        self.new_id = new_id
        self._names = names
        self._next = 0
        self._summary: list[str] | None = [] if compacts else None
        self._open: OpenItem | None = None
        self._has_message_or_call = False

    def number(self) -> int:
        """Return the number of the next event."""
        number = self._next
        self._next += 1
        return number

    @property
    def index(self) -> int:
        """Return the index of the open item."""
        return len(self.items)

    def feed(self, delta: ChoiceDelta) -> Iterator[events.Event]:
        """Add a delta, and yield its events."""
        if self._summary is not None:
            self._summary.append(delta.content)
            return
        if delta.thinking:
            reasoning = self._open
            if not isinstance(reasoning, _Reasoning):
                yield from self._begin(reasoning := _Reasoning(self))
            yield reasoning.add(delta.thinking)
        if delta.content or (delta.logprobs and isinstance(self._open, _Message)):
            message = self._open
            if not isinstance(message, _Message):
                self._has_message_or_call = True
                yield from self._begin(message := _Message(self))
            yield message.add(delta.content, delta.logprobs)
        for call in delta.calls:
            yield from self._add_call(call)

    def end(self, status: str) -> Iterator[events.Event]:
        """Complete the open item; a response that says nothing at all, and was not cut, has an empty message.

        :param status: of the response: ``completed``, ``incomplete`` or ``failed``.
        :raises APIError: 502 for a summary without text.
        """
        if self._summary is not None:
            if status == "completed":
                yield from self._add_compaction("".join(self._summary))
            return
        yield from self._close("completed" if status == "completed" else "incomplete")
        if status == "completed" and not self._has_message_or_call:
            yield from self._begin(_Message(self))
            yield from self._close("completed")

    def _add_compaction(self, summary: str) -> Iterator[events.Event]:
        item, index = new_compaction(summary, self.new_id), self.index
        self.items.append(item)
        yield events.ItemAdded(sequence_number=self.number(), output_index=index, item=item)
        yield events.ItemDone(sequence_number=self.number(), output_index=index, item=item)

    def _begin(self, item: OpenItem) -> Iterator[events.Event]:
        yield from self._close("completed")
        self._open = item
        yield from item.begin()

    def _close(self, status: str) -> Iterator[events.Event]:
        if self._open is not None:
            yield from self._open.finish(status)
            self._open = None

    def _add_call(self, delta: ToolCallDelta) -> Iterator[events.Event]:
        """Add to a call; one that arrives whole, as a native one does, is complete at once."""
        call, arguments = self._open, delta.function.arguments
        if delta.id is not UNSET or not isinstance(call, _FunctionCall):
            self._has_message_or_call = True
            tool = self._names.of(delta.function.name or "")
            yield from self._begin(call := _CALLS[tool.kind](self, tool, delta.id or self.new_id("call_")))
        if arguments:
            yield from call.add(arguments)
        if arguments and delta.id is not UNSET:
            yield from self._close("completed")


class _Reasoning:
    """An open item of reasoning."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._id = output.new_id("rs_")
        self._pieces: list[str] = []

    def begin(self) -> Iterator[events.Event]:
        output, index = self._output, self._output.index
        item = ReasoningOut(id=self._id, status="in_progress", summary=[])
        yield events.ItemAdded(sequence_number=output.number(), output_index=index, item=item)
        part = SummaryText(text="")
        number = output.number()
        yield events.SummaryPartAdded(sequence_number=number, item_id=self._id, output_index=index, part=part)

    def add(self, text: str) -> events.Event:
        self._pieces.append(text)
        output = self._output
        return events.SummaryDelta(
            sequence_number=output.number(), item_id=self._id, output_index=output.index, delta=text
        )

    def finish(self, status: str) -> Iterator[events.Event]:
        output, index, text = self._output, self._output.index, "".join(self._pieces)
        part = SummaryText(text=text)
        sealed = seal(text, "reasoning")
        number = output.number
        yield events.SummaryDone(sequence_number=number(), item_id=self._id, output_index=index, text=text)
        yield events.SummaryPartDone(sequence_number=number(), item_id=self._id, output_index=index, part=part)
        item = ReasoningOut(id=self._id, status=status, summary=[part], encrypted_content=sealed)
        output.items.append(item)
        yield events.ItemDone(sequence_number=number(), output_index=index, item=item)


class _Message:
    """An open message."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._id = output.new_id("msg_")
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> Iterator[events.Event]:
        output, index = self._output, self._output.index
        item = MessageOut(id=self._id, status="in_progress", content=[])
        yield events.ItemAdded(sequence_number=output.number(), output_index=index, item=item)
        part = OutputText(text="")
        yield events.PartAdded(sequence_number=output.number(), item_id=self._id, output_index=index, part=part)

    def add(self, text: str, logprobs: list[native.Logprob]) -> events.Event:
        self._pieces.append(text)
        output, entries = self._output, (to_logprobs(logprobs).content or [] if logprobs else [])
        self._logprobs += entries
        return events.TextDelta(
            sequence_number=output.number(),
            item_id=self._id,
            output_index=output.index,
            delta=text,
            logprobs=entries,
        )

    def finish(self, status: str) -> Iterator[events.Event]:
        output, index, text, id = self._output, self._output.index, "".join(self._pieces), self._id
        part = OutputText(text=text, logprobs=self._logprobs)
        number = output.number
        yield events.TextDone(
            sequence_number=number(), item_id=id, output_index=index, text=text, logprobs=self._logprobs
        )
        yield events.PartDone(sequence_number=number(), item_id=id, output_index=index, part=part)
        item = MessageOut(id=id, status=status, content=[part])
        output.items.append(item)
        yield events.ItemDone(sequence_number=number(), output_index=index, item=item)


class _FunctionCall:
    """An open call of a function."""

    #: the beginning of its id
    _PREFIX = "fc_"

    def __init__(self, output: Output, tool: KnownTool, call_id: str) -> None:
        self._output = output
        self._tool = tool
        self._call_id = call_id
        self._id = output.new_id(self._PREFIX)
        self._pieces: list[str] = []

    def _item(self, status: str, text: str) -> OutItem:
        return FunctionCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._tool.name,
            namespace=self._tool.namespace or UNSET,
            arguments=text,
        )

    def begin(self) -> Iterator[events.Event]:
        output, item = self._output, self._item("in_progress", "")
        yield events.ItemAdded(sequence_number=output.number(), output_index=output.index, item=item)

    def add(self, arguments: str) -> Iterator[events.Event]:
        self._pieces.append(arguments)
        output = self._output
        yield events.ArgumentsDelta(
            sequence_number=output.number(), item_id=self._id, output_index=output.index, delta=arguments
        )

    def _ending(self, text: str) -> Iterator[events.Event]:
        output = self._output
        yield events.ArgumentsDone(
            sequence_number=output.number(),
            item_id=self._id,
            output_index=output.index,
            name=self._tool.name,
            arguments=text,
        )

    def _text(self) -> str:
        """Return what the complete item has of the arguments so far."""
        return "".join(self._pieces)

    def finish(self, status: str) -> Iterator[events.Event]:
        output, index, text = self._output, self._output.index, self._text()
        yield from self._ending(text)
        item = self._item(status, text)
        output.items.append(item)
        yield events.ItemDone(sequence_number=output.number(), output_index=index, item=item)


class _CustomCall(_FunctionCall):
    """An open call of a custom tool: its text is known once the arguments, which have it, are complete."""

    _PREFIX = "ctc_"

    def _item(self, status: str, text: str) -> OutItem:
        return CustomCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._tool.name,
            namespace=self._tool.namespace or UNSET,
            input=text,
        )

    def add(self, arguments: str) -> Iterator[events.Event]:
        self._pieces.append(arguments)
        yield from ()

    def _text(self) -> str:
        return custom_input(super()._text())

    def _ending(self, text: str) -> Iterator[events.Event]:
        output, index = self._output, self._output.index
        yield events.InputDelta(sequence_number=output.number(), item_id=self._id, output_index=index, delta=text)
        yield events.InputDone(sequence_number=output.number(), item_id=self._id, output_index=index, input=text)


class _SearchCall(_FunctionCall):
    """An open call of a search that the client runs: its arguments are an object, of which no piece is told."""

    _PREFIX = "tsc_"

    def _item(self, status: str, text: str) -> OutItem:
        arguments = text.encode("utf-8", "replace")
        return SearchCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            arguments=Raw(arguments if json.is_object(arguments) else b"{}"),
        )

    def add(self, arguments: str) -> Iterator[events.Event]:
        self._pieces.append(arguments)
        yield from ()

    def _ending(self, text: str) -> Iterator[events.Event]:
        yield from ()


_CALLS = {"function": _FunctionCall, "custom": _CustomCall, "tool_search": _SearchCall}
