"""Compaction: a conversation is made short, by a request of its own or by the last item of an input."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_events, check_response
from tests.endpoints.requests import RESPONSES, Endpoint

COMPACT = Endpoint("/v1/responses/compact", "/api/chat", {"model": "demo", "input": "Hello"}, done())
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


@pytest.mark.parametrize("stream", [False, True])
def test_a_summary_that_is_cut_is_an_incomplete_response(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("They"), done("length"))
    response = RESPONSES.post(fake, stream=stream, input=[user("1"), TRIGGER])
    found = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    assert (found["status"], found["output"]) == ("incomplete", [])


# -- a request to compact ---------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[say("They"), done("length")], [last_line(content="They") | {"done_reason": "length"}]])
def test_a_part_of_a_summary_replaces_nothing(steps: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = COMPACT.post(fake)
    error = response.get_json()["error"]
    check("ErrorResponse", response.get_json())
    assert (response.status_code, error["code"]) == (502, "compaction_failed")
    assert response.headers["x-should-retry"] == "false"
    assert fake.opened == fake.closed == 1
