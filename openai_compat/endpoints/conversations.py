"""Conversations: create, retrieve, update and delete them; add, list, retrieve and delete their items.

A response that names a conversation goes on from its items and adds its own. A conversation belongs to an owner, and
does not exist for any other.

Source: OpenAI's *Conversations*; Ollama has no such API.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.contract import CONVERSATION, Answer, Call, Reply
from openai_compat.errors import APIError, missing, too_long
from openai_compat.native.client import Backend
from openai_compat.storage.store import Item, Store, StoredObject
from openai_compat.translate.fields import Ignored, RequestObject, emulated
from openai_compat.translate.items import check_items
from openai_compat.translate.listing import ItemsQuery, ListPage, from_query, to_page
from openai_compat.translate.metadata import from_metadata
from openai_compat.translate.references import resolved
from openai_compat.translate.store_errors import ask, check_deleted, existing, is_sound, needs_store, page_of_items
from openai_compat.translate.stored_items import to_stored_item
from openai_compat.wire import json

#: items of one call; OpenAI's limit
MAX_ITEMS = 20

_WHAT = "Conversation"


class ConversationRequest(RequestObject):
    """Source: OpenAI's ``CreateConversationBody``."""

    items: Annotated[list[Raw] | None, emulated("the first items, at most 20")] = None
    metadata: Annotated[Raw | UnsetType, emulated("stored and returned")] = UNSET


class ConversationUpdate(RequestObject):
    """Source: OpenAI's ``UpdateConversationBody``."""

    metadata: Annotated[Raw | UnsetType, emulated("replaces the stored metadata")] = UNSET


class ItemsRequest(RequestObject):
    """Source: OpenAI's ``POST /conversations/{conversation_id}/items``."""

    items: Annotated[list[Raw] | None, emulated("items to add, at most 20")] = None


class Conversation(Struct, kw_only=True):
    """Source: OpenAI's ``ConversationResource``."""

    id: str
    object: str = "conversation"
    #: Unix seconds
    created_at: int
    metadata: dict[str, str]


class Deleted(Struct, kw_only=True):
    """Source: OpenAI's ``DeletedConversationResource``."""

    id: str
    object: str = "conversation.deleted"
    deleted: bool = True


_decode = json.request_decoder(ConversationRequest)
_decode_update = json.request_decoder(ConversationUpdate)
_decode_items = json.request_decoder(ItemsRequest)


def create(call: Call, backend: Backend) -> Reply:
    """Create a conversation.

    :raises APIError: 400 without a store, for items or metadata that are not valid; 503 for a store that fails.
    """
    request, unknown = _decode(call.body or b"{}")
    store = _store(call)
    items, metadata = _items(request.items or [], call), from_metadata(request.metadata)
    created = Conversation(id=call.new_id("conv_"), created_at=call.now, metadata=metadata)
    stored = StoredObject(created.id, call.now, "", metadata, json.encode(created))
    _write(store, lambda store: store.add(CONVERSATION, call.owner, stored, items))
    return Answer(created, Ignored(call.settings, unknown).headers())


def retrieve(call: Call, backend: Backend) -> Reply:
    """Return a conversation.

    :raises APIError: 404; 503 for a store that fails.
    """
    return Answer(_conversation(_read(call)))


def update(call: Call, backend: Backend) -> Reply:
    """Replace the metadata of a conversation.

    :raises APIError: 400 for metadata that is not valid; 404; 503 for a store that fails.
    """
    request, unknown = _decode_update(call.body)
    if request.metadata is UNSET:
        raise missing("metadata")
    metadata, id = from_metadata(request.metadata), call.path["id"]
    stored = ask(call.store, lambda store: store.set_metadata(CONVERSATION, call.owner, id, metadata))
    return Answer(_conversation(existing(stored, _WHAT, id)), Ignored(call.settings, unknown).headers())


