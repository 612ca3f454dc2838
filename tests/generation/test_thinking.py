"""Native calls with thinking, for models that may not support it."""

from __future__ import annotations

import copy
import logging
from contextlib import closing
from typing import Any

import pytest
from msgspec import UNSET
from werkzeug.test import create_environ

from openai_compat.errors import APIError
from openai_compat.generation.thinking import start_call
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.fields import Ignored
from openai_compat.transport.cancel import Cancel

REFUSAL = {"error": '"demo" does not support thinking'}
BAD_REQUEST = "400 Bad Request"
FIELD = "reasoning_effort"


class Stage:
    """A fake with what a call of it needs."""

    def __init__(self, *, unsupported: str = "warn") -> None:
        self.fake = FakeOllama()
        self.limits = KnownLimits()
        self.settings = Settings(unsupported=unsupported)  # type: ignore[arg-type]
        self.ignored = Ignored(self.settings, [])
        self.backend = Backend(self.fake, create_environ(), self.settings, self.limits)

    def refuse(self, error: Any = None, status: str = BAD_REQUEST, path: str = "/api/chat") -> None:
        self.fake.script(path, error or REFUSAL, status=status, content_type="application/json")

    def answer(self, text: str = "a") -> None:
        self.fake.script("/api/chat", say(text), done())

    def ask(self, request: native.ChatRequest, *, field: str | None = FIELD, cancel: Cancel | None = None) -> str:
        """The text of one chat, whose request stays as it was."""
        before = copy.deepcopy(request)
        start = start_call(self.backend.chat, request, "gpt", field, self.limits, self.ignored)
        try:
            with closing(start(cancel or Cancel())) as stream:
                return "".join(message.message.content or "" for message in stream if message.message)
        finally:
            assert request == before
            assert self.fake.opened == self.fake.closed

    @property
    def thinks(self) -> list[Any]:
        """The value of ``think`` in each native request."""
        return [request.json.get("think", "absent") for request in self.fake.requests]

    @property
    def listed(self) -> str:
        return dict(self.ignored.headers()).get(Ignored.HEADER, "")


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def strict() -> Stage:
    """Parameters without effect are refused."""
    return Stage(unsupported="error")


def chat(think: Any = True, model: str = "demo") -> native.ChatRequest:
    options = {"temperature": 0.5}
    return native.ChatRequest(model=model, messages=[native.Message("user", "Hi")], options=options, think=think)


@pytest.mark.parametrize(("think", "expected"), [(UNSET, "absent"), (False, False), (True, True), ("high", "high")])
def test_a_model_that_takes_the_request_is_called_once(stage: Stage, think: Any, expected: Any) -> None:
    stage.answer()
    assert stage.ask(chat(think)) == "a"
    assert (stage.thinks, stage.listed) == ([expected], "")


def test_nothing_is_sent_until_the_call_starts(stage: Stage) -> None:
    start_call(stage.backend.chat, chat(), "gpt", FIELD, stage.limits, stage.ignored)
    assert stage.fake.requests == []


@pytest.mark.parametrize("think", [True, "high"])
def test_a_model_that_cannot_think_is_called_again_without(stage: Stage, think: Any) -> None:
    stage.refuse()
    stage.answer()
    assert stage.ask(chat(think)) == "a"
    assert stage.thinks == [think, "absent"]
    first, second = (request.json for request in stage.fake.requests)
    assert {**second, "think": think} == first
    assert stage.listed == FIELD


def test_a_model_that_cannot_think_is_remembered(stage: Stage) -> None:
    stage.refuse()
    for _ in range(2):
        stage.answer()
        assert stage.ask(chat()) == "a"
    assert stage.thinks == [True, "absent", "absent"]
    assert "demo" in stage.limits.cannot_think


def test_a_remembered_model_is_listed_for_each_request(stage: Stage) -> None:
    stage.limits.cannot_think.add("demo")
    stage.answer()
    stage.ask(chat())
    assert (stage.thinks, stage.listed) == (["absent"], FIELD)


def test_another_model_is_not_taken_for_a_remembered_one(stage: Stage) -> None:
    stage.limits.cannot_think.add("other")
    stage.answer()
    stage.ask(chat())
    assert stage.thinks == [True]


def test_the_native_name_is_remembered_and_not_the_client_s(stage: Stage) -> None:
    stage.refuse()
    stage.answer()
    stage.ask(chat())
    assert ("demo" in stage.limits.cannot_think, "gpt" in stage.limits.cannot_think) == (True, False)


def test_a_remembered_model_does_not_change_a_request_without_thinking(stage: Stage) -> None:
    stage.limits.cannot_think.add("demo")
    for think in (False, UNSET):
        stage.answer()
        stage.ask(chat(think))
    assert (stage.thinks, stage.listed) == ([False, "absent"], "")


def test_what_is_remembered_is_forgotten_after_a_while(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(stage.limits.cannot_think), "LIFETIME", 0.0)
    for _ in range(2):
        stage.refuse()
        stage.answer()
        stage.ask(chat())
    assert stage.thinks == [True, "absent"] * 2


