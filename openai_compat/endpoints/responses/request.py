"""The request of the Responses API: OpenAI's fields, how each is supported, and the mapping to a plan.

A new parameter is a field with its row, and a line in the function that maps it; no native call is made here, and the
store is not read: the items of the history are an argument.

Source: ollama ``openai/responses.go`` ``ResponsesRequest``, ``FromResponsesRequest`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Raw, UnsetType

from openai_compat.endpoints.contract import Call
from openai_compat.endpoints.responses.choice import ResponseToolChoice, choose_tools
from openai_compat.endpoints.responses.text_format import OutputFormat, TextConfig, from_text
from openai_compat.errors import APIError, invalid, missing, not_supported, too_long
from openai_compat.generation.plan import ChatPlan, FieldNames
from openai_compat.native import types as native
from openai_compat.structured.output_format import strict_checker
from openai_compat.translate import models, reasoning
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    RequestObject,
    accepted,
    check_ranges,
    emulated,
    emulated_integer,
    mapped,
    mapped_integer,
    note_effectless,
    refused,
)
from openai_compat.translate.item_tools import tools_of
from openai_compat.translate.items import NO_PAST, Past, from_items
from openai_compat.translate.metadata import from_metadata
from openai_compat.translate.response_tools import ToolNames, from_response_tools
from openai_compat.translate.sampling import from_format, from_keep_alive, from_sampling
from openai_compat.wire import json


class ResponseStreamOptions(RequestObject):
    """Source: OpenAI's ``ResponseStreamOptions``."""

    include_obfuscation: bool | None = None


class ConversationRef(RequestObject):
    """Source: OpenAI's ``ConversationParam``."""

    id: str | None = None


class ResponseRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateResponse``; Ollama's own fields are additions."""

    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    input: Annotated[
        Raw | UnsetType, mapped("messages", "after a last item ``compaction_trigger`` the output is a compaction")
    ] = UNSET
    instructions: Annotated[str | None, mapped("messages", "the first system message")] = None
    previous_response_id: Annotated[str | None, emulated("the history comes from the store")] = None
    conversation: Annotated[
        str | ConversationRef | None,
        emulated("the history comes from the store; input and output are added to it"),
    ] = None
    stream: Annotated[bool | None, emulated("events or one response; the native call always streams")] = None
    stream_options: Annotated[
        ResponseStreamOptions | None, accepted("``include_obfuscation`` is listed: nothing is obfuscated")
    ] = None
    background: Annotated[bool | None, emulated("goes on without its client; needs a store")] = None
    store: Annotated[
        bool | None, emulated("true if not given, and a store is configured; without one listed as ignored")
    ] = None
    metadata: Annotated[Raw | UnsetType, emulated("returned with the response, and stored with it")] = UNSET
    include: Annotated[
        list[str] | None,
        emulated("``message.output_text.logprobs`` and ``reasoning.encrypted_content``; others have no effect"),
    ] = None
    max_output_tokens: Annotated[Integer, mapped_integer("options.num_predict", low=-1)] = None
    max_tool_calls: Annotated[
        Integer, emulated_integer("returned; it counts the calls of built-in tools, of which there are none")
    ] = None
    tools: Annotated[
        list[Raw] | None,
        mapped(
            "tools",
            "functions, custom tools, namespaces of both, a search of the client; OpenAI's own tools by policy",
        ),
    ] = None
    tool_choice: Annotated[
        str | ResponseToolChoice | None,
        emulated("a required call is constrained by ``format`` and checked", "format"),
    ] = None
    parallel_tool_calls: Annotated[bool | None, emulated("``false`` drops all calls but the first")] = None
    text: Annotated[
        TextConfig | list[Any] | None,
        mapped("format", "its ``format``; with ``strict`` the answer is checked; ``verbosity`` has no effect"),
    ] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    top_logprobs: Annotated[Integer, mapped_integer("top_logprobs", low=0, high=20)] = None
    truncation: Annotated[
        str | None, mapped("truncate", "``auto`` lets Ollama cut the prompt, ``disabled`` is a 400 for one too long")
    ] = None
    service_tier: Annotated[str | None, accepted("the response has ``default``")] = None
    prompt: Annotated[Raw | UnsetType, refused("there is no store of prompts")] = UNSET
    prompt_cache_key: Annotated[str | None, accepted("returned; Ollama finds a common beginning itself")] = None
    prompt_cache_options: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_retention: Annotated[Raw | UnsetType, accepted()] = UNSET
    safety_identifier: Annotated[str | None, accepted("returned")] = None
    user: Annotated[Raw | UnsetType, accepted()] = UNSET
    client_metadata: Annotated[Raw | UnsetType, accepted()] = UNSET
    moderation: Annotated[Raw | UnsetType, accepted()] = UNSET
    context_management: Annotated[Raw | UnsetType, accepted()] = UNSET
    background_options: Annotated[Raw | UnsetType, accepted()] = UNSET
    access_programs: Annotated[Raw | UnsetType, accepted()] = UNSET
    image: Annotated[Raw | UnsetType, accepted()] = UNSET


