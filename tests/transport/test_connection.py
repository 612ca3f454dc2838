"""Connections to a remote Ollama: kept and dropped, retried once, prompt, closed in time, never shared over a fork."""

from __future__ import annotations

import io
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty
from threading import Event, Thread, Timer
from typing import Any

import pytest
import urllib3
from requests.adapters import HTTPAdapter
from werkzeug.test import Client

from openai_compat import OpenAICompat, Upstream
from openai_compat.testing import done, say
from openai_compat.transport.connection import PoolAdapter, StaleConnection, socket_of
from tests.chaos import CHUNKED, CLOSE, FIN, RST, SIZED, WAIT, Chaos, Step, answer, head, refusing
from tests.transport.gateways import (
    HELLO,
    ask,
    both,
    broken_off,
    failed,
    framings,
    gateway,
    line,
    streamed,
    text_of,
    upstream,
)

pytestmark = pytest.mark.server

endings = pytest.mark.parametrize("end", [FIN, RST])


# -- kept and dropped -------------------------------------------------------------------------


@both
@pytest.mark.parametrize("framing", [CHUNKED, SIZED])
def test_f35_a_connection_is_used_again_after_a_clean_end(server: Chaos, stream: bool, framing: str) -> None:
    app = gateway(server)
    for _ in range(3):
        server.script(*answer(*HELLO, framing=framing))
        assert text_of(ask(app, stream=stream)) == "Hello"
    assert server.connections == 1


def test_a_connection_is_used_again_after_an_error_that_was_read(server: Chaos) -> None:
    app = gateway(server)
    for _ in range(3):
        server.script(*answer({"error": "busy"}, status=503))
        failed(ask(app), 503, "overloaded")
    assert server.connections == 1


def test_passed_answers_use_a_connection_again(server: Chaos) -> None:
    client = Client(gateway(server))
    for _ in range(3):
        server.script(*answer(b"{}"))
        assert client.get("/api/tags", buffered=True).data == b"{}"
    assert server.connections == 1


def test_a_close_delimited_answer_ends_its_connection(server: Chaos) -> None:
    app = gateway(server)
    for _ in range(2):
        server.script(*answer(*HELLO, framing=CLOSE))
        assert text_of(ask(app)) == "Hello"
    assert server.connections == 2


@both
@framings
@pytest.mark.parametrize(
    "junk", [line(say("more")), b"junk", b"x" * 100_000, line(done())], ids=["line", "junk", "long", "done again"]
)
def test_f35_what_follows_done_is_ignored(server: Chaos, stream: bool, framing: str, junk: bytes) -> None:
    server.script(*answer(*HELLO, junk, framing=framing))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


def test_f35_a_long_rest_after_done_ends_the_connection(server: Chaos) -> None:
    app = gateway(server)
    for _ in range(2):
        server.script(*answer(*HELLO, b"x" * 200_000))
        assert text_of(ask(app)) == "Hello"
    assert server.connections == 2


@pytest.mark.slow
@both
@framings
def test_done_is_the_end_though_the_server_never_ends(server: Chaos, stream: bool, framing: str) -> None:
    first, *lines = answer(*HELLO, framing=framing, length=10_000)
    server.script(first, *lines[:3])  # and silence, while it waits for the client
    began = time.monotonic()
    assert text_of(ask(gateway(server, idle_timeout=3 * WAIT), stream=stream)) == "Hello"
    assert time.monotonic() - began < WAIT
    assert server.gone.get(timeout=WAIT) == 1


def test_all_is_said_before_the_end_of_a_silent_server_is_awaited(server: Chaos) -> None:
    server.script(*answer(*HELLO)[:-1])
    with streamed(gateway(server)) as items:
        assert b"".join(items).endswith(b"data: [DONE]\n\n")
        with pytest.raises(Empty):
            server.gone.get_nowait()
    assert server.gone.get(timeout=WAIT) == 1


@pytest.mark.parametrize("status", [204, 301, 304, 401, 403])
def test_an_answer_that_was_not_read_ends_its_connection(server: Chaos, status: int) -> None:
    server.script(*answer(*HELLO, status=status)[:2])
    server.script(*answer(*HELLO))
    app = gateway(server)
    assert ask(app).status_code == 502
    assert server.gone.get(timeout=WAIT) == 1
    assert text_of(ask(app)) == "Hello"


