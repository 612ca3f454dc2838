"""``POST /v1/embeddings``.

For speed a vector stays the JSON text of the native response: it is checked, and returned unchanged, or decoded and
packed for base64 by C code. No code here may loop over the numbers of a vector in Python.

Source: ollama ``middleware/openai.go`` ``EmbeddingsMiddleware``, ``openai/openai.go`` ``ToEmbeddingList``,
``floatsToBase64`` (at fb3076099). Differs: the error for token ids has a reason, and an absent list is ``[]``.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import UNSET, Raw, Struct, UnsetType, structs

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
    RequestObject,
    accepted,
    check_ranges,
    emulated,
    mapped,
    mapped_integer,
    note_effectless,
)
from openai_compat.translate.sampling import from_truncate, given_options, set_beside
from openai_compat.translate.texts import check_texts
from openai_compat.wire import json


class EmbeddingRequest(RequestObject):
    """Source: OpenAI's ``CreateEmbeddingRequest``; the last three fields are Ollama's."""

    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    input: Annotated[str | list[Any] | None, mapped("input", "texts; token ids are refused")] = None
    encoding_format: Annotated[str | None, emulated("``float`` or ``base64``")] = None
    dimensions: Annotated[Integer, mapped_integer("dimensions", low=1)] = None
    user: Annotated[Raw | UnsetType, accepted()] = UNSET
    options: Annotated[Raw | UnsetType, mapped("options")] = UNSET
    keep_alive: Annotated[str | float | None, mapped("keep_alive")] = None
    truncate: Annotated[bool | str | None, mapped("truncate", "``END`` is true, ``NONE`` is false")] = None


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
    """Create embeddings of texts.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = _decode(call.body)
    ignored = Ignored(call.settings, unknown)
    is_base64 = _is_base64(request.encoding_format)
    target = from_embedding_request(request, call.settings, ignored)
    vectors: list[Raw] = []
    tokens = 0
    for batch in _batches(target, call.settings.embed_batch):
        answer = backend.embed(batch, model=request.model)
        embeddings = answer.embeddings or []
        if isinstance(batch.input, list) and len(embeddings) != len(batch.input):
            raise bad_gateway("The backend returned another number of embeddings than requested.")
        vectors += embeddings
        tokens += count(answer.prompt_eval_count)
    encode = _to_base64 if is_base64 else _checked
    data = [Embedding(embedding=encode(vector), index=index) for index, vector in enumerate(vectors)]
    if request.dimensions is not None and any(len(json.floats(vector)) != target.dimensions for vector in vectors[:1]):
        ignored.unsupported("dimensions", "The model has vectors of its own length only.")
    usage = EmbeddingUsage(tokens, tokens)
    return Answer(EmbeddingList(data=data, model=request.model or "", usage=usage), ignored.headers())


def from_embedding_request(request: EmbeddingRequest, settings: Settings, ignored: Ignored) -> native.EmbedRequest:
    """Map a request, with all its texts in one native request.

    :raises APIError: 400 naming the invalid field.

    Source: ``EmbeddingsMiddleware``.
    """
    model = models.given(request.model)
    if not request.input:
        urls = {"messages": "/chat/completions", "prompt": "/completions"}
        ignored.refuse_wrong_url("input", settings.prefix, urls)
    texts = _input(request.input, settings)
    check_ranges(request)
    note_effectless(request, ignored)
    defaults = models.defaults(model, settings)
    target = native.EmbedRequest(models.native_name(model, settings), texts)
    options = given_options(request.options, settings, defaults, ignored)
    if options:
        target.options = options
    if request.dimensions is not None:
        target.dimensions = int(request.dimensions)
    truncate = from_truncate(request.truncate, ignored)
    set_beside(target, settings, keep_alive=request.keep_alive, default=defaults.keep_alive, truncate=truncate)
    return target


def _is_base64(encoding: str | None) -> bool:
    """Return whether the client wants base64.

    :raises APIError: 400 for an unknown encoding.
    """
    if encoding and encoding.lower() not in ("float", "base64"):
        text = f"Invalid value for 'encoding_format' = {encoding[:64]}. Supported values: ['float', 'base64']."
        raise invalid(text, "encoding_format")
    return bool(encoding) and str(encoding).lower() == "base64"


def _input(value: str | list[Any] | None, settings: Settings) -> str | list[str]:
    """Return the texts of a request.

    :raises APIError: 400 for no texts, too many texts, and anything but text.
    """
    if isinstance(value, str):
        return value or [""]  # Ollama treats "" as no input, but a list with it as an empty text
    if not value:
        raise invalid("invalid input", "input", "missing_required_parameter" if value is None else "empty_array")
    reason = "invalid input type: token ids cannot be embedded, since Ollama takes text only."
    hint = "Send the text itself; with LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False."
    check_texts(value, "input", f"{reason} {hint}", "invalid input type: expected a string at '{path}'.")
    if len(value) > settings.max_inputs:
        raise too_long("input", settings.max_inputs, len(value))
    return value


def _batches(target: native.EmbedRequest, size: int) -> Iterator[native.EmbedRequest]:
    """Yield native requests of at most *size* texts each, in order."""
    if isinstance(target.input, str) or len(target.input) <= size:
        yield target
        return
    for start in range(0, len(target.input), size):
        yield structs.replace(target, input=target.input[start : start + size])


def _checked(vector: Raw) -> Raw:
    """Return a vector unchanged.

    :raises APIError: 502 if it is not an array of finite numbers.
    """
    _floats(vector)
    return vector


def _floats(vector: Raw) -> list[float]:
    """Return the numbers of a vector.

    :raises APIError: 502 if it is not an array of finite numbers.
    """
    try:
        numbers = json.floats(vector)
        if numbers and math.isfinite(sum(numbers)):
            return numbers
        raise json.Malformed("no number, or one that is out of range")
    except json.Malformed as error:
        raise bad_gateway("The backend returned a vector that is not a valid embedding.") from error


def _to_base64(vector: Raw) -> str:
    """Return the base64 of a vector as little-endian float32.

    :raises APIError: 502 if it is not an array of numbers in the range of float32.

    Source: ``floatsToBase64``.
    """
    packed = array("f", _floats(vector))
    if not math.isfinite(sum(packed)):  # a number out of range became infinite
        raise bad_gateway("The backend returned a vector that is not a valid embedding.")
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed).decode()