decode = json.request_decoder(ResponseRequest)

#: values of ``include`` that have an effect, or that always hold
INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")

#: values of ``reasoning.summary``
SUMMARIES = ("auto", "concise", "detailed")

#: characters of a ``safety_identifier``
_MAX_IDENTIFIER = 64

#: values of ``include`` that are listed one by one
_MAX_LISTED = 32


@dataclass(frozen=True)
class ResponseOutput:
    """What the response needs to know of its request besides the plan."""

    tools: ToolNames
    metadata: dict[str, str]


def from_response_request(
    request: ResponseRequest,
    items: Sequence[Raw],
    call: Call,
    ignored: Ignored,
    *,
    is_stored: bool,
    past: Past = NO_PAST,
) -> tuple[ChatPlan, ResponseOutput]:
    """Map a request to a plan of native calls.

    :param items: of the history and of the input.
    :param past: of which of the items the history is.
    :param is_stored: the response is stored, so that its metadata must be within OpenAI's limits.
    :raises APIError: 400 naming the invalid field.

    Source: ``FromResponsesRequest``.
    """
    model = _check(request, ignored)
    found = tools_of(items, past.length)
    sent_tools, names = from_response_tools(request.tools or [], call.settings, ignored, found)
    target, think_field, is_zero = _native_request(request, items, names, model, call, ignored, past)
    output_format = from_text(request.text, from_format(request.format), ignored)
    strict_schema = output_format.strict_schema
    has_others = bool(request.tools) and not sent_tools
    allowed, force = choose_tools(request.tool_choice, sent_tools, names, ignored, has_others=has_others)
    if allowed:
        target.tools = allowed
    _set_logprobs(request, target)
    if force is not None:
        strict_schema = None
    plan = ChatPlan(
        native_request=target,
        model=model,
        answer_format=output_format.native,
        forced=force,
        allowed=None if len(allowed) == len(sent_tools) else frozenset(tool.function.name for tool in allowed),
        tool_name=names.of_model,
        single_tool_call=request.parallel_tool_calls is False,
        max_tokens_is_zero=is_zero,
        checker=strict_checker(strict_schema, output_format.path, ignored) if strict_schema is not None else None,
        strict_tools=names.strict(),
        fields=_field_names(request, output_format, think_field, names),
    )
    return plan, ResponseOutput(names, _metadata(request, ignored, is_stored=is_stored))


def _field_names(
    request: ResponseRequest, output_format: OutputFormat, think_field: str | None, names: ToolNames
) -> FieldNames:
    """Return the names of the fields whose effect depends on the model."""
    return FieldNames(
        format="text.format" if json.is_blank(request.format) else "format",
        strict=f"{output_format.path}.strict",
        logprobs="top_logprobs" if request.top_logprobs else "include.message.output_text.logprobs",
        think=think_field,
        parameters=names.paths(),
    )


def input_items(raw: Raw | UnsetType, limit: int) -> list[Raw]:
    """Return the items of the input, not decoded; a string is a message of the user.

    :raises APIError: 400 for another value, and for more than *limit* items.
    """
    text = json.text_of(raw)
    if text[:1] == b'"':
        return [] if text == b'""' else [Raw(b'{"type":"message","role":"user","content":' + text + b"}")]
    if not text or text == b"{}":
        return []
    if text[:1] != b"[":
        raise invalid("input must be a string or array", "input", "invalid_type")
    items = json.items_of(Raw(text), "input")
    if len(items) > limit:
        raise too_long("input", limit, len(items))
    return items


