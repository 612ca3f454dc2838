"""Chat completions: the request, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat import Sampling
from tests.endpoints.requests import MESSAGES, TOOLS, ignored, refused, sent

# -- the request ------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    assert sent() == {
        "model": "demo",
        "messages": MESSAGES,
        "options": {"temperature": 1.0, "top_p": 1.0},
        "stream": True,
        "truncate": False,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 6.0}, 6),
        ({"max_tokens": -1}, -1),
        ({"max_tokens": None}, None),
        ({"max_tokens": 5, "options": {"num_predict": 9}}, 5),
    ],
)
def test_max_tokens_become_num_predict(fields: dict[str, Any], expected: int | None) -> None:
    assert sent(**fields)["options"].get("num_predict") == expected


SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": ""}}, None),
        ({"response_format": {"type": "", "json_schema": {}, "schema": {}}}, None),
        ({"response_format": {"json_schema": []}}, None),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": " JSON_Object "}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "json"),
        ({"format": "json"}, "json"),
        ({"format": SCHEMA}, SCHEMA),
        ({"format": None}, None),
        ({"format": SCHEMA, "response_format": {"type": "json_object"}}, "json"),
        ({"format": SCHEMA, "response_format": {"type": "text"}}, SCHEMA),
    ],
)
def test_a_response_format_becomes_the_format(fields: dict[str, Any], expected: Any) -> None:
    assert sent(**fields).get("format") == expected


def test_a_schema_keeps_the_order_of_its_keys() -> None:
    fields = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}
    assert json.dumps(sent(**fields)["format"]) == json.dumps(SCHEMA)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, None)),
        ({"logprobs": True}, (True, None)),
        ({"logprobs": True, "top_logprobs": 0}, (True, None)),
        ({"logprobs": True, "top_logprobs": 20}, (True, 20)),
        ({"logprobs": False}, (None, None)),
        ({"logprobs": None, "top_logprobs": None}, (None, None)),
        ({"logprobs": False, "top_logprobs": 0}, (None, None)),
    ],
)
def test_log_probabilities_are_sent_where_they_are_wanted(fields: dict[str, Any], expected: tuple[Any, Any]) -> None:
    found = sent(**fields)
    assert (found.get("logprobs"), found.get("top_logprobs")) == expected


TOOLS_OLD = [TOOLS[0]["function"]]


@pytest.mark.parametrize(
    ("fields", "has_tools"),
    [
        ({"tools": TOOLS}, True),
        ({"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}, True),
        ({"tools": TOOLS, "tool_choice": None, "parallel_tool_calls": None}, True),
        ({"tools": TOOLS, "tool_choice": "none"}, False),
        ({"tools": None}, False),
        ({"tools": []}, False),
        ({"tools": [], "parallel_tool_calls": False}, False),
        ({"functions": [{"name": "f"}], "function_call": "none"}, False),
        ({"functions": [{"name": "f"}], "tool_choice": "none"}, False),
        ({"functions": TOOLS_OLD}, True),
        ({"functions": TOOLS_OLD, "function_call": "auto", "tools": []}, True),
        ({"functions": [{"name": "g"}], "function_call": "none", "tools": TOOLS}, True),
        ({"parallel_tool_calls": False, "tools": TOOLS}, True),
    ],
)
def test_tools_are_sent_unless_none_may_be_called(fields: dict[str, Any], has_tools: bool) -> None:
    found = sent(**fields)
    assert ("tools" in found) is has_tools
    if has_tools:
        assert found["tools"] == TOOLS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"reasoning_effort": "high"}, "high"), ({"reasoning_effort": "none"}, False), ({"think": True}, True)],
)
def test_an_effort_of_reasoning_becomes_think(fields: dict[str, Any], expected: Any) -> None:
    assert sent(**fields)["think"] == expected


def test_ollama_s_own_extras() -> None:
    found = sent(keep_alive="1h", num_ctx=4096, top_k=3, shift=True, truncate=True, options={"num_gpu": 1})
    assert (found["keep_alive"], found["shift"], found["truncate"]) == ("1h", True, True)
    assert {"num_ctx": 4096, "top_k": 3, "num_gpu": 1}.items() <= found["options"].items()


def test_policies_of_the_settings_reach_the_request() -> None:
    assert sent(settings={"sampling": Sampling.model()})["options"] == {}
    first = sent(settings={"sampling": Sampling.v0_1_24()}, temperature=0.5)
    assert (first["options"]["temperature"], "truncate" in first) == (1.0, False)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": 1}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": {}}, "messages", "empty_array"),
        ({"messages": {"a": 1}}, "messages", "invalid_type"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"stream": "false"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
        ({"top_p": 1.1}, "top_p", "decimal_above_max_value"),
        ({"presence_penalty": 2.1}, "presence_penalty", "decimal_above_max_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "decimal_below_min_value"),
        ({"max_tokens": -2}, "max_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens", "invalid_type"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"seed": "1"}, "seed", "invalid_type"),
        ({"stop": [1]}, "stop[0]", "invalid_type"),
        ({"stop": list(map(str, range(10**5)))}, "stop", "array_above_max_length"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "integer_below_min_value"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": -1}, "n", "integer_below_min_value"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"n": 10**9}, "n", "integer_above_max_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"functions": [{"name": "f"}], "tools": TOOLS}, "functions", "unsupported_parameter"),
        ({"functions": [{}]}, "functions[0].name", "missing_required_parameter"),
        ({"functions": [{"name": "f", "parameters": 1}]}, "functions[0].parameters", "invalid_type"),
        ({"functions": [{"name": "f"}] * 129}, "functions", "array_above_max_length"),
        ({"function_call": {"name": "f"}}, "function_call", "invalid_value"),
        ({"function_call": {"name": "f"}, "tools": TOOLS}, "function_call", "invalid_value"),
        ({"store": "x"}, "store", "invalid_type"),
        ({"tools": {"a": 1}}, "tools", "invalid_type"),
        ({"tools": TOOLS * 129}, "tools", "array_above_max_length"),
        ({"messages": MESSAGES * 10_001}, "messages", "array_above_max_length"),
        ({"response_format": {"schema": {"a": 1}}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value"),
        ({"keep_alive": True}, "keep_alive", "invalid_type"),
        ({"options": [1]}, "options", "invalid_type"),
        *[({"format": value}, "format", "invalid_value") for value in ("xml", 5, True, [1], "JSON")],
        ({"num_ctx": 0}, "num_ctx", "integer_below_min_value"),
    ],
)
def test_f59_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error["param"], error["code"]) == (param, code)


def test_f60_limits_are_settings() -> None:
    assert refused({"max_messages": 1}, messages=MESSAGES * 2)["param"] == "messages"


# -- what has no effect -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"n": 1, "stream_options": {"include_usage": True}, "modalities": ["text"]}, set()),
        ({"service_tier": "auto"}, set()),
        ({"service_tier": "flex"}, {"service_tier"}),
        ({"user": None, "metadata": None}, set()),
        ({"stream_options": {"include_obfuscation": True}}, {"stream_options.include_obfuscation"}),
        ({"stream_options": {"include_obfuscation": False}}, set()),
        ({"Label": "", "foo": {"a": 1}}, {"foo"}),
        ({"prediction": {"type": "content", "content": "x"}}, {"prediction"}),
        ({"audio": {"voice": "x", "format": "wav"}, "modalities": ["text", "audio"]}, {"audio", "modalities"}),
        ({"web_search_options": {}}, {"web_search_options"}),
        ({"store": True, "metadata": {"a": "b"}}, {"store", "metadata"}),
        ({"store": False}, set()),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d"}}},
            {"response_format.json_schema.description"},
        ),
        ({"messages": [*MESSAGES, {"role": "assistant", "audio": {"id": "a"}}, *MESSAGES]}, {"messages[].audio"}),
        *[
            ({name: "x"}, {name})
            for name in (
                "user",
                "safety_identifier",
                "prompt_cache_key",
                "verbosity",
                "moderation",
            )
        ],
    ],
)
def test_rule_1_what_has_no_effect_is_listed(fields: dict[str, Any], expected: set[str]) -> None:
    assert ignored(**fields) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"1": 1}},
        {"prediction": {"type": "content", "content": "x"}},
        {"audio": {"voice": "alloy"}},
        {"web_search_options": {}},
        {"modalities": ["audio"]},
    ],
)
def test_what_ollama_can_never_honour_is_refused_by_the_other_policy(fields: dict[str, Any]) -> None:
    [name] = fields
    assert refused({"unsupported": "error"}, **fields)["param"] == name


def test_the_policy_is_not_about_what_has_no_meaning_for_the_answer() -> None:
    assert ignored({"unsupported": "error"}, user="u", foo=1) == {"user", "foo"}