def test_a_connection_that_was_cut_is_not_used_again(server: Chaos) -> None:
    app = gateway(server)
    server.script(*answer(say("Hel"), b"garbage\n", *HELLO))
    assert broken_off(ask(app, stream=True).data) == ["Hel"]
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    assert server.connections == 2


def test_more_streams_than_the_pool_keeps(server: Chaos) -> None:
    gates = [Event() for _ in range(3)]
    for number, gate in enumerate(gates):
        server.script(*answer(say(f"stream {number}"), gate, done()))
    app = gateway(server, pool_size=1)
    with ExitStack() as stack:
        streams = [stack.enter_context(streamed(app)) for _ in gates]
        assert [f"stream {number}".encode() in next(items) for number, items in enumerate(streams)] == [True] * 3
        assert server.connections == 3
        for gate, items in zip(gates, streams, strict=True):
            gate.set()
            assert b"".join(items).endswith(b"data: [DONE]\n\n")
    left = {server.gone.get(timeout=WAIT) for _ in range(2)}
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    assert left | {server.requests[-1].connection} == {1, 2, 3}


def test_requests_side_by_side_get_their_own_answers(server: Chaos) -> None:
    app, answers = gateway(server, pool_size=4), {}

    def send(number: int) -> None:
        response = Client(app).post("/api/show", data=b"%02d" % number, buffered=True)
        answers[number] = int(response.data)

    for _ in range(40):
        server.script(head(headers=[("Content-Length", "2")]), lambda request: request.body)
    threads = [Thread(target=send, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert answers == {number: number for number in range(40)}


# -- the one retry ----------------------------------------------------------------------------


def warm(server: Chaos, **options: Any) -> OpenAICompat:
    """A gateway with one connection in its pool."""
    app = gateway(server, **options)
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    return app


def connections(server: Chaos) -> list[int]:
    """The connections of all requests but the first."""
    return [request.connection for request in server.requests[1:]]


@both
@endings
def test_f11_a_stale_connection_is_replaced_once(server: Chaos, stream: bool, end: Step) -> None:
    app = warm(server)
    server.script(end)
    server.script(*answer(say("at last"), done()))
    assert text_of(ask(app, stream=stream)) == "at last"
    assert connections(server) == [1, 2]
    assert server.requests[1].body == server.requests[2].body


@both
@endings
def test_f11_there_is_no_second_retry(server: Chaos, stream: bool, end: Step) -> None:
    app = warm(server)
    server.script(end)
    server.script(end)
    server.script(*answer(*HELLO))
    failed(ask(app, stream=stream))
    assert connections(server) == [1, 2]


def test_f11_the_retry_takes_a_fresh_connection_and_no_other_kept_one(server: Chaos) -> None:
    gate, app = Event(), warm(server)
    server.script(*answer(say("one"), gate, done()))
    server.script(*answer(*HELLO))
    with streamed(app) as items:
        next(items)
        assert text_of(ask(app)) == "Hello"  # by a second connection
        gate.set()
        assert b"".join(items).endswith(b"data: [DONE]\n\n")
    before = len(server.requests)
    server.script(FIN)
    server.script(*answer(say("by a fresh one"), done()))
    assert text_of(ask(app)) == "by a fresh one"
    assert [request.connection > 2 for request in server.requests[before:]] == [False, True]


@both
@endings
def test_f11_a_fresh_connection_is_not_retried(server: Chaos, stream: bool, end: Step) -> None:
    server.script(end)
    server.script(*answer(*HELLO))
    failed(ask(gateway(server), stream=stream))
    assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("sent", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nServer: x\r\n", b"\r\n"])
def test_f11_nothing_is_retried_after_a_byte_of_the_answer(server: Chaos, sent: bytes) -> None:
    app = warm(server)
    server.script(sent, FIN)
    server.script(*answer(*HELLO))
    failed(ask(app))
    assert connections(server) == [1]


def test_f11_nothing_is_retried_after_the_head(server: Chaos) -> None:
    app = warm(server)
    server.script(*answer(*HELLO)[:1], FIN)
    server.script(*answer(*HELLO))
    failed(ask(app))
    assert connections(server) == [1]


@endings
def test_f11_nothing_is_retried_after_a_line(server: Chaos, end: Step) -> None:
    app, gate = warm(server), Event()
    server.script(*answer(say("Hel"), gate, end))
    server.script(*answer(*HELLO))
    with streamed(app) as items:
        before = next(items)
        gate.set()
        assert broken_off(before + b"".join(items)) == ["Hel"]
    assert connections(server) == [1]


def test_f11_a_time_out_is_not_retried(server: Chaos) -> None:
    remote = upstream(server)
    app = OpenAICompat(remote)
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    remote.head = 0.3
    server.script(b"")
    server.script(*answer(*HELLO))
    failed(ask(app), 504, "upstream_timeout")
    assert connections(server) == [1]


def test_f11_a_connection_closed_while_idle_is_replaced(server: Chaos) -> None:
    app = gateway(server)
    server.script(*answer(*HELLO, framing=SIZED), FIN)
    assert text_of(ask(app)) == "Hello"
    server.join(1)
    server.script(*answer(*HELLO))
    assert text_of(ask(app)) == "Hello"
    assert connections(server) == [2]


def test_f11_its_replacement_is_a_fresh_connection_and_not_retried(server: Chaos) -> None:
    app = gateway(server)
    server.script(*answer(*HELLO, framing=SIZED), FIN)
    assert text_of(ask(app)) == "Hello"
    server.join(1)
    server.script(FIN)
    server.script(*answer(*HELLO))
    failed(ask(app))
    assert connections(server) == [2]


def test_f11_a_passed_get_is_retried(server: Chaos) -> None:
    app = warm(server)
    server.script(FIN)
    server.script(*answer(b"{}"))
    assert Client(app).get("/api/tags", buffered=True).status_code == 200
    assert connections(server) == [1, 2]


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("size", "is_sent_again"), [(1, True), (200_000, True), (2_000_000, False)])
def test_f11_a_body_that_is_passed_through_is_sent_again_as_far_as_it_is_kept(
    server: Chaos, size: int, is_sent_again: bool, is_chunked: bool
) -> None:
    app = warm(server)
    server.script(FIN)
    server.script(*answer(b"{}"))
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"x" * size)}
    environ |= {"wsgi.input_terminated": True} if is_chunked else {"CONTENT_LENGTH": str(size)}
    response = Client(app).open("/api/chat", environ_overrides=environ, buffered=True)
    assert response.status_code == (200 if is_sent_again else 502)
    if is_sent_again:
        assert server.requests[-1].body == b"x" * size
    else:
        assert list(response.get_json()) == ["error"]


