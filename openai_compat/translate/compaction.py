"""What a compaction stands for in a history: the model is told the newest one instead of what precedes it.

What the user said stays, as in the answer of ``POST /responses/compact``, and so do the messages of the system: nothing
repeats them. The items are stored and listed as they were.

Source: OpenAI's guide to compaction, where the newest item has the context that is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import UNSET, Raw

from openai_compat.translate.item_types import item_type
from openai_compat.translate.sealed_text import unseal
from openai_compat.wire import json

#: roles of messages whose place a summary takes
_SUMMARIZED = frozenset(["assistant", "tool", "function"])


def uncompacted(items: Sequence[Raw], past: int = 0) -> Iterator[tuple[int, Raw]]:
    """Yield the items that the newest compaction does not stand for, that itself included, with their places.

    A compaction of another server, which cannot be read, stands for nothing.

    :param past: number of the first items, which are not of the request.

    :raises APIError: 400 for an item without a type.
    """
    newest = _newest(items, past)
    for i, raw in enumerate(items):
        if i >= newest or not _is_summarized(raw, f"input[{i - past}]"):
            yield i, raw


def _newest(items: Sequence[Raw], past: int) -> int:
    """Return the place of the newest compaction that can be read; 0 without one."""
    for i in range(len(items) - 1, 0, -1):
        if _is_readable(bytes(items[i]), f"input[{i - past}]"):
            return i
    return 0


def _is_readable(text: bytes, path: str) -> bool:
    """Return whether an item is a compaction that this server made."""
    if b"encrypted_content" not in text:  # without decoding each item twice
        return False
    members = json.members_of(text, path)
    if item_type(members, path) != "compaction":
        return False
    sealed = json.string(json.text_of(members.get("encrypted_content", UNSET)))
    return bool(sealed and unseal(sealed, "compaction"))


def _is_summarized(raw: Raw, path: str) -> bool:
    """Return whether an item is part of what a later compaction stands for."""
    members = json.members_of(bytes(raw), path)
    return item_type(members, path) != "message" or role_of(members) in _SUMMARIZED


def role_of(members: dict[str, Raw]) -> str | None:
    """Return the role of a message, by its members; None without a valid one."""
    role = json.string(json.text_of(members.get("role", UNSET)))
    return None if role is None else role.lower()
