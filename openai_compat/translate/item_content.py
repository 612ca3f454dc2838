"""The content of items: the parts of messages and of results as texts and images, and the texts of reasoning.

What an item of the history has beside is listed, and so is a file of the past that cannot be read any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import APIError, invalid, missing
from openai_compat.native import types as native
from openai_compat.translate.content import HISTORY, Fetch, ImageURL, given_of, image, unused_fields
from openai_compat.translate.fields import Ignored
from openai_compat.translate.files import FileInput, Files
from openai_compat.translate.item_types import FILE_PARTS, IMAGE_PARTS, TEXT_PARTS, ItemPart, unknown_part
from openai_compat.wire import json


class ItemContent:
    """Reads the content of items.

    :param files: reads files.
    :param fetch: downloads images by URL; without it they are refused.
    :param is_past: the client did not send the items: what cannot be read of them is passed over.
    """

    def __init__(self, ignored: Ignored, files: Files, fetch: Fetch | None, *, is_past: bool = False) -> None:
        self.is_past = is_past
        self._ignored = ignored
        self._files = files
        self._fetch = fetch

    def put(self, sent: native.Message, content: str | list[ItemPart] | None, path: str) -> None:
        """Put content into a message.

        :raises APIError: 400 for a part that cannot be read; one of an unknown type is listed in the history.
        """
        if not isinstance(content, list):
            sent.content = content or ""
            return
        texts: list[str] = []
        images: list[str] = []
        for i, part in enumerate(content):
            self._part(part, f"{path}[{i}]", sent.role, texts, images)
        sent.content = "".join(texts)
        if images:
            sent.images = images

    def _part(self, part: ItemPart, path: str, role: str, texts: list[str], images: list[str]) -> None:
        """Add a part to the texts or the images of a message."""
        self._note_unused(part, path)
        if part.type in TEXT_PARTS or (part.type is None and isinstance(part.text, str)):
            if not isinstance(part.text, str) and role not in HISTORY:
                raise missing(f"{path}.text")
            texts.append(part.text or "")
        elif part.type == "refusal":
            texts.append(part.refusal or "")
        elif part.type in IMAGE_PARTS:
            with self._passing_over(path):
                images.append(self._image(part, path))
        elif part.type in FILE_PARTS:
            with self._passing_over(path):
                self._file(part, path, texts, images)
        elif part.type is None:
            raise missing(f"{path}.type")
        elif role in HISTORY:
            self._ignored.add(f"{_without_numbers(path)}.{part.type[:64]}")
        else:
            raise unknown_part(part.type, path)

    def _note_unused(self, part: ItemPart, path: str) -> None:
        """List the fields of a part that another type of part has."""
        for name in given_of(part, _UNUSED.get(part.type, ())):
            self._ignored.add(f"{_without_numbers(path)}.{name}")

    def _image(self, part: ItemPart, path: str) -> str:
        given = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(part.image_url)
        if not given.url:
            if part.file_id:
                text = "There is no store of files; send the image as a data URI in 'image_url'."
                raise invalid(f"Invalid '{path}.file_id': {text}", f"{path}.file_id", "unsupported_parameter")
            raise missing(f"{path}.image_url")
        if part.file_id:
            self._ignored.add(f"{_without_numbers(path)}.file_id")
        for name, detail in (("detail", part.detail), ("image_url.detail", given.detail)):
            if detail not in (None, "", "auto"):
                self._ignored.add(f"{_without_numbers(path)}.{name}")
        return image(given.url, f"{path}.image_url", self._fetch)

    def _file(self, part: ItemPart, path: str, texts: list[str], images: list[str]) -> None:
        if part.detail and part.type == "input_file":
            self._ignored.add(f"{_without_numbers(path)}.detail")
        given = part.file if part.type == "file" else _file_of(part)
        if given is None:
            raise missing(f"{path}.file")
        found = self._files.read(given, f"{path}.file" if part.type == "file" else path, self._ignored)
        texts.append(found.text)
        if found.image is not None:
            images.append(found.image)

    @contextmanager
    def _passing_over(self, path: str) -> Iterator[None]:
        """List what cannot be read, if it is of the past: it could be read once, and no client can mend it."""
        try:
            yield
        except APIError as error:
            if not self.is_past:
                raise
            self._ignored.add(_without_numbers(error.param or path), "It cannot be read any more.")

    # -- reasoning ----------------------------------------------------------------------------

    def thinking_of(self, content: Raw | UnsetType, path: str) -> str:
        """Return the text of a reasoning item's content, and list what is none."""
        text = json.text_of(content)
        if text[:1] == b"[":
            parts = [self._thought(part, f"{path}.content[]") for part in json.items_of(Raw(text), path)]
            return "\n".join(part for part in parts if part is not None)
        found = json.string(text)
        if found is None and not json.is_blank(content):
            self._ignored.add("input[].content")
        return found or ""

    def _thought(self, part: Raw, path: str) -> str | None:
        """Return the text of a part of a reasoning item's content, and list the keys that are not read."""
        text, listed = json.text_of(part), _without_numbers(path)
        if text[:1] != b"{":
            found = json.string(text)
            if found is None and not json.is_blank(part):
                self._ignored.add(listed)
            return found
        members = json.members_of(text, path)
        kind = json.string(json.text_of(members.pop("type", UNSET))) or ""
        found = json.string(json.text_of(members.get("text", UNSET)))
        if found is not None:
            members.pop("text")
        elif kind and kind not in TEXT_PARTS:
            self._ignored.add(f"{listed}.{kind[:64]}")
        for name, value in members.items():
            if not json.is_blank(value):
                self._ignored.add(f"{listed}.{name[:64]}")
        return found


_TEXT_FIELDS = ("text",)
_FILE_FIELDS = ("filename", "file_data", "file_id", "file_url", "detail")
#: the fields of a part that another type of part has, by the type of the part; annotations never count
_UNUSED = unused_fields(
    ItemPart,
    {
        None: _TEXT_FIELDS,
        **dict.fromkeys(TEXT_PARTS, _TEXT_FIELDS),
        "refusal": ("refusal",),
        **dict.fromkeys(IMAGE_PARTS, ("image_url", "file_id", "detail")),
        "input_file": _FILE_FIELDS,
        "file": ("file",),
    },
)


def _without_numbers(path: str) -> str:
    """Return the path of a part as parameters are listed: ``input[].output[]`` of ``input[3].output[0]``."""
    return re.sub(r"\[[0-9]+\]", "[]", path)


def _file_of(part: ItemPart) -> FileInput:
    return FileInput(filename=part.filename, file_data=part.file_data, file_id=part.file_id, file_url=part.file_url)
