"""Choices that take two native calls, in chat and in the Responses API, streamed and whole: all say the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_events, check_response, check_stream

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"degrees": {"type": "integer"}},
    "required": ["degrees"],
    "additionalProperties": False,
}
ANSWER = '{"degrees": 5}'
NO_TOOLS = {"error": "registry.ollama.ai/library/plain:latest does not support tools"}
CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
UNPARSABLE = {"error": "error parsing tool call: raw='nothing to read', err: unexpected end of JSON input"}

#: a script: the lines of one native answer, or a native error
Script = Sequence[Any]


class Said(NamedTuple):
    """What an answer says, of any endpoint."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    reason: str


class Outcome(NamedTuple):
    said: Said
    #: the native requests
    sent: list[Any]
    ignored: set[str]
    usage: tuple[int, int]
    #: texts of a stream in their order; the text of a whole answer
    pieces: list[str]


def app_of(*scripts: Script, settings: dict[str, Any] | None = None) -> tuple[FakeOllama, OpenAICompat]:
    fake = FakeOllama()
    for script in scripts:
        if "error" in script[0]:
            status = "400 Bad Request" if script[0] is NO_TOOLS else "500 Internal Server Error"
            fake.script("/api/chat", *script, status=status, content_type="application/json")
        else:
            fake.script("/api/chat", *script)
    return fake, OpenAICompat(fake, **(settings or {}))


def of_chat(fake: FakeOllama, app: OpenAICompat, *, stream: bool, strict: bool = False, **fields: Any) -> Outcome:
    function = {"name": "weather", "parameters": PARAMETERS, **({"strict": True} if strict else {})}
    body = {"model": "demo", "messages": [{"role": "user", "content": "How cold is it?"}], **fields}
    if "tools" not in body:
        body["tools"] = [{"type": "function", "function": function}]
    if "schema" in body:
        schema = {"name": "weather", "schema": body.pop("schema"), "strict": body.pop("strict_schema", False)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    response = Client(app).post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.data
    data = response.data
    response.close()
    ignored = set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))
    sent = [request.json for request in fake.requests if request.path == "/api/chat"]
    if not stream:
        found = response.get_json()
        check("CreateChatCompletionResponse", found)
        [choice] = found["choices"]
        message = choice["message"]
        calls = [_call(call["function"]) for call in message.get("tool_calls", ())]
        said = Said(message["content"] or "", message.get("reasoning", ""), calls, choice["finish_reason"])
        usage = found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]
        return Outcome(said, sent, ignored, usage, [said.text])
    chunks = check_stream(data)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    functions: dict[int, dict[str, str]] = {}
    for part in [call for delta in deltas for call in delta.get("tool_calls", ())]:
        whole = functions.setdefault(part["index"], {"name": "", "arguments": ""})
        whole["name"] += part["function"].get("name", "")
        whole["arguments"] += part["function"]["arguments"]
    thinking = "".join(delta.get("reasoning", "") for delta in deltas)
    [reason] = {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]} - {None}
    usage = chunks[-1]["usage"]["prompt_tokens"], chunks[-1]["usage"]["completion_tokens"]
    said = Said("".join(pieces), thinking, [_call(functions[key]) for key in sorted(functions)], reason)
    return Outcome(said, sent, ignored, usage, pieces)


def _call(function: dict[str, str]) -> tuple[str, Any]:
    try:
        return function["name"], json.loads(function["arguments"])
    except ValueError:
        return function["name"], function["arguments"]


