"""``GET /v1/models`` and ``GET /v1/models/{id}``.

Source: ollama ``openai/openai.go`` ``ToListCompletion``, ``ToModel``; ``middleware/openai.go`` ``ListMiddleware``,
``RetrieveMiddleware``. Differs: no models is ``[]``, ids may hold slashes.
"""

from __future__ import annotations

import re

from msgspec import Struct

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.native import messages as native
from openai_compat.native.backend import Backend
from openai_compat.native.failures import model_not_found


class Model(Struct, kw_only=True):
    """Source: OpenAI's ``Model``."""

    id: str
    object: str = "model"
    #: Unix seconds
    created: int
    owned_by: str


class ModelList(Struct, kw_only=True):
    """Source: OpenAI's ``ListModelsResponse``."""

    object: str = "list"
    data: list[Model]


def list_all(call: Call, backend: Backend) -> Reply:
    """List the models that the native side has, in its order."""
    found = backend.tags().models or []
    return Answer(ModelList(data=[to_model(m.called, m.modified_at, now=call.now) for m in found]))


def retrieve(call: Call, backend: Backend) -> Reply:
    """Describe one model.

    :raises APIError: 404 ``model_not_found``.
    """
    name = call.path["model"]
    if _NO_NAME.search(name):
        raise model_not_found(name)
    return Answer(to_model(name, backend.show(name).modified_at, now=call.now))


# What no model is called, and no native server should be asked for.
_NO_NAME = re.compile(r"[\x00-\x20\x7f\\]|\.\./|://")


def to_model(name: str, modified_at: str | None, *, now: int) -> Model:
    """One model; ``owned_by`` is the namespace of its name, ``library`` if it has none."""
    namespaces = name.split("/")[:-1]
    owner = namespaces[-1] if namespaces else "library"
    return Model(id=name, created=native.unix_time(modified_at, now), owned_by=owner)
