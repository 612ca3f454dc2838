"""Tools that come with the input: those that Codex adds, and those of a search that the client runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_events, said
from tests.endpoints.requests import RESPONSES
from tests.endpoints.test_responses_state import Keeping

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools", "parameters": SCHEMA}
USER = {"role": "user", "content": "x"}
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
SPACE = {"type": "namespace", "name": "mcp__wx", "description": "d", "tools": [WEATHER]}
CALL = {"type": "tool_search_call", "id": "tsc_1", "call_id": "c1", "execution": "client", "arguments": {"query": "q"}}
FOUND = {"type": "tool_search_output", "call_id": "c1", "execution": "client", "status": "completed", "tools": [SPACE]}
ADDED = {"type": "additional_tools", "role": "developer", "tools": [SPACE, {"type": "custom", "name": "apply_patch"}]}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return say(tool_calls=[{"function": {"name": name, "arguments": arguments}}])


def sent(**fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    assert RESPONSES.post(fake, **fields).status_code == 200
    return fake.requests[0].json  # type: ignore[no-any-return]


def names(request: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in request.get("tools", ())]


# -- additional tools -------------------------------------------------------------------------


def test_added_tools_are_tools_of_the_request() -> None:
    fields = {"input": [ADDED, USER], "tools": [{"type": "function", "name": "f"}]}
    assert names(sent(**fields)) == ["f", "mcp__wx.get_weather", "apply_patch"]
    lines = call("mcp__wx.get_weather", {}), call("apply_patch", {"input": "p"}), done()
    assert said(RESPONSES.answered(*lines, **fields)) == [
        ("function_call", "mcp__wx", "get_weather", "{}", "completed"),
        ("custom_tool_call", None, "apply_patch", "p", "completed"),
    ]


def test_added_tools_alone_say_nothing() -> None:
    assert RESPONSES.refused(input=[ADDED])["param"] == "input"


@pytest.mark.parametrize("tools", [None, []])
def test_no_tools_are_added(tools: Any) -> None:
    assert "tools" not in sent(input=[{**ADDED, "tools": tools}, USER])


def test_a_tool_that_is_added_again_is_sent_once_as_it_came_last() -> None:
    again = {"type": "additional_tools", "tools": [{**WEATHER, "description": "new"}]}
    request = sent(tools=[WEATHER], input=[again, USER, again])
    assert [tool["function"].get("description") for tool in request["tools"]] == ["new"]


def test_two_tools_of_one_name_are_one_and_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", call("f", {"input": "t"}), done())
    response = RESPONSES.post(fake, tools=[{"type": "function", "name": "f"}, {"type": "custom", "name": "f"}])
    assert response.headers["openai-compat-ignored"] == "tools[].name"
    assert names(fake.requests[0].json) == ["f"]
    assert said(response.get_json()) == [("custom_tool_call", None, "f", "t", "completed")]


def test_added_tools_may_be_chosen() -> None:
    choice = {"type": "function", "name": "get_weather", "namespace": "mcp__wx"}
    answer = say(json.dumps({"name": "mcp__wx.get_weather", "parameters": {}}))
    response = RESPONSES.answered(answer, done(), input=[ADDED, USER], tool_choice=choice)
    assert said(response) == [("function_call", "mcp__wx", "get_weather", "{}", "completed")]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([5], "input[1].tools[0]"),
        ("x", "input[1].tools"),
        ([{"type": "function"}], "input[1].tools[0].name"),
        ([{**SPACE, "tools": [{"type": "custom"}]}], "input[1].tools[0].tools[0].name"),
    ],
    ids=json.dumps,
)
def test_a_bad_tool_is_named_by_its_path(tools: Any, param: str) -> None:
    assert RESPONSES.refused(input=[USER, {**ADDED, "tools": tools}])["param"] == param


def test_too_many_tools_are_added() -> None:
    many = {**ADDED, "tools": [{"type": "function", "name": f"f{i}"} for i in range(3)]}
    assert RESPONSES.refused({"max_tools": 2}, input=[USER, many])["param"] == "input[1].tools"
    assert len(names(sent(input=[USER, *[{**ADDED, "tools": [{**WEATHER}]}] * 200]))) == 1


def test_what_is_unknown_of_an_item_is_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    response = RESPONSES.post(fake, input=[{**ADDED, "x": 1, "tools": [{**WEATHER, "y": 1}]}, USER])
    assert response.headers["openai-compat-ignored"] == "input[].tools[].y, input[].x"


def test_added_tools_stay_in_the_history() -> None:
    keeping = Keeping()
    first = keeping.ask(say("a"), done(), input=[ADDED, USER])["id"]
    keeping.ask(call("get_weather", {}), done(), input="y", previous_response_id=first)
    assert names(keeping.fake.requests[-1].json) == ["mcp__wx.get_weather", "apply_patch"]


# -- a search of the client -------------------------------------------------------------------


def test_a_search_of_the_client_is_a_function() -> None:
    [tool] = sent(tools=[SEARCH])["tools"]
    assert tool["function"] == {"name": "tool_search", "description": "Finds tools", "parameters": SCHEMA}


@pytest.mark.parametrize("execution", [None, "server"])
def test_a_search_of_openai_is_not_supported(execution: Any) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    tools = [{"type": "tool_search", "execution": execution}, WEATHER]
    items = [{**CALL, "execution": execution}, {**FOUND, "execution": execution}, USER]
    response = RESPONSES.post(fake, tools=tools, input=items)
    expected = ["input[].tool_search_call", "input[].tool_search_output", "tools[].tool_search"]
    assert sorted(response.headers["openai-compat-ignored"].split(", ")) == expected
    assert names(fake.requests[0].json) == ["get_weather"]
    assert [message["role"] for message in fake.requests[0].json["messages"]] == ["user"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_is_a_call_of_its_own_type(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("I look."), call("tool_search", {"query": "w"}), done())
    response = RESPONSES.post(fake, tools=[SEARCH], stream=stream)
    answer = check_events(response.data)[-1]["response"] if stream else response.get_json()
    check("Response", answer)
    assert said(answer) == [
        ("text", "I look.", [], "completed"),
        ("tool_search_call", "client", {"query": "w"}, "completed"),
    ]
    assert answer["output"][1]["id"].startswith("tsc_")


def test_a_required_search_that_is_cut_has_no_arguments() -> None:
    lines = say('{"name":"tool_search","parameters":{"query":"w'), done("length")
    response = RESPONSES.answered(*lines, tools=[SEARCH], tool_choice="required")
    assert said(response) == [("tool_search_call", "client", {}, "incomplete")]


def test_found_tools_are_tools_and_the_search_is_history() -> None:
    request = sent(tools=[SEARCH], input=[USER, CALL, FOUND])
    assert names(request) == ["tool_search", "mcp__wx.get_weather"]
    function = {"index": 0, "name": "tool_search", "arguments": {"query": "q"}}
    assert request["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": function}]},
        {"role": "tool", "content": "mcp__wx.get_weather", "tool_call_id": "c1"},
    ]


def test_a_tool_that_was_found_twice_is_told_once() -> None:
    request = sent(tools=[SEARCH], input=[USER, CALL, {**FOUND, "tools": [SPACE, WEATHER, SPACE]}])
    assert request["messages"][-1]["content"] == "mcp__wx.get_weather\nget_weather"


def test_nothing_was_found() -> None:
    request = sent(tools=[SEARCH], input=[USER, CALL, {**FOUND, "tools": []}])
    assert request["messages"][-1]["content"] == "No tools were found."


def test_a_search_goes_on_from_the_store() -> None:
    keeping = Keeping()
    first = keeping.ask(call("tool_search", {"query": "w"}), done(), tools=[SEARCH])
    found = {**FOUND, "call_id": first["output"][0]["call_id"]}
    keeping.ask(say("a"), done(), input=[found], tools=[SEARCH], previous_response_id=first["id"])
    request = keeping.fake.requests[-1].json
    assert names(request) == ["tool_search", "mcp__wx.get_weather"]
    assert [message["role"] for message in request["messages"]] == ["user", "assistant", "tool"]
