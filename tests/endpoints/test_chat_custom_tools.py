"""Chats with custom tools: what goes up, and the calls, whole, streamed and in the history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream
from tests.endpoints.requests import answered, ignored, post, refused, sent, streamed

INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a+/"}}
SHELL = {"type": "custom", "custom": {"name": "shell", "description": "Runs it"}}
FLAT_SHELL = {"type": "custom", "name": "shell", "description": "Runs it"}
TIME = {"type": "function", "function": {"name": "time"}}
FLAT_TIME = {"type": "function", "name": "time"}
NATIVE_SHELL = {"type": "function", "function": {"name": "shell", "description": "Runs it", "parameters": INPUT}}
TOOLS = [SHELL, TIME]
NAMED = {"type": "custom", "custom": {"name": "shell"}}
FORMS = pytest.mark.parametrize("tools", [TOOLS, [FLAT_SHELL, FLAT_TIME]], ids=["chat", "flat"])


def native_call(name: str, arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def called(name: str, arguments: Any) -> dict[str, Any]:
    return say(tool_calls=[native_call(name, arguments)])


def written(content: str, size: int = 1) -> list[dict[str, Any]]:
    return [say(content[i : i + size]) for i in range(0, len(content), size)]


# -- the request ------------------------------------------------------------------------------


@FORMS
def test_a_custom_tool_goes_up_as_a_function(tools: list[Any]) -> None:
    assert sent(tools=tools)["tools"] == [NATIVE_SHELL, TIME]


def test_a_grammar_is_by_policy() -> None:
    tool = {"type": "custom", "custom": {"name": "shell", "format": GRAMMAR}}
    assert ignored(tools=[tool], model="demo-tools") == {"tools[].custom.format"}
    error = refused({"unsupported": "error"}, tools=[TIME, tool])
    assert (error["param"], error["type"]) == ("tools[1].custom.format", "invalid_request_error")
    assert refused({"unsupported": "error"}, tools=[{**FLAT_SHELL, "format": GRAMMAR}])["param"] == "tools[0].format"


@FORMS
@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (NAMED, "stop"),
        ({"type": "custom", "name": "shell"}, "stop"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, "tool_calls"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"custom": {"name": "shell"}}]}},
            "tool_calls",
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "name": "shell"}]},
            },
            "tool_calls",
        ),
    ],
)
def test_a_choice_of_a_custom_tool_is_a_forced_call(tools: list[Any], choice: Any, reason: str) -> None:
    text = '{"name": "shell", "parameters": {"input": "ls"}}'
    fake = FakeOllama()
    fake.script("/api/chat", say(text), done())
    response = post(fake, tools=tools, tool_choice=choice)
    [made] = response.get_json()["choices"]
    assert made["finish_reason"] == reason
    assert made["message"]["tool_calls"][0]["custom"] == {"name": "shell", "input": "ls"}
    assert fake.requests[0].json["tools"] == [NATIVE_SHELL]
    assert fake.requests[0].json["format"]["anyOf"][0]["properties"] == {
        "name": {"const": "shell"},
        "parameters": INPUT,
    }
    assert set(filter(None, response.headers.get("openai-compat-ignored", "").split(", "))) == set()


def test_a_flat_function_may_be_chosen() -> None:
    steps = [say('{"name": "time", "parameters": {}}'), done()]
    [made] = answered(*steps, tools=[FLAT_TIME, SHELL], tool_choice=FLAT_TIME)["choices"]
    assert made["message"]["tool_calls"][0]["function"]["name"] == "time"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({**NAMED, "name": "time", "function": {"name": "time"}}, {"tool_choice.name", "tool_choice.function"}),
        ({"type": "function", "function": {"name": "time"}, **{"custom": {"name": "shell"}}}, {"tool_choice.custom"}),
        ({"type": "auto", "name": "time"}, {"tool_choice.name"}),
        ({**NAMED, "function": {}, "name": ""}, set()),
    ],
)
def test_what_a_choice_does_not_use_is_listed(choice: Any, names: set[str]) -> None:
    fake = FakeOllama()
    calls = [native_call("time" if choice["type"] == "function" else "shell", {})]
    fake.script("/api/chat", say(tool_calls=calls), done())
    response = post(fake, tools=TOOLS, tool_choice=choice)
    assert set(filter(None, response.headers.get("openai-compat-ignored", "").split(", "))) == names


@pytest.mark.parametrize(
    ("entry", "param"),
    [
        ({"type": "custom", "custom": {"name": "x"}}, "custom.name"),
        ({"type": "custom"}, "custom.name"),
        ({"type": "custom", "name": "x"}, "name"),
        ({"type": "mcp"}, "type"),
    ],
)
def test_an_allowed_tool_that_is_none_is_named(entry: Any, param: str) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [entry]}}
    assert refused(tools=TOOLS, tool_choice=choice)["param"] == f"tool_choice.allowed_tools.tools[0].{param}"


# -- the answer -------------------------------------------------------------------------------


def added_up(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a stream as clients add them up."""
    found: list[dict[str, Any]] = []
    for call in [call for chunk in chunks for choice in chunk["choices"] for call in calls_in(choice)]:
        kind = "custom" if "custom" in call else "function"
        key = "input" if kind == "custom" else "arguments"
        if call["index"] == len(found):
            assert kind == "function" or call["custom"]["input"] == ""
            found.append({"id": call["id"], "type": call["type"], kind: dict(call[kind])})
        else:
            assert set(call) == {"index", kind}
            found[call["index"]][kind][key] += call[kind][key]
    return found


