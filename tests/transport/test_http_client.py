"""Times of an upstream in all, not for each read; requests that are passed through; Unix sockets."""

from __future__ import annotations

import gzip
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.chaos import CHUNKED, FIN, RST, SIZED, WAIT, Chaos, Step, answer, head
from tests.transport.gateways import HELLO, ask, both, broken_off, failed, framings, gateway, line, streamed, text_of

pytestmark = pytest.mark.server


class Dripper:
    """Sends data byte by byte, a byte each 50 ms, until the end of the test."""

    def __init__(self) -> None:
        self._stop = Event()
        self._gates: list[Event] = []
        self._thread = Thread(target=self._run)
        self._thread.start()

    def steps(self, data: bytes) -> list[Step]:
        """Steps of a script for some data."""
        gates = [Event() for _ in data]
        self._gates += gates
        return [step for i, gate in enumerate(gates) for step in (gate, data[i : i + 1])]

    def wait(self, seconds: float) -> None:
        """Let some time pass."""
        self._stop.wait(seconds)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            if self._gates:
                self._gates.pop(0).set()

    def close(self) -> None:
        """Stop: whatever is left is sent at once."""
        self._stop.set()
        self._thread.join(WAIT)
        for gate in self._gates:
            gate.set()


@pytest.fixture
def dripper() -> Iterator[Dripper]:
    made = Dripper()
    yield made
    made.close()


# -- times in all -----------------------------------------------------------------------------


@both
def test_a_head_that_drips_does_not_extend_its_time(server: Chaos, dripper: Dripper, stream: bool) -> None:
    server.script(*dripper.steps(head() + b"x" * 200))
    began = time.monotonic()
    failed(ask(gateway(server, head_timeout=0.5), stream=stream), 504, "upstream_timeout")
    assert time.monotonic() - began < 3  # dripped to its end, the head takes 14 s


def test_a_first_byte_and_silence_are_bounded_by_the_same_time(server: Chaos) -> None:
    server.script(b"HTTP/1.1 200 OK\r\n", Event())
    failed(ask(gateway(server, head_timeout=0.3)), 504, "upstream_timeout")


@both
@pytest.mark.parametrize("drip", [b"\n" * 400, b"\r\n" * 200, b"x" * 400, b'{"message":' + b" " * 400])
def test_what_is_no_line_is_no_sign_of_life(server: Chaos, dripper: Dripper, stream: bool, drip: bytes) -> None:
    first, *pieces = answer(say("Hel"), framing="close")
    server.script(first, pieces[0], *dripper.steps(drip), FIN)
    began = time.monotonic()
    response = ask(gateway(server, idle_timeout=0.5), stream=stream)
    if stream:
        assert broken_off(response.data, "upstream_timeout") == ["Hel"]
    else:
        failed(response, 504, "upstream_timeout")
    assert time.monotonic() - began < 4  # all of it takes 20 s


def test_the_size_of_a_chunk_that_drips_is_no_sign_of_life(server: Chaos, dripper: Dripper) -> None:
    first, one, *_ = answer(say("Hel"), done(), framing=CHUNKED)
    server.script(first, one, *dripper.steps(b"0" * 400 + b"5\r\n"))
    assert broken_off(ask(gateway(server, idle_timeout=0.5), stream=True).data, "upstream_timeout") == ["Hel"]


def test_each_line_has_its_own_time(server: Chaos, dripper: Dripper) -> None:
    """Together they take longer than the idle time-out, each of them much less."""
    lines = [say(str(i)) for i in range(8)]
    pieces: list[Step] = []
    for message in lines:
        pieces += [*dripper.steps(b"  "), line(message)]
    first, *_ = answer(framing="close")
    server.script(first, *pieces, line(done()), FIN)
    assert text_of(ask(gateway(server, idle_timeout=0.6), stream=True)) == "01234567"


def test_the_time_in_which_nobody_reads_does_not_count(server: Chaos, dripper: Dripper) -> None:
    server.script(*answer(*HELLO, framing="close"))
    with streamed(gateway(server, idle_timeout=0.4)) as items:
        found = next(items)
        dripper.wait(0.8)
        found += b"".join(items)
    assert found.endswith(b"data: [DONE]\n\n")


# -- passing through, after the head ----------------------------------------------------------


def broken_bodies() -> list[Any]:
    packed = gzip.compress(b'{"models":[]}' * 50)
    return [
        pytest.param(answer(RST), id="reset"),
        pytest.param(answer(FIN), id="end"),
        pytest.param(answer(b"", framing=SIZED, length=50)[:1] + [FIN], id="lie about the length"),
        pytest.param([head(200, [("Transfer-Encoding", "chunked")]) + b"zz\r\n", FIN], id="no chunk"),
        pytest.param(answer(b"no gzip at all", headers=[("Content-Encoding", "gzip")]), id="broken gzip"),
        pytest.param(answer(packed[:10], FIN, headers=[("Content-Encoding", "gzip")]), id="cut gzip"),
    ]


@pytest.mark.parametrize("script", broken_bodies())
def test_f15_a_failure_before_the_first_byte_is_an_error_in_json(server: Chaos, script: list[Step]) -> None:
    server.script(*script)
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.status_code == 502
    assert response.mimetype == "application/json"
    assert list(response.get_json()) == ["error"]


