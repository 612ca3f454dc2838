"""The threaded worker of ``serve``: only complete requests take a thread.

The clients are raw sockets; the worker is one of a real server, or runs in a thread of this process without a master.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from openai_compat import OpenAICompat
from openai_compat.server.incoming_request import LIMIT
from openai_compat.testing.demo import Demo
from tests.servers import ENDING, TIMEOUT, serving

pytestmark = pytest.mark.server

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

#: versions of another structure: the worker does not wait for connections when it stops
VERSION = int(version("gunicorn").split(".")[0])
IS_OLD = VERSION < 24
NEEDS_24 = pytest.mark.skipif(IS_OLD, reason="gunicorn is older than version 24")
NEEDS_27 = pytest.mark.skipif(VERSION < 27, reason="gunicorn before 27 forgets what it has read ahead")

BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHAT = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

#: requests that have begun, and do not go on
HALVES = {
    "a byte": POST[:1],
    "half a head": POST,
    "a head without its body": CHAT[: -len(BODY)],
    "half a body": CHAT[:-1],
    "half a chunk": CHUNKED[:-20],
    "no last chunk": CHUNKED[:-1],
    "a body that waits for a word": POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
}
each_half = pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)


class Listening(Protocol):
    """What a client needs to know of a server."""

    @property
    def port(self) -> int: ...


@dataclass
class Local:
    """A worker in a thread of this process."""

    port: int
    worker: Any
    thread: threading.Thread

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.worker.handle_exit(None, None)


@contextmanager
def local(*, receive_timeout: float = TIMEOUT, **settings: Any) -> Iterator[Local]:
    """Run a worker of the demo, with gunicorn's settings."""
    from gunicorn.config import Config
    from gunicorn.glogging import Logger

    from openai_compat.server.buffering_worker import BufferingThreadWorker

    config = Config()
    for name, value in {"threads": 2, "keepalive": 75, **settings}.items():
        config.set(name, value)
    app = SimpleNamespace(receive_timeout=receive_timeout)
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    worker = BufferingThreadWorker(1, os.getppid(), [sock], app, 30, config, Logger(config))
    # What init_process does before it sets the process's signals.
    worker.wsgi = OpenAICompat(Demo())
    worker.tpool, worker.poller = worker.get_thread_pool(), selectors.DefaultSelector()
    worker.method_queue.init()
    thread = threading.Thread(target=worker.run)
    thread.start()
    server = Local(sock.getsockname()[1], worker, thread)
    try:
        yield server
    finally:
        server.stop()
        thread.join(ENDING)
        worker.tpool.shutdown()
        worker.tmp.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def demo() -> Iterator[Listening]:
    with serving("--demo", "--threads", "2") if IS_OLD else local(threads=2) as server:
        yield server


def connect(server: Listening) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def answered(sock: socket.socket) -> tuple[int, bytes]:
    """One answer with a Content-Length: its status and body. What comes after it stays in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    status = int(head.split()[1])
    if status == 100:
        assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
        return status, b""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    body = b""
    while len(body) < int(fields[b"content-length"]):
        data = sock.recv(int(fields[b"content-length"]) - len(body))
        assert data
        body += data
    return status, body


def rest(sock: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def models(server: Listening) -> int:
    """The status of a request of another client."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)) as http:
        http.request("GET", "/v1/models")
        response = http.getresponse()
        response.read()
        return response.status


@contextmanager
def holding(server: Listening, *halves: bytes) -> Iterator[list[socket.socket]]:
    """Connections whose requests have begun."""
    with ExitStack() as stack:
        sockets = []
        for half in halves:
            sockets.append(stack.enter_context(connect(server)))
            sockets[-1].sendall(half)
        yield sockets


# -- slow clients -----------------------------------------------------------------------------


