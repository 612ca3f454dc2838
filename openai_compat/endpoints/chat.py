"""``POST /v1/chat/completions``.

Source: ollama ``openai/openai.go`` ``FromChatRequest``, ``ToChatCompletion``, ``ToStreamChunks``, ``FinishChunk``;
``middleware/openai.go`` ``ChatMiddleware``, ``ChatWriter`` (at fb3076099). Differs where contract and clients want it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Annotated, Any

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply
from openai_compat.errors import APIError, broken, invalid, missing, not_supported, too_long
from openai_compat.native import messages as native
from openai_compat.native.backend import Backend
from openai_compat.native.stream import NativeStream
from openai_compat.settings import Settings
from openai_compat.translate import reasoning
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    accepted,
    check_ranges,
    mapped,
    note_effectless,
    policy,
    refused,
    whole,
)
from openai_compat.translate.logprobs import ChoiceLogprobs, ContentLogprobs, to_logprobs
from openai_compat.translate.messages import ChatMessage, from_messages
from openai_compat.translate.sampling import from_keep_alive, from_sampling, is_silent, silent
from openai_compat.translate.tools import (
    ToolCallDelta,
    ToolCallOut,
    ToolDefinition,
    from_tools,
    to_deltas,
    to_tool_calls,
)
from openai_compat.translate.usage import CompletionUsage, to_finish_reason, to_usage
from openai_compat.wire import json

# -- the request ------------------------------------------------------------------------------


class StreamOptions(Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JSONSchema(Struct):
    name: str | None = None
    schema: Raw | UnsetType = UNSET
    strict: bool | None = None


class ResponseFormat(Struct):
    type: str | None = None
    json_schema: JSONSchema | None = None


class ChatCompletionRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateChatCompletionRequest``; Ollama's own fields as extras."""

    model: Annotated[str | None, mapped("model")] = None
    messages: Annotated[list[ChatMessage] | None, mapped("messages")] = None
    stream: Annotated[bool | None, mapped("how the answer is sent; the native call always streams")] = None
    stream_options: Annotated[StreamOptions | None, mapped("``include_usage``: a last chunk with the usage")] = None
    max_completion_tokens: Annotated[Integer, whole("options.num_predict", low=-1)] = None
    max_tokens: Annotated[Integer, whole("options.num_predict, unless ``max_completion_tokens`` is given", low=-1)] = (
        None
    )
    tools: Annotated[list[ToolDefinition] | None, mapped("tools")] = None
    tool_choice: Annotated[str | dict[str, Any] | None, mapped("``none``: no tools; ``auto``; others are refused")] = (
        None
    )
    parallel_tool_calls: Annotated[bool | None, mapped("``true`` is as without; ``false`` is refused")] = None
    functions: Annotated[list[Any] | None, refused("unless ``function_call`` is ``none``")] = None
    function_call: Annotated[str | dict[str, Any] | None, mapped("``none``: no functions; others are refused")] = None
    n: Annotated[Integer, whole("1 is as without; more is refused", low=1)] = None
    response_format: Annotated[ResponseFormat | None, mapped("format")] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    logprobs: Annotated[bool | None, mapped("logprobs")] = None
    top_logprobs: Annotated[Integer, whole("top_logprobs", low=0, high=20)] = None
    modalities: Annotated[list[str] | None, accepted('``["text"]``; others by policy')] = None
    service_tier: Annotated[str | None, accepted("the answer says ``default``")] = None
    user: Annotated[Any, accepted()] = None
    metadata: Annotated[Any, accepted()] = None
    store: Annotated[Any, accepted()] = None
    safety_identifier: Annotated[Any, accepted()] = None
    prompt_cache_key: Annotated[Any, accepted()] = None
    prompt_cache_options: Annotated[Any, accepted()] = None
    prompt_cache_retention: Annotated[Any, accepted()] = None
    verbosity: Annotated[Any, accepted()] = None
    moderation: Annotated[Any, accepted()] = None
    prediction: Annotated[Any, policy("Ollama takes no predictions.")] = None
    audio: Annotated[Any, policy("Ollama makes no audio.")] = None
    web_search_options: Annotated[Any, policy("Ollama does not search the web here.")] = None