def test_a_silence_before_the_first_byte_is_a_504(server: Chaos) -> None:
    server.script(head(200, [("Content-Length", "5")]), Event())
    response = Client(gateway(server, idle_timeout=0.3)).get("/api/tags", buffered=True)
    assert (response.status_code, list(response.get_json())) == (504, ["error"])


def test_an_empty_body_is_passed_through(server: Chaos) -> None:
    server.script(*answer(b"", framing=SIZED))
    assert Client(gateway(server)).get("/api/tags").status_code == 200


@framings
def test_what_concerns_the_upstream_alone_stays_there(server: Chaos, framing: str) -> None:
    own = {
        "Set-Cookie": "session=secret",
        "WWW-Authenticate": 'Bearer realm="https://ollama.com"',
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Credentials": "true",
        "Location": "http://10.0.0.1:11434/api/tags",
        "Content-Location": "//10.0.0.1/api/tags",
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Alt-Svc": 'h3=":443"',
        "Link": "<http://10.0.0.1/z>; rel=next",
        "Refresh": "0; url=http://10.0.0.1/",
        "X-Accel-Redirect": "/secret",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    server.script(*answer(b"{}", headers=[*own.items(), ("X-Model", "m")], framing=framing))
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.headers["X-Model"] == "m"
    assert not {name.lower() for name in own} & {name.lower() for name, _ in response.headers}


@pytest.mark.parametrize("location", ["/api/tags?x=http://a", "tags", "?x=1", "#a", "../tags/x"])
def test_a_relative_location_is_passed_through(server: Chaos, location: str) -> None:
    server.script(*answer(b"", status=307, headers=[("Location", location)]))
    response = Client(gateway(server)).get("/api/tags")
    assert (response.status_code, response.headers["Location"]) == (307, location)


@pytest.mark.parametrize(
    "location", ["//x/a", "\\\\x\\a", "http:/x", "http:\\\\x", "/\\x", "HTTP://x", "javascript:x", ""]
)
def test_another_location_is_not(server: Chaos, location: str) -> None:
    server.script(*answer(b"", status=307, headers=[("Location", location)]))
    assert "Location" not in Client(gateway(server)).get("/api/tags").headers


@pytest.mark.parametrize("length", ["abc", "-5", "13, 13", "", "0x10"])
def test_a_length_that_is_none_does_not_leave(server: Chaos, length: str) -> None:
    server.script(head(200, [("Content-Length", length)]) + b'{"models":[]}', FIN)
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.headers.get("Content-Length") in (None, "13")
    assert response.status_code in (200, 502)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: appl"])
@both
def test_a_head_that_is_cut_is_a_502(server: Chaos, start: bytes, stream: bool) -> None:
    server.script(start, FIN)
    server.script(start, FIN)
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert (response.status_code, list(response.get_json())) == (502, ["error"])
    failed(ask(gateway(server), stream=stream))


@both
def test_the_target_of_a_redirect_is_logged_without_its_query(
    server: Chaos, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(*answer(b"", status=302, headers=[("Location", "https://user:pw@example.com/login?token=secret")]))
    failed(ask(gateway(server), stream=stream), 502, "upstream_redirect")
    assert "example.com/login" in caplog.text
    assert "secret" not in caplog.text
    assert "pw" not in caplog.text


# -- Unix sockets -----------------------------------------------------------------------------


def test_a_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    fake, path = FakeOllama(), tmp_path / "ollama.sock"
    fake.script("/api/chat", *HELLO)
    fake.script("/api/chat", *HELLO)
    server = make_server(f"unix://{path}", 0, fake, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        app = OpenAICompat(f"unix://{path}")
        assert text_of(ask(app)) == "Hello"
        assert text_of(ask(app, stream=True)) == "Hello"
        assert Client(app).get("/api/version").status_code == 200
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)
    failed(ask(app), 502, "upstream_unreachable")


def test_a_unix_socket_that_is_none_is_unreachable(tmp_path: Path) -> None:
    failed(ask(OpenAICompat(f"unix://{tmp_path}/none.sock")), 502, "upstream_unreachable")


# -- gevent -----------------------------------------------------------------------------------


def test_a_flood_gives_other_greenlets_a_turn() -> None:
    """Bytes that are there without waiting, and work on each of them, as a flood of lines makes it."""
    pytest.importorskip("gevent")
    program = """
        from gevent import monkey
        monkey.patch_all()
        import io, time
        import gevent
        import urllib3
        from openai_compat.transport.http_client import Body, HTTPClient

        turns = 0
        def other():
            global turns
            while True:
                turns += 1
                gevent.sleep(0)

        times = (1.0, 1.0)
        client = HTTPClient("x", timeout=times, verify=True, proxies={}, pool_size=1, unix_path=None)
        response = urllib3.HTTPResponse(io.BytesIO(b"x" * 65536 * 300), preload_content=False)
        gevent.spawn(other)
        gevent.sleep(0)
        before = turns
        for item in Body(response, client, None):
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass
        print(turns - before)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(found.stdout) >= 5  # that takes 300 ms at least, with a turn after each 10 ms