def test_200_half_heads_and_200_half_bodies_do_not_hold_up_others() -> None:
    """Each of them would hold one of the two threads until its deadline, long after this test's time-outs."""
    halves = [*list(HALVES.values()) * 60, *[POST, CHAT[:-1]] * 140]
    with serving("--demo", "--threads", "2") as server, holding(server, *halves) as sockets:
        assert [models(server) for _ in range(3)] == [200] * 3
        sockets[3].sendall(CHAT[-1:])
        assert answered(sockets[3])[0] == 200


@pytest.mark.parametrize("whole", [CHAT, CHUNKED, GET], ids=["length", "chunks", "no body"])
def test_a_request_may_arrive_byte_by_byte(demo: Listening, whole: bytes) -> None:
    with connect(demo) as sock:
        for i in range(len(whole)):
            sock.sendall(whole[i : i + 1])
        # A chunked body has no end in the environ of gunicorn 22 and 23 (411).
        assert answered(sock)[0] in ((200, 411) if whole is CHUNKED else (200,))


@each_half
def test_a_client_that_leaves_in_its_request_is_forgotten(half: bytes) -> None:
    old = serving("--demo", environ={"GUNICORN_CMD_ARGS": "--worker-connections 6 --threads 2"})
    with old if IS_OLD else local(worker_connections=6) as server:
        for _ in range(4):
            with holding(server, half, half, half) as sockets:
                assert models(server) == 200
                # One of them with a reset.
                sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert models(server) == 200


def test_a_half_that_is_shut_down_for_writing_is_closed(demo: Listening) -> None:
    with holding(demo, POST) as [sock]:
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""


# -- what fits together -----------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(demo: Listening) -> None:
    with connect(demo) as sock:
        sock.sendall(GET + CHAT + CHAT[:100])
        assert b'"object":"list"' in answered(sock)[1]
        assert b"Hello!" in answered(sock)[1]
        assert models(demo) == 200
        sock.sendall(CHAT[100:] + GET * 5)
        assert b"Hello!" in answered(sock)[1]
        assert [answered(sock)[0] for _ in range(5)] == [200] * 5


def test_a_kept_connection_with_half_a_request_takes_no_thread(demo: Listening) -> None:
    with holding(demo, *[GET] * 5) as sockets:
        assert [answered(sock)[0] for sock in sockets] == [200] * 5
        for sock in sockets:
            sock.sendall(CHAT[:-1])
        assert models(demo) == 200
        for sock in sockets:
            sock.sendall(CHAT[-1:])
        assert [answered(sock)[0] for sock in sockets] == [200] * 5


