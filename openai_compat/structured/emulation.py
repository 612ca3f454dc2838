"""Tools for a model that has none: described in the system message, and called in JSON that a ``format`` admits.

A template without tools drops what it does not know, so calls and results of the history become text too: a call in the
words in which the model makes one, a result in a message of the user. ``emulated_answer.py`` reads the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import UNSET, Raw, Struct, structs

from openai_compat.native import types as native
from openai_compat.structured.call_schema import answer_schema
from openai_compat.structured.forced_request import tool_schemas, under_own_format
from openai_compat.structured.instructions import instructed
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.wire import json


class WrittenCall(Struct):
    """A call, as the model writes it."""

    name: str
    parameters: Raw


class WrittenCalls(Struct):
    """An answer that is calls."""

    calls: list[WrittenCall]


def emulated_request(
    request: native.ChatRequest,
    paths: Mapping[str, str],
    field: str = "tools",
    *,
    answer: bytes | None = None,
    forced: ForcedChoice | None = None,
    is_single: bool = False,
) -> native.ChatRequest:
    """Return a copy of a native request whose tools are text, and whose answer is calls or an answer.

    :param paths: the paths of the functions' parameters by the functions' names, for errors.
    :param field: the request's field of the tools, for errors.
    :param answer: the ``format`` of an answer without calls; None for text.
    :param forced: the call that the answer must be.
    :param is_single: one call at most is wanted.
    :raises APIError: 400 for tools whose schemas take too much memory.
    """
    tools = request.tools or []
    is_single = is_single or (forced is not None and forced.is_named)
    schemas = tool_schemas(tools, paths, field)
    schema = answer_schema(schemas, answer, can_answer=forced is None, is_single=is_single)
    text = _instruction(tools, has_schema=answer is not None, is_forced=forced is not None, is_single=is_single)
    messages = instructed(written_history(request.messages), text)
    return under_own_format(request, messages=messages, tools=UNSET, format=Raw(json.encode(schema)))


_INTRODUCTION = (
    "You can call functions, which give you what you do not know and do what you cannot do. These are the functions, "
    "each with a JSON Schema of its parameters:"
)
_CALL = 'To call a function, answer with this JSON and nothing else: {"calls": [{"name": …, "parameters": {…}}]}'
_SEVERAL = "Several calls in this array are possible. "
_RESULTS = "The next message of the user then has the results."
_ANSWER = 'To answer without a call, answer with this JSON and nothing else: {"answer": "…"}'
_ANSWER_WITH_SCHEMA = 'To answer without a call, answer with this JSON and nothing else: {"answer": {…}}'
_MUST = "You must call a function now."


def _instruction(tools: Iterable[native.Tool], *, has_schema: bool, is_forced: bool, is_single: bool) -> str:
    lines = [_INTRODUCTION, *(json.encode(tool.function).decode() for tool in tools)]
    calling = f"{_CALL} {'' if is_single else _SEVERAL}{_RESULTS}"
    last = _MUST if is_forced else _ANSWER_WITH_SCHEMA if has_schema else _ANSWER
    return "\n\n".join(["\n".join(lines), f"{calling}\n{last}"])


# -- the history ------------------------------------------------------------------------------


def has_calls(messages: Iterable[native.Message]) -> bool:
    """Return whether a history has calls or results."""
    return any(message.tool_calls or message.role == "tool" for message in messages)


def written_history(messages: Sequence[native.Message]) -> list[native.Message]:
    """Return messages in which calls and results are text; those beside them of the same role are joined to them.

    Many templates want user and assistant to take turns, so a result and what the user says after it are one message.
    """
    groups: list[list[native.Message]] = []
    names: dict[str, str] = {}
    has_written = False  # of the last group
    for message in messages:
        sent = _written(message, names)
        is_written = sent is not message
        if groups and (is_written or has_written) and groups[-1][-1].role == sent.role:
            groups[-1].append(sent)
            has_written = True
        else:
            groups.append([sent])
            has_written = is_written
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _written(message: native.Message, names: dict[str, str]) -> native.Message:
    """Return a message as text; itself if it has no call and is no result.

    :param names: the functions of the calls so far by the calls' ids; those of the message are added.
    """
    if message.role == "tool":
        name = message.tool_name or names.get(message.tool_call_id or "", "")
        title = f"Result of {name}:" if name else "Result:"
        return structs.replace(
            message, role="user", content=f"{title}\n{message.content}", tool_name=UNSET, tool_call_id=UNSET
        )
    if not message.tool_calls:
        return message
    calls = []
    for call in message.tool_calls:
        if call.id:
            names[call.id] = call.function.name
        calls.append(WrittenCall(call.function.name, Raw(json.text_of(call.function.arguments) or b"{}")))
    text = json.encode(WrittenCalls(calls)).decode()
    content = f"{message.content}\n\n{text}" if message.content else text
    return structs.replace(message, content=content, tool_calls=UNSET)


def _joined(group: Sequence[native.Message]) -> native.Message:
    """Return messages of one role as one."""
    return structs.replace(
        group[0],
        content="\n\n".join(message.content for message in group if message.content),
        thinking="\n".join(message.thinking for message in group if message.thinking) or UNSET,
        images=[image for message in group for image in message.images or ()] or UNSET,
    )
