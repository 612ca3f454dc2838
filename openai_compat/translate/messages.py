"""Messages, from OpenAI's to Ollama's, one for one; their content is mapped in ``content.py``.

A message of the history may be of another server: what has no native counterpart is listed, and never fails.

Source: ollama ``openai/openai.go`` ``FromChatRequest``. Differs: ``developer`` is ``system``, null content is "",
references in the history survive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing, too_long
from openai_compat.log import log
from openai_compat.native import types as native
from openai_compat.translate.content import Content, ContentPart, Fetch
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.files import Files
from openai_compat.translate.past_calls import PastCalls
from openai_compat.translate.tools import FunctionCall, ToolCallIn, from_function_call, from_tool_calls
from openai_compat.wire import json


class ChatMessage(RequestObject):
    """Source: OpenAI's ``ChatCompletionRequestMessage``, all roles in one."""

    role: str | None = None
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    #: of an assistant message: the id of audio, which this server never makes
    audio: Raw | UnsetType = UNSET
    #: of an assistant message: citations, which this server never makes; clients send the empty list back
    annotations: Raw | UnsetType = UNSET
    #: of an assistant message: text; the structures of other servers are ignored
    reasoning: Raw | UnsetType = UNSET
    reasoning_content: Raw | UnsetType = UNSET


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

#: names of roles that only some models have, such as ``control``, ``context`` and ``ipython``
_ROLE = re.compile(r"[A-Za-z0-9_-]{1,64}")

_decode_message = json.part_decoder(ChatMessage)
_decode_messages = json.list_decoder(ChatMessage)

#: bytes of messages that are decoded at once: it is faster, and decoded they take some hundred kB
_FEW = 65_536


def read_messages(raw: Raw | UnsetType, ignored: Ignored, limit: int) -> Iterable[ChatMessage]:
    """Decode messages; those of a large request one at a time, since together they take many times their text's memory.

    :param limit: number of messages.
    :raises APIError: 400 for no messages, too many, and one that is not valid; ``param`` is its path.
    """
    if json.is_blank(raw):
        code = "empty_array" if json.text_of(raw) else "missing_required_parameter"
        raise invalid("[] is too short - 'messages'", "messages", code)
    assert raw is not UNSET
    text = json.text_of(raw)
    few = _decode_messages(text) if len(text) <= _FEW else None
    if few is not None and len(few) <= limit:
        return few
    items = json.items_of(raw, "messages")
    if len(items) > limit:
        raise too_long("messages", limit, len(items))
    return _one_by_one(items, ignored)


def _one_by_one(items: Iterable[Raw], ignored: Ignored) -> Iterator[ChatMessage]:
    for i, item in enumerate(items):
        message, unknown = _decode_message(bytes(item), f"messages[{i}]")
        for name in unknown:
            ignored.add(name)
        yield message


def from_messages(
    messages: Iterable[ChatMessage], ignored: Ignored, fetch: Fetch | None = None, *, files: Files | None = None
) -> list[native.Message]:
    """Map all messages, in order.

    :param fetch: downloads images by URL; without it they are refused.
    :param files: reads the files of the request; by default with the default limits, and none by URL.
    :raises APIError: 400 whose ``param`` is the path of what is not valid, such as ``messages[0].content[1]``.
    """
    past = PastCalls()
    files = files or Files()
    return [_from_message(message, f"messages[{i}]", past, ignored, fetch, files) for i, message in enumerate(messages)]


