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
from openai_compat.endpoints.responses.answer import is_final
from openai_compat.endpoints.responses.keeping import Keeper, output_items, stored_body
from openai_compat.endpoints.responses.progress import Progress, error_event, error_of, named
from openai_compat.endpoints.responses.state import failure_of, read_response, response_body, status_of
from openai_compat.errors import INTERNAL_ERROR, APIError, invalid
from openai_compat.generation.background import Background, Job
from openai_compat.generation.run import ChatRun
from openai_compat.log import log
from openai_compat.storage.store import StoredObject
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
    first = progress.queue()

    def work(job: Job) -> None:
        _generate(job, chat, progress, keeper, first)

    try:
        ask(call.store, lambda store: background.start(call.owner, response.id, work))
    except APIError:
        ask(call.store, lambda store: store.delete(RESPONSE, call.owner, response.id))
        raise
    if stream:
        return follow(call, response.id, headers, after=-1)
    return Answer(queued, headers)


def _frames(found: Sequence[events.Event]) -> list[bytes]:
    return [sse.frame(json.encode(event.data), event.name) for event in named(found)]


def _generate(job: Job, chat: ChatRun, progress: Progress, keeper: Keeper, first: list[events.Event]) -> None:
    """Generate a response, in a thread of its own."""
    response = progress.response
    try:
        job.add(_frames(first))
        job.add(_frames(progress.begin(response.created_at)))
        job.begin(stored_body(response))
        run = chat.start(cancel=job.cancel)
        with closing(run.streams):
            for found in progress.stream(run, chat.max_answer):
                job.add(_frames(found))
    except APIError as error:
        job.add(_frames(progress.fail(error)[:-1]))
    except Exception:
        log.exception("a background response failed because of a defect in openai_compat")
        job.add(_frames(progress.fail(INTERNAL_ERROR)[:-1]))
    if not job.cancel.is_set:
        extends = keeper.state.extends if response.status in ("completed", "incomplete") else None
        job.finish(stored_body(response), output_items(response), extends)


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

        :raises APIError: 404 for a response that was deleted, 503 for a store that fails.
        """
        background = self._call.background
        assert background is not None
        while not self._closed.is_set():
            stored = read_response(self._id, self._call)
            found = self._next()
            if found:
                yield found
            elif stored is None:
                raise APIError(404, "The response was deleted.", code="not_found")
            elif is_final(status_of(stored)):
                yield self._terminal_events(stored)
                return
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
        """Return the last event, which is made of the response as it is stored; OpenAI has none for a cancelled one."""
        call, before = self._call, self._after - 1
        rows = ask(call.store, lambda store: store.events(RESPONSE, call.owner, self._id, before, limit=1))
        if self._after >= 0 and not rows:  # the client has all of them
            return []
        status, number = status_of(stored), self._after + 1
        response = Raw(response_body(stored, self._call))
        found: list[NamedEvent] = []
        if status == "failed" and not (
            rows and _ends_with_error(rows[-1][2])
        ):  # the process died before it could say so
            found = named([error_event(failure_of(stored), number)])
            number += 1
        name = f"response.{'incomplete' if status == 'cancelled' else status}"
        return [*found, NamedEvent(name, {"type": name, "sequence_number": number, "response": response})]


def _ends_with_error(data: bytes) -> bool:
    """Return whether the last of some frames is the event of an error."""
    return data.rstrip(b"\n").rpartition(b"\n\n")[2].startswith(b"event: error\n")


def is_background(members: dict[str, Raw]) -> bool:
    """Return whether a stored response was generated in the background."""
    return json.text_of(members["background"]) == b"true" if "background" in members else False