def of_responses(fake: FakeOllama, app: OpenAICompat, *, stream: bool, strict: bool = False, **fields: Any) -> Outcome:
    tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, **({"strict": True} if strict else {})}
    body = {"model": "demo", "input": "How cold is it?", **fields}
    if "tools" not in body:
        body["tools"] = [tool]
    if "schema" in body:
        schema = {"name": "weather", "schema": body.pop("schema"), "strict": body.pop("strict_schema", False)}
        body["text"] = {"format": {"type": "json_schema", **schema}}
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    if isinstance(choice := body.get("tool_choice"), dict):
        body["tool_choice"] = {"type": "function", "name": choice["function"]["name"]}
    response = Client(app).post("/v1/responses", json={**body, **({"stream": True} if stream else {})})
    assert response.status_code == 200, response.data
    data = response.data
    response.close()
    ignored = set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))
    sent = [request.json for request in fake.requests if request.path == "/api/chat"]
    pieces = []
    if stream:
        events = check_events(data)
        pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        found = events[-1]["response"]
    else:
        found = check_response(response.get_json())
    assert found["status"] != "failed", found["error"]
    items = found["output"]
    text = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
    thinking = "".join(part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"])
    calls = [_call(item) for item in items if item["type"] == "function_call"]
    reason = "length" if found["status"] == "incomplete" else "tool_calls" if calls else "stop"
    usage = found["usage"]["input_tokens"], found["usage"]["output_tokens"]
    return Outcome(Said(text, thinking, calls, reason), sent, ignored, usage, pieces or [text])


Way = Callable[..., Outcome]
every_way = pytest.mark.parametrize(
    ("way", "stream"),
    [(way, stream) for way in (of_chat, of_responses) for stream in (False, True)],
    ids=["chat whole", "chat stream", "responses whole", "responses stream"],
)


def outcome(way: Way, stream: bool, *scripts: Script, settings: dict[str, Any] | None = None, **fields: Any) -> Outcome:
    fake, app = app_of(*scripts, settings=settings)
    found = way(fake, app, stream=stream, **fields)
    fake.assert_all_used()
    assert fake.opened == fake.closed
    return found


def text(answer: str, reason: str = "stop", **fields: Any) -> Script:
    return [*[say(character) for character in answer], done(reason, **fields)]


CALLED = [say(tool_calls=[CALL]), done(made=7, prompt=3)]
WEATHER = ("weather", {"city": "Oslo"})


EMULATED_CALL = '{"calls": [{"name": "weather", "parameters": {"city": "Oslo"}}]}'

# -- tools beside a format --------------------------------------------------------------------


@every_way
def test_a_call_beside_a_format_is_passed_on(way: Way, stream: bool) -> None:
    found = outcome(way, stream, [say(thinking="hm"), say("Let me see."), *CALLED], schema=SCHEMA)
    assert found.said == Said("", "hm", [WEATHER], "tool_calls")
    [sent] = found.sent
    assert "format" not in sent
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["weather"]
    assert sent["messages"][0]["role"] == "system"
    assert '"degrees"' in sent["messages"][0]["content"]
    assert found.ignored == set()
    assert found.usage == (3, 7)


@every_way
@pytest.mark.parametrize("written", [ANSWER, f"  {ANSWER}\n", f"```json\n{ANSWER}\n```"])
def test_text_that_is_what_the_format_wants_is_the_answer(way: Way, stream: bool, written: str) -> None:
    found = outcome(way, stream, [say(thinking="hm"), *text(written)], schema=SCHEMA)
    assert found.said == Said(ANSWER, "hm", [], "stop")
    assert len(found.sent) == 1
    assert found.pieces == [ANSWER]


@every_way
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("It is cold.", "stop"),
        ('{"degrees": "five"}', "stop"),
        ('{"degrees": 5', "length"),
        ("It is", "length"),
        ("[1]", "stop"),
    ],
)
def test_for_other_text_the_model_generates_with_the_format(way: Way, stream: bool, first: str, reason: str) -> None:
    scripts = [text(first, reason, prompt=3, made=7), text(ANSWER, prompt=2, made=4)]
    found = outcome(way, stream, *scripts, schema=SCHEMA, max_tokens=50)
    assert found.said == Said(ANSWER, "", [], "stop")
    first_sent, second = found.sent
    assert "tools" not in second
    assert second["format"] == SCHEMA
    assert second["options"] == first_sent["options"]
    assert second["options"]["num_predict"] == 50
    assert [message["role"] for message in second["messages"]] == ["user"]
    assert found.usage == (5, 11)
    if stream:
        assert found.pieces == list(ANSWER)


@every_way
@pytest.mark.parametrize("lost", [[say(""), done()], [say(thinking="hm"), done()], [UNPARSABLE]])
@pytest.mark.parametrize("written", ['{"answer": %s}' % ANSWER, ANSWER, EMULATED_CALL])  # noqa: UP031
def test_where_nothing_came_the_model_may_call_or_answer(way: Way, stream: bool, lost: Script, written: str) -> None:
    """The second attempt has the format as the form of an answer, so that a lost call is possible, too."""
    found = outcome(way, stream, lost, text(written), schema=SCHEMA)
    assert (found.said.text, found.said.calls) == (("", [WEATHER]) if "calls" in written else (ANSWER, []))
    assert "tools" not in found.sent[1]
    assert found.sent[1]["format"]["anyOf"][1]["properties"]["answer"] == SCHEMA
    found = outcome(way, stream, [say(""), done()], text(ANSWER), settings={"emulate_tools": False}, schema=SCHEMA)
    assert found.said.text == ANSWER
    assert found.sent[1]["format"] == SCHEMA


@every_way
def test_thinking_is_not_held_and_shown_once(way: Way, stream: bool) -> None:
    scripts = [[say(thinking="h"), say(thinking="m"), *text("Cold.")], [say(thinking="hm again"), *text(ANSWER)]]
    assert outcome(way, stream, *scripts, schema=SCHEMA).said == Said(ANSWER, "hm", [], "stop")


@every_way
def test_thinking_that_was_cut_is_the_end(way: Way, stream: bool) -> None:
    found = outcome(way, stream, [say(thinking="hm"), done("length")], schema=SCHEMA)
    assert found.said == Said("", "hm", [], "length")


