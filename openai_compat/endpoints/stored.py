"""Stored chat completions: list, retrieve, update and delete them, and list the messages of one.

A stored object belongs to an owner, and does not exist for any other. Without a store the list is empty, and no id
exists. Objects are stored by the chat endpoint, not here. Damaged objects are left out of lists.

Source: OpenAI's *stored chat completions*; Ollama has no such API.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.contract import CHAT_COMPLETION, Answer, Call, Reply
from openai_compat.errors import missing
from openai_compat.native.client import Backend
from openai_compat.storage.store import StoredObject
from openai_compat.translate.fields import Ignored, RequestObject, emulated
from openai_compat.translate.listing import ListQuery, PageQuery, from_query, to_page
from openai_compat.translate.metadata import from_metadata
from openai_compat.translate.store_errors import ask, check_deleted, existing, is_sound, page_of_items
from openai_compat.wire import json

_WHAT = "Chat completion"


class UpdateRequest(RequestObject):
    """Source: OpenAI's ``POST /chat/completions/{completion_id}``."""

    metadata: Annotated[Raw | UnsetType, emulated("replaces the stored metadata")] = UNSET


class Deleted(Struct, kw_only=True):
    """Source: OpenAI's ``ChatCompletionDeleted``."""

    object: str = "chat.completion.deleted"
    id: str
    deleted: bool = True


_decode = json.request_decoder(UpdateRequest)


def list_all(call: Call, backend: Backend) -> Reply:
    """List stored chat completions."""
    ignored = Ignored(call.settings, [])
    query = from_query(call.query, ListQuery, ignored)
    page = ask(
        call.store,
        lambda store: store.page(
            CHAT_COMPLETION,
            call.owner,
            after=query.after,
            limit=query.limit,
            order=query.order,
            model=query.model,
            metadata=query.metadata,
            is_valid=is_sound,
            max_bytes=call.settings.max_body,
        ),
    )
    rows = {stored.id: _body(stored) for stored in page.rows} if page is not None else {}
    return Answer(to_page(rows, has_more=page is not None and page.has_more), ignored.headers())


def retrieve(call: Call, backend: Backend) -> Reply:
    """Return a stored chat completion.

    :raises APIError: 404; 503 for a store that fails.
    """
    id = call.path["id"]
    stored = ask(call.store, lambda store: store.get(CHAT_COMPLETION, call.owner, id, is_sound))
    return Answer(Raw(_body(existing(stored, _WHAT, id))))


def update(call: Call, backend: Backend) -> Reply:
    """Replace the metadata of a stored chat completion.

    :raises APIError: 400 for metadata that is not valid; 404; 503 for a store that fails.
    """
    request, unknown = _decode(call.body)
    if request.metadata is UNSET:
        raise missing("metadata")
    metadata, id = from_metadata(request.metadata), call.path["id"]
    stored = ask(call.store, lambda store: store.set_metadata(CHAT_COMPLETION, call.owner, id, metadata, is_sound))
    return Answer(Raw(_body(existing(stored, _WHAT, id))), Ignored(call.settings, unknown).headers())


def delete(call: Call, backend: Backend) -> Reply:
    """Delete a stored chat completion.

    :raises APIError: 404; 503 for a store that fails.
    """
    id = call.path["id"]
    was_deleted = ask(call.store, lambda store: store.delete(CHAT_COMPLETION, call.owner, id))
    check_deleted(was_deleted, _WHAT, id)
    return Answer(Deleted(id=id))


def messages(call: Call, backend: Backend) -> Reply:
    """List the request messages of a stored chat completion.

    :raises APIError: 404; 503 for a store that fails.
    """
    ignored = Ignored(call.settings, [])
    query, id = from_query(call.query, PageQuery, ignored), call.path["id"]
    page = page_of_items(call.store, CHAT_COMPLETION, call.owner, id, query, _WHAT, max_bytes=call.settings.max_body)
    return Answer(page, ignored.headers())


def _body(stored: StoredObject) -> bytes:
    """Return the JSON of a stored completion with its current metadata, which may have been updated."""
    return json.encode({**json.members(stored.body), "metadata": stored.metadata})
