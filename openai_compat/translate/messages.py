"""Messages, from OpenAI's to Ollama's, one for one.

The content parts of a message stay one native message: text joined in order, images and audio beside it.

Source: ollama ``openai/openai.go`` ``FromChatRequest``, ``decodeImageURL``. Differs: parts are not split into
messages, ``developer`` is ``system``, null content is "", references in the history survive.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from openai_compat.errors import invalid, missing
from openai_compat.native import types as native
from openai_compat.translate.fields import Ignored
from openai_compat.translate.tools import FunctionCall, ToolCallIn, from_function_call, from_tool_calls


class ImageURL(Struct, omit_defaults=True):
    """Source: OpenAI's ``ChatCompletionRequestMessageContentPartImage.image_url``."""

    url: str | None = None
    detail: str | None = None


class InputAudio(Struct, omit_defaults=True):
    """Source: OpenAI's ``ChatCompletionRequestMessageContentPartAudio.input_audio``."""

    #: base64
    data: str | None = None
    format: str | None = None


class ContentPart(Struct, omit_defaults=True):
    """A content part of any type; ``type`` says which of the fields counts."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageURL | None = None
    input_audio: InputAudio | None = None


class ChatMessage(Struct):
    """Source: OpenAI's ``ChatCompletionRequestMessage``, all roles in one. Unknown keys are accepted."""

    role: str | None = None
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    #: of an assistant message: the id of audio, which this server never makes
    audio: Any = None
    #: of an assistant message: text; the structures of other servers are ignored
    reasoning: Any = None
    reasoning_content: Any = None


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


def from_messages(
    messages: Sequence[ChatMessage], ignored: Ignored, fetch: Fetch | None = None
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
    if message.role is None:
        raise missing(f"{path}.role")
    role = ROLES.get(message.role.lower())
    if role is None:
        supported = ", ".join(f"'{name}'" for name in ROLES)
        raise invalid(f"Invalid value: '{message.role[:64]}'. Supported values are: {supported}.", f"{path}.role")
    sent = native.Message(role)
    _set_content(sent, message, f"{path}.content", ignored, fetch)
    if role == "assistant":
        _set_assistant(sent, message, path, functions)
    elif role == "tool":
        _set_tool(sent, message, functions)
    if message.name and role != "tool":
        ignored.add("messages[].name")
    if message.audio is not None:
        ignored.add("messages[].audio")
    return sent


def _set_assistant(sent: native.Message, message: ChatMessage, path: str, functions: dict[str, str]) -> None:
    """Set thinking and tool calls of a native message; ``tool_calls`` wins over ``function_call``."""
    thinking = next((text for text in (message.reasoning, message.reasoning_content) if isinstance(text, str)), "")
    if thinking:
        sent.thinking = thinking
    calls = message.tool_calls or []
    if calls:
        sent.tool_calls = from_tool_calls(calls, f"{path}.tool_calls")
    elif message.function_call is not None:
        sent.tool_calls = [native.ToolCall(from_function_call(message.function_call, f"{path}.function_call"))]
    for call in calls:
        if call.id and call.function and call.function.name:
            functions[call.id] = call.function.name


def _set_tool(sent: native.Message, message: ChatMessage, functions: dict[str, str]) -> None:
    """Map a tool message: Ollama wants the function's name, OpenAI's clients send only the id of the call."""
    name = message.name or functions.get(message.tool_call_id or "")
    if name:
        sent.tool_name = name
    if message.tool_call_id:
        sent.tool_call_id = message.tool_call_id


def _set_content(sent: native.Message, message: ChatMessage, path: str, ignored: Ignored, fetch: Fetch | None) -> None:
    """Set the text and the images of a native message; a refusal without content is the text."""
    content = message.content
    if content is None:
        sent.content = message.refusal or ""
    elif isinstance(content, str):
        sent.content = content
    else:
        texts: list[str] = []
        files: list[str] = []
        for i, part in enumerate(content):
            _add_part(part, f"{path}[{i}]", texts, files, ignored, fetch)
        sent.content = "".join(texts)
        if files:
            sent.images = files


def _add_part(
    part: ContentPart, path: str, texts: list[str], files: list[str], ignored: Ignored, fetch: Fetch | None
) -> None:
    """Append the text of a content part to *texts*, or the base64 of its image or audio to *files*."""
    if part.type == "text":
        texts.append(_required(part.text, f"{path}.text"))
    elif part.type == "refusal":
        texts.append(_required(part.refusal, f"{path}.refusal"))
    elif part.type == "image_url":
        image_url = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(part.image_url)
        if image_url.detail in ("low", "high"):
            ignored.add("messages[].content[].image_url.detail")
        url_path = f"{path}.image_url" + (".url" if isinstance(part.image_url, ImageURL) else "")
        files.append(image(_required(image_url.url, url_path), url_path, fetch))
    elif part.type == "input_audio":
        data = part.input_audio.data if part.input_audio else None
        if part.input_audio and part.input_audio.format:
            ignored.add("messages[].content[].input_audio.format")
        files.append(_audio(_required(data, f"{path}.input_audio.data"), f"{path}.input_audio.data"))
    elif part.type is None:
        raise missing(f"{path}.type")
    else:
        text = "Supported values are: 'text', 'image_url', 'input_audio', and 'refusal'."
        raise invalid(f"Invalid value: '{part.type[:64]}'. {text}", path)


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
