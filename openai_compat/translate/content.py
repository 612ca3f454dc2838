"""The content of one message: its text, and the images, audio and thinking among its parts.

The content parts of a message stay one native message: text joined in order, that of files too, images and audio beside
it.

Source: ollama ``openai/openai.go`` ``FromChatRequest``, ``decodeImageURL``. Differs: parts are not split into messages.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Raw, UnsetType

from openai_compat.errors import invalid, missing
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.files import FileInput, Files
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
    file: FileInput | None = None
    #: of an assistant message: text, or parts with a text, as other servers return them
    thinking: Any = None
    reasoning: Any = None
    summary: Any = None


#: downloads an image: (URL, path of the field for errors) -> bytes
Fetch = Callable[[str, str], bytes]

#: types of parts with text, in a field of the same name
_TEXT_PARTS = ("text", "refusal")
#: types of parts of an assistant message that are thinking
_THINKING_PARTS = ("thinking", "reasoning")

#: type of a part → the fields that count
_USED: dict[str | None, tuple[str, ...]] = {
    "text": ("text",),
    "refusal": ("refusal",),
    "image_url": ("image_url",),
    "input_audio": ("input_audio",),
    "file": ("file",),
    "output_text": ("text",),
    "thinking": ("thinking", "reasoning", "summary", "text"),
    "reasoning": ("thinking", "reasoning", "summary", "text"),
}


def unused_fields(
    struct: type[RequestObject], used: Mapping[str | None, tuple[str, ...]]
) -> dict[str | None, tuple[str, ...]]:
    """Return the fields of a part that another type of part has, by the type of the part.

    :param used: type of a part → the fields that count; of other types all are read.
    """
    fields = struct.__struct_fields__
    return {kind: tuple(name for name in fields if name not in ("type", *names)) for kind, names in used.items()}


def given_of(part: RequestObject, names: tuple[str, ...]) -> Iterator[str]:
    """Yield those of the named fields of a part that have a value."""
    for name in names:
        value = getattr(part, name)
        if not (json.is_blank(value) if isinstance(value, Raw | UnsetType) else value in (None, "", [], {})):
            yield name


_UNUSED = unused_fields(ContentPart, _USED)
#: roles of messages that may be of another server, whose parts of unknown types are passed over
HISTORY = ("assistant", "tool")


class Content:
    """The content of one message: its text, and the images, audio and thinking among its parts."""

    def __init__(self, role: str, path: str, ignored: Ignored, fetch: Fetch | None, files: Files | None = None) -> None:
        self._role = role
        self._path = path
        self._ignored = ignored
        self._fetch = fetch
        self._files = files or Files()
        #: images and audio, in base64
        self.images: list[str] = []
        self.thinking: list[str] = []

    def text_of(self, content: str | list[ContentPart] | None, refusal: str | None) -> str:
        """Return the text of a content, and collect its images and its thinking; a refusal without content is the text.

        :raises APIError: 400 for a part that is not valid.
        """
        if not content:
            return refusal or ""
        if isinstance(content, str):
            return content
        return "".join([self._part(part, f"{self._path}.content[{i}]") for i, part in enumerate(content)])

    def _part(self, part: ContentPart, path: str) -> str:
        """Return the text of a content part; of another part nothing, after it was collected."""
        self._note_unused(part)
        if part.type in _TEXT_PARTS:
            text: str | None = getattr(part, part.type)
            return _required("" if text is None and self._role in HISTORY else text, f"{path}.{part.type}")
        if part.type == "image_url":
            self.images.append(self._image(part, path))
        elif part.type == "input_audio":
            self.images.append(self._audio(part, path))
        elif part.type is None:
            raise missing(f"{path}.type")
        elif self._role != "assistant" and part.type == "file":
            return self._file(part, path)
        elif self._role == "assistant" and part.type in _THINKING_PARTS:
            self._add_thinking(part)
        elif self._role == "assistant" and part.type == "output_text":
            return part.text or ""
        elif self._role in HISTORY:
            self._ignored.add(f"messages[].content[].{part.type}")
        else:
            text = "Supported values are: 'text', 'image_url', 'input_audio' and 'file'."
            raise invalid(f"Invalid value: '{part.type[:64]}'. {text}", path)
        return ""

    def _add_thinking(self, part: ContentPart) -> None:
        for name in ("thinking", "reasoning", "summary", "text"):
            value = getattr(part, name)
            text, is_all = _texts(value)
            if text:
                self.thinking.append(text)
            if value and not is_all:
                self._ignored.add(f"messages[].content[].{name}")

    def _note_unused(self, part: ContentPart) -> None:
        """List the fields of a part that another type of part has."""
        for name in given_of(part, _UNUSED.get(part.type, ())):
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

    def _file(self, part: ContentPart, path: str) -> str:
        """Return the text of a file; a file that is an image is collected."""
        if part.file is None:
            raise missing(f"{path}.file")
        text, picture = self._files.read(part.file, f"{path}.file", self._ignored)
        if picture:
            self.images.append(picture)
        return text


def _texts(value: Any) -> tuple[str, bool]:
    """Return the text of a value, text itself or a list of parts that have a text, and whether that is all of it."""
    if isinstance(value, str):
        return value, True
    parts = value if isinstance(value, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    return "".join(found), bool(found) and len(found) == len(parts)


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
