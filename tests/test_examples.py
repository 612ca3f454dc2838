"""Every file in ``examples/`` runs as it stands.

A program that serves is asked the same questions twice: in this process, and as a process of its own on a free
loopback port, which it says itself once it listens. Its Ollama, where it has one, is a fake on a loopback port.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from socketserver import ThreadingMixIn
from types import ModuleType
from typing import IO, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from werkzeug.test import Client

from openai_compat.testing import FakeOllama, Gate, done, say

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

#: seconds that a process may take to listen, to end, or to answer
PATIENCE = 20.0

#: asks a server: method, path, and a body as JSON; gives the status and the lines of the answer, as they come
Ask = Callable[..., AbstractContextManager[tuple[int, Iterator[bytes]]]]


# -- an application in this process -----------------------------------------------------------


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example, for this test only."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def in_process(app: Any) -> Ask:
    client = Client(app)  # it keeps cookies

    @contextlib.contextmanager
    def ask(method: str, path: str, body: object = None) -> Iterator[tuple[int, Iterator[bytes]]]:
        with client.open(path, method=method, json=body) as response:
            yield response.status_code, (line for item in response.response for line in item.splitlines(True))

    return ask


# -- an application in a process of its own ---------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """The environment of an example: ours, without what would set up its server, and with our package."""
    kept = {k: v for k, v in os.environ.items() if not re.match("(FLASK|DJANGO|GUNICORN|WERKZEUG|OLLAMA|OPENAI)_", k)}
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": python_path, "PYTHONDEVMODE": "1", "PORT": "0", **more}


@contextlib.contextmanager
def served(command: list[str], **more: str) -> Iterator[Ask]:
    """Run a server until the test is done with it."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    output = _Output(process.stdout)
    try:
        yield over_socket(output.port())
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
            raise
        finally:
            output.close()
    for sign in ("Traceback", "ResourceWarning"):
        assert sign not in output.text


