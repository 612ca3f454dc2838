"""``openai-compat serve``: a real gunicorn, real sockets, and what it says of itself."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from openai_compat import OpenAICompat
from openai_compat.server.cli import main
from openai_compat.server.serve import ServerConfig, address, announcement, guarded
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, Gate, done, say
from openai_compat.testing.demo import MODELS
from tests.servers import ENDING, TIMEOUT, Server, command, live, refusing, serving

pytestmark = pytest.mark.server

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

NO_GEVENT = pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
WORKERS = pytest.mark.parametrize("worker", ["gthread", pytest.param("gevent", marks=NO_GEVENT)])

#: takes the place of gthread
BUFFERING = "openai_compat.server.buffering_worker.BufferingThreadWorker"

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}


# -- a raw client -----------------------------------------------------------------------------


def connection(url: str) -> Any:
    """A connection to the server of a URL, closed at the end of ``with``."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return closing(HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT))


def post(http: HTTPConnection, body: Mapping[str, Any], path: str = "/v1/chat/completions") -> HTTPResponse:
    http.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return http.getresponse()


def ask(server: Server, **arguments: Any) -> tuple[int, Any]:
    """One whole answer: its status, and its JSON."""
    with connection(server.base_url) as http:
        response = post(http, {**CHAT, **arguments})
        return response.status, json.loads(response.read())


def contents(response: HTTPResponse) -> Iterator[str]:
    """The contents of a stream's deltas, each as soon as its event is there; then ``[DONE]``."""
    while line := response.readline():
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            yield "[DONE]"
        elif data:
            choices = json.loads(data).get("choices") or [{}]
            content = choices[0].get("delta", {}).get("content")
            if content:
                yield content


# -- streams ----------------------------------------------------------------------------------


@WORKERS
def test_a_stream_is_live(worker: str) -> None:
    """The backend says its next line only after the client has read the event of the one before."""
    fake, gates = FakeOllama(), [Gate(15.0) for _ in range(5)]
    rounds = [step for i, gate in enumerate(gates, 1) for step in (gate, say(str(i)))]
    fake.script("/api/chat", say("0"), *rounds, done())
    with (
        live(fake) as url,
        serving("--upstream", url, "--worker-class", worker) as server,
        connection(server.base_url) as http,
    ):
        response = post(http, {**CHAT, "stream": True})
        shut, seen = iter(gates), []
        for content in contents(response):
            seen.append(content)
            gate = next(shut, None)
            if gate is not None:
                gate.open()
    assert seen == ["0", "1", "2", "3", "4", "5", "[DONE]"]


@WORKERS
def test_silent_streams_do_not_hold_up_others(worker: str) -> None:
    fake, gate = FakeOllama(), Gate(15.0)
    for _ in range(4):
        fake.script("/api/chat", say("so far"), gate, done())
    with live(fake) as url, serving("--upstream", url, "--worker-class", worker) as server:
        waiting = [HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT) for _ in range(4)]
        try:
            streams = [contents(post(http, {**CHAT, "stream": True})) for http in waiting]
            assert [next(stream) for stream in streams] == ["so far"] * 4
            assert ask(server)[0] == 200
            gate.open()
            assert [list(stream) for stream in streams] == [["[DONE]"]] * 4
        finally:
            for http in waiting:
                http.close()


@WORKERS
def test_a_client_that_leaves_ends_the_native_call(worker: str) -> None:
    fake, ended = _Endless(), threading.Event()
    fake.ended = ended
    with live(fake) as url, serving("--upstream", url, "--worker-class", worker) as server:
        with connection(server.base_url) as http:
            next(contents(post(http, {**CHAT, "stream": True})))
        assert ended.wait(TIMEOUT)


class _Endless:
    """A backend that talks on until nobody listens."""

    ended: threading.Event

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        line = json.dumps(say("word " * 1000)).encode() + b"\n"
        try:
            while True:
                yield line
        finally:
            self.ended.set()


# -- connections ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with serving("--demo") as server:
        yield server


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_connection_serves_several_requests(demo: Server, stream: bool) -> None:
    with connection(demo.base_url) as http:
        post(http, {**CHAT, "stream": stream}).read()
        first = http.sock
        assert first is not None
        assert post(http, {**CHAT, "stream": stream}).read()
        assert http.sock is first


