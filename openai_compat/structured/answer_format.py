"""The client's format of an answer beside tools: the model is told of it, and its text is checked against it.

Ollama applies a format to all that a model writes, so that it could call no tool. Without one, text may still be what
the format wants.
"""

from __future__ import annotations

from functools import cached_property

from msgspec import Raw, UnsetType

from openai_compat.log import log
from openai_compat.structured.json_text import JSONUnwrapper
from openai_compat.structured.schema_checker import Checker, Uncheckable, checker
from openai_compat.wire import json

_INSTRUCTION = (
    "When you call no function, answer only with JSON, without any text around it. It must match this JSON Schema:\n"
)
_ANY_JSON = "When you call no function, answer only with one JSON object, without any text around it."


_decode_array = json.native_decoder(list[Raw])


class AnswerFormat:
    """A native ``format``: ``"json"``, a JSON Schema, or none.

    :param strict: checks the answer against the client's own schema.
    """

    def __init__(self, native_format: str | Raw | UnsetType, strict: Checker | None = None) -> None:
        self._strict = strict
        #: its JSON; None without a format
        self.schema: bytes | None = None
        if isinstance(native_format, str):
            self.schema = json.encode(native_format)
        elif isinstance(native_format, Raw):
            self.schema = bytes(native_format)

    @property
    def _is_any_json(self) -> bool:
        return self.schema is not None and self.schema.strip()[:1] != b"{"

    def instruction(self) -> str:
        """Return what the model is told."""
        if self.schema is None or self._is_any_json:
            return _ANY_JSON
        return _INSTRUCTION + self.schema.decode()

    @cached_property
    def _checker(self) -> Checker | None:
        if self._strict is not None:
            return self._strict
        try:
            return checker(b'{"type":"object"}' if self._is_any_json else self.schema or b"{}")
        except Uncheckable:
            return None

    def found_in(self, text: str) -> str | None:
        """Return the JSON that a text is, without what stands around it; None if it does not match the format.

        A schema that cannot be checked admits every JSON object and array.
        """
        unwrapper = JSONUnwrapper()
        content = (unwrapper.feed(text)[1] + unwrapper.end()[1]).strip()
        try:
            if self._checker is not None:
                return content if self._checker.mismatch(content) is None else None
        except Uncheckable as error:
            log.info("an answer is checked for its syntax only: %s", error)
        return content if _is_object_or_array(content.encode("utf-8", "replace")) else None


def _is_object_or_array(text: bytes) -> bool:
    if text[:1] != b"[":
        return json.is_native_object(text)
    try:
        _decode_array(text)
    except json.Malformed:
        return False
    return True
