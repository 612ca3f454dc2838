"""``POST /v1/embeddings``.

A vector is kept as the bytes that the native side sent. As floats it leaves unchanged; as base64 it is decoded and
packed by C code, never float by float in Python.

Source: ollama ``middleware/openai.go`` ``EmbeddingsMiddleware``, ``openai/openai.go`` ``ToEmbeddingList``,
``floatsToBase64`` (at fb3076099). Differs: token ids are refused with a reason, no embeddings are ``[]``.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Raw, Struct, structs

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.errors import bad_gateway, invalid, too_long
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.native.usage import count
from openai_compat.settings import Settings
from openai_compat.translate import models
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    accepted,
    check_ranges,
    emulated,
    mapped,
    mapped_integer,
    note_effectless,
)
from openai_compat.translate.sampling import from_options, set_beside
from openai_compat.translate.texts import check_texts
from openai_compat.wire import json


class EmbeddingRequest(Struct):
    """Source: OpenAI's ``CreateEmbeddingRequest``; Ollama's own fields as extras."""

    model: Annotated[str | None, mapped("model", "an alias becomes the model behind it")] = None
    input: Annotated[str | list[Any] | None, mapped("input", "texts; token ids are refused")] = None
    encoding_format: Annotated[str | None, emulated("``float`` or ``base64``")] = None
    dimensions: Annotated[Integer, mapped_integer("dimensions", low=1)] = None
    user: Annotated[Any, accepted()] = None
    options: Annotated[dict[str, Raw] | None, mapped("options")] = None
    keep_alive: Annotated[str | float | None, mapped("keep_alive")] = None
    truncate: Annotated[bool | None, mapped("truncate")] = None


class Embedding(Struct, kw_only=True):
    """Source: OpenAI's ``Embedding``."""

    object: str = "embedding"
    #: an array of numbers, or the base64 of little-endian float32
    embedding: Raw | str
    index: int


class EmbeddingUsage(Struct):
    """Source: OpenAI's ``CreateEmbeddingResponse.usage``."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """Source: OpenAI's ``CreateEmbeddingResponse``."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


_decode = json.request_decoder(EmbeddingRequest)


def create(call: Call, backend: Backend) -> Reply:
    """Embed texts.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = _decode(call.body)
    ignored = Ignored(call.settings, unknown)
    is_base64 = _is_base64(request.encoding_format)
    sent = from_embedding_request(request, call.settings, ignored)
    vectors: list[Raw] = []
    tokens = 0
    for part in _batches(sent, call.settings.embed_batch):
        answer = backend.embed(part, model=request.model)
        found = answer.embeddings or []
        if isinstance(part.input, list) and len(found) != len(part.input):
            raise bad_gateway("The backend returned another number of embeddings than requested.")
        vectors += found
        tokens += count(answer.prompt_eval_count)
    written = _to_base64 if is_base64 else _checked
    data = [Embedding(embedding=written(vector), index=index) for index, vector in enumerate(vectors)]
    usage = EmbeddingUsage(tokens, tokens)
    return Answer(EmbeddingList(data=data, model=request.model or "", usage=usage), ignored.headers())


def from_embedding_request(request: EmbeddingRequest, settings: Settings, ignored: Ignored) -> native.EmbedRequest:
    """Map a request.

    :raises APIError: 400, naming the field.

    Source: ``EmbeddingsMiddleware``.
    """
    model = models.given(request.model)
    texts = _input(request.input, settings)
    check_ranges(request)
    note_effectless(request, ignored)
    defaults = models.defaults(model, settings)
    sent = native.EmbedRequest(models.native_name(model, settings), texts)
    options = {**defaults.options, **from_options(request.options or {}, settings)}
    if options:
        sent.options = options
    if request.dimensions is not None:
        sent.dimensions = int(request.dimensions)
    keep_alive = defaults.keep_alive if request.keep_alive is None else request.keep_alive
    set_beside(sent, settings, keep_alive=keep_alive, truncate=request.truncate)
    return sent


def _is_base64(encoding: str | None) -> bool:
    if encoding and encoding.lower() not in ("float", "base64"):
        text = f"Invalid value for 'encoding_format' = {encoding[:64]}. Supported values: ['float', 'base64']."
        raise invalid(text, "encoding_format")
    return bool(encoding) and str(encoding).lower() == "base64"


def _input(given: str | list[Any] | None, settings: Settings) -> str | list[str]:
    if isinstance(given, str):
        return given or [""]  # Ollama takes "" for no input at all
    if not given:
        raise invalid("invalid input", "input", "missing_required_parameter" if given is None else "empty_array")
    why = "invalid input type: token ids cannot be embedded, since Ollama takes text only."
    how = "Send the text itself; with LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False."
    check_texts(given, "input", f"{why} {how}", "invalid input type: expected a string at '{path}'.")
    if len(given) > settings.max_inputs:
        raise too_long("input", settings.max_inputs, len(given))
    return given


def _batches(sent: native.EmbedRequest, size: int) -> Iterator[native.EmbedRequest]:
    if isinstance(sent.input, str) or len(sent.input) <= size:
        yield sent
        return
    for start in range(0, len(sent.input), size):
        yield structs.replace(sent, input=sent.input[start : start + size])


def _checked(vector: Raw) -> Raw:
    """Return a vector unchanged if it is a valid one."""
    _floats(vector)
    return vector


def _floats(vector: Raw) -> list[float]:
    """Return the numbers of a vector.

    :raises APIError: 502 for anything but an array of finite numbers.
    """
    try:
        found = json.floats(vector)
        if math.isfinite(sum(found)):
            return found
        raise json.Malformed("a number that is out of range")
    except json.Malformed as error:
        raise bad_gateway("The backend returned a vector that is not a valid embedding.") from error


def _to_base64(vector: Raw) -> str:
    """Source: ``floatsToBase64``."""
    packed = array("f", _floats(vector))
    if not math.isfinite(sum(packed)):  # beyond what a float32 holds
        raise bad_gateway("The backend returned a vector that is not a valid embedding.")
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed).decode()
