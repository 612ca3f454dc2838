"""The request's values in its response: what was used, in a form that OpenAI's schema accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from openai_compat.testing import FakeOllama, done, say
from tests.contract import check
from tests.endpoints.requests import RESPONSES

OBJECT = {"type": "object"}
F = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
C = {"type": "custom", "name": "c"}
LARK = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}


def asked(**fields: Any) -> TestResponse:
    """The response, which OpenAI's schema accepts."""
    fake = FakeOllama()
    fake.script("/api/chat", say("{}"), done())
    response = RESPONSES.post(fake, **fields)
    assert response.status_code == 200, response.data
    check("Response", response.get_json())
    return response


def listed(response: TestResponse) -> set[str]:
    return set(response.headers.get("openai-compat-ignored", "").split(", ")) - {"store", ""}


def namespace(name: str, *tools: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "namespace", "name": name, **fields, "tools": list(tools)}


@pytest.mark.parametrize(
    ("tool", "shown"),
    [
        pytest.param({"name": "f"}, [F], id="no type"),
        pytest.param({**F, "defer_loading": None, "cache_control": {}, "x": {"a": None}}, [F], id="blank members"),
        pytest.param({**F, "defer_loading": True, "x": 1}, [{**F, "defer_loading": True, "x": 1}], id="other members"),
        pytest.param(
            {**F, "defer_loading": "x", "allowed_callers": ["a"], "output_schema": []}, [F], id="members of other kinds"
        ),
        pytest.param(
            {**F, "allowed_callers": ["direct"], "output_schema": OBJECT},
            [{**F, "allowed_callers": ["direct"], "output_schema": OBJECT}],
            id="members without effect",
        ),
        pytest.param({**F, "description": [], "strict": ""}, [F], id="empty values of another kind"),
        pytest.param({**F, "parameters": []}, [{**F, "parameters": {}}], id="PHP's empty object"),
        pytest.param({**F, "parameters": ""}, [F], id="blank parameters"),
        pytest.param(
            {**F, "parameters": {"default": None}}, [{**F, "parameters": {"default": None}}], id="null in a schema"
        ),
        pytest.param({"function": {"name": "f", "strict": False}}, [{**F, "strict": False}], id="chat's form"),
        pytest.param({**F, "function": {"name": "g", "parameters": OBJECT}}, [F], id="both forms"),
        pytest.param({**F, "function": {}}, [F], id="an empty function"),
        pytest.param({**C, "description": None, "format": None, "allowed_callers": None}, [C], id="custom with nulls"),
        pytest.param({**C, "description": "", "format": {}}, [{**C, "description": ""}], id="custom with an empty one"),
        pytest.param({**C, "format": {"type": "text"}}, [{**C, "format": {"type": "text"}}], id="custom text"),
        pytest.param({**C, "format": LARK}, [{**C, "format": LARK}], id="custom with a grammar"),
        pytest.param({**C, "format": {**LARK, "type": None}}, [{**C, "format": LARK}], id="a grammar without a type"),
        pytest.param({**C, "format": {**LARK, "definition": None}}, [C], id="no definition"),
        pytest.param({**C, "format": {**LARK, "syntax": "peg"}}, [C], id="a syntax of nobody"),
        pytest.param(namespace("n", {"name": "f"}), [namespace("n", F, description="")], id="a namespace"),
        pytest.param(
            namespace("n", {**C, "format": None}, {**F, "defer_loading": None}, description="d"),
            [namespace("n", C, F, description="d")],
            id="nulls in a namespace",
        ),
        pytest.param(namespace("n"), [], id="an empty namespace"),
        pytest.param(namespace("n", {"type": "web_search"}, {"type": "foo"}), [], id="a namespace of built-in tools"),
        pytest.param(
            namespace("n", namespace("m", F), F),
            [namespace("n", F, description=""), namespace("n.m", F, description="")],
            id="a namespace in one",
        ),
        pytest.param(
            {"type": "web_search", "search_context_size": None, "filters": {}, "user_location": {"city": None}},
            [{"type": "web_search"}],
            id="a built-in tool with nulls",
        ),
        pytest.param(
            {"type": "file_search", "vector_store_ids": [], "max_num_results": 1},
            [{"type": "file_search", "vector_store_ids": [], "max_num_results": 1}],
            id="a built-in tool",
        ),
        pytest.param({"type": "mcp", "server_label": ""}, [], id="a built-in tool without what it needs"),
        pytest.param({"type": "foo"}, [], id="a type of nobody"),
    ],
)
def test_a_tool_is_shown_as_it_was_used(tool: Any, shown: Any) -> None:
    assert asked(tools=[tool]).get_json()["tools"] == shown


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": ""}, "auto"),
        ({"type": "web_search"}, "auto"),
        ({"type": "web_search_preview", "name": "x"}, {"type": "web_search_preview"}),
        ({"type": "computer_use"}, {"type": "computer_use"}),
        ({"type": "mcp"}, "auto"),
        ({"type": "mcp", "server_label": "s", "name": None}, {"type": "mcp", "server_label": "s"}),
        ({"type": "mcp", "server_label": "s", "name": "n"}, {"type": "mcp", "name": "n", "server_label": "s"}),
    ],
    ids=json.dumps,
)
def test_a_choice_is_shown_in_the_form_of_openai(choice: Any, shown: Any) -> None:
    assert asked(tools=[F], tool_choice=choice).get_json()["tool_choice"] == shown


