"""Reasoning: every request field that clients use to choose thinking, mapped to Ollama's ``think``.

Source: ollama ``openai/openai.go`` ``thinkFromReasoningEffort``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from openai_compat.errors import invalid
from openai_compat.settings import is_think_value
from openai_compat.translate.fields import Ignored, mapped
from openai_compat.translate.sampling import SamplingFields

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


class Reasoning(Struct):
    """``reasoning``, as in the Responses API."""

    effort: str | None = None
    summary: Any = None
    generate_summary: Any = None


class ThinkingKind(Struct):
    """``thinking``, as in Anthropic's API: ``{"type": "enabled"}``."""

    type: str | None = None


class ThinkFields(SamplingFields):
    """The sampling fields, and those that choose thinking; the first that is set wins, in this order."""

    think: Annotated[bool | str | None, mapped("think")] = None
    reasoning: Annotated[Reasoning | None, mapped("think", "its ``effort``")] = None
    reasoning_effort: Annotated[str | None, mapped("think")] = None
    chat_template_kwargs: Annotated[dict[str, Any] | None, mapped("think", "its ``enable_thinking``")] = None
    thinking: Annotated[ThinkingKind | None, mapped("think", "its ``type``")] = None


def think(
    request: ThinkFields, ignored: Ignored, default: bool | str | None = None
) -> tuple[bool | str | None, str | None]:
    """Return the native ``think``, None if nothing sets it, and the name of the request field that set it.

    :param default: the model's own setting.
    :raises APIError: 400 for an unknown effort or level.
    """
    for key, value in (request.chat_template_kwargs or {}).items():
        if key != "enable_thinking" or not isinstance(value, bool | None):
            ignored.add(f"chat_template_kwargs.{key}")
    for name in ("summary", "generate_summary"):
        if request.reasoning is not None and getattr(request.reasoning, name) is not None:
            ignored.add(f"reasoning.{name}")
    if request.thinking is not None and request.thinking.type not in (None, "enabled", "disabled"):
        ignored.add("thinking.type")
    if request.think is not None:
        return _level(request.think), "think"
    if request.reasoning is not None and request.reasoning.effort:
        return _effort(request.reasoning.effort, "reasoning.effort"), "reasoning.effort"
    if request.reasoning_effort:
        return _effort(request.reasoning_effort, "reasoning_effort"), "reasoning_effort"
    enabled = (request.chat_template_kwargs or {}).get("enable_thinking")
    if isinstance(enabled, bool):
        return enabled, "chat_template_kwargs.enable_thinking"
    kind = request.thinking.type if request.thinking else None
    if kind in ("enabled", "disabled"):
        return kind == "enabled", "thinking"
    return default, None


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
