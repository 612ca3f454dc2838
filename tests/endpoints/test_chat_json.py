"""Chats whose answer is to be JSON: what surrounds it goes, and a strict schema is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.structured import schema_checker as schemas
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream, frames, merged
from tests.endpoints.requests import MESSAGES, answered, ignored, post, streamed

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"$ref": "#/$defs/Count"}},
    "required": ["name", "people"],
    "additionalProperties": False,
    "$defs": {"Count": {"type": "integer", "minimum": 0}},
}
GOOD = '{"name": "Oslo", "people": 700000}'
BAD = '{"name": "Oslo", "people": "many"}'


def wanted(schema: Any = SCHEMA, *, strict: bool | None = True) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": strict}}


STRICT = {"response_format": wanted()}


# -- what surrounds JSON ----------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"response_format": {"type": "json_object"}}, STRICT, {"format": "json"}])
@pytest.mark.parametrize("text", [GOOD, f"```json\n{GOOD}\n```", f"<think>Hm.</think>{GOOD}"])
def test_pure_json_is_left(fields: dict[str, Any], text: str) -> None:
    reasoning = "Hm." if "<think>" in text else None
    [choice] = answered(say(text), done(), **fields)["choices"]
    assert (choice["message"]["content"], choice["message"].get("reasoning")) == (GOOD, reasoning)
    pieces = [say(character) for character in text]
    found = merged(streamed(*pieces, done(), **fields))
    assert (found["content"], found["reasoning"]) == (GOOD, reasoning or "")


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}])
def test_a_text_that_is_to_be_text_stays_as_it_is(fields: dict[str, Any]) -> None:
    text = f"```json\n{GOOD}\n```"
    assert answered(say(text), done(), **fields)["choices"][0]["message"]["content"] == text


# -- strict -----------------------------------------------------------------------------------


def test_an_answer_that_matches_passes() -> None:
    assert answered(say(GOOD), done(), **STRICT)["choices"][0]["message"]["content"] == GOOD
    assert merged(streamed(say(GOOD), done(), **STRICT))["content"] == GOOD


@pytest.mark.parametrize("text", [BAD, "{}", "Oslo", "", '{"name": "Oslo", "people": 1, "x": 1}', GOOD + GOOD])
def test_an_answer_that_does_not_is_an_error(text: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(text), done())
    response = post(fake, **STRICT)
    check("ErrorResponse", response.get_json())
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], response.headers["x-should-retry"]) == (
        502,
        "response_format_failed",
        "false",
    )
    assert len(fake.requests) == 1
    fake.script("/api/chat", say(text), done())
    *chunks, last = frames(post(fake, stream=True, **STRICT).data)
    assert last["error"]["code"] == "response_format_failed"
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("strict", [False, None])
def test_without_strict_nothing_is_checked(strict: bool | None) -> None:
    assert answered(say(BAD), done(), response_format=wanted(strict=strict))["choices"][0]["finish_reason"] == "stop"


def test_what_is_cut_off_is_not_checked() -> None:
    [choice] = answered(say(BAD[:9]), done("length"), **STRICT)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (BAD[:9], "length")
    assert merged(streamed(say(BAD[:9]), done("length"), **STRICT))["finish_reason"] == "length"


def test_a_call_is_not_checked() -> None:
    call = say(tool_calls=[{"function": {"name": "f", "arguments": {}}}])
    [choice] = answered(call, done(), **STRICT)["choices"]
    assert choice["finish_reason"] == "tool_calls"


def test_every_choice_is_checked() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(GOOD), done())
    fake.script("/api/chat", say(BAD), done())
    assert post(fake, n=2, **STRICT).status_code == 502


def test_patterns_are_not_looked_at_and_listed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    fake = FakeOllama()
    fake.script("/api/chat", say(json.dumps({"a": "a" * 64 + "b"})), done())
    response = post(fake, response_format=wanted(schema))
    assert response.status_code == 200
    assert response.headers["openai-compat-ignored"] == "response_format.json_schema.schema.pattern"


def test_a_schema_without_end_is_not_checked_and_listed() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}}
    fake = FakeOllama()
    fake.script("/api/chat", say(GOOD), done())
    response = post(fake, response_format=wanted(schema))
    assert response.status_code == 200
    assert response.headers["openai-compat-ignored"] == "response_format.json_schema.strict"


def test_without_the_extra_nothing_is_checked_and_that_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(schema: bytes) -> Any:
        raise schemas.Uncheckable("the extra 'schema' is not installed")

    monkeypatch.setattr("openai_compat.structured.output_format.checker", missing)
    assert ignored(**STRICT) == {"response_format.json_schema.strict"}


# -- a second attempt -------------------------------------------------------------------------

RETRY = {"retry_strict": True}


def test_the_model_is_told_what_is_wrong_and_asked_once_more() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done(prompt=10, made=5))
    fake.script("/api/chat", say(GOOD), done(prompt=20, made=6))
    response = post(fake, RETRY, **STRICT)
    assert response.status_code == 200
    assert response.get_json()["choices"][0]["message"]["content"] == GOOD
    assert response.get_json()["usage"]["total_tokens"] == 41
    first, second = (request.json for request in fake.requests)
    assert second["messages"][:-2] == first["messages"] == MESSAGES
    assert second["messages"][-2] == {"role": "assistant", "content": BAD}
    assert second["messages"][-1]["role"] == "user"
    assert "people" in second["messages"][-1]["content"]
    assert {**second, "messages": []} == {**first, "messages": []}
    assert fake.opened == fake.closed == 2


def test_a_choice_that_is_asked_for_again_keeps_its_seed() -> None:
    fake = FakeOllama()
    for text in (BAD, GOOD, BAD, GOOD):
        fake.script("/api/chat", say(text), done())
    post(fake, RETRY, n=2, seed=10, **STRICT)
    assert [request.json["options"]["seed"] for request in fake.requests] == [10, 10, 11, 11]


def test_once_and_not_again() -> None:
    fake = FakeOllama()
    for _ in range(3):
        fake.script("/api/chat", say(BAD), done())
    response = post(fake, RETRY, **STRICT)
    assert (response.status_code, response.get_json()["error"]["code"]) == (502, "response_format_failed")
    assert len(fake.requests) == 2


def test_a_second_answer_that_is_cut_off_is_told_as_such() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done())
    fake.script("/api/chat", say("{"), done("length"))
    assert post(fake, RETRY, **STRICT).get_json()["choices"][0]["finish_reason"] == "length"


def test_a_stream_is_not_asked_for_twice() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done())
    *_, last = frames(post(fake, RETRY, stream=True, **STRICT).data)
    assert last["error"]["code"] == "response_format_failed"
    assert len(fake.requests) == 1


def test_only_the_choice_that_is_wrong_is_asked_for_again() -> None:
    fake = FakeOllama()
    for text in (GOOD, BAD, GOOD.replace("Oslo", "Rome")):
        fake.script("/api/chat", say(text), done())
    completion = post(fake, RETRY, n=2, **STRICT).get_json()
    assert [choice["message"]["content"] for choice in completion["choices"]] == [GOOD, GOOD.replace("Oslo", "Rome")]
    assert len(fake.requests) == 3


def test_a_stream_that_matches_ends_well() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *[say(character) for character in GOOD], done())
    assert check_stream(post(fake, stream=True, **STRICT).data)


def test_the_choices_of_a_request_share_the_budget_of_their_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonschema", reason="the extra 'schema' is not installed")
    monkeypatch.setattr("openai_compat.structured.schema_evaluation.MAX_STEPS", 2000)
    schema = {"type": "array", "items": {"type": "integer"}}
    response_format = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    for n, listed in ((1, None), (8, "response_format.json_schema.strict")):
        fake = FakeOllama()
        for _ in range(n):
            fake.script("/api/chat", say(json.dumps([1] * 500)), done())
        response = post(fake, n=n, response_format=response_format)
        assert response.status_code == 200
        assert response.headers.get("openai-compat-ignored") == listed