def calls_in(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return choice["delta"].get("tool_calls", [])  # type: ignore[no-any-return]


ARGUMENTS = [
    ({"input": "ls -l"}, "ls -l"),
    ({"input": ""}, ""),
    ({"input": 'a\n"\u00e9\U0001f99c'}, 'a\n"\u00e9\U0001f99c'),
    ({}, ""),
    ({"input": 1}, '{"input":1}'),
    ({"text": "ls"}, '{"text":"ls"}'),
    ({"x": 1, "input": "ls"}, "ls"),
]


@FORMS
@pytest.mark.parametrize(("arguments", "text"), ARGUMENTS)
def test_a_native_call_is_a_custom_one(tools: list[Any], arguments: Any, text: str) -> None:
    steps = [say("So:"), called("shell", arguments), called("time", {}), done()]
    [made] = answered(*steps, tools=tools)["choices"]
    first, second = made["message"]["tool_calls"]
    assert {**first, "id": ""} == {"id": "", "type": "custom", "custom": {"name": "shell", "input": text}}
    assert (second["type"], second["function"]["name"]) == ("function", "time")
    assert (made["message"]["content"], made["finish_reason"]) == ("So:", "tool_calls")
    chunks = streamed(*steps, tools=tools)
    assert [{**call, "id": ""} for call in added_up(chunks)] == [{**call, "id": ""} for call in (first, second)]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_whole_call_is_one_piece() -> None:
    chunks = streamed(called("shell", {"input": "ls"}), done(), tools=TOOLS)
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in calls_in(choice)]
    id = calls[0]["id"]
    assert id.startswith("call_")
    assert calls == [
        {"index": 0, "id": id, "type": "custom", "custom": {"name": "shell", "input": ""}},
        {"index": 0, "custom": {"input": "ls"}},
    ]


@pytest.mark.parametrize("size", [1, 3, 4096])
@pytest.mark.parametrize(("arguments", "text"), ARGUMENTS)
@pytest.mark.parametrize("is_ascii", [False, True])
def test_a_forced_call_is_streamed_as_it_comes(size: int, arguments: Any, text: str, is_ascii: bool) -> None:
    call = json.dumps({"name": "shell", "parameters": arguments}, ensure_ascii=is_ascii, separators=(",", ":"))
    fields = {"tools": TOOLS, "tool_choice": NAMED}
    [made] = answered(*written(call, size), done(), **fields)["choices"]
    assert made["message"]["tool_calls"][0]["custom"] == {"name": "shell", "input": text}
    chunks = streamed(*written(call, size), done(), **fields)
    assert [call["custom"] for call in added_up(chunks)] == [{"name": "shell", "input": text}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("cut", [1, 7])
def test_every_character_comes_when_the_model_writes_it(cut: int) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *written('{"name":"shell","parameters":{"input":"a\\nb"}}'), done(), cut=cut)
    chunks = check_stream(post(fake, tools=TOOLS, tool_choice=NAMED, stream=True).data)
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in calls_in(choice)]
    assert [call["custom"]["input"] for call in calls] == ["", "a", "\n", "b"]


