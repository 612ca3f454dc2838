"""References to stored items, in the input of a response and among the items of a conversation.

Source: OpenAI's ``ItemReferenceParam``; Ollama stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Raw

from openai_compat.errors import invalid, missing
from openai_compat.storage.store import Store
from openai_compat.translate.item_types import item_type
from openai_compat.translate.store_errors import ask, is_sound, needs_store
from openai_compat.wire import json


def resolved(items: Sequence[Raw], field: str, store: Store | None, owner: str | None, max_bytes: int) -> list[Raw]:
    """Return items, with stored ones in the places of references to them.

    :param field: where the items stand in the request, for errors.
    :param max_bytes: bytes of all stored items together; many references may name one large item.
    :raises APIError: 400 without a store, for an item that is not stored, and for too many bytes; 503 for a store that
        fails.
    """
    references = _references(items, field)
    if not references:
        return list(items)
    if store is None:
        raise needs_store(f"{field}[{next(iter(references))}].id")
    ids = list(references.values())
    sizes = ask(store, lambda store: store.sizes_of_items(owner, ids)) or {}
    _check_sizes(references, sizes, field, max_bytes)
    found = ask(store, lambda store: store.find_items(owner, ids, is_valid=is_sound)) or {}
    result = list(items)
    for index, id in references.items():
        if id not in found:
            raise invalid(f"Item with id '{id[:128]}' not found.", f"{field}[{index}].id", "item_not_found")
        result[index] = Raw(found[id].body)
    return result


def _check_sizes(references: dict[int, str], sizes: dict[str, int], field: str, max_bytes: int) -> None:
    """Check the bytes of all items that are referred to, before they are read.

    :raises APIError: 400.
    """
    rest = max_bytes
    for index, id in references.items():
        rest -= sizes.get(id, 0)
        if rest < 0:
            text = f"the items that it refers to have more than {max_bytes} bytes together."
            raise invalid(f"Invalid '{field}': {text}", f"{field}[{index}]")


def _references(items: Sequence[Raw], field: str) -> dict[int, str]:
    """Return the ids of the items that only refer to stored ones, by their places."""
    found = {}
    for index, raw in enumerate(items):
        if b"item_reference" in bytes(raw) or len(raw_text := bytes(raw)) < _SHORT and b'"id"' in raw_text:
            path = f"{field}[{index}]"
            members = json.members_of(bytes(raw), path)
            if item_type(members, path) == "item_reference":
                id = json.string(json.text_of(members.get("id", UNSET)))
                if not id:
                    raise missing(f"{path}.id")
                found[index] = id
    return found


#: bytes of an item that may be a reference without a type; an id has at most 512
_SHORT = 1024
