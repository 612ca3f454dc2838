"""The request of a chat: OpenAI's fields, how each is supported, and the mapping to a plan.

A new parameter is a field with its row, and a line in the function that maps it; no native call is made here.

Source: ollama ``openai/openai.go`` ``ChatCompletionRequest``, ``FromChatRequest`` (at fb3076099).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from msgspec import UNSET, Raw, UnsetType

from openai_compat.endpoints.contract import Call
from openai_compat.errors import invalid, missing, not_supported
from openai_compat.generation.plan import ChatPlan, FieldNames
from openai_compat.native import types as native
from openai_compat.settings import ReasoningField
from openai_compat.structured.output_format import JSONSchema, format_kind, from_json_schema, strict_checker
from openai_compat.structured.tool_choice import (
    WORDS,
    ForcedChoice,
    NamedFunction,
    ToolChoice,
    choose,
    unused,
)
from openai_compat.translate import models, reasoning
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    RequestObject,
    accepted,
    check_integer,
    check_ranges,
    emulated,
    emulated_integer,
    mapped,
    mapped_integer,
    note_effectless,
    policy,
)
from openai_compat.translate.messages import from_messages, read_messages
from openai_compat.translate.metadata import from_metadata
from openai_compat.translate.native_schema import format_schema, readable
from openai_compat.translate.sampling import from_format, from_keep_alive, from_sampling
from openai_compat.translate.tool_definitions import (
    FunctionDefinition,
    ToolDefinition,
    custom_names,
    from_functions,
    from_tools,
    schema_paths,
    strict_names,
)
from openai_compat.translate.usage import StreamOptions, includes_usage
from openai_compat.wire import json


class ResponseFormat(RequestObject):
    """Source: OpenAI's ``CreateChatCompletionRequest.response_format``, all its types in one struct."""

    type: str | None = None
    #: an empty list is PHP's empty object
    json_schema: JSONSchema | list[Any] | None = None
    #: of ``json_object``, as in llama.cpp's and others' servers
    schema: Raw | UnsetType = UNSET


class ChatCompletionRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateChatCompletionRequest``; Ollama's own fields are additions."""

    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    messages: Annotated[Raw | UnsetType, mapped("messages")] = UNSET
    stream: Annotated[bool | None, emulated("chunks or one response; the native call always streams")] = None
    stream_options: Annotated[StreamOptions | None, emulated("``include_usage``: a last chunk with the usage")] = None
    max_completion_tokens: Annotated[Integer, mapped_integer("options.num_predict", low=-1)] = None
    max_tokens: Annotated[
        Integer, mapped_integer("options.num_predict", "unless ``max_completion_tokens`` is given", low=-1)
    ] = None
    tools: Annotated[
        list[ToolDefinition] | None,
        mapped("tools", "functions and custom tools, also in the form of ``/v1/responses``"),
    ] = None
    tool_choice: Annotated[
        str | ToolChoice | None,
        emulated("a required call is constrained by ``format`` and checked", "format"),
    ] = None
    parallel_tool_calls: Annotated[bool | None, emulated("``false`` drops all calls but the first")] = None
    functions: Annotated[
        list[FunctionDefinition] | None,
        mapped("tools", "the predecessor of ``tools``; a call is returned as ``function_call``"),
    ] = None
    function_call: Annotated[str | NamedFunction | None, emulated("the predecessor of ``tool_choice``", "format")] = (
        None
    )
    n: Annotated[Integer, emulated_integer("one native call for each choice, with seeds ``seed`` + i", low=1)] = None
    response_format: Annotated[ResponseFormat | None, mapped("format", "with ``strict`` the answer is checked")] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    logprobs: Annotated[bool | None, mapped("logprobs")] = None
    top_logprobs: Annotated[Integer, mapped_integer("top_logprobs", low=0, high=20)] = None
    modalities: Annotated[list[str] | None, accepted('``["text"]``; others by policy')] = None
    service_tier: Annotated[str | None, accepted("the response has ``default``")] = None
    store: Annotated[bool | None, emulated("stored if a store is configured, otherwise listed as ignored")] = None
    metadata: Annotated[
        Raw | UnsetType, emulated("stored and returned with ``store``, otherwise listed as ignored")
    ] = UNSET
    user: Annotated[Raw | UnsetType, accepted()] = UNSET
    safety_identifier: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_key: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_options: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_retention: Annotated[Raw | UnsetType, accepted()] = UNSET
    verbosity: Annotated[Raw | UnsetType, accepted()] = UNSET
    moderation: Annotated[Raw | UnsetType, accepted()] = UNSET
    prediction: Annotated[Raw | UnsetType, policy("Ollama does not support predicted outputs.")] = UNSET
    audio: Annotated[Raw | UnsetType, policy("Ollama does not generate audio.")] = UNSET
    web_search_options: Annotated[
        Raw | UnsetType, policy("Ollama's chat does not search the web.", empty_has_meaning=True)
    ] = UNSET


