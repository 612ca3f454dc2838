"""Edges of the transport: late closes, drips, odd heads and odd arguments."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from threading import Event, Timer
from typing import Any

import pytest
from werkzeug.test import Client, create_environ

from openai_compat import Upstream
from openai_compat.testing import done, say
from openai_compat.transport.urls import checked_url, from_ollama_host, redacted
from tests.chaos import CHUNKED, CLOSE, FIN, RST, SIZED, WAIT, Chaos, answer
from tests.harness import call
from tests.transport.gateways import HELLO, ask, both, failed, gateway, line, streamed, text_of

pytestmark = pytest.mark.server


def test_f45_a_late_close_harms_no_other_request(server: Chaos) -> None:
    app, gate = gateway(server), Event()
    server.script(*answer(*HELLO, framing=SIZED))
    server.script(*answer(say("Hel"), gate, done()))
    with ExitStack() as stack:
        with streamed(app) as first:
            assert b"".join(first).endswith(b"data: [DONE]\n\n")  # its connection is in the pool again
            second = stack.enter_context(streamed(app))
            assert b"Hel" in next(second)
        timer = Timer(0.4, gate.set)  # the first is closed only now; its grace is 0.25 s
        timer.start()
        assert b"".join(second).endswith(b"data: [DONE]\n\n")
        timer.join(WAIT)
    assert server.connections == 1


@both
@pytest.mark.parametrize(
    "pieces",
    [(*HELLO, b"junk\n"), (say("Hel"), line(say("lo")) + line(done()) + b"junk\n"), (*HELLO[:2], line(done()) + b"j")],
    ids=["apart", "together", "together, unfinished"],
)
def test_f35_data_after_done_ends_the_connection(server: Chaos, stream: bool, pieces: Any) -> None:
    app = gateway(server)
    for _ in range(2):
        server.script(*answer(*pieces, framing=CHUNKED))
        assert text_of(ask(app, stream=stream)) == "Hello"
    assert server.connections == 2


def test_f35_blank_lines_after_done_do_not(server: Chaos) -> None:
    app = gateway(server)
    for _ in range(2):
        server.script(*answer(*HELLO, b"\r\n \n"))
        assert text_of(ask(app)) == "Hello"
    assert server.connections == 1


@pytest.mark.parametrize("status", [102, 103])
def test_f18_a_passed_early_hint_mixes_up_no_answers(server: Chaos, status: int) -> None:
    late = Event()
    server.script(b"HTTP/1.1 %d Odd\r\nLink: x\r\n\r\n" % status, late, *answer(b"for the first"))
    server.script(*answer(b"for the second"))
    client = Client(gateway(server))
    response = client.get("/api/version", buffered=True)
    assert (response.status_code, list(response.get_json())) == (502, ["error"])
    timer = Timer(0.1, late.set)
    timer.start()
    assert client.get("/api/tags", buffered=True).data == b"for the second"
    timer.join(WAIT)


@pytest.mark.parametrize("path", ["/api/nothing", "/api/chat", "/api/pull", "/api/tags"])
def test_w10_a_refused_head_has_no_body(server: Chaos, path: str) -> None:
    server.script(FIN)
    answered = call(gateway(server), "HEAD", path)
    assert (answered.status >= 400, answered.items) == (True, [])


def test_f11_a_reset_after_a_byte_of_the_answer_is_not_retried(server: Chaos) -> None:
    app, gate = gateway(server), Event()
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    server.script(b"HTTP/1.1 200 OK\r\nServ", gate, RST)
    server.script(*answer(*HELLO))
    timer = Timer(0.1, gate.set)
    timer.start()
    failed(ask(app))
    timer.join(WAIT)
    assert len(server.requests) == 2


def test_an_encoding_that_is_not_decoded_is_named(server: Chaos) -> None:
    server.script(*answer(b"\x0b\x02\x80hello\x03", framing=SIZED, headers=[("Content-Encoding", "x-unknown")]))
    response = Client(gateway(server)).get("/api/tags", buffered=True)
    assert response.data == b"\x0b\x02\x80hello\x03"
    assert response.headers["Content-Encoding"] == "x-unknown"
    assert response.content_length == 9


class Slow(Chaos):
    """Reads bodies in small bites, never pausing for long."""

    def _read(self, stream: Any, number: int) -> Any:
        class Bites:
            def readline(self) -> bytes:
                return bytes(stream.readline())

            def read(self, size: int) -> bytes:
                data = b""
                while len(data) < size and (piece := stream.read1(min(size - len(data), 2**20))):
                    data += piece
                    Event().wait(0.02)  # a slow link
                return data

        return super()._read(Bites(), number)  # type: ignore[arg-type]


@pytest.mark.slow
def test_sending_a_body_has_more_time_than_connecting() -> None:
    with Slow() as server:
        server.script(*answer(*HELLO))
        app = gateway(server, connect_timeout=0.3, idle_timeout=2)
        assert text_of(ask(app, content="x" * 30_000_000)) == "Hello"


class Deaf(Chaos):
    """Reads heads, and then nothing until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = Event()

    def _read(self, stream: Any, number: int) -> Any:
        while stream.readline() not in (b"\r\n", b""):
            pass
        self.stopped.wait(WAIT)


