"""A conversation made short, to go on from in a later request: by ``POST /v1/responses/compact``, or by an item of a
response's input, as Codex asks for it.

The model is asked for a summary, which is the answer in an item that only this server reads back. The answer of
``compact`` also keeps what the user said.

Source: OpenAI's *Compact a response*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Annotated

from msgspec import UNSET, Raw, Struct, UnsetType, structs

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.endpoints.responses.answer import (
    Compaction,
    ResponseUsage,
    new_compaction,
    to_response_usage,
)
from openai_compat.endpoints.responses.choice import ResponseToolChoice, choose_tools
from openai_compat.endpoints.responses.errors import cut_summary, of_input
from openai_compat.endpoints.responses.request import (
    INCLUDED,
    ResponseOutput,
    ResponseRequest,
    from_response_request,
)
from openai_compat.endpoints.responses.state import read_input
from openai_compat.endpoints.responses.text_format import TextConfig, TextFormat, text_kind
from openai_compat.generation.plan import ChatPlan
from openai_compat.generation.run import ChatRun
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.compaction import role_of
from openai_compat.translate.fields import (
    Ignored,
    RequestObject,
    accepted,
    emulated,
    mapped,
    note_effectless,
    rows,
)
from openai_compat.translate.item_types import item_type
from openai_compat.translate.items import Past
from openai_compat.translate.reasoning import ThinkFields
from openai_compat.translate.stored_items import to_stored_item
from openai_compat.wire import json


class CompactRequest(ThinkFields):
    """Source: OpenAI's ``CompactResponseMethodPublicBody``, and ``image`` of its clients; fields of Ollama are as in a
    response.
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
    """Return a plan that asks for a summary of the messages of a plan, without tools: items of the input bring some."""
    asked = native.Message("user", _ASK)
    sent = structs.replace(plan.native_request, messages=[*plan.native_request.messages, asked], tools=UNSET)
    return dataclasses.replace(plan, native_request=sent)


class TriggerItem(RequestObject):
    """Source: OpenAI's ``CompactionTriggerItemParam``."""

    type: str | None = None


_decode_trigger = json.part_decoder(TriggerItem)


def without_trigger(items: list[Raw], ignored: Ignored) -> list[Raw] | None:
    """Return the items of an input before a last one that asks for a compaction; None if the last one does not."""
    if not items or b"compaction_trigger" not in bytes(items[-1]):
        return None
    *others, last = items
    path = f"input[{len(others)}]"
    if item_type(json.members_of(bytes(last), path), path) != "compaction_trigger":
        return None
    for name in _decode_trigger(bytes(last), path)[1]:
        ignored.add(name)
    return others


def from_compacting_request(
    request: ResponseRequest, items: list[Raw], call: Call, ignored: Ignored, *, is_stored: bool, past: Past
) -> tuple[ChatPlan, ResponseOutput]:
    """Map a request with a trigger to a plan that asks for a summary: without tools, and as text in no format.

    The request is mapped as another one is, so that what is not valid is found; what a summary has not is listed.

    :param items: as in :func:`from_response_request`, without the trigger.
    :raises APIError: 400 naming the invalid field.
    """
    unforced = structs.replace(request, tool_choice=None)
    plan, output = from_response_request(unforced, items, call, ignored, is_stored=is_stored, past=past)
    sent = plan.native_request
    tools = sent.tools or []
    choose_tools(request.tool_choice, tools, output.tools, ignored, has_others=bool(request.tools) and not tools)
    _note_switched_off(request, ignored)
    sent = structs.replace(sent, logprobs=UNSET, top_logprobs=UNSET)
    plan = dataclasses.replace(
        plan, native_request=sent, answer_format=UNSET, single_tool_call=False, checker=None, strict_tools={}
    )
    return asks_for_summary(plan), output


def _note_switched_off(request: ResponseRequest, ignored: Ignored) -> None:
    """List the fields of a request that have no effect on a summary."""
    text_format = request.text.format if isinstance(request.text, TextConfig) else None
    given = {
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice not in (None, "", "auto", "none", ResponseToolChoice()),
        "parallel_tool_calls": request.parallel_tool_calls is False,
        "format": not json.is_blank(request.format),
        "text.format": isinstance(text_format, TextFormat) and text_kind(text_format) != "text",
        "top_logprobs": bool(request.top_logprobs),
        **{f"include.{name}": name in (request.include or ()) for name in INCLUDED},
    }
    for name, is_given in given.items():
        if is_given:
            ignored.add(name)
    _note_no_reasoning(request, ignored)


def _note_no_reasoning(request: ResponseRequest, ignored: Ignored) -> None:
    """List what is asked of the reasoning that an answer has: with a summary there is none."""
    for name in ("summary", "generate_summary"):
        if request.reasoning is not None and not json.is_blank(getattr(request.reasoning, name)):
            ignored.add(f"reasoning.{name}")


def compact(call: Call, backend: Backend) -> Reply:
    """Make a conversation short: the user's messages, and a summary of all.

    :raises APIError: 400 naming the invalid field; 502 for a model that writes no summary, or a part of one; the native
        errors.
    """
    given, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    note_effectless(given, ignored)
    request = _as_response(given)
    _note_no_reasoning(request, ignored)
    read = read_input(request, call)
    plan, _ = from_response_request(request, read.items, call, ignored, is_stored=False, past=read.past(call))
    chat = ChatRun(asks_for_summary(plan), backend, ignored, call)
    with of_input():
        run = chat.finish()
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
        if item_type(members, f"input[{i}]") == "message" and role_of(members) == "user":
            yield to_stored_item(raw, f"input[{i}]", call.new_id).body
