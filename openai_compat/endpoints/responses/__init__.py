"""``POST /v1/responses``: the endpoint function. Requests, output and state have modules of their own.

It stands on the same generation as chat, not on chat. Source: ollama ``middleware/openai.go`` ``ResponsesMiddleware``
(at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openai_compat.endpoints.contract import Answer, Call, EventStream, NamedEvent, NoSource, Reply
from openai_compat.endpoints.responses.answer import new_response
from openai_compat.endpoints.responses.progress import Progress, named
from openai_compat.endpoints.responses.request import decode, from_response_request, input_items
from openai_compat.errors import APIError
from openai_compat.generation.run import ChatRun, Run
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored


def create(call: Call, backend: Backend) -> Reply:
    """Generate a response, as one object or as a stream of events.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    items = input_items(request, call.settings.max_messages)
    plan, output = from_response_request(request, items, call, ignored, is_stored=False)
    response = new_response(request, output, call.new_id("resp_"), call.now)
    progress = Progress(response, output.tools, call.new_id)
    chat = ChatRun(plan, backend, ignored, new_id=call.new_id, now=call.now, max_answer=call.settings.max_answer)
    if request.stream:
        return _stream(call, chat, progress, ignored)
    return Answer(progress.collect(chat.finish(retry_strict=call.settings.retry_strict)), ignored.headers())


def _stream(call: Call, chat: ChatRun, progress: Progress, ignored: Ignored) -> Reply:
    """Return the stream of a response.

    A prompt that is too long is a failed response in the stream: Codex reads its code there only.
    """

    def failure_events(error: APIError) -> Sequence[NamedEvent]:
        return named(progress.fail(error))

    try:
        run = chat.start()
    except APIError as error:
        if error.code != "context_length_exceeded":
            raise
        failure = iter([failure_events(error)])
        return EventStream(failure, NoSource(), ignored.headers(), ends_with_done=False)
    events = _events(call, progress, run)
    return EventStream(events, run.streams, ignored.headers(), failure_events, ends_with_done=False)


def _events(call: Call, progress: Progress, run: Run[native.ChatResponse]) -> Iterator[Sequence[NamedEvent]]:
    for found in progress.stream(run, call.settings.max_answer):
        yield named(found)
    yield named([progress.last()])
