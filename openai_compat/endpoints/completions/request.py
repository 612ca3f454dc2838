"""The request of a text completion: OpenAI's fields, how each is supported, and the mapping to a plan.

A new parameter is a field with its row, and a line in the function that maps it; no native call is made here.

Source: ollama ``openai/openai.go`` ``CompletionRequest``, ``FromCompleteRequest`` (at fb3076099). Differs: lists of
prompts, ``n``, ``best_of``, ``echo`` and ``raw`` are supported; a ``top_p`` of 0 is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Raw, UnsetType, structs

from openai_compat.endpoints.contract import Call
from openai_compat.errors import invalid
from openai_compat.native import types as native
from openai_compat.translate import models, reasoning
from openai_compat.translate.fields import (
    Ignored,
    Integer,
    accepted,
    check_integer,
    check_ranges,
    emulated,
    emulated_integer,
    mapped,
    mapped_integer,
    note_effectless,
)
from openai_compat.translate.sampling import from_format, from_keep_alive, from_sampling
from openai_compat.translate.texts import check_texts
from openai_compat.translate.usage import StreamOptions, includes_usage
from openai_compat.wire import json


class CompletionRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateCompletionRequest``; Ollama's own fields are additions."""

    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    prompt: Annotated[
        str | list[Any] | None, mapped("prompt", "one native call for each prompt of a list; token ids are refused")
    ] = None
    suffix: Annotated[str | None, mapped("suffix")] = None
    max_tokens: Annotated[Integer, mapped_integer("options.num_predict", low=-1)] = None
    n: Annotated[Integer, emulated_integer("one native call for each choice, with seeds ``seed`` + i", low=1)] = None
    best_of: Annotated[Integer, emulated_integer("ranked by mean log-probability; not with ``stream``", low=0)] = None
    echo: Annotated[bool | None, emulated("puts the prompt before the text; not with ``logprobs``")] = None
    logprobs: Annotated[Integer, mapped_integer("top_logprobs", "in the legacy format", low=0, high=20)] = None
    stream: Annotated[bool | None, emulated("chunks or one response; the native call always streams")] = None
    stream_options: Annotated[StreamOptions | None, emulated("``include_usage``: a last chunk with the usage")] = None
    raw: Annotated[bool | None, mapped("raw", "does not apply the model's template")] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    user: Annotated[Raw | UnsetType, accepted()] = UNSET


decode = json.request_decoder(CompletionRequest)


@dataclass(frozen=True)
class CompletionPlan:
    """The native requests of a text completion, and the format of its response."""

    #: one for each prompt
    native_requests: list[native.GenerateRequest]
    #: the client's name for the model
    model: str
    #: the request field that enabled thinking; None if a setting did, or thinking is not enabled
    think_field: str | None
    #: choices of each prompt that are returned
    n: int
    #: choices of each prompt that are generated; each is a native call
    best_of: int
    #: text to send before the generated text, for each prompt
    echoes: list[str]
    has_logprobs: bool
    #: generate no text
    max_tokens_is_zero: bool
    stream: bool
    include_usage: bool


def from_completion_request(request: CompletionRequest, call: Call, ignored: Ignored) -> CompletionPlan:
    """Map a request to a plan of native calls and the format of the response.

    :raises APIError: 400 naming the invalid field.

    Source: ``FromCompleteRequest``.
    """
    model = models.given(request.model)
    if request.prompt in (None, "", [], [""]):
        urls = {"messages": "/chat/completions", "input": "/responses"}
        ignored.refuse_wrong_url("prompt", call.settings.prefix, urls)
    prompts = _prompts(request.prompt)
    check_ranges(request)
    n, best_of = _counts(request, len(prompts), call)
    note_effectless(request, ignored)
    has_logprobs = _has_logprobs(request, ignored)
    target, think_field, is_zero = _native_request(request, model, call, ignored)
    if has_logprobs or best_of > n:
        target.logprobs = True
    if has_logprobs and request.logprobs:
        target.top_logprobs = int(request.logprobs)
    return CompletionPlan(
        native_requests=[structs.replace(target, prompt=prompt) for prompt in prompts],
        model=model,
        think_field=think_field,
        n=n,
        best_of=best_of,
        echoes=prompts if request.echo else [""] * len(prompts),
        has_logprobs=has_logprobs,
        max_tokens_is_zero=is_zero,
        stream=bool(request.stream),
        include_usage=includes_usage(request.stream_options, ignored),
    )