@pytest.mark.parametrize(
    ("cut_off", "text"),
    [
        ('{"input":"l', "l"),
        ('{"input":"a\\u00', "a"),
        ('{"input":"\\ud83e', "\ufffd"),
        ("{", ""),
        ('{"x":"l', '{"x":"l'),
    ],
)
def test_a_call_that_is_cut_off_has_its_text_so_far(cut_off: str, text: str) -> None:
    steps = [*written('{"name":"shell","parameters":' + cut_off), done("length")]
    fields = {"tools": TOOLS, "tool_choice": NAMED}
    [made] = answered(*steps, **fields)["choices"]
    assert (made["message"]["tool_calls"][0]["custom"]["input"], made["finish_reason"]) == (text, "length")
    assert added_up(streamed(*steps, **fields))[0]["custom"]["input"] == text


def test_each_choice_has_its_own_calls() -> None:
    fake = FakeOllama()
    for text in ("a", "b"):
        fake.script("/api/chat", *written(f'{{"name":"shell","parameters":{{"input":"{text}"}}}}'), done())
    chunks = [
        json.loads(line[6:])
        for line in post(fake, tools=TOOLS, tool_choice=NAMED, stream=True, n=2).data.split(b"\n\n")
        if line.startswith(b"data: {")
    ]
    for index, text in enumerate("ab"):
        own = [{"choices": [choice]} for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert added_up(own)[0]["custom"] == {"name": "shell", "input": text}


def test_a_call_of_no_tool_of_the_request_is_a_function_s() -> None:
    for tools in ([SHELL], []):
        [made] = answered(called("other", {"input": "x"}), done(), tools=tools)["choices"]
        assert made["message"]["tool_calls"][0]["function"] == {"name": "other", "arguments": '{"input":"x"}'}


def test_a_stored_completion_has_the_call() -> None:
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    fake, made = FakeOllama(), []
    client = Client(OpenAICompat(fake, store="sqlite://"))
    for stream in (False, True):
        fake.script("/api/chat", called("shell", {"input": "ls"}), done())
        body = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "store": True}
        made.append(client.post("/v1/chat/completions", json={**body, "stream": stream}).data)
    found = client.get("/v1/chat/completions").get_json()
    check("ChatCompletionList", found)
    calls = [item["choices"][0]["message"]["tool_calls"][0] for item in found["data"]]
    assert [call["custom"] for call in calls] == [{"name": "shell", "input": "ls"}] * 2
    assert all(call["id"].encode() in body for call, body in zip(calls, made, strict=True))


# -- the history ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"type": "custom", "custom": {"name": "shell", "input": "ls"}}, {"input": "ls"}),
        ({"custom": {"name": "shell"}}, {"input": ""}),
        ({"type": "custom", "name": "shell", "input": "ls"}, {"input": "ls"}),
        ({"name": "shell", "input": "ls"}, {"input": "ls"}),
        ({"type": "custom", "name": "shell"}, {"input": ""}),
        ({"type": "function", "name": "shell", "arguments": '{"a":1}'}, {"a": 1}),
        ({"name": "shell", "arguments": {"a": 1}}, {"a": 1}),
        ({"type": "function", "name": "shell", "input": "x"}, {}),
    ],
)
def test_a_call_and_its_result_are_history(call: dict[str, Any], arguments: Any) -> None:
    history = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", **call}]},
        {"role": "tool", "tool_call_id": "c", "content": "a.txt"},
    ]
    assert sent(messages=history, tools=TOOLS)["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"index": 0, "name": "shell", "arguments": arguments}}],
        },
        {"role": "tool", "content": "a.txt", "tool_name": "shell", "tool_call_id": "c"},
    ]