def _from_message(
    message: ChatMessage, path: str, past: PastCalls, ignored: Ignored, fetch: Fetch | None, files: Files
) -> native.Message:
    role, thinking = native_role(message.role, path), ""
    if isinstance(message.content, str) and message.content:
        sent = native.Message(role, message.content)
    else:
        content = Content(role, path, ignored, fetch, files)
        sent = native.Message(role, content.text_of(message.content, message.refusal))
        if content.images:
            sent.images = content.images
        thinking = "".join(content.thinking)
    if role == "assistant":
        _set_assistant(sent, message, path, thinking, ignored)
        for call in sent.tool_calls or ():
            past.add(call)
    elif message.tool_calls or message.function_call or message.reasoning or message.reasoning_content:
        _note_unused(message, ignored)
    if role == "tool":
        _set_tool(sent, message, past)
    elif message.tool_call_id:
        ignored.add("messages[].tool_call_id")
    if role != "assistant":
        past.end_turn()
    if message.name and role != "tool":
        ignored.add("messages[].name")
    if message.refusal and sent.content != message.refusal:
        ignored.add("messages[].refusal")
    for name, raw in (("audio", message.audio), ("annotations", message.annotations)):
        if raw is not UNSET and not json.is_blank(raw):
            ignored.add(f"messages[].{name}")
    return sent


def native_role(role: str | None, path: str) -> str:
    """Return the native role; one that OpenAI does not have goes to the model's template as it is.

    :raises APIError: 400 for an absent role, and for text that is no name.
    """
    if role is None:
        raise missing(f"{path}.role")
    known = ROLES.get(role) or ROLES.get(role.lower())
    if known is None and not _ROLE.fullmatch(role):
        supported = ", ".join(f"'{name}'" for name in ROLES)
        raise invalid(f"Invalid value: '{role[:64]}'. Supported values are: {supported}.", f"{path}.role")
    if known is None:
        log.info("the role %r is passed on as it is; templates that do not know it leave its messages out", role)
    return known or role


def _set_assistant(
    sent: native.Message,
    message: ChatMessage,
    path: str,
    thinking: str,
    ignored: Ignored,
) -> None:
    """Set thinking and tool calls of a native message; ``tool_calls`` wins over ``function_call``.

    :param thinking: of the content.
    """
    reasoning = _reasoning_text(message, ignored)
    if thinking and reasoning not in ("", thinking):
        ignored.add("messages[].content[].thinking")
    if reasoning or thinking:
        sent.thinking = reasoning or thinking
    calls, function_call = message.tool_calls or [], message.function_call
    if function_call is not None and not function_call.name and json.is_blank(function_call.arguments):
        function_call = None
    if calls:
        if function_call is not None:
            ignored.add("messages[].function_call")
        sent.tool_calls = from_tool_calls(calls, f"{path}.tool_calls", ignored)
    elif function_call is not None:
        sent.tool_calls = [native.ToolCall(from_function_call(function_call, f"{path}.function_call"))]


def _note_unused(message: ChatMessage, ignored: Ignored) -> None:
    """List the fields of an assistant message that a message of another role has."""
    for name in ("reasoning", "reasoning_content"):
        if not json.is_blank(getattr(message, name)):
            ignored.add(f"messages[].{name}")
    for name in ("tool_calls", "function_call"):
        if getattr(message, name):
            ignored.add(f"messages[].{name}")


def _reasoning_text(message: ChatMessage, ignored: Ignored) -> str:
    """Return the reasoning of a message; other values than text are listed as ignored."""
    found = ""
    for name, raw in (("reasoning", message.reasoning), ("reasoning_content", message.reasoning_content)):
        if raw is UNSET:
            continue
        text = json.text_of(raw)
        if text[:1] == b'"':
            value = json.string(text) or ""
            if found and value and value != found:
                ignored.add(f"messages[].{name}")
            found = found or value
        elif not json.is_blank(raw):
            ignored.add(f"messages[].{name}")
    return found


def _set_tool(sent: native.Message, message: ChatMessage, past: PastCalls) -> None:
    """Map a tool message: Ollama wants the function's name, OpenAI's clients send only the id of the call.

    Older clients send neither: their results are in the order of the calls.
    """
    call = past.answered(message.tool_call_id, message.name)
    name = message.name or (call.function.name if call is not None else "")
    id = message.tool_call_id or (call.id if call is not None else "")
    if name:
        sent.tool_name = name
    if id:
        sent.tool_call_id = id