def _native_request(
    request: CompletionRequest, model: str, call: Call, ignored: Ignored
) -> tuple[native.GenerateRequest, str | None, bool]:
    """Return the native request without a prompt, the field that enabled thinking, and whether 0 tokens are wanted."""
    settings = call.settings
    defaults = models.defaults(model, settings)
    think, think_field = reasoning.think(request, ignored, defaults.think)
    max_tokens = None if request.max_tokens is None else int(request.max_tokens)
    sampled = from_sampling(request, max_tokens, settings, ignored, defaults)
    target = native.GenerateRequest(model=models.native_name(model, settings), prompt="", options=sampled.options)
    from_keep_alive(request, target, settings, ignored, defaults.keep_alive)
    if think is not None:
        target.think = think
    if request.suffix:
        target.suffix = request.suffix
    if request.raw is not None:
        target.raw = request.raw
    target.format = from_format(request.format)
    return target, think_field, sampled.max_tokens_is_zero


def _prompts(value: str | list[Any] | None) -> list[str]:
    """Return the prompts; an absent one is empty, for which Ollama only loads the model.

    :raises APIError: 400 for an empty list, and for anything but text.
    """
    if value is None or isinstance(value, str):
        return [value or ""]
    if not value:
        raise invalid(
            "Invalid 'prompt': empty array. Expected an array with minimum length 1.", "prompt", "empty_array"
        )
    text = "Token ids cannot be completed, since Ollama takes text only. Send the text itself."
    return check_texts(value, "prompt", f"Invalid 'prompt': {text}", "Invalid type for '{path}': expected a string.")


def _counts(request: CompletionRequest, prompts: int, call: Call) -> tuple[int, int]:
    """Return ``n`` and ``best_of``; *prompts* is the number of prompts.

    :raises APIError: 400 for more choices or native calls than the settings allow, for ``best_of`` below ``n``, and for
        ``best_of`` with ``stream``.
    """
    n = int(request.n or 1)
    best_of = int(request.best_of or n)
    for name, value in (("n", n), ("best_of", best_of)):
        check_integer(name, value, high=call.settings.max_n)
    if best_of < n:
        raise invalid(f"'best_of' must be at least 'n', but got {best_of} and {n}.", "best_of")
    if request.stream and best_of > 1 and request.best_of:
        raise invalid("'best_of' cannot be given with 'stream'.", "best_of")
    if prompts * best_of > call.settings.max_calls:
        text = f"{prompts} prompts with {best_of} choices each need more than {call.settings.max_calls} native calls."
        name = "prompt" if prompts > 1 else "best_of" if best_of > n else "n"
        raise invalid(f"Invalid '{name}': {text}", name, "array_above_max_length")
    return n, best_of


def _has_logprobs(request: CompletionRequest, ignored: Ignored) -> bool:
    """Return whether log-probabilities are requested.

    :raises APIError: 400 for ``logprobs`` with ``echo``: Ollama has none for the prompt.
    """
    if request.echo and request.logprobs is not None:
        if request.logprobs > 0:
            raise invalid("'logprobs' cannot be given with 'echo': Ollama has none for the prompt.", "logprobs")
        ignored.add("logprobs")  # 0, with no alternatives, is not refused: OpenAI's own tests send it with echo
        return False
    return request.logprobs is not None
