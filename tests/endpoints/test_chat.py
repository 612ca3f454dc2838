"""Chat completions: the request, the answer, the chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat, Sampling
from openai_compat.demo import encode
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream, frames, merged, whole

MESSAGES = [{"role": "user", "content": "Hello"}]


def post(fake: FakeOllama, settings: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
    body = {"model": "demo", "messages": MESSAGES, **fields}
    return Client(OpenAICompat(fake, **(settings or {}))).post("/v1/chat/completions", json=body)


def sent(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The native request."""
    fake = FakeOllama()
    fake.script("/api/chat", done())
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return fake.requests[0].json  # type: ignore[no-any-return]


def refused(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 400, response.data
    assert fake.requests == []
    check("ErrorResponse", response.get_json())
    return response.get_json()["error"]  # type: ignore[no-any-return]


def answered(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    check("CreateChatCompletionResponse", response.get_json())
    return response.get_json()  # type: ignore[no-any-return]


def streamed(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, stream=True, **fields)
    assert response.status_code == 200, response.data
    return check_stream(response.data)


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
def test_max_tokens(fields: dict[str, Any], expected: int | None) -> None:
    assert sent(**fields)["options"].get("num_predict") == expected


SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
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
def test_format(fields: dict[str, Any], expected: Any) -> None:
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
def test_logprobs(fields: dict[str, Any], expected: tuple[Any, Any]) -> None:
    found = sent(**fields)
    assert (found.get("logprobs"), found.get("top_logprobs")) == expected


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


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
    ],
)
def test_tools(fields: dict[str, Any], has_tools: bool) -> None:
    found = sent(**fields)
    assert ("tools" in found) is has_tools
    if has_tools:
        assert found["tools"] == TOOLS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"reasoning_effort": "high"}, "high"), ({"reasoning_effort": "none"}, False), ({"think": True}, True)],
)
def test_think(fields: dict[str, Any], expected: Any) -> None:
    assert sent(**fields)["think"] == expected


def test_ollama_s_own_extras() -> None:
    found = sent(keep_alive="1h", num_ctx=4096, top_k=3, shift=True, truncate=True, options={"num_gpu": 1})
    assert (found["keep_alive"], found["shift"], found["truncate"]) == ("1h", True, True)
    assert {"num_ctx": 4096, "top_k": 3, "num_gpu": 1}.items() <= found["options"].items()


def test_policies_of_the_settings_reach_the_request() -> None:
    assert sent({"sampling": Sampling.model()})["options"] == {}
    first = sent({"sampling": Sampling.v0_1_24()}, temperature=0.5)
    assert (first["options"]["temperature"], "truncate" in first) == (1.0, False)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": 1}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": {}}, "messages", "invalid_type"),
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
        ({"stop": ["x"] * 10**5}, "stop", "array_above_max_length"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "integer_below_min_value"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": -1}, "n", "integer_below_min_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": 10**9}, "n", "unsupported_parameter"),
        ({"tool_choice": "required", "tools": TOOLS}, "tool_choice", "unsupported_parameter"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": TOOLS},
            "tool_choice",
            "unsupported_parameter",
        ),
        ({"parallel_tool_calls": False, "tools": TOOLS}, "parallel_tool_calls", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": TOOLS * 129}, "tools", "array_above_max_length"),
        ({"messages": MESSAGES * 10_001}, "messages", "array_above_max_length"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value"),
        ({"keep_alive": True}, "keep_alive", "invalid_type"),
        ({"options": []}, "options", "invalid_type"),
        ({"num_ctx": 0}, "num_ctx", "integer_below_min_value"),
    ],
)
def test_f59_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error["param"], error["code"]) == (param, code)


def test_f60_limits_are_settings() -> None:
    assert refused({"max_messages": 1}, messages=MESSAGES * 2)["param"] == "messages"


# -- what has no effect -----------------------------------------------------------------------


