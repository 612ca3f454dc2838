"""Several choices of one chat: in process one after the other, behind a URL side by side."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, Gate, done, say
from tests.contract import check, check_stream, frames
from tests.endpoints.requests import MESSAGES, answered, post, refused
from tests.servers import live


def three(fake: FakeOllama, *, prompt: int = 2) -> FakeOllama:
    for i in range(3):
        fake.script("/api/chat", say(f"a{i}"), say(f"b{i}"), done(prompt=prompt, made=i + 1))
    return fake


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        found[choice["index"]] = found.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return found


def check_choices(body: bytes, n: int) -> list[dict[str, Any]]:
    """The chunks of a stream of several choices that ended well."""
    *chunks, last = frames(body)
    assert last == "[DONE]"
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [(choice["index"], choice["delta"].get("role")) for choice in choices[:n]] == [
        (i, "assistant") for i in range(n)
    ]
    assert not any("role" in choice["delta"] for choice in choices[n:])
    finished = [choice["index"] for choice in choices if choice["finish_reason"]]
    assert sorted(finished) == list(range(n))
    for index in range(n):
        assert [choice["delta"] for choice in choices if choice["index"] == index][-1] == {}
    return chunks


# -- in process -------------------------------------------------------------------------------


def test_choices_are_indexed_and_usage_is_their_sum() -> None:
    fake = three(FakeOllama())
    response = post(fake, n=3)
    check("CreateChatCompletionResponse", response.get_json())
    completion = response.get_json()
    assert [(choice["index"], choice["message"]["content"]) for choice in completion["choices"]] == [
        (0, "a0b0"),
        (1, "a1b1"),
        (2, "a2b2"),
    ]
    usage = completion["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (6, 6, 12)
    assert fake.opened == fake.closed == 3


@pytest.mark.parametrize(
    ("fields", "seeds"),
    [
        ({"seed": 7}, [7, 8, 9]),
        ({}, [None] * 3),
        ({"options": {"seed": 1}}, [1, 2, 3]),
        ({"seed": -1}, [-1] * 3),
        ({"seed": 2**63 - 1}, [2**63 - 1] * 3),
    ],
)
def test_each_choice_has_a_seed_of_its_own(fields: dict[str, Any], seeds: list[Any]) -> None:
    fake = three(FakeOllama())
    post(fake, n=3, **fields)
    assert [request.json["options"].get("seed") for request in fake.requests] == seeds


def test_an_application_in_process_is_called_once_the_one_before_has_ended() -> None:
    fake = three(FakeOllama())
    running: list[int] = []
    threads: set[int] = set()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        assert not running
        running.append(1)
        threads.add(threading.get_ident())
        body = fake(environ, start_response)
        try:
            yield from body
        finally:
            running.pop()
            body.close()  # type: ignore[attr-defined]

    body = {"model": "demo", "messages": MESSAGES, "n": 3, "stream": True}
    response = Client(OpenAICompat(app)).post("/v1/chat/completions", json=body)
    assert texts(check_choices(response.data, 3)) == {0: "a0b0", 1: "a1b1", 2: "a2b2"}
    assert threads == {threading.get_ident()}


def test_usage_comes_last_in_a_stream_of_choices() -> None:
    response = post(three(FakeOllama()), n=3, stream=True, stream_options={"include_usage": True})
    chunks = check_choices(response.data, 3)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 12
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_the_first_failure_is_the_request_s() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    fake.script("/api/chat", b'{"error":"busy"}', status="503 X")
    response = post(fake, n=3)
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "overloaded")
    assert fake.opened == fake.closed == 2


def test_a_later_failure_is_the_last_event() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    fake.script("/api/chat", b'{"error":"busy"}', status="503 X")
    *chunks, last = frames(post(fake, n=2, stream=True).data)
    assert texts(chunks) == {0: "a", 1: ""}
    assert last["error"]["code"] == "overloaded"
    assert fake.opened == fake.closed == 2


@pytest.mark.parametrize(("settings", "n"), [({}, 8), ({"max_n": 2}, 2)])
def test_the_limit_is_a_setting(settings: dict[str, Any], n: int) -> None:
    assert len(post(FakeOllama(), settings, n=n).get_json()["choices"]) == n
    assert refused(settings, n=n + 1)["param"] == "n"


def test_a_model_that_cannot_think_is_found_out_once() -> None:
    fake = FakeOllama()
    response = post(fake, n=3, think="high")
    assert response.status_code == 200
    assert response.headers["openai-compat-ignored"] == "think"
    assert [request.json.get("think") for request in fake.requests] == ["high", None, None, None]


def test_choices_call_tools_each_on_its_own() -> None:
    fake = FakeOllama()
    for name in ("f", "g"):
        fake.script("/api/chat", say(tool_calls=[{"function": {"name": name, "arguments": {}}}]), done())
    chunks = check_choices(post(fake, n=2, stream=True).data, 2)
    calls = [
        (choice["index"], call["index"], call["function"]["name"])
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert calls == [(0, 0, "f"), (1, 0, "g")]


def test_nothing_is_asked_for_n_times() -> None:
    found = answered(say("x"), done(prompt=5), n=1, max_tokens=0)
    assert found["usage"]["prompt_tokens"] == 5
    completion = post(three(FakeOllama()), n=3, max_tokens=0).get_json()
    assert [choice["message"]["content"] for choice in completion["choices"]] == [""] * 3
    assert completion["usage"]["completion_tokens"] == 0


# -- behind a URL -----------------------------------------------------------------------------


class BySeed:
    """An Ollama that answers by the seed: several threads ask, in any order."""

    def __init__(self, *answers: list[Any]) -> None:
        self.fakes = [FakeOllama() for _ in answers]
        for fake, steps in zip(self.fakes, answers, strict=True):
            kind = next((step for step in steps if isinstance(step, bytes)), None)
            fake.script("/api/chat", *steps, status="503 X" if kind else "200 OK")

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = Input(body)
        return self.fakes[json.loads(body)["options"]["seed"]](environ, start_response)  # type: ignore[return-value]


class Input:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        return self._body


def ask(url: str, **fields: Any) -> Any:
    body = {"model": "demo", "messages": MESSAGES, "seed": 0, **fields}
    return Client(OpenAICompat(url)).post("/v1/chat/completions", json=body)


def test_choices_are_made_side_by_side() -> None:
    gates = [Gate() for _ in range(3)]
    app = BySeed(*[[say(f"a{i}"), gate, say(f"b{i}"), done()] for i, gate in enumerate(gates)])
    with live(app) as url:
        response = ask(url, n=3, stream=True)
        items = iter(response.response)
        got = b""
        for i in (2, 0, 1):  # the order in which they go on is theirs
            assert gates[i].reached.wait(10)
            gates[i].open()
            while f'"b{i}"'.encode() not in got:
                got += next(items)  # type: ignore[call-overload]
        got += b"".join(items)  # type: ignore[arg-type]
        response.close()
    assert texts(check_choices(got, 3)) == {0: "a0b0", 1: "a1b1", 2: "a2b2"}


def test_whole_choices_behind_a_url() -> None:
    app = BySeed(*[[say(f"a{i}"), done(made=1)] for i in range(4)])
    with live(app) as url:
        completion = ask(url, n=4).get_json()
    assert [choice["message"]["content"] for choice in completion["choices"]] == ["a0", "a1", "a2", "a3"]
    assert completion["usage"]["completion_tokens"] == 4


def test_one_that_fails_before_the_head_fails_the_request() -> None:
    gate = Gate()
    app = BySeed([gate, say("a"), done()], [b'{"error":"busy"}'])
    with live(app) as url:
        response = ask(url, n=2, stream=True)
        assert (response.status_code, response.get_json()["error"]["code"]) == (503, "overloaded")
        gate.open()


def test_all_are_closed_together() -> None:
    gates = [Gate(30.0), Gate(30.0)]
    app = BySeed(*[[say("a"), gate, say("b"), done()] for gate in gates])
    with live(app) as url:
        response = ask(url, n=2, stream=True)
        next(iter(response.response))  # type: ignore[call-overload]
        response.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("openai-compat-")]
        for gate in gates:
            gate.open()


def test_a_choice_whose_call_is_out_is_left_alone() -> None:
    call = say(tool_calls=[{"function": {"name": "f", "arguments": {}}}])
    gate = Gate(30.0)
    app = BySeed([call, gate, call, done()], [say("x"), done()])
    with live(app) as url:
        body = ask(url, n=2, stream=True, parallel_tool_calls=False, tools=[TOOL]).data
        gate.open()
    reasons = {
        choice["index"]: choice["finish_reason"]
        for chunk in check_choices(body, 2)
        for choice in chunk["choices"]
        if choice["finish_reason"]
    }
    assert reasons == {0: "tool_calls", 1: "stop"}


TOOL = {"type": "function", "function": {"name": "f"}}


def test_one_choice_needs_no_thread() -> None:
    with live(BySeed([say("a"), done()])) as url:
        before = threading.active_count()
        response = ask(url, stream=True)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("openai-compat-")] == []
        assert before
        assert check_stream(response.data)
