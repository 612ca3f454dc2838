"""Sampling parameters, mapped to Ollama's options.

Precedence: OpenAI's own field, then a top-level extra, then ``options``, then the model's settings, then the
``Sampling`` policy.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, too_long
from openai_compat.native import types as native
from openai_compat.settings import OPTION_RANGES, OPTION_TYPES, ModelSettings, Sampling, Settings, is_option_value
from openai_compat.translate.fields import (
    INT64,
    Ignored,
    Integer,
    NumberOrText,
    RequestObject,
    check_integer,
    check_number,
    extra,
    is_number,
    mapped,
    mapped_integer,
    number_of_text,
    policy,
)
from openai_compat.translate.native_schema import format_schema, readable
from openai_compat.wire import json

#: the range of the numbers that Ollama stores as 32-bit floats
_FLOAT32: dict[str, Any] = {"low": -3.4e38, "high": 3.4e38}


class SamplingFields(RequestObject):
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
    logit_bias: Annotated[Raw | UnsetType, policy("Ollama cannot bias tokens.")] = UNSET
    options: Annotated[Raw | UnsetType, mapped("options")] = UNSET
    num_ctx: Annotated[
        NumberOrText, extra(mapped_integer("options.num_ctx", low=1, high=OPTION_RANGES["num_ctx"][1]))
    ] = None
    top_k: Annotated[NumberOrText, extra(mapped_integer("options.top_k"))] = None
    min_p: Annotated[float | str | None, extra(mapped("options.min_p", **_FLOAT32))] = None
    typical_p: Annotated[float | str | None, extra(mapped("options.typical_p", **_FLOAT32))] = None
    repeat_penalty: Annotated[float | str | None, extra(mapped("options.repeat_penalty", **_FLOAT32))] = None
    repetition_penalty: Annotated[float | str | None, extra(mapped("options.repeat_penalty", **_FLOAT32))] = None
    keep_alive: Annotated[str | float | None, mapped("keep_alive")] = None
    truncate: Annotated[bool | str | None, mapped("truncate", "``END`` is true, ``NONE`` is false")] = None
    shift: Annotated[bool | None, mapped("shift")] = None


#: Ollama's options that a request may also have at its top level
_EXTRAS = ("num_ctx", "top_k", "min_p", "typical_p")


class SampledOptions(NamedTuple):
    """The options of a native request."""

    options: dict[str, Any]
    #: no text is wanted, as to count the prompt's tokens (``max_tokens: 0``); one token is generated and discarded
    max_tokens_is_zero: bool


def from_sampling(
    request: SamplingFields,
    max_tokens: int | None,
    settings: Settings,
    ignored: Ignored,
    defaults: ModelSettings | None = None,
    max_tokens_field: str = "max_tokens",
) -> SampledOptions:
    """Map the sampling fields of a request to options.

    :param max_tokens: −1 for no limit, 0 for no text, None if not given; *max_tokens_field* is its field.
    :param defaults: the model's own settings: its options, and those that a request cannot set.
    :raises APIError: 400 for a wrong type or a value out of range inside ``options``, or too many stop sequences.
    """
    sampling, defaults = settings.sampling, defaults or _NO_DEFAULTS
    given = _Given(ignored)
    for name, value in from_options(request.options, settings).items():
        given.add(name, f"options.{name}", value)
    for name in _EXTRAS:
        given.add(name, name, getattr(request, name))
    given.add("repeat_penalty", "repetition_penalty", request.repetition_penalty)
    given.add("repeat_penalty", "repeat_penalty", request.repeat_penalty)
    given.add("seed", "seed", request.seed)
    given.add("stop", "stop", stops(request.stop, settings))
    given.add("num_predict", max_tokens_field, max_tokens)
    given.add("temperature", "temperature", _temperature(request, sampling))
    given.add("top_p", "top_p", request.top_p)
    given.add("frequency_penalty", "frequency_penalty", _scaled(request.frequency_penalty, sampling.penalty_scale))
    presence_penalty = _scaled(_presence_penalty(request, sampling, ignored), sampling.penalty_scale)
    given.add("presence_penalty", "presence_penalty", presence_penalty)
    options = {**defaults.options, **given.unpinned(defaults)}
    is_zero = options.get("num_predict") == 0
    if is_zero:
        options["num_predict"] = 1  # 0 is no limit to Ollama; the one token is discarded
    for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is not None:
            options.setdefault(name, value)
    return SampledOptions(options, is_zero)


_NO_DEFAULTS = ModelSettings()


class _Given:
    """The options of a request, each with the request field that it comes from; a later field replaces an earlier."""

    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._values: dict[str, Any] = {}
        self._fields: dict[str, str] = {}

    def add(self, option: str, field: str, value: Any) -> None:
        """Set an option, unless the value is None; an earlier field with another value is listed as ignored."""
        if value is None:
            return
        if option in self._values and self._values[option] != value:
            self._ignored.add(self._fields[option])
        self._values[option] = value
        self._fields[option] = field

    def unpinned(self, defaults: ModelSettings) -> dict[str, Any]:
        """Return the options without those that the model's settings pin, whose fields are listed as ignored."""
        for option in defaults.pinned:
            if option in self._values:
                self._ignored.add(self._fields[option], "The model's settings pin it.")
                del self._values[option]
        return self._values


def given_options(
    raw: Raw | UnsetType, settings: Settings, defaults: ModelSettings, ignored: Ignored
) -> dict[str, Any]:
    """Map ``options`` of a request that has no sampling fields, such as one for embeddings."""
    given = _Given(ignored)
    for name, value in from_options(raw, settings).items():
        given.add(name, f"options.{name}", value)
    return {**defaults.options, **given.unpinned(defaults)}


