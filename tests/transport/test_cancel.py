"""Ending a native call from another thread: at any time, and no other call than that."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from queue import Empty
from threading import Event
from typing import Any

import pytest
from werkzeug.test import create_environ

from openai_compat import Upstream
from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.native.stream import NativeStream
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel, Cancelled, calling, current
from openai_compat.transport.side_channel import SIDE_CHANNEL
from tests.chaos import CHUNKED, FIN, RST, SIZED, WAIT, Chaos, Request, Step, answer, refusing
from tests.transport.gateways import HELLO, framings, upstream

pytestmark = pytest.mark.server

CHAT = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})
GENERATE = native.GenerateRequest(model="demo", prompt="Hi", options={})

#: seconds for which a server would be waited for, if nobody ended the wait
SILENCE = 30.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket of ours, and the other side's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.settimeout(WAIT)
        yield ours, theirs


@contextmanager
def soon() -> Iterator[None]:
    """The block ends long before a silence does."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SILENCE / 10


@contextmanager
def set_when(happened: Event, cancel: Cancel) -> Iterator[None]:
    """Set *cancel* in another thread, as soon as something has happened."""

    def wait() -> None:
        if happened.wait(WAIT):
            cancel.set()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        happened.set()
        thread.join(WAIT)
    assert not thread.is_alive()


@contextmanager
def set_in_the_wait(cancel: Cancel) -> Iterator[None]:
    """Set *cancel* in another thread, when this one waits for its socket."""
    timer = threading.Timer(0.05, cancel.set)  # nothing tells of a thread that it waits
    timer.start()
    yield
    timer.join(WAIT)


def received(server: Chaos, *steps: Step) -> Event:
    """Say what the next request gets; what is returned is set as soon as it is there, whole."""
    event = Event()

    def tell(request: Request) -> bytes:
        event.set()
        return b""

    server.script(tell, *steps)
    return event


def patient(server: Chaos) -> Upstream:
    return upstream(server, timeout=SILENCE)


def warm(server: Chaos) -> Upstream:
    """An upstream that keeps a connection, which served one call."""
    remote = patient(server)
    server.script(*answer(*HELLO, framing=SIZED))
    assert whole(chat(remote)) == "Hello"
    return remote


def chat(app: Any, cancel: Cancel | None = None) -> NativeStream[native.ChatResponse]:
    return Backend(app, create_environ(), Settings(), KnownLimits()).chat(CHAT, cancel=cancel)


def text(message: native.ChatResponse) -> str:
    assert message.message is not None
    return message.message.content or ""


def whole(stream: NativeStream[native.ChatResponse]) -> str:
    """The text of a stream that ends well."""
    with closing(stream):
        return "".join(map(text, stream))


def connections(server: Chaos) -> list[int]:
    """The number of the connection of each request."""
    return [request.connection for request in server.requests]


