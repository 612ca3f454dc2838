"""Responses: what the model says becomes items and events, the same whether streamed or not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_events, named_frames, said
from tests.endpoints.requests import RESPONSES, token

CALL = {"function": {"name": "f", "arguments": {"city": "Oslo"}}}
OTHER = {"id": "call_mine", "function": {"name": "g", "arguments": {}}}
TOOLS = [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]
CUSTOM = {"function": {"name": "c", "arguments": {"input": "ls -l"}}}
F = ("function_call", None, "f", '{"city":"Oslo"}', "completed")
G = ("function_call", None, "g", "{}", "completed")
C = ("custom_tool_call", None, "c", "ls -l", "completed")
CUTS = [None, 0, pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(4096, marks=pytest.mark.slow)]


def text(content: str, *tokens: str, status: str = "completed") -> tuple[Any, ...]:
    return ("text", content, list(tokens), status)


def thinking(content: str, status: str = "completed") -> tuple[Any, ...]:
    return ("thinking", content, status)


def last_line(content: str = "", reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A final line that also says something, as older servers send it."""
    return {**done(reason), "message": {"role": "assistant", "content": content, **message}}


# -- items ------------------------------------------------------------------------------------

#: native lines → the items of the response
#: what says nothing is not generated once more
AS_IT_IS = {"emulate_tools": False}

