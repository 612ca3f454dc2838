"""Compaction: a conversation is made short, by a request of its own or by the last item of an input."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from tests.contract import check_events
from tests.endpoints.requests import RESPONSES

TRIGGER = {"type": "compaction_trigger"}
CALL = {"function": {"name": "f", "arguments": {}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def last_line(**message: Any) -> dict[str, Any]:
    """A final line that also says something."""
    return {**done(), "message": {"role": "assistant", "content": "", **message}}


# -- a trigger in the input -------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [done()],
        [last_line(content=" \n")],
        [last_line(thinking="Hm.")],
        [last_line(tool_calls=[CALL])],
        [say(thinking="Hm."), done()],
    ],
    ids=["empty", "blanks", "thinking", "a call", "thinking before"],
)
def test_a_stream_without_a_summary_has_its_first_events(steps: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = RESPONSES.post(fake, stream=True, input=[user("1"), TRIGGER])
    events = check_events(response.data)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert events[2]["code"] == "compaction_failed"
