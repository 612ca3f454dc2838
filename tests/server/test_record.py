"""``openai-compat record``: a real gunicorn in front of a real socket, and the file that comes of it."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, Gate, done, say
from openai_compat.testing.demo import Demo
from tests.servers import TIMEOUT, command, live, refusing, serving

pytestmark = pytest.mark.server

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Grüße!"}]}
SECRET = "sk-do-not-record-this"


def post(url: str, path: str, request: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    assert parts.hostname is not None
    with closing(HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)) as http:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}", "Cookie": SECRET}
        http.request("POST", path, json.dumps(request), headers)
        response = http.getresponse()
        assert response.status == 200
        return json.loads(response.read())


def text_of(answer: Any) -> str:
    return answer["choices"][0]["message"]["content"]  # type: ignore[no-any-return]


def test_a_recorded_server_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    with live(Demo()) as url:
        upstream = url.replace("//", f"//user:{SECRET}@")
        flags = ("--upstream", upstream, "--upstream-header", f"X-Key: {SECRET}")
        with serving(str(file), *flags, subcommand="record") as server:
            answer = post(server.base_url, "/v1/chat/completions", CHAT)
            native = post(server.base_url, "/api/chat?key=" + SECRET, {**CHAT, "stream": False})
            assert server.stop() == 0
            said = server.stderr
    assert f"prompts and answers are recorded as they are, in {file}; headers and keys are left out" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = [json.loads(line)["native"] for line in file.read_text().split("\n") if line]
    assert [(row["path"], row["request"]["stream"], row["complete"]) for row in rows] == [
        ("/api/chat", True, True),
        ("/api/chat", False, True),
    ]
    assert SECRET not in file.read_text()
    assert SECRET not in said + server.announced
    fake = FakeOllama.replay(file)
    with Client(OpenAICompat(fake)).post("/v1/chat/completions", json=CHAT) as response:
        assert text_of(response.get_json()) == text_of(answer)
    with Client(fake).post("/api/chat", json={**CHAT, "stream": False}) as response:
        assert response.get_json() == native
    fake.assert_all_used()


def test_a_stream_passes_a_recording_server_as_it_arrives(tmp_path: Path) -> None:
    gate, fake = Gate(TIMEOUT), FakeOllama()
    fake.script("/api/chat", say("first"), gate, say("last"), done())
    file = tmp_path / "recording.jsonl"
    with live(fake) as url, serving(str(file), "--upstream", url, subcommand="record") as server:
        parts = urlsplit(server.base_url)
        assert parts.hostname is not None
        with closing(HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)) as http:
            http.request("POST", "/api/chat", json.dumps(CHAT), {"Content-Type": "application/json"})
            response = http.getresponse()
            assert json.loads(response.readline())["message"]["content"] == "first"
            assert not file.read_bytes()
            gate.open()
            assert response.read().count(b"\n") == 2
        server.stop()
    [line] = file.read_text().splitlines()
    assert len(json.loads(line)["native"]["chunks"]) == 3


def test_a_demo_is_not_advised_where_there_is_none(tmp_path: Path) -> None:
    with refusing() as url, serving(str(tmp_path / "file"), "--upstream", url, subcommand="record") as server:
        server.stop()
    assert "The server runs anyway.\n" in server.announced
    assert "--demo" not in server.announced


def test_a_page_of_another_site_does_not_reach_the_ollama(tmp_path: Path) -> None:
    file, fake = tmp_path / "recording.jsonl", FakeOllama()
    with live(fake) as url, serving(str(file), "--upstream", url, subcommand="record") as server:
        parts = urlsplit(server.base_url)
        assert parts.hostname is not None
        asked = len(fake.requests)
        for path in ("/api/chat", "/v1/chat/completions"):
            for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
                with closing(HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)) as http:
                    http.request("POST", path, json.dumps(CHAT), {"Content-Type": "application/json", **headers})
                    assert http.getresponse().status == 403
        assert len(fake.requests) == asked
        server.stop()
    assert file.read_bytes() == b""


def test_a_recording_is_continued(tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    fake = FakeOllama()
    with live(fake) as url:
        for text in ("one", "two"):
            fake.script("/api/chat", say(text), done())
            with serving(str(file), "--upstream", url, subcommand="record") as server:
                assert text_of(post(server.base_url, "/v1/chat/completions", CHAT)) == text
                server.stop()
    assert [json.loads(line)["name"] for line in file.read_text().split("\n") if line] == ["native/1", "native/2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("{dir}/nowhere/file", "--upstream", "http://127.0.0.1:1"), "nowhere/file: No such file or directory"),
        (("{dir}", "--upstream", "http://127.0.0.1:1"), "Is a directory"),
        (("{dir}/file", "--upstream", "ftp://x"), "ftp"),
        (("{dir}/file", "--upstream", "http://127.0.0.1:8000"), "is the address of this server itself"),
        (("{dir}/file", "--upstream", "http://127.0.0.1:1", "--bind", "host:abc"), "--bind"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    found = command("record", *(argument.format(dir=tmp_path) for argument in arguments))
    assert found.returncode == 2
    assert expected in found.stderr
    assert found.stderr.count("\n") == 1