TURNS: dict[str, tuple[list[Any], list[tuple[Any, ...]]]] = {
    "text": ([say("a"), say("b"), done()], [text("ab")]),
    "thinking, then text": ([say(thinking="t"), say(thinking="u"), say("a"), done()], [thinking("tu"), text("a")]),
    "thinking and text in one line": ([say("a", thinking="t"), done()], [thinking("t"), text("a")]),
    "thinking only": ([say(thinking="t"), done()], [thinking("t"), text("")]),
    "a call": ([say(tool_calls=[CALL]), done()], [F]),
    "two calls in one line": ([say(tool_calls=[CALL, OTHER]), done()], [F, G]),
    "two calls in two lines": ([say(tool_calls=[CALL]), say(tool_calls=[OTHER]), done()], [F, G]),
    "two equal calls": ([say(tool_calls=[OTHER, OTHER]), done()], [G, G]),
    "a custom call": ([say(tool_calls=[CUSTOM]), done()], [C]),
    "text, then a call": ([say("a"), say(tool_calls=[CALL]), done()], [text("a"), F]),
    "text and a call in one line": ([say("a", tool_calls=[CALL]), done()], [text("a"), F]),
    "text after a call": ([say(tool_calls=[CALL]), say("a"), say("b"), done()], [F, text("ab")]),
    "text before and after a call": ([say("a"), say(tool_calls=[CALL]), say("b"), done()], [text("a"), F, text("b")]),
    "text between calls": (
        [say(tool_calls=[CALL]), say("a"), say(tool_calls=[CUSTOM]), say(tool_calls=[OTHER]), done()],
        [F, text("a"), C, G],
    ),
    "thinking after text": (
        [say("a"), say(thinking="t"), say("b"), done()],
        [text("a"), thinking("t"), text("b")],
    ),
    "thinking after a call": (
        [say(thinking="t"), say(tool_calls=[CALL]), say(thinking="u"), say("a"), done()],
        [thinking("t"), F, thinking("u"), text("a")],
    ),
    "thinking at the end": ([say("a"), say(thinking="t"), done()], [text("a"), thinking("t")]),
    "a call at the end of thinking": ([say(thinking="t"), say(tool_calls=[CALL]), done()], [thinking("t"), F]),
    "everything in one line": ([say("a", thinking="t", tool_calls=[CALL]), done()], [thinking("t"), text("a"), F]),
    "nothing": ([done()], [text("")]),
    "empty lines": ([say(""), say(thinking=""), say("", tool_calls=[]), done()], [text("")]),
    "text on the last line": ([last_line("a")], [text("a")]),
    "text on the last line too": ([say("a"), last_line("b")], [text("ab")]),
    "a call on the last line": ([say("a"), last_line(tool_calls=[CALL])], [text("a"), F]),
    "thinking on the last line": ([last_line("a", thinking="t")], [thinking("t"), text("a")]),
    "no reason": ([say("a"), done("")], [text("a")]),
    "another reason": ([say("a"), done("unload")], [text("a")]),
    "characters beyond ASCII": ([say("\u00e9\u2028"), say("\U0001f99c"), done()], [text("\u00e9\u2028\U0001f99c")]),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_items_stand_in_the_order_in_which_the_model_made_them(name: str) -> None:
    steps, items = TURNS[name]
    response = RESPONSES.answered(*steps, settings=AS_IT_IS, tools=TOOLS)
    assert said(response) == items
    assert (response["status"], response["completed_at"]) == ("completed", response["created_at"])
    assert response["usage"] == {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", TURNS)
def test_a_stream_is_the_same_in_any_cut(name: str, cut: int | None) -> None:
    steps, items = TURNS[name]
    events = RESPONSES.events(*steps, settings=AS_IT_IS, cut=cut, tools=TOOLS)
    assert said(events[-1]["response"]) == items


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("steps", "items"),
    [
        pytest.param([say("a"), done("length")], [text("a", status="incomplete")], id="in text"),
        pytest.param([say(thinking="t"), done("length")], [thinking("t", "incomplete")], id="in thinking"),
        pytest.param([say("a", thinking="t"), done("length")], [thinking("t"), text("a", status="incomplete")], id="t"),
        pytest.param([say(tool_calls=[CALL]), done("length")], [F], id="after a call"),
        pytest.param(
            [say(tool_calls=[CALL]), say("a"), done("length")], [F, text("a", status="incomplete")], id="text after"
        ),
        pytest.param([done("length")], [], id="at once"),
        pytest.param([last_line("a", "length")], [text("a", status="incomplete")], id="on the last line"),
    ],
)
def test_a_cut_answer_is_incomplete(steps: list[Any], items: list[Any], cut: int | None) -> None:
    events = RESPONSES.events(*steps, cut=cut, tools=TOOLS)
    assert events[-1]["type"] == "response.incomplete"
    assert said(events[-1]["response"]) == items
    response = RESPONSES.answered(*steps, tools=TOOLS)
    assert said(response) == items
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    ("written", "item"),
    [
        ('{"name":"f","parameters":{"a":"x', ("function_call", None, "f", '{"a":"x', "incomplete")),
        ('{"name":"f","parameters":{', ("function_call", None, "f", "{", "incomplete")),
        ('{"name":"c","parameters":{"input":"ls', ("custom_tool_call", None, "c", "ls", "incomplete")),
        ('{"name":"c","parameters":{"input":"a\\', ("custom_tool_call", None, "c", "a", "incomplete")),
        ('{"name":"c","parameters":{"input":"a\\nb\\u00', ("custom_tool_call", None, "c", "a\nb", "incomplete")),
        ('{"name":"c","parameters":{"input":"', ("custom_tool_call", None, "c", "", "incomplete")),
        ('{"name":"c","parameters":{"inp', ("custom_tool_call", None, "c", "", "incomplete")),
        ('{"name":"c","parameters":{"x":"inp', ("custom_tool_call", None, "c", '{"x":"inp', "incomplete")),
        ('{"na', None),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_forced_call_that_is_cut_keeps_what_was_written(
    written: str, item: tuple[Any, ...] | None, size: int
) -> None:
    steps = [say(written[i : i + size]) for i in range(0, len(written), size)]
    response = RESPONSES.answered(*steps, done("length"), tools=TOOLS, tool_choice="required")
    assert said(response) == ([item] if item else [])
    assert response["status"] == "incomplete"


def test_ids_are_of_their_kind_and_the_model_s_call_id_is_kept() -> None:
    steps = [say(thinking="t"), say("a"), say(tool_calls=[OTHER, OTHER, CUSTOM]), done()]
    items = RESPONSES.answered(*steps, tools=TOOLS)["output"]
    assert [item["id"].split("_")[0] for item in items] == ["rs", "msg", "fc", "fc", "ctc"]
    first, second, third = [item["call_id"] for item in items[2:]]
    assert first == "call_mine"
    assert second.startswith("call_")
    assert third.startswith("call_")
    assert len({item["id"] for item in items}) == 5


def test_thinking_is_a_summary_and_encoded() -> None:
    [item, _] = RESPONSES.answered(say("a", thinking="t"), done())["output"]
    assert item["summary"] == [{"type": "summary_text", "text": "t"}]
    assert item["encrypted_content"] == "openai-compat.1.r.dA=="


def test_the_events_of_a_text() -> None:
    events = RESPONSES.events(say("a"), say("b"), done())
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_arguments_are_streamed_as_they_come() -> None:
    written = '{"name": "f", "parameters": {"city": "Oslo"}}'
    steps = [say(written[i : i + 3]) for i in range(0, len(written), 3)]
    events = RESPONSES.events(*steps, done(), tools=TOOLS, tool_choice={"type": "function", "name": "f"})
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert len(deltas) > 4
    assert "".join(deltas) == '{"city": "Oslo"}'


def test_the_call_that_parallel_tool_calls_drops() -> None:
    response = RESPONSES.answered(say(tool_calls=[CALL, OTHER]), done(), tools=TOOLS, parallel_tool_calls=False)
    assert said(response) == [F]
    assert response["parallel_tool_calls"] is False


def test_usage_counts_cached_tokens() -> None:
    response = RESPONSES.answered(say("a"), {**done(prompt=7, made=2), "prompt_eval_cached_count": 5})
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 5
    assert response["usage"]["total_tokens"] == 9


# -- log-probabilities ------------------------------------------------------------------------

INCLUDED = {"include": ["message.output_text.logprobs"]}


@pytest.mark.parametrize(
    ("fields", "native"),
    [
        pytest.param(INCLUDED, {"logprobs": True}, id="include"),
        pytest.param({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, id="top_logprobs"),
        pytest.param({**INCLUDED, "top_logprobs": 0}, {"logprobs": True}, id="none on top"),
        pytest.param({"top_logprobs": 0}, {}, id="0"),
        pytest.param({"include": []}, {}, id="no include"),
    ],
)
def test_logprobs_are_asked_for(fields: dict[str, Any], native: dict[str, Any]) -> None:
    sent = RESPONSES.sent(**fields)
    assert {key: sent[key] for key in ("logprobs", "top_logprobs") if key in sent} == native
    assert RESPONSES.answered(done(), **fields)["top_logprobs"] == (fields.get("top_logprobs") or 0)


def test_logprobs_belong_to_the_text() -> None:
    lines = [
        {**say("a"), "logprobs": [token("a", -0.5, top_logprobs=[token("b", -1.5)])]},
        {**say(tool_calls=[CALL]), "logprobs": []},
        {**say("bc"), "logprobs": [token("b"), token("c", data=[99])]},
    ]
    response = RESPONSES.answered(*lines, done(), tools=TOOLS, **INCLUDED)
    assert said(response) == [text("a", "a"), F, text("bc", "b", "c")]
    [entry] = response["output"][0]["content"][0]["logprobs"]
    top = {"token": "b", "logprob": -1.5, "bytes": [98]}
    assert entry == {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [top]}


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("steps", "items"),
    [
        pytest.param([say("a"), {"error": "out of memory"}], [], id="in text"),
        pytest.param([say(thinking="t"), say("a"), {"error": "out of memory"}], [thinking("t")], id="after thinking"),
        pytest.param([say(tool_calls=[CALL]), {"error": "out of memory"}], [F], id="after a call"),
        pytest.param([say("a"), say(thinking="t"), {"error": "out of memory"}], [text("a")], id="in thinking"),
    ],
)
def test_a_failure_in_the_stream_is_told(steps: list[Any], items: list[Any], cut: int | None) -> None:
    events = RESPONSES.events(*steps, cut=cut, tools=TOOLS)
    error, failed = events[-2:]
    assert (error["type"], error["message"], error["param"]) == ("error", "out of memory", None)
    assert error["error"] == {
        "message": "out of memory",
        "type": "server_error",
        "param": None,
        "code": error["code"],
    }
    assert failed["response"]["error"] == {"code": "server_error", "message": "out of memory"}
    assert said(failed["response"]) == items


def test_a_stream_that_breaks_off_has_failed() -> None:
    events = RESPONSES.events(say("a"))
    assert (events[-2]["code"], events[-1]["type"]) == ("upstream_error", "response.failed")


def test_a_forced_call_that_is_none_has_failed() -> None:
    steps = [say("It rains."), done()]
    events = RESPONSES.events(*steps, tools=TOOLS, tool_choice="required")
    assert (events[-2]["code"], said(events[-1]["response"])) == ("tool_choice_failed", [])
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = RESPONSES.post(fake, tools=TOOLS, tool_choice="required")
    assert (response.status_code, response.get_json()["error"]["code"]) == (502, "tool_choice_failed")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        ("404 X", "model 'demo' not found", 404),
        ("400 X", "invalid think value", 400),
        ("500 X", "no memory", 502),
        ("503 X", "server busy", 503),
    ],
)
def test_an_error_before_the_first_event_is_a_status(status: str, text: str, expected: int, stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status=status)
    response = RESPONSES.post(fake, stream=stream)
    assert response.status_code == expected
    check("ErrorResponse", response.get_json())
    assert text in response.get_json()["error"]["message"]
    response.close()
    assert fake.opened == fake.closed


