"""Stored responses: retrieve, follow, cancel and delete them, and list the items of their input.

A response belongs to an owner, and does not exist for any other.

Source: OpenAI's *Responses*; Ollama has no such API.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Raw, Struct

from openai_compat.endpoints.contract import RESPONSE, Answer, Call, Reply
from openai_compat.endpoints.responses.answer import is_final
from openai_compat.endpoints.responses.background import follow, is_background
from openai_compat.endpoints.responses.state import read_response, response_body, status_of
from openai_compat.errors import invalid
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored, accepted, emulated
from openai_compat.translate.listing import ItemsQuery, from_query
from openai_compat.translate.store_errors import ask, check_deleted, existing, page_of_items
from openai_compat.wire import json

_WHAT = "Response"


class RetrieveQuery(Struct, kw_only=True):
    """The query parameters of one response."""

    stream: Annotated[bool, emulated("``true``: the events of a response in the background")] = False
    starting_after: Annotated[
        int | None, emulated("with ``stream``: the number of the last event that the client has")
    ] = None
    include: Annotated[str | None, accepted("what is there is always included")] = None
    include_obfuscation: Annotated[str | None, accepted("nothing is obfuscated")] = None


class Deleted(Struct, kw_only=True):
    """Source: OpenAI's ``DeleteResponse``."""

    id: str
    object: str = "response"
    deleted: bool = True


def retrieve(call: Call, backend: Backend) -> Reply:
    """Return a stored response, or the events of one in the background.

    :raises APIError: 400 for the events of another response; 404; 503 for a store that fails.
    """
    ignored = Ignored(call.settings, [])
    query = from_query(call.query, RetrieveQuery, ignored)
    id = call.path["id"]
    stored = existing(read_response(id, call), _WHAT, id)
    if not query.stream:
        if query.starting_after is not None:
            ignored.add("starting_after")
        return Answer(Raw(response_body(stored, call)), ignored.headers())
    if not is_background(json.members(stored.body)):
        raise invalid("Only a response with 'background' can be streamed again.", "stream")
    return follow(call, id, ignored.headers(), after=-1 if query.starting_after is None else query.starting_after)


def cancel(call: Call, backend: Backend) -> Reply:
    """Cancel a response in the background; one that has ended is returned as it is.

    :raises APIError: 400 for a response that is not in the background; 404; 503 for a store that fails.
    """
    id = call.path["id"]
    stored = existing(read_response(id, call), _WHAT, id)
    if not is_background(json.members(stored.body)):
        raise invalid("Cannot cancel a synchronous response.", "response_id")
    background = call.background
    if not is_final(status_of(stored)) and background is not None:
        ask(call.store, lambda store: background.cancel(call.owner, id))
        stored = existing(read_response(id, call), _WHAT, id)
    return Answer(Raw(response_body(stored, call)))


def delete(call: Call, backend: Backend) -> Reply:
    """Delete a stored response; responses that go on from it keep its items.

    :raises APIError: 404; 503 for a store that fails.
    """
    id = call.path["id"]
    stored = existing(read_response(id, call), _WHAT, id)
    background = call.background
    if not is_final(status_of(stored)) and background is not None:
        ask(call.store, lambda store: background.cancel(call.owner, id))
    check_deleted(ask(call.store, lambda store: store.delete(RESPONSE, call.owner, id)), _WHAT, id)
    return Answer(Deleted(id=id))


def input_items(call: Call, backend: Backend) -> Reply:
    """List the items of a stored response's input, with the history that it goes on from.

    :raises APIError: 404; 503 for a store that fails.
    """
    ignored = Ignored(call.settings, [])
    query, id = from_query(call.query, ItemsQuery, ignored), call.path["id"]
    page = page_of_items(
        call.store, RESPONSE, call.owner, id, query, _WHAT, section=0, max_bytes=call.settings.max_body
    )
    return Answer(page, ignored.headers())