def no_input(request: ResponseRequest, call: Call, ignored: Ignored) -> APIError:
    """Return the error for a request without anything to answer."""
    if json.is_blank(request.input):
        urls = {"messages": "/chat/completions"}
        ignored.refuse_wrong_url("input", call.settings.prefix, urls)
    return missing("input")


def _check(request: ResponseRequest, ignored: Ignored) -> str:
    """Check what can be checked field by field, list what has no effect, and return the client's name for the model.

    :raises APIError: 400 naming the invalid field.
    """
    model = models.given(request.model)
    check_ranges(request)
    note_effectless(request, ignored)
    if not json.is_blank(request.prompt):
        raise not_supported("prompt", "There is no store of prompts; send 'instructions' and 'input'.")
    if request.service_tier and request.service_tier not in ("auto", "default"):
        ignored.add("service_tier")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation")
    if sound_identifier(request.safety_identifier) != request.safety_identifier:
        ignored.add("safety_identifier")
    unknown = [name for name in request.include or () if name not in INCLUDED]
    for name in unknown[:_MAX_LISTED]:
        ignored.add(f"include.{name[:64]}")
    if len(unknown) > _MAX_LISTED:
        ignored.add("include")
    if request.reasoning is not None:
        if request.reasoning.exclude:
            ignored.add("reasoning.exclude")
        for name in ("summary", "generate_summary"):
            raw = getattr(request.reasoning, name)
            if not json.is_blank(raw) and json.string(json.text_of(raw)) not in SUMMARIES:
                ignored.add(f"reasoning.{name}")
    if request.truncation not in (None, "", "auto", "disabled"):
        supported = "Supported values are: 'auto' and 'disabled'."
        raise invalid(f"Invalid value: '{request.truncation[:64]}'. {supported}", "truncation")
    return model


def sound_identifier(given: str | None) -> str | None:
    """Return a ``safety_identifier`` as the response has it; None for one that is longer than OpenAI's."""
    return given if given is None or len(given) <= _MAX_IDENTIFIER else None


def _native_request(
    request: ResponseRequest,
    items: Sequence[Raw],
    names: ToolNames,
    model: str,
    call: Call,
    ignored: Ignored,
    past: Past,
) -> tuple[native.ChatRequest, str | None, bool]:
    """Return the native request without tools and format, the field that enabled thinking, and whether 0 tokens are
    wanted.
    """
    settings, defaults = call.settings, models.defaults(model, call.settings)
    max_tokens = None if request.max_output_tokens is None else int(request.max_output_tokens)
    sampled = from_sampling(request, max_tokens, settings, ignored, defaults, "max_output_tokens")
    messages = from_items(items, names, ignored, call.files, call.fetch, request.instructions, past)
    if not messages:
        raise no_input(request, call, ignored)
    native_name = models.native_name(model, settings)
    target = native.ChatRequest(model=native_name, messages=messages, options=sampled.options)
    from_keep_alive(request, target, settings, ignored, defaults.keep_alive)
    if request.truncation and request.truncate is None:
        target.truncate = request.truncation == "auto"
    think, think_field = reasoning.think(request, ignored, defaults.think, has_summary=True)
    if think is not None:
        target.think = think
    return target, think_field, sampled.max_tokens_is_zero


def _set_logprobs(request: ResponseRequest, target: native.ChatRequest) -> None:
    """Set ``logprobs`` and ``top_logprobs``."""
    if request.top_logprobs or "message.output_text.logprobs" in (request.include or ()):
        target.logprobs = True
        if request.top_logprobs:
            target.top_logprobs = int(request.top_logprobs)


def _metadata(request: ResponseRequest, ignored: Ignored, *, is_stored: bool) -> dict[str, str]:
    """Return the metadata of the response.

    :raises APIError: 400 for metadata that is not valid, if the response is stored.
    """
    try:
        return from_metadata(request.metadata)
    except APIError:
        if is_stored:
            raise
        ignored.add("metadata")
        return {}
