"""The request of a chat: OpenAI's fields, what becomes of each, and the native request that they make.

Source: ollama ``openai/openai.go`` ``ChatCompletionRequest``, ``FromChatRequest`` (at fb3076099).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.contract import Call
from openai_compat.errors import invalid, missing, not_supported, too_long
from openai_compat.native import messages as native
from openai_compat.translate import forced, models, reasoning
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    accepted,
    check_number,
    check_ranges,
    counted,
    emulated,
    mapped,
    note_effectless,
    policy,
    whole,
)
from openai_compat.translate.messages import ChatMessage, from_messages
from openai_compat.translate.metadata import check_metadata
from openai_compat.translate.sampling import from_keep_alive, from_sampling, is_silent
from openai_compat.translate.schemas import Checker, Uncheckable, checker
from openai_compat.translate.tools import FunctionDefinition, ToolDefinition, from_functions, from_tools
from openai_compat.translate.usage import StreamOptions, includes_usage
from openai_compat.wire import json


class JSONSchema(Struct):
    name: str | None = None
    description: str | None = None
    schema: Raw | UnsetType = UNSET
    strict: bool | None = None


class ResponseFormat(Struct):
    type: str | None = None
    json_schema: JSONSchema | None = None


class ChatCompletionRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateChatCompletionRequest``; Ollama's own fields as extras."""

    model: Annotated[str | None, mapped("model", "an alias becomes the model behind it")] = None
    messages: Annotated[list[ChatMessage] | None, mapped("messages")] = None
    stream: Annotated[bool | None, emulated("how the answer is sent; the native call always streams")] = None
    stream_options: Annotated[StreamOptions | None, emulated("``include_usage``: a last chunk with the usage")] = None
    max_completion_tokens: Annotated[Integer, whole("options.num_predict", low=-1)] = None
    max_tokens: Annotated[
        Integer, whole("options.num_predict", "unless ``max_completion_tokens`` is given", low=-1)
    ] = None
    tools: Annotated[list[ToolDefinition] | None, mapped("tools")] = None
    tool_choice: Annotated[
        str | forced.ToolChoice | None,
        emulated("a forced call is held by ``format``, and checked; best effort with gpt-oss", "format"),
    ] = None
    parallel_tool_calls: Annotated[bool | None, emulated("``false`` passes on the first call only")] = None
    functions: Annotated[list[FunctionDefinition] | None, mapped("tools", "the old form, in and out")] = None
    function_call: Annotated[
        str | forced.NamedFunction | None, emulated("the old form of ``tool_choice``", "format")
    ] = None
    n: Annotated[Integer, counted("so many native calls, with seeds ``seed`` + i", low=1)] = None
    response_format: Annotated[ResponseFormat | None, mapped("format", "``strict`` is checked too")] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    logprobs: Annotated[bool | None, mapped("logprobs")] = None
    top_logprobs: Annotated[Integer, whole("top_logprobs", low=0, high=20)] = None
    modalities: Annotated[list[str] | None, accepted('``["text"]``; others by policy')] = None
    service_tier: Annotated[str | None, accepted("the answer says ``default``")] = None
    store: Annotated[bool | None, emulated("kept where a store is configured, else listed as ignored")] = None
    metadata: Annotated[dict[str, str] | None, emulated("kept and echoed with ``store``, else listed as ignored")] = (
        None
    )
    user: Annotated[Any, accepted()] = None
    safety_identifier: Annotated[Any, accepted()] = None
    prompt_cache_key: Annotated[Any, accepted()] = None
    prompt_cache_options: Annotated[Any, accepted()] = None
    prompt_cache_retention: Annotated[Any, accepted()] = None
    verbosity: Annotated[Any, accepted()] = None
    moderation: Annotated[Any, accepted()] = None
    prediction: Annotated[Any, policy("Ollama takes no predictions.")] = None
    audio: Annotated[Any, policy("Ollama makes no audio.")] = None
    web_search_options: Annotated[Any, policy("Ollama does not search the web here.")] = None


decode = json.request_decoder(ChatCompletionRequest)


