"""Every spelling of "think"."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.reasoning import ThinkFields, think
from openai_compat.wire.json import encode, request_decoder

decode = request_decoder(ThinkFields)


def chosen(ignored: Ignored | None = None, **fields: Any) -> bool | str | None:
    return think(decode(encode(fields))[0], ignored or Ignored(Settings(), []))[0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        *[({"reasoning_effort": effort}, effort) for effort in ("low", "medium", "high", "max")],
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning_effort": "ultra"}, "max"),
        ({"reasoning_effort": ""}, None),
        ({"reasoning_effort": None}, None),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, "low"),
        ({"reasoning": {}, "reasoning_effort": "high"}, "high"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "low"),
        ({"think": True, "reasoning": {"effort": "none"}}, True),
        ({"think": False}, False),
        ({"think": "max"}, "max"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}, "thinking": {"type": "disabled"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False),
        ({"enable_thinking": False}, False),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False, "reasoning_effort": "high"}, False),
        ({"enable_thinking": True, "reasoning_effort": "low"}, "low"),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"enabled": True}}, True),
        ({"reasoning": {"enabled": False, "effort": "high"}}, False),
        ({"reasoning": {"enabled": True, "effort": "none"}}, False),
        ({"reasoning": {"exclude": True, "max_tokens": 100}}, None),
        ({"think": "high", "enable_thinking": False}, "high"),
        ({"think": "", "enable_thinking": False}, False),
        *[
            ({name: empty}, None)
            for empty in ([], {}, "")
            for name in ("reasoning", "thinking", "chat_template_kwargs")
        ],
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "auto"}}, None),
        ({"thinking": {}}, None),
    ],
)
def test_the_first_that_says_something_wins(fields: dict[str, Any], expected: bool | str | None) -> None:
    assert chosen(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"reasoning_effort": "extreme"}, "reasoning_effort", 'invalid reasoning value: "extreme" (must be "minimal",'),
        ({"reasoning": {"effort": "High"}}, "reasoning.effort", 'invalid reasoning value: "High"'),
        ({"think": "very"}, "think", 'invalid think value: "very" (must be "high", "medium", "low", "max", true, or'),
    ],
)
def test_an_effort_that_nobody_knows_is_a_400(fields: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(APIError) as raised:
        chosen(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)
    assert raised.value.message.startswith(text)


def test_other_template_arguments_are_listed() -> None:
    ignored = Ignored(Settings(), [])
    assert chosen(ignored, chat_template_kwargs={"enable_thinking": True, "x": 1}) is True
    assert dict(ignored.headers()) == {"openai-compat-ignored": "chat_template_kwargs.x"}


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        ({"enable_thinking": False, "reasoning_effort": "high"}, "reasoning_effort"),
        ({"enable_thinking": True, "reasoning_effort": "high"}, None),
        ({"think": True, "reasoning_effort": "high"}, "reasoning_effort"),
        ({"think": "high", "reasoning_effort": "high"}, None),
        ({"reasoning": {"effort": "low", "enabled": False}}, "reasoning.effort"),
        ({"thinking": {"type": "disabled"}, "enable_thinking": True}, "enable_thinking"),
        ({"reasoning": {"exclude": True, "max_tokens": 100}}, "reasoning.max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
    ],
)
def test_a_field_that_another_one_switches_off_is_listed(fields: dict[str, Any], listed: str | None) -> None:
    request, unknown = decode(encode(fields))
    ignored = Ignored(Settings(), unknown)
    think(request, ignored)
    assert dict(ignored.headers()).get("openai-compat-ignored") == listed


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"think": True}, "think"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"reasoning": {"enabled": True}}, "reasoning.enabled"),
    ],
)
def test_the_field_that_asked_is_told(fields: dict[str, Any], name: str) -> None:
    assert think(decode(encode(fields))[0], Ignored(Settings(), []))[1] == name
