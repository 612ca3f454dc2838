"""Items as they are stored: complete, and in the form that OpenAI's schemas have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.errors import APIError
from openai_compat.translate.stored_items import to_stored_item
from tests.contract import check

URL = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "input_image", "image_url": URL, "detail": "auto"}


def stored(item: Any) -> dict[str, Any]:
    found = to_stored_item(Raw(json.dumps(item).encode()), "items[0]", lambda prefix: f"{prefix}1")
    value: dict[str, Any] = json.loads(found.body)
    assert value["id"] == found.id
    return value


def checked(item: Any) -> dict[str, Any]:
    """A stored item that OpenAI's lists accept."""
    value = stored(item)
    page = {"object": "list", "data": [value], "first_id": value["id"], "last_id": value["id"], "has_more": False}
    check("ResponseItemList", page)
    check("ConversationItemList", page)
    return value


def part(given: Any, role: str = "user") -> Any:
    [found] = checked({"role": role, "content": [given]})["content"]
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text", "text": "a"}, {"type": "input_text", "text": "a"}),
        ({"text": "a"}, {"type": "input_text", "text": "a"}),
        ({"type": "output_text", "text": None}, {"type": "input_text", "text": ""}),
        ({"type": "reasoning_text", "text": "a"}, {"type": "input_text", "text": "a"}),
        ({"type": "refusal", "refusal": "no"}, {"type": "input_text", "text": "no"}),
        ({"type": "image_url", "image_url": {"url": URL}}, IMAGE),
        ({"type": "image_url", "image_url": URL, "file_id": None}, IMAGE),
        ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, {**IMAGE, "detail": "low"}),
        ({"type": "input_image", "image_url": URL, "detail": None}, IMAGE),
        ({"type": "input_image", "image_url": URL, "detail": "medium"}, IMAGE),
        (
            {"type": "input_file", "file_data": "data:,x", "filename": None, "file_url": None, "detail": None},
            {"type": "input_file", "file_data": "data:,x"},
        ),
        (
            {"type": "file", "file": {"file_data": "data:,x", "filename": "a", "file_id": None}},
            {"type": "input_file", "file_data": "data:,x", "filename": "a"},
        ),
    ],
    ids=json.dumps,
)
def test_a_part_has_the_form_of_the_responses_api(given: Any, expected: Any) -> None:
    assert part(given) == expected
    [found] = checked({"type": "function_call_output", "call_id": "c", "output": [{"type": "text", **given}]})["output"]
    assert found == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"type": "text", "text": "a", "annotations": None},
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
        ),
        ({"type": "refusal", "refusal": "no", "text": None}, {"type": "refusal", "refusal": "no"}),
    ],
    ids=json.dumps,
)
def test_a_part_of_an_assistant(given: Any, expected: Any) -> None:
    assert part(given, "assistant") == expected


def test_a_part_of_an_unknown_type_stays_in_a_history_only() -> None:
    unknown = {"type": "thinking", "thinking": "x"}
    assert stored({"role": "assistant", "content": [unknown]})["content"] == [unknown]
    with pytest.raises(APIError) as raised:
        stored({"role": "user", "content": [unknown]})
    assert raised.value.param == "items[0].content[0]"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [{"type": "input_text", "text": 1}]}, "items[0].content[0].text"),
        ({"role": "user", "content": [{"x": 1}]}, "items[0].content[0].type"),
        ({"role": "user", "content": ["x"]}, "items[0].content[0]"),
        ({"role": 1, "content": "x"}, "items[0].role"),
        ({"type": "custom_tool_call", "name": "f", "input": 1}, "items[0].input"),
        ({"type": "function_call", "name": "f", "call_id": 1}, "items[0].call_id"),
    ],
    ids=json.dumps,
)
def test_what_no_request_could_go_on_from_is_named(item: Any, param: str) -> None:
    with pytest.raises(APIError) as raised:
        stored(item)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("item", "members"),
    [
        ({"role": "User", "content": "x", "status": None}, {"role": "user", "status": "completed"}),
        ({"role": "ASSISTANT", "content": "x", "phase": None}, {"role": "assistant"}),
        ({"role": "user", "content": None, "status": "new"}, {"content": [], "status": "completed"}),
        ({"type": "reasoning", "content": None, "status": None, "encrypted_content": None}, {"summary": []}),
        (
            {"type": "reasoning", "summary": "s", "content": "t"},
            {
                "summary": [{"type": "summary_text", "text": "s"}],
                "content": [{"type": "reasoning_text", "text": "t"}],
            },
        ),
        ({"type": "function_call", "id": "c", "name": "f"}, {"call_id": "c", "arguments": "{}"}),
        ({"type": "function_call", "call_id": "c", "id": "x", "name": "f", "namespace": None}, {"call_id": "c"}),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": None}, {"input": ""}),
        ({"type": "function_call_output", "output": None, "name": None}, {"output": ""}),
        (
            {"type": "function_call_output", "output": [{"type": "bug", "x": 1}]},
            {"output": '[{"type": "bug", "x": 1}]'},
        ),
        ({"type": "function_call_output", "output": []}, {"output": []}),
        ({"type": "custom_tool_call_output", "output": {"a": 1}}, {"output": '{"a": 1}', "call_id": "call_1"}),
        ({"type": "compaction", "encrypted_content": None}, {"encrypted_content": ""}),
    ],
    ids=json.dumps,
)
def test_an_item_is_completed(item: Any, members: dict[str, Any]) -> None:
    value = checked(item)
    assert {name: value[name] for name in members} == members


def test_items_of_other_types_are_kept_as_they_are_but_for_what_they_lack() -> None:
    item = {"type": "code_interpreter_call", "id": "x", "code": None}
    assert stored(item) == {**item, "id": "item_1", "status": "completed"}
