"""``POST /v1/chat/completions/input_tokens``: how many tokens the prompt of a chat has.

Source: llama.cpp's server; OpenAI has it for responses only.
"""

from __future__ import annotations

from msgspec import Struct

from openai_compat.endpoints.chat.request import decode, from_chat_request
from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.generation.prompt_size import note_uncounted, prompt_size
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored


class InputTokens(Struct):
    """The number of tokens."""

    input_tokens: int


def count(call: Call, backend: Backend) -> Reply:
    """Count the tokens of a chat's prompt.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    note_uncounted(request, ignored)
    plan, _ = from_chat_request(request, call, ignored)
    return Answer(InputTokens(prompt_size(plan, backend, call.settings, ignored)), ignored.headers())