OVERFLOW = {
    "error": {
        "code": 400,
        "message": "request (7208 tokens) exceeds the available context size (512 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 7208,
        "n_ctx": 512,
    }
}


@pytest.mark.parametrize("native", [{"error": json.dumps(OVERFLOW)}, OVERFLOW], ids=["text", "object"])
def test_a_prompt_that_is_too_long_fails_in_the_stream(native: Any) -> None:
    def ask(**fields: Any) -> Any:
        fake = FakeOllama()
        fake.script("/api/chat", native, status="400 X")
        return RESPONSES.post(fake, **fields)

    response = ask()
    assert response.status_code == 400
    assert response.get_json()["error"]["code"] == "context_length_exceeded"
    streamed = ask(stream=True)
    assert streamed.status_code == 200
    events = check_events(streamed.data)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert events[2]["code"] == "context_length_exceeded"
    assert events[3]["response"]["error"]["code"] == "context_length_exceeded"
    assert "7208 tokens" in events[3]["response"]["error"]["message"]


def test_a_prompt_that_turns_out_too_long_is_the_input_in_the_stream_too() -> None:
    steps = [say("a"), {"error": "the input length exceeds the context length"}]
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    whole = RESPONSES.post(fake)
    assert (whole.status_code, whole.get_json()["error"]["param"]) == (400, "input")
    error = RESPONSES.events(*steps)[-2]
    assert (error["param"], error["error"]["param"]) == ("input", "input")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("this model does not take image input", "input"),
        ("invalid JSON schema in format", "text.format"),
        ("invalid duration", "keep_alive"),
    ],
)
def test_a_native_error_names_the_field_of_a_response(text: str, param: str, stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status="400 X")
    assert RESPONSES.post(fake, stream=stream).get_json()["error"]["param"] == param