@every_way
def test_ollama_s_way_applies_the_format_at_once(way: Way, stream: bool) -> None:
    settings = {"tools_with_format": "format"}
    found = outcome(way, stream, text(ANSWER), settings=settings, schema=SCHEMA)
    assert found.said.text == ANSWER
    assert found.sent[0]["format"] == SCHEMA
    assert "tools" in found.sent[0]
    assert found.ignored == {"tools"}


@every_way
def test_a_forced_call_ignores_the_format(way: Way, stream: bool) -> None:
    found = outcome(way, stream, CALLED, schema=SCHEMA, tool_choice="required")
    assert found.said.calls == [WEATHER]
    assert found.ignored == {"response_format" if way is of_chat else "text.format"}


def test_log_probabilities_are_those_of_what_leaves() -> None:
    def logged(answer: str) -> Script:
        return [{**say(piece), "logprobs": [{"token": piece, "logprob": -1.0}]} for piece in answer] + [done()]

    for scripts in ([logged("No."), logged(ANSWER)], [logged(ANSWER)]):
        for stream in (False, True):
            fake, app = app_of(*scripts)
            body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "logprobs": True, "stream": stream}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
            body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
            response = Client(app).post("/v1/chat/completions", json=body)
            choices = (
                [choice for chunk in check_stream(response.data) for choice in chunk["choices"]]
                if stream
                else response.get_json()["choices"]
            )
            tokens = [
                entry["token"] for choice in choices for entry in (choice.get("logprobs") or {"content": []})["content"]
            ]
            response.close()
            assert "".join(tokens) == ANSWER
            assert fake.opened == fake.closed == len(scripts)


def test_each_choice_decides_for_itself() -> None:
    fake, app = app_of(CALLED, text("No."), text(ANSWER), text(ANSWER))
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "n": 3, "seed": 1}
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
    found = Client(app).post("/v1/chat/completions", json=body).get_json()["choices"]
    assert [choice["finish_reason"] for choice in found] == ["tool_calls", "stop", "stop"]
    assert [choice["message"]["content"] for choice in found] == [None, ANSWER, ANSWER]
    assert [request.json["options"]["seed"] for request in fake.requests] == [1, 2, 2, 3]


# -- models without tools ---------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("written", [EMULATED_CALL, EMULATED_CALL.replace("parameters", "arguments")])
def test_a_model_without_tools_calls(way: Way, stream: bool, written: str) -> None:
    found = outcome(way, stream, [NO_TOOLS], text(written), reasoning_effort="high" if way is of_chat else None)
    assert found.said == Said("", "", [WEATHER], "tool_calls")
    refused, sent = found.sent
    assert "tools" in refused
    assert "tools" not in sent
    assert sent["think"] is False
    calls, answer = sent["format"]["anyOf"]
    assert calls["properties"]["calls"]["items"]["properties"]["name"] == {"const": "weather"}
    assert calls["properties"]["calls"]["items"]["properties"]["parameters"] == PARAMETERS
    assert answer["properties"]["answer"] == {"type": "string"}
    assert '"city"' in sent["messages"][0]["content"]
    assert found.ignored == ({"reasoning_effort"} if way is of_chat else set())


@every_way
def test_an_answer_of_it_leaves_as_text_as_it_streams(way: Way, stream: bool) -> None:
    written = json.dumps({"answer": 'It\u2019s 5\u00b0 \U0001f600 cold\n"very"'})
    found = outcome(way, stream, [NO_TOOLS], text(written))
    assert found.said == Said('It\u2019s 5\u00b0 \U0001f600 cold\n"very"', "", [], "stop")
    if stream:
        assert len(found.pieces) > 15


@every_way
def test_an_answer_of_it_in_the_client_s_format_is_its_bytes(way: Way, stream: bool) -> None:
    found = outcome(way, stream, [NO_TOOLS], text('{"answer": {"degrees":  5}}'), schema=SCHEMA, strict_schema=True)
    assert found.said.text == '{"degrees":  5}'
    assert found.sent[1]["format"]["anyOf"][1]["properties"]["answer"] == SCHEMA


@every_way
def test_several_calls_and_one(way: Way, stream: bool) -> None:
    call = {"name": "weather", "parameters": {"city": "Oslo"}}
    two = json.dumps({"calls": [call, {**call, "parameters": {"city": "Bergen"}}]})
    found = outcome(way, stream, [NO_TOOLS], text(two))
    assert found.said.calls == [WEATHER, ("weather", {"city": "Bergen"})]
    found = outcome(way, stream, [NO_TOOLS], text(two), parallel_tool_calls=False)
    assert found.said.calls == [WEATHER]
    assert found.sent[1]["format"]["anyOf"][0]["properties"]["calls"]["maxItems"] == 1


