"""Storing of completions, for requests with ``store: true``.

A completion is stored as the JSON of a response that is not streamed, with the metadata; the request's messages are its
items. Stored completions are read in ``endpoints/stored.py``.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.endpoints.chat.answer import ChatCompletion
from openai_compat.endpoints.contract import CHAT_COMPLETION, Call
from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.storage.store import Item, StoredObject, StoreFailed
from openai_compat.translate.content import ContentPart
from openai_compat.translate.fields import Ignored
from openai_compat.translate.messages import ChatMessage, read_messages
from openai_compat.translate.tools import FunctionCall, ToolCallIn
from openai_compat.wire import json


class StoredMessage(Struct, kw_only=True):
    """A message of the request.

    Source: OpenAI's ``ChatCompletionMessageList.data[]``. Differs: ``role`` is not always ``assistant``.
    """

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
    call: Call, completion: ChatCompletion, messages: Raw | UnsetType, metadata: dict[str, str]
) -> bool:
    """Store a completion with the request's messages, and return whether that worked.

    A failure is only logged: the completion was generated and is still sent. If it is stored, *metadata* is set in it.

    :raises APIError: 503 for a failure, if the settings want that.
    """
    if call.store is None:
        return False
    completion.metadata = metadata
    stored = StoredObject(completion.id, completion.created, completion.model, metadata, json.encode(completion))
    items = []
    decoded = read_messages(messages, Ignored(call.settings, []), call.settings.max_messages)
    for index, message in enumerate(decoded):
        stored_message = _to_stored_message(f"{completion.id}-{index}", message)
        items.append(Item(stored_message.id, json.encode(stored_message)))
    try:
        call.store.add(CHAT_COMPLETION, call.owner, stored, items)
    except (StoreFailed, ValueError) as error:
        log.error("a completion could not be stored: %s", error)
        if call.settings.store_failure == "refuse":
            raise APIError(503, "The completion could not be stored.", code="store_failed", retry=False) from error
        completion.metadata = UNSET
        return False
    return True