def test_an_error_keeps_the_connection(demo: Server) -> None:
    with connection(demo.base_url) as http:
        assert b"model_not_found" in post(http, {**CHAT, "model": "nothing"}).read()
        first = http.sock
        assert first is not None
        assert post(http, CHAT).status == 200
        assert http.sock is first


def test_what_is_not_ours_passes_through(demo: Server) -> None:
    with connection(demo.base_url) as http:
        http.request("GET", "/api/version")
        assert json.loads(http.getresponse().read()) == {"version": "0.0.0-openai-compat-demo"}


def test_a_prefix_of_one_s_own() -> None:
    with serving("--demo", "--prefix", "/openai/v1") as server:
        assert server.base_url.endswith("/openai/v1")
        with connection(server.base_url) as http:
            assert post(http, CHAT, "/openai/v1/chat/completions").status == 200


# -- the announcement -------------------------------------------------------------------------


def test_the_announcement_says_where_what_and_a_line_to_try(demo: Server) -> None:
    first, backend, models, line = demo.announced.splitlines()
    assert first == f"openai-compat listens at http://127.0.0.1:{demo.port}/v1"
    assert backend == "  backend: the built-in demo"
    assert models == "  models:  " + ", ".join(f"{name}:latest" for name in MODELS)
    assert line.startswith("  try:     curl -N http://127.0.0.1:")


def test_the_line_to_try_works(demo: Server) -> None:
    words = shlex.split(demo.announced.splitlines()[-1].partition("try:")[2])
    [url] = [word for word in words if word.startswith("http")]
    body = json.loads(words[words.index("-d") + 1])
    name, _, value = words[words.index("-H") + 1].partition(": ")
    with connection(url) as http:
        http.request("POST", urlsplit(url).path, json.dumps(body), {name: value})
        assert list(contents(http.getresponse()))[-1] == "[DONE]"


def test_the_announcement_names_the_upstream_without_its_password() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", {"models": [{"model": "one:latest"}, {"model": "two:latest"}]})
    with live(fake) as url:
        secret = url.replace("://", "://someone:secret@")
        with serving("--upstream", secret) as server:
            assert ask(server)[0] == 200
            assert server.stop() == 0
            assert f"  backend: {url.replace('://', '://***@')}\n" in server.announced
            assert "  models:  one:latest, two:latest\n" in server.announced
            assert '"model": "one:latest"' in server.announced
            assert "secret" not in server.announced + server.stderr


def test_an_upstream_without_models_is_told_to_pull_one() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", {"models": None})
    with live(fake) as url, serving("--upstream", url) as server:
        assert "  models:  none yet; `ollama pull` one\n" in server.announced
        assert '"model": "MODEL"' in server.announced


def test_an_unreachable_upstream_is_one_line_and_a_502() -> None:
    with refusing() as url, serving("--upstream", url) as server:
        told = (
            "  models:  unknown: The backend could not be reached. The server runs anyway; `--demo` needs no Ollama.\n"
        )
        assert told in server.announced
        status, body = ask(server)
        assert (status, body["error"]["code"]) == (502, "upstream_unreachable")


def test_a_silent_upstream_does_not_hold_up_the_announcement() -> None:
    fake, gate = FakeOllama(), Gate(TIMEOUT)
    fake.script("/api/tags", gate)
    with live(fake) as url, serving("--upstream", url) as server:
        gate.open()
        assert "unknown: The backend took too long. The server runs anyway;" in server.announced


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("::1", 8000, 0, 0), "http://[::1]:8000"),
        ("/run/openai.sock", "unix:/run/openai.sock"),
    ],
    ids=["IPv4", "IPv6", "unix"],
)
def test_an_address_is_written_as_a_url(name: Any, expected: str) -> None:
    assert address(name) == expected


def test_all_addresses_are_announced() -> None:
    plan = ServerConfig(upstream=None, headers={}, verify=True, settings=Settings(prefix=""), server={})
    text = announcement(plan, ["http://127.0.0.1:1", "http://[::1]:2"])
    assert text.startswith("openai-compat listens at http://127.0.0.1:1, http://[::1]:2\n")
    assert "curl -N http://127.0.0.1:1/chat/completions " in text


def test_an_upstream_that_cannot_be_reached_is_announced_as_such() -> None:
    with refusing() as url:
        plan = ServerConfig(upstream=url, headers={}, verify=True, settings=Settings(), server={})
        text = announcement(plan, ["http://127.0.0.1:1"])
    assert (
        "  models:  unknown: The backend could not be reached. The server runs anyway; `--demo` needs no Ollama.\n"
        in text
    )