def ignored(settings: dict[str, Any] | None = None, **fields: Any) -> set[str]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))


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
        ({"Label": "", "foo": {"a": 1}}, {"Label", "foo"}),
        ({"prediction": {"type": "content", "content": "x"}}, {"prediction"}),
        ({"audio": {"voice": "x", "format": "wav"}, "modalities": ["text", "audio"]}, {"audio", "modalities"}),
        ({"web_search_options": {}}, {"web_search_options"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"strict": True, "schema": SCHEMA}}},
            {"response_format.json_schema.strict"},
        ),
        *[
            ({name: "x"}, {name})
            for name in (
                "user",
                "store",
                "safety_identifier",
                "prompt_cache_key",
                "verbosity",
                "moderation",
                "metadata",
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
        {"prediction": {}},
        {"audio": {}},
        {"web_search_options": {}},
        {"modalities": ["audio"]},
    ],
)
def test_what_ollama_can_never_honour_is_refused_by_the_other_policy(fields: dict[str, Any]) -> None:
    [name] = fields
    assert refused({"unsupported": "error"}, **fields)["param"] == name


def test_the_policy_is_not_about_what_has_no_meaning_for_the_answer() -> None:
    assert ignored({"unsupported": "error"}, user="u", foo=1) == {"user", "foo"}


# -- thinking asked of a model that has none --------------------------------------------------

CANNOT = b'{"error":"\\"demo\\" does not support thinking"}'


def test_a_model_that_cannot_think_is_asked_again_without_and_remembered() -> None:
    fake = FakeOllama()
    app = OpenAICompat(fake)
    for _ in range(2):
        body = {"model": "demo", "messages": MESSAGES, "think": "high"}
        response = Client(app).post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        assert response.headers["openai-compat-ignored"] == "think"
    assert [request.json.get("think") for request in fake.requests] == ["high", None, None]
    assert fake.opened == fake.closed == 3


def test_thinking_that_cannot_be_had_is_refused_by_the_other_policy() -> None:
    response = post(FakeOllama(), {"unsupported": "error"}, reasoning_effort="high")
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == "reasoning_effort"


def test_another_400_is_not_asked_again() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", b'{"error":"invalid model name"}', status="400 Bad Request")
    assert post(fake, reasoning_effort="high").status_code == 400
    assert len(fake.requests) == 1


# -- the answer -------------------------------------------------------------------------------


def test_an_answer_has_every_field() -> None:
    found = answered(say("Hel"), say("lo"), done(prompt=3, made=2, prompt_eval_cached_count=1))
    assert found.pop("id").startswith("chatcmpl-")
    assert found == {
        "object": "chat.completion",
        "created": 1767225600,
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_ollama",
    }


CALL = {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
OTHER = {"function": {"index": 0, "name": "g", "arguments": {}}}


@pytest.mark.parametrize(("text", "content"), [("", None), ("so:", "so:")])
def test_tool_calls_and_content(text: str, content: str | None) -> None:
    found = answered(say(text, tool_calls=[CALL, OTHER]), done(), tools=TOOLS)["choices"][0]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] == content
    first, second = found["message"]["tool_calls"]
    assert first == {"id": "call_1", "function": {"name": "f", "arguments": '{"a":1}'}, "type": "function"}
    assert second["id"].startswith("call_")
    assert len(second["id"]) == 37


def test_calls_on_the_done_line_are_calls() -> None:
    found = answered({**done(), "message": {"role": "assistant", "content": "", "tool_calls": [CALL]}})
    assert found["choices"][0]["finish_reason"] == "tool_calls"


def test_without_calls_there_is_no_such_key() -> None:
    assert "tool_calls" not in answered(say("x"), done())["choices"][0]["message"]


@pytest.mark.parametrize("both", [True, False])
def test_reasoning_is_spelt_twice_unless_a_setting_says_otherwise(both: bool) -> None:
    steps = [say(thinking="Let me"), say(thinking=" see"), say("x"), done()]
    message = answered(*steps, settings={"reasoning_content": both})["choices"][0]["message"]
    assert message["reasoning"] == "Let me see"
    assert message.get("reasoning_content") == ("Let me see" if both else None)
    chunks = streamed(*steps, settings={"reasoning_content": both})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("reasoning_content") for delta in deltas if "reasoning" in delta] == (
        ["Let me", " see"] if both else [None, None]
    )