def test_f11_a_request_that_the_server_worked_on_is_not_sent_again(server: Chaos) -> None:
    """It was read, and the connection ended long after: doing the work twice would cost as much again."""
    app = warm(server)
    worked = Event()
    server.script(worked, FIN)
    Timer(0.8, worked.set).start()
    response = ask(app)
    failed(response)
    assert len(server.requests) == 2


# -- prompt, and closed in time ---------------------------------------------------------------


@framings
def test_a_line_is_there_before_the_next_one(server: Chaos, framing: str) -> None:
    gates = [Event(), Event()]
    first, one, two, *rest = answer(*HELLO, framing=framing)
    server.script(first, one, gates[0], two, gates[1], *rest)
    with streamed(gateway(server)) as items:
        for gate, text in zip(gates, ("Hel", "lo"), strict=True):
            assert f'"content":"{text}"'.encode() in next(items)
            assert not gate.is_set()
            gate.set()
        assert b"".join(items).endswith(b"data: [DONE]\n\n")


@framings
def test_a_line_in_two_pieces_is_there_when_it_is_whole(server: Chaos, framing: str) -> None:
    gate, text = Event(), line(say("Hello"))
    server.script(*answer(text[:20], text[20:], gate, done(), FIN, framing=framing, length=len(text + line(done()))))
    with streamed(gateway(server)) as items:
        assert b'"content":"Hello"' in next(items)
        assert not gate.is_set()
        gate.set()
        assert b"".join(items).endswith(b"data: [DONE]\n\n")


@framings
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_f41_closing_in_mid_stream_closes_the_upstream(server: Chaos, framing: str, path: str) -> None:
    server.script(*answer(*HELLO, framing=framing)[:2])
    with streamed(gateway(server), path) as items:
        assert b"Hel" in next(items)
        with pytest.raises(Empty):
            server.gone.get_nowait()
    assert server.gone.get(timeout=WAIT) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_w2_closing_before_the_first_item_closes_the_upstream(server: Chaos, path: str) -> None:
    server.script(*answer(*HELLO)[:2])
    with streamed(gateway(server), path):
        pass
    assert server.gone.get(timeout=WAIT) == 1