def test_thinking_by_a_setting_is_not_listed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.refuse()
    stage.answer()
    assert stage.ask(chat(), field=None) == "a"
    assert (stage.thinks, stage.listed) == ([True, "absent"], "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_thinking_by_the_client_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.refuse()
    stage.answer()
    stage.ask(chat())
    assert f"ignored parameter {FIELD}: The model does not support thinking." in caplog.text


@pytest.mark.parametrize("is_remembered", [False, True])
def test_where_nothing_may_be_without_effect_it_is_a_400(strict: Stage, is_remembered: bool) -> None:
    if is_remembered:
        strict.limits.cannot_think.add("demo")
    else:
        strict.refuse()
    with pytest.raises(APIError) as raised:
        strict.ask(chat())
    error = raised.value
    assert (error.status, error.param, error.code) == (400, FIELD, "unsupported_parameter")
    assert strict.thinks == ([] if is_remembered else [True])
    assert "demo" in strict.limits.cannot_think


def test_thinking_by_a_setting_is_no_400(strict: Stage) -> None:
    strict.refuse()
    strict.answer()
    assert strict.ask(chat(), field=None) == "a"


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ({"error": '"demo" does not support tools'}, BAD_REQUEST, 400),
        ({"error": "invalid think value: \"max\" (must be 'high', 'medium', 'low', true, or false)"}, BAD_REQUEST, 400),
        (REFUSAL, "500 Internal Server Error", 502),
        ({"error": "model 'demo' not found"}, "404 Not Found", 404),
        ({"error": "busy"}, "503 Service Unavailable", 503),
    ],
)
def test_any_other_error_is_raised_and_not_remembered(stage: Stage, error: Any, status: str, expected: int) -> None:
    stage.refuse(error, status)
    with pytest.raises(APIError) as raised:
        stage.ask(chat())
    assert raised.value.status == expected
    assert (stage.thinks, stage.listed) == ([True], "")
    assert "demo" not in stage.limits.cannot_think


def test_the_second_call_may_fail_too(stage: Stage) -> None:
    stage.refuse()
    stage.refuse({"error": "model 'demo' not found"}, "404 Not Found")
    with pytest.raises(APIError) as raised:
        stage.ask(chat())
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")
    assert "`gpt`" in raised.value.message
    assert stage.thinks == [True, "absent"]


def test_a_second_refusal_is_raised_and_there_is_no_third_call(stage: Stage) -> None:
    stage.refuse()
    stage.refuse()
    with pytest.raises(APIError) as raised:
        stage.ask(chat())
    assert (raised.value.status, raised.value.param) == (400, FIELD)
    assert stage.thinks == [True, "absent"]


def test_the_cancel_ends_the_second_call_as_the_first(stage: Stage) -> None:
    cancel = Cancel()
    cancel.set()
    for _ in range(2):
        with pytest.raises(APIError, match="cancelled"):
            stage.ask(chat(), cancel=cancel)
        stage.limits.cannot_think.add("demo")
    assert stage.fake.requests == []


def test_one_function_may_start_several_calls(stage: Stage) -> None:
    stage.refuse()
    for text in ("a", "b"):
        stage.answer(text)
    request = chat()
    start = start_call(stage.backend.chat, request, "gpt", FIELD, stage.limits, stage.ignored)
    for text in ("a", "b"):
        with closing(start(Cancel())) as stream:
            assert "".join(message.message.content or "" for message in stream if message.message) == text
    assert stage.thinks == [True, "absent", "absent"]
    assert request == chat()


def test_text_completions_are_called_again_too(stage: Stage) -> None:
    stage.refuse(path="/api/generate")
    stage.fake.script("/api/generate", {**done(), "response": "a"})
    request = native.GenerateRequest(model="demo", prompt="p", options={}, think="low")
    start = start_call(stage.backend.generate, request, "gpt", "think", stage.limits, stage.ignored)
    with closing(start(Cancel())) as stream:
        assert [message.response for message in stream] == ["a"]
    assert (stage.thinks, stage.listed, request.think) == (["low", "absent"], "think", "low")


# -- levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('think value "medium" is not supported for this model', BAD_REQUEST),
        ('invalid think value: "medium" (must be true or false)', BAD_REQUEST),
        ("template: unsupported gpt-oss reasoning effort: medium", "500 Internal Server Error"),
        ("unsupported reasoning effort", "500 Internal Server Error"),
    ],
)
def test_a_level_that_the_server_does_not_know_is_thinking_without_a_level(
    stage: Stage, text: str, status: str
) -> None:
    stage.refuse({"error": text}, status)
    for answer in "abc":
        stage.answer(answer)
    assert stage.ask(chat("medium")) == "a"
    assert stage.listed == FIELD
    assert stage.ask(chat("medium")) == "b"
    assert stage.ask(chat("low")) == "c"
    assert stage.thinks == ["medium", True, True, "low"]


def test_a_level_and_then_thinking_itself_may_be_refused(stage: Stage) -> None:
    stage.refuse({"error": 'think value "high" is not supported for this model'})
    stage.refuse()
    stage.answer("a")
    assert stage.ask(chat("high")) == "a"
    assert (stage.thinks, stage.listed) == (["high", True, "absent"], FIELD)


def test_a_level_without_effect_is_refused_by_the_other_policy(strict: Stage) -> None:
    strict.refuse({"error": 'think value "high" is not supported for this model'})
    with pytest.raises(APIError) as raised:
        strict.ask(chat("high"))
    assert (raised.value.status, raised.value.param) == (400, FIELD)


@pytest.mark.parametrize("think", [True, "high"])
def test_another_500_is_not_asked_again(stage: Stage, think: Any) -> None:
    stage.refuse({"error": "boom"}, "500 Internal Server Error")
    with pytest.raises(APIError):
        stage.ask(chat(think))
    assert stage.thinks == [think]