def is_quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether nothing in the log asks for the attention of an operator."""
    return all(record.levelno < logging.WARNING for record in caplog.records)


# -- the cancel itself ------------------------------------------------------------------------


def test_what_is_watched_is_shut_down(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    cancel.watch(ours)
    assert cancel.is_set is False
    cancel.set()
    assert cancel.is_set is True
    assert (ours.recv(1), theirs.recv(1)) == (b"", b"")
    assert ours.fileno() >= 0  # whose it is will close it


def test_a_read_that_waits_wakes(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    cancel, waiting = Cancel(), Event()
    cancel.watch(ours)
    with soon(), set_when(waiting, cancel):
        waiting.set()
        assert ours.recv(1) == b""


def test_what_was_set_before_is_told_to_who_would_watch(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    cancel.set()
    for _ in range(2):
        with pytest.raises(Cancelled):
            cancel.watch(ours)
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_cancelled_is_a_failure_of_the_transport() -> None:
    assert issubclass(Cancelled, OSError)


def test_f45_what_was_released_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    cancel.watch(ours)
    cancel.release(ours)
    cancel.release(ours)
    cancel.set()
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_only_the_last_that_is_watched_is_shut_down(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    with socket.socket() as before:
        cancel.watch(before)
        cancel.watch(ours)
    cancel.set()
    assert theirs.recv(1) == b""


def test_it_may_be_set_again_and_after_either_side_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    cancel.watch(ours)
    theirs.close()
    cancel.set()
    ours.close()
    cancel.set()
    assert cancel.is_set


def test_it_may_be_set_by_many_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    cancel = Cancel()
    cancel.watch(ours)
    threads = [threading.Thread(target=cancel.set) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert theirs.recv(1) == b""


def test_tls_is_not_ended_politely(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    context = ssl.create_default_context()
    cancel, greeted = Cancel(), Event()
    with context.wrap_socket(ours, do_handshake_on_connect=False, server_hostname="localhost") as tls:
        tls.settimeout(SILENCE)
        cancel.watch(tls)
        failures: list[Exception] = []

        def greet() -> None:
            try:
                tls.do_handshake()
            except OSError as error:
                failures.append(error)
            greeted.set()

        thread = threading.Thread(target=greet)
        with soon():
            thread.start()
            assert theirs.recv(65536)[:1] == b"\x16"  # the other side says nothing to this
            cancel.set()
            assert greeted.wait(WAIT)
        assert theirs.recv(65536) == b""
        thread.join(WAIT)
    assert len(failures) == 1


def test_calls_find_their_own_cancel() -> None:
    outer, inner = Cancel(), Cancel()
    seen: list[Cancel | None] = []
    assert current() is None
    with calling(outer):
        assert current() is outer
        with calling(inner):
            assert current() is inner
        with calling(None):
            assert current() is None
        assert current() is outer
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join(WAIT)
    assert seen == [None]
    assert current() is None


def test_a_call_that_fails_leaves_no_cancel_behind() -> None:
    with pytest.raises(ZeroDivisionError), calling(Cancel()):
        raise ZeroDivisionError
    assert current() is None


def test_an_application_in_process_is_given_the_cancel() -> None:
    seen: list[Cancel] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(environ[SIDE_CHANNEL].cancel)
        return FakeOllama()(environ, start_response)

    cancel, request = Cancel(), Cancel()
    backend = Backend(app, create_environ(), Settings(), KnownLimits(), request)
    backend.chat(CHAT, cancel=cancel).close()
    backend.generate(GENERATE, cancel=cancel).close()
    assert seen == [cancel, cancel]
    backend.chat(CHAT).close()
    backend.version()
    backend.show("demo")
    backend.tags()
    assert len({*seen, cancel, request}) == 6
    request.set()
    assert [found.is_set for found in seen] == [False, False, True, True, True, True]


# -- before the answer ------------------------------------------------------------------------


def test_a_call_that_was_cancelled_before_is_not_made(server: Chaos, caplog: pytest.LogCaptureFixture) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(APIError) as raised:
        chat(patient(server), cancel)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    assert server.requests == []
    assert is_quiet(caplog)


def test_nor_is_it_connected() -> None:
    cancel = Cancel()
    cancel.set()
    with refusing() as nowhere, pytest.raises(APIError) as raised:
        chat(Upstream("http://" + nowhere), cancel)
    assert raised.value.code == "upstream_error"  # and not upstream_unreachable


def test_nor_is_it_made_over_a_connection_that_is_kept(server: Chaos, caplog: pytest.LogCaptureFixture) -> None:
    remote, cancel = warm(server), Cancel()
    cancel.set()
    for _ in range(2):
        with pytest.raises(APIError):
            chat(remote, cancel)
    server.script(*answer(*HELLO))
    assert whole(chat(remote)) == "Hello"
    assert len(server.requests) == 2
    assert is_quiet(caplog)


@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.1 200 OK\r\nServer: x\r\n"], ids=["nothing", "a byte", "a line"])
def test_f4_set_during_the_wait_for_the_head(server: Chaos, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    cancel = Cancel()
    with soon(), set_when(received(server, sent), cancel), pytest.raises(APIError) as raised:
        chat(patient(server), cancel)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)


def test_f4_it_is_told_of_in_the_log_as_no_failure(server: Chaos, caplog: pytest.LogCaptureFixture) -> None:
    cancel = Cancel()
    with caplog.at_level(logging.INFO), set_when(received(server), cancel), pytest.raises(APIError):
        chat(patient(server), cancel)
    assert [record.levelname for record in caplog.records if record.name == "openai_compat"] == ["INFO"]


def test_what_fails_by_itself_is_a_warning_also_with_a_cancel(caplog: pytest.LogCaptureFixture) -> None:
    with refusing() as nowhere, pytest.raises(APIError):
        chat(Upstream("http://" + nowhere), Cancel())
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 "], ids=["nothing", "a word"])
def test_f4_set_during_the_wait_for_the_head_over_a_kept_connection(
    server: Chaos, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    remote, cancel = warm(server), Cancel()
    with soon(), set_when(received(server, sent), cancel), pytest.raises(APIError):
        chat(remote, cancel)
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)
    server.script(*answer(*HELLO))
    assert whole(chat(remote)) == "Hello"
    assert connections(server) == [1, 1, 2]  # and it was not taken for one that the server had closed


def test_f4_other_connections_are_kept(server: Chaos) -> None:
    gate, remote, cancel = Event(), warm(server), Cancel()
    server.script(*answer(say("a"), gate, done(), framing=SIZED))
    server.script(*answer(*HELLO, framing=SIZED))
    with closing(chat(remote)) as first:
        assert whole(chat(remote)) == "Hello"  # by a second connection
        gate.set()
        assert [text(message) for message in first] == ["a", ""]
    with soon(), set_when(received(server), cancel), pytest.raises(APIError):
        chat(remote, cancel)
    assert server.gone.get(timeout=WAIT) == server.requests[-1].connection
    with pytest.raises(Empty):
        server.gone.get(timeout=0.05)


def test_f4_set_while_a_large_request_is_sent() -> None:
    cancel, sending = Cancel(), Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        remote = Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=SILENCE)

        def read_a_little() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1)
                sending.set()
                ended.wait(WAIT)

        ended = Event()
        thread = threading.Thread(target=read_a_little)
        thread.start()
        backend = Backend(remote, create_environ(), Settings(), KnownLimits())
        asked = native.ChatRequest(model="demo", messages=[native.Message("user", "x" * 2**25)], options={})
        with soon(), set_when(sending, cancel), pytest.raises(APIError) as raised:
            backend.chat(asked, cancel=cancel)
        ended.set()
        thread.join(WAIT)
    assert raised.value.code == "upstream_error"


# -- during the answer ------------------------------------------------------------------------


@framings
def test_f41_set_during_a_silence_before_the_first_line(
    server: Chaos, framing: str, caplog: pytest.LogCaptureFixture
) -> None:
    cancel = Cancel()
    with soon(), set_when(received(server, answer(*HELLO, framing=framing)[0]), cancel), pytest.raises(APIError):
        chat(patient(server), cancel)
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)


@framings
@pytest.mark.parametrize("model", ["chat", "generate"])
def test_f41_set_during_a_silence_in_the_middle(
    server: Chaos, framing: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    cancel = Cancel()
    line = {**say("Hel"), "response": "Hel"}
    server.script(*answer(line, done(), framing=framing)[:2])
    backend = Backend(patient(server), create_environ(), Settings(), KnownLimits())
    stream: Any = backend.chat(CHAT, cancel=cancel) if model == "chat" else backend.generate(GENERATE, cancel=cancel)
    with closing(stream):
        next(stream)
        with soon(), set_in_the_wait(cancel), pytest.raises(APIError) as raised:
            next(stream)
    assert (raised.value.code, raised.value.retry) == ("upstream_error", False)
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)


@framings
def test_f41_set_in_the_middle_of_a_line(server: Chaos, framing: str, caplog: pytest.LogCaptureFixture) -> None:
    cancel = Cancel()
    first, one, two, *_ = answer(*HELLO, framing=framing)
    assert isinstance(two, bytes)
    server.script(first, one, two[: len(two) // 2])
    with closing(chat(patient(server), cancel)) as stream:
        next(stream)
        with soon(), set_in_the_wait(cancel), pytest.raises(APIError):
            next(stream)
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)


def test_what_has_arrived_is_still_given(server: Chaos) -> None:
    cancel = Cancel()
    server.script(*answer(*HELLO)[:4])
    stream = chat(patient(server), cancel)
    cancel.set()
    assert whole(stream) == "Hello"


def test_closing_after_it_was_set_is_quick(server: Chaos, caplog: pytest.LogCaptureFixture) -> None:
    cancel = Cancel()
    server.script(*answer(*HELLO)[:2])
    with soon():
        stream = chat(patient(server), cancel)
        cancel.set()
        stream.close()
        stream.close()
    assert server.gone.get(timeout=WAIT) == 1
    assert is_quiet(caplog)


def test_f4_another_call_of_the_same_upstream_goes_on(server: Chaos) -> None:
    gate, cancel, remote = Event(), Cancel(), patient(server)
    server.script(*answer(say("a"), gate, say("b"), done()))
    server.script(*answer(say("x"), done())[:2])
    with closing(chat(remote, Cancel())) as other, closing(chat(remote, cancel)) as stream:
        assert (text(next(other)), text(next(stream))) == ("a", "x")
        cancel.set()
        with pytest.raises(APIError):
            next(stream)
        gate.set()
        assert [text(message) for message in other] == ["b", ""]
    assert server.connections == 2


# -- after the answer (F45) -------------------------------------------------------------------


def passes_by(server: Chaos, remote: Upstream, cancel: Cancel, framing: str = CHUNKED) -> None:
    """Set *cancel* while the connection of its call serves another, which completes."""
    gate = Event()
    server.script(*answer(say("a"), gate, say("b"), done(), framing=framing))
    with closing(chat(remote, Cancel())) as other:
        assert text(next(other)) == "a"
        cancel.set()
        gate.set()
        assert [text(message) for message in other] == ["b", ""]
    assert server.connections == 1


@pytest.mark.parametrize("second", [CHUNKED, SIZED])
@pytest.mark.parametrize("first", [CHUNKED, SIZED])
def test_f45_set_after_the_end_of_a_call(server: Chaos, first: str, second: str) -> None:
    remote, cancel = patient(server), Cancel()
    server.script(*answer(*HELLO, framing=first))
    assert whole(chat(remote, cancel)) == "Hello"
    passes_by(server, remote, cancel, second)
    assert connections(server) == [1, 1]


@pytest.mark.parametrize("framing", [CHUNKED, SIZED])
def test_f45_set_after_an_end_that_came_late(server: Chaos, framing: str) -> None:
    gate, remote, cancel = Event(), patient(server), Cancel()
    *lines, end = answer(*HELLO, b"\n", framing=framing) if framing == SIZED else answer(*HELLO)
    server.script(*lines, gate, end)
    with closing(chat(remote, cancel)) as stream:
        assert [text(message) for message in stream] == ["Hel", "lo", ""]
        gate.set()
    passes_by(server, remote, cancel)


@pytest.mark.parametrize("framing", [CHUNKED, SIZED])
@pytest.mark.parametrize("status", [400, 404, 503])
def test_f45_set_after_a_native_error(server: Chaos, framing: str, status: int) -> None:
    remote, cancel = patient(server), Cancel()
    server.script(*answer({"error": "x"}, status=status, framing=framing))
    with pytest.raises(APIError, match="x"):
        chat(remote, cancel)
    passes_by(server, remote, cancel)


def test_f45_each_of_two_calls_over_one_connection_has_its_own(server: Chaos) -> None:
    remote, first, second = patient(server), Cancel(), Cancel()
    server.script(*answer(*HELLO))
    assert whole(chat(remote, first)) == "Hello"
    server.script(*answer(*HELLO)[:2])
    with closing(chat(remote, second)) as stream:
        first.set()
        assert text(next(stream)) == "Hel"
        second.set()
        with pytest.raises(APIError):
            next(stream)
    assert connections(server) == [1, 1]
    assert server.gone.get(timeout=WAIT) == 1


def test_f45_set_between_the_last_line_and_the_end(server: Chaos) -> None:
    remote, cancel = patient(server), Cancel()
    server.script(*answer(*HELLO)[:4])
    stream = chat(remote, cancel)
    assert [text(message) for message in stream] == ["Hel", "lo", ""]
    cancel.set()
    with soon():
        stream.close()
    server.script(*answer(*HELLO))
    assert whole(chat(remote)) == "Hello"  # by a fresh one
    assert connections(server) == [1, 2]


def test_f45_set_after_an_answer_that_was_given_up(server: Chaos) -> None:
    remote, cancel = patient(server), Cancel()
    server.script(*answer(*HELLO)[:2])
    chat(remote, cancel).close()
    cancel.set()
    server.script(*answer(*HELLO))
    assert whole(chat(remote)) == "Hello"
    assert connections(server) == [1, 2]


# -- a connection that the server had closed --------------------------------------------------


@pytest.mark.parametrize("end", [FIN, RST])
def test_f11_a_stale_connection_is_replaced_once_also_with_a_cancel(server: Chaos, end: Any) -> None:
    remote = warm(server)
    server.script(end)
    server.script(*answer(say("at last"), done()))
    assert whole(chat(remote, Cancel())) == "at last"
    assert connections(server) == [1, 1, 2]
    server.script(end)
    server.script(end)
    server.script(*answer(*HELLO))
    with pytest.raises(APIError):
        chat(remote, Cancel())
    assert connections(server) == [1, 1, 2, 2, 3]


def test_f11_the_cancel_ends_the_call_that_was_made_again(server: Chaos) -> None:
    remote, cancel = warm(server), Cancel()
    server.script(FIN)
    server.script(*answer(*HELLO)[:2])
    with closing(chat(remote, cancel)) as stream:
        assert text(next(stream)) == "Hel"
        with soon(), set_in_the_wait(cancel), pytest.raises(APIError):
            next(stream)
    assert connections(server) == [1, 1, 2]
    assert server.gone.get(timeout=WAIT) == 2