def test_length_beats_tool_calls() -> None:
    assert answered(say(tool_calls=[CALL]), done("length"))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_0_gives_no_text_and_counts_the_prompt(stream: bool) -> None:
    fields = {"max_tokens": 0, "stream_options": {"include_usage": True}}
    steps = [say("x", thinking="y"), done("length", prompt=42, made=1)]
    found = merged(streamed(*steps, **fields)) if stream else whole(answered(*steps, **fields))
    assert (found["content"], found["reasoning"], found["finish_reason"]) == ("", "", "length")
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (42, 0)


def test_f36_absurd_counters_are_0_and_the_json_is_sound() -> None:
    line = b'{"message":{"content":"x"},"done":true,"eval_count":1e400,"prompt_eval_count":' + b"9" * 400 + b"}\n"
    assert answered(line)["usage"]["total_tokens"] == 0


def test_f40_a_collected_answer_is_bounded() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *[say("x" * 100)] * 50, done())
    response = post(fake, {"max_answer": 2000})
    assert response.status_code == 502
    assert fake.closed == 1


def test_a_failure_after_tokens_is_not_worth_repeating() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"))
    response = post(fake)
    assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")


# -- chunks -----------------------------------------------------------------------------------


def deltas(chunks: list[dict[str, Any]]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_a_stream_of_text() -> None:
    chunks = streamed(say("Hel"), say("lo"), done())
    assert deltas(chunks) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


def test_usage_is_null_on_all_chunks_and_then_in_one_of_its_own() -> None:
    *chunks, last = streamed(say("x"), done(prompt=3, made=4), stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7


def test_thinking_and_content_of_one_line_are_two_chunks() -> None:
    chunks = streamed(say("b", thinking="a"), done(), settings={"reasoning_content": False})
    assert deltas(chunks)[1:3] == [{"reasoning": "a"}, {"content": "b"}]


def test_tool_calls_are_numbered_over_the_whole_stream() -> None:
    chunks = streamed(say(tool_calls=[CALL]), say(tool_calls=[OTHER, CALL]), done())
    assert deltas(chunks)[0] == {"role": "assistant", "content": None, "refusal": None}
    calls = [delta["tool_calls"] for delta in deltas(chunks)[1:-1]]
    assert [[call["index"] for call in each] for each in calls] == [[0], [1], [2]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_an_empty_answer_still_has_its_role() -> None:
    assert deltas(streamed(done())) == [{"role": "assistant", "content": "", "refusal": None}, {}]


def test_log_probabilities_without_text_are_not_lost() -> None:
    entry = {"token": "x", "logprob": -0.5}
    chunks = streamed(say("a"), {**done(), "logprobs": [entry]}, logprobs=True)
    assert deltas(chunks)[2] == {"content": ""}
    assert chunks[2]["choices"][0]["logprobs"]["content"][0]["token"] == "x"


TRICKY = "a\n\ndata: [DONE]\n\nevent: x\r\u2028\u2029\u0085\x00é🦜</b>&"


@pytest.mark.parametrize("cut", [None, 1, 7, 4096])
def test_f38_content_is_one_event_and_arrives_as_it_was(cut: int | None) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(TRICKY), done(), cut=cut)
    response = post(fake, stream=True)
    assert merged(check_stream(response.data))["content"] == TRICKY
    assert len(response.data.decode().splitlines()) == 8


def test_f38_a_lone_surrogate_from_the_model_becomes_a_replacement() -> None:
    line = b'{"message":{"content":"a\\ud800b"},"done":false}\n'
    assert merged(streamed(line, done()))["content"] == "a\ufffdb"


def test_f39_a_model_name_is_never_in_a_header() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"), done())
    name = "m\r\nX-Evil: 1"
    response = post(fake, model=name)
    assert response.get_json()["model"] == name
    assert "X-Evil" not in response.headers


def test_stream_and_answer_say_the_same() -> None:
    steps = [say(thinking="t"), say("a"), say("b", tool_calls=[CALL]), done("length", prompt=5, made=6)]
    fields = {"stream_options": {"include_usage": True}, "tools": TOOLS}
    assert merged(streamed(*steps, **fields)) == whole(answered(*steps, **fields))


def test_a_stream_that_fails_at_once_is_no_stream() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": "boom"})
    response = post(fake, stream=True)
    assert (response.status_code, response.content_type) == (502, "application/json")


def test_f37_arguments_that_are_no_object_end_the_stream_with_an_error() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"), say(tool_calls=[{"function": {"name": "f", "arguments": [1]}}]), done())
    *_, last = frames(post(fake, stream=True).data)
    assert last["error"]["code"] == "upstream_error"


def test_rule_3_text_does_not_wait_for_company_that_says_nothing() -> None:
    asked = []

    def native(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        yield encode(say("first")) + b"\n" + encode(say("")) + b"\n"
        asked.append(True)
        yield encode(done()) + b"\n"

    client = Client(OpenAICompat(native))
    body = {"model": "demo", "messages": MESSAGES, "stream": True}
    with client.post("/v1/chat/completions", json=body) as response:
        items = response.iter_encoded()
        assert b"first" in next(items)
        assert asked == []
        assert b"[DONE]" in b"".join(items)


@pytest.mark.parametrize(
    "steps",
    [
        [b'{"done":true}\n'],
        [b'{"response":"hi","done":false}\n', b'{"response":"","done":true}\n'],
        [{"message": {"role": "assistant", "content": ""}, "done": True}],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_end_without_output_reason_or_counts_is_no_answer(steps: list[Any], stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, stream=stream)
    if stream:
        assert b"answered nothing" in response.data
        assert b"[DONE]" not in response.data
    else:
        assert response.status_code == 502


def test_log_probabilities_of_thinking_are_not_told_when_all_comes_at_once() -> None:
    entries = [{"token": token, "logprob": -1.0} for token in ("hm", " ", "he", "llo")]
    found = answered({**done(), "message": {"content": "hello", "thinking": "hm "}, "logprobs": entries})
    assert [token for token, _ in whole(found)["logprobs"]] == ["he", "llo"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"thinking": {"type": "adaptive"}}, {"thinking.type"}),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, {"chat_template_kwargs.enable_thinking"}),
        ({"reasoning": {"effort": "none", "summary": "auto"}}, {"reasoning.summary"}),
        ({"messages": [{"role": "assistant", "name": "Ann", "content": "x"}]}, {"messages[].name"}),
        ({"foo": None}, set()),
    ],
)
def test_rule_1_of_nested_fields(fields: dict[str, Any], expected: set[str]) -> None:
    assert ignored(**fields) == expected


@pytest.mark.parametrize("name", ["num_ctx", "temperature", "unknown"])
def test_f55_a_number_of_4301_digits_is_a_400_wherever_it_stands(name: str) -> None:
    head = '{"model":"demo","messages":[{"role":"user","content":"x"}],"options":{"'
    text = head + name + '":' + "9" * 4301 + "}}"
    response = Client(OpenAICompat(FakeOllama())).post("/v1/chat/completions", data=text)
    assert response.status_code == 400


@pytest.mark.parametrize("arguments", [b'{"a":"\xff"}', b'"{\\"a\\":\\"\xff\\"}"'], ids=["an object", "a string"])
def test_f32_invalid_utf_8_in_arguments_is_replaced(arguments: bytes) -> None:
    line = b'{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":' + arguments + b"}}]},"
    found = whole(answered(line + b'"done":true,"done_reason":"stop"}\n'))
    assert found["tool_calls"] == [("f", {"a": "\ufffd"})]


def test_f32_broken_arguments_are_a_failure() -> None:
    fake = FakeOllama()
    fake.script(
        "/api/chat", b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{\xff}"}}]},"done":true}\n'
    )
    assert post(fake).status_code == 502


@pytest.mark.parametrize("status", [*range(200, 600, 7), 419, 499, 599])
@pytest.mark.parametrize("body", [b'{"error":"x"}', b"<html>"])
def test_every_native_status_is_an_answer_of_ours(status: int, body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", body, status=f"{status} X", content_type="text/plain")
    response = post(fake)
    assert response.status_code >= 400
    check("ErrorResponse", response.get_json())
    assert fake.closed == 1
