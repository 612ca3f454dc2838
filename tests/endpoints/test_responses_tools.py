"""Tools of responses: functions, custom tools and namespaces; and calls that are required."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import said
from tests.endpoints.requests import RESPONSES

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "Tells it", "parameters": CITY, "strict": False}
TIME = {"type": "function", "name": "time"}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
SHELL = {"type": "custom", "name": "shell", "description": "Runs it", "format": GRAMMAR}
SPACE = {"type": "namespace", "name": "mcp__wx", "tools": [WEATHER, {**SHELL, "name": "sh"}]}
TOOLS = [WEATHER, TIME, SHELL, SPACE]
INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return say(tool_calls=[{"function": {"name": name, "arguments": arguments}}])


def sent(**fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    fake.script("/api/chat", say(tool_calls=[{"function": {"name": "weather", "arguments": {}}}]), done())
    response = RESPONSES.post(fake, **fields)
    assert response.status_code in (200, 502), response.data
    return fake.requests[0].json  # type: ignore[no-any-return]


# -- forms ------------------------------------------------------------------------------------

NATIVE_WEATHER = function("weather", description="Tells it", parameters=CITY)
NATIVE_SHELL = function(
    "shell", description="Runs it\n\nThe input must match this lark grammar:\nstart: /a+/", parameters=INPUT
)


@pytest.mark.parametrize(
    ("tool", "native"),
    [
        pytest.param(WEATHER, NATIVE_WEATHER, id="a function"),
        pytest.param({**WEATHER, "type": None}, NATIVE_WEATHER, id="no type"),
        pytest.param(TIME, function("time"), id="without parameters"),
        pytest.param({**TIME, "parameters": None, "description": None}, function("time"), id="nulls"),
        pytest.param({**TIME, "parameters": []}, function("time", parameters={}), id="PHP's empty object"),
        pytest.param({**TIME, "parameters": ""}, function("time"), id="blank parameters"),
        pytest.param({"type": "function", "function": {"name": "time"}}, function("time"), id="chat's form"),
        pytest.param(SHELL, NATIVE_SHELL, id="custom with a grammar"),
        pytest.param({"type": "custom", "name": "c"}, function("c", parameters=INPUT), id="custom"),
        pytest.param(
            {"type": "custom", "name": "c", "format": {"type": "text"}}, function("c", parameters=INPUT), id="of text"
        ),
        pytest.param({"type": "namespace", "name": "a", "tools": [TIME]}, function("a.time"), id="a namespace"),
        pytest.param({"type": "namespace", "name": "a", "tools": None}, None, id="an empty namespace"),
        pytest.param(
            {"type": "namespace", "name": "a", "description": None, "tools": [TIME]},
            function("a.time"),
            id="a namespace with a null description",
        ),
        pytest.param(
            {"type": "namespace", "name": "a", "tools": [{**TIME, "name": "a.time"}]}, function("a.time"), id="joined"
        ),
        pytest.param(
            {"type": "namespace", "name": "a", "tools": [{"type": "namespace", "name": "b", "tools": [TIME]}]},
            function("a.b.time"),
            id="nested",
        ),
    ],
)
def test_the_forms_of_tools(tool: Any, native: Any) -> None:
    assert sent(tools=[tool]).get("tools", [None]) == [native]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{}], "tools[0].name"),
        ([TIME, {"type": "function"}], "tools[1].name"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "function", "name": 1}], "tools[0].name"),
        ([{"type": "function", "name": "f", "parameters": 1}], "tools[0].parameters"),
        ([{"type": "function", "name": "f", "parameters": [1]}], "tools[0].parameters"),
        ([{"type": "custom"}], "tools[0].name"),
        ([{"type": "custom", "name": "c", "format": "x"}], "tools[0].format"),
        ([{"type": "namespace", "tools": [TIME]}], "tools[0].name"),
        ([{"type": "namespace", "name": "a", "tools": [TIME, {"type": "custom"}]}], "tools[0].tools[1].name"),
        ([{"type": "namespace", "name": "a", "tools": [None]}], "tools[0].tools[0]"),
        ([{"type": "namespace", "name": "a", "tools": {"x": 1}}], "tools[0].tools"),
    ],
    ids=json.dumps,
)
def test_a_tool_that_is_none_is_named(tools: Any, param: str) -> None:
    assert RESPONSES.refused(tools=tools)["param"] == param


def test_namespaces_are_nested_a_few_levels() -> None:
    def nested(depth: int) -> Any:
        return TIME if not depth else {"type": "namespace", "name": "a", "tools": [nested(depth - 1)]}

    assert sent(tools=[nested(4)])["tools"] == [function("a.a.a.a.time")]
    assert RESPONSES.refused(tools=[nested(5)])["param"] == "tools[0].tools[0].tools[0].tools[0].tools[0]"


def test_the_name_of_a_namespace_is_bounded_since_each_of_its_tools_repeats_it() -> None:
    tools = [{"type": "namespace", "name": "n" * 256, "tools": [TIME]}]
    assert sent(tools=tools)["tools"] == [function(f"{'n' * 256}.time")]
    tools[0]["name"] += "n"
    error = RESPONSES.refused(tools=[{"type": "namespace", "name": "a", "tools": tools}])
    assert (error["param"], error["code"]) == ("tools[0].tools[0].name", "string_above_max_length")


def test_too_many_tools_of_a_namespace() -> None:
    tools = [{"type": "namespace", "name": "a", "tools": [{**TIME, "name": f"t{i}"} for i in range(3)]}]
    assert RESPONSES.refused({"max_tools": 2}, tools=tools)["param"] == "tools"


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        (
            {**TIME, "defer_loading": True, "allowed_callers": ["a"]},
            ["tools[].allowed_callers", "tools[].defer_loading"],
        ),
        (SHELL, ["tools[].format"]),
        ({"type": "namespace", "name": "a", "description": "d", "tools": [TIME]}, ["tools[].description"]),
        ({"type": "namespace", "name": "a", "tools": [{**TIME, "x": 1}]}, ["tools[].tools[].x"]),
        ({"type": "web_search", "filters": {}}, ["tools[].web_search"]),
        ({"type": "mcp", "server_label": "x"}, ["tools[].mcp"]),
        ({"type": "local_shell"}, ["tools[].local_shell"]),
        ({"type": "foo"}, ["tools[].foo"]),
        ({**TIME, "function": {"name": "x", "parameters": CITY}}, ["tools[].function"]),
        (
            {"type": "function", "description": "d", "parameters": CITY, "strict": True, "function": {"name": "time"}},
            ["tools[].description", "tools[].parameters", "tools[].strict"],
        ),
    ],
    ids=json.dumps,
)
def test_what_has_no_effect_in_a_tool_is_listed(tool: Any, names: list[str]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", done())
    response = RESPONSES.post(fake, tools=[tool])
    assert response.status_code == 200
    assert sorted(set(response.headers["openai-compat-ignored"].split(", ")) - {"store"}) == names
    if tool["type"] != "function" and "tools[]." + tool["type"] in names:
        assert "tools" not in fake.requests[0].json


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("weather", ("function_call", None, "weather", "{}", "completed")),
        ("mcp__wx.weather", ("function_call", "mcp__wx", "weather", "{}", "completed")),
        ("mcp__wx__weather", ("function_call", "mcp__wx", "weather", "{}", "completed")),
        ("mcp__wx.sh", ("custom_tool_call", "mcp__wx", "sh", "", "completed")),
        ("sh", ("custom_tool_call", "mcp__wx", "sh", "", "completed")),
        ("nobody", ("function_call", None, "nobody", "{}", "completed")),
    ],
)
def test_a_call_has_the_client_s_name(name: str, item: Any) -> None:
    response = RESPONSES.answered(call(name), done(), tools=TOOLS)
    assert said(response) == [item]
    assert ("namespace" in response["output"][0]) is (item[1] is not None)


@pytest.mark.parametrize(
    "history",
    [
        {"name": "weather", "namespace": "mcp__wx"},
        {"name": "mcp__wx.weather"},
        {"name": "mcp__wx__weather"},
        {"name": "mcp__wx.weather", "namespace": "mcp__wx"},
        {"name": "mcp__wx__weather", "namespace": "mcp__wx"},
        {"name": "weather"},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
def test_the_history_s_spellings_of_a_namespace_are_one_name(history: Any, kind: str) -> None:
    item = {"type": kind, "call_id": "c", **history}
    found = sent(tools=[SPACE], input=[item])
    assert found["messages"][0]["tool_calls"][0]["function"]["name"] == "mcp__wx.weather"


def test_the_history_of_other_tools_keeps_its_names() -> None:
    items = [{"type": "function_call", "name": "a", "namespace": "b"}, {"type": "function_call", "name": "c"}]
    [message] = sent(tools=TOOLS, input=items)["messages"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["b.a", "c"]


def test_the_name_beside_a_result_is_the_tool_s() -> None:
    item = {"type": "function_call_output", "call_id": "c", "namespace": "mcp__wx", "name": "weather", "output": "x"}
    [message] = sent(tools=TOOLS, input=[item])["messages"]
    assert (message["tool_name"], message["tool_call_id"]) == ("mcp__wx.weather", "c")


def test_tools_whose_joined_names_are_equal_are_told_apart() -> None:
    tools = [{**TIME, "name": "a.b"}, {"type": "namespace", "name": "a", "tools": [{"type": "custom", "name": "b"}]}]
    first, second = [tool["function"]["name"] for tool in sent(tools=tools)["tools"]]
    assert (first, second) == ("a.b", "a.b_2")
    fake = FakeOllama()  # OpenAI's schema has no name with a point
    fake.script("/api/chat", call(first), call(second, input="x"), done())
    assert said(RESPONSES.post(fake, tools=tools).get_json()) == [
        ("function_call", None, "a.b", "{}", "completed"),
        ("custom_tool_call", "a", "b", "x", "completed"),
    ]
    history = [{"type": "custom_tool_call", "namespace": "a", "name": "b"}, {"type": "function_call", "name": "a.b"}]
    [message] = sent(tools=tools, input=history)["messages"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["a.b_2", "a.b"]


def test_a_name_that_two_namespaces_have_needs_its_namespace() -> None:
    tools = [{"type": "namespace", "name": name, "tools": [TIME]} for name in "ab"]
    response = RESPONSES.answered(call("time"), call("b.time"), done(), tools=tools)
    assert [item[1:3] for item in said(response)] == [(None, "time"), ("b", "time")]
    assert (
        RESPONSES.refused(tools=tools, tool_choice={"type": "function", "name": "time"})["param"] == "tool_choice.name"
    )


# -- custom tools -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"input": "aa"}, "aa"),
        ({"input": ""}, ""),
        ({"input": 'a\n"\u00e9'}, 'a\n"\u00e9'),
        ({"input": 1}, '{"input":1}'),
        ({"text": "aa"}, '{"text":"aa"}'),
        ({"input": None}, ""),
        ({}, ""),
    ],
)
def test_the_text_of_a_custom_call(arguments: Any, text: str) -> None:
    response = RESPONSES.answered(call("shell", **arguments), done(), tools=TOOLS)
    assert said(response) == [("custom_tool_call", None, "shell", text, "completed")]
    assert response["output"][0]["id"].startswith("ctc_")


def test_a_custom_call_and_its_output_are_history() -> None:
    items = [
        {
            "type": "custom_tool_call",
            "id": "ctc_1",
            "call_id": "c",
            "name": "shell",
            "input": "ls",
            "status": "completed",
        },
        {"type": "custom_tool_call_output", "id": "x", "call_id": "c", "output": "a.txt"},
    ]
    assert sent(tools=TOOLS, input=items)["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"index": 0, "name": "shell", "arguments": {"input": "ls"}}}],
        },
        {"role": "tool", "content": "a.txt", "tool_call_id": "c"},
    ]


# -- tool_choice ------------------------------------------------------------------------------

NAMED = {"type": "function", "name": "weather"}
CHAT_NAMED = {"type": "function", "function": {"name": "weather"}}
ALL_OF_SPACE = {"type": "namespace", "name": "mcp__wx"}


def allowed(mode: str | None, *tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


@pytest.mark.parametrize(
    ("choice", "names", "forced", "shown"),
    [
        (None, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ("auto", ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ({}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ("none", [], False, "none"),
        ("required", ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], True, "required"),
        (NAMED, ["weather"], True, NAMED),
        ({"name": "weather"}, ["weather"], True, NAMED),
        ({"type": "function", "function": {"name": "weather"}}, ["weather"], True, NAMED),
        ({"type": "custom", "name": "shell"}, ["shell"], True, {"type": "custom", "name": "shell"}),
        ({"type": "custom", "name": "sh"}, ["mcp__wx.sh"], True, {"type": "custom", "name": "sh"}),
        (
            {"type": "function", "name": "weather", "namespace": "mcp__wx"},
            ["mcp__wx.weather"],
            True,
            {"type": "function", "name": "weather", "namespace": "mcp__wx"},
        ),
        (allowed("auto", NAMED), ["weather"], False, allowed("auto", NAMED)),
        (allowed(None, NAMED), ["weather"], False, allowed("auto", NAMED)),
        (allowed("required", NAMED, {"type": "custom", "name": "shell"}), ["weather", "shell"], True, None),
        (allowed("required", {"type": "function", "function": {"name": "time"}}), ["time"], True, None),
        (allowed("auto", NAMED, {"type": "web_search"}), ["weather"], False, None),
        (allowed("auto", ALL_OF_SPACE), ["mcp__wx.weather", "mcp__wx.sh"], False, allowed("auto", ALL_OF_SPACE)),
        (allowed("required", ALL_OF_SPACE, NAMED), ["weather", "mcp__wx.weather", "mcp__wx.sh"], True, None),
        ({"type": "web_search_preview"}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, None),
        ({"type": "auto"}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ({"type": ""}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ({"type": "", "function": {}}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], False, "auto"),
        ({"type": "none"}, [], False, "none"),
        ({"type": "required"}, ["weather", "time", "shell", "mcp__wx.weather", "mcp__wx.sh"], True, "required"),
        ({"type": "", "name": "weather"}, ["weather"], True, NAMED),
        (allowed("", {"type": "", "name": "weather"}), ["weather"], False, allowed("auto", NAMED)),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHAT_NAMED]}},
            ["weather"],
            True,
            allowed("required", NAMED),
        ),
    ],
    ids=json.dumps,
)
def test_the_choice_of_tools(choice: Any, names: list[str], forced: bool, shown: Any) -> None:
    found = sent(tools=TOOLS, tool_choice=choice)
    assert [tool["function"]["name"] for tool in found.get("tools", ())] == names
    assert ("format" in found) is forced
    answer = say(json.dumps({"name": names[0], "parameters": {"input": "x"}})) if forced else say("a")
    response = RESPONSES.answered(answer, done(), tools=TOOLS, tool_choice=choice)
    assert shown is None or response["tool_choice"] == shown
    [item] = said(response)
    assert (item[0] != "text") is forced


@pytest.mark.parametrize("spelled", ["mcp__wx.sh", "mcp__wx__sh", "sh"])
@pytest.mark.parametrize(
    "choice",
    [
        None,
        allowed("auto", ALL_OF_SPACE),
        allowed("required", ALL_OF_SPACE),
        "required",
        {"type": "custom", "name": "sh"},
    ],
    ids=json.dumps,
)
def test_a_model_may_spell_the_tool_that_it_may_call_in_other_ways(choice: Any, spelled: str) -> None:
    expected = [("custom_tool_call", "mcp__wx", "sh", "ls", "completed")]
    answers = [call(spelled, input="ls")]
    if choice not in (None, allowed("auto", ALL_OF_SPACE)):
        answers.append(say(json.dumps({"name": spelled, "parameters": {"input": "ls"}})))
    for answer in answers:
        assert said(RESPONSES.answered(answer, done(), tools=TOOLS, tool_choice=choice)) == expected


def test_another_spelling_of_a_tool_that_may_not_be_called_is_no_way_to_it() -> None:
    choice = allowed("auto", NAMED)
    assert said(RESPONSES.answered(say("a"), call("sh", input="ls"), done(), tools=TOOLS, tool_choice=choice)) == [
        ("text", "a", [], "completed")
    ]


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "tool_choice, tools[].web_search"),
        (
            {"tool_choice": allowed("required", {"type": "web_search"}), "tools": TOOLS[:1]},
            "tool_choice, tool_choice.tools",
        ),
    ],
    ids=json.dumps,
)
def test_a_required_call_of_a_tool_that_is_not_run_is_listed(fields: dict[str, Any], listed: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    body = {"model": "demo", "input": "Hi", **fields}
    response = Client(OpenAICompat(fake)).post("/v1/responses", json=body)
    assert response.headers["openai-compat-ignored"] == listed
    assert "tools" not in fake.requests[0].json
    refused = Client(OpenAICompat(fake, unsupported="error")).post("/v1/responses", json=body)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({**NAMED, "mode": "auto", "tools": [NAMED]}, ["tool_choice.mode", "tool_choice.tools"]),
        ({**NAMED, "function": {"name": "time"}}, ["tool_choice.function"]),
        ({**NAMED, "function": {}, "mode": "", "tools": [], "allowed_tools": {}}, []),
        ({**allowed("required", NAMED), "name": "time"}, ["tool_choice.name"]),
        (
            {**allowed("required", NAMED), "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
            ["tool_choice.allowed_tools"],
        ),
        (
            {**allowed("auto"), "allowed_tools": {"mode": "required", "tools": [{**NAMED, "server_label": "x"}]}},
            ["tool_choice.allowed_tools.tools[].server_label", "tool_choice.mode"],
        ),
        ({"type": "required", "name": "weather"}, ["tool_choice.name"]),
        (
            allowed("required", NAMED, {**ALL_OF_SPACE, "namespace": "x"}, {"type": "mcp", "server_label": "x"}),
            ["tool_choice.tools", "tool_choice.tools[].namespace"],
        ),
    ],
    ids=json.dumps,
)
def test_what_has_no_effect_in_a_choice_is_listed(choice: Any, names: list[str]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", call("weather"), done())
    response = RESPONSES.post(fake, tools=[WEATHER, SPACE], tool_choice=choice)
    assert set(response.headers["openai-compat-ignored"].split(", ")) - {"store", "tools[].format"} == set(names)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        *[
            ({"tool_choice": {"type": kind}, "tools": TOOLS}, "tool_choice.type")
            for kind in ("any", "foo", "namespace")
        ],
        ({"tool_choice": {"function": {"name": "weather"}}, "tools": TOOLS}, "tool_choice.type"),
        ({"tool_choice": allowed("auto", {"type": "foo"}), "tools": TOOLS}, "tool_choice.tools[0].type"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}, "tools": TOOLS}, "tool_choice.tools"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": [NAMED]}}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [NAMED, {"type": "foo"}]}},
                "tools": TOOLS,
            },
            "tool_choice.allowed_tools.tools[1].type",
        ),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "any", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": 1, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice.name"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.name"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": TOOLS}, "tool_choice.name"),
        ({"tool_choice": {"type": "function", "name": "time", "namespace": "x"}, "tools": TOOLS}, "tool_choice.name"),
        ({"tool_choice": {"mode": "auto"}, "tools": TOOLS}, "tool_choice.type"),
        ({"tool_choice": allowed("maybe", NAMED), "tools": TOOLS}, "tool_choice.mode"),
        ({"tool_choice": allowed("auto"), "tools": TOOLS}, "tool_choice.tools"),
        (
            {"tool_choice": allowed("auto", NAMED, {"type": "function", "name": "x"}), "tools": TOOLS},
            "tool_choice.tools[1].name",
        ),
        ({"tool_choice": allowed("auto", {"type": "namespace"}), "tools": TOOLS}, "tool_choice.tools[0].name"),
        (
            {"tool_choice": allowed("auto", {"type": "namespace", "name": "mcp"}), "tools": TOOLS},
            "tool_choice.tools[0].name",
        ),
        ({"tool_choice": allowed("auto", 1), "tools": TOOLS}, "tool_choice.tools[0]"),
    ],
    ids=json.dumps,
)
def test_a_choice_that_is_none_is_named(fields: dict[str, Any], param: str) -> None:
    assert RESPONSES.refused(**fields)["param"] == param


WRITTEN = '{"name": "shell", "parameters": {"input": "aa"}}'
NATIVE = {"function": {"name": "shell", "arguments": {"input": "aa"}}}
WAYS: dict[str, list[Any]] = {
    "text": [*[say(WRITTEN[i : i + 3]) for i in range(0, len(WRITTEN), 3)], done()],
    "text at once": [say(WRITTEN), done()],
    "text on the last line": [{**done(), "message": {"role": "assistant", "content": WRITTEN}}],
    "another order": [say('{"parameters": {"input": "aa"}, "name": "shell"}'), done()],
    "fenced": [say(f"```json\n{WRITTEN}\n```"), done()],
    "native": [say(tool_calls=[NATIVE]), done()],
    "native after text": [say("I will."), say(tool_calls=[NATIVE]), done()],
    "after thinking": [say(f"<think>hm</think>{WRITTEN}"), done()],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", ["required", {"type": "custom", "name": "shell"}], ids=["required", "named"])
def test_a_forced_call_is_taken_whichever_way_it_is_written(way: str, choice: Any) -> None:
    response = RESPONSES.answered(*WAYS[way], tools=TOOLS, tool_choice=choice)
    *others, item = said(response)
    assert [other[0] for other in others] in ([], ["thinking"])
    assert item == ("custom_tool_call", None, "shell", "aa", "completed")


def test_what_a_forced_call_overrides_is_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(tool_calls=[{"function": {"name": "weather", "arguments": {}}}]), done())
    text = {"format": {"type": "json_object"}}
    fields = {"tool_choice": NAMED, "reasoning": {"effort": "high"}, "text": text, "top_logprobs": 1}
    response = RESPONSES.post(fake, tools=TOOLS[:2], **fields)
    names = set(response.headers["openai-compat-ignored"].split(", ")) - {"store"}
    assert names == {"reasoning.effort", "text.format", "top_logprobs"}
    assert fake.requests[0].json["think"] is False
