"""What is the answer that a format wants, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, Raw

from openai_compat.structured import schema_checker
from openai_compat.structured.answer_format import AnswerFormat
from openai_compat.structured.schema_checker import checker

SCHEMA = Raw(b'{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' \n{"a": 1}\n', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('<think>hm</think>{"a": 1}', '{"a": 1}'),
        ('{"a": "1"}', None),
        ("{}", None),
        ('{"a": 1', None),
        ('{"a": 1} so', None),
        ('So: {"a": 1}', None),
        ("[1]", None),
        ("", None),
    ],
)
def test_a_schema(text: str, found: str | None) -> None:
    assert AnswerFormat(SCHEMA).found_in(text) == found


@pytest.mark.parametrize(
    ("text", "is_it"), [("{}", True), ('{"a": [1]}', True), ("[]", False), ("1", False), ("x", False)]
)
@pytest.mark.parametrize("form", ["json", Raw(b'"json"')])
def test_any_json(form: Any, text: str, is_it: bool) -> None:
    assert (AnswerFormat(form).found_in(text) is not None) is is_it


def test_the_client_s_own_schema_counts_where_it_is_strict() -> None:
    strict = checker(b'{"type":"object","properties":{"a":{"const":1}}}')
    assert AnswerFormat(SCHEMA, strict).found_in('{"a": 1}') == '{"a": 1}'
    assert AnswerFormat(SCHEMA, strict).found_in('{"a": 2}') is None


@pytest.mark.parametrize(("text", "is_it"), [('{"a": "x"}', True), ("[1, 2]", True), ("[1", False), ('"a"', False)])
def test_without_the_extra_it_is_json(monkeypatch: pytest.MonkeyPatch, text: str, is_it: bool) -> None:
    def missing() -> Any:
        raise ImportError("jsonschema")

    monkeypatch.setattr(schema_checker, "library", missing)
    assert (AnswerFormat(SCHEMA).found_in(text) is not None) is is_it


def test_an_answer_that_cannot_be_checked_is_json() -> None:
    text = "[" + ",".join(["[]"] * 300_000) + "]"
    assert AnswerFormat(Raw(b'{"type":"array"}')).found_in(text) == text


def test_what_the_model_is_told() -> None:
    assert SCHEMA in AnswerFormat(SCHEMA).instruction().encode()
    assert "JSON object" in AnswerFormat("json").instruction()
    assert AnswerFormat(UNSET).schema is None
