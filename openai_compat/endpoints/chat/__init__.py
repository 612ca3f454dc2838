"""``POST /v1/chat/completions``: the endpoint function. Requests, responses and storing have modules of their own.

Source: ollama ``middleware/openai.go`` ``ChatMiddleware`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openai_compat.endpoints.chat.answer import ChatCompletionChunk, ResponseEnvelope, to_chat_completion, to_chunks
from openai_compat.endpoints.chat.request import ChatOutput, decode, from_chat_request
from openai_compat.endpoints.chat.storing import store_completion
from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply
from openai_compat.generation.run import ChatRun, Run
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored
from openai_compat.translate.messages import ChatMessage


def create(call: Call, backend: Backend) -> Reply:
    """Complete a chat, as one response or as a stream of chunks.

    A failure to store the completion does not fail the request; it is listed in a header, unless the head was sent.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    plan, output = from_chat_request(request, call, ignored)
    messages = request.messages or []
    envelope = ResponseEnvelope(
        id=call.new_id("chatcmpl-"),
        model=plan.model,
        reasoning_content=call.settings.reasoning_content,
        uses_functions=output.uses_functions,
    )
    chat = ChatRun(plan, backend, ignored, new_id=call.new_id, now=call.now, max_answer=call.settings.max_answer)
    if output.stream:
        run = chat.start(collect=output.metadata is not None)
        return EventStream(_chunks(call, output, messages, envelope, run), run.streams, ignored.headers())
    completion = to_chat_completion(envelope, chat.finish(retry_strict=call.settings.retry_strict))
    if output.metadata is not None and not store_completion(call, completion, messages, output.metadata):
        ignored.add("store")
        ignored.add("metadata")
    return Answer(completion, ignored.headers())


def _chunks(
    call: Call,
    output: ChatOutput,
    messages: Sequence[ChatMessage],
    envelope: ResponseEnvelope,
    run: Run[native.ChatResponse],
) -> Iterator[Sequence[ChatCompletionChunk]]:
    """Yield the chunks of a stream, and store the completion after the last one."""
    yield from to_chunks(envelope, run, include_usage=output.include_usage)
    if output.metadata is not None:
        store_completion(call, to_chat_completion(envelope, run), messages, output.metadata)
