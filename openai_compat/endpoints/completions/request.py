"""The request of a completion: OpenAI's fields, how each is supported, and the plan that they make.

Source: ollama ``openai/openai.go`` ``CompletionRequest``, ``FromCompleteRequest`` (at fb3076099). Differs: lists of
prompts, ``n``, ``best_of``, ``echo`` and ``raw``; a ``top_p`` of 0 is passed on.
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
from openai_compat.translate.sampling import from_keep_alive, from_sampling, max_tokens_is_zero
from openai_compat.translate.texts import check_texts
from openai_compat.translate.usage import StreamOptions, includes_usage
from openai_compat.wire import json


class CompletionRequest(reasoning.ThinkFields):
    """Source: OpenAI's ``CreateCompletionRequest``; Ollama's own fields as extras."""

    model: Annotated[str | None, mapped("model", "an alias becomes the model behind it")] = None
    prompt: Annotated[
        str | list[Any] | None, mapped("prompt", "one native call for each of a list; token ids are refused")
    ] = None
    suffix: Annotated[str | None, mapped("suffix")] = None
    max_tokens: Annotated[Integer, mapped_integer("options.num_predict", low=-1)] = None
    n: Annotated[Integer, emulated_integer("so many native calls a prompt, with seeds ``seed`` + i", low=1)] = None
    best_of: Annotated[Integer, emulated_integer("the best by mean log-probability; not with ``stream``", low=0)] = None
    echo: Annotated[bool | None, emulated("the prompt before the text; not with ``logprobs``")] = None
    logprobs: Annotated[Integer, mapped_integer("top_logprobs", "in the legacy form", low=0, high=5)] = None
    stream: Annotated[bool | None, emulated("how the answer is sent; the native call always streams")] = None
    stream_options: Annotated[StreamOptions | None, emulated("``include_usage``: a last chunk with the usage")] = None
    raw: Annotated[bool | None, mapped("raw", "skips the model's template")] = None
    format: Annotated[Raw | UnsetType, mapped("format")] = UNSET
    user: Annotated[Any, accepted()] = None


decode = json.request_decoder(CompletionRequest)


@dataclass(frozen=True)
class CompletionPlan:
    """What a request asks of the native side, a call for each prompt and choice, and the format of its response."""

    native_requests: list[native.GenerateRequest]
    #: the client's name for the model
    model: str
    #: the request's field that turned thinking on
    think_field: str | None
    #: choices of each prompt, and how many are made to choose them from
    n: int
    best_of: int
    #: what stands before the text of each prompt
    echoes: list[str]
    has_logprobs: bool
    max_tokens_is_zero: bool
    stream: bool
    include_usage: bool


def from_completion_request(request: CompletionRequest, call: Call, ignored: Ignored) -> CompletionPlan:
    """Map a whole request.

    :raises APIError: 400, naming the field.

    Source: ``FromCompleteRequest``.
    """
    model = models.given(request.model)
    prompts = _prompts(request.prompt)
    check_ranges(request)
    n, best_of = _counts(request, len(prompts), call)
    note_effectless(request, ignored)
    has_logprobs = _has_logprobs(request, ignored)
    max_tokens = None if request.max_tokens is None else int(request.max_tokens)
    sent, think_field = _native_request(request, model, max_tokens, call, ignored)
    if has_logprobs or best_of > n:
        sent.logprobs = True
    if has_logprobs and request.logprobs:
        sent.top_logprobs = int(request.logprobs)
    return CompletionPlan(
        native_requests=[structs.replace(sent, prompt=prompt) for prompt in prompts],
        model=model,
        think_field=think_field,
        n=n,
        best_of=best_of,
        echoes=prompts if request.echo else [""] * len(prompts),
        has_logprobs=has_logprobs,
        max_tokens_is_zero=max_tokens_is_zero(request, max_tokens),
        stream=bool(request.stream),
        include_usage=includes_usage(request.stream_options, ignored),
    )


def _native_request(
    request: CompletionRequest, model: str, max_tokens: int | None, call: Call, ignored: Ignored
) -> tuple[native.GenerateRequest, str | None]:
    """Return the native request, still without a prompt, and the field that turned thinking on."""
    settings = call.settings
    defaults = models.defaults(model, settings)
    think, think_field = reasoning.think(request, ignored, defaults.think)
    sent = native.GenerateRequest(
        model=models.native_name(model, settings),
        prompt="",
        options=from_sampling(request, max_tokens, settings, ignored, defaults.options),
    )
    from_keep_alive(request, sent, settings, defaults.keep_alive)
    if think is not None:
        sent.think = think
    if request.suffix:
        sent.suffix = request.suffix
    if request.raw is not None:
        sent.raw = request.raw
    if json.text_of(request.format):
        sent.format = request.format
    return sent, think_field


def _prompts(given: str | list[Any] | None) -> list[str]:
    """Return the prompts; without any there is one empty prompt, with which Ollama only loads the model."""
    if given is None or isinstance(given, str):
        return [given or ""]
    if not given:
        raise invalid(
            "Invalid 'prompt': empty array. Expected an array with minimum length 1.", "prompt", "empty_array"
        )
    text = "Token ids cannot be completed, since Ollama takes text only. Send the text itself."
    return check_texts(given, "prompt", f"Invalid 'prompt': {text}", "Invalid type for '{path}': expected a string.")


def _counts(request: CompletionRequest, prompts: int, call: Call) -> tuple[int, int]:
    """Return ``n`` and ``best_of``.

    :raises APIError: 400 for more than the settings allow, for ``best_of`` below ``n``, or beside ``stream``.
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

    :raises APIError: 400 with ``echo``: Ollama has none for the prompt.
    """
    if request.echo and request.logprobs is not None:
        if request.logprobs > 0:
            raise invalid("'logprobs' cannot be given with 'echo': Ollama has none for the prompt.", "logprobs")
        ignored.add("logprobs")  # 0 asks for little, and OpenAI's own tests for it beside all else
        return False
    return request.logprobs is not None
