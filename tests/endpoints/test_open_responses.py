"""The cases of the Open Responses compliance suite, as data: what its clients send, and what they must get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from tests.contract import DATA, check, check_events, check_response

CASES = json.loads((DATA / "open_responses.json").read_text())


def client(**settings: Any) -> Client:
    return Client(OpenAICompat(FakeOllama(), aliases={"*": "demo-tools"}, **settings))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_a_case_is_answered(case: dict[str, Any], stream: bool) -> None:
    response = client().post("/v1/responses", json={"model": "m", **case["body"], "stream": stream})
    assert response.status_code == 200, response.data
    if stream:
        events = check_events(response.data)
        found = events[-1]["response"]
        types = [event["type"] for event in events]
        calls = [f"response.function_call_arguments.{part}" for part in ("delta", "done")]
        assert all((name in types) == ("function_call" in case["types"]) for name in calls)
    else:
        found = check_response(response.get_json())
    assert (found["status"], [item["type"] for item in found["output"]]) == ("completed", case["types"])
    assert set(CASES["required"]) <= set(found)


def test_a_conversation_is_compacted_and_goes_on() -> None:
    history = CASES["cases"][4]["body"]["input"]
    compacted = client().post("/v1/responses/compact", json={"model": "m", "input": history})
    check("CompactResource", compacted.get_json())
    assert [item["type"] for item in compacted.get_json()["output"]] == ["message", "message", "compaction"]
    items = [*compacted.get_json()["output"], {"role": "user", "content": "What is my name?"}]
    found = check_response(client().post("/v1/responses", json={"model": "m", "input": items}).get_json())
    assert found["status"] == "completed"
