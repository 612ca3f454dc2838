"""Recordings as files, and which recorded response a request gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from openai_compat.testing.recording import Exchange, Recording, decoded, read_recording
from tests.contract import DATA, frames, merged, shared


def exchange(request: Any, name: str = "", method: str = "POST", path: str = "/api/chat") -> Exchange:
    return Exchange(name or str(request), method, path, request, 200, "text/plain", b"")


def side(body: str = "x", **more: Any) -> dict[str, Any]:
    return {"method": "POST", "path": "/api/chat", "request": None, "status": 200, "body": body, **more}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "recording.jsonl"
    file.write_text(text, encoding="utf-8")
    return file


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "body"),
    [
        ({"name": "a", "native": side("n"), "openai": side("o")}, b"n"),
        ({"name": "a", "native": side("n")}, b"n"),
        ({"name": "a", "openai": side("o")}, b"o"),
        ({"name": "a", **side("flat")}, b"flat"),
    ],
)
def test_a_line_has_a_native_exchange_or_another(tmp_path: Path, row: dict[str, Any], body: bytes) -> None:
    [found] = read_recording(written(tmp_path, json.dumps(row)))
    assert (found.name, found.body, found.is_complete, found.chunks) == ("a", body, True, [])


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    rows = [{"name": "a\u2028b\x85", "native": side("c\u2028d\r")}, {"name": "e", "native": side()}]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    found = read_recording(written(tmp_path, text))
    assert [exchange.name for exchange in found] == ["a\u2028b\x85", "e"]
    assert found[0].body == "c\u2028d\r".encode()


@pytest.mark.parametrize("line", ["{", "[]", "1", "{}", '{"native": {}}', '{"native": 1}', '{"native": {"path": 1}}'])
def test_a_line_that_is_no_exchange_is_named(tmp_path: Path, line: str) -> None:
    file = written(tmp_path, json.dumps({"name": "a", "native": side()}) + "\n" + line)
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 2: no recorded exchange"):
        read_recording(file)


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": [-1, "a"]},
        {"chunks": [-1]},
        {"chunks": ["a"]},
        {"chunks": [1.5]},
        {"chunks": [True]},
        {"chunks": [None]},
        {"chunks": {"1": 1}},
        {"chunks": "11"},
        {"chunks": 1},
        {"status": "OK"},
        {"status": True},
        {"status": -1},
        {"status": None},
        {"path": 1},
        {"method": None},
        {"body": None},
        {"body": ["x"]},
        {"content_type": 5},
        {"complete": "no"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("key", ["native", "openai", None])
def test_a_value_that_is_not_valid_is_named_when_it_is_read(
    tmp_path: Path, key: str | None, wrong: dict[str, Any]
) -> None:
    row = side(**{**wrong, "body": wrong.get("body", "x")}) if "body" in wrong else side(**wrong)
    line = json.dumps({"name": "b", **({key: row} if key else row)})
    file = written(tmp_path, json.dumps({"name": "a", "native": side()}) + "\n" + line)
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 2: no recorded exchange"):
        FakeOllama.replay(file)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "recording.jsonl"
    file.write_bytes(json.dumps({"name": "ü", "native": side()}, ensure_ascii=False).encode(encoding))
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 1: no recorded exchange"):
        FakeOllama.replay(file)


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, json.dumps({"name": "a", "native": side()}) + "\n")
    file.write_bytes(file.read_bytes() + b'{"name": "\xff"}\n')
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 2: no recorded exchange"):
        FakeOllama.replay(file)


def test_a_line_of_absurd_depth_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 1: no recorded exchange"):
        FakeOllama.replay(written(tmp_path, "[" * 200_000 + "]" * 200_000))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = [json.dumps({"name": name, "native": side("ü")}) for name in "ab"]
    found = read_recording(written(tmp_path, "\ufeff" + "\n".join(rows)))
    assert [(exchange.name, exchange.body.decode()) for exchange in found] == [("a", "ü"), ("b", "ü")]


def test_a_request_of_another_recorder_is_compared_by_its_length_and_without_secrets(tmp_path: Path) -> None:
    rows = [{"name": str(request), "native": side(request=request)} for request in ("{", {"key": "a"}, "[[", None)]
    recording = Recording(read_recording(written(tmp_path, "\n".join(map(json.dumps, rows)))))
    for body, name in ((b"[[", "[["), (b"{", "{"), (b"", "None"), (b'{"key": "b"}', "{'key': 'a'}")):
        chosen = recording.choose("POST", "/api/chat", decoded(body))
        assert chosen is not None
        assert chosen.name == name


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FakeOllama.replay(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("file", ["ollama.jsonl", "llama_server.jsonl"])
def test_the_shared_recordings_can_be_read(file: str) -> None:
    path = shared(f"recordings/{file}")
    assert len(read_recording(path)) == path.read_text().count("\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", None),
        (b'{"a": [1, "\xc3\xbc"]}', {"a": [1, "ü"]}),
        (b"{", "(1 bytes)"),
        (b"\xff", "(1 bytes)"),
        (b"NaN", "(3 bytes)"),
        (b"1e999", "(5 bytes)"),
        (b'"text"', "(6 bytes)"),
        (b"[" * 100_000, "(100000 bytes)"),
        (b"[" * 100_000 + b"]" * 100_000, "(200000 bytes)"),
        (b'{"model": "m", "options": {"api_key": "x"}}', {"model": "m", "options": {"api_key": "***"}}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_request_is_json_without_secrets_or_a_length(body: bytes, expected: Any) -> None:
    assert decoded(body) == expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [([], [b"abcde"]), ([2, 3], [b"ab", b"cde"]), ([1, 0, 1], [b"a", b"b", b"cde"]), ([9], [b"abcde"])],
)
def test_a_body_has_the_parts_that_were_recorded(chunks: list[int], expected: list[bytes]) -> None:
    assert Exchange("a", "POST", "/", None, 200, "", b"abcde", chunks).items() == expected


# -- the response to a request ----------------------------------------------------------------

ASKED = {"model": "m", "messages": ["a"], "options": {"seed": 1}}


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ([{"model": "m"}, ASKED], 1),
        ([{**ASKED, "stream": False}, {**ASKED, "options": {}}], 0),
        ([{**ASKED, "stream": False}, {**ASKED, "stream": True}], 1),
        ([{**ASKED, "model": "n"}, {"model": "m", "messages": ["a"]}], 1),
        ([{**ASKED, "messages": ["b"]}, {"model": "m", "messages": ["a"], "think": True}], 1),
        ([{**ASKED, "messages": ["b"]}, {**ASKED, "messages": ["c"]}], 0),
        ([None, {"model": "other"}], 1),
        (["{", ASKED], 1),
    ],
)
def test_a_request_gets_the_response_to_the_one_most_like_it(recorded: list[Any], expected: int) -> None:
    exchanges = [exchange(request) for request in recorded]
    chosen = Recording(exchanges).choose("POST", "/api/chat", {**ASKED})
    assert chosen is exchanges[expected]
    assert [found.is_used for found in exchanges] == [found is chosen for found in exchanges]


def test_a_request_gets_the_response_of_its_path_and_method() -> None:
    exchanges = [exchange(None, "a", "GET", "/api/tags"), exchange(None, "b"), exchange(None, "c", "GET")]
    recording = Recording(exchanges)
    assert recording.choose("POST", "/api/chat", None) is exchanges[1]
    assert recording.choose("HEAD", "/api/tags", None) is exchanges[0]
    assert recording.choose("POST", "/api/tags", None) is None
    assert recording.choose("GET", "/api/show", None) is None


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        ("/v1/models/team%2Focean:small", "/v1/models/team%2Focean:small"),
        ("/v1/models/team/ocean:small", "/v1/models/team%2Focean:small"),
        ("/v1/models/team/ocean%3Asmall", "/v1/models/team%2Focean:small"),
        ("/v1/models/gr%C3%BCn", "/v1/models/gr%C3%BCn"),
        ("/v1/models/grün", "/v1/models/gr%C3%BCn"),
        ("/v1/models/gr%c3%bcn", "/v1/models/grün"),
        ("/v1/models/a%20b", "/v1/models/a b"),
    ],
)
def test_a_path_may_have_percent_escapes(tmp_path: Path, recorded: str, asked: str) -> None:
    row = {"name": "a", "openai": side("found", method="GET", path=recorded)}
    fake = FakeOllama.replay(written(tmp_path, json.dumps(row)))
    with Client(fake).get("/v1/models/other") as response:
        assert response.status_code == 500
    with Client(fake).get(asked) as response:
        assert response.data == b"found"


def test_an_equal_request_is_answered_again_before_another_that_was_not_used() -> None:
    exchanges = [exchange({"model": "a"}), exchange({"model": "b"})]
    recording = Recording(exchanges)
    assert [recording.choose("POST", "/api/chat", {"model": "a"}) for _ in range(2)] == [exchanges[0]] * 2


# -- the recordings of a real Ollama ----------------------------------------------------------

ROWS = [json.loads(line) for line in (DATA / "recordings.jsonl").read_text().split("\n") if line]
STREAMS = [
    row
    for row in ROWS
    if row["name"].startswith("chat/") and row["openai"]["status"] == 200 and row["openai"]["request"].get("stream")
]


@pytest.mark.parametrize("row", STREAMS, ids=lambda row: row["name"])
def test_each_chat_is_found_among_all(row: dict[str, Any]) -> None:
    fake = FakeOllama.replay(DATA / "recordings.jsonl")
    client = Client(OpenAICompat(fake, overflow="truncate"))
    with client.post("/v1/chat/completions", json=row["openai"]["request"]) as response:
        ours = merged([frame for frame in frames(response.get_data()) if frame != "[DONE]"])
    theirs = merged([frame for frame in frames(row["openai"]["body"].encode()) if frame != "[DONE]"])
    assert ours["tool_calls"] == theirs["tool_calls"]
    # To Ollama a limit of 0 is none; to OpenAI it is no text.
    assert ours["content"] == ("" if row["name"] == "chat/max-tokens-zero" else theirs["content"])
