"""Storing a completion: what ``store: true`` writes to the store.

The completion is stored as the JSON that was sent, with the metadata; the messages of the request are its items.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from openai_compat.endpoints.chat.answer import ChatCompletion
from openai_compat.endpoints.contract import CHAT_COMPLETION, Call
from openai_compat.storage.store import Item, StoredObject, StoreFailed
from openai_compat.translate.messages import ChatMessage, ContentPart
from openai_compat.translate.tools import FunctionCall, ToolCallIn
from openai_compat.wire import json

log = logging.getLogger("openai_compat")


class StoredMessage(Struct, kw_only=True):
    """Source: OpenAI's ``ChatCompletionMessageList.data[]``; the role is the message's own."""

    id: str
    role: str
    content: str | None
    refusal: str | None
    name: str | None
    content_parts: list[ContentPart] | None
    tool_calls: list[ToolCallIn] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


def _to_stored_message(id: str, message: ChatMessage) -> StoredMessage:
    parts = message.content if isinstance(message.content, list) else None
    return StoredMessage(
        id=id,
        role=message.role or "",
        content=message.content if isinstance(message.content, str) else None,
        refusal=message.refusal,
        name=message.name,
        content_parts=parts,
        tool_calls=message.tool_calls or UNSET,
        function_call=message.function_call or UNSET,
        tool_call_id=message.tool_call_id or UNSET,
    )


def store_completion(
    call: Call, completion: ChatCompletion, messages: Sequence[ChatMessage], metadata: dict[str, str]
) -> bool:
    """Store a completion with the messages that led to it; return whether that worked.

    A completion that cannot be stored is sent all the same: its tokens were spent.
    """
    if call.store is None:
        return False
    completion.metadata = metadata
    stored = StoredObject(completion.id, completion.created, completion.model, metadata, json.encode(completion))
    items = []
    for index, message in enumerate(messages):
        stored_message = _to_stored_message(f"{completion.id}-{index}", message)
        items.append(Item(stored_message.id, json.encode(stored_message)))
    try:
        call.store.add(CHAT_COMPLETION, call.owner, stored, items)
    except (StoreFailed, ValueError) as error:
        log.error("a completion could not be stored: %s", error)
        completion.metadata = UNSET
        return False
    return True
