"""``metadata`` of stored objects: a few short strings.

Source: OpenAI's ``Metadata``: at most 16 pairs, keys of at most 64 characters, values of at most 512.
"""

from __future__ import annotations

from msgspec import Raw, UnsetType

from openai_compat.errors import invalid
from openai_compat.wire import json

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512


def from_metadata(raw: Raw | UnsetType) -> dict[str, str]:
    """Decode the metadata of an object that is stored, and check it.

    :raises APIError: 400 for another value than an object of strings within OpenAI's limits.
    """
    if json.is_blank(raw):
        return {}
    metadata = {}
    for key, member in json.members_of(json.text_of(raw), "metadata").items():
        value = json.decode_raw(member)
        if not isinstance(value, str):
            name = f"metadata.{key[:MAX_KEY]}"
            raise invalid(f"Invalid type for '{name}': expected a string.", name, "invalid_type")
        metadata[key] = value
    return check_metadata(metadata)


def check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata that is within OpenAI's limits.

    :raises APIError: 400 for too many pairs, one that is too long, or a NUL character.
    """
    if len(metadata) > MAX_PAIRS:
        text = f"too many properties. Expected an object with at most {MAX_PAIRS} properties, but got {len(metadata)}."
        raise invalid(f"Invalid 'metadata': {text}", "metadata", "object_above_max_properties")
    for key, value in metadata.items():
        for text, limit in ((key, MAX_KEY), (value, MAX_VALUE)):
            if len(text) > limit:
                name = f"metadata.{key[:MAX_KEY]}"
                detail = f"string too long. Expected a string with maximum length {limit}, but got one of {len(text)}."
                raise invalid(f"Invalid '{name}': {detail}", name, "string_above_max_length")
            if "\x00" in text:
                raise invalid("Invalid 'metadata': a string holds a NUL character.", "metadata")
    return metadata
