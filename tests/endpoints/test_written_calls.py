"""Every form of a written call through the endpoints, in whatever pieces, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.testing import done, say
from openai_compat.wire import json as wire
from tests.endpoints.requests import RESPONSES, answered, streamed
from tests.structured.written.tools import CUTS, ROWS, TOOLS, pieces

TOOLS_OF_CHAT = [
    {"type": "function", "function": json.loads(wire.encode(tool.function))} for tool in TOOLS
]  # what a client sends
TOOLS_OF_RESPONSES = [{"type": "function", **tool["function"]} for tool in TOOLS_OF_CHAT]

pytestmark = pytest.mark.slow  # what the scanner makes of each row is tested in its own room, too

every_row = pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])


def expected(row: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    calls = [(call["name"], call["arguments"]) for call in row["calls"]]
    text = row.get("left", "") + row.get("held", "") if calls else row["text"]
    return "" if calls and not text.strip() else text, calls


@every_row
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat(row: dict[str, Any], cut: int | None, stream: bool) -> None:
    lines = [*[say(piece) for piece in pieces(row["text"], cut)], done()]
    text, calls = expected(row)
    reason = "tool_calls" if calls else "stop"
    if not stream:
        [choice] = answered(*lines, tools=TOOLS_OF_CHAT)["choices"]
        message = choice["message"]
        found = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
        assert (message["content"] or "", found, choice["finish_reason"]) == (text, calls, reason)
        return
    choices = [choice for chunk in streamed(*lines, tools=TOOLS_OF_CHAT) for choice in chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    made = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["name"], call["arguments"]) for call in made] == calls
    assert choices[-1]["finish_reason"] == reason


@every_row
def test_a_response(row: dict[str, Any]) -> None:
    lines = [*[say(piece) for piece in pieces(row["text"], 7)], done()]
    text, calls = expected(row)
    output = RESPONSES.answered(*lines, tools=TOOLS_OF_RESPONSES)["output"]  # streamed and whole
    found = [(item["name"], item["arguments"]) for item in output if item["type"] == "function_call"]
    parts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    assert (found, "".join(parts)) == (calls, text)