def test_a_unix_socket_is_announced_with_a_line_that_works() -> None:
    plan = ServerConfig(upstream=None, headers={}, verify=True, settings=Settings(), server={})
    text = announcement(plan, ["unix:/run/x.sock"])
    assert text.startswith("openai-compat listens at unix:/run/x.sock\n")
    assert "curl -N --unix-socket /run/x.sock http://localhost/v1/chat/completions " in text


def test_the_plan_s_backend_has_its_settings() -> None:
    settings = dataclasses.replace(Settings(), connect_timeout=1.0, head_timeout=2.0, idle_timeout=3.0)
    plan = ServerConfig(upstream="http://127.0.0.1:1", headers={}, verify=True, settings=settings, server={})
    backend: Any = plan.backend()
    assert (backend.connect, backend.head, backend.idle) == (1.0, 2.0, 3.0)
    probe: Any = plan.backend(timeout=0.5)
    assert (probe.connect, probe.head, probe.idle) == (0.5, 0.5, 0.5)


def test_upstream_headers_go_with_every_native_request() -> None:
    fake = FakeOllama()
    flags = ("--upstream-header", "Authorization: Bearer upstream", "--upstream-header", "X-Team:red")
    with live(fake) as url, serving("--upstream", url, *flags) as server:
        ask(server)
    assert {request.headers["authorization"] for request in fake.requests} == {"Bearer upstream"}
    assert {request.headers["x-team"] for request in fake.requests} == {"red"}


# -- starting and ending ----------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize("ask_to_end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_status_0(worker: str, ask_to_end: signal.Signals) -> None:
    with serving("--demo", "--worker-class", worker) as server:
        assert ask(server)[0] == 200
        server.process.send_signal(ask_to_end)
        # gunicorn shuts its thread pool down inside a signal handler: now and then that blocks a worker,
        # which the master kills after its graceful time-out.
        assert server.process.wait(ENDING) == 0


def test_sigterm_with_a_kept_connection_does_not_wait_for_its_end() -> None:
    with serving("--demo") as server, connection(server.base_url) as http:
        post(http, CHAT).read()
        assert http.sock is not None
        assert server.stop() == 0


@WORKERS
def test_sigint_ends_running_streams_at_once(worker: str) -> None:
    fake, gate = FakeOllama(), Gate(30.0)
    fake.script("/api/chat", say("so far"), gate, done())
    with live(fake) as url, serving("--upstream", url, "--worker-class", worker) as server:
        with connection(server.base_url) as http:
            stream = contents(post(http, {**CHAT, "stream": True}))
            assert next(stream) == "so far"
            server.process.send_signal(signal.SIGINT)
            # long before the gate or gunicorn's graceful time-out would end it
            assert server.process.wait(10.0) == 0
        gate.open()


@WORKERS
def test_sigterm_lets_a_running_stream_end(worker: str) -> None:
    fake, gate = FakeOllama(), Gate(15.0)
    fake.script("/api/chat", say("so far"), gate, say("so good"), done())
    with live(fake) as url, serving("--upstream", url, "--worker-class", worker) as server:
        with connection(server.base_url) as http:
            stream = contents(post(http, {**CHAT, "stream": True}))
            assert next(stream) == "so far"
            server.process.terminate()
            gate.open()
            assert list(stream) == ["so good", "[DONE]"]
        assert server.process.wait(TIMEOUT) == 0


