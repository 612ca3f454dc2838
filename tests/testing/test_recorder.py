"""The recorder: what passes through it, what it writes, and what it leaves out."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder

from openai_compat import OpenAICompat, Upstream
from openai_compat.testing import FakeOllama, Gate, done, recorder, say
from openai_compat.testing.demo import Demo
from openai_compat.testing.recorder import Recorder
from openai_compat.testing.recording import read_recording, without_secrets
from tests.servers import TIMEOUT, live

CHAT = "/api/chat"
ASKED = {"model": "demo", "messages": [{"role": "user", "content": "Grüße!"}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recording.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line]


def recording(app: Any, file: Path) -> tuple[Client, Recorder]:
    """A client of a recorder, with a linter on both sides."""
    found = Recorder(validator(app), file)
    return Client(validator(found)), found


def ask(client: Client, path: str = CHAT, **request: Any) -> bytes:
    with client.post(path, json=request or ASKED) as response:
        return response.get_data()


# -- what is written --------------------------------------------------------------------------


def test_an_exchange_is_a_line(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, say("Hellö"), done())
    client, found = recording(fake, file)
    body = ask(client)
    found.close()
    [line] = lines(file)
    assert line == {
        "name": "native/1",
        "native": {
            "method": "POST",
            "path": CHAT,
            "request": ASKED,
            "status": 200,
            "content_type": "application/x-ndjson",
            "transfer_encoding": "chunked",
            "body": body.decode(),
            "chunks": [len(part) + 1 for part in body.splitlines()],
            "complete": True,
        },
    }
    assert fake.requests[0].json == ASKED
    assert fake.closed == 1


def test_exchanges_are_numbered_also_when_a_file_is_continued(file: Path) -> None:
    for _ in range(2):
        client, found = recording(Demo(), file)
        ask(client)
        ask(client)
        found.close()
    assert [line["name"] for line in lines(file)] == ["native/1", "native/2", "native/3", "native/4"]


def test_a_line_that_broke_off_does_not_spoil_the_next(file: Path) -> None:
    file.write_bytes(b'{"name": "nati')
    client, found = recording(Demo(), file)
    ask(client)
    found.close()
    assert json.loads(file.read_bytes().split(b"\n")[1])["name"] == "native/2"


@pytest.mark.parametrize("existing", [None, 0o644, 0o666, 0o600])
def test_only_the_owner_can_read_the_file(file: Path, existing: int | None) -> None:
    if existing is not None:
        file.touch()
        file.chmod(existing)
    umask = os.umask(0)
    try:
        Recorder(Demo(), file).close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        Recorder(Demo(), tmp_path)
    with pytest.raises(FileNotFoundError):
        Recorder(Demo(), tmp_path / "nowhere" / "recording.jsonl")


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ("/", "native"),
        ("/api/tags", "native"),
        ("/api/nothing", "native"),
        ("/v1/models", "openai"),
        ("/favicon.ico", None),
        ("/v2/models", None),
        ("/api/blobs/sha256:00", None),
    ],
)
def test_what_is_recorded_are_ollama_s_own_paths(file: Path, path: str, side: str | None) -> None:
    client, found = recording(Demo(), file)
    with client.get(path):
        pass
    found.close()
    assert [list(line) for line in lines(file)] == ([["name", side]] if side else [])


@pytest.mark.parametrize(
    ("body", "request_"),
    [(b"{", "(1 bytes)"), (b"", None), (b"\xff", "(1 bytes)"), (b"[1, 2]", [1, 2])],
)
def test_a_request_that_is_no_json_object(file: Path, body: bytes, request_: Any) -> None:
    client, found = recording(Demo(), file)
    with client.post(CHAT, data=body, content_type="application/json"):
        pass
    found.close()
    assert lines(file)[0]["native"]["request"] == request_
    assert lines(file)[0]["native"]["status"] == 400


def test_a_body_of_known_length_is_not_chunked(file: Path) -> None:
    fake = FakeOllama()
    fake.script("/api/show", b"{}", headers=[("Content-Length", "2")])
    client, found = recording(fake, file)
    ask(client, "/api/show")
    found.close()
    assert lines(file)[0]["native"]["transfer_encoding"] is None


def test_a_body_that_is_no_text_has_no_chunks(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, b"a\xff", b"\xc3", b"\xbc")
    client, found = recording(fake, file)
    assert ask(client) == b"a\xff\xc3\xbc"
    found.close()
    line = lines(file)[0]["native"]
    assert (line["body"], line.get("chunks")) == ("a\ufffdü", None)


def test_a_character_may_be_cut(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, "aüb".encode(), cut=2)
    client, found = recording(fake, file)
    ask(client)
    found.close()
    assert (lines(file)[0]["native"]["body"], lines(file)[0]["native"]["chunks"]) == ("aüb", [2, 2])


def test_head_has_no_body(file: Path) -> None:
    client, found = recording(Demo(), file)
    with client.head("/") as response:
        assert response.status_code == 200
    found.close()
    assert (lines(file)[0]["native"]["method"], lines(file)[0]["native"]["body"]) == ("HEAD", "")


# -- what is left out -------------------------------------------------------------------------

SECRET = "sk-do-not-record-this"


def test_secrets_in_headers_and_urls_are_not_recorded(file: Path) -> None:
    client, found = recording(Demo(), file)
    names = ["Authorization", "Cookie", "X-Api-Key", "Api-Key", "Proxy-Authorization", "X-Auth-Token", "Referer"]
    headers = dict.fromkeys(names, f"Bearer {SECRET}")
    with client.post(CHAT, json=ASKED, headers=headers, query_string={"api_key": SECRET, "key": SECRET}) as response:
        assert response.status_code == 200
    found.close()
    assert "Grüße!" in lines(file)[0]["native"]["request"]["messages"][0]["content"]
    assert SECRET not in file.read_text()


def test_secrets_of_responses_are_not_recorded(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, done(), headers=[("Set-Cookie", SECRET), ("X-Key", SECRET)])
    client, found = recording(fake, file)
    ask(client)
    found.close()
    assert SECRET not in file.read_text()


NAMES = ["api_key", "apiKey", "API-KEY", "openai_api_key", "OpenAIKey", "api_keys", "access_key", "secretAccessKey"]
NAMES += ["access_key_id", "private_key", "key", "keys", "hf_key", "ssh-key", "authorization", "Authorization", "auth"]
NAMES += ["authorization_header", "oauth", "bearer", "jwt", "session", "session_id", "token", "tokens", "access_token"]
NAMES += ["hf.token", "credentials", "creds", "cookie", "cookies", "password", "passwd", "passphrase", "client_secret"]
VALUES = [SECRET, [SECRET], [f"Bearer {SECRET}", 5], {SECRET: 1}, {"a": {"b": [SECRET]}}, [[SECRET]], [{"a": SECRET}]]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_fields_that_are_named_like_secrets_are_left_out(name: str, value: Any) -> None:
    def request(value: Any) -> dict[str, Any]:
        field = {name: value, "other": "kept"}
        return {
            "model": "m",
            **field,
            "options": {**field, "deeper": {"list": [[field]]}},
            "extra_headers": {name: value},
            "messages": [{"role": "user", "content": "kept", **field}],
            "tools": [{"type": "mcp", **field, "function": {"name": "f", **field}}],
            "format": field,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", **field}},
            "input": [field],
        }

    assert without_secrets(request(value)) == request("***")
    assert SECRET not in str(without_secrets({"parameters": {"properties": {name: {"default": value}}}}))


def test_headers_in_a_request_are_left_out() -> None:
    request = {
        "extra_headers": {"X-Team": SECRET},
        "list": [{"name": "Authorization", "value": SECRET}, {"value": SECRET, "key": "api-key"}],
        "headers": [["Authorization", SECRET]],
        "httpHeaders": [f"Authorization: Bearer {SECRET}"],
    }
    assert without_secrets(request) == {
        "extra_headers": {"X-Team": "***"},
        "list": [{"name": "Authorization", "value": "***"}, {"value": "***", "key": "***"}],
        "headers": "***",
        "httpHeaders": "***",
    }


@pytest.mark.parametrize("depth", [0, 1, 400, 5000])
def test_a_secret_at_any_depth_is_not_recorded(file: Path, depth: int) -> None:
    fake = FakeOllama()
    client, found = recording(fake, file)
    body = b'{"a":[' * depth + json.dumps({"auth": {"user": [SECRET]}, "model": "m"}).encode() + b"]}" * depth
    with client.post("/api/show", data=body, content_type="application/json"):
        pass
    found.close()
    assert fake.requests[0].body == body
    assert len(lines(file)) == 1
    assert SECRET not in file.read_text()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f"api_key={SECRET}", "application/x-www-form-urlencoded"),
        (f'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\n{SECRET}\r\n--B--\r\n', "multipart/form-data"),
        (f'{{"api_key": "{SECRET}"', "application/json"),
        (f'{{"api_key": "{SECRET}", "a": NaN}}', "application/json"),
        (f'"{SECRET}"', "application/json"),
        (SECRET, "text/plain"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
def test_of_a_body_that_is_no_json_only_the_length_is_recorded(
    file: Path, path: str, body: str, content_type: str
) -> None:
    client, found = recording(FakeOllama(), file)
    with client.post(path, data=body, content_type=content_type):
        pass
    found.close()
    [exchange] = read_recording(file)
    assert exchange.request == f"({len(body)} bytes)"
    assert SECRET not in file.read_text()


def test_what_is_said_is_recorded_as_it_is() -> None:
    call = {"function": {"name": "find", "arguments": {"city": "Wien", "keyword": "a", "author": "b"}}}
    request = {
        "messages": [
            {"role": "user", "content": "My password is x"},
            {"role": "user", "content": [{"type": "text", "text": "token: y"}]},
            {"role": "assistant", "content": "", "thinking": "the key", "tool_calls": [call]},
        ],
        "prompt": ["a key", "a secret"],
        "input": "Authorization: Bearer x",
        "system": "the cookie",
        "prompt_cache_key": "a",
        "keep_alive": "5m",
        "stop_tokens": ["</s>"],
    }
    assert without_secrets(request) == request
    assert without_secrets("text") == "text"


@pytest.mark.parametrize("name", ["max_tokens", "num_tokens", "prompt_tokens", "tokens", "token", "key", "session"])
@pytest.mark.parametrize("value", [0, 7, 1.5, True, None, [1, 2], []], ids=repr)
def test_numbers_are_recorded(name: str, value: Any) -> None:
    request = {name: value, "options": {name: value}}
    assert without_secrets(request) == request


@pytest.mark.parametrize("name", ["max_tokens", "num_tokens", "max_completion_tokens", "n_tokens", "maxTokens"])
def test_a_number_of_tokens_may_be_a_text(name: str) -> None:
    assert without_secrets({name: "100"}) == {name: "100"}


def test_a_password_may_be_a_number() -> None:
    assert without_secrets({"password": 1234, "smtp": {"passwd": 1.5}}) == {
        "password": "***",
        "smtp": {"passwd": "***"},
    }


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{name: {"type": "string", "description": "A text.", "enum": ["a", "b"]} for name in NAMES},
        "headers": {"type": "object", "properties": {"authorization": {"type": ["string", "null"]}}},
        "login": {"anyOf": [{"type": "object", "properties": {"password": {"$ref": "#/$defs/token"}}}, True]},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string"}}}},
        "max": {"type": "integer", "default": 5, "properties": True},
    },
    "$defs": {"token": {"type": "string", "minLength": 1, "pattern": "^sk-"}},
    "dependentRequired": {"api_key": ["token"]},
    "required": ["api_key", "token"],
    "additionalProperties": False,
}


def holding(schema: Any) -> dict[str, Any]:
    function = {"name": "login", "description": "Needs an api_key.", "parameters": schema}
    return {
        "tools": [{"type": "function", "function": function}],
        "functions": [function],
        "format": schema,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}},
    }


def test_the_properties_of_a_schema_are_recorded() -> None:
    assert without_secrets(holding(SCHEMA)) == holding(SCHEMA)


@pytest.mark.parametrize("keyword", ["default", "const", "example", "examples", "x-value", "key"])
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"a": SECRET}], ids=repr)
def test_values_of_secrets_in_a_schema_are_left_out(keyword: str, value: Any) -> None:
    def schema(value: Any) -> dict[str, Any]:
        part = {"type": "string", keyword: value}
        return {"properties": {"api_key": part, "auth": {"anyOf": [{"properties": {"user": part}}]}}}

    assert without_secrets(holding(schema(value))) == holding(schema("***"))


@pytest.mark.parametrize("value", [SECRET, [SECRET], [[SECRET]], {"a": SECRET}, {"a": [{"b": SECRET}]}], ids=repr)
def test_what_is_no_schema_of_a_property_is_left_out(value: Any) -> None:
    assert SECRET not in str(without_secrets(holding({"properties": {"api_key": value}})))


# -- what passes ------------------------------------------------------------------------------


def environ(path: str = CHAT) -> Any:
    return EnvironBuilder(method="POST", path=path, json=ASKED).get_environ()


def test_a_stream_passes_as_it_arrives(file: Path) -> None:
    gate = Gate(TIMEOUT)
    fake = FakeOllama()
    fake.script(CHAT, b"first\n", gate, b"last\n")
    answer = iter(Recorder(fake, file)(environ(), lambda *head: print))
    assert next(answer) == b"first\n"
    assert not gate.reached.is_set()
    assert lines(file) == []
    gate.open()
    assert list(answer) == [b"last\n"]
    assert lines(file)[0]["native"]["chunks"] == [6, 5]


def test_an_answer_that_a_client_leaves_is_recorded_as_far_as_it_came(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, b"first\n", b"last\n")
    answer: Any = Recorder(fake, file)(environ(), lambda *head: print)
    assert next(answer) == b"first\n"
    answer.close()
    answer.close()
    [line] = lines(file)
    assert (line["native"]["body"], line["native"]["complete"]) == ("first\n", False)
    assert fake.closed == 2
    assert [exchange.is_complete for exchange in read_recording(file)] == [False]


def test_an_answer_that_breaks_off_is_recorded_as_far_as_it_came(file: Path) -> None:
    fake = FakeOllama()
    fake.script(CHAT, b"first\n", OSError("on purpose"))
    answer = iter(Recorder(fake, file)(environ(), lambda *head: print))
    assert next(answer) == b"first\n"
    with pytest.raises(OSError, match="on purpose"):
        next(answer)
    assert lines(file)[0]["native"]["complete"] is False


def test_an_application_that_fails_before_its_head_is_not_recorded(file: Path) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise OSError("on purpose")

    with pytest.raises(OSError, match="on purpose"):
        Recorder(app, file)(environ(), lambda *head: print)
    assert lines(file) == []


def test_an_application_may_use_write_and_start_late(file: Path) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        yield b"yielded"

    with Client(Recorder(app, file)).post(CHAT, json=ASKED) as response:
        assert response.get_data() == b"written yielded"
    assert lines(file)[0]["native"]["body"] == "written yielded"


def test_an_application_may_replace_its_head(file: Path) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise OSError("on purpose")
        except OSError as error:
            start_response("500 Oh", [("Content-Type", "text/html")], (type(error), error, error.__traceback__))
        return [b"no"]

    heads: list[Any] = []
    assert list(Recorder(app, file)(environ(), lambda *head: heads.append(head) or print)) == [b"no"]
    assert [head[0] for head in heads] == ["200 OK", "500 Oh"]
    assert (lines(file)[0]["native"]["status"], lines(file)[0]["native"]["content_type"]) == (500, "text/html")


@pytest.mark.parametrize("limit", [10, len(json.dumps(ASKED))])
@pytest.mark.parametrize("terminated", [True, False], ids=["chunked", "sized"])
def test_what_is_too_large_passes_and_is_not_recorded(
    file: Path, monkeypatch: pytest.MonkeyPatch, limit: int, terminated: bool
) -> None:
    monkeypatch.setattr(recorder, "MAX_BODY", limit)
    fake = FakeOllama()
    fake.script(CHAT, b"x" * limit, b"y")
    body = json.dumps(ASKED).encode()
    given = EnvironBuilder(method="POST", path=CHAT, data=body).get_environ()
    sent: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Any:
        sent.append(environ["wsgi.input"].read(3))
        while data := environ["wsgi.input"].read(1000):
            sent.append(data)
        return fake({**environ, "CONTENT_LENGTH": "0"}, start_response)

    if terminated:
        del given["CONTENT_LENGTH"]
        given["wsgi.input_terminated"] = True
    assert b"".join(Recorder(app, file)(given, lambda *head: print)) == b"x" * limit + b"y"
    assert b"".join(sent) == body
    assert lines(file) == []


def test_a_request_without_a_length_passes_and_is_recorded(file: Path) -> None:
    fake = FakeOllama()
    given = environ()
    del given["CONTENT_LENGTH"]
    given |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    list(Recorder(fake, file)(given, lambda *head: print))
    assert fake.requests[0].json == lines(file)[0]["native"]["request"] == ASKED
    assert "transfer-encoding" not in fake.requests[0].headers


def test_a_client_that_sends_less_than_it_said_is_not_recorded(file: Path) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((environ["CONTENT_LENGTH"], environ["wsgi.input"].read(999)))
        start_response("400 Bad Request", [])
        return []

    given = environ()
    body = given["wsgi.input"].getvalue()
    given["CONTENT_LENGTH"] = "999"
    list(Recorder(app, file)(given, lambda *head: print))
    assert seen == [("999", body)]
    assert lines(file) == []


def test_compression_is_not_asked_for(file: Path) -> None:
    fake = FakeOllama()
    client, found = recording(fake, file)
    with client.post(CHAT, json=ASKED, headers={"Accept-Encoding": "gzip", "Accept": "x/y"}):
        pass
    found.close()
    assert "accept-encoding" not in fake.requests[0].headers
    assert fake.requests[0].headers["accept"] == "x/y"


def test_a_recorder_is_what_its_application_is(file: Path) -> None:
    for app, expected in ((Upstream("http://127.0.0.1:1"), True), (lambda environ, start_response: [], False)):
        found = Recorder(app, file)
        assert (found.is_remote, found.speaks_native_only) == (expected, expected)
        found.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    client, found = recording(Demo(), Path("/dev/full"))
    assert b"You" in ask(client)
    found.close()
    assert "an exchange was not recorded: No space left on device" in caplog.text


@pytest.mark.slow
def test_many_threads_write_whole_lines(file: Path) -> None:
    """Two recorders stand for two processes."""
    clients = [Client(Recorder(Demo(), file)) for _ in range(2)]
    long = "word " * 3000

    def work(client: Client) -> None:
        for _ in range(5):
            ask(client, **{**ASKED, "messages": [{"role": "user", "content": long}]})

    threads = [threading.Thread(target=work, args=(client,)) for client in clients * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    found = lines(file)
    assert len(found) == 40
    assert {line["native"]["request"]["messages"][0]["content"] for line in found} == {long}


# -- there and back ---------------------------------------------------------------------------

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", ASKED),
    ("/v1/chat/completions", {**ASKED, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {**ASKED, "n": 3, "seed": 1, "logprobs": True}),
    ("/v1/chat/completions", {**ASKED, "model": "demo-think", "reasoning_effort": "low", "stream": True}),
    ("/v1/chat/completions", {**ASKED, "reasoning_effort": "low"}),
    ("/v1/chat/completions", {**ASKED, "model": "nothing"}),
    ("/v1/completions", {"model": "demo", "prompt": ["a", "b"], "n": 2, "seed": 5}),
    ("/v1/embeddings", {"model": "demo-embed", "input": ["a", "b"]}),
]


def answers(app: Any) -> list[Any]:
    """What a client gets, without what is new in each answer."""
    client, found = Client(app), []
    for path, request in REQUESTS:
        with client.post(path, json=request) as response:
            text = response.get_data(as_text=True)
        assert response.headers["x-request-id"]
        parts = text.replace("data: ", "").split("\n\n") if request.get("stream") else [text]
        frames = [json.loads(part) for part in parts if part not in ("", "[DONE]")]
        for frame in frames:
            frame.pop("id", None)
            frame.pop("created", None)
        found.append((response.status_code, response.headers.get("openai-compat-ignored"), frames))
    with client.get("/v1/models") as response:
        found.append(response.get_json())
    return found


def test_a_recording_of_a_server_answers_as_the_server_did(file: Path) -> None:
    with live(Demo()) as url:
        original = answers(OpenAICompat(Recorder(Upstream(url), file)))
    assert [status for status, _, _ in original[:-1]] == [200, 200, 200, 200, 200, 404, 200, 200]
    assert all(line["native"]["complete"] for line in lines(file))
    fake = FakeOllama.replay(file)
    assert answers(OpenAICompat(fake)) == original
    fake.assert_all_used()


def test_a_server_that_records_passes_native_requests(file: Path) -> None:
    with live(Demo()) as url, live(Recorder(Upstream(url), file)) as between:
        found = [ask(Client(Upstream(base)), "/api/generate", model="demo", prompt="x") for base in (url, between)]
    assert [[json.loads(line)["response"] for line in body.splitlines()] for body in found][0] == [
        json.loads(line)["response"] for line in lines(file)[0]["native"]["body"].splitlines()
    ]
    assert lines(file)[0]["native"]["body"].encode() == found[1]