@every_way
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_choice_of_it_has_no_answer(way: Way, stream: bool, choice: Any) -> None:
    found = outcome(way, stream, [NO_TOOLS], text(EMULATED_CALL), tool_choice=choice)
    assert found.said.calls == [WEATHER]
    assert set(found.sent[1]["format"]["properties"]) == {"calls"}


@every_way
def test_of_a_named_function_there_is_one_call(way: Way, stream: bool) -> None:
    call = {"name": "weather", "parameters": {"city": "Oslo"}}
    two = text(json.dumps({"calls": [call, {**call, "parameters": {"city": "Bergen"}}]}))
    named = {"type": "function", "function": {"name": "weather"}}
    assert outcome(way, stream, [NO_TOOLS], two, tool_choice=named).said.calls == [WEATHER]
    assert len(outcome(way, stream, [NO_TOOLS], two, tool_choice="required").said.calls) == 2


@every_way
def test_it_is_remembered(way: Way, stream: bool) -> None:
    fake, app = app_of([NO_TOOLS], text(EMULATED_CALL), text('{"answer": "Hi"}'))
    assert way(fake, app, stream=stream).said.calls == [WEATHER]
    assert way(fake, app, stream=stream).said.text == "Hi"
    assert ["tools" in request.json for request in fake.requests] == [True, False, False]


