"""Chat completions: the answer and the chunks (the request: ``test_chat_request.py``)."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from openai_compat.testing.demo import encode
from tests.contract import check, check_stream, frames, merged, whole
from tests.endpoints.requests import MESSAGES, TOOLS, answered, ignored, post, streamed

# -- thinking requested of a model that does not support it ----------------------------------

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
    fake.script("/api/chat", b'{"error":"does not support chat"}', status="400 Bad Request")
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


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("both", {"reasoning", "reasoning_content"}),
        ("reasoning", {"reasoning"}),
        ("reasoning_content", {"reasoning_content"}),
        ("none", set()),
    ],
)
def test_reasoning_is_in_the_fields_of_the_setting(field: str, names: set[str]) -> None:
    steps = [say(thinking="Let me"), say(thinking=" see"), say("x"), done()]
    spelt = {"reasoning", "reasoning_content"}
    message = answered(*steps, settings={"reasoning_field": field})["choices"][0]["message"]
    assert {name: message[name] for name in spelt & message.keys()} == dict.fromkeys(names, "Let me see")
    assert message["content"] == "x"
    found = deltas(streamed(*steps, settings={"reasoning_field": field}))
    for name in spelt:
        texts = [delta[name] for delta in found if name in delta]
        assert texts == (["Let me", " see"] if name in names else [])
    assert [delta["content"] for delta in found if delta.get("content")] == ["x"]


def test_a_request_can_leave_reasoning_out_of_its_response() -> None:
    steps = [say(thinking="Let me see"), say("x"), done()]
    message = answered(*steps, reasoning={"exclude": True})["choices"][0]["message"]
    assert not {"reasoning", "reasoning_content"} & message.keys()
    found = deltas(streamed(*steps, reasoning={"exclude": True}))
    assert not [delta for delta in found if {"reasoning", "reasoning_content"} & delta.keys()]


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
    chunks = streamed(say("b", thinking="a"), done(), settings={"reasoning_field": "reasoning"})
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
    calls = []

    def native(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        yield encode(say("first")) + b"\n" + encode(say("")) + b"\n"
        calls.append(True)
        yield encode(done()) + b"\n"

    client = Client(OpenAICompat(native))
    body = {"model": "demo", "messages": MESSAGES, "stream": True}
    with client.post("/v1/chat/completions", json=body) as response:
        items = response.iter_encoded()
        assert b"first" in next(items)
        assert calls == []
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
