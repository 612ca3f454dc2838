"""Sampling parameters, mapped to Ollama's options.

Precedence: OpenAI's own field, then a top-level extra, then ``options``, then the model's settings, then the
``Sampling`` policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from openai_compat.errors import invalid, too_long
from openai_compat.native import types as native
from openai_compat.settings import OPTION_TYPES, Sampling, Settings, is_option_value
from openai_compat.translate.fields import INT64, Ignored, Integer, check_integer, mapped, mapped_integer, policy
from openai_compat.wire import json


class SamplingFields(Struct):
    """The request fields that become options, of every endpoint that generates text.

    Source: ollama ``openai/openai.go`` ``ChatCompletionRequest``, ``CompletionRequest``; ``api/types.go`` ``Options``.
    """

    temperature: Annotated[float | None, mapped("options.temperature", low=0, high=2)] = None
    top_p: Annotated[float | None, mapped("options.top_p", low=0, high=1)] = None
    seed: Annotated[Integer, mapped_integer("options.seed")] = None
    stop: Annotated[str | list[str] | None, mapped("options.stop")] = None
    frequency_penalty: Annotated[float | None, mapped("options.frequency_penalty", low=-2, high=2)] = None
    presence_penalty: Annotated[float | None, mapped("options.presence_penalty", low=-2, high=2)] = None
    #: the first middleware's misspelling, read under ``Sampling.v0_1_24()`` only
    presence_penalty_penalty: Annotated[
        float | None, mapped("options.presence_penalty", "under ``Sampling.v0_1_24()`` only", low=-2, high=2)
    ] = None
    logit_bias: Annotated[Any, policy("Ollama cannot bias tokens.")] = None
    options: Annotated[dict[str, Raw] | None, mapped("options")] = None
    num_ctx: Annotated[Integer, mapped_integer("options.num_ctx", low=1)] = None
    top_k: Annotated[Integer, mapped_integer("options.top_k")] = None
    min_p: Annotated[float | None, mapped("options.min_p")] = None
    typical_p: Annotated[float | None, mapped("options.typical_p")] = None
    repeat_penalty: Annotated[float | None, mapped("options.repeat_penalty")] = None
    repetition_penalty: Annotated[float | None, mapped("options.repeat_penalty")] = None
    keep_alive: Annotated[str | float | None, mapped("keep_alive")] = None
    truncate: Annotated[bool | None, mapped("truncate")] = None
    shift: Annotated[bool | None, mapped("shift")] = None


#: Ollama's options that a request may also have at its top level
_EXTRAS = ("num_ctx", "top_k", "min_p", "typical_p")


def from_sampling(
    request: SamplingFields,
    max_tokens: int | None,
    settings: Settings,
    ignored: Ignored,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Map the sampling fields of a request to options.

    :param max_tokens: −1 for no limit, 0 for no text (see :func:`max_tokens_is_zero`), None if not given.
    :param defaults: the options of the model's own settings.
    :raises APIError: 400 for a wrong type inside ``options``, or too many stop sequences.
    """
    sampling = settings.sampling
    options = {**defaults, **from_options(request.options or {}, settings)}
    for name in _EXTRAS:
        _set(options, name, getattr(request, name))
    _set(options, "repeat_penalty", request.repetition_penalty)
    _set(options, "repeat_penalty", request.repeat_penalty)
    _set(options, "seed", request.seed)
    _set(options, "stop", _stop(request.stop, settings))
    _set(options, "num_predict", max_tokens)
    if options.get("num_predict") == 0:
        options["num_predict"] = 1  # 0 is no limit to Ollama; the one token is discarded
    _set(options, "temperature", _temperature(request, sampling))
    _set(options, "top_p", request.top_p)
    _set(options, "frequency_penalty", _scaled(request.frequency_penalty, sampling.penalty_scale))
    _set(options, "presence_penalty", _scaled(_presence_penalty(request, sampling, ignored), sampling.penalty_scale))
    for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is not None:
            options.setdefault(name, value)
    return options


