"""Reasoning: every request field that clients use to choose thinking, mapped to Ollama's ``think``.

Source: ollama ``openai/openai.go`` ``thinkFromReasoningEffort``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid
from openai_compat.settings import is_think_value
from openai_compat.translate.fields import Ignored, RequestObject, mapped
from openai_compat.translate.sampling import SamplingFields
from openai_compat.wire import json

#: efforts of OpenAI and of other servers → Ollama's ``think``; Ollama has fewer levels
EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}


class Reasoning(RequestObject):
    """``reasoning``, as in the Responses API and in OpenRouter's."""

    effort: str | None = None
    summary: Raw | UnsetType = UNSET
    generate_summary: Raw | UnsetType = UNSET
    enabled: bool | None = None
    #: leave reasoning out of the response
    exclude: bool | None = None


class ThinkingKind(RequestObject):
    """``thinking``, as in Anthropic's API: ``{"type": "enabled"}``."""

    type: str | None = None


class ThinkFields(SamplingFields):
    """The sampling fields, and those that choose thinking."""

    think: Annotated[bool | str | None, mapped("think")] = None
    reasoning: Annotated[
        Reasoning | None, mapped("think", "its ``effort`` or ``enabled``; ``exclude`` is emulated")
    ] = None
    reasoning_effort: Annotated[str | None, mapped("think")] = None
    enable_thinking: Annotated[bool | None, mapped("think")] = None
    chat_template_kwargs: Annotated[Raw | UnsetType, mapped("think", "its ``enable_thinking``")] = UNSET
    thinking: Annotated[ThinkingKind | None, mapped("think", "its ``type``")] = None


def think(
    request: ThinkFields, ignored: Ignored, default: bool | str | None = None, *, has_summary: bool = False
) -> tuple[bool | str | None, str | None]:
    """Return the native ``think``, None if nothing sets it, and the name of the request field that set it.

    ``think`` wins; then what turns thinking off wins over a level, and a level over what only turns it on. Fields that
    wanted something else are listed as ignored.

    :param default: the model's own setting.
    :param has_summary: the response has a summary of the reasoning.
    :raises APIError: 400 for an unknown effort or level.
    """
    _note_effectless(request, ignored, has_summary=has_summary)
    chosen: tuple[bool | str, str] | None = None
    for value, field in sorted(_candidates(request, ignored), key=_rank):
        if chosen is None:
            chosen = value, field
        elif value != chosen[0] and not (value is True and chosen[0]):
            ignored.add(field)
    return chosen or (default, None)


def _rank(candidate: tuple[bool | str, str]) -> int:
    value, field = candidate
    if field == "think":
        return 0
    return 1 if value is False else 3 if value is True else 2


def _candidates(request: ThinkFields, ignored: Ignored) -> Iterator[tuple[bool | str, str]]:
    """Yield every value of ``think`` that a field of the request asks for, with the field."""
    if request.think is not None and request.think != "":
        yield _level(request.think), "think"
    reasoning = request.reasoning or Reasoning()
    efforts = ((reasoning.effort, "reasoning.effort"), (request.reasoning_effort, "reasoning_effort"))
    for effort, field in efforts:
        if effort:
            yield _effort(effort, field), field
    flags = (
        (reasoning.enabled, "reasoning.enabled"),
        (request.enable_thinking, "enable_thinking"),
        (_template_flag(request, ignored), "chat_template_kwargs.enable_thinking"),
        (_KINDS.get(request.thinking.type or "") if request.thinking else None, "thinking"),
    )
    for flag, field in flags:
        if flag is not None:
            yield flag, field


_KINDS = {"enabled": True, "disabled": False}


def _template_flag(request: ThinkFields, ignored: Ignored) -> bool | None:
    """Return ``enable_thinking`` of ``chat_template_kwargs``; all other keys are listed as ignored."""
    if json.is_blank(request.chat_template_kwargs):
        return None
    found = None
    name = "chat_template_kwargs"
    for key, raw in json.members_of(json.text_of(request.chat_template_kwargs), name).items():
        text = json.text_of(raw)
        if key == "enable_thinking" and text in (b"true", b"false"):
            found = text == b"true"
        elif text:
            ignored.add(f"{name}.{key}")
    return found


def _note_effectless(request: ThinkFields, ignored: Ignored, *, has_summary: bool) -> None:
    for name in () if has_summary else ("summary", "generate_summary"):
        if request.reasoning is not None and not json.is_blank(getattr(request.reasoning, name)):
            ignored.add(f"reasoning.{name}")
    if request.thinking is not None and request.thinking.type and request.thinking.type not in _KINDS:
        ignored.add("thinking.type")


def _effort(effort: str, param: str) -> bool | str:
    """Return the ``think`` of an effort.

    :raises APIError: 400 for an unknown effort.
    """
    try:
        return EFFORTS[effort]
    except KeyError:
        known = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise invalid(f'invalid reasoning value: "{effort[:64]}" (must be {known})', param) from None


def _level(value: bool | str) -> bool | str:
    """Return a value of ``think``.

    :raises APIError: 400 for one that is not valid for Ollama.
    """
    if not is_think_value(value):
        text = f'invalid think value: "{str(value)[:64]}" (must be "high", "medium", "low", "max", true, or false)'
        raise invalid(text, "think")
    return value
