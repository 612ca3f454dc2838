"""``POST /v1/chat/completions``: the request, the answer, and here what leads from one to the other.

Source: ollama ``middleware/openai.go`` ``ChatMiddleware`` (at fb3076099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import msgspec

from openai_compat.endpoints.chat.answer import (
    ChatCompletionChunk,
    Choosing,
    Collected,
    Form,
    to_chat_completion,
    to_chunks,
)
from openai_compat.endpoints.chat.kept import keep
from openai_compat.endpoints.chat.request import Asked, decode, from_chat_request
from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply
from openai_compat.errors import answer_too_long, failed
from openai_compat.native import messages as native
from openai_compat.native.backend import Backend
from openai_compat.native.together import Opener, Streams, streams
from openai_compat.translate import reasoning
from openai_compat.translate.fields import Ignored
from openai_compat.translate.forced import ForcedTurn
from openai_compat.translate.purejson import PureJSON
from openai_compat.translate.sampling import seeded
from openai_compat.translate.schemas import Uncheckable
from openai_compat.translate.turn import Turn

ChatStreams = Streams[native.ChatResponse]


def create(call: Call, backend: Backend) -> Reply:
    """Answer a chat, as one completion or as a stream of chunks.

    :raises APIError: 400 naming what is wrong with the request; the native side's failures.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    asked = from_chat_request(request, call, ignored)
    form = Form(
        id=call.new_id("chatcmpl-"),
        model=asked.model,
        now=call.now,
        reasoning_content=call.settings.reasoning_content,
        is_old_form=asked.is_old_form,
    )
    openers = [_opener(asked, seeded(asked.sent, i), backend, ignored) for i in range(asked.n)]
    source = streams(openers, threads=asked.n if backend.is_remote else 1)
    if asked.stream:
        return EventStream(_chunks(call, asked, form, source, ignored), source, ignored.headers())
    with closing(source):
        choices, ends, created = _collect(call, asked, source, asked.n, ignored)
    if asked.checker is not None:
        for index, choice in enumerate(choices):
            choices[index] = _checked(call, asked, index, choice, ends, backend, ignored)
    completion = to_chat_completion(form, choices, ends, created)
    if asked.keep is not None and not keep(call, asked, completion):
        ignored.add("store")
        ignored.add("metadata")
    return Answer(completion, ignored.headers())


def _opener(asked: Asked, sent: native.ChatRequest, backend: Backend, ignored: Ignored) -> Opener[native.ChatResponse]:
    return reasoning.opener(backend.chat, sent, asked.model, asked.think_field, backend, ignored)


def _turns(call: Call, asked: Asked, n: int, ignored: Ignored) -> list[Choosing]:
    """What makes the choices out of native messages."""
    if asked.forced is not None and not asked.is_silent:
        return [ForcedTurn(asked.forced, call.new_id, one_call=asked.one_call) for _ in range(n)]
    return [
        Turn(
            call.new_id,
            one_call=asked.one_call,
            # Nobody waits for the usage: the native side need not go on.
            stop_after_call=asked.one_call and asked.stream and not asked.include_usage and asked.keep is None,
            is_silent=asked.is_silent,
            allowed=asked.allowed,
            pure=PureJSON() if asked.is_json else None,
            check=partial(_check, asked, ignored=ignored) if asked.stream and asked.checker is not None else None,
        )
        for _ in range(n)
    ]


def _check(asked: Asked, text: str, ignored: Ignored) -> None:
    """
    :raises APIError: 502 ``response_format_failed`` for a text that the strict schema does not allow.
    """
    mismatch = _mismatch(asked, text, ignored)
    if mismatch:
        message = f"The model's answer does not match the schema of response_format: {mismatch}"
        raise failed(message, "response_format_failed")


def _mismatch(asked: Asked, text: str, ignored: Ignored) -> str | None:
    try:
        return asked.checker.mismatch(text) if asked.checker is not None else None
    except Uncheckable as error:
        ignored.add("response_format.json_schema.strict", str(error))
        return None


# -- streamed ---------------------------------------------------------------------------------


def _chunks(
    call: Call, asked: Asked, form: Form, source: ChatStreams, ignored: Ignored
) -> Iterator[Sequence[ChatCompletionChunk]]:
    ends: list[native.ChatResponse] = []
    turns = _turns(call, asked, asked.n, ignored)
    collected = [Collected() for _ in turns] if asked.keep is not None else []
    created = form.now
    for chunks in to_chunks(
        form,
        source,
        turns,
        include_usage=asked.include_usage,
        stop=source.stop,
        ends=ends,
        collected=collected,
    ):
        if collected:
            if source.size > call.settings.max_answer:
                raise answer_too_long()
            created = chunks[0].created if chunks else created
        yield chunks
    if collected:
        keep(call, asked, to_chat_completion(form, collected, ends, created))


# -- whole ------------------------------------------------------------------------------------


def _collect(
    call: Call, asked: Asked, source: ChatStreams, n: int, ignored: Ignored
) -> tuple[list[Collected], list[native.ChatResponse], int]:
    """The choices, the done line of each native call, and when the answer began."""
    turns = _turns(call, asked, n, ignored)
    choices = [Collected() for _ in turns]
    ends: list[native.ChatResponse] = []
    created = None
    for index, response in source:
        if created is None:
            created = native.unix_time(response.created_at, call.now)
        choices[index].add(turns[index].feed(response))
        if source.size > call.settings.max_answer:
            raise answer_too_long()
        if response.done:
            ends.append(response)
            if len(ends) == n:
                break
    return choices, ends, call.now if created is None else created


def _checked(
    call: Call,
    asked: Asked,
    index: int,
    choice: Collected,
    ends: list[native.ChatResponse],
    backend: Backend,
    ignored: Ignored,
) -> Collected:
    """The choice, if its schema allows it; else, where the settings want it, what the model says when told why not.

    :raises APIError: 502 ``response_format_failed``.
    """
    if choice.finish_reason != "stop":
        return choice
    mismatch = _mismatch(asked, choice.text, ignored) if call.settings.retry_strict else None
    if mismatch:
        told = f"This does not match the JSON Schema that was asked for. {mismatch} Answer once more, so that it does."
        messages = [native.Message("assistant", choice.text), native.Message("user", told)]
        sent = msgspec.structs.replace(seeded(asked.sent, index), messages=[*asked.sent.messages, *messages])
        with closing(streams([_opener(asked, sent, backend, ignored)], threads=1)) as source:
            [choice], more, _ = _collect(call, asked, source, 1, ignored)
        ends += more
        if choice.finish_reason != "stop":
            return choice
    _check(asked, choice.text, ignored)
    return choice