def max_tokens_is_zero(request: SamplingFields, max_tokens: int | None) -> bool:
    """Return whether no text is wanted (``max_tokens: 0`` or ``num_predict: 0``), as to count the prompt's tokens."""
    if max_tokens is not None:
        return max_tokens == 0
    given = (request.options or {}).get("num_predict")
    return given is not None and json.decode_raw(given) == 0


def clear_final_message(response: native.StreamLine) -> None:
    """Make the final message of ``max_tokens: 0`` report no text: 1 was sent, since 0 is no limit to Ollama."""
    response.logprobs = None
    response.done_reason = "length"
    response.eval_count = 0


def from_keep_alive(
    request: SamplingFields,
    target: native.ChatRequest | native.GenerateRequest,
    settings: Settings,
    default: str | float | None = None,
) -> None:
    """Set the fields beside ``options`` of a native request that generates text.

    :param default: ``keep_alive`` of the model's own settings.
    """
    keep_alive = default if request.keep_alive is None else request.keep_alive
    set_beside(target, settings, keep_alive=keep_alive, truncate=request.truncate)
    if request.shift is not None:
        target.shift = request.shift


def set_beside(
    target: native.ChatRequest | native.GenerateRequest | native.EmbedRequest,
    settings: Settings,
    *,
    keep_alive: str | float | None,
    truncate: bool | None = None,
) -> None:
    """Set ``keep_alive`` and ``truncate`` of any native request; if *truncate* is not given, the settings decide."""
    if keep_alive is not None:
        target.keep_alive = keep_alive
    if truncate is not None:
        target.truncate = truncate
    elif not settings.truncates:
        target.truncate = False


G = TypeVar("G", native.ChatRequest, native.GenerateRequest)


def seeded(sent: G, index: int) -> G:
    """Return a copy of a native request for one of several choices.

    Where a seed is given, each choice has its own (seed + index); −1 means that there is none.
    """
    seed = sent.options.get("seed", -1)
    options = sent.options if seed == -1 else {**sent.options, "seed": min(seed + index, INT64[1])}
    return msgspec.structs.replace(sent, options=options)


def _set(options: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        options[name] = value


def _scaled(value: float | None, scale: float) -> float | None:
    return value if value is None or scale == 1 else value * scale


def _temperature(request: SamplingFields, sampling: Sampling) -> float | None:
    if sampling.seed_means_greedy and request.seed is not None:
        return 0.0
    return _scaled(request.temperature, sampling.temperature_scale)


def _presence_penalty(request: SamplingFields, sampling: Sampling, ignored: Ignored) -> float | None:
    misspelt = request.presence_penalty_penalty
    if misspelt is not None and (not sampling.misspelt_presence_penalty or request.presence_penalty is not None):
        ignored.add("presence_penalty_penalty")
        misspelt = None
    return misspelt if request.presence_penalty is None else request.presence_penalty


def _stop(stop: str | list[str] | None, settings: Settings, param: str = "stop") -> list[str] | None:
    if stop is None:
        return None
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > settings.max_stop:
        raise too_long(param, settings.max_stop, len(stops))
    return stops


def from_options(options: dict[str, Raw], settings: Settings) -> dict[str, Any]:
    """Check the types of the known options; unknown ones are passed on as they are."""
    checked: dict[str, Any] = {}
    for name, raw in options.items():
        kind = OPTION_TYPES.get(name)
        value = json.decode_raw(raw) if kind else raw
        if value is None or bytes(raw).strip() == b"null":
            continue
        checked[name] = _checked_option(name, value, kind, settings) if kind else value
    return checked


def _checked_option(name: str, value: Any, kind: str, settings: Settings) -> Any:
    """Return an option's value in its Go type.

    Source: ollama ``api/types.go`` ``Options.FromMap``, which answers a wrong type with a 500.
    """
    param = f"options.{name}"
    if kind == "int" and isinstance(value, int | float) and not isinstance(value, bool):
        return check_integer(param, value)
    if not is_option_value(kind, value):
        raise invalid(f'option "{name}" must be of type {kind}', param, "invalid_type")
    return _stop(value, settings, param) if kind == "[]string" else value