@dataclass(frozen=True)
class Asked:
    """What a request asks for: the native request, and what its answer must become."""

    sent: native.ChatRequest
    #: as they came
    messages: list[ChatMessage]
    #: the name that the client has for the model
    model: str
    #: the field that asked for thinking
    think_field: str | None
    n: int
    forced: forced.Forced | None
    #: the functions that may be called, where the choice leaves out some; None is no rule
    allowed: frozenset[str] | None
    #: at most one call
    one_call: bool
    #: calls leave as ``function_call``
    is_old_form: bool
    is_silent: bool
    #: the answer must be JSON
    is_json: bool
    checker: Checker | None
    stream: bool
    include_usage: bool
    #: kept with this metadata; None is not kept
    keep: dict[str, str] | None


def from_chat_request(request: ChatCompletionRequest, call: Call, ignored: Ignored) -> Asked:
    """Map a whole request.

    :raises APIError: 400, naming the field.

    Source: ``FromChatRequest``.
    """
    settings = call.settings
    model = _check(request, call)
    _note(request, ignored)
    defaults = models.defaults(model, settings)
    sent = native.ChatRequest(
        model=models.native_name(model, settings),
        messages=from_messages(request.messages or [], ignored, call.fetch),
        options=from_sampling(request, _max_tokens(request), settings, ignored, defaults.options),
    )
    from_keep_alive(request, sent, settings, defaults.keep_alive)
    think, think_field = reasoning.think(request, ignored, defaults.think)
    if think is not None:
        sent.think = think
    sent.format, wanted = _format(request)
    force, is_old_form = _set_tools(request, sent, call, ignored)
    if force is not None:
        if sent.format is not UNSET:  # what is forced is a call, in its own form
            ignored.add("format" if request.response_format is None else "response_format")
            wanted = None
        forced.force(sent, force, ignored, "function_call" if is_old_form else "tool_choice")
        if think and think_field and sent.think is False:
            ignored.add(think_field)
        if request.logprobs:
            ignored.add("logprobs")
    _set_logprobs(request, sent)
    return Asked(
        sent=sent,
        messages=request.messages or [],
        model=model,
        think_field=think_field,
        n=int(request.n or 1),
        forced=force,
        allowed=_allowed(request, sent),
        one_call=is_old_form or request.parallel_tool_calls is False,
        is_old_form=is_old_form,
        is_silent=is_silent(request, _max_tokens(request)),
        is_json=force is None and sent.format is not UNSET,
        checker=_checker(wanted, ignored) if wanted is not None else None,
        stream=bool(request.stream),
        include_usage=includes_usage(request.stream_options, ignored),
        keep=_kept(request, call, ignored),
    )


def _check(request: ChatCompletionRequest, call: Call) -> str:
    """The model's name, if the request is sound so far."""
    model = models.given(request.model)
    if not request.messages:
        code = "missing_required_parameter" if request.messages is None else "empty_array"
        raise invalid("[] is too short - 'messages'", "messages", code)
    if len(request.messages) > call.settings.max_messages:
        raise too_long("messages", call.settings.max_messages, len(request.messages))
    check_ranges(request)
    if request.n is not None:
        check_number("n", request.n, counted("", high=call.settings.max_n))
    return model


def _max_tokens(request: ChatCompletionRequest) -> int | None:
    value = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    return None if value is None else int(value)


def _note(request: ChatCompletionRequest, ignored: Ignored) -> None:
    """Note what is accepted without effect."""
    note_effectless(request, ignored)
    if request.service_tier not in (None, "auto", "default"):
        ignored.add("service_tier")
    if set(request.modalities or ()) - {"text"}:
        ignored.unsupported("modalities", "Ollama makes text only.")
    form = request.response_format
    if form is not None and form.json_schema is not None and form.json_schema.description:
        ignored.add("response_format.json_schema.description")


def _kept(request: ChatCompletionRequest, call: Call, ignored: Ignored) -> dict[str, str] | None:
    if request.store and call.store is not None:
        return check_metadata(request.metadata or {})
    for name, value in (("store", request.store), ("metadata", request.metadata)):
        if value is not None and value is not False:
            ignored.add(name)
    return None


