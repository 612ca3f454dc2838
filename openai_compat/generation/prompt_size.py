"""The number of tokens of a prompt, as the backend counts it: one token is generated and thrown away.

The prompt stays in the backend's cache for the call that follows.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from msgspec import UNSET, Raw, Struct, structs

from openai_compat.errors import APIError, bad_gateway
from openai_compat.generation.attempts import Attempts
from openai_compat.generation.plan import ChatPlan
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.native.errors import ContextOverflow
from openai_compat.native.stream import NativeStream
from openai_compat.native.usage import count
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.wire import json

#: fields that say how an answer is made, sent and kept, where there is none
_UNCOUNTED = (
    *("background", "include", "max_completion_tokens", "max_output_tokens", "max_tokens", "metadata", "n", "store"),
    *("stream", "stream_options"),
)


def note_uncounted(request: Struct, ignored: Ignored) -> None:
    """List the given fields of a request that have no effect on the number of its tokens."""
    for name in _UNCOUNTED:
        value = getattr(request, name, None)
        if value and not (isinstance(value, Raw) and json.is_blank(value)) and value is not UNSET:
            ignored.add(name)


def prompt_size(plan: ChatPlan, backend: Backend, settings: Settings, ignored: Ignored) -> int:
    """Return the number of tokens of a plan's prompt, also of one that is longer than the context.

    It is the prompt of the first attempt.

    :raises APIError: the native errors; 502 for a backend that does not count.
    """
    attempts = Attempts(plan, backend, settings, ignored)
    try:
        stream = _first(attempts)
    except ContextOverflow as error:
        if error.prompt_tokens is None:
            raise
        return error.prompt_tokens
    with closing(stream):
        for message in stream:
            if message.done:
                tokens = count(message.prompt_eval_count)
                if not tokens:  # a prompt has one at least
                    raise bad_gateway("The backend did not count the tokens of the prompt.")
                return tokens
    raise bad_gateway("The request was cancelled.")


def _first(attempts: Attempts) -> NativeStream[native.ChatResponse]:
    """Start the first attempt, for one token; once more where the model turns out to have no tools."""
    try:
        return _start(attempts)
    except APIError as error:
        if not attempts.learn(error):
            raise
    return _start(attempts)


def _start(attempts: Attempts) -> NativeStream[native.ChatResponse]:
    attempt = attempts.first()
    options = {**attempt.request.options, "num_predict": 1}
    counted = replace(attempt, request=structs.replace(attempt.request, options=options, truncate=False))
    return attempts.start(counted, 0, attempts.backend.cancel.child())
