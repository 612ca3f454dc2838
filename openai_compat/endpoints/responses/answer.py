"""The response object and its items, as OpenAI's clients read them. Values only: ``output.py`` builds the items.

Source: ollama ``openai/responses.go`` ``ResponsesResponse``, ``ToResponse`` (at fb3076099). Differs: a response that
was cut is ``incomplete``; text and calls are both kept, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.responses.choice import shown
from openai_compat.endpoints.responses.echo import shown_reasoning, shown_text, shown_tools
from openai_compat.endpoints.responses.errors import no_summary
from openai_compat.endpoints.responses.request import ResponseOutput, ResponseRequest, sound_identifier
from openai_compat.native import types as native
from openai_compat.translate.logprobs import TokenLogprob
from openai_compat.translate.sealed_text import seal
from openai_compat.translate.usage import to_usage


class OutputText(Struct, kw_only=True):
    """Source: OpenAI's ``OutputTextContent``."""

    type: str = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class MessageOut(Struct, kw_only=True):
    """Source: OpenAI's ``OutputMessage``."""

    id: str
    type: str = "message"
    status: str
    role: str = "assistant"
    content: list[OutputText]


class SummaryText(Struct, kw_only=True):
    """Source: OpenAI's ``SummaryTextContent``."""

    type: str = "summary_text"
    text: str


class ReasoningOut(Struct, kw_only=True):
    """Source: OpenAI's ``ReasoningItem``."""

    id: str
    type: str = "reasoning"
    status: str
    summary: list[SummaryText]
    encrypted_content: str | None = None


class FunctionCallItem(Struct, kw_only=True):
    """Source: OpenAI's ``FunctionToolCall``."""

    id: str
    type: str = "function_call"
    status: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    #: one JSON object, as text
    arguments: str


class CustomCallItem(Struct, kw_only=True):
    """Source: OpenAI's ``CustomToolCall``."""

    id: str
    type: str = "custom_tool_call"
    status: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str


class SearchCallItem(Struct, kw_only=True):
    """Source: OpenAI's ``ToolSearchCall``."""

    id: str
    type: str = "tool_search_call"
    status: str
    call_id: str
    execution: str = "client"
    #: an object
    arguments: Raw


class Compaction(Struct, kw_only=True):
    """Source: OpenAI's ``CompactionBody``."""

    id: str
    type: str = "compaction"
    encrypted_content: str


def new_compaction(summary: str, new_id: Callable[[str], str]) -> Compaction:
    """Return the item of a summary.

    :param new_id: returns a new id with the given prefix.
    :raises APIError: 502 for a summary without text.
    """
    summary = summary.strip()
    sealed = seal(summary, "compaction") if summary else None
    if sealed is None:
        raise no_summary()
    return Compaction(id=new_id("cmp_"), encrypted_content=sealed)


OutItem = MessageOut | ReasoningOut | FunctionCallItem | CustomCallItem | SearchCallItem | Compaction


class InputTokensDetails(Struct, kw_only=True):
    """Source: OpenAI's ``ResponseUsage.input_tokens_details``."""

    cached_tokens: int = 0
    #: always 0: Ollama does not count them
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, kw_only=True):
    """Source: OpenAI's ``ResponseUsage.output_tokens_details``."""

    #: always 0: Ollama counts them with the other tokens
    reasoning_tokens: int = 0


class ResponseUsage(Struct, kw_only=True):
    """Source: OpenAI's ``ResponseUsage``."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


def to_response_usage(final_messages: Iterable[native.StreamLine]) -> ResponseUsage:
    """Return the usage of the native calls of a response together."""
    usage = to_usage(final_messages)
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(),
        total_tokens=usage.total_tokens,
    )


class ConversationOut(Struct, kw_only=True):
    """Source: OpenAI's ``ResponseConversation``."""

    id: str


class Response(Struct, kw_only=True):
    """Source: OpenAI's ``Response``, and the Open Responses specification: the fields of both."""

    id: str
    object: str = "response"
    #: Unix seconds
    created_at: int
    #: queued, in_progress, completed, incomplete, failed or cancelled
    status: str
    background: bool = False
    #: Unix seconds
    completed_at: int | None = None
    conversation: ConversationOut | None = None
    error: dict[str, str] | None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[OutItem] | list[Raw] = []
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: Raw
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = False
    temperature: float = 1.0
    text: Raw
    tool_choice: Raw
    tools: list[Raw]
    top_logprobs: int = 0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    truncation: str = "disabled"
    #: null while the response is in progress
    usage: ResponseUsage | None = None
    metadata: dict[str, str] = {}


def new_response(request: ResponseRequest, output: ResponseOutput, id: str, created_at: int) -> Response:
    """Return the response to a request before anything was generated, with the request's values."""
    return Response(
        id=id,
        created_at=created_at,
        status="in_progress",
        background=bool(request.background),
        instructions=request.instructions or None,
        max_output_tokens=_integer(request.max_output_tokens),
        max_tool_calls=_integer(request.max_tool_calls),
        model=request.model or "",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id or None,
        prompt_cache_key=request.prompt_cache_key,
        reasoning=shown_reasoning(request),
        safety_identifier=sound_identifier(request.safety_identifier),
        temperature=1.0 if request.temperature is None else request.temperature,
        text=shown_text(request),
        tool_choice=shown(request.tool_choice),
        tools=shown_tools(request.tools),
        top_logprobs=_integer(request.top_logprobs) or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        truncation=request.truncation or "disabled",
        metadata=output.metadata,
    )


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def is_final(status: str) -> bool:
    """Return whether a response of this status does not change any more."""
    return status not in ("queued", "in_progress")