# -- tools ------------------------------------------------------------------------------------


def _set_tools(
    request: ChatCompletionRequest, sent: native.ChatRequest, call: Call, ignored: Ignored
) -> tuple[forced.Forced | None, bool]:
    """Set the tools that may be called; the call that is forced; and whether the request is in the old form."""
    choice, param = request.tool_choice, "tool_choice"
    is_old_form = bool(request.functions) and not request.tools
    if is_old_form:
        if choice not in (None, "none", "auto"):
            raise invalid(
                "Invalid 'tool_choice': it needs 'tools'; 'function_call' goes with 'functions'.", "tool_choice"
            )
        tools = from_functions(request.functions or [], call.settings, ignored)
        choice, param = "none" if choice == "none" else _old_choice(request.function_call), "function_call"
    else:
        if request.functions and "none" not in (choice, request.function_call):
            raise not_supported("functions", "It cannot be given together with 'tools'.")
        if request.function_call not in (None, "none", "auto"):
            raise invalid("Invalid 'function_call': it needs 'functions'.", "function_call")
        for name in ("functions", "function_call"):
            if getattr(request, name):
                ignored.add(name)
        tools = from_tools(request.tools or [], call.settings, ignored)
    tools, force = forced.choose(choice, tools, param)
    if tools:
        sent.tools = tools
    return force, is_old_form


def _allowed(request: ChatCompletionRequest, sent: native.ChatRequest) -> frozenset[str] | None:
    """The functions that a choice leaves, where it leaves out some."""
    choice = request.function_call if request.functions and not request.tools else request.tool_choice
    if choice != "none" and not (isinstance(choice, forced.ToolChoice) and choice.type == "allowed_tools"):
        return None
    return frozenset(tool.function.name for tool in sent.tools or ())


def _old_choice(choice: str | forced.NamedFunction | None) -> str | forced.ToolChoice | None:
    if isinstance(choice, forced.NamedFunction):
        return forced.ToolChoice("function", choice)
    if choice not in (None, "none", "auto"):
        supported = "Supported values are: 'none' and 'auto'."
        raise invalid(f"Invalid value: '{str(choice)[:64]}'. {supported}", "function_call")
    return choice


# -- the form of the answer -------------------------------------------------------------------


def _format(request: ChatCompletionRequest) -> tuple[str | Raw | UnsetType, bytes | None]:
    """``response_format``, else Ollama's own ``format``; and the schema that is to be checked."""
    wanted = request.response_format
    kind = (wanted.type or "").strip().lower() if wanted else ""
    if wanted is None or kind == "text":
        return UNSET if json.text_of(request.format) in (b"", b'""') else request.format, None
    if kind == "json_object":
        return "json", None
    if kind != "json_schema":
        if not kind:
            raise missing("response_format.type")
        supported = "Supported values are: 'text', 'json_object', and 'json_schema'."
        raise invalid(f"Invalid value: '{kind[:64]}'. {supported}", "response_format.type")
    if wanted.json_schema is None:
        raise missing("response_format.json_schema")
    schema = wanted.json_schema.schema
    text = json.text_of(schema)
    if not text:
        return "json", b"{}" if wanted.json_schema.strict else None
    if not text.startswith(b"{"):
        name = "response_format.json_schema.schema"
        raise invalid(f"Invalid type for '{name}': expected an object.", name, "invalid_type")
    return schema, text if wanted.json_schema.strict else None


def _checker(schema: bytes, ignored: Ignored) -> Checker | None:
    """What checks the answer; None, and noted, where that cannot be done."""
    try:
        found = checker(schema)
    except Uncheckable as error:
        ignored.add("response_format.json_schema.strict", str(error))
        return None
    for word in found.unevaluated:
        ignored.add(f"response_format.json_schema.schema.{word}")
    return found


def _set_logprobs(request: ChatCompletionRequest, sent: native.ChatRequest) -> None:
    if request.logprobs:
        sent.logprobs = True
        if request.top_logprobs:
            sent.top_logprobs = int(request.top_logprobs)
    elif request.top_logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
