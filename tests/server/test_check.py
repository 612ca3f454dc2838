"""``openai-compat check``: what it finds of a backend on a real socket."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.server.check import check
from openai_compat.server.cli import main
from openai_compat.testing import FakeOllama, done, say
from openai_compat.testing.demo import MODELS
from tests.servers import command, live, refusing

pytestmark = pytest.mark.server

JSON = "application/json"


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama()


@pytest.fixture
def url(fake: FakeOllama) -> Iterator[str]:
    with live(fake) as url:
        yield url


REASON = " " * 18


def checked(url: str, **arguments: Any) -> tuple[int, list[str]]:
    """The status of a check, and its lines without the reasons."""
    out = io.StringIO()
    status = check(url, out=out, **arguments)
    return status, [line for line in out.getvalue().splitlines() if not line.startswith(REASON)]


def chats(fake: FakeOllama) -> list[str]:
    """The models that were chatted with."""
    return [request.json["model"] for request in fake.requests if request.path == "/api/chat"]


def models(*names: str, **capabilities: list[str]) -> dict[str, Any]:
    """An answer of ``/api/tags`` or ``/api/ps``."""
    told = [{"model": name} for name in names]
    return {"models": told + [{"model": name, "capabilities": able} for name, able in capabilities.items()]}


def test_all_is_well(url: str) -> None:
    status, lines = checked(url)
    assert status == 0
    assert lines[:3] == [
        url,
        "  ok     version  0.0.0-openai-compat-demo",
        "  ok     models   " + ", ".join(f"{name}:latest" for name in MODELS),
    ]
    assert lines[3].startswith("  ok     chat     demo:latest streamed ")
    assert len(lines) == 4


def test_the_chat_is_tiny(fake: FakeOllama, url: str) -> None:
    checked(url)
    assert fake.requests[-1].path == "/api/chat"
    assert fake.requests[-1].json["options"]["num_predict"] == 16


def test_the_command_prints_a_check_and_exits_with_its_status(url: str) -> None:
    ended = command("check", url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{url}\n  ok     version ")


def test_it_writes_to_stdout(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(url) == 0
    assert capsys.readouterr().out.startswith(f"{url}\n  ok     version ")


def test_the_command_takes_an_address_as_ollama_s_variable_has_it(url: str) -> None:
    assert main(["check", url.removeprefix("http://")], {}) == 0


def test_the_command_s_flags(fake: FakeOllama, url: str) -> None:
    assert main(["check", url, "--model", "demo-think", "--upstream-header", "X-Team: red"], {}) == 0
    assert chats(fake) == ["demo-think"]
    assert {request.headers["x-team"] for request in fake.requests} == {"red"}


def test_a_backend_that_cannot_be_reached_fails_at_once() -> None:
    with refusing() as url:
        assert checked(url) == (
            1,
            [url, "  FAILED version  The backend could not be reached. (upstream_unreachable)"],
        )


def test_the_reason_of_a_failure_is_told_to_who_checks() -> None:
    out = io.StringIO()
    with refusing() as url:
        check(url.replace("://", "://me:secret@"), out=out)
    assert "Connection refused" in out.getvalue()
    assert "secret" not in out.getvalue()


def test_a_check_without_a_url_asks_where_the_variable_says(url: str) -> None:
    assert main(["check"], {"OLLAMA_HOST": url}) == 0


def test_the_command_when_unreachable() -> None:
    with refusing() as url:
        ended = command("check", url)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "FAILED" in ended.stdout


def test_a_password_is_not_shown() -> None:
    with refusing() as url:
        _, lines = checked(url.replace("://", "://me:secret@"))
    assert "secret" not in "".join(lines)


NOT_FOUND: dict[str, Any] = {"status": "404 Not Found", "content_type": "text/plain"}


def test_what_is_no_ollama(fake: FakeOllama, url: str) -> None:
    for path in ("/api/version", "/api/tags", "/api/ps"):
        fake.script(path, b"404 page not found", **NOT_FOUND)
    status, lines = checked(url)
    assert status == 1
    assert lines[1:] == [
        "  ok     version  unknown",
        "  FAILED models   The backend is not an Ollama. (backend_not_ollama)",
        "  FAILED chat     There is no model that can chat. (model_not_found)",
    ]


@pytest.mark.parametrize(
    ("body", "status", "content_type"),
    [
        (b"404 page not found", "404 Not Found", "text/plain"),
        (b'{"error": "no such route"}', "404 Not Found", JSON),
        (b'{"detail": "Not Found"}', "404 Not Found", JSON),
        (b"", "405 Method Not Allowed", "text/plain"),
    ],
)
def test_a_server_without_a_version_may_be_all_right(
    fake: FakeOllama, url: str, body: bytes, status: str, content_type: str
) -> None:
    fake.script("/api/version", body, status=status, content_type=content_type)
    found, lines = checked(url)
    assert (found, lines[1]) == (0, "  ok     version  unknown")
    assert lines[3].startswith("  ok     chat     demo:latest streamed ")


def test_a_version_that_fails_is_a_failure(fake: FakeOllama, url: str) -> None:
    fake.script("/api/version", b"no", status="500 Internal Server Error", content_type="text/plain")
    status, lines = checked(url)
    assert status == 1
    assert [line[:16] for line in lines[1:]] == ["  FAILED version"]


def test_a_list_of_models_that_fails_is_a_failure_even_if_the_chat_works(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", {"error": "disk"}, status="500 Internal Server Error", content_type=JSON)
    status, lines = checked(url, model="demo")
    assert status == 1
    assert lines[2] == "  FAILED models   disk (upstream_error)"
    assert lines[3].startswith("  ok     chat     demo streamed ")


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([say("Once"), {"error": "out of memory"}], "out of memory"),
        ([say("Once")], "The backend's answer ended before it was complete."),
        ([{"error": "out of memory"}], "out of memory"),
    ],
    ids=["in the middle", "without done", "at once"],
)
def test_a_model_that_fails(fake: FakeOllama, url: str, steps: list[Any], text: str) -> None:
    fake.script("/api/chat", *steps)
    status, lines = checked(url)
    assert status == 1
    assert lines[3].startswith(f"  FAILED chat     {text}")


def test_a_model_that_is_not_there(url: str) -> None:
    status, lines = checked(url, model="nothing")
    assert status == 1
    assert lines[3].startswith("  FAILED chat     The model `nothing` does not exist")


def test_no_model_at_all(fake: FakeOllama, url: str) -> None:
    for _ in range(2):
        fake.script("/api/tags", {"models": None}, content_type=JSON)
    status, lines = checked(url)
    assert status == 1
    assert lines[2:] == [
        "  ok     models   none",
        "  FAILED chat     There is no model that can chat. (model_not_found)",
    ]


# -- which model ------------------------------------------------------------------------------


def test_a_loaded_model_is_taken_first(fake: FakeOllama, url: str) -> None:
    fake.script("/api/ps", models("demo-think:latest"), content_type=JSON)
    status, lines = checked(url)
    assert status == 0
    assert chats(fake) == ["demo-think:latest"]
    assert "demo-think:latest streamed" in lines[3]


@pytest.mark.parametrize(
    "loaded", [models(), models("demo-embed:latest"), {"models": None}], ids=["none", "no", "null"]
)
def test_else_the_first_that_can_chat(fake: FakeOllama, url: str, loaded: dict[str, Any]) -> None:
    fake.script("/api/ps", loaded, content_type=JSON)
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo:latest"]


def test_a_server_without_a_list_of_loaded_models(fake: FakeOllama, url: str) -> None:
    fake.script("/api/ps", b"404 page not found", status="404 Not Found", content_type="text/plain")
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo:latest"]


def test_a_model_that_embeds_is_passed_over(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models(other=["embedding"], demo=["completion"]), content_type=JSON)
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo"]


def test_a_server_that_tells_no_capabilities_is_trusted(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models("demo-tools", "demo"), content_type=JSON)
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo-tools"]


@pytest.mark.parametrize("told", [None, ["completion"]], ids=["no capabilities", "wrong ones"])
def test_an_embedding_model_that_the_list_does_not_tell_is_passed_over(
    fake: FakeOllama, url: str, told: list[str] | None
) -> None:
    listed = {"name": "demo-embed", "model": "demo-embed"} | ({} if told is None else {"capabilities": told})
    fake.script("/api/tags", {"models": [listed, {"name": "demo"}]}, content_type=JSON)
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo"]


def test_a_server_that_tells_capabilities_nowhere_is_asked_for_the_next_model(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models("demo-embed", "demo"), content_type=JSON)
    for _ in range(2):
        fake.script("/api/show", {"modified_at": "2024-01-01T00:00:00Z"}, content_type=JSON)
    status, lines = checked(url)
    assert (status, chats(fake)) == (0, ["demo-embed", "demo"])
    assert lines[3].startswith("  ok     chat     demo streamed ")


def test_a_server_without_the_page_of_a_model_is_trusted(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models("demo-tools", "demo"), content_type=JSON)
    fake.script("/api/show", b"404 page not found", status="404 Not Found", content_type="text/plain")
    assert checked(url)[0] == 0
    assert chats(fake) == ["demo-tools"]


def test_models_that_all_refuse_to_chat_are_a_failure_of_the_first(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models(*"abcdefgh"), content_type=JSON)
    for name in "abcdefgh":
        error = {"error": f'"{name}" does not support chat'}
        fake.script("/api/chat", error, status="400 Bad Request", content_type=JSON)
    status, lines = checked(url)
    assert status == 1
    assert '"a" does not support chat' in lines[3]
    assert 1 < len(chats(fake)) < 8


def test_a_model_that_fails_is_not_followed_by_another(fake: FakeOllama, url: str) -> None:
    fake.script("/api/tags", models("demo", "demo-tools"), content_type=JSON)
    fake.script("/api/chat", {"error": "out of memory"}, status="500 Internal Server Error", content_type=JSON)
    assert checked(url)[0] == 1
    assert chats(fake) == ["demo"]


def test_a_check_without_certificates_says_so(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        assert main(["check", url, "--insecure"], {}) == 0
    assert [record.getMessage() for record in caplog.records if "--insecure" in record.getMessage()]


def test_a_check_may_go_through_a_proxy(url: str) -> None:
    assert main(["check", "http://no.such.invalid", "--proxy", url], {}) == 0


def test_the_model_may_be_given(fake: FakeOllama, url: str) -> None:
    fake.script("/api/chat", say("Hello."), done())
    status, lines = checked(url, model="some/other:model")
    assert status == 0
    assert chats(fake) == ["some/other:model"]
    assert "some/other:model streamed 3 chunks in " in lines[3]


# -- versions ---------------------------------------------------------------------------------

EMBED, TRUNCATE, LOGPROBS = "/api/embed (embeddings)", 'truncate: false (overflow="error")', "logprobs"
VERSIONS = {
    "0.1.24": [EMBED, TRUNCATE, LOGPROBS],
    "0.3.0": [TRUNCATE, LOGPROBS],
    "0.12.5": [TRUNCATE, LOGPROBS],
    "0.12.6": [LOGPROBS],
    "0.12.11-rc1": [],
    "0.13.0": [],
    "1.0.0": [],
    "0.0.0": [],
    "unknown": [],
}


@pytest.mark.parametrize(("version", "lacks"), VERSIONS.items(), ids=VERSIONS)
def test_what_an_older_version_lacks(fake: FakeOllama, url: str, version: str, lacks: list[str]) -> None:
    fake.script("/api/version", {"version": version}, content_type=JSON)
    status, lines = checked(url)
    told = f"; too old for {', '.join(lacks)}" if lacks else ""
    assert (status, lines[1]) == (0, f"  ok     version  {version}{told}")


def test_a_version_that_is_not_told(fake: FakeOllama, url: str) -> None:
    fake.script("/api/version", {}, content_type=JSON)
    assert checked(url)[1][1] == "  ok     version  unknown"