class _Output:
    """What a process prints. It is read to its end, so that the process never waits for us."""

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._stream = stream
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self.text += line
            self._lines.put(line)
        self._lines.put("")

    def port(self) -> int:
        """The port that the server says it listens at."""
        deadline = time.monotonic() + PATIENCE
        # A server that hangs raises queue.Empty here; one that ends, ends its output.
        while line := self._lines.get(timeout=max(deadline - time.monotonic(), 0.01)):
            if found := re.search(r"(?:Running on|Listening at:) http://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
        raise AssertionError(f"the server did not start:\n{self.text}")

    def close(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a child of the server outlived it"
        self._stream.close()


def over_socket(port: int) -> Ask:
    cookies: dict[str, str] = {}

    @contextlib.contextmanager
    def ask(method: str, path: str, body: object = None) -> Iterator[tuple[int, Iterator[bytes]]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json", **cookies}
            connection.request(method, path, json.dumps(body).encode(), headers)
            with connection.getresponse() as response:
                if given := response.getheader("Set-Cookie"):
                    cookies["Cookie"] = given.partition(";")[0]
                yield response.status, iter(response)

    return ask


# -- the Ollama of those that want one --------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a connection, each waited for at the end. HTTP/1.0: no connection outlives its answer."""


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Ollama(FakeOllama):
    """A fake Ollama with a URL."""

    url = ""


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    fake = Ollama()
    with make_server("127.0.0.1", 0, fake, server_class=_Server, handler_class=_Quiet) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        server.shutdown()
        thread.join(PATIENCE)


# -- what they are asked ----------------------------------------------------------------------

QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Who is there?"}]}


def page(ask: Ask, path: str) -> tuple[int, str]:
    with ask("GET", path) as (status, lines):
        return status, b"".join(lines).decode()


def value(ask: Ask, method: str, path: str, body: object = None) -> Any:
    with ask(method, path, body) as (status, lines):
        text = b"".join(lines)
    assert status == 200, text
    return json.loads(text)


def models(ask: Ask) -> list[str]:
    return [model["id"] for model in value(ask, "GET", "/v1/models")["data"]]


def contents(lines: Iterable[bytes]) -> Iterator[str]:
    """The pieces of text of a stream, as they come. The stream must end as a whole one does."""
    line = b""
    for line in filter(bytes.strip, lines):
        if line.startswith(b"data: {"):
            choice = json.loads(line.removeprefix(b"data: "))["choices"][0]
            if choice["delta"].get("content"):
                yield choice["delta"]["content"]
    assert line.strip() == b"data: [DONE]"


def check_upstream(ask: Ask, ollama: Ollama) -> None:
    """The answers are those of the Ollama at the URL, and a stream is not held back on its way."""
    assert models(ask) == [
        "demo:latest",
        "demo-think:latest",
        "demo-tools:latest",
        "demo-plain:latest",
        "demo-text:latest",
        "demo-embed:latest",
    ]
    answer = value(ask, "POST", "/v1/chat/completions", QUESTION)
    assert answer["choices"][0]["message"]["content"].endswith("not a model. You said: Who is there?")
    assert [request.path for request in ollama.requests] == ["/api/tags", "/api/ps", "/api/chat"]
    assert ollama.requests[2].json["messages"] == QUESTION["messages"]

    gate = Gate(PATIENCE)
    ollama.script("/api/chat", say("Only"), gate, say(" me"), done())
    with ask("POST", "/v1/chat/completions", {**QUESTION, "stream": True}) as (status, lines):
        assert status == 200
        pieces = contents(lines)
        assert next(pieces) == "Only"
        gate.open()
        assert list(pieces) == [" me"]


def check_site(ask: Ask, title: str) -> None:
    """The site has its pages, and what is below /api is its own too."""
    status, text = page(ask, "/")
    assert (status, title in text) == (200, True)
    status, text = page(ask, "/api/tags")
    assert (status, "demo" in text) == (404, False)
    status, text = page(ask, "/v1/no/such/thing")
    assert (status, "Not Found" in text) == (404, True)


def python(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name)]


def finished(command: list[str], **more: Any) -> str:
    """Run a program to its end: what it printed."""
    run = subprocess.run(
        command, env=environment(), capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE, **more
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ResourceWarning" not in run.stderr
    return run.stdout


# -- flask_app.py -----------------------------------------------------------------------------


def check_flask_app(ask: Ask) -> None:
    question = {"model": "echo", "messages": [{"role": "user", "content": "Hello there!"}]}
    answer = value(ask, "POST", "/v1/chat/completions", question)
    assert answer["model"] == "echo"
    assert answer["choices"][0]["message"]["content"] == "You said: Hello there!"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == answer["usage"] | {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    with ask("POST", "/v1/chat/completions", {**question, "stream": True}) as (status, lines):
        assert status == 200
        assert list(contents(lines)) == ["You said:", " Hello", " there!"]
    assert models(ask) == ["echo"]
    assert value(ask, "GET", "/v1/models/echo")["created"] == 1767225600
    status, text = page(ask, "/v1/models/other")
    assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
    # The native API stays where it was.
    assert value(ask, "GET", "/api/tags")["models"][0]["name"] == "echo"


def test_flask_app_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask", reason="flask is not installed")
    check_flask_app(in_process(load("flask_app", monkeypatch).app))


def test_flask_app_served() -> None:
    pytest.importorskip("flask", reason="flask is not installed")
    with served(python("flask_app.py")) as ask:
        check_flask_app(ask)


def check_login(ask: Ask) -> None:
    """The site's login opens the API too; the wrong one does not."""
    for body in (None, {"user": "ann", "password": "open"}):
        if body is not None:
            with ask("POST", "/login", body) as (status, _):
                assert status == 403
        with ask("POST", "/v1/chat/completions", QUESTION) as (status, lines):
            assert (status, b"invalid_api_key" in b"".join(lines)) == (401, True)
    with ask("POST", "/login", {"user": "ann", "password": "sesame"}) as (status, _):
        assert status == 200


# -- flask_site.py ----------------------------------------------------------------------------


def test_flask_site_in_process(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask", reason="flask is not installed")
    monkeypatch.delenv("OPENAI_COMPAT_UPSTREAM", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    monkeypatch.setenv("PASSWORD", "sesame")
    ask = in_process(load("flask_site", monkeypatch).app)
    check_login(ask)
    check_upstream(ask, ollama)
    check_site(ask, "A Flask site")


def test_flask_site_served(ollama: Ollama) -> None:
    pytest.importorskip("flask", reason="flask is not installed")
    variables = {"OLLAMA_HOST": "no.such.invalid", "OPENAI_COMPAT_UPSTREAM": ollama.url, "PASSWORD": "sesame"}
    with served(python("flask_site.py"), **variables) as ask:
        check_login(ask)
        check_upstream(ask, ollama)
        check_site(ask, "A Flask site")


# -- django_site.py ---------------------------------------------------------------------------


@contextlib.contextmanager
def unconfigured_django() -> Iterator[None]:
    """A process has one Django configuration: make room for another, and put it back."""
    from django.conf import settings
    from django.urls import clear_url_caches
    from django.utils.functional import empty

    before = settings._wrapped
    settings._wrapped = empty
    clear_url_caches()
    try:
        yield
    finally:
        settings._wrapped = before
        clear_url_caches()


def test_django_site_in_process(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django", reason="django is not installed")
    monkeypatch.delenv("OPENAI_COMPAT_UPSTREAM", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    monkeypatch.setenv("PASSWORD", "sesame")
    with unconfigured_django():
        ask = in_process(load("django_site", monkeypatch).application)
        check_login(ask)
        check_upstream(ask, ollama)
        check_site(ask, "A Django site")


def test_django_site_served(ollama: Ollama) -> None:
    pytest.importorskip("django", reason="django is not installed")
    variables = {"OLLAMA_HOST": "no.such.invalid", "OPENAI_COMPAT_UPSTREAM": ollama.url, "PASSWORD": "sesame"}
    with served(python("django_site.py"), **variables) as ask:
        check_login(ask)
        check_upstream(ask, ollama)
        check_site(ask, "A Django site")


# -- gunicorn_app.py --------------------------------------------------------------------------


def documented_command() -> list[str]:
    """The gunicorn command in the docstring, for this interpreter."""
    text = (EXAMPLES / "gunicorn_app.py").read_text(encoding="utf-8")
    found = re.search(r"^ +gunicorn (.+)$", text, re.MULTILINE)
    assert found is not None
    return [sys.executable, "-m", "gunicorn", *shlex.split(found[1])]


def test_gunicorn_app_in_process(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_COMPAT_UPSTREAM", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    check_upstream(in_process(load("gunicorn_app", monkeypatch).application), ollama)


@pytest.mark.parametrize("how", ["program", "documented"])
def test_gunicorn_app_served(ollama: Ollama, tmp_path: Path, how: str) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    command = python("gunicorn_app.py") if how == "program" else documented_command()
    # Newer gunicorns put a control socket below XDG_RUNTIME_DIR, else in the home directory.
    where = {"OLLAMA_HOST": ollama.url, "XDG_RUNTIME_DIR": str(tmp_path)}
    with served([*command, "--bind", "127.0.0.1:0"], **where) as ask:
        check_upstream(ask, ollama)


# -- test_with_webtest.py ---------------------------------------------------------------------

# Looked for, not imported: before Python 3.13 its import warns, as WebOb uses the deprecated module cgi.
needs_webtest = pytest.mark.skipif(importlib.util.find_spec("webtest") is None, reason="webtest is not installed")


@needs_webtest
def test_with_webtest_runs_as_a_program() -> None:
    assert finished(python("test_with_webtest.py")) == "both tests passed\n"


@needs_webtest
def test_with_webtest_runs_under_pytest(tmp_path: Path) -> None:
    # In a project without our settings, as a reader would have it.
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    example = str(EXAMPLES / "test_with_webtest.py")
    printed = finished(
        [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider", example], cwd=tmp_path
    )
    assert re.search(r"\b2 passed\b", printed)


# -- openai_client_without_socket.py ----------------------------------------------------------


def test_openai_client_without_socket() -> None:
    pytest.importorskip("openai", minversion="3", reason="openai 3 or later is not installed")
    printed = finished(python("openai_client_without_socket.py"))
    assert printed.splitlines() == [
        "This is the openai-compat demo, not a model. You said: Hello!",
        "This is the openai-compat demo, not a model. You said: Hello again!",
    ]


# -- responses_with_state.py ------------------------------------------------------------------


def test_responses_with_state() -> None:
    pytest.importorskip("openai", minversion="3", reason="openai 3 or later is not installed")
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    said = "This is the openai-compat demo, not a model. You said:"
    assert finished(python("responses_with_state.py")).splitlines() == [
        f"{said} My name is Ann.",
        "The second one was sent 3 items.",
        "The conversation has 4 items.",
        f"completed: {said} Take your time.",
    ]


# -- all of them ------------------------------------------------------------------------------

TESTS: dict[str, tuple[Callable[..., None], ...]] = {
    "django_site.py": (test_django_site_in_process, test_django_site_served),
    "flask_app.py": (test_flask_app_in_process, test_flask_app_served),
    "flask_site.py": (test_flask_site_in_process, test_flask_site_served),
    "gunicorn_app.py": (test_gunicorn_app_in_process, test_gunicorn_app_served),
    "openai_client_without_socket.py": (test_openai_client_without_socket,),
    "responses_with_state.py": (test_responses_with_state,),
    "test_with_webtest.py": (test_with_webtest_runs_as_a_program, test_with_webtest_runs_under_pytest),
}


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"} == set(TESTS)
    assert all(TESTS.values())


@pytest.mark.parametrize("name", TESTS)
def test_the_docstring_says_how_to_run_it(name: str) -> None:
    docstring = (EXAMPLES / name).read_text(encoding="utf-8").split('"""')[1]
    assert re.search(rf"^    (\w+=\S+ )*python examples/{re.escape(name)}\b", docstring, re.MULTILINE)
