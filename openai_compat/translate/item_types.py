"""Items of the Responses API as they come in requests, and what type each is of.

An item may come from another server or an older client: it has the fields that one of them sends, each of which may be
missing, and what no template can use is kept as JSON.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import APIError, invalid
from openai_compat.translate.content import ImageURL
from openai_compat.translate.fields import RequestObject
from openai_compat.translate.files import FileInput
from openai_compat.wire import json


class ItemPart(RequestObject):
    """A content part of any type; ``type`` says which of the fields counts. Source: OpenAI's ``InputContent``."""

    type: str | None = None
    #: null means empty in a history; absent, the part is none
    text: str | None | UnsetType = UNSET
    refusal: str | None = None
    image_url: str | ImageURL | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    #: chat's form of a file
    file: FileInput | None = None
    #: of an answer's text; clients send them back
    annotations: Raw | UnsetType = UNSET
    logprobs: Raw | UnsetType = UNSET


class MessageItem(RequestObject):
    """Source: OpenAI's ``EasyInputMessage``, ``InputMessage``, ``OutputMessage``."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    status: str | None = None
    content: str | list[ItemPart] | None = None
    #: of an assistant: commentary or final answer, which templates do not know
    phase: str | None = None


class CallItem(RequestObject):
    """Source: OpenAI's ``FunctionToolCall``, ``CustomToolCall``."""

    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    status: str | None = None
    namespace: str | None = None
    name: str | None = None
    #: of a function: a string, or from some clients an object
    arguments: Raw | UnsetType = UNSET
    #: of a custom tool
    input: str | None = None


class OutputItem(RequestObject):
    """Source: OpenAI's ``FunctionCallOutputItemParam``, ``CustomToolCallOutput``."""

    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    status: str | None = None
    name: str | None = None
    namespace: str | None = None
    #: a string or parts; other values are their JSON
    output: Raw | UnsetType = UNSET


class SearchCallItem(RequestObject):
    """Source: OpenAI's ``ToolSearchCallItemParam``."""

    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    status: str | None = None
    #: ``client`` or ``server``
    execution: str | None = None
    #: an object
    arguments: Raw | UnsetType = UNSET
    created_by: str | None = None


class ToolsItem(RequestObject):
    """Source: OpenAI's ``AdditionalToolsItemParam``, ``ToolSearchOutputItemParam``."""

    type: str | None = None
    id: str | None = None
    #: of tools that are added
    role: str | None = None
    #: of tools that a search found
    call_id: str | None = None
    status: str | None = None
    execution: str | None = None
    tools: list[Raw] | None = None
    created_by: str | None = None


class ReasoningItem(RequestObject):
    """Source: OpenAI's ``ReasoningItem``."""

    type: str | None = None
    id: str | None = None
    status: str | None = None
    encrypted_content: str | None = None
    summary: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET


class CompactionItem(RequestObject):
    """Source: OpenAI's ``CompactionSummaryItemParam``."""

    type: str | None = None
    id: str | None = None
    encrypted_content: str | None = None
    created_by: str | None = None


class OutputParts(RequestObject):
    """The parts of a call's result, in a struct of their own since they are decoded later than the item."""

    output: list[ItemPart]


decode_message = json.part_decoder(MessageItem)
decode_call = json.part_decoder(CallItem)
decode_output = json.part_decoder(OutputItem)
decode_search_call = json.part_decoder(SearchCallItem)
decode_tools = json.part_decoder(ToolsItem)
decode_reasoning = json.part_decoder(ReasoningItem)
decode_compaction = json.part_decoder(CompactionItem)
decode_part = json.part_decoder(ItemPart)
_decode_parts = json.part_decoder(OutputParts)

#: types of parts with a text
TEXT_PARTS = frozenset(["input_text", "output_text", "text", "summary_text", "reasoning_text"])
#: types of parts that are images; the second is chat's
IMAGE_PARTS = frozenset(["input_image", "image_url"])
#: types of parts that are files; the second is chat's
FILE_PARTS = frozenset(["input_file", "file"])
#: types of parts; a list without any of them is a value that a tool returned
_PARTS = TEXT_PARTS | IMAGE_PARTS | FILE_PARTS | {"refusal"}


def parts_of(output: Raw, path: str) -> tuple[list[ItemPart], list[str]] | None:
    """Return the content parts that a tool returned, and the paths of their unknown keys; None for another list.

    Results of tools may be any list, also one of objects that have a type: only where each is a sound part they are.

    :param output: an array.
    :param path: of the item, for the paths of keys.
    """
    try:
        kinds = {_kind(part, path) for part in json.items_of(output, path)}
        if None in kinds or (kinds and _PARTS.isdisjoint(kinds)):
            return None
        parts, unknown = _decode_parts(b'{"output":' + bytes(output) + b"}", path)
    except APIError:  # no objects, too many members, or members of other types
        return None
    return (parts.output, unknown) if all(map(_is_sound, parts.output)) else None


def _kind(part: Raw, path: str) -> str | None:
    return json.string(json.text_of(json.members_of(bytes(part), path).get("type", UNSET)))


def _is_sound(part: ItemPart) -> bool:
    """Return whether a part has what its type says; of an unknown type any has."""
    if part.type in TEXT_PARTS:
        return part.text is not UNSET
    if part.type in IMAGE_PARTS:
        return bool(part.file_id or (part.image_url.url if isinstance(part.image_url, ImageURL) else part.image_url))
    if part.type in FILE_PARTS:
        file = part.file or part
        return bool(file.file_data or file.file_url or file.file_id)
    return bool(part.type) and (part.type != "refusal" or part.refusal is not None)


def unknown_part(kind: str, path: str) -> APIError:
    """Return the error for a part of an unknown type; those of a history are passed over instead."""
    supported = "Supported values are: 'input_text', 'input_image' and 'input_file'."
    return invalid(f"unknown content type: {kind[:64]}. {supported}", path)


def item_type(members: dict[str, Raw], path: str) -> str:
    """Return the type of an item, by its members; messages and references may have none.

    :raises APIError: 400 for an item that has neither a type, nor what tells it.
    """
    kind = json.string(json.text_of(members.get("type", UNSET)))
    if kind:
        return kind
    if json.text_of(members.get("role", UNSET)):
        return "message"
    if set(members) <= {"id", "type"} and json.text_of(members.get("id", UNSET)):
        return "item_reference"
    text = f"{path}: input item missing required 'type' field"
    raise invalid(text, f"{path}.type", "missing_required_parameter")