def delete(call: Call, backend: Backend) -> Reply:
    """Delete a conversation; the responses in it stay.

    :raises APIError: 404; 503 for a store that fails.
    """
    id = call.path["id"]
    check_deleted(ask(call.store, lambda store: store.delete(CONVERSATION, call.owner, id)), _WHAT, id)
    return Answer(Deleted(id=id))


def add_items(call: Call, backend: Backend) -> Reply:
    """Add items to a conversation, all or none.

    :raises APIError: 400 for items that are not valid; 404; 503 for a store that fails.
    """
    request, unknown = _decode_items(call.body)
    ignored, id = Ignored(call.settings, unknown), call.path["id"]
    for name, _ in call.query:
        if name.removesuffix("[]") != "include":
            ignored.add(name)
    if not request.items:
        raise missing("items")
    items = _items(request.items, call)
    added = _write(call.store, lambda store: store.append(CONVERSATION, call.owner, id, items))
    check_deleted(added, _WHAT, id)
    return Answer(_page(items, has_more=False), ignored.headers())


def list_items(call: Call, backend: Backend) -> Reply:
    """List the items of a conversation.

    :raises APIError: 404; 503 for a store that fails.
    """
    ignored, id = Ignored(call.settings, []), call.path["id"]
    query = from_query(call.query, ItemsQuery, ignored)
    page = page_of_items(call.store, CONVERSATION, call.owner, id, query, _WHAT, max_bytes=call.settings.max_body)
    return Answer(page, ignored.headers())


def retrieve_item(call: Call, backend: Backend) -> Reply:
    """Return an item of a conversation.

    :raises APIError: 404; 503 for a store that fails.
    """
    _read(call)
    id, item_id = call.path["id"], call.path["item"]
    item = ask(
        call.store,
        lambda store: store.item(CONVERSATION, call.owner, id, item_id, is_valid=is_sound),
    )
    return Answer(Raw(existing(item, "Item", item_id).body))


def delete_item(call: Call, backend: Backend) -> Reply:
    """Delete an item of a conversation, and return the conversation.

    :raises APIError: 404; 503 for a store that fails.
    """
    stored, id, item_id = _read(call), call.path["id"], call.path["item"]
    was_deleted = ask(call.store, lambda store: store.delete_item(CONVERSATION, call.owner, id, item_id))
    check_deleted(was_deleted, "Item", item_id)
    return Answer(_conversation(stored))


def _store(call: Call) -> Store:
    if call.store is None:
        raise needs_store("conversation")
    return call.store


def _read(call: Call) -> StoredObject:
    id = call.path["id"]
    return existing(ask(call.store, lambda store: store.get(CONVERSATION, call.owner, id)), _WHAT, id)


def _write(store: Store | None, write: Any) -> Any:
    """Return the result of a write.

    :raises APIError: 400 for what is too large to be stored; 503 for a store that fails.
    """
    try:
        return ask(store, write)
    except ValueError as error:
        raise APIError(400, "The items are too large to be stored.", param="items", code="store_failed") from error


def _items(raws: list[Raw], call: Call) -> list[Item]:
    """Return items as they are stored; those in the places of references are copies.

    An image or a file by its URL is fetched when a response goes on from it, not here.

    :raises APIError: 400 for too many, for one that no response could go on from, and for a reference to one that is
        not stored; 503 for a store that fails.
    """
    if len(raws) > MAX_ITEMS:
        raise too_long("items", MAX_ITEMS, len(raws))
    found = resolved(raws, "items", call.store, call.owner, call.settings.max_body)
    items = [to_stored_item(raw, f"items[{i}]", call.new_id) for i, raw in enumerate(found)]
    fetch = None if call.fetch is None else _unfetched
    check_items(found, "items", call.settings, Ignored(call.settings, []), call.files.unfetched(), fetch)
    return items


def _unfetched(url: str, path: str) -> bytes:
    return b""


def _conversation(stored: StoredObject) -> Conversation:
    return Conversation(id=stored.id, created_at=stored.created, metadata=stored.metadata)


def _page(items: list[Item], *, has_more: bool) -> ListPage:
    return to_page({item.id: item.body for item in items}, has_more=has_more)