_decode = json.request_decoder(ChatCompletionRequest)

# -- the answer -------------------------------------------------------------------------------

FINGERPRINT = "fp_ollama"


class ChatCompletionMessage(Struct, kw_only=True):
    """Source: OpenAI's ``ChatCompletionResponseMessage``; ``reasoning`` is Ollama's."""

    role: str = "assistant"
    #: null only beside tool calls
    content: str | None
    refusal: None = None
    annotations: list[Any] = []
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class Choice(Struct, kw_only=True):
    index: int = 0
    message: ChatCompletionMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str


class ChatCompletion(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionResponse``."""

    id: str
    object: str = "chat.completion"
    #: Unix seconds
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: str = "default"
    system_fingerprint: str = FINGERPRINT


class Delta(Struct, kw_only=True):
    """What a chunk adds. ``{}`` in the finish chunk; ``role`` in the first one only."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Struct, kw_only=True):
    """Source: OpenAI's ``CreateChatCompletionStreamResponse``."""

    id: str
    object: str = "chat.completion.chunk"
    #: Unix seconds
    created: int
    model: str
    service_tier: str = "default"
    system_fingerprint: str = FINGERPRINT
    choices: list[ChunkChoice]
    #: null on all chunks but the last if usage was asked for, else absent
    usage: CompletionUsage | UnsetType | None = UNSET


# -- the endpoint -----------------------------------------------------------------------------


def create(call: Call, backend: Backend) -> Reply:
    """Answer a chat, as one completion or as a stream of chunks.

    :raises APIError: 400 naming what is wrong with the request; the native side's failures.
    """
    request, unknown = _decode(call.body)
    ignored = Ignored(call.settings, unknown)
    sent = from_chat_request(request, call.settings, ignored)
    stream = reasoning.chat(backend, sent, request, ignored)
    responses = _telling(stream)
    if is_silent(request, _max_tokens(request)):
        responses = silent(responses)
    id, headers = call.new_id("chatcmpl-"), ignored.headers()
    spell_twice = call.settings.reasoning_content
    if request.stream:
        chunks = to_chunks(
            id,
            responses,
            model=sent.model,
            now=call.now,
            new_id=call.new_id,
            include_usage=bool(request.stream_options and request.stream_options.include_usage),
            reasoning_content=spell_twice,
        )
        return EventStream(chunks, stream, headers)
    with closing(stream):
        bounded = _bounded(responses, stream, call.settings.max_answer)
        completion = to_chat_completion(
            id, bounded, model=sent.model, now=call.now, new_id=call.new_id, reasoning_content=spell_twice
        )
    return Answer(completion, headers)


# -- OpenAI → native --------------------------------------------------------------------------


def from_chat_request(request: ChatCompletionRequest, settings: Settings, ignored: Ignored) -> native.ChatRequest:
    """Map a whole request.

    :raises APIError: 400, naming the field.

    Source: ``FromChatRequest``.
    """
    if not request.model:
        raise invalid("you must provide a model parameter", "model", "missing_required_parameter")
    if not request.messages:
        code = "missing_required_parameter" if request.messages is None else "empty_array"
        raise invalid("[] is too short - 'messages'", "messages", code)
    if len(request.messages) > settings.max_messages:
        raise too_long("messages", settings.max_messages, len(request.messages))
    check_ranges(request)
    _check_built(request)
    _check_accepted(request, ignored)
    sent = native.ChatRequest(
        model=request.model,
        messages=from_messages(request.messages, ignored),
        options=from_sampling(request, _max_tokens(request), settings, ignored),
    )
    from_keep_alive(request, sent, settings)
    tools = from_tools(request.tools or [], settings, ignored)
    if tools and request.tool_choice != "none":
        sent.tools = tools
    think, _ = reasoning.think(request, ignored)
    if think is not None:
        sent.think = think
    sent.format = _format(request, ignored)
    _set_logprobs(request, sent)
    return sent


def _check_built(request: ChatCompletionRequest) -> None:
    """Refuse, by name, what this version does not offer yet."""
    if request.n is not None and request.n > 1:
        raise not_supported("n", "Only n=1 is offered.")
    if request.tool_choice not in (None, "none", "auto"):
        raise not_supported("tool_choice", "Only 'none' and 'auto' are offered.")
    if request.parallel_tool_calls is False and request.tools:
        raise not_supported("parallel_tool_calls", "Only true is offered.")
    if request.function_call not in (None, "none", "auto"):
        raise not_supported("function_call", "Only 'none' and 'auto' are offered.")
    if request.functions and request.function_call != "none":
        raise not_supported("functions", "Use 'tools' instead.")


def _max_tokens(request: ChatCompletionRequest) -> int | None:
    value = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    return None if value is None else int(value)


def _check_accepted(request: ChatCompletionRequest, ignored: Ignored) -> None:
    """Note what is accepted without effect."""
    note_effectless(request, ignored)
    if request.service_tier not in (None, "auto", "default"):
        ignored.add("service_tier")
    if set(request.modalities or ()) - {"text"}:
        ignored.unsupported("modalities", "Ollama makes text only.")
    if request.stream_options and request.stream_options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation")


def _format(request: ChatCompletionRequest, ignored: Ignored) -> str | Raw | UnsetType:
    """``response_format``, else Ollama's own ``format``."""
    wanted = request.response_format
    kind = (wanted.type or "").strip().lower() if wanted else ""
    if wanted is None or kind == "text":
        return request.format if json.text_of(request.format) else UNSET
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        if not kind:
            raise missing("response_format.type")
        supported = "Supported values are: 'text', 'json_object', and 'json_schema'."
        raise invalid(f"Invalid value: '{kind[:64]}'. {supported}", "response_format.type")
    if wanted.json_schema is None:
        raise missing("response_format.json_schema")
    if wanted.json_schema.strict:
        ignored.add("response_format.json_schema.strict")
    schema = wanted.json_schema.schema
    text = json.text_of(schema)
    if not text:
        return "json"
    if not text.startswith(b"{"):
        name = "response_format.json_schema.schema"
        raise invalid(f"Invalid type for '{name}': expected an object.", name, "invalid_type")
    return schema


def _set_logprobs(request: ChatCompletionRequest, sent: native.ChatRequest) -> None:
    if request.logprobs:
        sent.logprobs = True
        if request.top_logprobs:
            sent.top_logprobs = int(request.top_logprobs)
    elif request.top_logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")


# -- native → OpenAI --------------------------------------------------------------------------


def _telling(responses: Iterable[native.ChatResponse]) -> Iterator[native.ChatResponse]:
    """Pass on what says something; an end with no output, no reason and no counts is no answer."""
    told = False
    for response in responses:
        message = response.message
        told = told or (message is not None and bool(message.content or message.thinking or message.tool_calls))
        counts = (response.eval_count, response.prompt_eval_count)
        if response.done and not (told or response.done_reason or any(count is not None for count in counts)):
            raise broken("The backend answered nothing, and gave no reason.")
        told = told or response.logprobs is not None
        yield response


def _bounded(
    responses: Iterable[native.ChatResponse], stream: NativeStream[native.ChatResponse], limit: int
) -> Iterator[native.ChatResponse]:
    for response in responses:
        if stream.size > limit:
            raise APIError(502, "The backend's answer is too long.", code="upstream_error", retry=False)
        yield response


def to_chat_completion(
    id: str,
    responses: Iterable[native.ChatResponse],
    *,
    model: str,
    now: int,
    new_id: Callable[[str], str],
    reasoning_content: bool = True,
) -> ChatCompletion:
    """Collect one native stream into a completion.

    :param now: Unix seconds; used when the first message has no ``created_at``.
    :param reasoning_content: spell reasoning both ways.

    Source: ``ToChatCompletion``.
    """
    content: list[str] = []
    thinking: list[str] = []
    calls: list[native.ToolCall] = []
    logprobs: list[native.Logprob] = []
    kept = ContentLogprobs()
    created = None
    last = native.ChatResponse()
    for last in responses:
        created = native.unix_time(last.created_at, now) if created is None else created
        logprobs += kept.of(last)
        calls += _calls(last)
        if last.message is not None:
            content.append(last.message.content or "")
            thinking.append(last.message.thinking or "")
    message = ChatCompletionMessage(content="".join(content))
    if calls:
        message.tool_calls = to_tool_calls(calls, new_id)
        message.content = message.content or None
    reasoned = "".join(thinking)
    if reasoned:
        message.reasoning = reasoned
        if reasoning_content:
            message.reasoning_content = reasoned
    reason = to_finish_reason(last.done_reason, tool_calls=bool(calls))
    choice = Choice(message=message, logprobs=to_logprobs(logprobs) if logprobs else None, finish_reason=reason)
    created = now if created is None else created
    return ChatCompletion(id=id, created=created, model=model, choices=[choice], usage=to_usage(last))


def to_chunks(
    id: str,
    responses: Iterable[native.ChatResponse],
    *,
    model: str,
    now: int,
    new_id: Callable[[str], str],
    include_usage: bool = False,
    reasoning_content: bool = True,
) -> Iterator[list[ChatCompletionChunk]]:
    """Translate one native stream; each step gives the chunks of one native message.

    The role comes first, in a chunk of its own beside the first delta; thinking and content have chunks of
    their own; then a finish chunk with an empty delta; then, if *include_usage*, a chunk without choices.

    :param now: Unix seconds; used when the first message has no ``created_at``.
    :raises APIError: the native side's failures, such as an end before ``done``.

    Source: ``ToStreamChunks``, ``FinishChunk``; ``ChatWriter``, whose flags are local variables here.
    """
    created, called, kept = None, 0, ContentLogprobs()
    for response in responses:
        choices: list[ChunkChoice] = []
        if created is None:
            created = native.unix_time(response.created_at, now)
            choices.append(ChunkChoice(delta=_first_delta(response.message)))
        choices += _text_choices(response, kept.of(response), reasoning_content)
        deltas = to_deltas(_calls(response), new_id, start=called)
        called += len(deltas)
        choices += [ChunkChoice(delta=Delta(tool_calls=[delta])) for delta in deltas]
        if response.done:
            reason = to_finish_reason(response.done_reason, tool_calls=called > 0)
            choices.append(ChunkChoice(delta=Delta(), finish_reason=reason))
        usage = None if include_usage else UNSET
        chunks = [
            ChatCompletionChunk(id=id, created=created, model=model, choices=[choice], usage=usage)
            for choice in choices
        ]
        if response.done and include_usage:
            total = to_usage(response)
            chunks.append(ChatCompletionChunk(id=id, created=created, model=model, choices=[], usage=total))
        yield chunks  # also when there are none: what is held for company must not wait for the next line
        if response.done:
            return


def _first_delta(message: native.AnswerMessage | None) -> Delta:
    """The role; no content yet, and none at all (null) where the answer begins with a call."""
    only_calls = message is not None and message.tool_calls and not message.content and not message.thinking
    return Delta(role="assistant", content=None if only_calls else "", refusal=None)


def _text_choices(
    response: native.ChatResponse, logprobs: list[native.Logprob], reasoning_content: bool
) -> Iterator[ChunkChoice]:
    """What one message adds to the reasoning, then what it adds to the content."""
    message = response.message
    if message is not None and message.thinking:
        spelt = message.thinking if reasoning_content else UNSET
        yield ChunkChoice(delta=Delta(reasoning=message.thinking, reasoning_content=spelt))
    content = message.content or "" if message is not None else ""
    if content or logprobs:
        yield ChunkChoice(delta=Delta(content=content), logprobs=to_logprobs(logprobs) if logprobs else None)


def _calls(response: native.ChatResponse) -> list[native.ToolCall]:
    return (response.message.tool_calls if response.message is not None else None) or []