decode = json.request_decoder(ChatCompletionRequest)


@dataclass(frozen=True)
class ChatOutput:
    """The format of the response, and whether it is stored."""

    stream: bool
    include_usage: bool
    #: the request has ``functions``: send a tool call as ``function_call``
    uses_functions: bool
    #: names of the custom tools, whose calls have a type of their own
    custom: frozenset[str]
    #: the response field of reasoning
    reasoning_field: ReasoningField
    #: stored with the completion; None: do not store it
    metadata: dict[str, str] | None


def from_chat_request(request: ChatCompletionRequest, call: Call, ignored: Ignored) -> tuple[ChatPlan, ChatOutput]:
    """Map a request to a plan of native calls and the format of the response.

    :raises APIError: 400 naming the invalid field.

    Source: ``FromChatRequest``.
    """
    model = _check(request, call, ignored)
    _note_ignored(request, ignored)
    target, think_field, is_zero = _native_request(request, model, call, ignored)
    answer_format, strict_schema = _format(request, ignored)
    uses_functions = bool(request.functions) and not request.tools
    force = _set_tools(request, target, call, ignored, uses_functions=uses_functions)
    if force is not None:
        strict_schema = None
    _set_logprobs(request, target)
    output = ChatOutput(
        stream=bool(request.stream),
        include_usage=includes_usage(request.stream_options, ignored),
        uses_functions=uses_functions,
        custom=custom_names(request.tools or ()),
        reasoning_field=_reasoning_field(request, call),
        metadata=_stored_metadata(request, call, ignored),
    )
    single_tool_call = uses_functions or request.parallel_tool_calls is False
    plan = ChatPlan(
        native_request=target,
        model=model,
        answer_format=answer_format,
        n=int(request.n or 1),
        forced=force,
        allowed=_allowed(request, target, uses_functions=uses_functions),
        single_tool_call=single_tool_call,
        needs_usage=not output.stream or output.include_usage or output.metadata is not None,
        max_tokens_is_zero=is_zero,
        checker=strict_checker(strict_schema, _JSON_SCHEMA, ignored) if strict_schema is not None else None,
        strict_tools=_strict_functions(request) if uses_functions else strict_names(request.tools or ()),
        fields=FieldNames(
            format="format" if request.response_format is None else "response_format",
            tools="functions" if uses_functions else "tools",
            think=think_field,
            parameters=_schema_paths(request, uses_functions=uses_functions),
        ),
    )
    return plan, output


def _strict_functions(request: ChatCompletionRequest) -> dict[str, str]:
    """Return the field that wants arguments to be checked, by the names of the functions of the old kind."""
    return {item.name or "": "functions[].strict" for item in request.functions or () if item.strict}


def _native_request(
    request: ChatCompletionRequest, model: str, call: Call, ignored: Ignored
) -> tuple[native.ChatRequest, str | None, bool]:
    """Return the native request without tools and format, the field that enabled thinking, and whether 0 tokens are
    wanted.
    """
    settings = call.settings
    defaults = models.defaults(model, settings)
    messages = read_messages(request.messages, ignored, settings.max_messages)
    max_tokens, field = _max_tokens(request, ignored)
    sampled = from_sampling(request, max_tokens, settings, ignored, defaults, field)
    target = native.ChatRequest(
        model=models.native_name(model, settings),
        messages=from_messages(messages, ignored, call.fetch, files=call.files),
        options=sampled.options,
    )
    from_keep_alive(request, target, settings, ignored, defaults.keep_alive)
    think, think_field = reasoning.think(request, ignored, defaults.think)
    if think is not None:
        target.think = think
    return target, think_field, sampled.max_tokens_is_zero


