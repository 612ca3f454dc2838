"""The newest compaction that can be read takes the place of what precedes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.errors import APIError
from openai_compat.translate.compaction import uncompacted
from openai_compat.translate.sealed_text import seal

USER = {"role": "user", "content": "u"}
TYPED = {"type": "message", "role": "User", "content": [{"type": "input_text", "text": "compaction"}]}
SYSTEM = {"role": "system", "content": "s"}
DEVELOPER = {"role": "developer", "content": "d"}
OTHER = {"role": "control", "content": "thinking"}
ASSISTANT = {"role": "assistant", "content": "a"}
TOOL = {"role": "tool", "content": "r"}
CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "1", "output": "r"}
THOUGHT = {"type": "reasoning", "encrypted_content": seal("t", "reasoning"), "summary": []}
UNKNOWN = {"type": "web_search_call", "id": "ws_1"}
FOREIGN = {"type": "compaction", "encrypted_content": "gAAAAB"}
OWN = {"type": "compaction", "encrypted_content": seal("so far", "compaction")}
NEWER = {"type": "compaction", "id": "cmp_1", "encrypted_content": seal("so far and on", "compaction")}


def kept(*items: Any) -> list[Any]:
    found = list(uncompacted([Raw(json.dumps(item).encode()) for item in items]))
    assert [json.loads(bytes(raw)) for _, raw in found] == [items[i] for i, _ in found]
    return [items[i] for i, _ in found]


@pytest.mark.parametrize(
    ("items", "remaining"),
    [
        ([], []),
        ([USER, ASSISTANT, CALL, RESULT], [USER, ASSISTANT, CALL, RESULT]),
        ([OWN], [OWN]),
        ([OWN, USER, ASSISTANT], [OWN, USER, ASSISTANT]),
        ([USER, ASSISTANT, OWN, USER, ASSISTANT], [USER, OWN, USER, ASSISTANT]),
        ([SYSTEM, DEVELOPER, TYPED, OTHER, OWN], [SYSTEM, DEVELOPER, TYPED, OTHER, OWN]),
        ([CALL, RESULT, THOUGHT, TOOL, UNKNOWN, FOREIGN, OWN, THOUGHT, CALL, RESULT], [OWN, THOUGHT, CALL, RESULT]),
        ([USER, OWN, USER, NEWER, OWN, USER], [USER, USER, OWN, USER]),
        ([OWN, USER, ASSISTANT, NEWER], [USER, NEWER]),
        ([{"type": "message"}, {"role": 5}, OWN], [{"type": "message"}, {"role": 5}, OWN]),
    ],
    ids=range(10),
)
def test_the_newest_compaction_replaces_what_precedes_it(items: list[Any], remaining: list[Any]) -> None:
    assert kept(*items) == remaining


@pytest.mark.parametrize(
    "item",
    [
        FOREIGN,
        {"type": "compaction"},
        {"type": "compaction", "encrypted_content": None},
        {"type": "compaction", "encrypted_content": 5},
        {"type": "compaction", "encrypted_content": seal("", "compaction")},
        {"type": "compaction", "encrypted_content": seal("t", "reasoning")},
        {**OWN, "type": "context_compaction"},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_read_replaces_nothing(item: Any) -> None:
    assert kept(USER, ASSISTANT, item, USER) == [USER, ASSISTANT, item, USER]
    assert kept(USER, ASSISTANT, OWN, ASSISTANT, item) == [USER, OWN, ASSISTANT, item]


def test_an_item_without_a_type_is_an_error() -> None:
    with pytest.raises(APIError) as raised:
        kept(USER, {"content": "x"}, OWN)
    assert raised.value.param == "input[1].type"