def test_a_failed_start_response_closes_the_upstream(server: Chaos) -> None:
    def start_response(*head: Any) -> Any:
        raise OSError("the server has lost its client")

    server.script(*answer(*HELLO)[:2])
    app = gateway(server)
    with pytest.raises(OSError, match="lost its client"):
        Client(lambda environ, _: app(environ, start_response)).post(
            "/v1/chat/completions", json={"model": "demo", "stream": True, "messages": [{"role": "user"}]}
        )
    assert server.gone.get(timeout=WAIT) == 1


# -- time-outs --------------------------------------------------------------------------------


def test_f3_f6_the_head_and_the_body_have_time_outs_of_their_own(server: Chaos) -> None:
    first, one, *_ = answer(*HELLO)
    server.script(first, one)
    app = gateway(server, head_timeout=WAIT, idle_timeout=0.3)
    assert broken_off(ask(app, stream=True).data, "upstream_timeout") == ["Hel"]


def test_f3_f6_a_kept_connection_waits_for_the_next_head_as_long(server: Chaos) -> None:
    app = warm(server, idle_timeout=0.2)
    gate = Event()
    server.script(gate, *answer(*HELLO))
    timer = Timer(0.4, gate.set)  # longer than the idle time-out, and than the grace that a body has for its end
    timer.start()
    assert text_of(ask(app)) == "Hello"
    timer.join(WAIT)
    assert connections(server) == [1]


def test_sockets_know_their_idle_time_out(server: Chaos) -> None:
    server.script(*answer(b"{}"))
    adapter = PoolAdapter(idle_timeout=7.5, pool_size=1)
    pool = adapter.poolmanager.connection_from_url(server.url)
    response = pool.urlopen("GET", "/", preload_content=False, timeout=WAIT)
    sock = socket_of(response)
    assert sock is not None
    assert sock.gettimeout() == 7.5
    assert response.read() == b"{}"
    adapter.close()


def test_a_response_of_another_pool_has_no_socket() -> None:
    assert socket_of(urllib3.HTTPResponse(b"")) is None


# -- proxies, TLS, processes ------------------------------------------------------------------


def through(proxy: Chaos, url: str = "http://ollama.invalid:11434", **arguments: Any) -> OpenAICompat:
    return OpenAICompat(Upstream(url, **{"proxies": {"http": proxy.url}, "timeout": WAIT, **arguments}))