def _reasoning_field(request: ChatCompletionRequest, call: Call) -> ReasoningField:
    excluded = request.reasoning is not None and request.reasoning.exclude
    return "none" if excluded else call.settings.reasoning_field


def _schema_paths(request: ChatCompletionRequest, *, uses_functions: bool) -> dict[str, str]:
    """Return the paths of the functions' parameters by the functions' names."""
    if uses_functions:
        return {item.name or "": f"functions[{i}].parameters" for i, item in enumerate(request.functions or ())}
    return schema_paths(request.tools or ())


def _check(request: ChatCompletionRequest, call: Call, ignored: Ignored) -> str:
    """Check what can be checked field by field, and return the client's name for the model.

    :raises APIError: 400 naming the invalid field.
    """
    model = models.given(request.model)
    if json.is_blank(request.messages):
        ignored.refuse_wrong_url("messages", call.settings.prefix, {"input": "/responses", "prompt": "/completions"})
    check_ranges(request)
    if request.n is not None:
        check_integer("n", request.n, high=call.settings.max_n)
    return model


def _max_tokens(request: ChatCompletionRequest, ignored: Ignored) -> tuple[int | None, str]:
    """Return the number of tokens, and the field that sets it."""
    if request.max_completion_tokens is None:
        return None if request.max_tokens is None else int(request.max_tokens), "max_tokens"
    if request.max_tokens not in (None, request.max_completion_tokens):
        ignored.add("max_tokens")
    return int(request.max_completion_tokens), "max_completion_tokens"


def _note_ignored(request: ChatCompletionRequest, ignored: Ignored) -> None:
    """List the fields and values that are accepted without effect."""
    note_effectless(request, ignored)
    if request.service_tier and request.service_tier not in ("auto", "default"):
        ignored.add("service_tier")
    if set(request.modalities or ()) - {"text"}:
        ignored.unsupported("modalities", "Ollama generates text only.")
    response_format = request.response_format
    json_schema = None if response_format is None else response_format.json_schema
    if isinstance(json_schema, JSONSchema) and json_schema.description:
        ignored.add("response_format.json_schema.description")


def _stored_metadata(request: ChatCompletionRequest, call: Call, ignored: Ignored) -> dict[str, str] | None:
    """Return the metadata to store; None if the completion is not stored.

    :raises APIError: 400 for metadata that is not valid.
    """
    if request.store and call.store is not None:
        return from_metadata(request.metadata)
    if request.store:
        ignored.add("store")
    if not json.is_blank(request.metadata):
        ignored.add("metadata")
    return None


# -- tools ------------------------------------------------------------------------------------


def _set_tools(
    request: ChatCompletionRequest, target: native.ChatRequest, call: Call, ignored: Ignored, *, uses_functions: bool
) -> ForcedChoice | None:
    """Set the tools that may be called; return the call that the model must make, if there is one.

    :raises APIError: 400 for tools or a choice that are not valid, and for fields that exclude each other.
    """
    choice, param = _given_choice(request.tool_choice), "tool_choice"
    if isinstance(request.tool_choice, ToolChoice):
        for name in unused(request.tool_choice):
            ignored.add(f"tool_choice.{name}")
    function_call = _given_choice(request.function_call)
    if uses_functions:
        if choice not in (None, "none", "auto"):
            raise invalid(
                "Invalid 'tool_choice': it cannot be given without 'tools'; use 'function_call' with 'functions'.",
                "tool_choice",
            )
        tools = from_functions(request.functions or [], call.settings)
        choice, param = "none" if choice == "none" else _function_choice(function_call), "function_call"
    else:
        if request.functions and "none" not in (choice, function_call):
            raise not_supported("functions", "It cannot be given together with 'tools'.")
        if function_call not in (None, "none", "auto"):
            raise invalid("Invalid 'function_call': it cannot be given without 'functions'.", "function_call")
        for name, value in (("functions", request.functions), ("function_call", function_call and request.tools)):
            if value:
                ignored.add(name)
        tools = from_tools(request.tools or [], call.settings, ignored)
    tools, force = choose(choice, tools, param)
    if tools:
        target.tools = tools
    return force


