"""``POST /v1/responses/input_tokens``: how many tokens the prompt of a response has.

Source: OpenAI's *Get input token counts*; Ollama has no such API, so the backend is asked for one token.
"""

from __future__ import annotations

from msgspec import Struct

from openai_compat.endpoints.contract import Answer, Call, Reply
from openai_compat.endpoints.responses.errors import of_input
from openai_compat.endpoints.responses.request import decode, from_response_request
from openai_compat.endpoints.responses.state import read_input
from openai_compat.generation.prompt_size import note_uncounted, prompt_size
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored


class InputTokens(Struct, kw_only=True):
    """Source: OpenAI's ``TokenCountsResource``."""

    object: str = "response.input_tokens"
    input_tokens: int


def count(call: Call, backend: Backend) -> Reply:
    """Count the tokens of a response's prompt.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    note_uncounted(request, ignored)
    read = read_input(request, call)
    plan, _ = from_response_request(request, read.items, call, ignored, is_stored=False, past=read.past(call))
    with of_input():
        tokens = prompt_size(plan, backend, call.settings, ignored)
    return Answer(InputTokens(input_tokens=tokens), ignored.headers())