@every_way
def test_what_of_it_was_cut_leaves_as_far_as_it_came(way: Way, stream: bool) -> None:
    found = outcome(way, stream, [NO_TOOLS], text(EMULATED_CALL[: EMULATED_CALL.index('lo"')], "length"))
    assert found.said == Said("", "", [("weather", '{"city": "Os')], "length")
    found = outcome(way, stream, [NO_TOOLS], text('{"answer": "It is co', "length"))
    assert found.said == Said("It is co", "", [], "length")
    for begun in ("{", '{"ans', '{"answer": ', '{"answer": "', '{"calls": [{"na'):
        assert outcome(way, stream, [NO_TOOLS], text(begun, "length")).said == Said("", "", [], "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_was_cut_is_no_complete_item(stream: bool) -> None:
    cases: list[tuple[list[Script], dict[str, Any]]] = [
        ([[NO_TOOLS], text(EMULATED_CALL[:-8], "length")], {}),
        ([text(EMULATED_CALL[11:-8], "length")], {"tool_choice": "required"}),
    ]
    for scripts, fields in cases:
        fake, app = app_of(*scripts)
        tool = {"type": "function", "name": "weather", "parameters": PARAMETERS}
        body = {"model": "demo", "input": "?", "tools": [tool], "stream": stream, **fields}
        response = Client(app).post("/v1/responses", json=body)
        found = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
        response.close()
        [item] = found["output"]
        assert (found["status"], item["status"]) == ("incomplete", "incomplete")
        assert item["arguments"] == '{"city": "O'


@every_way
def test_json_of_it_that_has_a_name_is_no_call(way: Way, stream: bool) -> None:
    bob = '{"name": "Bob", "age": 3}'
    assert outcome(way, stream, [NO_TOOLS], text(bob)).said == Said(bob, "", [], "stop")
    alone = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    assert outcome(way, stream, [NO_TOOLS], text(alone)).said.calls == [WEATHER]


@pytest.mark.parametrize("way", [of_chat, of_responses])
def test_without_emulation_ollama_s_error_stands(way: Way) -> None:
    fake, app = app_of([NO_TOOLS], settings={"emulate_tools": False})
    with pytest.raises(AssertionError, match="does not support tools"):
        way(fake, app, stream=False)
    assert len(fake.requests) == 1


def test_stop_sequences_are_applied_to_the_text() -> None:
    for stream in (False, True):
        found = outcome(of_chat, stream, [NO_TOOLS], text('{"answer": "one\\ntwo"}'), stop=["\n", "answer"])
        assert found.said == Said("one", "", [], "stop")
        assert "stop" not in found.sent[1]["options"]
        assert found.sent[0]["options"]["stop"] == ["\n", "answer"]
        assert found.ignored == set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_is_not_cut_by_a_stop_sequence(stream: bool) -> None:
    written = text('{"name": "weather", "parameters": {"city": "Oslo"}}')
    found = outcome(of_chat, stream, written, stop=["city"], tool_choice="required")
    assert found.said.calls == [WEATHER]
    assert "stop" not in found.sent[0]["options"]
    assert found.ignored == {"stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_under_a_format_of_ours_are_listed(stream: bool) -> None:
    for fields, scripts in (({}, [[NO_TOOLS], text(EMULATED_CALL)]), ({"tool_choice": "required"}, [CALLED])):
        found = outcome(of_chat, stream, *scripts, logprobs=True, **fields)
        assert found.ignored == {"logprobs"}
        assert "logprobs" not in found.sent[-1]


HISTORY = [
    {"role": "user", "content": "How cold is it?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bergen"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "5 degrees"},
    {"role": "tool", "tool_call_id": "2", "content": "9 degrees"},
    {"role": "user", "content": "In Fahrenheit?"},
]


@pytest.mark.parametrize("stream", [False, True])
def test_the_history_of_it_is_text(stream: bool) -> None:
    fake, app = app_of([NO_TOOLS], text('{"answer": "41"}'), text("41"))
    assert of_chat(fake, app, stream=stream, messages=HISTORY).said.text == "41"
    assert of_chat(fake, app, stream=stream, messages=HISTORY, tools=None).said.text == "41"
    with_tools, without = fake.requests[1].json, fake.requests[2].json
    assert with_tools["messages"][1:] == without["messages"]
    user, assistant, results = without["messages"]
    assert user == {"role": "user", "content": "How cold is it?"}
    calls = [{"name": "weather", "parameters": {"city": city}} for city in ("Oslo", "Bergen")]
    assert (assistant["role"], json.loads(assistant["content"])) == ("assistant", {"calls": calls})
    assert results["role"] == "user"
    order = [results["content"].index(part) for part in ("weather", "5 degrees", "9 degrees", "In Fahrenheit?")]
    assert order == sorted(order)
    assert "format" not in without


def test_the_whole_api_is_asked_whether_a_model_has_tools() -> None:
    """Where only the history has calls: by ``/api/show``, once."""

    class Whole(FakeOllama):
        speaks_native_only = True

    for capabilities, roles in ((["completion"], ["user", "assistant", "user"]), (["tools"], None)):
        fake = Whole()
        fake.script("/api/show", {"capabilities": capabilities}, content_type="application/json")
        for _ in range(2):
            fake.script("/api/chat", say("41"), done())
        app = OpenAICompat(fake)
        for _ in range(2):
            assert of_chat(fake, app, stream=False, messages=HISTORY, tools=None).said.text == "41"
        assert [request.path for request in fake.requests] == ["/api/show", "/api/chat", "/api/chat"]
        sent = [message["role"] for message in fake.requests[2].json["messages"]]
        assert sent == (roles or [message["role"] for message in HISTORY])


@pytest.mark.parametrize(
    ("scripts", "fields", "content"),
    [
        ([[NO_TOOLS], text(EMULATED_CALL)], {}, None),
        ([text("<tool_call>")], {}, None),
        ([text("No."), text(ANSWER)], {"response_format": {"type": "json_object"}}, None),
        ([text("Hello")], {}, ""),
        ([[say(""), *text("Hello")]], {"tools": None}, ""),
    ],
)
def test_no_empty_text_leaves_before_what_may_be_a_call(
    scripts: list[Script], fields: dict[str, Any], content: str | None
) -> None:
    """Clients show an empty block of text for it."""
    _, app = app_of(*scripts)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "stream": True, "tools": tools, **fields}
    response = Client(app).post("/v1/chat/completions", json=body)
    first, *_ = check_stream(response.data)
    response.close()
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": content, "refusal": None}


# -- models that answer nothing while they do not think ---------------------------------------


@every_way
@pytest.mark.parametrize("emulated", [False, True])
def test_a_model_that_must_think_thinks_a_little_and_is_remembered(way: Way, stream: bool, emulated: bool) -> None:
    written = EMULATED_CALL if emulated else '{"name": "weather", "parameters": {"city": "Oslo"}}'
    answer = [say(thinking="h"), say(thinking="m"), *text(written, prompt=1, made=5)]
    refusal = [[NO_TOOLS]] if emulated else []
    fake, app = app_of(*refusal, [say(""), done(prompt=1, made=9)], answer, answer)
    fields = {} if emulated else {"tool_choice": "required"}
    found = way(fake, app, stream=stream, **fields)
    assert found.said == Said("", "hm", [WEATHER], "tool_calls")
    assert found.usage == (2, 14)
    assert way(fake, app, stream=stream, **fields).said.thinking == "hm"
    assert [request.json.get("think") for request in fake.requests][-3:] == [False, "low", "low"]
    assert len(fake.requests) == 3 + emulated


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_goes_on_answering_nothing_fails(stream: bool) -> None:
    fake, app = app_of(*[[say(""), done()]] * 2)
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "tool_choice": "required"}
    body["tools"] = [{"type": "function", "function": {"name": "weather"}}]
    response = Client(app).post("/v1/chat/completions", json={**body, "stream": stream})
    assert b"tool_choice_failed" in response.data
    response.close()
    assert len(fake.requests) == 2
    assert fake.opened == fake.closed


# -- calls that Ollama lost -------------------------------------------------------------------

LOST: list[Script] = [
    [say(""), done()],
    [say(thinking="I call it."), say("\n\n"), done()],
    [UNPARSABLE],
    [say(thinking="I call it."), UNPARSABLE],
    [say(""), {"error": "XML syntax error on line 3: unexpected EOF"}],
    [{"error": "EOF"}],
]
LOST_IDS = ["nothing", "thinking", "error", "error after thinking", "error line", "EOF"]