def test_an_answer_that_is_too_long_has_failed() -> None:
    steps = [say("x" * 1000)] * 100
    events = RESPONSES.events(*steps, done(), settings={"max_answer": 50_000})
    assert events[-1]["type"] == "response.failed"
    fake = FakeOllama()
    fake.script("/api/chat", *steps, done())
    assert RESPONSES.post(fake, {"max_answer": 50_000}).status_code == 502


def test_a_client_that_leaves_ends_the_native_call() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *[say("a")] * 100, done())
    response = RESPONSES.post(fake, stream=True)
    first = next(iter(response.response))
    assert list(named_frames(first))[0]["type"] == "response.created"
    response.close()
    assert fake.opened == fake.closed == 1


# -- the response -----------------------------------------------------------------------------


def test_every_field_has_the_request_s_value() -> None:
    fields = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "me",
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": "auto",
        "tools": [
            {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
        ],
        "top_logprobs": 1,
        "top_p": 0.25,
        "truncation": "auto",
    }
    response = RESPONSES.answered(say("{}"), done(), **fields)
    assert {key: response[key] for key in fields} == fields
    assert (response["object"], response["model"], response["service_tier"]) == ("response", "demo", "default")
    assert (response["store"], response["background"], response["previous_response_id"]) == (False, False, None)


def test_the_fields_of_a_request_that_gives_none() -> None:
    response = RESPONSES.answered(say("a"), done())
    assert response["id"].startswith("resp_")
    del response["id"], response["output"], response["usage"]
    assert response == {
        "object": "response",
        "created_at": 1767225600,
        "completed_at": 1767225600,
        "status": "completed",
        "background": False,
        "conversation": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "demo",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "truncation": "disabled",
        "metadata": {},
    }


@pytest.mark.parametrize("stream", [False, True])
def test_an_alias_is_the_client_s_name_in_the_response(stream: bool) -> None:
    fake = FakeOllama()
    response = RESPONSES.post(fake, {"aliases": {"gpt-*": "demo"}}, model="gpt-6", stream=stream)
    assert fake.requests[0].json["model"] == "demo"
    found = check_events(response.data)[-1]["response"] if stream else response.get_json()
    assert found["model"] == "gpt-6"


def test_no_thinking_is_asked_again_where_the_model_cannot() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": '"demo" does not support thinking'}, status="400 X")
    fake.script("/api/chat", say("a"), done())
    response = RESPONSES.post(fake, reasoning={"effort": "low"})
    assert response.status_code == 200
    assert response.headers["openai-compat-ignored"] == "reasoning.effort"


def test_a_get_is_not_this_endpoint() -> None:
    assert Client(OpenAICompat(FakeOllama())).get("/v1/responses").status_code in (404, 405, 426)