def test_a_proxy_that_was_named_is_used(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    assert text_of(ask(through(server))) == "Hello"
    assert [request.target for request in server.requests] == ["http://ollama.invalid:11434/api/chat"]


def test_f6_the_idle_time_out_holds_behind_a_proxy(server: Chaos) -> None:
    server.script(*answer(*HELLO)[:2])
    app = through(server, timeout=(WAIT, WAIT, 0.3))
    assert broken_off(ask(app, stream=True).data, "upstream_timeout") == ["Hel"]


def test_f11_a_stale_connection_to_a_proxy_is_replaced(server: Chaos) -> None:
    app = through(server)
    for steps in (answer(*HELLO), [FIN], answer(*HELLO)):
        server.script(*steps)
    assert [text_of(ask(app)) for _ in range(2)] == ["Hello", "Hello"]
    assert connections(server) == [1, 2]


def test_f1_a_proxy_that_is_not_there() -> None:
    with refusing() as nowhere:
        response = ask(OpenAICompat(Upstream("http://ollama.invalid", proxies={"http": "http://" + nowhere})))
    failed(response, 502, "upstream_unreachable")
    assert b"127.0.0.1" not in response.data


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh certificate of 127.0.0.1 that signs itself, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"]
    use = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    files = ["-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(["openssl", "req", *made, *use, *files], check=True, capture_output=True, timeout=60)
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Chaos]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    with Chaos(context) as chaos:
        yield chaos


def test_https_with_a_ca_bundle(secure: Chaos, certificate: Path) -> None:
    app = OpenAICompat(upstream(secure, verify=str(certificate)))
    for _ in range(2):
        secure.script(*answer(*HELLO))
        assert text_of(ask(app)) == "Hello"
    assert secure.connections == 1


def test_f1_a_certificate_that_nobody_signed(secure: Chaos) -> None:
    response = ask(gateway(secure))
    failed(response, 502, "upstream_unreachable")
    assert b"certificate" not in response.data.lower()
    assert secure.requests == []


def test_f6_the_idle_time_out_holds_over_https(secure: Chaos, certificate: Path) -> None:
    secure.script(*answer(*HELLO)[:2])
    app = OpenAICompat(upstream(secure, verify=str(certificate), timeout=(WAIT, WAIT, 0.3)))
    assert broken_off(ask(app, stream=True).data, "upstream_timeout") == ["Hel"]
    assert secure.gone.get(timeout=WAIT) == 1


def test_f11_a_stale_connection_over_https_is_replaced(secure: Chaos, certificate: Path) -> None:
    app = OpenAICompat(upstream(secure, verify=str(certificate)))
    for steps in (answer(*HELLO), [FIN], answer(*HELLO)):
        secure.script(*steps)
    assert [text_of(ask(app)) for _ in range(2)] == ["Hello", "Hello"]
    assert connections(secure) == [1, 2]


def test_a_line_is_there_before_the_next_one_over_https(secure: Chaos, certificate: Path) -> None:
    gate = Event()
    secure.script(*answer(say("Hel"), gate, done()))
    with streamed(OpenAICompat(upstream(secure, verify=str(certificate)))) as items:
        assert b'"content":"Hel"' in next(items)
        assert not gate.is_set()
        gate.set()
        assert b"".join(items).endswith(b"data: [DONE]\n\n")


def test_f72_a_forked_process_has_connections_of_its_own(server: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    app = warm(server)
    parent = os.getpid()
    for pid in (parent, parent + 1, parent + 1, parent + 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        server.script(*answer(*HELLO))
        assert text_of(ask(app)) == "Hello"
    assert connections(server) == [1, 2, 2, 3]


def test_f72_nothing_is_opened_before_the_first_request(server: Chaos) -> None:
    gateway(server)
    assert server.connections == 0


# -- the parts --------------------------------------------------------------------------------


def test_an_adapter_never_retries_by_itself() -> None:
    adapter = PoolAdapter(idle_timeout=1, pool_size=3)
    assert isinstance(adapter, HTTPAdapter)
    assert (adapter.max_retries.total, adapter.max_retries.read) == (0, False)
    adapter.close()


def wrapped(inner: BaseException, *, explicit: bool) -> BaseException:
    """*inner* as the reason of an OSError, itself the reason of another."""
    error = inner
    for _ in range(2):
        outer = OSError()
        if explicit:
            outer.__cause__ = error
        else:
            outer.__context__ = error
        error = outer
    return error


@pytest.mark.parametrize("explicit", [False, True])
def test_f11_a_stale_connection_is_known_under_its_wrappings(explicit: bool) -> None:
    assert StaleConnection.caused(StaleConnection())
    assert StaleConnection.caused(wrapped(StaleConnection(), explicit=explicit))
    assert not StaleConnection.caused(wrapped(ConnectionResetError(), explicit=explicit))


def test_a_head_alone_is_an_answer(server: Chaos) -> None:
    server.script(head(headers=[("Content-Length", "0")]))
    server.script(head(headers=[("Content-Length", "2")]) + b"{}")
    client = Client(gateway(server))
    assert [client.get("/api/tags", buffered=True).data for _ in range(2)] == [b"", b"{}"]
    assert server.connections == 1


@pytest.mark.parametrize(("blanks", "connections"), [(4000, 1), (50_000, 2)])
def test_f35_only_a_little_is_read_after_done(server: Chaos, blanks: int, connections: int) -> None:
    """Some blanks, and the connection serves again; many, and it is closed."""
    server.script(*answer(*HELLO, b"\n" * blanks))
    server.script(*answer(*HELLO))
    app = gateway(server)
    for _ in range(2):
        assert text_of(ask(app)) == "Hello"
    assert server.connections == connections


def test_a_body_leaves_in_blocks_of_256_kib() -> None:
    """Each has the idle time-out of its own, so that a slow link has time for a large body."""
    blocks: list[int] = []

    class Sock:
        def settimeout(self, seconds: float) -> None:
            assert seconds == 7

        def sendall(self, data: bytes) -> None:
            blocks.append(len(data))

        def close(self) -> None: ...

    pool = PoolAdapter(idle_timeout=7, pool_size=1).poolmanager.connection_from_host("127.0.0.1", 1)
    connection: Any = pool.ConnectionCls("127.0.0.1", 1)
    connection.sock = Sock()
    connection.send(b"x" * 1_000_000)
    connection.close()
    assert blocks == [262_144, 262_144, 262_144, 213_568]
