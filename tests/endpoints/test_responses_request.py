"""Requests for responses: what is sent, refused by name, and listed as ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check
from tests.endpoints.requests import RESPONSES

USER = {"role": "user", "content": "Hello"}
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
URL = f"data:image/png;base64,{IMAGE}"
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
FUNCTION = {"type": "function", "name": "f"}
SENT = {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}


def shown(value: Any) -> str:
    """The id of a row: a set has no order."""
    return json.dumps(sorted(value) if isinstance(value, set) else value)[:80]


def listed(fields: dict[str, Any], settings: dict[str, Any] | None = None) -> set[str]:
    """What is listed, without ``store``."""
    fake = FakeOllama()
    fake.script("/api/chat", done())
    response = RESPONSES.post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", "))) - {"store"}


# -- input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        pytest.param("Hello", [USER], id="a string"),
        pytest.param('a\nb\u2028"', [{"role": "user", "content": 'a\nb\u2028"'}], id="escapes"),
        pytest.param([USER], [USER], id="a short message"),
        pytest.param([{"type": "message", **USER}], [USER], id="a message"),
        pytest.param([{"type": None, **USER}], [USER], id="no type"),
        pytest.param(
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
            [USER],
            id="a part",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "input_text", "text": "Hel"}, {"type": "text", "text": "lo"}]}],
            [USER],
            id="parts",
        ),
        pytest.param([{"role": "user", "content": [{"text": "Hello"}]}], [USER], id="a part without type"),
        pytest.param(
            [{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}, USER],
            [{"role": "system", "content": "d"}, {"role": "system", "content": "s"}, USER],
            id="developer",
        ),
        pytest.param(
            [USER, {"role": "assistant", "content": "a"}], [USER, {"role": "assistant", "content": "a"}], id="a"
        ),
        pytest.param(
            [
                {
                    "id": "msg_1",
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
                    "phase": None,
                }
            ],
            [{"role": "assistant", "content": "a"}],
            id="an output message",
        ),
        pytest.param(
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [{"role": "assistant", "content": "no"}],
            id="a refusal",
        ),
        pytest.param(
            [{"role": "assistant", "content": [{"type": "output_text", "text": None}]}],
            [{"role": "assistant", "content": ""}],
            id="null text of the history",
        ),
        pytest.param([{"role": "user", "content": None}], [{"role": "user", "content": ""}], id="null content"),
        pytest.param([{"role": "user", "content": []}], [{"role": "user", "content": ""}], id="no parts"),
        pytest.param(
            [{"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "auto"}]}],
            [{"role": "user", "content": "", "images": [IMAGE]}],
            id="an image",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}],
            [{"role": "user", "content": "", "images": [IMAGE]}],
            id="an image in chat's form",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "file", "file": {"filename": "a", "file_data": "data:,x"}}]}],
            [{"role": "user", "content": '\n<file name="a">\nx\n</file>\n'}],
            id="a file in chat's form",
        ),
        pytest.param(
            [USER, CALL, RESULT],
            [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [SENT]},
                {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            ],
            id="a call and its result",
        ),
    ],
)
def test_the_forms_of_input(given: Any, messages: list[Any]) -> None:
    assert RESPONSES.sent(input=given)["messages"] == messages
    assert listed({"input": given}) == set()


def test_instructions_are_the_first_system_message() -> None:
    assert RESPONSES.sent(instructions="Be brief.")["messages"] == [{"role": "system", "content": "Be brief."}, USER]
    assert RESPONSES.sent(instructions="")["messages"] == [USER]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("", "input"),
        ([], "input"),
        ({}, "input"),
        (None, "input"),
        (1, "input"),
        ({"role": "user", "content": "x"}, "input"),
        (["a", 1, None], "input[0]"),
        ([USER, 1], "input[1]"),
        ([None], "input[0]"),
        ([[]], "input[0]"),
        ([{}], "input[0].type"),
        ([{"content": "x"}], "input[0].type"),
        ([{"type": "", "content": "x"}], "input[0].type"),
        ([{"type": "nothing"}], "input[0].type"),
        ([USER, {"type": "message", "content": "x"}], "input[1].role"),
        ([{"role": "a b", "content": "x"}], "input[0].role"),
        ([{"role": 1, "content": "x"}], "input[0].role"),
        ([{"role": "user", "content": {"type": "input_text", "text": "x"}}], "input[0].content"),
        ([{"role": "user", "content": 1}], "input[0].content"),
        ([{"role": "user", "content": ["x"]}], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_text", "text": None}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_text", "text": 1}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_video"}]}], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "file"}]}], "input[0].content[0].file"),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "input[0].content[0].file.file_data"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], "input[0].content[0].file_id"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}],
            "input[0].content[0].image_url",
        ),
        ([USER, {"type": "function_call", "call_id": "c"}], "input[1].name"),
        ([USER, {"type": "custom_tool_call", "call_id": "c", "input": "x"}], "input[1].name"),
        ([USER, {"type": "item_reference", "id": "msg_1"}], "input[1].id"),
        ([USER, {"id": "msg_1"}], "input[1].id"),
        ([USER, {"type": "function_call_output", "call_id": 1, "output": "x"}], "input[1].call_id"),
        (
            [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "f"}]}],
            "input[0].output[0].file_id",
        ),
        ([{"type": "reasoning", "encrypted_content": "gAAAAB"}], "input[0].encrypted_content"),
        ([{"type": "compaction", "encrypted_content": "gAAAAB"}], "input[0].encrypted_content"),
    ],
    ids=shown,
)
def test_input_that_is_none_is_named(given: Any, param: str) -> None:
    assert RESPONSES.refused(input=given)["param"] == param


def test_too_many_items() -> None:
    error = RESPONSES.refused({"max_messages": 2}, input=[USER] * 3)
    assert (error["param"], error["code"]) == ("input", "array_above_max_length")


def test_a_chat_is_told_where_it_belongs() -> None:
    error = RESPONSES.refused(input=None, messages=[USER])
    assert error["param"] == "input"
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"input[].web_search_call"}),
        ({"type": "mcp_list_tools", "tools": []}, {"input[].mcp_list_tools"}),
        ({**USER, "x": 1}, {"input[].x"}),
        ({**CALL, "parsed_arguments": {"a": 1}}, {"input[].parsed_arguments"}),
        ({**CALL, "parsed_arguments": None, "id": None, "status": None}, set()),
        ({**CALL, "input": "x"}, {"input[].input"}),
        ({"type": "custom_tool_call", "name": "c", "input": "x", "arguments": "{}"}, {"input[].arguments"}),
        ({"role": "assistant", "content": "x", "phase": "commentary"}, {"input[].phase"}),
        (
            {"role": "assistant", "content": [{"type": "audio", "x": 1}]},
            {"input[].content[].audio", "input[].content[].x"},
        ),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [{"type": "url"}]}]},
            {"input[].content[].annotations"},
        ),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "x", "parsed": {"a": 1}}]},
            {"input[].content[].parsed"},
        ),
        (
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAAB", "summary": []},
            {"input[].encrypted_content"},
        ),
        (
            {"type": "reasoning", "encrypted_content": "gAAAAB", "summary": [{"type": "summary_text", "text": "t"}]},
            {"input[].encrypted_content", "input[].summary"},
        ),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}, {"input[].summary"}),
        ({"type": "reasoning", "summary": []}, set()),
        ({"type": "reasoning", "content": "t"}, set()),
        ({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}, {}]}, set()),
        ({"type": "reasoning", "content": [{"type": "reasoning_text", "text": None}, None, ""]}, set()),
        ({"type": "reasoning", "content": {"text": "t"}}, {"input[].content"}),
        ({"type": "reasoning", "content": [1, {"type": "text", "text": "t"}]}, {"input[].content[]"}),
        (
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t", "signature": "s"}]},
            {"input[].content[].signature"},
        ),
        ({"type": "reasoning", "content": [{"type": "text", "text": 1}]}, {"input[].content[].text"}),
        (
            {"type": "reasoning", "content": [{"type": "redacted", "data": "x"}]},
            {"input[].content[].redacted", "input[].content[].data"},
        ),
        ({"type": "compaction", "encrypted_content": "x"}, {"input[].compaction"}),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "high", "file_id": "f"}]},
            {"input[].content[].detail", "input[].content[].file_id"},
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}, "detail": "high"}],
            },
            {"input[].content[].detail", "input[].content[].image_url.detail"},
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": URL, "text": "caption"}]},
            {"input[].content[].text"},
        ),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "x", "image_url": URL, "file_data": "eA=="}]},
            {"input[].content[].image_url", "input[].content[].file_data"},
        ),
        ({"role": "user", "content": [{"text": "x", "image_url": URL}]}, {"input[].content[].image_url"}),
        (
            {"role": "user", "content": [{"type": "input_file", "file_data": "data:,x", "text": "x", "refusal": "no"}]},
            {"input[].content[].text", "input[].content[].refusal"},
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no", "text": "x", "annotations": [1]}]},
            {"input[].content[].text", "input[].content[].annotations"},
        ),
        (
            {"type": "function_call_output", "output": [{"type": "input_image", "image_url": URL, "text": "caption"}]},
            {"input[].output[].text"},
        ),
        (
            {"type": "function_call_output", "output": [{"type": "text", "name": "title"}, {"type": "number", "x": 1}]},
            set(),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x", "y": 1}]},
            {"input[].output[].y"},
        ),
        (
            {"type": "function_call_output", "output": [{"type": "text", "text": "x"}, {"type": "audio"}]},
            {"input[].output[].audio"},
        ),
        (
            {
                "type": "function_call_output",
                "output": [{"type": "input_image", "image_url": URL, "detail": "high", "file_id": "f"}],
            },
            {"input[].output[].detail", "input[].output[].file_id"},
        ),
    ],
    ids=shown,
)
def test_what_has_no_effect_in_an_item_is_listed(item: Any, names: set[str]) -> None:
    assert listed({"input": [USER, item]}) == names


# -- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "native"),
    [
        ({}, {"options": {"temperature": 1.0, "top_p": 1.0}}),
        ({"temperature": 0, "top_p": 0.5}, {"options": {"temperature": 0, "top_p": 0.5}}),
        ({"max_output_tokens": 9}, {"options": {"num_predict": 9}}),
        ({"max_output_tokens": 9.0}, {"options": {"num_predict": 9}}),
        ({"max_output_tokens": -1}, {"options": {"num_predict": -1}}),
        ({"reasoning": {"effort": "none"}}, {"think": False}),
        ({"reasoning": {"effort": "xhigh"}}, {"think": "max"}),
        ({"reasoning": {}}, {"think": None}),
        ({"reasoning": None}, {"think": None}),
        ({"truncation": "auto"}, {"truncate": True}),
        ({"truncation": "disabled"}, {"truncate": False}),
        ({"truncation": "auto", "truncate": False}, {"truncate": False}),
        ({"text": {"format": {"type": "json_object"}}}, {"format": "json"}),
        (
            {"text": {"format": {"type": "json_object", "schema": {"type": "object"}}}},
            {"format": {"type": "object"}},
        ),
        ({"text": {"format": {"type": "json_object", "schema": {}}}}, {"format": "json"}),
        ({"text": {"format": {"type": "text"}}}, {"format": None}),
        ({"text": {}}, {"format": None}),
        ({"text": []}, {"format": None}),
        ({"text": {"format": {}}}, {"format": None}),
        ({"text": {"format": None}}, {"format": None}),
        ({"text": {"format": []}}, {"format": None}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
            {"format": {"type": "object"}},
        ),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, {"format": {}}),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": []}}}, {"format": "json"}),
        (
            {"text": {"format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}}},
            {"format": {"type": "object"}},
        ),
        ({"text": {"format": {"type": ""}}}, {"format": None}),
        ({"text": {"format": {"type": "", "name": "", "schema": {}, "json_schema": {}}}}, {"format": None}),
        ({"text": {"format": {"type": "json_object", "strict": False, "json_schema": {}}}}, {"format": "json"}),
        ({"format": "json"}, {"format": "json"}),
        ({"keep_alive": "5m"}, {"keep_alive": "5m"}),
        ({"tools": []}, {"tools": None}),
        ({"stream_options": {}, "include": [], "metadata": {}, "service_tier": "auto"}, {"model": "demo"}),
    ],
    ids=shown,
)
def test_fields_that_are_mapped(fields: dict[str, Any], native: dict[str, Any]) -> None:
    sent = RESPONSES.sent(**fields)
    for key, value in native.items():
        found = sent.get(key)
        assert ({name: found[name] for name in value} if key == "options" else found) == value
    assert listed(fields) == set()


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"x": 1, "y": None}, {"x"}),
        ({"user": "me"}, {"user"}),
        ({"moderation": {"a": 1}}, {"moderation"}),
        ({"context_management": [{"type": "compaction"}]}, {"context_management"}),
        ({"background_options": {"a": 1}}, {"background_options"}),
        ({"access_programs": ["a"]}, {"access_programs"}),
        ({"client_metadata": {"a": "b"}}, {"client_metadata"}),
        ({"image": "x"}, {"image"}),
        (
            {"prompt_cache_options": {"a": 1}, "prompt_cache_retention": "24h"},
            {"prompt_cache_options", "prompt_cache_retention"},
        ),
        ({"prompt_cache_key": "k", "safety_identifier": "me", "max_tool_calls": 1}, set()),
        ({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}, set()),
        ({"include": ["file_search_call.results"]}, {"include.file_search_call.results"}),
        ({"include": [f"x{i:02}" for i in range(33)]}, {"include", *[f"include.x{i:02}" for i in range(32)]}),
        ({"service_tier": "flex"}, {"service_tier"}),
        ({"stream_options": {"include_obfuscation": True}}, {"stream_options.include_obfuscation"}),
        ({"stream_options": {"include_usage": True}}, {"stream_options.include_usage"}),
        ({"text": {"verbosity": "low"}}, {"text.verbosity"}),
        ({"text": {"verbosity": "medium"}}, set()),
        ({"text": {"x": 1}}, {"text.x"}),
        ({"text": {"verbosity": "foo"}}, {"text.verbosity"}),
        ({"text": {"format": {"type": "text", "schema": {"type": "object"}}}}, {"text.format.schema"}),
        (
            {"text": {"format": {"type": "text", "name": "n", "description": "d", "strict": True}}},
            {"text.format.name", "text.format.description", "text.format.strict"},
        ),
        (
            {"text": {"format": {"type": "json_object", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {"text.format.name", "text.format.strict"},
        ),
        ({"text": {"format": {"type": "text", "json_schema": {"schema": {"a": 1}}}}}, {"text.format.json_schema"}),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"a": 1}, "json_schema": {"schema": {"a": 1}}}}},
            {"text.format.json_schema"},
        ),
        (
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "n",
                        "strict": True,
                        "json_schema": {"schema": {"type": "object"}, "description": "d"},
                    }
                }
            },
            {"text.format.name", "text.format.strict", "text.format.json_schema.description"},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": "d"}}},
            {"text.format.description"},
        ),
        ({"format": "json", "text": {"format": {"type": "json_object"}}}, {"format"}),
        ({"reasoning": {"effort": "low", "context": "x", "mode": "y"}}, {"reasoning.context", "reasoning.mode"}),
        ({"reasoning": {"summary": "detailed"}}, set()),
        ({"reasoning": {"summary": {"a": 1}, "exclude": True}}, {"reasoning.summary", "reasoning.exclude"}),
        ({"metadata": {"a": 1}}, {"metadata"}),
    ],
    ids=shown,
)
def test_what_has_no_effect_is_listed(fields: dict[str, Any], names: set[str]) -> None:
    assert listed(fields) == names


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"instructions": 1}, "instructions"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_output_tokens": -2}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_output_tokens": "9"}, "max_output_tokens"),
        ({"max_tool_calls": 1.5}, "max_tool_calls"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"truncation": "maybe"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": "low"}, "reasoning"),
        ({"include": "x"}, "include"),
        ({"include": [1]}, "include[0]"),
        ({"text": "json"}, "text"),
        ({"text": [1]}, "text"),
        ({"text": {"format": [1]}}, "text.format"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"name": "n"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": 1}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": ""}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "json_schema": {"name": "n"}}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "json_schema": {"schema": 1}}}}, "text.format.json_schema.schema"),
        ({"text": {"format": {"type": "json_schema", "json_schema": [1]}}}, "text.format.json_schema"),
        ({"text": {"format": {"type": "", "name": "n"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_object", "schema": 1}}}, "text.format.schema"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [None]}, "tools[0]"),
    ],
    ids=shown,
)
def test_what_is_not_valid_is_named(fields: dict[str, Any], param: str) -> None:
    assert RESPONSES.refused(**fields)["param"] == param


@pytest.mark.parametrize(
    ("fields", "name", "param"),
    [
        ({"tools": [FUNCTION, {"type": "web_search"}]}, "tools[].web_search", "tools[1].type"),
        ({"tools": [FUNCTION, {"type": "foo"}]}, "tools[].foo", "tools[1].type"),
        (
            {"tools": [FUNCTION, {"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]},
            "tools[].mcp",
            "tools[1].tools[0].type",
        ),
        ({"tools": [FUNCTION], "tool_choice": {"type": "file_search"}}, "tool_choice", "tool_choice"),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": [FUNCTION, {"type": "mcp"}]}},
            "tool_choice.tools",
            "tool_choice.tools[1]",
        ),
    ],
    ids=shown,
)
def test_unsupported_is_refused_where_the_policy_says_so(fields: dict[str, Any], name: str, param: str) -> None:
    assert RESPONSES.refused({"unsupported": "error"}, **fields)["param"] == param
    assert listed(fields) == {name}


def test_a_tool_is_unsupported_for_a_true_reason() -> None:
    for kind, reason in (("web_search", "It is a tool of OpenAI's own."), ("foo", "OpenAI has no tools of this type.")):
        assert reason in RESPONSES.refused({"unsupported": "error"}, tools=[{"type": kind}])["message"]


def test_too_long_metadata_is_listed_where_nothing_is_stored() -> None:
    fake = FakeOllama()
    response = RESPONSES.post(fake, metadata={"a": "x" * 600})
    assert response.get_json()["metadata"] == {}
    assert "metadata" in response.headers["openai-compat-ignored"]


def test_lone_surrogates_and_invalid_utf_8() -> None:
    call = {"type": "function_call", "name": "f", "arguments": '{"a":"\\ud83d"}'}
    body = json.dumps({"model": "demo", "input": [{"role": "user", "content": "\ud83d"}, call]})
    fake = FakeOllama()
    client = Client(OpenAICompat(fake))
    assert client.post("/v1/responses", data=body, content_type="application/json").status_code == 200
    user, assistant = fake.requests[0].json["messages"]
    assert user["content"] == "\ufffd"
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"a": "\ufffd"}
    response = client.post("/v1/responses", data=b'{"model":"demo","input":"\xff"}', content_type="application/json")
    assert response.status_code == 400
    check("ErrorResponse", response.get_json())


# -- JSON -------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
GOOD = '{"name": "Oslo", "people": 700000}'
BAD = '{"name": "Oslo", "people": "many"}'
STRICT = {"text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}}


@pytest.mark.parametrize(
    "fields", [{"text": {"format": {"type": "json_object"}}}, STRICT, {"format": "json"}], ids=shown
)
@pytest.mark.parametrize("written", [GOOD, f"```json\n{GOOD}\n```"])
def test_pure_json_is_left(fields: dict[str, Any], written: str) -> None:
    pytest.importorskip("jsonschema", reason="the extra 'schema' is not installed")
    [item] = RESPONSES.answered(*[say(character) for character in written], done(), **fields)["output"]
    assert item["content"][0]["text"] == GOOD


def test_a_strict_schema_is_checked() -> None:
    pytest.importorskip("jsonschema", reason="the extra 'schema' is not installed")
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done())
    response = RESPONSES.post(fake, **STRICT)
    assert (response.status_code, response.get_json()["error"]["code"]) == (502, "response_format_failed")
    assert "text.format" in response.get_json()["error"]["message"]
    events = RESPONSES.events(say(BAD), done(), **STRICT)
    assert (events[-2]["code"], events[-1]["type"]) == ("response_format_failed", "response.failed")


def test_a_strict_schema_in_chat_s_form_is_checked() -> None:
    pytest.importorskip("jsonschema", reason="the extra 'schema' is not installed")
    text = {"format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}}
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done())
    assert RESPONSES.post(fake, text=text).status_code == 502
    assert fake.requests[0].json["format"] == SCHEMA


def test_a_strict_answer_is_generated_again() -> None:
    pytest.importorskip("jsonschema", reason="the extra 'schema' is not installed")
    fake = FakeOllama()
    fake.script("/api/chat", say(BAD), done(prompt=2, made=3))
    fake.script("/api/chat", say(GOOD), done(prompt=5, made=7))
    response = RESPONSES.post(fake, {"retry_strict": True}, **STRICT)
    check("Response", response.get_json())
    [item] = response.get_json()["output"]
    assert item["content"][0]["text"] == GOOD
    assert response.get_json()["usage"]["total_tokens"] == 17
    assert [message["role"] for message in fake.requests[1].json["messages"]] == ["user", "assistant", "user"]


def test_a_schema_that_cannot_be_checked_lists_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "https://example.org/x.json"}}}
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    fake = FakeOllama()
    fake.script("/api/chat", say(json.dumps({"a": 1})), done())
    response = RESPONSES.post(fake, text=text)
    assert response.status_code == 200
    assert "text.format.strict" in response.headers["openai-compat-ignored"]
    text = {"format": {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}}
    assert listed({"text": text}) == {"text.format.json_schema.strict"}