@pytest.mark.slow
def test_a_server_that_reads_nothing_is_a_time_out_yet() -> None:
    with Deaf() as server:
        failed(ask(gateway(server, idle_timeout=0.3), content="x" * 20_000_000), 504, "upstream_timeout")
        server.stopped.set()


class Drip(Chaos):
    """Goes on after its last line, a blank line at a time, until its client goes or ten seconds are over."""

    def __init__(self) -> None:
        super().__init__()
        self.left_alone = Event()

    def _answer(self, sock: Any, request: Any) -> Any:
        sock.sendall(b"".join(step for step in answer(*HELLO)[:-1] if isinstance(step, bytes)))
        try:
            for _ in range(100):
                sock.sendall(b"1\r\n\n\r\n")
                Event().wait(0.1)
        except OSError:
            self.left_alone.set()
        return FIN


def test_a_drip_after_done_does_not_hold_the_answer() -> None:
    with Drip() as server:
        assert text_of(ask(gateway(server))) == "Hello"
        assert server.left_alone.wait(WAIT)


def test_f20_two_lengths_leak_no_socket(server: Chaos) -> None:
    server.script(*answer(*HELLO, framing=CLOSE, headers=[("Content-Length", "1"), ("Content-Length", "2")]))
    failed(ask(gateway(server)))
    gc.collect()  # a ResourceWarning fails the test


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (from_ollama_host, "user:s3cret@example.com:99999"),
        (checked_url, "http://user:s3c/r3t@example.com"),
        (checked_url, "http://user:s3c#r3t@example.com"),
        (checked_url, "http://user:s3c?r3t@example.com"),
        (checked_url, "http:/user:s3cret@example.com"),
    ],
)
def test_no_error_shows_a_password(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match="example") as caught:
        make(text)
    assert "s3c" not in str(caught.value)


def test_what_is_no_secret_is_shown() -> None:
    assert redacted("http://user:s3cret@example.com/a") == "http://***@example.com/a"
    assert redacted("example.com:11434") == "example.com:11434"


@pytest.mark.parametrize(
    "url",
    [" http://example.com", "http://exa mple.com", "http://example.com\n", "http://e\tx", "http://x?", "http://x#"],
)
def test_a_url_that_no_path_can_be_added_to(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        checked_url(url)


@pytest.mark.parametrize("timeout", [0, -1, (1, 2), (1, 2, 0), [1, 2, 3], "5", float("nan")])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Upstream("http://localhost", timeout=timeout)


@pytest.mark.parametrize("value", ["ключ", " lead", "€"])
def test_a_header_value_that_cannot_be_sent(value: str) -> None:
    with pytest.raises(ValueError, match="is not a valid header"):
        Upstream("http://localhost", headers={"X-Key": value})


@pytest.mark.parametrize("length", ["5", None])
def test_a_client_that_goes_while_it_sends_is_not_the_backend_s_fault(server: Chaos, length: str | None) -> None:
    class Gone:
        def read(self, size: int) -> bytes:
            raise OSError("gone")

    environ = create_environ("/api/chat", method="POST")
    environ.update({"wsgi.input": Gone(), "wsgi.input_terminated": True})
    environ.pop("CONTENT_LENGTH", None)
    if length:
        environ["CONTENT_LENGTH"] = length
    heads: list[Any] = []
    body = b"".join(gateway(server)(environ, lambda *head: heads.append(head)))  # type: ignore[arg-type, return-value]
    assert heads[0][0] == "400 Bad Request"
    assert b"could not be read" in body
