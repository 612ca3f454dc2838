"""Items of the history become messages: neighbours are put together, so that a result follows its call."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.files import Files
from openai_compat.translate.items import from_items
from openai_compat.translate.response_tools import ToolNames
from openai_compat.translate.sealed_text import seal

USER = {"role": "user", "content": "u"}


def text(content: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": content}]}


def call(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


def result(id: str, output: Any = "r") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def thought(content: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs", "encrypted_content": seal(content, "reasoning"), "summary": []}


def raws(items: list[Any]) -> list[Raw]:
    return [Raw(json.dumps(item).encode()) for item in items]


def mapped(*items: Any, instructions: str | None = None) -> list[tuple[Any, ...]]:
    """Role, text, thinking and the ids of calls of each message; of a result, that of its call."""
    messages = from_items(raws(list(items)), ToolNames(), Ignored(Settings(), []), Files(), None, instructions)
    found = []
    for message in msgspec.json.decode(msgspec.json.encode(messages)):
        calls = [call["id"] for call in message.get("tool_calls", ())]
        rest = [message["tool_call_id"]] if "tool_call_id" in message else calls
        found.append((message["role"], message["content"], message.get("thinking"), *rest))
    return found


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([USER, text("a")], [("user", "u", None), ("assistant", "a", None)], id="text"),
        pytest.param([thought("t"), text("a")], [("assistant", "a", "t")], id="thinking, text"),
        pytest.param([thought("t"), thought("v"), text("a")], [("assistant", "a", "t\nv")], id="thinking twice"),
        pytest.param([text("a"), text("b")], [("assistant", "a", None), ("assistant", "b", None)], id="two texts"),
        pytest.param([thought("t")], [("assistant", "", "t")], id="thinking at the end"),
        pytest.param(
            [thought("t"), USER], [("assistant", "", "t"), ("user", "u", None)], id="thinking before the user"
        ),
        pytest.param([call("1"), call("2")], [("assistant", "", None, "1", "2")], id="calls"),
        pytest.param([text("a"), call("1")], [("assistant", "a", None, "1")], id="text, call"),
        pytest.param([thought("t"), call("1")], [("assistant", "", "t", "1")], id="thinking, call"),
        pytest.param(
            [thought("t"), call("1"), thought("v"), call("2")],
            [("assistant", "", "t\nv", "1", "2")],
            id="thinking between calls",
        ),
        pytest.param(
            [thought("t"), text("a"), thought("v"), call("1")],
            [("assistant", "a", "t\nv", "1")],
            id="thinking twice, call",
        ),
        pytest.param([USER, call("1")], [("user", "u", None), ("assistant", "", None, "1")], id="user, call"),
        pytest.param(
            [call("1"), call("2"), result("1"), result("2")],
            [("assistant", "", None, "1", "2"), ("tool", "r", None, "1"), ("tool", "r", None, "2")],
            id="results",
        ),
        pytest.param(
            [call("1"), result("1"), call("2"), result("2")],
            [
                ("assistant", "", None, "1"),
                ("tool", "r", None, "1"),
                ("assistant", "", None, "2"),
                ("tool", "r", None, "2"),
            ],
            id="one after the other",
        ),
        pytest.param(
            [call("1"), text("a"), result("1")],
            [("assistant", "a", None, "1"), ("tool", "r", None, "1")],
            id="text between call and result",
        ),
        pytest.param(
            [text("a"), call("1"), text("b"), result("1")],
            [("assistant", "a\nb", None, "1"), ("tool", "r", None, "1")],
            id="text around a call",
        ),
        pytest.param(
            [thought("t"), call("1"), thought("v"), result("1")],
            [("assistant", "", "t\nv", "1"), ("tool", "r", None, "1")],
            id="thinking between call and result",
        ),
        pytest.param(
            [call("1"), text("a"), thought("t"), text("b"), thought("v"), result("1")],
            [("assistant", "a\nb", "t\nv", "1"), ("tool", "r", None, "1")],
            id="much between call and result",
        ),
        pytest.param(
            [call("1"), text("a"), call("2"), result("1"), result("2")],
            [("assistant", "a", None, "1", "2"), ("tool", "r", None, "1"), ("tool", "r", None, "2")],
            id="text between calls",
        ),
        pytest.param(
            [call("1"), text("a"), call("2"), result("2"), result("1")],
            [
                ("assistant", "", None, "1"),
                ("assistant", "a", None, "2"),
                ("tool", "r", None, "2"),
                ("tool", "r", None, "1"),
            ],
            id="results in another order",
        ),
        pytest.param(
            [call("1"), text("a"), result("9")],
            [("assistant", "", None, "1"), ("assistant", "a", None), ("tool", "r", None, "9")],
            id="another's result",
        ),
        pytest.param(
            [call("1"), text("a"), USER, result("1")],
            [("assistant", "", None, "1"), ("assistant", "a", None), ("user", "u", None), ("tool", "r", None, "1")],
            id="the user between",
        ),
        pytest.param([result("1")], [("tool", "r", None, "1")], id="a result alone"),
    ],
)
def test_neighbours_are_put_together(items: list[Any], messages: list[Any]) -> None:
    assert mapped(*items) == messages


def test_instructions_come_first() -> None:
    assert mapped(USER, instructions="i") == [("system", "i", None), ("user", "u", None)]


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("x", "x"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], "ab"),
        ([{"type": "input_text", "text": "a"}, {"type": "resource", "x": 1}], "a"),
        ([{"type": "input_text", "text": None}, {"type": "text", "text": "b"}], "b"),
        (
            [{"type": "text", "name": "title"}, {"type": "number", "name": "age"}],
            '[{"type": "text", "name": "title"}, {"type": "number", "name": "age"}]',
        ),
        ([{"type": "text", "text": 5}], '[{"type": "text", "text": 5}]'),
        ([{"type": "text", "text": []}], '[{"type": "text", "text": []}]'),
        (
            [{"type": "text", "text": "a"}, {"type": "text", "x": 1}],
            '[{"type": "text", "text": "a"}, {"type": "text", "x": 1}]',
        ),
        ([{"type": "text", "text": "a"}, {"x": 1}], '[{"type": "text", "text": "a"}, {"x": 1}]'),
        ([{"type": "text", "text": "a", "detail": 1}], '[{"type": "text", "text": "a", "detail": 1}]'),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        ([{"type": "refusal", "by": "Ann"}], '[{"type": "refusal", "by": "Ann"}]'),
        ([{"type": "input_image"}], '[{"type": "input_image"}]'),
        ([{"type": "image_url", "image_url": {"x": 1}}], '[{"type": "image_url", "image_url": {"x": 1}}]'),
        ([{"type": "input_file", "filename": "a"}], '[{"type": "input_file", "filename": "a"}]'),
        ([{"type": "bug", "title": "x"}], '[{"type": "bug", "title": "x"}]'),
        ([{"title": "x"}], '[{"title": "x"}]'),
        ([1, 2], "[1, 2]"),
        (["a"], '["a"]'),
        ({"a": 1}, '{"a": 1}'),
        (1.5, "1.5"),
        (True, "true"),
    ],
    ids=json.dumps,
)
def test_the_output_of_a_call_is_text_parts_or_json(output: Any, content: str) -> None:
    assert mapped(result("1", output)) == [("tool", content, None, "1")]


def test_a_list_of_large_objects_is_the_output_of_a_call() -> None:
    large = [{"type": "text", **{str(i): i for i in range(2_000)}}]
    assert mapped(result("1", large)) == [("tool", json.dumps(large), None, "1")]


def test_an_image_in_the_output_of_a_call() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    ]
    [message] = from_items(raws([result("1", parts)]), ToolNames(), Ignored(Settings(), []), Files())
    assert (message.content, message.images) == ("a", ["iVBORw0KGgo="])


@pytest.mark.parametrize(
    ("item", "thinking"),
    [
        ({"encrypted_content": seal("t", "reasoning")}, "t"),
        ({"encrypted_content": "plain text of Ollama"}, "plain text of Ollama"),
        ({"content": [{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "b"}]}, "a\nb"),
        ({"encrypted_content": "gAAAAB", "content": [{"type": "reasoning_text", "text": "a"}]}, "a"),
        ({"encrypted_content": "gAAAAB"}, None),
        ({"encrypted_content": "", "summary": [{"type": "summary_text", "text": "s"}]}, None),
        ({"content": "text"}, "text"),
        ({"content": ["a", {"type": "reasoning_text", "text": "b"}]}, "a\nb"),
        ({"content": [1, {"text": 1}, {}]}, None),
        ({"content": 1}, None),
        ({}, None),
    ],
    ids=json.dumps,
)
def test_the_thinking_of_a_reasoning_item(item: Any, thinking: str | None) -> None:
    assert mapped({"type": "reasoning", **item}, text("a")) == [("assistant", "a", thinking)]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "reasoning", "encrypted_content": "gAAAAB", "summary": []}, "input[0].encrypted_content"),
        ({"type": "reasoning", "summary": []}, "input[0].encrypted_content"),
        ({"type": "compaction", "encrypted_content": "gAAAAB"}, "input[0].encrypted_content"),
    ],
    ids=json.dumps,
)
def test_an_item_that_cannot_be_read_is_named_where_nothing_else_is_said(item: Any, param: str) -> None:
    with pytest.raises(APIError) as raised:
        mapped(item, {"type": "b"})
    assert raised.value.param == param
    assert raised.value.message.startswith("input[0]: ")
    assert mapped(item, USER) == [("user", "u", None)]


def test_a_compaction_is_a_message_of_the_user() -> None:
    item = {"type": "compaction", "encrypted_content": seal("so far", "compaction")}
    assert mapped(item, USER)[0] == ("user", "Summary of the conversation so far:\n\nso far", None)


def test_an_unknown_item_is_an_error_where_nothing_else_is_said() -> None:
    with pytest.raises(APIError) as raised:
        mapped({"type": "a"}, {"type": "b"})
    assert raised.value.param == "input[0].type"
    assert raised.value.message == 'input[0]: unknown input item type: "a"'
    assert mapped({"type": "a"}, USER) == [("user", "u", None)]


def test_a_result_without_the_id_of_its_call() -> None:
    item = {"type": "function_call_output", "output": "r"}
    assert mapped(call("1"), item) == [("assistant", "", None, "1"), ("tool", "r", None, "1")]
    assert mapped(USER, item) == [("user", "u", None), ("tool", "r", None)]
    assert mapped(call("1"), call("2"), item, item, item) == [
        ("assistant", "", None, "1", "2"),
        ("tool", "r", None, "1"),
        ("tool", "r", None, "2"),
        ("tool", "r", None),
    ]
    assert mapped(call("1"), call("2"), result("1"), item)[2:] == [("tool", "r", None, "2")]
    assert mapped(call("1"), USER, call("2"), item)[3:] == [("tool", "r", None, "2")]


def test_a_result_without_an_id_follows_its_call() -> None:
    item = {"type": "function_call_output", "call_id": "", "output": "r"}
    assert mapped(call("1"), text("a"), item) == [("assistant", "a", None, "1"), ("tool", "r", None, "1")]
    named = {"type": "custom_tool_call_output", "name": "g", "output": "r"}
    assert mapped(call("1"), {**call("2"), "name": "g"}, named)[1:] == [("tool", "r", None, "2")]


def test_a_result_of_a_call_without_an_id_has_its_name() -> None:
    items = [{"type": "function_call", "name": "f"}, text("a"), {"type": "function_call_output", "output": "r"}]
    sent = from_items(raws(items), ToolNames(), Ignored(Settings(), []), Files())
    assert json.loads(msgspec.json.encode(sent)) == [
        {"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {}, "index": 0}}]},
        {"role": "tool", "content": "r", "tool_name": "f"},
    ]


def test_what_a_search_found_answers_the_search() -> None:
    search = {"type": "tool_search_call", "execution": "client", "call_id": "2", "arguments": {}}
    found = {"type": "tool_search_output", "execution": "client", "tools": [{"type": "function", "name": "f"}]}
    assert mapped(call("1"), search, found)[1:] == [("tool", "f", None, "2")]


def test_images_between_a_call_and_its_result_are_kept() -> None:
    part = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    items = [call("1"), {"role": "assistant", "content": [part]}, result("1")]
    first, second = from_items(raws(items), ToolNames(), Ignored(Settings(), []), Files())
    assert (first.role, first.images, second.role) == ("assistant", ["iVBORw0KGgo="], "tool")