C = TypeVar("C", bound="str | ToolChoice | NamedFunction | None")


def _given_choice(choice: C) -> C | str | None:
    """Return a choice, with a word as text; None for an empty one, which is as if it were not given."""
    if isinstance(choice, ToolChoice) and choice.type in WORDS:
        return choice.type
    return None if choice in _EMPTY_CHOICES else choice


_EMPTY_CHOICES = (
    "",
    ToolChoice(),
    ToolChoice(""),
    ToolChoice("", NamedFunction()),
    ToolChoice("", NamedFunction("")),
    NamedFunction(),
    NamedFunction(""),
)


def _allowed(
    request: ChatCompletionRequest, target: native.ChatRequest, *, uses_functions: bool
) -> frozenset[str] | None:
    """Return the functions that may be called; None if the choice excludes none."""
    choice = _given_choice(request.function_call if uses_functions else request.tool_choice)
    if choice != "none" and not (isinstance(choice, ToolChoice) and choice.type == "allowed_tools"):
        return None
    return frozenset(tool.function.name for tool in target.tools or ())


def _function_choice(choice: str | NamedFunction | None) -> str | ToolChoice | None:
    """Return the tool choice for a value of ``function_call``."""
    if isinstance(choice, NamedFunction):
        return ToolChoice("function", choice)
    if choice not in (None, "none", "auto"):
        supported = "Supported values are: 'none' and 'auto'."
        raise invalid(f"Invalid value: '{str(choice)[:64]}'. {supported}", "function_call")
    return choice


# -- the format of the answer -----------------------------------------------------------------

#: path of the schema in the request
_JSON_SCHEMA = "response_format.json_schema"


def _format(request: ChatCompletionRequest, ignored: Ignored) -> tuple[str | Raw | UnsetType, bytes | None]:
    """Return the native ``format``, and the strict schema to check the answer against.

    :raises APIError: 400 for a ``response_format`` or a ``format`` that is not valid.
    """
    native_format = from_format(request.format)
    response_format = request.response_format
    if response_format is None or _is_empty(response_format):
        return native_format, None
    kind = format_kind(response_format.type, "response_format.type")
    _note_unused(response_format, kind, ignored)
    if kind == "text":
        return native_format, None
    if native_format is not UNSET:
        ignored.add("format")
    if kind == "json_object":
        if json.is_blank(response_format.schema):
            return "json", None
        return readable(response_format.schema, format_schema, "response_format.schema"), None
    json_schema = JSONSchema() if response_format.json_schema == [] else response_format.json_schema
    if isinstance(json_schema, list):
        name = "response_format.json_schema"
        raise invalid(f"Invalid type for '{name}': expected an object, but got an array instead.", name, "invalid_type")
    if json_schema is None:
        if not json.is_blank(response_format.schema):
            return readable(response_format.schema, format_schema, "response_format.schema"), None
        raise missing("response_format.json_schema")
    return from_json_schema(json_schema, _JSON_SCHEMA)


def _is_empty(given: ResponseFormat) -> bool:
    """Return whether a ``response_format`` asks for nothing."""
    return not given.type and given.json_schema in (None, [], JSONSchema()) and json.is_blank(given.schema)


def _note_unused(response_format: ResponseFormat, kind: str, ignored: Ignored) -> None:
    """List the parts of ``response_format`` that its type does not use."""
    if response_format.json_schema not in (None, [], JSONSchema()) and kind in ("text", "json_object"):
        ignored.add("response_format.json_schema")
    has_schema = not json.is_blank(response_format.schema)
    if has_schema and (kind == "text" or (kind == "json_schema" and response_format.json_schema is not None)):
        ignored.add("response_format.schema")


def _set_logprobs(request: ChatCompletionRequest, target: native.ChatRequest) -> None:
    """Set ``logprobs`` and ``top_logprobs``.

    :raises APIError: 400 for ``top_logprobs`` without ``logprobs``.
    """
    if request.logprobs:
        target.logprobs = True
        if request.top_logprobs:
            target.top_logprobs = int(request.top_logprobs)
    elif request.top_logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