@pytest.mark.parametrize(
    ("given", "shown", "ignored"),
    [
        ({"effort": "ultra"}, {"effort": "max", "summary": None}, set()),
        ({"effort": "xhigh"}, {"effort": "xhigh", "summary": None}, set()),
        ({"effort": ""}, {"effort": None, "summary": None}, set()),
        ({"summary": "foo"}, {"effort": None, "summary": None}, {"reasoning.summary"}),
        ({"summary": ""}, {"effort": None, "summary": None}, set()),
        (
            {"summary": "foo", "generate_summary": "concise"},
            {"effort": None, "summary": "concise"},
            {"reasoning.summary"},
        ),
        ({"generate_summary": "foo"}, {"effort": None, "summary": None}, {"reasoning.generate_summary"}),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_reasoning_is_shown_with_openai_s_values(given: Any, shown: Any, ignored: set[str]) -> None:
    response = asked(reasoning=given)
    assert (response.get_json()["reasoning"], listed(response)) == (shown, ignored)


def test_an_effort_outside_reasoning_is_shown_too() -> None:
    assert asked(reasoning_effort="ultra").get_json()["reasoning"]["effort"] == "max"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ({"verbosity": "foo"}, {"format": {"type": "text"}}),
        ({"verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
        ({"format": {"type": "text", "name": "n", "schema": OBJECT}}, {"format": {"type": "text"}}),
        ({"format": {"type": " JSON_Object ", "schema": OBJECT}}, {"format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "schema": OBJECT}},
            {"format": {"type": "json_schema", "name": "response", "schema": OBJECT, "strict": False}},
        ),
        (
            {"format": {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT, "description": "d"}}},
            {"format": {"type": "json_schema", "name": "n", "schema": OBJECT, "strict": False, "description": "d"}},
        ),
    ],
    ids=json.dumps,
)
def test_text_is_shown_in_the_form_of_openai(text: Any, shown: Any) -> None:
    assert asked(text=text).get_json()["text"] == shown


def test_an_identifier_that_is_too_long_is_listed() -> None:
    assert asked(safety_identifier="x" * 64).get_json()["safety_identifier"] == "x" * 64
    response = asked(safety_identifier="x" * 65)
    assert (response.get_json()["safety_identifier"], listed(response)) == (None, {"safety_identifier"})
