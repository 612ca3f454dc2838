"""The time that a response takes grows with its request and its answer, and not with their square: ratios only."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.native import types as native
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.custom_input import InputReader, custom_input
from openai_compat.translate.past_calls import PastCalls
from tests.bench.hostile import SIZE, cases, seconds
from tests.endpoints.requests import RESPONSES

pytestmark = pytest.mark.slow

CASES = {name: (run, make) for name, run, make in cases() if name.startswith(("items", "response"))}

#: of ten times as much; where time grows with the square it is 100
MOST = 30


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """A collection goes over all objects of the tests before, which are no part of what is measured."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", CASES)
def test_ten_times_as_much_takes_ten_times_as_long(name: str) -> None:
    run, make = CASES[name]
    small, large = seconds(run, make(SIZE)), seconds(run, make(10 * SIZE))
    assert large < MOST * max(small, 0.001)


def ask(lines: int = 1, stream: bool = False, **fields: Any) -> int:
    """The status; all of the answer is read."""
    fake = FakeOllama()
    fake.script("/api/chat", (json.dumps(say("x")) + "\n").encode() * lines, done())
    response = RESPONSES.post(fake, stream=stream, **fields)
    assert response.data
    return response.status_code


USER = {"role": "user", "content": "x"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
WHOLE: dict[str, Callable[[int], int]] = {
    "items": lambda n: ask(input=[USER] * (n // 10)),
    "calls": lambda n: ask(input=[CALL] * (n // 10)),
    "arguments": lambda n: ask(input=[USER, {**CALL, "arguments": json.dumps({"a": "x" * 50 * n})}]),
    "arguments that do not end": lambda n: ask(input=[USER, {**CALL, "arguments": '{"a":"' + "\\" * 50 * n}]),
    "deltas, streamed": lambda n: ask(n, stream=True),
    "deltas, whole": lambda n: ask(n),
    "a tool": lambda n: ask(
        tools=[{"type": "function", "name": "f", "parameters": {"properties": {f"p{i}": {} for i in range(n // 10)}}}]
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_request_of_ten_times_the_size(name: str) -> None:
    """10,000 items, arguments of 5 MB, 100,000 deltas."""

    def measured(size: int) -> float:
        began = time.process_time()
        assert WHOLE[name](size) == 200
        return time.process_time() - began

    small = min(measured(10_000) for _ in range(2))
    assert measured(100_000) < MOST * max(small, 0.01)


CUT: dict[str, Callable[[int], str]] = {
    "text": lambda n: '{"input":"' + "x" * n,
    "escapes": lambda n: '{"input":"' + "\\n" * (n // 2),
    "escaped quotes": lambda n: '{"input":"' + '\\"' * (n // 2),
    "backslashes": lambda n: '{"input":"' + "\\" * n,
    "quotes": lambda n: '{"input":"' + '"' * n,
    "blanks": lambda n: "{" + " " * n,
    "blanks after the name": lambda n: '{"input"' + " " * n + "x",
    "blanks before the text": lambda n: '{"input":' + " " * n,
}


@pytest.mark.parametrize("name", CUT)
def test_a_custom_call_that_was_cut(name: str) -> None:
    def measured(size: int) -> float:
        arguments, began = CUT[name](size), time.process_time()
        custom_input(arguments)
        return time.process_time() - began

    small = min(measured(300_000) for _ in range(3))
    assert measured(3_000_000) < MOST * max(small, 0.001)


@pytest.mark.parametrize("name", CUT)
def test_a_custom_call_in_parts(name: str) -> None:
    def measured(size: int) -> float:
        arguments, reader, began = CUT[name](size), InputReader(), time.process_time()
        for character in arguments:
            reader.feed(character)
        reader.end()
        return time.process_time() - began

    small = min(measured(20_000) for _ in range(3))
    assert measured(200_000) < MOST * max(small, 0.001)


@pytest.mark.parametrize("name", [None, "f"])
def test_results_without_ids(name: str | None) -> None:
    def measured(count: int) -> float:
        began, past = time.process_time(), PastCalls()
        for _ in range(count):
            past.add(native.ToolCall(native.ToolCallFunction("f"), "0"))
        for _ in range(count):
            past.answered(None, name)
        return time.process_time() - began

    small = min(measured(5_000) for _ in range(3))
    assert measured(50_000) < MOST * max(small, 0.001)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [{"type": "function_call_output", "output": "@"}]},
        {"input": [{"type": "reasoning", "content": "@"}]},
        {"input": [{"type": "function_call", "name": "f", "arguments": "@"}]},
        {"tools": [{"type": "function", "name": "f", "parameters": "@"}]},
        {"text": {"format": {"type": "json_schema", "schema": "@"}}},
        {"metadata": "@"},
        {"x": "@"},
    ],
    ids=json.dumps,
)
def test_deep_json_is_refused(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "demo", "input": "x", **fields}).replace('"@"', '{"a":' * 5_000 + "1" + "}" * 5_000)
    client = Client(OpenAICompat(FakeOllama()))
    response = client.post("/v1/responses", data=body, content_type="application/json")
    assert response.status_code == 400
    assert "nested" in response.get_json()["error"]["message"]
