"""Responses in the background: generated without the client, and followed by any number of clients.

Their events are stored as they are sent, so that a client may begin anywhere, in any process, after any break.

Source: OpenAI's ``background``; ``GET /responses/{id}?stream=true&starting_after=``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from msgspec import Raw, structs

from openai_compat.endpoints.contract import RESPONSE, Answer, Call, EventStream, Headers, NamedEvent, Reply
from openai_compat.endpoints.responses import events
from openai_compat.endpoints.responses.answer import Response, is_final
from openai_compat.endpoints.responses.keeping import Keeper, output_items, stored_body, unstorable
from openai_compat.endpoints.responses.progress import Progress, error_event, error_of, named
from openai_compat.endpoints.responses.state import failure_of, read_response, response_body, status_of
from openai_compat.errors import INTERNAL_ERROR, APIError, invalid
from openai_compat.generation.background import Background, Job, stopping
from openai_compat.generation.run import ChatRun
from openai_compat.log import log
from openai_compat.storage.runs import Batch
from openai_compat.storage.store import StoredObject, UnknownParent
from openai_compat.translate.fields import Ignored
from openai_compat.translate.store_errors import ask, needs_store
from openai_compat.wire import json, sse


def check_background(call: Call, *, stores: bool) -> Background:
    """Return what runs responses in the background.

    :raises APIError: 400 without a store that all workers see, and for a response that is not to be stored.
    """
    if call.background is None:
        raise needs_store("background")
    if not stores:
        raise invalid("Invalid 'background': a response in the background must be stored ('store').", "background")
    if not call.is_store_shared:
        text = "the store is in the memory of one worker, and there are several; use a file or a database."
        raise invalid(f"Invalid 'background': {text}", "background", "unsupported_parameter")
    return call.background


def start(call: Call, chat: ChatRun, progress: Progress, keeper: Keeper, ignored: Ignored, *, stream: bool) -> Reply:
    """Start a response in the background; return it as it is queued, or the stream of its events.

    :raises APIError: 503 for a store that fails, and if too many responses wait.
    """
    background = call.background
    assert background is not None
    response = progress.response
    response.status, response.store = "queued", True
    keeper.queue(response)
    queued, headers = structs.replace(response), ignored.headers()  # both change in the other thread
    first = _frames(progress.queue())

    def work(job: Job) -> None:
        _generate(job, chat, progress, keeper)

    try:
        ask(call.store, lambda store: background.start(call.owner, response.id, work, first))
    except (APIError, ValueError) as error:
        ask(call.store, lambda store: store.delete(RESPONSE, call.owner, response.id))
        if isinstance(error, APIError):
            raise
        raise unstorable() from error
    if stream:
        return follow(call, response.id, headers, after=-1)
    return Answer(queued, headers)


def _frames(found: Sequence[events.Event]) -> list[bytes]:
    return [sse.frame(json.encode(event.data), event.name) for event in named(found)]


def _generate(job: Job, chat: ChatRun, progress: Progress, keeper: Keeper) -> None:
    """Generate a response, in a thread of its own."""
    response = progress.response
    try:
        job.add(_frames(progress.begin(response.created_at)))
        job.begin(stored_body(response))
        run = chat.start(cancel=job.cancel)
        with closing(run.streams):
            for found in progress.stream(run, chat.call.settings.max_answer):
                job.add(_frames(found))
    except APIError as error:
        job.add(_frames(progress.fail(error)[:-1]))
    except Exception:
        log.exception("a background response failed because of a defect in openai_compat")
        job.add(_frames(progress.fail(INTERNAL_ERROR)[:-1]))
    if not job.cancel.is_set:
        _finish(job, response, keeper.state.extends if response.status in ("completed", "incomplete") else None)


def _finish(job: Job, response: Response, extends: tuple[str, str] | None) -> None:
    """Store a response that has ended, and add it to its conversation; one that could not be added has none."""
    try:
        job.finish(stored_body(response), output_items(response), extends)
    except UnknownParent:
        log.error("a background response could not be added to its conversation, which was deleted")
        response.conversation = None
        job.finish(stored_body(response), output_items(response), None)


def ended_body(body: bytes, status: str, error: APIError | None) -> bytes | None:
    """Return the stored body of a response that was cancelled, or whose process died; None if it has ended."""
    members: dict[str, Any] = dict(json.members(body))
    if is_final(json.string(json.text_of(members["status"])) or ""):
        return None
    members["status"] = status
    if error is not None:
        members["error"] = error_of(error)
    return json.encode(members)


# -- following --------------------------------------------------------------------------------


def follow(call: Call, id: str, headers: Headers, *, after: int) -> EventStream:
    """Return the events of a background response from any one on, and follow it until it ends.

    :param after: number of the last event that the client has; −1 for none.
    """
    source = _Follower(call, id, max(after, -1))
    return EventStream(source.events(), source, headers, source.failure_events, ends_with_done=False)


class _Follower:
    """The source of the events of a background response: the store, which is read again and again."""

    pending = False

    def __init__(self, call: Call, id: str, after: int) -> None:
        self._call = call
        self._id = id
        self._after = after
        self._closed = threading.Event()

    def close(self) -> None:
        """Follow no longer."""
        self._closed.set()

    def failure_events(self, error: APIError) -> Sequence[NamedEvent]:
        """Return the event of a failure to follow, with the number after which the client can follow again."""
        return named([error_event(error, max(self._after, 0))])

    def events(self) -> Iterator[Sequence[object]]:
        """Yield the frames of events.

        :raises APIError: 404 for a response that was deleted, 503 for a store that fails, and if the process stops.
        """
        background = self._call.background
        assert background is not None
        while not self._closed.is_set():
            is_closed = background.is_closed  # before the response is read: what was ended as it closed has its end
            stored = read_response(self._id, self._call)
            found = self._next()
            if found:
                yield found
            elif stored is None:
                raise APIError(404, "The response was deleted.", code="not_found")
            elif is_final(status_of(stored)):
                yield self._terminal_events(stored)
                return
            elif is_closed:
                raise stopping()
            else:
                background.wait()

    def _next(self) -> list[bytes]:
        """Return the frames of the next events that are stored, each once."""
        call, after = self._call, self._after
        rows = ask(call.store, lambda store: store.events(RESPONSE, call.owner, self._id, after)) or []
        found: list[bytes] = []
        for first, last, data in rows:
            frames = [frame + b"\n\n" for frame in data.split(b"\n\n") if frame]
            found += frames[max(0, after + 1 - first) :]
            after = last
        self._after = after
        return found

    def _terminal_events(self, stored: StoredObject) -> list[NamedEvent]:
        """Return the events that follow those that are stored, from the one on that the client wants."""
        call = self._call
        batch = ask(call.store, lambda store: store.last_events(RESPONSE, call.owner, self._id))
        made = _made_events(stored, batch, response_body(stored, call))
        return made[max(0, self._after - (-1 if batch is None else batch[1])) :]


def _made_events(stored: StoredObject, batch: Batch | None, body: bytes) -> list[NamedEvent]:
    """Return the events that are made of a response as it is stored.

    That is the last one, of which OpenAI has none for a cancelled response, and what a process that died left out.

    :param batch: the last of those that are stored; None if the process died before the first.
    :param body: the response with its output.
    """
    status, number, found = status_of(stored), 0 if batch is None else batch[1] + 1, []
    if batch is None:
        found.append(_response_event("created", number, json.encode(_as_queued(body))))
        number += 1
    if status == "failed" and not (batch and _ends_with_error(batch[2])):  # the process died before it could say so
        found += named([error_event(failure_of(stored), number)])
        number += 1
    return [*found, _response_event("incomplete" if status == "cancelled" else status, number, body)]


def _response_event(name: str, number: int, body: bytes) -> NamedEvent:
    name = f"response.{name}"
    return NamedEvent(name, {"type": name, "sequence_number": number, "response": Raw(body)})


def _as_queued(body: bytes) -> dict[str, Any]:
    """Return a response as it was before it was generated."""
    return {**json.members(body), "status": "queued", "error": None, "output": []}


def _ends_with_error(data: bytes) -> bool:
    """Return whether the last of some frames is the event of an error."""
    return data.rstrip(b"\n").rpartition(b"\n\n")[2].startswith(b"event: error\n")


def is_background(members: dict[str, Raw]) -> bool:
    """Return whether a stored response was generated in the background."""
    return json.text_of(members["background"]) == b"true" if "background" in members else False