@every_way
@pytest.mark.parametrize(
    "lost", LOST, ids=["nothing", "thinking", "error", "error after thinking", "error line", "EOF"]
)
def test_a_lost_call_is_made_once_more_emulated(way: Way, stream: bool, lost: Script) -> None:
    found = outcome(way, stream, lost, [say(thinking="aga"), say(thinking="in"), *text(EMULATED_CALL)])
    thinking = "I call it." if "thinking" in str(lost) else "again"
    assert found.said == Said("", thinking, [WEATHER], "tool_calls")
    assert "tools" in found.sent[0]
    assert "anyOf" in found.sent[1]["format"]


@every_way
@pytest.mark.parametrize("lost", LOST[1:], ids=LOST_IDS[1:])
def test_a_lost_call_that_is_forced_too(way: Way, stream: bool, lost: Script) -> None:
    found = outcome(way, stream, lost, text(EMULATED_CALL), tool_choice="required")
    assert found.said.calls == [WEATHER]
    assert found.said.thinking == ("I call it." if "thinking" in str(lost) else "")
    assert set(found.sent[1]["format"]["properties"]) == {"calls"}


@every_way
def test_after_text_an_error_stands(way: Way, stream: bool) -> None:
    fake, app = app_of([say("Let me see."), UNPARSABLE])
    if stream:
        with pytest.raises((AssertionError, ValueError, KeyError)):
            way(fake, app, stream=stream)
    else:
        with pytest.raises(AssertionError, match="parsing tool call"):
            way(fake, app, stream=stream)
    assert len(fake.requests) == 1


@every_way
def test_what_an_error_quotes_is_read_first(way: Way, stream: bool) -> None:
    raw = 'error parsing tool call: raw=\'{"city": "Oslo"}<|call|>\', err: invalid character'
    assert outcome(way, stream, [{"error": raw}]).said == Said("", "", [WEATHER], "tool_calls")


@every_way
def test_a_call_in_the_name_of_a_call_is_read(way: Way, stream: bool) -> None:
    name = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    call = {"function": {"name": name, "arguments": {}}}
    for choice in (None, "required"):
        found = outcome(way, stream, [say(tool_calls=[call]), done()], tool_choice=choice)
        assert found.said == Said("", "", [WEATHER], "tool_calls")


