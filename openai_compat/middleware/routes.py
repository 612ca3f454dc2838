"""The routes that are offered, the routes of OpenAI that are not, and the compatibility endpoint that lists both.

Each endpoint function is one row of :data:`ROUTES`. Its request struct describes how each field is supported; nothing
about a single endpoint belongs here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from openai_compat.endpoints import audio, chat, completions, conversations, embeddings, models, responses, stored
from openai_compat.endpoints.chat import input_tokens as chat_input_tokens
from openai_compat.endpoints.chat.request import ChatCompletionRequest
from openai_compat.endpoints.completions.request import CompletionRequest
from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.endpoints.responses import compaction, input_tokens
from openai_compat.endpoints.responses import stored as stored_responses
from openai_compat.endpoints.responses.request import ResponseRequest
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.translate.fields import Field, rows
from openai_compat.translate.listing import ItemsQuery, ListQuery, PageQuery

#: handles one request: see ``endpoints/contract.py``
Endpoint = Callable[[Call, Backend], Reply]


class Route(NamedTuple):
    """One method of one path, and its endpoint."""

    method: str
    #: below the prefix; variables are written as in werkzeug's rules
    path: str
    endpoint: Endpoint
    #: the struct of the body, form or query; None for a request without fields
    request: type[Struct] | None


def compatibility(call: Call, backend: Backend) -> Reply:
    """Describe each route's field support."""
    described = [_describe(route, call.settings) for route in ROUTES]
    return Answer(Compatibility(routes=described, not_offered=list(NOT_OFFERED)))


#: every route that is offered
ROUTES: tuple[Route, ...] = (
    Route("POST", "/chat/completions", chat.create, ChatCompletionRequest),
    Route("GET", "/chat/completions", stored.list_all, ListQuery),
    Route("POST", "/chat/completions/input_tokens", chat_input_tokens.count, ChatCompletionRequest),
    Route("GET", "/chat/completions/<id>", stored.retrieve, None),
    Route("POST", "/chat/completions/<id>", stored.update, stored.UpdateRequest),
    Route("DELETE", "/chat/completions/<id>", stored.delete, None),
    Route("GET", "/chat/completions/<id>/messages", stored.messages, PageQuery),
    Route("POST", "/responses", responses.create, ResponseRequest),
    Route("POST", "/responses/compact", compaction.compact, compaction.CompactRequest),
    Route("POST", "/responses/input_tokens", input_tokens.count, ResponseRequest),
    Route("GET", "/responses/<id>", stored_responses.retrieve, stored_responses.RetrieveQuery),
    Route("DELETE", "/responses/<id>", stored_responses.delete, None),
    Route("POST", "/responses/<id>/cancel", stored_responses.cancel, None),
    Route("GET", "/responses/<id>/input_items", stored_responses.input_items, ItemsQuery),
    Route("POST", "/conversations", conversations.create, conversations.ConversationRequest),
    Route("GET", "/conversations/<id>", conversations.retrieve, None),
    Route("POST", "/conversations/<id>", conversations.update, conversations.ConversationUpdate),
    Route("DELETE", "/conversations/<id>", conversations.delete, None),
    Route("GET", "/conversations/<id>/items", conversations.list_items, ItemsQuery),
    Route("POST", "/conversations/<id>/items", conversations.add_items, conversations.ItemsRequest),
    Route("GET", "/conversations/<id>/items/<item>", conversations.retrieve_item, None),
    Route("DELETE", "/conversations/<id>/items/<item>", conversations.delete_item, None),
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
    """Return the route of a path below the prefix, and the variables in the path.

    :raises NotFound: no route has exactly this path.
    :raises MethodNotAllowed: only routes with other methods have this path.
    """
    try:
        text = path.encode("latin-1").decode()  # PEP 3333: the bytes of the path, decoded as latin-1
    except UnicodeEncodeError:
        text = path  # a caller in process that does not follow the PEP: decoded already
    except UnicodeDecodeError:
        raise NotFound from None
    if "//" in text:
        raise NotFound
    route, arguments = _ROUTER.match(text, method)
    return route, dict(arguments)


def exists(path: str) -> bool:
    """Return whether a path below the prefix has a route, by any method."""
    try:
        match("GET", path)
    except NotFound:
        return False
    except MethodNotAllowed:
        return True
    return True


#: paths of OpenAI's API that are not offered, each with all paths below it
NOT_OFFERED: tuple[str, ...] = (
    "/assistants",
    "/audio/speech",
    "/audio/translations",
    "/audio/voices",
    "/audio/voice_consents",
    "/batches",
    "/chatkit",
    "/containers",
    "/evals",
    "/files",
    "/fine_tuning",
    "/images",
    "/moderations",
    "/organization",
    "/projects",
    "/realtime",
    "/skills",
    "/threads",
    "/uploads",
    "/vector_stores",
    "/videos",
)


def not_offered(path: str) -> str | None:
    """Return the item of :data:`NOT_OFFERED` that covers a path; None if there is none."""
    return next((name for name in NOT_OFFERED if path == name or path.startswith(name + "/")), None)


# -- compatibility ----------------------------------------------------------------------------


class CompatibleField(Struct, kw_only=True):
    """How one field of a request is supported."""

    name: str
    #: mapped, emulated, accepted or refused
    status: str
    #: the native field that it becomes
    native: str | None
    note: str


class CompatibleRoute(Struct, kw_only=True):
    """A route, and how the fields of its request are supported."""

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
    """Return what an endpoint does: the first line of its docstring."""
    return (endpoint.__doc__ or "").strip().split("\n")[0]


def shown(path: str) -> str:
    """Return a route's path as OpenAI's documentation writes it: ``/models/{model}``."""
    return re.sub("<(?:path:)?(.*?)>", "{\\1}", path)


def _describe(route: Route, settings: Settings) -> CompatibleRoute:
    method, path, endpoint, struct = route
    fields = [_field(name, row, settings) for name, row in rows(struct).items()] if struct is not None else []
    return CompatibleRoute(method=method, path=settings.prefix + shown(path), summary=summary(endpoint), fields=fields)


#: fields that have an effect only with some settings
_EFFECTIVE: dict[str, Callable[[Settings], bool]] = {
    "store": lambda settings: settings.store is not None,
    "metadata": lambda settings: settings.store is not None,
    "presence_penalty_penalty": lambda settings: settings.sampling.misspelt_presence_penalty,
}


#: fields that are a 400 without a store
_NEEDS_STORE = ("previous_response_id", "conversation", "background")


def _field(name: str, row: Field, settings: Settings) -> CompatibleField:
    status: str = row.status
    if status == "policy":
        status = "refused" if settings.unsupported == "error" else "accepted"
    elif name in _NEEDS_STORE and settings.store is None:
        status = "refused"
    elif name in _EFFECTIVE and not _EFFECTIVE[name](settings):
        status = "accepted"
    return CompatibleField(name=name, status=status, native=row.native or None, note=row.note.replace("``", ""))
