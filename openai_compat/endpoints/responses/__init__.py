"""``POST /v1/responses``: the endpoint function. Requests, output and state have modules of their own.

It stands on the same generation as chat, not on chat. Source: ollama ``middleware/openai.go`` ``ResponsesMiddleware``
(at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openai_compat.endpoints.contract import FLUSH, Answer, Call, EventStream, NamedEvent, NoSource, Reply
from openai_compat.endpoints.responses import background
from openai_compat.endpoints.responses.answer import ConversationOut, new_response
from openai_compat.endpoints.responses.compaction import from_compacting_request, without_trigger
from openai_compat.endpoints.responses.errors import of_input
from openai_compat.endpoints.responses.keeping import Keeper, input_to_store
from openai_compat.endpoints.responses.progress import Progress, named
from openai_compat.endpoints.responses.request import ResponseRequest, decode, from_response_request
from openai_compat.endpoints.responses.state import read_input
from openai_compat.errors import APIError
from openai_compat.generation.plan import ChatPlan
from openai_compat.generation.run import ChatRun, Run
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored


def create(call: Call, backend: Backend) -> Reply:
    """Generate a response, as one object or as a stream of events.

    A failure to store it does not fail the request, unless the settings want that; it is listed in a header, unless the
    head was sent.

    :raises APIError: 400 naming the invalid field; 503 for a store that fails; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    stores = request.store is not False and call.store is not None
    if request.background:
        background.check_background(call, stores=stores)
    elif request.store and not stores:
        ignored.add("store")
    plan, progress, keeper = _prepare(request, call, ignored, stores=stores)
    keeper.check()
    chat = ChatRun(plan, backend, ignored, call)
    if request.background:
        return background.start(call, chat, progress, keeper, ignored, stream=bool(request.stream))
    if request.stream:
        return _stream(call, chat, progress, keeper, ignored)
    with of_input():
        response = progress.collect(chat.finish())
    if not keeper.keep(response):
        ignored.add("store")
    return Answer(response, ignored.headers())


def _prepare(
    request: ResponseRequest, call: Call, ignored: Ignored, *, stores: bool
) -> tuple[ChatPlan, Progress, Keeper]:
    """Map a request to the plan of its native call, the response as it begins, and what is stored of it."""
    read = read_input(request, call)
    given = without_trigger(read.given, ignored)
    compacts = given is not None
    if given is not None:
        read = read._replace(given=given)
        plan, output = from_compacting_request(
            request, read.items, call, ignored, is_stored=stores, past=read.past(call)
        )
    else:
        plan, output = from_response_request(request, read.items, call, ignored, is_stored=stores, past=read.past(call))
    response = new_response(request, output, call.new_id("resp_"), call.now)
    response.store = stores
    if read.state.conversation is not None:
        response.conversation = ConversationOut(id=read.state.conversation)
    keeps = stores or read.state.conversation is not None
    keeper = Keeper(call, read.state, input_to_store(read.given, call) if keeps else [], stores)
    return plan, Progress(response, output.tools, call.new_id, compacts=compacts), keeper


def _stream(call: Call, chat: ChatRun, progress: Progress, keeper: Keeper, ignored: Ignored) -> Reply:
    """Return the stream of a response.

    A prompt that is too long is a failed response in the stream: Codex reads its code there only.
    """

    def failure_events(error: APIError) -> Sequence[NamedEvent]:
        progress.response.store = False
        return named(progress.fail(error))

    try:
        with of_input():
            run = chat.start()
    except APIError as error:
        if error.code != "context_length_exceeded":
            raise
        failure = iter([failure_events(error)])
        return EventStream(failure, NoSource(), ignored.headers(), ends_with_done=False)
    events = _events(call, progress, keeper, run)
    return EventStream(events, run.streams, ignored.headers(), failure_events, ends_with_done=False)


def _events(
    call: Call, progress: Progress, keeper: Keeper, run: Run[native.ChatResponse]
) -> Iterator[Sequence[object]]:
    """Yield the events of a stream. The terminal one waits for the store, so that the next request finds it."""
    for found in progress.stream(run, call.settings.max_answer):
        yield named(found)
    if keeper.keeps:
        yield FLUSH
        keeper.keep(progress.response)
    yield named([progress.last()])
