"""The output format that a request asks for with a JSON Schema: Ollama's ``format``, and the check of a strict one.

Chat has the schema in ``response_format``, the Responses API in ``text.format``; their other types are mapped there.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing
from openai_compat.structured.schema_checker import Checker, Uncheckable, checker
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.native_schema import format_schema, readable
from openai_compat.wire import json


class JSONSchema(RequestObject):
    """Source: OpenAI's ``ResponseFormatJsonSchema.json_schema``, ``TextResponseFormatJsonSchema``."""

    name: str | None = None
    description: str | None = None
    schema: Raw | UnsetType = UNSET
    strict: bool | None = None


def format_kind(given: str | None, param: str) -> str:
    """Return the type of an output format: ``text``, ``json_object`` or ``json_schema``.

    :raises APIError: 400 for another one, and for none.
    """
    kind = (given or "").strip().lower()
    if not kind:
        raise missing(param)
    if kind not in ("text", "json_object", "json_schema"):
        supported = "Supported values are: 'text', 'json_object', and 'json_schema'."
        raise invalid(f"Invalid value: '{kind[:64]}'. {supported}", param)
    return kind


def from_json_schema(given: JSONSchema, path: str) -> tuple[str | Raw, bytes | None]:
    """Return the native ``format``, and the strict schema to check the answer against; an absent one is any JSON.

    :param path: of the schema in the request, for errors.
    :raises APIError: 400 for what is no schema.
    """
    text = json.text_of(given.schema)
    if not text or text in (b'""', b"[]"):
        return "json", b"{}" if given.strict else None
    return readable(given.schema, format_schema, f"{path}.schema"), text if given.strict else None


def strict_checker(schema: bytes, path: str, ignored: Ignored) -> Checker | None:
    """Return a checker of a schema; if there cannot be one, list ``strict`` as ignored and return None."""
    try:
        result = checker(schema)
    except Uncheckable as error:
        ignored.add(f"{path}.strict", str(error))
        return None
    for keyword in result.unevaluated:
        ignored.add(f"{path}.schema.{keyword}")
    return result.shared()  # all choices have one budget
