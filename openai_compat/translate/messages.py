"""Messages, from OpenAI's to Ollama's, one for one.

The content parts of a message stay one native message: text joined in order, images and audio beside it.

Source: ollama ``openai/openai.go`` ``FromChatRequest``, ``decodeImageURL``. Differs: parts are not split into
messages, ``developer`` is ``system``, null content is "", references in the history survive.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing, too_long
from openai_compat.log import log
from openai_compat.native import types as native
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.tools import FunctionCall, ToolCallIn, from_function_call, from_tool_calls
from openai_compat.wire import json


class ImageURL(RequestObject, omit_defaults=True):
    """Source: OpenAI's ``ChatCompletionRequestMessageContentPartImage.image_url``."""

    url: str | None = None
    detail: str | None = None


class InputAudio(RequestObject, omit_defaults=True):
    """Source: OpenAI's ``ChatCompletionRequestMessageContentPartAudio.input_audio``."""

    #: base64
    data: str | None = None
    format: str | None = None


class ContentPart(RequestObject, omit_defaults=True):
    """A content part of any type; ``type`` says which of the fields counts."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageURL | None = None
    input_audio: InputAudio | None = None
    #: of an assistant message: text, or parts with a text, as other servers return them
    thinking: Any = None
    reasoning: Any = None
    summary: Any = None


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


#: downloads an image: (URL, path of the field for errors) -> bytes
Fetch = Callable[[str, str], bytes]


_decode_message = json.part_decoder(ChatMessage)

#: names of roles that only some models have, such as ``control``, ``context`` and ``ipython``
_ROLE = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
    few = _decode_messages(bytes(raw)) if len(bytes(raw)) <= _FEW else None
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
    messages: Iterable[ChatMessage], ignored: Ignored, fetch: Fetch | None = None
) -> list[native.Message]:
    """Map all messages, in order.

    :param fetch: downloads images by URL; without it they are refused.
    :raises APIError: 400 whose ``param`` is the path of what is not valid, such as ``messages[0].content[1]``.
    """
    functions: dict[str, str] = {}  # the function of each tool call so far, by the id of the call
    return [_from_message(message, f"messages[{i}]", functions, ignored, fetch) for i, message in enumerate(messages)]


def _from_message(
    message: ChatMessage, path: str, functions: dict[str, str], ignored: Ignored, fetch: Fetch | None
) -> native.Message:
    role, thinking = _role(message.role, path), ""
    if isinstance(message.content, str) and message.content:
        sent = native.Message(role, message.content)
    else:
        content = _Content(role, path, ignored, fetch)
        sent = native.Message(role, content.text_of(message))
        if content.files:
            sent.images = content.files
        thinking = "".join(content.thinking)
    if role == "assistant":
        _set_assistant(sent, message, path, functions, thinking, ignored)
    elif message.tool_calls or message.function_call or message.reasoning or message.reasoning_content:
        _note_unused(message, ignored)
    if role == "tool":
        _set_tool(sent, message, functions)
    elif message.tool_call_id:
        ignored.add("messages[].tool_call_id")
    if message.name and role != "tool":
        ignored.add("messages[].name")
    if message.refusal and sent.content != message.refusal:
        ignored.add("messages[].refusal")
    for name, raw in (("audio", message.audio), ("annotations", message.annotations)):
        if raw is not UNSET and not json.is_blank(raw):
            ignored.add(f"messages[].{name}")
    return sent


def _role(role: str | None, path: str) -> str:
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
    functions: dict[str, str],
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
        for call, native_call in zip(calls, sent.tool_calls, strict=True):
            if call.id:
                functions[call.id] = native_call.function.name
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


def _set_tool(sent: native.Message, message: ChatMessage, functions: dict[str, str]) -> None:
    """Map a tool message: Ollama wants the function's name, OpenAI's clients send only the id of the call."""
    name = message.name or functions.get(message.tool_call_id or "")
    if name:
        sent.tool_name = name
    if message.tool_call_id:
        sent.tool_call_id = message.tool_call_id


#: types of parts with text, by the field that holds it; some servers call the answer's text ``output_text``
_TEXT_PARTS = {"text": "text", "refusal": "refusal"}
#: types of parts of an assistant message that are thinking
_THINKING_PARTS = ("thinking", "reasoning")


_ALL_FIELDS = frozenset(ContentPart.__struct_fields__) - {"type"}
_USED = {
    "text": frozenset(("text",)),
    "refusal": frozenset(("refusal",)),
    "image_url": frozenset(("image_url",)),
    "input_audio": frozenset(("input_audio",)),
    "output_text": frozenset(("text",)),
}


class _Content:
    """The content of one message: its text, and the images, audio and thinking among its parts."""

    def __init__(self, role: str, path: str, ignored: Ignored, fetch: Fetch | None) -> None:
        self._role = role
        self._path = path
        self._ignored = ignored
        self._fetch = fetch
        #: base64
        self.files: list[str] = []
        self.thinking: list[str] = []

    def text_of(self, message: ChatMessage) -> str:
        """Return the text of a message, and collect its files and its thinking; a refusal without content is the text.

        :raises APIError: 400 for a part that is not valid.
        """
        content = message.content
        if not content:
            return message.refusal or ""
        if isinstance(content, str):
            return content
        return "".join([self._part(part, f"{self._path}.content[{i}]") for i, part in enumerate(content)])

    def _part(self, part: ContentPart, path: str) -> str:
        """Return the text of a content part; of another part nothing, after it was collected."""
        self._note_unused(part)
        if part.type in _TEXT_PARTS:
            field = _TEXT_PARTS[part.type]
            text: str | None = getattr(part, field)
            return _required("" if text is None and self._role == "assistant" else text, f"{path}.{field}")
        if part.type == "image_url":
            self.files.append(self._image(part, path))
        elif part.type == "input_audio":
            self.files.append(self._audio(part, path))
        elif part.type is None:
            raise missing(f"{path}.type")
        elif self._role == "assistant" and part.type in _THINKING_PARTS:
            self._add_thinking(part)
        elif self._role == "assistant" and part.type == "output_text":
            return part.text or ""
        elif self._role in ("assistant", "tool"):  # the history may be of another server
            self._ignored.add(f"messages[].content[].{part.type}")
        else:
            text = "Supported values are: 'text', 'image_url' and 'input_audio'."
            raise invalid(f"Invalid value: '{part.type[:64]}'. {text}", path)
        return ""

    def _add_thinking(self, part: ContentPart) -> None:
        for name in ("thinking", "reasoning", "summary", "text"):
            value = getattr(part, name)
            text = _texts(value)
            if text:
                self.thinking.append(text)
            elif value:
                self._ignored.add(f"messages[].content[].{name}")

    def _note_unused(self, part: ContentPart) -> None:
        """List the fields of a part that another type of part has."""
        used = _USED.get(part.type or "", _ALL_FIELDS)
        for name in _ALL_FIELDS - used:
            if getattr(part, name) not in (None, "", [], {}):
                self._ignored.add(f"messages[].content[].{name}")

    def _image(self, part: ContentPart, path: str) -> str:
        image_url = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(part.image_url)
        if image_url.detail not in (None, "", "auto"):
            self._ignored.add("messages[].content[].image_url.detail")
        url_path = f"{path}.image_url" + (".url" if isinstance(part.image_url, ImageURL) else "")
        return image(_required(image_url.url, url_path), url_path, self._fetch)

    def _audio(self, part: ContentPart, path: str) -> str:
        data = part.input_audio.data if part.input_audio else None
        if part.input_audio and part.input_audio.format:
            self._ignored.add("messages[].content[].input_audio.format")
        return _audio(_required(data, f"{path}.input_audio.data"), f"{path}.input_audio.data")


def _texts(value: Any) -> str:
    """Return the text of a value: text itself, or a list of parts that have a text."""
    if isinstance(value, str):
        return value
    texts = [
        part.get("text") if isinstance(part, dict) else part for part in (value if isinstance(value, list) else [])
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _required(value: str | None, path: str) -> str:
    if value is None:
        raise missing(path)
    return value


#: characters before the comma of a data URI: a media type and a few parameters
_MAX_PREFIX = 256
_IMAGES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "")
_BAD_IMAGE = "invalid image input: expected base64, alone or in a data URI of type png, jpeg, jpg, webp or gif"


def image(url: str, path: str, fetch: Fetch | None = None) -> str:
    """Return the base64 of an image that is given as a data URI, as bare base64 or, with *fetch*, by its URL.

    :raises APIError: 400 for a URL that may not be fetched, another media type, or text that is not base64.
    """
    if re.match(r"https?:", url, re.I):
        if fetch is None:
            text = "image URLs are not currently supported, please use base64 encoded data instead"
            raise invalid(f"{text} (the setting fetch_images allows them)", path, "invalid_image_url")
        return base64.b64encode(fetch(url, path)).decode()
    if url[:5].lower() == "data:":
        prefix, _, url = url[5:].partition(",")
        media_type, *parameters = prefix[:_MAX_PREFIX].lower().split(";")
        if len(prefix) > _MAX_PREFIX or media_type not in _IMAGES or "base64" not in parameters:
            raise invalid(_BAD_IMAGE, path, "invalid_image_format")
    elif ":" in url[:32]:
        raise invalid(_BAD_IMAGE, path, "invalid_image_url")
    return _base64(url) or _refuse(_BAD_IMAGE, path, "invalid_image_url")


def _audio(data: str, path: str) -> str:
    return _base64(data) or _refuse("invalid input_audio format: expected base64 data", path, "invalid_value")


def _refuse(text: str, path: str, code: str) -> str:
    raise invalid(text, path, code)


_WHITE_SPACE = re.compile(r"[\r\n\t ]+")


def _base64(text: str) -> str | None:
    """Return the text if it is strict, non-empty base64 (line breaks are removed), else None."""
    text = _WHITE_SPACE.sub("", text)
    try:
        return text if base64.b64decode(text, validate=True) else None
    except (binascii.Error, ValueError):
        return None
