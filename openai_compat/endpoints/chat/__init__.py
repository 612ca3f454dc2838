"""``POST /v1/chat/completions``: the endpoint function. Requests, responses and storing have modules of their own.

Source: ollama ``middleware/openai.go`` ``ChatMiddleware`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openai_compat.endpoints.chat.answer import ResponseEnvelope, to_chat_completion, to_chunks
from openai_compat.endpoints.chat.request import ChatCompletionRequest, ChatOutput, decode, from_chat_request
from openai_compat.endpoints.chat.storing import store_completion
from openai_compat.endpoints.contract import FLUSH, Answer, Call, EventStream, Reply
from openai_compat.generation.run import ChatRun, Run
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored


def create(call: Call, backend: Backend) -> Reply:
    """Complete a chat, as one response or as a stream of chunks.

    A failure to store the completion does not fail the request; it is listed in a header, unless the head was sent.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    plan, output = from_chat_request(request, call, ignored)
    envelope = ResponseEnvelope(
        id=call.new_id("chatcmpl-"),
        model=plan.model,
        reasoning_field=output.reasoning_field,
        uses_functions=output.uses_functions,
        custom=output.custom,
        is_forced=plan.forced is not None,
        thinks=bool(plan.native_request.think),
        has_tools=bool(plan.native_request.tools),
    )
    chat = ChatRun(plan, backend, ignored, call)
    if output.stream:
        run = chat.start(collect=output.metadata is not None)
        return EventStream(_chunks(call, output, request, envelope, run), run.streams, ignored.headers())
    completion = to_chat_completion(envelope, chat.finish())
    if output.metadata is not None and not store_completion(call, completion, request.messages, output.metadata):
        ignored.add("store")
        if output.metadata:
            ignored.add("metadata")
    return Answer(completion, ignored.headers())


def _chunks(
    call: Call,
    output: ChatOutput,
    request: ChatCompletionRequest,
    envelope: ResponseEnvelope,
    run: Run[native.ChatResponse],
) -> Iterator[Sequence[object]]:
    """Yield the chunks of a stream, and store the completion after the last one: only ``[DONE]`` waits for that."""
    yield from to_chunks(envelope, run, include_usage=output.include_usage)
    if output.metadata is not None:
        yield FLUSH
        store_completion(call, to_chat_completion(envelope, run), request.messages, output.metadata)