@pytest.mark.parametrize("coding", [b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n"])
def test_a_client_that_expects_continue_is_told_once(demo: Listening, coding: bytes) -> None:
    with holding(demo, POST + coding + b"Expect: 100-continue\r\n\r\n") as [sock]:
        assert answered(sock) == (100, b"")
        sock.sendall(CHUNKED.partition(b"\r\n\r\n")[2] if b"chunked" in coding else BODY)
        assert answered(sock)[0] in (200, 411)


def test_a_body_that_is_there_needs_no_continue(demo: Listening) -> None:
    with holding(demo, CHAT.replace(b"Host", b"Expect: 100-continue\r\nHost", 1)) as [sock]:
        assert answered(sock)[0] == 200


def test_a_large_body_is_received_whole(demo: Listening) -> None:
    text = "x" * 3_000_000
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": text}]}).encode()
    large = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connect(demo) as sock:
        for part in (large, GET, large[:2_000_000]):
            sock.sendall(part)
        status, answer = answered(sock)
        assert (status, text.encode() in answer) == (200, True)
        assert answered(sock)[0] == 200
        sock.sendall(large[2_000_000:])
        assert answered(sock)[0] == 200


@NEEDS_27
def test_what_the_server_has_read_ahead_belongs_to_the_next_requests(demo: Listening) -> None:
    """The end of a large body is read by a thread, in blocks that may hold what comes after it."""
    head = POST + b"Content-Length: %d\r\n\r\n" % (LIMIT + 100)
    with holding(demo, head + b"x" * LIMIT) as [sock]:
        for after in (GET + CHAT[:100], CHAT[:100]):
            assert models(demo) == 200
            sock.sendall(b"x" * 100 + after)
            assert answered(sock)[0] == 400
            if after.startswith(GET):
                assert answered(sock)[0] == 200
            assert models(demo) == 200
            sock.sendall(CHAT[100:])
            assert b"Hello!" in answered(sock)[1]
            sock.sendall(head + b"x" * LIMIT)


@pytest.mark.parametrize(
    "bad",
    [
        b"GET\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["no target", "no length", "two lengths", "two ends", "blank lines", "HTTP/2"],
)
def test_what_is_malformed_is_refused_by_the_server_at_once(demo: Listening, bad: bytes) -> None:
    with holding(demo, bad) as [sock]:
        answer = b""
        with suppress(ConnectionResetError):  # as older versions close what they have not read
            answer = rest(sock)
    assert answer == b"" or 400 <= int(answer.split()[1]) < 600


@NEEDS_24
def test_tls_is_left_to_gunicorn(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    path = tmp_path / "server.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(["openssl", "req", *made, *files], check=True, capture_output=True, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=str(path))
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    with (
        local(certfile=str(path), keyfile=f"{path}.key") as server,
        connect(server) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        for _ in range(2):
            secure.sendall(CHAT)
            assert b"Hello!" in answered(secure)[1]


# -- deadlines and bounds ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty() -> Iterator[Listening]:
    old = serving("--demo", "--threads", "1", "--receive-timeout", "1")
    with old if IS_OLD else local(threads=1, receive_timeout=1.0) as server:
        yield server


@each_half
def test_what_does_not_arrive_in_time_is_a_408(hasty: Listening, half: bytes) -> None:
    with holding(hasty, half) as [sock]:
        answer = rest(sock).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["error"] == {
        "message": "The request did not arrive in time.",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_timeout",
    }


def request_id(answer: bytes) -> bytes:
    found = re.findall(rb"\r\nx-request-id: (req_[0-9a-f]{32})\r\n", answer.partition(b"\r\n\r\n")[0] + b"\r\n")
    assert len(found) == 1, answer
    return found[0]  # type: ignore[no-any-return]


def test_each_408_has_an_id(hasty: Listening) -> None:
    with holding(hasty, POST, POST) as sockets:
        assert len({request_id(rest(sock)) for sock in sockets}) == 2


def test_a_drip_does_not_put_the_deadline_off(hasty: Listening) -> None:
    """The client goes on sending until it is answered."""
    with holding(hasty, POST) as [sock]:
        sock.settimeout(0.01)
        answer = b""
        for _ in range(2000):
            try:
                sock.sendall(b"X: y\r\n")
                answer = sock.recv(65536)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


@NEEDS_24
def test_a_connection_without_a_request_is_closed_without_a_word(hasty: Listening) -> None:
    with connect(hasty) as sock:
        assert rest(sock) == b""


def test_a_kept_connection_is_not_closed_by_the_deadline_of_its_last_request(hasty: Listening) -> None:
    with holding(hasty, GET) as [kept]:
        assert answered(kept)[0] == 200
        with holding(hasty, POST) as [sock]:
            assert rest(sock).startswith(b"HTTP/1.1 408 ")
        kept.sendall(GET)
        assert answered(kept)[0] == 200


@pytest.mark.parametrize(
    "fields",
    [b"Content-Length: 9000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n800000\r\n"],
    ids=["length", "chunks"],
)
def test_a_large_body_that_stops_frees_its_thread(hasty: Listening, fields: bytes) -> None:
    """More than is held goes to the only thread; that waits for the rest, for a while."""
    with holding(hasty, POST + fields + b"x" * 1_100_000) as [sock]:
        assert models(hasty) == 200
        assert answered(sock)[0] == 408
        assert models(hasty) == 200
        # Nobody knows where the next request would begin.
        with suppress(ConnectionError):
            sock.sendall(GET)
            assert rest(sock) == b""


def test_the_oldest_half_gives_way_when_there_are_too_many() -> None:
    old = serving("--demo", environ={"GUNICORN_CMD_ARGS": "--worker-connections 10 --threads 2"})
    with old if IS_OLD else local(worker_connections=10) as server, holding(server, *[POST] * 8) as sockets:
        assert models(server) == 200
        with holding(server, *[POST] * 30) as more:
            assert models(server) == 200
            answer = rest(sockets[0])
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'"code":"overloaded"' in answer
            assert b"\r\nRetry-After: 2\r\n" in answer
            assert request_id(answer) != request_id(rest(sockets[1]))
            more[-1].sendall(b"Content-Length: 0\r\n\r\n")
            assert answered(more[-1])[0] == 400


@NEEDS_24
def test_the_oldest_half_gives_way_when_all_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.server.buffering_worker.MAX_BUFFERED", 1_000_000)
    half = POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 400_000
    with local() as server, holding(server, half, half, half) as sockets:
        assert rest(sockets[0]).startswith(b"HTTP/1.1 503 ")
        for sock in sockets[1:]:
            sock.sendall(b"x" * 100_000)
            assert answered(sock)[0] == 400
        # What threads have taken does not count any more.
        for _ in range(5):
            with holding(server, half + b"x" * 100_000) as [sock]:
                assert answered(sock)[0] == 400
        assert server.worker._buffered == 0


# -- starting again and stopping --------------------------------------------------------------


@NEEDS_24
def test_a_worker_that_has_served_enough_is_replaced() -> None:
    with serving("--demo", environ={"GUNICORN_CMD_ARGS": "--max-requests 3"}) as server:
        assert [models(server) for _ in range(10)] == [200] * 10


@NEEDS_24
def test_a_request_that_has_begun_when_the_server_stops_is_answered() -> None:
    with serving("--demo") as server, holding(server, CHAT[:-1], POST, b"") as [sock, other, silent]:
        assert models(server) == 200
        server.process.terminate()
        assert rest(silent) == b""
        sock.sendall(CHAT[-1:])
        status, _ = answered(sock)
        assert (status, rest(sock)) == (200, b"")
        assert rest(other).startswith(b"HTTP/1.1 503 ")
        assert server.process.wait(ENDING) == 0
        assert "Traceback" not in server.stderr


@NEEDS_24
def test_a_request_that_is_on_its_way_when_the_worker_stops_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.server.buffering_worker._ON_ITS_WAY", TIMEOUT)
    monkeypatch.setattr("openai_compat.server.buffering_worker._STOPPING", 0.0)
    with local() as server, holding(server, POST, b"") as [half, silent]:
        assert models(server) == 200
        server.stop()
        assert rest(half).startswith(b"HTTP/1.1 503 ")  # the worker has begun to stop
        silent.sendall(CHAT)
        assert answered(silent)[0] == 200


@NEEDS_24
def test_a_request_that_has_begun_when_the_worker_stops_has_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.server.buffering_worker._STOPPING", 1.0)
    monkeypatch.setattr("openai_compat.server.buffering_worker._ON_ITS_WAY", 0.0)
    with local() as server, holding(server, CHAT[:-1], POST, b"") as [sock, half, silent]:
        assert models(server) == 200
        server.stop()
        assert rest(silent) == b""
        sock.sendall(CHAT[-1:])
        assert answered(sock)[0] == 200
        assert rest(half).startswith(b"HTTP/1.1 503 ")
        server.thread.join(TIMEOUT)
        assert not server.thread.is_alive()


def test_connections_without_a_request_do_not_put_the_end_off() -> None:
    with serving("--demo") as server, holding(server, b"", b"", b"") as sockets:
        assert models(server) == 200
        server.process.terminate()
        # gunicorn would wait 30 s for their ends
        assert server.process.wait(10.0) == 0
        assert [rest(sock) for sock in sockets] == [b""] * 3
