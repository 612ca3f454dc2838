"""``GET /v1/models``, ``GET`` and ``DELETE /v1/models/{id}``.

Source: ollama ``openai/openai.go`` ``ToListCompletion``, ``ToModel``; ``middleware/openai.go`` ``ListMiddleware``,
``RetrieveMiddleware``. Differs: an absent list is ``[]``, ids may contain slashes, aliases are models too.
"""

from __future__ import annotations

import re

from msgspec import UNSET, Struct, UnsetType

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.native.errors import model_not_found
from openai_compat.translate import models


class Model(Struct, kw_only=True):
    """Source: OpenAI's ``Model``; the fields after ``owned_by`` are additions."""

    id: str
    object: str = "model"
    #: Unix seconds
    created: int
    owned_by: str
    #: tokens that the model has now or will be loaded with; absent if that is not known
    context_length: int | UnsetType = UNSET
    #: Ollama's names: ``completion``, ``tools``, ``vision``, ``embedding``, ``thinking``, …
    capabilities: list[str] | UnsetType = UNSET


class ModelList(Struct, kw_only=True):
    """Source: OpenAI's ``ListModelsResponse``."""

    object: str = "list"
    data: list[Model]


class DeletedModel(Struct, kw_only=True):
    """Source: OpenAI's ``DeleteModelResponse``."""

    id: str
    object: str = "model"
    deleted: bool = True


def list_all(call: Call, backend: Backend) -> Reply:
    """List the backend's models, and their aliases.

    Models are in the backend's order; an alias is listed only if its model is, and no model has its name.
    """
    listed = {model.request_name: model for model in backend.tags().models or [] if model.request_name}
    contexts = backend.context_lengths() if listed else {}
    for digest, facts in backend.facts(list(listed.values())).items():
        for described in listed.values():
            if described.digest == digest:
                described.capabilities = facts.capabilities or described.capabilities
                contexts.setdefault(described.request_name, facts.num_ctx or 0)
    data = [_to_model(id, model, contexts.get(id) or _num_ctx(call, id), now=call.now) for id, model in listed.items()]
    for alias, target in models.aliases(call.settings):
        name = next((name for name in (target, f"{target}:latest") if name in listed), None)
        if name is not None and alias not in listed:
            context = contexts.get(name) or _num_ctx(call, alias)
            data.append(_to_model(alias, listed[name], context, now=call.now))
    return Answer(ModelList(data=data))


def retrieve(call: Call, backend: Backend) -> Reply:
    """Describe one model.

    :raises APIError: 404 ``model_not_found``.
    """
    model = _checked_name(call.path["model"])
    name = models.native_name(model, call.settings)
    shown = backend.show(name, model=model)
    contexts = backend.context_lengths()
    loaded = contexts.get(name) or contexts.get(f"{name}:latest")
    context = loaded or _num_ctx(call, model) or shown.num_ctx
    return Answer(_to_model(model, shown, context, now=call.now))


def delete(call: Call, backend: Backend) -> Reply:
    """Delete a model, if the setting ``delete_models`` allows it.

    :raises APIError: 403 if it does not, or for an alias; 404 ``model_not_found``.
    """
    model = _checked_name(call.path["model"])
    if not call.settings.delete_models:
        raise APIError(403, "Models cannot be deleted here (the setting delete_models allows it).", code="forbidden")
    if models.native_name(model, call.settings) != model:
        raise APIError(403, "This name is an alias; it can be removed in the settings only.", code="forbidden")
    backend.delete(model)
    return Answer(DeletedModel(id=model))


def _num_ctx(call: Call, model: str) -> int | None:
    """Return the context length in the model's own settings."""
    value = models.defaults(model, call.settings).options.get("num_ctx")
    return None if value is None else int(value)


#: characters and parts, as of paths and URLs, that no model's name has: they are not sent to a backend
_INVALID_NAME = re.compile(r"[\x00-\x20\x7f\\]|\.\./|://")


def _checked_name(name: str) -> str:
    """Return the name of a model in a path.

    :raises APIError: 404 for a name that no model can have.
    """
    if _INVALID_NAME.search(name):
        raise model_not_found(name)
    return name


def _to_model(
    id: str, model: native.ListedModel | native.ShowResponse, context_length: int | None, *, now: int
) -> Model:
    """Map a native model; ``owned_by`` is the namespace in its name, or ``library``."""
    namespaces = id.split("/")[:-1]
    return Model(
        id=id,
        created=native.unix_time(model.modified_at, now),
        owned_by=namespaces[-1] if namespaces else "library",
        context_length=context_length or UNSET,
        capabilities=UNSET if model.capabilities is None else model.capabilities,
    )
