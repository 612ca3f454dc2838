"""The events of a streamed response: what OpenAI's description has, and nothing else, since clients refuse others.

Source: OpenAI's ``ResponseStreamEvent``; ollama ``openai/responses.go`` ``ResponsesStreamConverter`` (at fb3076099).
"""

from __future__ import annotations

from msgspec import Struct

from openai_compat.endpoints.responses.answer import OutItem, OutputText, Response, SummaryText
from openai_compat.translate.logprobs import TokenLogprob


class Event(Struct, kw_only=True, tag_field="type"):
    """What all events have; ``type`` comes first. Numbers are contiguous from 0."""

    sequence_number: int


class ResponseEvent(Event, kw_only=True):
    """What the events of the whole response have."""

    response: Response


class Created(ResponseEvent, tag="response.created"):
    """The first event of a stream."""


class Queued(ResponseEvent, tag="response.queued"):
    """The response waits to be generated in the background."""


class InProgress(ResponseEvent, tag="response.in_progress"):
    """Generation has begun."""


class Completed(ResponseEvent, tag="response.completed"):
    """The last event of a response that is whole."""


class Incomplete(ResponseEvent, tag="response.incomplete"):
    """The last event of a response that was cut."""


class Failed(ResponseEvent, tag="response.failed"):
    """The last event of a response that failed."""


class ItemEvent(Event, kw_only=True):
    """What the events of a whole item have."""

    output_index: int
    item: OutItem


class ItemAdded(ItemEvent, tag="response.output_item.added"):
    """An item begins; it is empty."""


class ItemDone(ItemEvent, tag="response.output_item.done"):
    """An item is complete."""


class PartAdded(Event, kw_only=True, tag="response.content_part.added"):
    """The text of a message begins."""

    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputText


class PartDone(Event, kw_only=True, tag="response.content_part.done"):
    """The text of a message is complete."""

    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputText


class TextDelta(Event, kw_only=True, tag="response.output_text.delta"):
    """Text of a message."""

    item_id: str
    output_index: int
    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprob] = []


class TextDone(Event, kw_only=True, tag="response.output_text.done"):
    """All text of a message."""

    item_id: str
    output_index: int
    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob] = []


class ArgumentsDelta(Event, kw_only=True, tag="response.function_call_arguments.delta"):
    """Arguments of a function call."""

    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(Event, kw_only=True, tag="response.function_call_arguments.done"):
    """All arguments of a function call."""

    item_id: str
    output_index: int
    name: str
    arguments: str


class InputDelta(Event, kw_only=True, tag="response.custom_tool_call_input.delta"):
    """Text of a custom tool's call."""

    item_id: str
    output_index: int
    delta: str


class InputDone(Event, kw_only=True, tag="response.custom_tool_call_input.done"):
    """All text of a custom tool's call."""

    item_id: str
    output_index: int
    input: str


class SummaryPartAdded(Event, kw_only=True, tag="response.reasoning_summary_part.added"):
    """Reasoning begins."""

    item_id: str
    output_index: int
    summary_index: int = 0
    part: SummaryText


class SummaryPartDone(Event, kw_only=True, tag="response.reasoning_summary_part.done"):
    """Reasoning is complete."""

    item_id: str
    output_index: int
    summary_index: int = 0
    part: SummaryText


class SummaryDelta(Event, kw_only=True, tag="response.reasoning_summary_text.delta"):
    """Text of reasoning."""

    item_id: str
    output_index: int
    summary_index: int = 0
    delta: str


class SummaryDone(Event, kw_only=True, tag="response.reasoning_summary_text.done"):
    """All text of reasoning."""

    item_id: str
    output_index: int
    summary_index: int = 0
    text: str


class Error(Event, kw_only=True, tag="error"):
    """A failure, before ``response.failed``.

    Its fields are here twice: OpenAI's schema has them flat, and OpenAI's Python client raises only for nested ones.
    """

    code: str | None
    message: str
    param: str | None
    error: dict[str, str | None]