def test_a_port_in_use_is_an_error_and_no_endless_respawn() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = command("serve", "--demo", "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert "in use" in ended.stderr


def test_a_server_takes_the_sockets_that_systemd_has_opened() -> None:
    """It listens at the address already, so that a probe of it would say that it is in use."""
    code = (
        "import os, socket, sys\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "os.dup2(sock.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "arguments = sys.argv[1:] + ['--bind', f'127.0.0.1:{sock.getsockname()[1]}']\n"
        "os.execv(sys.executable, [sys.executable, *arguments])\n"
    )
    with serving("--demo", bind=None, python=("-c", code)) as server:
        assert ask(server)[0] == 200
        assert server.stop() == 0
        assert "in use" not in server.stderr


@pytest.mark.parametrize(
    "environ",
    [{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": "", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}],
    ids=["another's", "empty", "none"],
)
def test_sockets_that_are_for_another_process_are_not_taken(environ: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = command("serve", "--demo", "--bind", f"127.0.0.1:{taken.getsockname()[1]}", environ=environ)
    assert ended.returncode == 2
    assert "in use" in ended.stderr


def test_sigusr2_starts_another_server_at_the_same_socket() -> None:
    with serving("--demo") as server:
        assert ask(server)[0] == 200
        server.process.send_signal(signal.SIGUSR2)
        assert server.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(server.process.stdout, selectors.EVENT_READ)
            text = b""
            while b"  try: " not in text:
                assert selector.select(TIMEOUT), server.stderr
                data = os.read(server.process.stdout.fileno(), 65536)
                assert data, server.stderr
                text += data
        assert f"openai-compat listens at {server.base_url}\n" in text.decode()
        assert server.stop() == 0
        assert ask(server)[0] == 200
        assert "in use" not in server.stderr


def test_a_platform_s_port_is_announced_as_reachable_from_everywhere() -> None:
    with refusing() as url:
        port = str(urlsplit(url).port)
    with serving("--demo", bind=None, environ={"PORT": port, "WEB_CONCURRENCY": "2"}) as server:
        first, access, *_ = server.announced.splitlines()
        assert first == f"openai-compat listens at http://0.0.0.0:{port}/v1"
        assert access == "  access:  reachable from other machines, no keys"
        assert ask(server)[0] == 200


@pytest.mark.parametrize(
    ("url", "is_public"),
    [
        ("http://127.0.0.1:1", False),
        ("http://127.9.9.9:1", False),
        ("http://[::1]:1", False),
        ("unix:/run/x.sock", False),
        ("http://0.0.0.0:1", True),
        ("http://[::]:1", True),
        ("http://192.168.1.2:1", True),
        ("http://[fe80::1%eth0]:1", True),
    ],
)
def test_who_can_reach_the_server_is_announced(url: str, is_public: bool) -> None:
    plan = ServerConfig(upstream=None, headers={}, verify=True, settings=Settings(), server={})
    for urls in ([url], ["http://127.0.0.1:2", url]):
        assert ("  access:  reachable from other machines, no keys\n" in announcement(plan, urls)) is is_public


@pytest.mark.parametrize("given", ["auto", "", " ", "-1"])
def test_a_number_of_workers_that_is_none_is_one_line(given: str) -> None:
    ended = command("serve", "--demo", environ={"WEB_CONCURRENCY": given})
    assert ended.returncode == 2
    assert ended.stderr == f"openai-compat: WEB_CONCURRENCY must be a number of worker processes, not {given!r}\n"


def test_a_number_of_workers_that_is_not_used_may_be_anything() -> None:
    with serving("--demo", "--workers", "1", environ={"WEB_CONCURRENCY": "auto"}) as server:
        assert ask(server)[0] == 200


READ_ONLY = {
    "the usual directories": ((), {"TMPDIR": "/proc"}, "in the usual directories"),
    "the given directory": (("--worker-tmp-dir", "/proc"), {}, "in '/proc'"),
    "no directory": (("--worker-tmp-dir", "/no/such"), {}, "in '/no/such'"),
}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no directory in which nobody can write")
@pytest.mark.parametrize(("flags", "environ", "where"), READ_ONLY.values(), ids=READ_ONLY)
def test_a_read_only_file_system_is_one_line(flags: tuple[str, ...], environ: dict[str, str], where: str) -> None:
    code = (
        "import sys, tempfile\n"
        "tempfile._candidate_tempdir_list = lambda: ['/proc']\n"
        "from openai_compat.server.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    ended = command("serve", "--demo", "--bind", "127.0.0.1:0", *flags, environ=environ, python=("-c", code))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"openai-compat: no temporary file can be made {where} (")
    assert ended.stderr.endswith("); set a writable directory with --worker-tmp-dir\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text", [f"unix:/tmp/{'x' * 200}", "unix:/no/such/x.sock", f"unix:{__file__}", "no.such.invalid:80"]
)
def test_an_address_that_cannot_be_used_is_one_line(text: str) -> None:
    ended = command("serve", "--demo", "--bind", text)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"openai-compat: {text}: ")
    assert ended.stderr.count("\n") == 1


def test_a_unix_socket_can_be_listened_at(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with serving("--demo", bind=f"unix:{path}") as server:
        assert server.announced.startswith(f"openai-compat listens at unix:{path}\n")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(str(path))
            sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


@WORKERS
def test_that_certificates_are_not_checked_is_logged_once(worker: str) -> None:
    with refusing() as url:
        flags = ("--upstream", url.replace("http:", "https:"), "--insecure", "--worker-class", worker)
        with serving(*flags, "--workers", "2") as server:
            assert [ask(server)[0] for _ in range(3)] == [502] * 3
            assert server.stop() == 0
            assert server.stderr.count("the certificate of the upstream is not checked (--insecure)") == 1
            assert "InsecureRequestWarning" not in server.stderr


def test_native_requests_go_through_the_proxy() -> None:
    """The upstream's name does not resolve: only a proxy can answer."""
    fake = FakeOllama()

    def proxy(environ: Any, start_response: Any) -> Any:
        assert environ["RAW_URI"].startswith("http://no.such.invalid")
        return fake(environ, start_response)

    with live(proxy) as url, serving("--upstream", "http://no.such.invalid", "--proxy", url) as server:
        assert ask(server)[0] == 200


def test_several_workers_announce_themselves_once() -> None:
    with serving("--demo", "--workers", "2") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        deadline, found = time.monotonic() + TIMEOUT, set()
        while len(found) < 2 and children.exists() and time.monotonic() < deadline:
            assert ask(server)[0] == 200
            found = set(children.read_text().split())
        if not children.exists():
            pytest.skip("this system does not tell the children of a process")
        assert len(found) == 2
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""


def test_a_worker_that_dies_is_replaced() -> None:
    with serving("--demo") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not tell the children of a process")
        [worker] = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        assert ask(server)[0] == 200
        assert server.stop() == 0


def test_gunicorn_s_variable_is_read_and_flags_win_over_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with refusing() as url:
        variable = f"--bind 127.0.0.1:{urlsplit(url).port} --pid {pid_file}"
        with serving("--demo", environ={"GUNICORN_CMD_ARGS": variable}) as server:
            assert int(pid_file.read_text()) == server.process.pid
            assert ask(server)[0] == 200


def test_gunicorn_s_variable_with_a_flag_that_is_none() -> None:
    ended = command("serve", "--demo", environ={"GUNICORN_CMD_ARGS": "--bogus"})
    assert ended.returncode == 2
    assert "--bogus" in ended.stderr


BAD = {
    "a header": (("--upstream", "127.0.0.1:1", "--upstream-header", "Bad Name: x"), {}),
    "a worker class": ((), {"OPENAI_COMPAT_WORKER_CLASS": "bogus"}),
}


@pytest.mark.parametrize(("flags", "environ"), BAD.values(), ids=BAD)
def test_a_bad_value_is_found_before_gunicorn_starts(flags: tuple[str, ...], environ: dict[str, str]) -> None:
    ended = command("serve", "--bind", "127.0.0.1:0", *flags, environ=environ)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@WORKERS
def test_nothing_is_left_open(worker: str) -> None:
    fake = FakeOllama()
    python = ("-X", "dev", "-W", "error")
    with live(fake) as url, serving("--upstream", url, "--worker-class", worker, python=python) as server:
        assert [ask(server)[0] for _ in range(3)] == [200] * 3
        fake.script("/api/chat", say("broken off"))
        assert ask(server)[0] == 502
        assert server.stop() == 0
        assert "Warning" not in server.stderr
        assert "Traceback" not in server.stderr


# -- gunicorn's settings ----------------------------------------------------------------------


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run ``serve --demo``, up to the point where gunicorn would start: its settings, and what it would load."""

    def configured(*flags: str, variable: str = "", environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def run(self: Any) -> None:
            settings = {name: setting.get() for name, setting in self.cfg.settings.items()}
            found.append({**settings, "load": self.load})

        monkeypatch.setattr("openai_compat.server.gunicorn_app.Application.run", run)
        # The port of the defaults may be taken on this machine, and nothing is to listen there.
        monkeypatch.setattr("openai_compat.server.gunicorn_app.Application.start_error", lambda self: "")
        monkeypatch.setenv("GUNICORN_CMD_ARGS", variable)
        assert main(["serve", "--demo", *flags], environ or {}) == 0
        [settings] = found
        return settings

    return configured


Configured = Callable[..., dict[str, Any]]


def test_what_gunicorn_loads_is_new_each_time(configured: Configured) -> None:
    load = configured("--prefix", "/ai")["load"]
    first, second = load(), load()
    assert (first.settings.prefix, second.settings.prefix) == ("/ai", "/ai")
    assert first.backend is not second.backend


@pytest.mark.parametrize(("age", "announced"), [(1, True), (2, False)], ids=["the first", "another"])
def test_the_first_worker_speaks_for_all(
    configured: Configured, capsys: pytest.CaptureFixture[str], age: int, announced: bool
) -> None:
    before = set(threading.enumerate())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        worker = SimpleNamespace(age=age, sockets=[sock], alive=False, wsgi=OpenAICompat("http://127.0.0.1:1"))
        configured()["post_worker_init"](worker)
        for thread in set(threading.enumerate()) - before:
            thread.join(TIMEOUT)
        told = f"openai-compat listens at http://127.0.0.1:{sock.getsockname()[1]}/v1\n"
    assert capsys.readouterr().out.startswith(told) is announced


def test_an_application_is_stopped_once_its_worker_stops(configured: Configured) -> None:
    stopped = threading.Event()
    application = SimpleNamespace(stop=stopped.set)
    worker = SimpleNamespace(age=2, sockets=[], alive=True, wsgi=application)
    configured()["post_worker_init"](worker)
    assert not stopped.is_set()
    worker.alive = False
    assert stopped.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bind", ["127.0.0.1:8000"]),
        ("worker_class", BUFFERING),
        ("workers", 1),
        ("threads", 64),
        ("keepalive", 75),
        ("preload_app", False),
    ],
)
def test_gunicorn_s_settings(configured: Configured, name: str, value: Any) -> None:
    assert configured()[name] == value


GIVEN: dict[str, Any] = {
    "bind": (("--bind", "127.0.0.1:1"), "--bind 127.0.0.1:2", ["127.0.0.1:1"], ["127.0.0.1:2"]),
    "workers": (("--workers", "3"), "--workers 2", 3, 2),
    "worker_class": (("--worker-class", "gthread"), "--worker-class tornado", BUFFERING, "tornado"),
    "threads": (("--threads", "3"), "--threads 2", 3, 2),
}


@pytest.mark.parametrize("name", ["bind", "workers", "worker_class", "threads"])
def test_a_flag_wins_over_gunicorn_s_variable(configured: Configured, name: str) -> None:
    flags, variable, by_flag, _ = GIVEN[name]
    assert configured(*flags, variable=variable)[name] == by_flag


@pytest.mark.parametrize("name", ["bind", "workers", "worker_class", "threads"])
def test_gunicorn_s_variable_wins_over_our_defaults(configured: Configured, name: str) -> None:
    _, variable, _, by_variable = GIVEN[name]
    assert configured(variable=variable)[name] == by_variable


def test_where_the_address_comes_from(configured: Configured) -> None:
    """Flag > our variable > gunicorn's variable > PORT > default."""
    environ = {"PORT": "1", "OPENAI_COMPAT_BIND": "127.0.0.1:3"}
    variable = "--bind 127.0.0.1:2"
    assert configured("--bind", "127.0.0.1:4", variable=variable, environ=environ)["bind"] == ["127.0.0.1:4"]
    assert configured(variable=variable, environ=environ)["bind"] == ["127.0.0.1:3"]
    assert configured(variable=variable, environ={"PORT": "1"})["bind"] == ["127.0.0.1:2"]
    assert configured(environ={"PORT": "1"})["bind"] == ["0.0.0.0:1"]
    assert configured()["bind"] == ["127.0.0.1:8000"]


def test_where_the_number_of_workers_comes_from(configured: Configured) -> None:
    environ = {"WEB_CONCURRENCY": "2", "OPENAI_COMPAT_WORKERS": "4"}
    variable = "--workers 3"
    assert configured("--workers", "5", variable=variable, environ=environ)["workers"] == 5
    assert configured(variable=variable, environ=environ)["workers"] == 4
    assert configured(variable=variable, environ={"WEB_CONCURRENCY": "2"})["workers"] == 3
    assert configured(environ={"WEB_CONCURRENCY": "2"})["workers"] == 2
    assert configured()["workers"] == 1


def test_threads_of_the_sync_worker_are_those_of_gthread(configured: Configured) -> None:
    """gunicorn replaces a sync worker with threads itself."""
    assert configured(variable="--worker-class sync")["worker_class"] == BUFFERING
    assert configured("--threads", "1", variable="--worker-class sync")["worker_class"] == "sync"


def test_the_directory_of_temporary_files(configured: Configured, tmp_path: Path) -> None:
    assert configured("--worker-tmp-dir", str(tmp_path))["worker_tmp_dir"] == str(tmp_path)


def test_gunicorn_s_variable_may_set_anything_else(configured: Configured) -> None:
    settings = configured(variable="--keep-alive 9 --graceful-timeout 3 --log-level debug")
    assert (settings["keepalive"], settings["graceful_timeout"], settings["loglevel"]) == (9, 3, "debug")


def test_nothing_is_preloaded(configured: Configured) -> None:
    """A pool that is shared over a fork gives one request the answer of another (F72)."""
    settings = configured(variable="--preload")
    assert settings["preload_app"] is False
    assert settings.get("control_socket_disable", True) is True  # an older gunicorn has none


# -- gevent -----------------------------------------------------------------------------------


@NO_GEVENT
def test_gevent_patches_before_anything_is_imported() -> None:
    """No warning of gevent, and https works: requests imported before it is patched ends in RecursionError."""
    with refusing() as url:
        secure = url.replace("http:", "https:")
        with serving("--upstream", secure, "--worker-class", "gevent", python=("-W", "error")) as server:
            status, body = ask(server)
            assert (status, body["error"]["code"]) == (502, "upstream_unreachable")
            assert server.stop() == 0
            assert "MonkeyPatchWarning" not in server.stderr
            assert "Traceback" not in server.stderr


@NO_GEVENT
def test_the_command_patches_before_requests_and_gunicorn_are_imported() -> None:
    code = (
        "import sys\n"
        "from gevent import monkey\n"
        "def patch_all():\n"
        "    print([name for name in ('gunicorn', 'requests', 'urllib3') if sys.modules.get(name)])\n"
        "monkey.patch_all = patch_all\n"
        "from openai_compat.server.cli import main\n"
        "sys.modules['gunicorn'] = None\n"
        "sys.exit(main())\n"
    )
    ended = command("serve", "--demo", "--worker-class", "gevent", python=("-c", code))
    assert (ended.returncode, ended.stdout) == (2, "[]\n")


@NO_GEVENT
def test_gevent_may_patch_after_the_package_is_imported() -> None:
    code = (
        "import openai_compat\n"
        "from gevent import monkey\n"
        "monkey.patch_all()\n"
        "openai_compat.Upstream('https://127.0.0.1:1')\n"
        "from urllib3.util.ssl_ import create_urllib3_context\n"
        "create_urllib3_context()\n"
    )
    ended = command(python=("-W", "error", "-c", code))
    assert (ended.returncode, ended.stderr) == (0, "")


@NO_GEVENT
def test_gevent_in_gunicorn_s_variable() -> None:
    fake = FakeOllama()
    environ = {"GUNICORN_CMD_ARGS": "--worker-class gevent"}
    with live(fake) as url, serving("--upstream", url, environ=environ) as server:
        assert ask(server)[0] == 200


def test_a_ring_of_gateways_is_an_error_and_no_lock() -> None:
    """A server whose upstream leads back to it: every request ends, by the count of hops."""
    app: list[Any] = []

    def ring(environ: Any, start_response: Any) -> Any:
        return app[0](environ, start_response)

    with live(ring) as url:
        app.append(OpenAICompat(url))
        for path in ("/v1/models", "/api/tags"):
            with closing(HTTPConnection(url.removeprefix("http://"), timeout=TIMEOUT)) as http:
                http.request("GET", path)
                answer = http.getresponse()
                assert answer.status == 502
                assert b"this server itself" in answer.read()


def test_the_line_to_try_names_a_model_that_can_chat() -> None:
    fake = FakeOllama()
    names = [{"name": "embed", "capabilities": ["embedding"]}, {"name": "chat", "capabilities": ["completion"]}]
    fake.script("/api/tags", {"models": names}, content_type="application/json")
    with live(fake) as url, serving("--upstream", url) as server:
        assert '"model": "chat"' in server.announced


def test_the_line_to_try_does_not_name_an_embedding_model_that_the_list_does_not_tell() -> None:
    """The list of an older server has no capabilities, and a newer one's may be wrong: a model's own page tells."""
    fake = FakeOllama()
    fake.script("/api/tags", {"models": [{"name": "a"}, {"name": "b", "capabilities": ["completion"]}, {"name": "c"}]})
    for capabilities in (["embedding"], ["embedding"], ["completion"]):
        fake.script("/api/show", {"capabilities": capabilities}, content_type="application/json")
    with live(fake) as url, serving("--upstream", url) as server:
        assert '"model": "c"' in server.announced


def test_the_line_to_try_does_not_wait_for_a_page_that_does_not_come() -> None:
    fake, gate = FakeOllama(), Gate(TIMEOUT)
    fake.script("/api/tags", {"models": [{"name": "a"}, {"name": "b"}]})
    fake.script("/api/show", gate)
    with live(fake) as url, serving("--upstream", url) as server:
        gate.open()
        assert '"model": "a"' in server.announced


def test_the_plan_s_backend_keeps_as_many_connections_as_its_settings_say() -> None:
    settings = dataclasses.replace(Settings(), pool_size=3)
    plan = ServerConfig(upstream="http://127.0.0.1:1", headers={}, verify=True, settings=settings, server={})
    backend: Any = plan.backend()
    assert backend._pool_size == 3


# -- hosts and origins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "is_guarded"),
    [
        ([("127.0.0.1", 8000)], True),
        ([("::1", 8000, 0, 0)], True),
        ([("192.168.1.5", 80), ("127.0.0.1", 80)], True),
        ([("0.0.0.0", 8000)], False),
        ([("::", 8000, 0, 0)], False),
        ([("127.0.0.1", 80), ("0.0.0.0", 81)], False),
        (["/run/gateway.sock"], False),
        ([("127.0.0.1", 80), "/run/gateway.sock"], False),
        ([], False),
    ],
)
def test_a_server_at_local_addresses_has_ollama_s_lists(addresses: list[Any], is_guarded: bool) -> None:
    found = guarded(Settings(prefix="/x"), addresses)
    expected = ("local",) if is_guarded else None
    assert (found.allowed_hosts, found.allowed_origins, found.prefix) == (expected, expected, "/x")


def test_lists_of_the_settings_stay() -> None:
    found = guarded(Settings(allowed_hosts="a.example"), [("127.0.0.1", 8000)])
    assert (found.allowed_hosts, found.allowed_origins) == (("a.example",), ("local",))


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openai_compat", "serve", "--demo", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "word"),
    [
        (["--bind", "fd://99"], {}, "fd://99"),
        ([], {"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:70000"}, "70000"),
        ([], {"GUNICORN_CMD_ARGS": "--bind x:y"}, "y"),
        ([], {"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0 --worker-class nope"}, "worker class"),
        ([], {"LISTEN_PID": "x"}, "LISTEN_PID"),
        ([], {"LISTEN_FDS": "x"}, "LISTEN_FDS"),
        (["--workers", "x"], {}, "--workers"),
        (["--threads", "1.5"], {}, "--threads"),
        (["--max-body", "x"], {}, "--max-body"),
        (["--receive-timeout", "x"], {}, "--receive-timeout"),
        (["--worker-class", "sync"], {}, "--worker-class"),
        (["--nothing"], {}, "--nothing"),
        (["--store", "sqlite:////tmp"], {}, "/tmp"),
        (["--store", "sqlite:////etc/passwd"], {}, "/etc/passwd"),
        (["--store", "sqlite:////proc/x.db"], {}, "/proc"),
    ],
)
def test_what_is_not_valid_is_one_line_that_names_it(arguments: list[str], environ: dict[str, str], word: str) -> None:
    if "sqlite" in str(arguments):
        pytest.importorskip("sqlalchemy")
    found = run(*arguments, **environ)
    assert found.returncode == 2
    assert found.stderr.startswith("openai-compat: ")
    assert found.stderr.count("\n") == 1
    assert word in found.stderr


def test_several_addresses_are_bound() -> None:
    with serving("--demo", bind="127.0.0.1:0,localhost:0") as server:
        ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", server.announced)]
        assert len(set(ports)) == 2
        for port in ports:
            with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
                connection.request("GET", "/v1/models")
                assert connection.getresponse().status == 200


def test_a_name_of_this_machine_and_an_open_socket_are_guarded_as_what_they_are() -> None:
    from openai_compat.server.gunicorn_app import _bound

    with socket.create_server(("127.0.0.1", 0)) as listener:
        for address in (("localhost", 8000), listener.fileno()):
            assert guarded(Settings(), [_bound(address)]).allowed_hosts == ("local",)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert guarded(Settings(), [_bound(listener.fileno())]).allowed_hosts is None