def clear_final_message(response: native.StreamLine) -> None:
    """Make the final message of ``max_tokens: 0`` report no text: 1 was sent, since 0 is no limit to Ollama."""
    response.logprobs = None
    response.done_reason = "length"
    response.eval_count = 0


def from_keep_alive(
    request: SamplingFields,
    target: native.ChatRequest | native.GenerateRequest,
    settings: Settings,
    ignored: Ignored,
    default: str | float | None = None,
) -> None:
    """Set the fields beside ``options`` of a native request that generates text.

    :param default: ``keep_alive`` of the model's own settings.
    """
    truncate = from_truncate(request.truncate, ignored)
    set_beside(target, settings, keep_alive=request.keep_alive, default=default, truncate=truncate)
    if request.shift is not None:
        target.shift = request.shift


def set_beside(
    target: native.ChatRequest | native.GenerateRequest | native.EmbedRequest,
    settings: Settings,
    *,
    keep_alive: str | float | None,
    default: str | float | None = None,
    truncate: bool | None = None,
) -> None:
    """Set ``keep_alive`` and ``truncate`` of any native request; if *truncate* is not given, the settings decide.

    :param default: ``keep_alive`` of the model's own settings.
    """
    for value in (keep_alive, default):
        value = _duration(value)
        if value is not None:
            target.keep_alive = value
            break
    if truncate is not None:
        target.truncate = truncate
    elif not settings.truncates:
        target.truncate = False


def _duration(value: str | float | None) -> str | float | None:
    """Return a duration without blanks, numeric text as a number of seconds, and None for a blank one."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if not is_number(value):
        return value or None
    return check_number("keep_alive", number_of_text(value, "keep_alive") or 0, _ANY_NUMBER)


_ANY_NUMBER = mapped("keep_alive", low=-1e18, high=1e18)


def from_format(raw: Raw | UnsetType) -> Raw | UnsetType:
    """Return Ollama's own ``format``: ``"json"`` or a schema; unset for an empty one.

    :raises APIError: 400 for another value, which Ollama answers with a 500.
    """
    text = json.text_of(raw)
    if text != b"{}" and json.is_blank(raw):
        return UNSET
    if text != b'"json"' and not text.startswith(b"{"):
        raise invalid("Invalid value for 'format': expected 'json' or a JSON Schema.", "format")
    return readable(raw, format_schema, "format") if text.startswith(b"{") else raw


#: where NVIDIA's API cuts a prompt that is too long → whether Ollama cuts it
_TRUNCATE = {"END": True, "NONE": False, "TRUE": True, "FALSE": False}


def from_truncate(value: bool | str | None, ignored: Ignored) -> bool | None:
    """Return the native ``truncate``; None if it is not given.

    :raises APIError: 400 for an unknown text.
    """
    if value is None or isinstance(value, bool):
        return value
    text = value.strip().upper()
    if text == "START":
        ignored.add("truncate", "Ollama cuts a prompt at its end, or not at all.")
    elif text and text not in _TRUNCATE:
        raise invalid(
            f"Invalid value: '{value[:64]}'. Supported values are: true, false, 'END' and 'NONE'.", "truncate"
        )
    return _TRUNCATE.get(text)


G = TypeVar("G", native.ChatRequest, native.GenerateRequest)


def seeded(sent: G, index: int) -> G:
    """Return a copy of a native request for one of several choices.

    Where a seed is given, each choice has its own (seed + index); −1 means that there is none.
    """
    seed = sent.options.get("seed", -1)
    options = sent.options if seed == -1 else {**sent.options, "seed": min(seed + index, INT64[1])}
    return msgspec.structs.replace(sent, options=options)


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


def stops(stop: str | list[str] | tuple[str, ...] | None, settings: Settings, param: str = "stop") -> list[str] | None:
    """Return stop sequences without empty ones and duplicates; None if nothing is left.

    An empty list must not be sent: it would replace the stop sequences of the Modelfile.

    :raises APIError: 400 for too many.
    """
    given = (stop,) if isinstance(stop, str) else stop or ()
    found = list(dict.fromkeys(filter(None, given)))
    if len(found) > settings.max_stop:
        raise too_long(param, settings.max_stop, len(found))
    return found or None


def from_options(raw: Raw | UnsetType, settings: Settings) -> dict[str, Any]:
    """Check the types and ranges of the known options; unknown ones are passed on as they are.

    :raises APIError: 400 for another value than an object, and for an option that is not valid.
    """
    if json.is_blank(raw):
        return {}
    checked: dict[str, Any] = {}
    for name, option in json.members_of(json.text_of(raw), "options").items():
        kind = OPTION_TYPES.get(name)
        value = _checked_option(name, json.decode_raw(option), kind, settings) if kind else option
        if value is not None and (kind or json.text_of(option) not in (b"", b'""', b"[]", b"{}")):
            checked[name] = value
    return checked


def _checked_option(name: str, value: Any, kind: str, settings: Settings) -> Any:
    """Return an option's value in its Go type; None if it is null or empty.

    Source: ollama ``api/types.go`` ``Options.FromMap``, which answers a wrong type with a 500.
    """
    param = f"options.{name}"
    if kind == "[]string":
        value = [value] if isinstance(value, str) else value
    elif isinstance(value, str) and is_number(value.strip() or "0") and (kind != "bool" or not value.strip()):
        value = number_of_text(value, param)
    if value is None or value in ([], {}, ""):
        return None
    if kind == "int" and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = OPTION_RANGES.get(name, INT64)
        return check_integer(param, value, low=low, high=high)
    if not is_option_value(kind, value):
        raise invalid(f'option "{name}" must be of type {kind}', param, "invalid_type")
    return stops(value, settings, param) if kind == "[]string" else value
