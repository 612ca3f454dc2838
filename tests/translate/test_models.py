"""Aliases, and what a model is name with by default."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat, Sampling, Settings
from openai_compat.settings import ModelSettings
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.models import aliases, defaults, native_name
from tests.endpoints.requests import MESSAGES, answered, ignored, sent, streamed

ALIASES = {"gpt-4o": "llama3.2", "gpt-4*": "big", "gpt-*": "small", "*-embed": "embed", "a": "b", "b": "c"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o", "llama3.2"),
        ("gpt-4o:latest", "llama3.2"),
        ("gpt-4o-mini", "big"),
        ("gpt-3.5-turbo", "small"),
        ("x-embed", "embed"),
        ("a", "b"),
        ("llama3.2", "llama3.2"),
        ("GPT-4o", "GPT-4o"),
        ("", ""),
    ],
)
def test_a_name_beats_a_pattern_and_a_longer_one_a_shorter(name: str, expected: str) -> None:
    assert native_name(name, Settings(aliases=ALIASES)) == expected


def test_only_names_are_listed() -> None:
    assert aliases(Settings(aliases=ALIASES)) == [("gpt-4o", "llama3.2"), ("a", "b"), ("b", "c")]


MODELS = {
    "llama3.2": {"options": {"num_ctx": 8192, "top_k": 5}, "keep_alive": "1h", "think": False},
    "gpt-4o": {"options": {"num_ctx": 2048}},
    "qwen*": ModelSettings(think="high"),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3.2", ModelSettings({"num_ctx": 8192, "top_k": 5}, "1h", False)),
        ("llama3.2:latest", ModelSettings({"num_ctx": 8192, "top_k": 5}, "1h", False)),
        ("gpt-4o", ModelSettings({"num_ctx": 2048, "top_k": 5}, "1h", False)),
        ("qwen3:8b", ModelSettings({}, None, "high")),
        ("other", ModelSettings()),
    ],
)
def test_a_client_s_name_wins_over_the_model_s_own(name: str, expected: ModelSettings) -> None:
    assert defaults(name, Settings(aliases=ALIASES, models=MODELS)) == expected


@pytest.mark.parametrize(
    "models",
    [
        {"m": {"options": {"num_ctx": "8k"}}},
        {"m": {"options": {"stop": "x"}}},
        {"m": {"options": {"num_predict": 0}}},
        {"m": {"keep_alive": float("inf")}},
        {"m": {"keep_alive": True}},
        {"m": {"keep_alive": []}},
        {"m": {"think": "very"}},
        {"m": {"think": 1.5}},
    ],
)
def test_settings_that_no_request_could_hold_stop_the_start(models: Any) -> None:
    with pytest.raises(ValueError, match="^models: m: "):
        Settings(models=models)
    with pytest.raises(ValueError, match="^models: m: "):
        OpenAICompat(FakeOllama(), models=models)


@pytest.mark.parametrize(
    "settings",
    [
        {"aliases": []},
        {"aliases": {"a": 1}},
        {"models": []},
        {"models": {"m": 1}},
        {"models": {"m": {"temperature": 1}}},
        {"models": {1: {}}},
    ],
)
def test_settings_of_another_shape_are_refused(settings: Any) -> None:
    with pytest.raises(TypeError):
        Settings(**settings)


def test_an_empty_alias_is_refused() -> None:
    with pytest.raises(ValueError, match="alias"):
        Settings(aliases={"a": ""})


# -- in a chat --------------------------------------------------------------------------------

ALIASED: dict[str, Any] = {"aliases": {"gpt-*": "demo"}}


def test_the_answer_has_the_name_that_the_client_asked_for() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("Hi"), done())
    body = {"model": "gpt-4o", "messages": MESSAGES}
    response = Client(OpenAICompat(fake, **ALIASED)).post("/v1/chat/completions", json=body)
    assert response.get_json()["model"] == "gpt-4o"
    assert fake.requests[0].json["model"] == "demo"
    assert answered(say("x"), done(), settings=ALIASED, model="gpt-3")["model"] == "gpt-3"
    assert {chunk["model"] for chunk in streamed(say("x"), done(), settings=ALIASED, model="gpt-3")} == {"gpt-3"}


def test_a_404_has_the_name_that_the_client_asked_for() -> None:
    settings: dict[str, Any] = {"aliases": {"gpt-4o": "nothing"}}
    response = Client(OpenAICompat(FakeOllama(), **settings)).post(
        "/v1/chat/completions", json={"model": "gpt-4o", "messages": MESSAGES}
    )
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
    assert response.get_json()["error"]["message"].startswith("The model `gpt-4o` does not exist")


DEFAULTS: dict[str, Any] = {
    "models": {"demo": {"options": {"num_ctx": 1024, "temperature": 0.1, "top_k": 3}, "keep_alive": -1, "think": False}}
}


def test_what_a_request_does_not_say_comes_from_the_model_s_settings() -> None:
    found = sent(settings=DEFAULTS)
    assert found["options"] == {"num_ctx": 1024, "temperature": 0.1, "top_k": 3, "top_p": 1.0}
    assert (found["keep_alive"], found["think"]) == (-1, False)


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({"temperature": 0.7}, "temperature", 0.7),
        ({"options": {"temperature": 0.5}}, "temperature", 0.5),
        ({"top_k": 9}, "top_k", 9),
        ({"options": {"num_ctx": 4}}, "num_ctx", 4),
    ],
)
def test_what_a_request_says_wins(fields: dict[str, Any], name: str, expected: Any) -> None:
    assert sent(settings=DEFAULTS, **fields)["options"][name] == expected


def test_a_request_chooses_its_own_thinking_and_keep_alive() -> None:
    found = sent(settings=DEFAULTS, keep_alive="5m", reasoning_effort="high")
    assert (found["keep_alive"], found["think"]) == ("5m", "high")


def test_a_model_s_settings_win_over_the_policy_of_sampling() -> None:
    settings = {**DEFAULTS, "sampling": Sampling.model()}
    assert sent(settings=settings)["options"] == {"num_ctx": 1024, "temperature": 0.1, "top_k": 3}


def test_thinking_by_default_of_a_model_that_cannot_is_nobody_s_fault() -> None:
    settings: dict[str, Any] = {"models": {"demo": {"think": True}}, "unsupported": "error"}
    assert ignored(settings) == set()
