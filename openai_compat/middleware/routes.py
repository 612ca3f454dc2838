"""The routes: those that are offered, those of OpenAI that are not, and the machine-readable table of both.

An endpoint is one line here: its method, its path below the prefix, its function, and the struct of its request, whose
rows say how each field is supported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from openai_compat.endpoints import audio, chat, completions, embeddings, models, stored
from openai_compat.endpoints.chat.request import ChatCompletionRequest
from openai_compat.endpoints.completions.request import CompletionRequest
from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.translate.fields import Field, rows
from openai_compat.translate.listing import ListQuery, PageQuery

Endpoint = Callable[[Call, Backend], Reply]


class Route(NamedTuple):
    """One method of one path, and the endpoint that answers it."""

    method: str
    #: below the prefix, with variable parts as werkzeug writes them
    path: str
    endpoint: Endpoint
    #: the struct whose rows tell the fields of the request; None for a request without any
    request: type[Struct] | None


def compatibility(call: Call, backend: Backend) -> Reply:
    """Describe each route's field support."""
    described = [_describe(route, call.settings) for route in ROUTES]
    return Answer(Compatibility(routes=described, not_offered=list(NOT_OFFERED)))


#: every route, below the prefix
ROUTES: tuple[Route, ...] = (
    Route("POST", "/chat/completions", chat.create, ChatCompletionRequest),
    Route("GET", "/chat/completions", stored.list_all, ListQuery),
    Route("GET", "/chat/completions/<id>", stored.retrieve, None),
    Route("POST", "/chat/completions/<id>", stored.update, stored.UpdateRequest),
    Route("DELETE", "/chat/completions/<id>", stored.delete, None),
    Route("GET", "/chat/completions/<id>/messages", stored.messages, PageQuery),
    Route("POST", "/completions", completions.create, CompletionRequest),
    Route("POST", "/embeddings", embeddings.create, embeddings.EmbeddingRequest),
    Route("GET", "/models", models.list_all, None),
    Route("GET", "/models/<path:model>", models.retrieve, None),
    Route("DELETE", "/models/<path:model>", models.delete, None),
    Route("POST", "/audio/transcriptions", audio.transcribe, audio.TranscriptionRequest),
    Route("GET", "/compatibility", compatibility, None),
)

_ROUTER = Map([Rule(route.path, methods=[route.method], endpoint=route) for route in ROUTES], merge_slashes=False).bind(
    "", "/"
)


def match(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the route of a path below the prefix, and the variable parts of the path.

    :raises NotFound: no route has exactly this path.
    :raises MethodNotAllowed: one has it, with other methods.
    """
    try:
        text = path.encode("latin-1").decode()  # PEP 3333: the bytes of the path, as latin-1
    except UnicodeEncodeError:
        text = path  # from a caller in process that has not heard of that: text already
    except UnicodeDecodeError:
        raise NotFound from None
    if "//" in text:
        raise NotFound
    route, arguments = _ROUTER.match(text, method)
    return route, dict(arguments)


#: what OpenAI has and is not offered here, below the prefix; what stands below each, too
NOT_OFFERED: tuple[str, ...] = (
    "/assistants",
    "/audio/speech",
    "/audio/translations",
    "/audio/voices",
    "/audio/voice_consents",
    "/batches",
    "/chatkit",
    "/containers",
    "/conversations",
    "/evals",
    "/files",
    "/fine_tuning",
    "/images",
    "/moderations",
    "/organization",
    "/projects",
    "/realtime",
    "/responses",
    "/skills",
    "/threads",
    "/uploads",
    "/vector_stores",
    "/videos",
)


def not_offered(path: str) -> str | None:
    """Return the part of OpenAI's API that a path belongs to, if it is one that is not offered."""
    return next((name for name in NOT_OFFERED if path == name or path.startswith(name + "/")), None)


# -- the table --------------------------------------------------------------------------------


class CompatibleField(Struct, kw_only=True):
    """How one field of a request is supported."""

    name: str
    #: mapped, emulated, accepted or refused
    status: str
    #: the native field it becomes
    native: str | None
    note: str


class CompatibleRoute(Struct, kw_only=True):
    """One route, and how the fields of its request are supported."""

    method: str
    path: str
    summary: str
    fields: list[CompatibleField]


class Compatibility(Struct, kw_only=True):
    """The response of ``GET /v1/compatibility``."""

    object: str = "compatibility"
    routes: list[CompatibleRoute]
    not_offered: list[str]


def summary(endpoint: Endpoint) -> str:
    """Return what an endpoint does: the first sentence of its docstring."""
    return (endpoint.__doc__ or "").strip().split("\n")[0]


def shown(path: str) -> str:
    """Return a path as documentation writes it: ``/models/{model}``."""
    return re.sub("<(?:path:)?(.*?)>", "{\\1}", path)


def _describe(route: Route, settings: Settings) -> CompatibleRoute:
    method, path, endpoint, struct = route
    fields = [_field(name, row, settings) for name, row in rows(struct).items()] if struct is not None else []
    return CompatibleRoute(method=method, path=settings.prefix + shown(path), summary=summary(endpoint), fields=fields)


#: fields that do something under a setting only
_NEEDS: dict[str, Callable[[Settings], bool]] = {
    "store": lambda settings: settings.store is not None,
    "metadata": lambda settings: settings.store is not None,
    "presence_penalty_penalty": lambda settings: settings.sampling.misspelt_presence_penalty,
}


def _field(name: str, row: Field, settings: Settings) -> CompatibleField:
    status: str = row.status
    if status == "policy":  # the setting decides
        status = "refused" if settings.unsupported == "error" else "accepted"
    elif name in _NEEDS and not _NEEDS[name](settings):
        status = "accepted"
    return CompatibleField(name=name, status=status, native=row.native or None, note=row.note.replace("``", ""))
