"""The scriptable Ollama, which other programs' tests may use too."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, Gate, Step, done, say
from openai_compat.testing.demo import VERSION
from tests.contract import frames
from tests.servers import TIMEOUT

CHAT = "/api/chat"


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama()


def ask(fake: FakeOllama, path: str = CHAT, **request: Any) -> TestResponse:
    """One request, linted and read to its end."""
    with Client(validator(fake)).post(path, json={"model": "demo", **request}) as response:
        response.get_data()
        return response


def environ() -> Any:
    return EnvironBuilder(method="POST", path=CHAT, json={"model": "demo"}).get_environ()


def items(fake: FakeOllama) -> Iterator[bytes]:
    """The items of an answer, one at a time."""
    return iter(fake(environ(), lambda *head: print))


# -- lines ------------------------------------------------------------------------------------


def test_say_makes_a_line_with_a_message() -> None:
    line = say("Hello")
    assert line["message"] == {"role": "assistant", "content": "Hello"}
    assert line["done"] is False


def test_say_with_further_keys() -> None:
    calls = [{"function": {"name": "f", "arguments": {}}}]
    message = say(thinking="Hm.", tool_calls=calls)["message"]
    assert message == {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls}


def test_done_makes_the_last_line() -> None:
    line = done()
    assert (line["done"], line["done_reason"], line["message"]["content"]) == (True, "stop", "")
    assert (line["prompt_eval_count"], line["eval_count"]) == (1, 1)


def test_done_with_counts_and_further_keys() -> None:
    line = done("length", prompt=5, made=7, total_duration=9)
    assert (line["done_reason"], line["prompt_eval_count"], line["eval_count"]) == ("length", 5, 7)
    assert line["total_duration"] == 9


# -- scripts ----------------------------------------------------------------------------------


def test_a_script_says_what_comes(fake: FakeOllama) -> None:
    fake.script(CHAT, say("Hello"), say(" world"), done())
    response = ask(fake)
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in response.get_data().splitlines()]
    assert lines == [say("Hello"), say(" world"), done()]


def test_a_dict_is_a_line_and_bytes_go_as_they_are(fake: FakeOllama) -> None:
    fake.script(CHAT, {"a": "ü"}, b"\xff half", b" a line")
    assert ask(fake).get_data() == '{"a":"ü"}\n'.encode() + b"\xff half a line"


def test_a_script_may_be_any_answer(fake: FakeOllama) -> None:
    fake.script(CHAT, {"error": "no"}, status="418 I'm a teapot", content_type="text/x", headers=[("X-A", "b")])
    response = ask(fake)
    assert (response.status, response.mimetype, response.headers["X-A"]) == ("418 I'm a teapot", "text/x", "b")


def test_an_empty_script_is_an_empty_body(fake: FakeOllama) -> None:
    fake.script(CHAT)
    assert ask(fake).get_data() == b""


def test_scripts_line_up(fake: FakeOllama) -> None:
    fake.script(CHAT, b"one")
    fake.script(CHAT, b"two")
    assert [ask(fake).get_data() for _ in range(2)] == [b"one", b"two"]


def test_each_path_has_scripts_of_its_own(fake: FakeOllama) -> None:
    fake.script(CHAT, b"chat")
    fake.script("/api/show", b"show")
    assert [ask(fake, path).get_data() for path in ("/api/show", CHAT)] == [b"show", b"chat"]


def test_a_path_that_ollama_has_not_may_be_scripted(fake: FakeOllama) -> None:
    fake.script("/nowhere", b"here")
    assert ask(fake, "/nowhere").get_data() == b"here"


def test_unscripted_it_is_the_demo(fake: FakeOllama) -> None:
    with Client(validator(fake)).get("/api/version") as response:
        assert response.get_json() == {"version": VERSION}


def test_after_its_scripts_it_is_the_demo(fake: FakeOllama) -> None:
    fake.script(CHAT, b"scripted")
    ask(fake)
    answer = ask(fake, messages=[{"role": "user", "content": "Hello!"}], stream=False).get_json()
    assert answer["message"]["content"].endswith("You said: Hello!")


# -- scripts of /api/generate -----------------------------------------------------------------

GENERATE = "/api/generate"


def scripted(fake: FakeOllama, *steps: Step, path: str = GENERATE) -> list[Any]:
    fake.script(path, *steps)
    return [json.loads(line) for line in ask(fake, path).get_data().splitlines()]


def test_say_in_a_script_of_generate_is_a_response(fake: FakeOllama) -> None:
    first, last = scripted(fake, say("Hello"), done("length", prompt=5, made=7, total_duration=9))
    assert first == {"model": "demo", "created_at": "2026-01-01T00:00:00Z", "response": "Hello", "done": False}
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "length")
    assert (last["prompt_eval_count"], last["eval_count"], last["total_duration"]) == (5, 7, 9)
    assert "message" not in last


def test_say_in_a_script_of_generate_may_think(fake: FakeOllama) -> None:
    [line] = scripted(fake, say(thinking="Hm.", tool_calls=[]))
    assert (line["response"], line["thinking"], line["tool_calls"]) == ("", "Hm.", [])


@pytest.mark.parametrize("line", [{"response": "a", "message": {"content": "b"}}, {"error": "no"}, {"message": "text"}])
def test_other_lines_of_generate_are_sent_as_they_are(fake: FakeOllama, line: dict[str, Any]) -> None:
    assert scripted(fake, line) == [line]


@pytest.mark.parametrize("path", [CHAT, "/api/embed", "/nowhere"])
def test_say_is_a_message_on_other_paths(fake: FakeOllama, path: str) -> None:
    assert scripted(fake, say("Hello"), path=path) == [say("Hello")]


def test_the_lines_of_a_script_are_not_changed(fake: FakeOllama) -> None:
    line = say("Hello")
    scripted(fake, line)
    assert line == say("Hello")


@pytest.mark.parametrize("cut", [None, 0, 1])
def test_gates_bytes_and_exceptions_stand_in_a_script_of_generate(fake: FakeOllama, cut: int | None) -> None:
    gate = Gate(TIMEOUT)
    gate.open()
    fake.script(GENERATE, say("a"), gate, b"raw\n", OSError("on purpose"), cut=cut)
    answer = iter(fake(EnvironBuilder(method="POST", path=GENERATE, json={}).get_environ(), lambda *head: print))
    got: list[bytes] = []
    with pytest.raises(OSError, match="on purpose"):
        got.extend(answer)
    assert b"".join(got).endswith(b'"response":"a","done":false}\nraw\n')


@pytest.mark.parametrize("stream", [True, False])
def test_a_script_of_generate_completes_a_text(fake: FakeOllama, stream: bool) -> None:
    fake.script(GENERATE, say("Hello"), say(" world"), done())
    request = {"model": "m", "prompt": "Hi", "stream": stream}
    with Client(OpenAICompat(fake)).post("/v1/completions", json=request) as response:
        if stream:
            *chunks, _ = frames(response.get_data())
            assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]) == "Hello world"
        else:
            assert response.get_json()["choices"][0]["text"] == "Hello world"
    fake.assert_all_used()


# -- scripts that nobody used -----------------------------------------------------------------


def test_all_are_used_where_there_are_none(fake: FakeOllama) -> None:
    fake.assert_all_used()
    ask(fake)
    fake.assert_all_used()


def test_all_are_used_when_each_was_asked_for(fake: FakeOllama) -> None:
    fake.script(CHAT, b"one")
    fake.script(CHAT, b"two")
    fake.script("/api/show", b"show")
    for path in (CHAT, "/api/show", CHAT):
        ask(fake, path)
    fake.assert_all_used()


def test_scripts_that_nobody_used_fail_the_test(fake: FakeOllama) -> None:
    for _ in range(3):
        fake.script(CHAT, b"chat")
    fake.script("/api/show", b"show")
    ask(fake)
    ask(fake, "/api/embed")
    ask(fake, "/api/embed")
    expected = (
        "FakeOllama: not used: 2 of 3 scripts of /api/chat; 1 of 1 scripts of /api/show. "
        "Requests: 1 × POST /api/chat, 2 × POST /api/embed."
    )
    with pytest.raises(AssertionError, match=f"^{re.escape(expected)}$"):
        fake.assert_all_used()


def test_a_script_that_nobody_used_where_nothing_was_requested(fake: FakeOllama) -> None:
    fake.script(CHAT, b"chat")
    with pytest.raises(AssertionError, match="Requests: none"):
        fake.assert_all_used()


def test_a_script_that_was_begun_is_used(fake: FakeOllama) -> None:
    fake.script(CHAT, b"a", b"b")
    assert next(items(fake)) == b"a"
    fake.assert_all_used()


# -- replays ----------------------------------------------------------------------------------


def exchange(body: str, request: Any = None, *, path: str = CHAT, **more: Any) -> dict[str, Any]:
    side = {"method": "POST", "path": path, "request": request, "status": 200, "content_type": "text/x", "body": body}
    return {"name": f"native/{body}", "native": {**side, **more}}


def replay(tmp_path: Path, *rows: dict[str, Any]) -> FakeOllama:
    file = tmp_path / "recording.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FakeOllama.replay(file)


def test_a_replay_answers_as_was_recorded(tmp_path: Path) -> None:
    fake = replay(tmp_path, exchange("ü\n", {"model": "demo"}, status=418, content_type="text/y"))
    response = ask(fake)
    assert (response.status, response.mimetype) == ("418 I'm a Teapot", "text/y")
    assert response.get_data() == "ü\n".encode()
    assert fake.requests[0].json == {"model": "demo"}
    assert (fake.opened, fake.closed) == (1, 1)
    fake.assert_all_used()


def test_a_replay_finds_the_response_to_each_request(tmp_path: Path) -> None:
    rows = [exchange(name, {"model": "demo", "messages": [name]}) for name in "abc"]
    fake = replay(tmp_path, *rows)
    assert [ask(fake, messages=[name], stream=True).get_data() for name in "cab"] == [b"c", b"a", b"b"]


def test_a_replay_of_equal_requests_is_in_their_order(tmp_path: Path) -> None:
    fake = replay(tmp_path, exchange("1", {"model": "demo"}), exchange("2", {"model": "demo"}))
    assert [ask(fake).get_data() for _ in range(4)] == [b"1", b"2", b"1", b"1"]


def test_a_replay_says_what_nobody_used(tmp_path: Path) -> None:
    fake = replay(tmp_path, exchange("1", {"model": "demo"}), exchange("2", path="/api/show"))
    ask(fake)
    with pytest.raises(
        AssertionError, match="not used: the recorded exchange 'native/2'. Requests: 1 × POST /api/chat"
    ):
        fake.assert_all_used()


def test_a_replay_has_no_response_to_another_path(tmp_path: Path) -> None:
    response = ask(replay(tmp_path, exchange("1")), "/api/show")
    assert response.status_code == 500
    assert response.get_json() == {"error": "the recording has no response to POST /api/show"}


def test_scripts_go_before_a_replay(tmp_path: Path) -> None:
    fake = replay(tmp_path, exchange("recorded"))
    fake.script(CHAT, b"scripted")
    assert [ask(fake).get_data() for _ in range(2)] == [b"scripted", b"recorded"]


def test_a_replay_keeps_the_parts_of_a_body(tmp_path: Path) -> None:
    fake = replay(tmp_path, exchange("äbcd", chunks=[3, 1]))
    assert list(items(fake)) == ["äb".encode(), b"c", b"d"]


def test_a_replay_breaks_off_where_the_recording_does(tmp_path: Path) -> None:
    answer = items(replay(tmp_path, exchange("ab", complete=False)))
    assert next(answer) == b"ab"
    with pytest.raises(ConnectionError, match="breaks off"):
        next(answer)


@pytest.mark.parametrize("found", [True, False])
def test_a_replay_of_head_has_no_body(tmp_path: Path, found: bool) -> None:
    fake = replay(tmp_path, exchange("running", path="/" if found else "/x", method="GET"))
    with Client(validator(fake)).head("/") as response:
        assert (response.status_code, response.get_data()) == (200 if found else 500, b"")


def test_many_threads_share_a_replay(tmp_path: Path) -> None:
    fake = replay(tmp_path, *[exchange(str(i), {"model": "demo"}) for i in range(40)])
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.extend(ask(fake).get_data() for _ in range(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(map(int, got)) == list(range(40))
    fake.assert_all_used()


# -- cuts -------------------------------------------------------------------------------------


def test_uncut_each_step_is_an_item(fake: FakeOllama) -> None:
    fake.script(CHAT, b"ab", {"c": 1}, b"d")
    assert list(items(fake)) == [b"ab", b'{"c":1}\n', b"d"]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (1, [b"a", b"b", b"c", b"d", b"e"]),
        (2, [b"ab", b"cd", b"e"]),
        (5, [b"abcde"]),
        (4096, [b"abcde"]),
        (0, [b"abcde"]),
    ],
)
def test_an_answer_is_cut_into_items_of_one_length(fake: FakeOllama, cut: int, expected: list[bytes]) -> None:
    fake.script(CHAT, b"ab", b"", b"c", b"de", cut=cut)
    assert list(items(fake)) == expected


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_cut_changes_no_byte(fake: FakeOllama, cut: int) -> None:
    fake.script(CHAT, say("Hello"), b"raw", done(), cut=cut)
    uncut = FakeOllama()
    uncut.script(CHAT, say("Hello"), b"raw", done())
    assert b"".join(items(fake)) == b"".join(items(uncut))


@pytest.mark.parametrize("cut", [0, 1])
def test_a_cut_of_nothing(fake: FakeOllama, cut: int) -> None:
    fake.script(CHAT, cut=cut)
    assert list(items(fake)) == []


def test_a_cut_stops_at_a_gate(fake: FakeOllama) -> None:
    gate = Gate(TIMEOUT)
    fake.script(CHAT, b"abc", gate, b"de", cut=2)
    answer = items(fake)
    assert [next(answer), next(answer)] == [b"ab", b"c"]
    assert not gate.reached.is_set()
    gate.open()
    assert list(answer) == [b"de"]


# -- gates and exceptions ---------------------------------------------------------------------


def test_a_gate_waits_until_it_is_opened(fake: FakeOllama) -> None:
    gate = Gate(TIMEOUT)
    fake.script(CHAT, b"before", gate, b"after")
    answer, got = items(fake), []
    assert next(answer) == b"before"
    thread = threading.Thread(target=lambda: got.extend(answer))
    thread.start()
    assert gate.reached.wait(TIMEOUT)
    assert got == []
    gate.open()
    thread.join(TIMEOUT)
    assert got == [b"after"]


def test_the_head_comes_before_a_first_gate(fake: FakeOllama) -> None:
    gate = Gate(TIMEOUT)
    fake.script(CHAT, gate, b"after", headers=[("X-A", "b")])
    heads: list[Any] = []
    answer = fake(environ(), lambda *head: heads.append(head) or print)
    assert heads == [("200 OK", [("Content-Type", "application/x-ndjson"), ("X-A", "b")])]
    gate.open()
    assert list(answer) == [b"after"]


def test_a_gate_that_stays_shut_fails(fake: FakeOllama) -> None:
    fake.script(CHAT, b"before", Gate(0.01))
    answer = items(fake)
    assert next(answer) == b"before"
    with pytest.raises(AssertionError, match="never opened"):
        next(answer)


def test_an_open_gate_stays_open() -> None:
    gate = Gate(0.0)
    gate.open()
    gate.wait()
    gate.wait()
    assert gate.reached.is_set()


@pytest.mark.parametrize("cut", [None, 0, 1])
def test_an_exception_is_raised_where_it_stands(fake: FakeOllama, cut: int | None) -> None:
    steps: list[Step] = [b"a", OSError("on purpose"), b"b"]
    fake.script(CHAT, *steps, cut=cut)
    answer = items(fake)
    assert next(answer) == b"a"
    with pytest.raises(OSError, match="on purpose"):
        next(answer)


# -- what it remembers ------------------------------------------------------------------------


def test_requests_are_recorded_in_order(fake: FakeOllama) -> None:
    ask(fake, CHAT, a=1)
    ask(fake, "/api/show")
    with Client(fake).get("/api/tags"):
        pass
    recorded = [(request.method, request.path) for request in fake.requests]
    assert recorded == [("POST", CHAT), ("POST", "/api/show"), ("GET", "/api/tags")]
    assert fake.requests[0].json == {"model": "demo", "a": 1}
    assert fake.requests[2].body == b""


def test_headers_are_recorded_in_lower_case(fake: FakeOllama) -> None:
    with Client(fake).post(CHAT, json={}, headers={"X-Some-Thing": "Value"}):
        pass
    headers = fake.requests[0].headers
    assert headers["x-some-thing"] == "Value"
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == "2"


def test_scripted_requests_are_recorded_too(fake: FakeOllama) -> None:
    fake.script(CHAT, b"scripted")
    ask(fake, b=2)
    assert fake.requests[0].json == {"model": "demo", "b": 2}


@pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "demo"])
def test_opened_and_closed_are_counted(fake: FakeOllama, scripted: bool) -> None:
    if scripted:
        fake.script(CHAT, b"abc")
    with Client(fake).post(CHAT, json={"model": "demo"}):
        assert (fake.opened, fake.closed) == (1, 0)
    assert (fake.opened, fake.closed) == (1, 1)


def test_an_answer_that_is_not_closed_is_not_counted(fake: FakeOllama) -> None:
    fake.script(CHAT, b"abc")
    answer = fake(environ(), lambda *head: print)
    assert list(answer) == [b"abc"]
    assert (fake.opened, fake.closed) == (1, 0)


def test_many_threads_share_a_script(fake: FakeOllama) -> None:
    for i in range(40):
        fake.script(CHAT, str(i).encode())
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.extend(ask(fake).get_data() for _ in range(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(map(int, got)) == list(range(40))
    assert (len(fake.requests), fake.opened, fake.closed) == (40, 40, 40)
