"""A conversation made short, to go on from in a later request: by ``POST /v1/responses/compact``, or by an item of a
response's input, as Codex asks for it.

The model is asked for a summary, which is the answer in an item that only this server reads back. The answer of
``compact`` also keeps what the user said.

Source: OpenAI's *Compact a response*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import UNSET, Raw, Struct, UnsetType, structs

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.endpoints.responses.answer import Compaction, ResponseUsage, new_compaction, to_response_usage
from openai_compat.endpoints.responses.errors import cut_summary, of_input
from openai_compat.endpoints.responses.request import ResponseRequest, from_response_request
from openai_compat.endpoints.responses.state import read_input
from openai_compat.generation.plan import ChatPlan
from openai_compat.generation.run import ChatRun
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored, accepted, emulated, mapped, note_effectless, rows
from openai_compat.translate.item_types import item_type
from openai_compat.translate.reasoning import ThinkFields
from openai_compat.translate.stored_items import to_stored_item
from openai_compat.wire import json


class CompactRequest(ThinkFields):
    """Source: OpenAI's ``CompactResponseMethodPublicBody``, and ``image`` of its clients; the fields of Ollama are as in
    a response.
    """

    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    input: Annotated[Raw | UnsetType, mapped("messages")] = UNSET
    instructions: Annotated[str | None, mapped("messages", "the first system message")] = None
    previous_response_id: Annotated[str | None, emulated("the history comes from the store")] = None
    prompt_cache_key: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_options: Annotated[Raw | UnsetType, accepted()] = UNSET
    prompt_cache_retention: Annotated[Raw | UnsetType, accepted()] = UNSET
    service_tier: Annotated[Raw | UnsetType, accepted()] = UNSET
    tools: Annotated[Raw | UnsetType, accepted()] = UNSET
    parallel_tool_calls: Annotated[Raw | UnsetType, accepted()] = UNSET
    text: Annotated[Raw | UnsetType, accepted()] = UNSET
    image: Annotated[Raw | UnsetType, accepted()] = UNSET


decode = json.request_decoder(CompactRequest)

_ASK = (
    "Summarize the conversation so far, so that it can go on from the summary alone. Keep every fact, decision, name, "
    "number, result of a tool and open task that later turns may need. Answer with the summary only."
)


def _as_response(given: CompactRequest) -> ResponseRequest:
    """Return the request of a response with the fields that have an effect in a request to compact."""
    return ResponseRequest(**{name: getattr(given, name) for name, row in rows(CompactRequest).items() if row.effect})


class CompactedResponse(Struct, kw_only=True):
    """Source: OpenAI's ``CompactResource``."""

    id: str
    object: str = "response.compaction"
    #: Unix seconds
    created_at: int
    output: list[Raw | Compaction]
    usage: ResponseUsage


def asks_for_summary(plan: ChatPlan) -> ChatPlan:
    """Return a plan that asks for a summary of the messages of a plan."""
    asked = native.Message("user", _ASK)
    sent = structs.replace(plan.native_request, messages=[*plan.native_request.messages, asked])
    return dataclasses.replace(plan, native_request=sent)


def is_trigger(items: Sequence[Raw]) -> bool:
    """Return whether the last item of an input asks for a compaction.

    Source: OpenAI's ``CompactionTriggerItemParam``.
    """
    if not items or b"compaction_trigger" not in bytes(items[-1]):
        return False
    path = f"input[{len(items) - 1}]"
    return item_type(json.members_of(bytes(items[-1]), path), path) == "compaction_trigger"


def of_trigger(request: ResponseRequest) -> ResponseRequest:
    """Return the request for a summary that a request with a trigger stands for: no tools, and text in no format."""
    return structs.replace(request, tools=None, tool_choice=None, text=None, format=UNSET)


def compact(call: Call, backend: Backend) -> Reply:
    """Make a conversation short: the user's messages, and a summary of all.

    :raises APIError: 400 naming the invalid field; 502 for a model that writes no summary, or a part of one; the native
        errors.
    """
    given, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    note_effectless(given, ignored)
    request = _as_response(given)
    read = read_input(request, call)
    plan, _ = from_response_request(request, read.items, call, ignored, is_stored=False)
    chat = ChatRun(
        asks_for_summary(plan), backend, ignored, new_id=call.new_id, now=call.now, max_answer=call.settings.max_answer
    )
    with of_input():
        run = chat.finish(retry_strict=False)
    if run.choices[0].finish_reason == "length":
        raise cut_summary()
    summary = new_compaction(run.choices[0].text, call.new_id)
    kept: list[Raw | Compaction] = [*(Raw(body) for body in _of_user(read.items, call)), summary]
    usage = to_response_usage(run.final_messages)
    id = call.new_id("resp_")
    return Answer(CompactedResponse(id=id, created_at=run.created, output=kept, usage=usage), ignored.headers())


def _of_user(items: Iterable[Raw], call: Call) -> Iterable[bytes]:
    """Yield the user's messages, as they are stored."""
    for i, raw in enumerate(items):
        members = json.members_of(bytes(raw))
        if item_type(members, f"input[{i}]") == "message" and json.string(json.text_of(members["role"])) == "user":
            yield to_stored_item(raw, f"input[{i}]", call.new_id).body
