"""Settings: one place, sane values, and keywords that type checkers know."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from openai_compat import Sampling, Settings
from openai_compat.settings import ModelSettings, Options, environment_name, scalars


def test_the_keywords_for_type_checkers_are_the_settings() -> None:
    assert get_type_hints(Options) == get_type_hints(Settings)
    assert list(get_type_hints(Options)) == [row.name for row in dataclasses.fields(Settings)]


def test_every_setting_says_what_it_is() -> None:
    assert all(row.metadata["help"] for row in dataclasses.fields(Settings))


def test_scalars_have_an_environment_variable() -> None:
    names = {environment_name(row.name) for row in scalars()}
    assert "OPENAI_COMPAT_MAX_BODY" in names
    assert "OPENAI_COMPAT_SAMPLING" not in names


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "v1"},
        {"prefix": "/v1/"},
        {"prefix": "/"},
        {"prefix": "//v1"},
        {"overflow": "cut"},
        {"unsupported": "ignore"},
        {"max_body": 0},
        {"idle_timeout": -1.0},
        {"pool_size": 0},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=name):
        Settings(**options)


@pytest.mark.parametrize(
    ("settings", "truncates"),
    [
        (Settings(), False),
        (Settings(overflow="truncate"), True),
        (Settings(sampling=Sampling.v0_1_24()), True),
        (Settings(sampling=Sampling.v0_1_24(), overflow="error"), False),
    ],
)
def test_a_policy_or_the_setting_says_whether_ollama_truncates(settings: Settings, truncates: bool) -> None:
    assert settings.truncates is truncates


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("temperature", "hot", TypeError),
        ("temperature", True, TypeError),
        ("temperature", float("nan"), ValueError),
        ("top_p", -1, ValueError),
        ("temperature_scale", "2", TypeError),
        ("seed_means_greedy", 1, TypeError),
        ("overflow", "cut", ValueError),
    ],
)
def test_a_policy_of_sampling_makes_sense(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        Sampling(**{field: value})


def test_timeout_is_connect_head_idle() -> None:
    assert Settings(connect_timeout=1, head_timeout=2, idle_timeout=3).timeout == (1, 2, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "model"},
        {"sampling": None},
        {"native_admin": "no"},
        {"max_body": "10"},
        {"prefix": 5},
        {"max_n": "1"},
    ]
    + [{"max_stop": True}, {"idle_timeout": "1"}],
)
def test_a_value_of_another_type_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(TypeError, match=name):
        Settings(**options)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"think": "bogus"}, ValueError),
        ({"think": 1.5}, ValueError),
        ({"keep_alive": True}, ValueError),
        ({"keep_alive": float("nan")}, ValueError),
        ({"keep_alive": []}, ValueError),
        ({"options": {"num_ctx": "8k"}}, ValueError),
        ({"options": {"num_ctx": 1.5}}, ValueError),
        ({"options": {"num_ctx": 2**63}}, ValueError),
        ({"options": {"num_ctx": True}}, ValueError),
        ({"options": {"top_p": 1e39}}, ValueError),
        ({"options": {"top_p": float("nan")}}, ValueError),
        ({"options": {"use_mmap": 1}}, ValueError),
        ({"options": {"stop": "x"}}, ValueError),
        ({"options": {"stop": [1]}}, ValueError),
        ({"options": {"num_predict": 0}}, ValueError),
        ({"options": {1: 2}}, TypeError),
        ({"options": []}, TypeError),
    ],
)
def test_the_settings_of_a_model_are_checked_when_they_are_made(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ModelSettings(**values)
    with pytest.raises(error, match="^models: m: "):
        Settings(models={"m": values})  # type: ignore[dict-item]


def test_settings_of_a_model_that_a_request_could_have() -> None:
    options = {"num_ctx": 8192.0, "top_p": 1, "stop": ["a"], "use_mmap": True, "newer_option": {"a": [None]}}
    for keep_alive in ("5m", -1, 1.5, None):
        for think in (True, False, "low", "max", None):
            assert ModelSettings(options, keep_alive, think).options == options


def test_stop_sequences_of_a_model_are_limited_like_those_of_a_request() -> None:
    models: Any = {"m": {"options": {"stop": ["x", "y", "z"]}}}
    assert Settings(models=models, max_stop=3).models
    with pytest.raises(ValueError, match="^models: m: more than 2 stop"):
        Settings(models=models, max_stop=2)


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), b"x", {"a": {1, 2}}])
def test_an_option_of_a_model_that_no_request_can_have_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON values"):
        ModelSettings(options={"newer": value})