@every_way
def test_a_call_whose_name_cannot_be_read_is_lost(way: Way, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    call = {"function": {"name": '{"name": "weather", "arguments": {"city": }', "arguments": {}}}
    for fields in ({}, {"tool_choice": "required"}):
        found = outcome(way, stream, [say(tool_calls=[call]), done()], text(EMULATED_CALL), **fields)
        assert found.said == Said("", "", [WEATHER], "tool_calls")
    assert caplog.text.count("text that cannot be read") == 2  # once for each


@pytest.mark.parametrize("way", [of_chat, of_responses])
def test_where_no_second_call_begins_the_first_one_stands(way: Way) -> None:
    fake, app = app_of([say(thinking="hm"), say("\n"), done()], [{"error": "busy"}])
    assert way(fake, app, stream=True).said == Said("\n", "hm", [], "stop")
    fake, app = app_of([UNPARSABLE], [{"error": "busy"}])
    with pytest.raises(AssertionError, match="parsing tool call"):
        way(fake, app, stream=False)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_where_tools_are_too_large_for_a_format_the_first_one_stands(stream: bool) -> None:
    schema = {"type": "object", "properties": {str(i): True for i in range(180_000)}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    assert outcome(of_chat, stream, [say(thinking="hm"), done()], tools=tools).said == Said("", "hm", [], "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_the_failure_of_both_has_a_status(stream: bool) -> None:
    fake, app = app_of([UNPARSABLE], [{"error": "busy"}])
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "stream": stream}
    body["tools"] = [{"type": "function", "function": {"name": "weather"}}]
    response = Client(app).post("/v1/chat/completions", json=body)
    assert response.status_code == 502
    assert "parsing tool call" in response.get_json()["error"]["message"]
    assert fake.opened == fake.closed


@pytest.mark.parametrize("way", [of_chat, of_responses])
def test_without_tools_nothing_is_lost(way: Way) -> None:
    assert outcome(way, False, [say(""), done()], tools=None).said == Said("", "", [], "stop")


# -- calls written as text --------------------------------------------------------------------

WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@every_way
def test_a_call_written_as_text_is_a_call(way: Way, stream: bool) -> None:
    found = outcome(way, stream, text(f"Let me see.\n{WRITTEN}"))
    assert found.said == Said("Let me see.\n", "", [WEATHER], "tool_calls")


@every_way
def test_blanks_before_a_call_are_no_text(way: Way, stream: bool) -> None:
    assert outcome(way, stream, text(f"\n\n{WRITTEN}")).said == Said("", "", [WEATHER], "tool_calls")
    for blank in ("\n\nHello", "\n" * 100 + "Hello", " <tool_call>", " {}"):
        assert outcome(way, stream, text(blank)).said == Said(blank, "", [], "stop")


@every_way
def test_beside_a_format_too(way: Way, stream: bool) -> None:
    found = outcome(way, stream, text(f"Let me see.\n{WRITTEN}"), schema=SCHEMA)
    assert found.said == Said("", "", [WEATHER], "tool_calls")


@every_way
@pytest.mark.parametrize("shown", [f"Write {WRITTEN} to call it.", WRITTEN.replace("weather", "other"), "{}"])
def test_other_text_is_text(way: Way, stream: bool, shown: str) -> None:
    assert outcome(way, stream, text(shown)).said == Said(shown, "", [], "stop")
    assert outcome(way, stream, text(WRITTEN), tools=None).said == Said(WRITTEN, "", [], "stop")


@every_way
def test_the_setting_leaves_it_as_text(way: Way, stream: bool) -> None:
    found = outcome(way, stream, text(WRITTEN), settings={"rescue_tool_calls": False})
    assert found.said == Said(WRITTEN, "", [], "stop")


@every_way
def test_a_forced_call_may_be_written_so_too(way: Way, stream: bool) -> None:
    assert outcome(way, stream, text(WRITTEN), tool_choice="required").said.calls == [WEATHER]
    assert outcome(way, stream, [NO_TOOLS], text(WRITTEN), tool_choice="required").said.calls == [WEATHER]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_text_that_became_a_call_do_not_leave(stream: bool) -> None:
    answer = f"So:{WRITTEN}"
    lines = [{**say(piece), "logprobs": [{"token": piece, "logprob": -1.0}]} for piece in answer]
    fake, app = app_of([*lines, done()])
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "logprobs": True, "stream": stream}
    body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
    response = Client(app).post("/v1/chat/completions", json=body)
    choices = (
        [choice for chunk in check_stream(response.data) for choice in chunk["choices"]]
        if stream
        else response.get_json()["choices"]
    )
    tokens = [entry["token"] for choice in choices for entry in (choice.get("logprobs") or {"content": []})["content"]]
    response.close()
    assert "".join(tokens) == "So:"
    assert fake.opened == fake.closed == 1


# -- strict functions -------------------------------------------------------------------------

WRONG = [say(tool_calls=[{"function": {"name": "weather", "arguments": {"town": "Oslo"}}}]), done(made=2)]


@every_way
def test_a_strict_call_that_matches_is_not_listed(way: Way, stream: bool) -> None:
    found = outcome(way, stream, CALLED, strict=True)
    assert (found.said.calls, found.ignored) == ([WEATHER], set())


@every_way
def test_a_strict_call_that_does_not_match_is_listed(way: Way, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "openai_compat")
    found = outcome(way, stream, WRONG, strict=True)
    assert found.said.calls == [("weather", {"town": "Oslo"})]
    assert found.ignored == {"tools[].function.strict" if way is of_chat else "tools[].strict"}
    assert "do not match" in caplog.text
    assert outcome(way, stream, WRONG).ignored == set()


@every_way
def test_it_is_made_once_more(way: Way, stream: bool) -> None:
    found = outcome(way, stream, WRONG, CALLED, settings={"retry_strict": True}, strict=True)
    assert found.said == Said("", "", [WEATHER], "tool_calls")
    assert found.usage == (4, 9)
    *_, made, result = found.sent[1]["messages"]
    assert made["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"town": "Oslo"}, "index": 0}
    assert (result["role"], result["tool_name"]) == ("tool", "weather")
    assert "city" in result["content"] or "town" in result["content"]
    found = outcome(way, stream, WRONG, WRONG, settings={"retry_strict": True}, strict=True)
    assert found.said.calls == [("weather", {"town": "Oslo"})]


@every_way
def test_after_text_only_a_whole_response_is_made_once_more(way: Way, stream: bool) -> None:
    settings = {"retry_strict": True}
    scripts = [[say("Let me see."), *WRONG], [] if stream else [say("So."), *CALLED]]
    found = outcome(way, stream, *filter(None, scripts), settings=settings, strict=True)
    if stream:
        assert found.said == Said("Let me see.", "", [("weather", {"town": "Oslo"})], "tool_calls")
    else:
        assert found.said == Said("So.", "", [WEATHER], "tool_calls")


@every_way
def test_beside_a_format_text_is_held_then_too(way: Way, stream: bool) -> None:
    fields: dict[str, Any] = {"settings": {"retry_strict": True}, "strict": True, "schema": SCHEMA}
    found = outcome(way, stream, WRONG, [say("I am sorry."), *CALLED], **fields)
    assert found.said == Said("", "", [WEATHER], "tool_calls")
    assert outcome(way, stream, WRONG, text(f"```json\n{ANSWER}\n```"), **fields).said.text == ANSWER
    assert outcome(way, stream, WRONG, text("I am sorry."), **fields).said == Said("I am sorry.", "", [], "stop")


@every_way
@pytest.mark.parametrize("emulated", [False, True])
def test_a_forced_or_emulated_call_is_checked_too(way: Way, stream: bool, emulated: bool) -> None:
    call = {"name": "weather", "parameters": {"town": "Oslo"}}
    written = text(json.dumps({"calls": [call]} if emulated else call))
    fields = {} if emulated else {"tool_choice": "required"}
    found = outcome(way, stream, *([[NO_TOOLS]] if emulated else []), written, strict=True, **fields)
    assert found.said.calls == [("weather", {"town": "Oslo"})]
    name = "tools[].function.strict" if way is of_chat else "tools[].strict"
    assert found.ignored == (set() if stream else {name})


# -- what is stored ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_what_left_is_stored(stream: bool) -> None:
    fake, app = app_of(text("No."), text(ANSWER), [NO_TOOLS], text(EMULATED_CALL), settings={"store": "sqlite://"})
    assert of_chat(fake, app, stream=stream, schema=SCHEMA, store=True).said.text == ANSWER
    assert of_chat(fake, app, stream=stream, store=True).said.calls == [WEATHER]
    listed = Client(app).get("/v1/chat/completions?order=asc").get_json()["data"]
    first, second = [completion["choices"][0]["message"] for completion in listed]
    assert first["content"] == ANSWER
    assert second["tool_calls"][0]["function"]["name"] == "weather"


@pytest.mark.parametrize("stream", [False, True])
def test_what_left_is_the_history_of_a_response(stream: bool) -> None:
    scripts = [text("No."), text(ANSWER), text("Next.")]
    fake, app = app_of(*scripts, settings={"store": "sqlite://"})
    client = Client(app)
    body = {"model": "demo", "input": "How cold?", "stream": stream}
    body["tools"] = [{"type": "function", "name": "weather", "parameters": PARAMETERS}]
    schema = {"type": "json_schema", "name": "a", "schema": SCHEMA}
    response = client.post("/v1/responses", json={**body, "text": {"format": schema}})
    found = check_events(response.data)[-1]["response"] if stream else response.get_json()
    response.close()
    follow = {"model": "demo", "input": "And now?", "previous_response_id": found["id"]}
    assert client.post("/v1/responses", json=follow).status_code == 200
    contents = [message["content"] for message in fake.requests[2].json["messages"]]
    assert contents == ["How cold?", ANSWER, "And now?"]


@every_way
def test_where_it_cannot_be_made_once_more_it_is_passed_on(way: Way, stream: bool) -> None:
    settings = {"retry_strict": True}
    scripts = [[say(thinking="hm"), *([] if stream else [say("So.")]), *WRONG], [{"error": "busy"}]]
    found = outcome(way, stream, *scripts, settings=settings, strict=True)
    said = Said("" if stream else "So.", "hm", [("weather", {"town": "Oslo"})], "tool_calls")
    assert found.said == said
    if not stream:
        assert found.ignored == {"tools[].function.strict" if way is of_chat else "tools[].strict"}


# -- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scripts", "fields"),
    [([text("x" * 100)], {"response_format": {"type": "json_object"}}), ([[NO_TOOLS], text(EMULATED_CALL * 3)], {})],
)
def test_f29_what_is_held_is_bounded(scripts: list[Script], fields: dict[str, Any]) -> None:
    fake, app = app_of(*scripts, settings={"max_answer": 5_000})
    tools = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "stream": True, "tools": tools, **fields}
    response = Client(app).post("/v1/chat/completions", json=body)
    assert b"too long" in response.data
    response.close()
    assert fake.opened == fake.closed == len(scripts)
    found = outcome(of_chat, True, text("x" * 100), settings={"max_answer": 5_000})  # what leaves at once is not
    assert found.said.text == "x" * 100


# -- two at most ------------------------------------------------------------------------------


@every_way
def test_two_native_calls_at_most_whatever_comes_together(way: Way, stream: bool) -> None:
    """Prose, then JSON that does not match the strict schema: there is no third attempt."""
    fake, app = app_of(text("No."), text("{}"), settings={"retry_strict": True})
    with pytest.raises((AssertionError, ValueError, KeyError)):
        way(fake, app, stream=stream, schema=SCHEMA, strict_schema=True)
    assert len(fake.requests) == 2
    fake, app = app_of([NO_TOOLS], [say(""), done()], [say(""), done()], settings={"retry_strict": True})
    assert way(fake, app, stream=stream, schema=SCHEMA).said.text == ""
    assert len(fake.requests) == 3  # the first was refused and generated nothing
