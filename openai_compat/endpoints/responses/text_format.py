"""``text`` of the Responses API: the format of the answer, mapped to Ollama's ``format``.

Source: OpenAI's ``ResponseTextParam``; ollama ``openai/responses.go`` ``ResponsesText`` (at fb3076099).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing
from openai_compat.structured.output_format import JSONSchema, format_kind, from_json_schema
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.native_schema import format_schema, readable
from openai_compat.wire import json


class TextFormat(JSONSchema):
    """Source: OpenAI's ``TextResponseFormatConfiguration``, all its types in one struct."""

    type: str | None = None
    #: chat's form of a JSON Schema
    json_schema: JSONSchema | None = None


class TextConfig(RequestObject):
    """Source: OpenAI's ``ResponseTextParam``."""

    #: an empty list is PHP's empty object
    format: TextFormat | list[Any] | None = None
    verbosity: str | None = None


#: the values of ``text.verbosity``, none of which has an effect
VERBOSITIES = ("low", "medium", "high")

_PATH = "text.format"


class OutputFormat(NamedTuple):
    """What a request says of the format of its answer."""

    #: Ollama's ``format``
    native: str | Raw | UnsetType
    #: to check the answer against
    strict_schema: bytes | None = None
    #: path of the object with the schema
    path: str = _PATH


def from_text(
    text: TextConfig | list[Any] | None, native_format: str | Raw | UnsetType, ignored: Ignored
) -> OutputFormat:
    """Map ``text``.

    :param native_format: Ollama's own ``format``, where the request has it.
    :raises APIError: 400 for a format that is not valid.
    """
    if isinstance(text, TextConfig) and text.verbosity not in (None, "", "medium"):
        ignored.add("text.verbosity")
    given = _given(text)
    if given is None:
        return OutputFormat(native_format)
    kind = format_kind(given.type, f"{_PATH}.type")
    for name in _unused(given, kind):
        ignored.add(f"{_PATH}.{name}")
    if kind == "text":
        return OutputFormat(native_format)
    if native_format is not UNSET:
        ignored.add("format")
    if kind == "json_schema":
        return _from_json_schema(given, ignored)
    if json.is_blank(given.schema):
        return OutputFormat("json")
    # as in llama.cpp's and others' servers
    return OutputFormat(readable(given.schema, format_schema, f"{_PATH}.schema"))


def text_kind(given: TextFormat) -> str:
    """Return the type of a format that is valid."""
    return (given.type or "text").strip().lower() or "text"


def _from_json_schema(given: TextFormat, ignored: Ignored) -> OutputFormat:
    used, path = json_schema(given)
    if json.text_of(used.schema) in (b"", b'""'):
        raise missing(f"{_PATH}.schema")
    if used.description:
        ignored.add(f"{path}.description")
    native_format, strict_schema = from_json_schema(used, path)
    return OutputFormat(native_format, strict_schema, path)


def json_schema(given: TextFormat) -> tuple[JSONSchema, str]:
    """Return where the JSON Schema of a format is, and its path: in the format, or as in chat in ``json_schema``."""
    nested = given.json_schema
    if nested is None or not json.is_blank(given.schema) or not json.text_of(nested.schema):
        return given, _PATH
    return nested, f"{_PATH}.json_schema"


def _given(text: TextConfig | list[Any] | None) -> TextFormat | None:
    """Return the format; None for an empty one, which is as if it were not given.

    :raises APIError: 400 for an array that is not empty.
    """
    text_format = text.format if isinstance(text, TextConfig) else None
    for name, value in (("text", text), (_PATH, text_format)):
        if isinstance(value, list) and value:
            reason = f"Invalid type for '{name}': expected an object, but got an array instead."
            raise invalid(reason, name, "invalid_type")
    if not isinstance(text_format, TextFormat) or not (text_format.type or _members(text_format)):
        return None
    return text_format


def _members(given: TextFormat) -> list[str]:
    """Return the members of a format that ask for something, but for its type."""
    names = [name for name in ("name", "description", "strict") if getattr(given, name)]
    if not json.is_blank(given.schema):
        names.append("schema")
    if given.json_schema not in (None, JSONSchema()):
        names.append("json_schema")
    return names


def _unused(given: TextFormat, kind: str) -> list[str]:
    """Return the members of a format that its type does not use."""
    if kind == "text":
        return _members(given)
    if kind == "json_object":
        return [name for name in _members(given) if name != "schema"]
    is_flat = json_schema(given)[0] is given
    return [name for name in _members(given) if (name == "json_schema") is is_flat]
