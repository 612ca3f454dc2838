"""Native failures → what the client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.native.errors import UnparsableOutput, from_line, from_status, unreadable


def shown(error: APIError) -> tuple[int, str, str | None, str | None]:
    return error.status, error.type, error.param, error.code


def of(status: int, text: Any, **more: Any) -> APIError:
    return from_status(status, json.dumps({"error": text, **more}).encode(), "m")


INVALID, SERVER = "invalid_request_error", "server_error"


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "anything", (400, INVALID, None, None)),
        (400, "invalid model name", (404, INVALID, None, "model_not_found")),
        (400, "registry.ollama.ai/library/m:latest does not support tools", (400, INVALID, "tools", None)),
        (400, '"m" does not support chat', (400, INVALID, "model", None)),
        (400, "m does not support insert", (400, INVALID, "suffix", None)),
        (404, "model 'm' not found", (404, INVALID, None, "model_not_found")),
        (404, 'model "m" not found, try pulling it first', (404, INVALID, None, "model_not_found")),
        (404, "something else", (404, INVALID, None, None)),
        (403, "ollama cloud is disabled", (502, SERVER, None, "upstream_auth")),
        (407, "proxy", (502, SERVER, None, "upstream_auth")),
        (500, json.dumps({"error": {"code": 401, "message": "bad"}}), (502, SERVER, None, "upstream_auth")),
        (452, "odd", (400, INVALID, None, None)),
        (413, "large", (413, INVALID, None, None)),
        (429, "slow down", (429, "rate_limit_error", None, "rate_limit_exceeded")),
        (499, "request canceled", (502, SERVER, None, "upstream_error")),
        (500, "boom", (502, SERVER, None, "upstream_error")),
        (501, "not built", (502, SERVER, None, "upstream_error")),
        (502, "cloud unreachable", (502, SERVER, None, "upstream_error")),
        (503, "server busy", (503, SERVER, None, "overloaded")),
        (504, "slow", (504, SERVER, None, "upstream_timeout")),
        (500, 'option "num_ctx" must be of type int', (400, INVALID, "options.num_ctx", "invalid_value")),
        (501, "This server does not support embeddings. Start it", (400, INVALID, "model", "invalid_value")),
        (400, "the input length exceeds the context length", (400, INVALID, "messages", "context_length_exceeded")),
        (500, json.dumps({"error": {"code": 400, "message": "bad"}}), (400, INVALID, None, None)),
        (500, json.dumps({"error": {"code": 500, "message": "bad"}}), (502, SERVER, None, "upstream_error")),
    ],
)
def test_f12_f13_status_type_param_and_code(status: int, text: str, expected: tuple[Any, ...]) -> None:
    assert shown(of(status, text)) == expected


def test_busy_says_when_to_come_back() -> None:
    assert of(503, "busy").headers == (("Retry-After", "2"),)


@pytest.mark.parametrize(("status", "retry"), [(500, False), (502, None), (503, None), (504, False), (400, None)])
def test_which_failures_are_worth_repeating(status: int, retry: bool | None) -> None:
    assert of(status, "x").retry is retry


def test_a_404_says_openai_s_words_and_ollama_s() -> None:
    assert of(404, "model 'm' not found").message == (
        "The model `m` does not exist or you do not have access to it. model 'm' not found"
    )


def test_the_status_of_a_remote_model_stands_before_its_text() -> None:
    assert of(410, "moved", StatusCode=410, Status="410 Gone").message == "410 Gone: moved"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"message": "m", "type": "t"}, "m"),
        (json.dumps({"error": json.dumps({"error": {"message": "deep"}})}), "deep"),
        ("{not json", "{not json"),
        ('{"other": 1}', '{"other": 1}'),
        ([1], "The backend failed and did not say why."),
        ("x" * 501, "x" * 500),
    ],
)
def test_f33_f34_the_innermost_text_is_shown(error: Any, text: str) -> None:
    assert of(500, error).message == text
    assert from_line(error).message == text


def test_an_error_in_openai_s_shape_is_read_too() -> None:
    assert from_status(400, b'{"message":"m","code":"c"}').message == "m"


def test_overflow_with_and_without_counts() -> None:
    inner = {"type": "exceed_context_size_error", "message": "request exceeds the available context size"}
    counted = of(400, json.dumps({"error": {**inner, "n_prompt_tokens": 9, "n_ctx": 5}}))
    assert counted.message == (
        "This model's maximum context length is 5 tokens. However, your messages resulted in 9 tokens. "
        "Please reduce the length of the messages."
    )
    assert "maximum context length" in of(400, json.dumps({"error": inner})).message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, (400, "upstream_refused")),
        (408, (502, "upstream_error")),
        (413, (413, "request_too_large")),
        (415, (415, "upstream_refused")),
        (431, (431, "upstream_refused")),
        (499, (502, "upstream_error")),
        (404, (502, "backend_not_ollama")),
        (405, (502, "backend_not_ollama")),
        (429, (429, "rate_limit_exceeded")),
        (500, (502, "upstream_error")),
        (502, (502, "upstream_error")),
        (503, (503, "overloaded")),
        (504, (504, "upstream_timeout")),
    ],
)
@pytest.mark.parametrize("body", [b"<html>secret</html>" + b"x" * 1000, b"", b"secret", b"[1]", b'{"secret":1}'])
def test_f15_what_is_no_native_error_is_not_shown(
    status: int, body: bytes, expected: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    error = from_status(status, body, "m")
    assert (error.status, error.code) == expected
    assert "secret" not in error.message
    assert caplog.records
    assert all(len(message) < 300 for message in caplog.messages)


def test_a_200_that_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    assert unreadable(b"<html>").message == "The backend sent an answer that could not be understood."
    assert unreadable(b'{"error":"said"}').message == "said"
    assert caplog.records


def test_f33_a_text_is_cut_last() -> None:
    assert len(of(410, "x", Status="S" * 2000).message) == 500
    assert len(from_status(404, b'{"error":"not found"}', "m" * 2000).message) < 1000


def test_a_404_without_an_error_is_no_ollama_s() -> None:
    error = from_status(404, b'{"message":"The requested URL was not found on the server."}', "m")
    assert (error.status, error.code) == (502, "backend_not_ollama")


@pytest.mark.parametrize(("status", "retry"), [(500, False), (502, None), (521, None)])
def test_only_a_failure_of_the_server_itself_is_not_worth_repeating(status: int, retry: bool | None) -> None:
    assert from_status(status, b"<html>").retry is retry


OVERFLOW = [
    b'{"error":"the input length exceeds the context length"}',
    b'{"error":"the prompt is longer than the context length"}',
    b'{"error":{"message":"request exceeds the available context size","n_prompt_tokens":9,"n_ctx":5}}',
]


@pytest.mark.parametrize("body", OVERFLOW)
@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("operation", "param"),
    [
        ("POST /api/chat", "messages"),
        ("POST /api/generate", "prompt"),
        ("POST /api/embed", "input"),
        ("", "messages"),
    ],
)
def test_overflow_names_the_field_that_holds_the_prompt(status: int, body: bytes, operation: str, param: str) -> None:
    error = from_status(status, body, "m", operation=operation)
    assert shown(error) == (400, INVALID, param, "context_length_exceeded")


@pytest.mark.parametrize("text", ["this model is missing multimodal support", "invalid image input"])
@pytest.mark.parametrize(
    ("operation", "param"),
    [("POST /api/chat", "messages"), ("POST /api/generate", "prompt"), ("POST /api/embed", "input")],
)
def test_so_does_an_image_at_fault(text: str, operation: str, param: str) -> None:
    assert from_status(400, json.dumps({"error": text}).encode(), "m", operation=operation).param == param


@pytest.mark.parametrize("operation", ["POST /api/chat", "POST /api/generate", "POST /api/embed"])
@pytest.mark.parametrize(
    ("text", "param"),
    [("m does not support chat", "model"), ("m does not support insert", "suffix"), ("anything", None)],
)
def test_another_field_at_fault_is_the_same_for_each(operation: str, text: str, param: str | None) -> None:
    assert from_status(400, json.dumps({"error": text}).encode(), "m", operation=operation).param == param


@pytest.mark.parametrize(("levels", "text"), [(5, "deep"), (6, "The backend failed and did not say why.")])
def test_f34_a_failure_is_looked_for_in_five_levels(levels: int, text: str) -> None:
    error: Any = "deep"
    for _ in range(levels - 1):
        error = {"error": error}
    assert of(500, error).message == text


# -- output that cannot be parsed -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        # as Ollama's parsers say it: ollama model/parsers, harmony (at fb3076099)
        "EOF",
        "invalid format",
        "expected 'call:' prefix",
        "expected '{' in tool call",
        "repair failed to produce valid JSON arguments",
        "empty Glimmer function name",
        'undeclared Glimmer function "f"',
        "parse Glimmer call to f: malformed ATEM parameter",
        'Glimmer recipient "f" does not match ATEM invoke "g"',
        "missing ATEM function_calls wrapper",
        'unterminated ATEM parameter "a"',
        'incomplete GLM tool call: tool "{\\"name\\": \\"make_image\\"}" is not declared',
        "empty function name",
        "mismatched arg_key and arg_value counts: 2 keys, 1 values",
        'required argument "city" is missing for tool "weather"',
        "failed to parse XML: XML syntax error on line 1: unexpected EOF",
        "failed to parse Laguna JSON tool call: invalid character ']' after top-level value",
        "empty Laguna tool call name",
        "invalid tool call: no opening parenthesis",
        "no tool calls found",
        "invalid argument: expected '='",
        "unterminated string",
        "tool 'get_weather[CALL_ID]abcdefghi' not found",
        'failed to parse function call "make_image(template=\\"x\\")": invalid function call format',
        "invalid function call format",
        "invalid object entry: a",
        "failed to parse JSON: invalid character 'g' looking for beginning of value",
        "invalid character '}' looking for beginning of value",
        "error parsing tool call: raw='{\"template\": 1}<|call|>', err=invalid character '<' after top-level value",
    ],
)
def test_output_that_ollama_cannot_parse(text: str) -> None:
    for error in (of(500, text), from_line(text)):
        assert isinstance(error, UnparsableOutput)
        assert (error.status, error.text, error.retry) == (502, text, None)


def test_a_quote_that_is_cut_is_no_part_of_the_request() -> None:
    for around in ("error parsing tool call: raw='{}'", 'failed to parse function call "{}"'):
        text = around.replace("{}", "template " * 100)
        error = of(500, text)
        assert isinstance(error, UnparsableOutput)
        assert (len(error.message), error.text) == (500, text)


@pytest.mark.parametrize(
    "text",
    [
        "failed to parse grammar",
        "failed to parse JSON schema",
        "unable to parse image",
        "error parsing template",
        'Post "http://127.0.0.1:4/completion": EOF',
        "model runner has unexpectedly stopped",
        "CUDA error: out of memory",
        "unexpected EOF",
        "mmap failed: invalid argument",
    ],
)
def test_other_failures(text: str) -> None:
    assert not isinstance(of(500, text), UnparsableOutput)
