"""Several native streams as one: side by side, in threads."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, closing
from contextvars import ContextVar
from itertools import islice
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest

from openai_compat import Upstream
from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.stream import NativeStream
from openai_compat.testing import FakeOllama, Gate, done, say
from openai_compat.transport.cancel import Cancel
from tests.chaos import CHUNKED, CLOSE, RST, SIZED, WAIT, Chaos, Request, answer, head
from tests.generation.streams import (
    WAITING,
    Acquainted,
    Ended,
    Endless,
    StartChat,
    Watched,
    beside,
    counts,
    good,
    of,
    ours,
    patient,
    refusing,
    saying,
    soon,
    start_chat,
    start_chats,
    streams,
    text,
    texts,
)
from tests.servers import live
from tests.transport.gateways import framings, line, upstream

# -- side by side -----------------------------------------------------------------------------


def test_side_by_side_the_first_message_of_each_has_been_read() -> None:
    gate, other = Gate(), Watched(good("b"))
    slow = saying(gate, say("a"), done())
    opening = beside(lambda: streams(start_chats(slow, other), threads=2))
    assert gate.reached.wait(WAIT)
    assert other.closed.wait(WAIT)  # it said all, and is waited with
    with pytest.raises(futures.TimeoutError):
        opening.result(timeout=0.05)
    gate.open()
    with closing(opening.result(timeout=WAIT)) as source:
        found = texts(source)
    assert [of(i, found) for i in range(2)] == [["a", ""], ["b", ""]]


def test_side_by_side_a_thread_may_find_nothing_left_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def slowly(self: threading.Thread) -> None:
        """Begin when all that began before have ended."""
        for thread in ours():
            thread.join(WAIT)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    opening = beside(lambda: streams(start_chats(good("a"), good("b"), good("c")), threads=3))
    with closing(opening.result(timeout=WAIT)) as source:
        assert [content for _, content in texts(source)] == ["a", "", "b", "", "c", ""]


def test_side_by_side_no_more_run_at_once_than_there_are_threads() -> None:
    together = threading.Barrier(2, timeout=WAIT)
    fake = FakeOllama()
    for _ in range(6):
        fake.script("/api/chat", say("a"), done())

    def app(environ: Any, start_response: Any) -> Any:
        together.wait()  # for two at once
        return fake(environ, start_response)

    watched = Watched(app)
    with closing(streams(start_chats(*[watched] * 6), threads=2)) as source:
        found = texts(source)
    assert [of(i, found) for i in range(6)] == [["a", ""]] * 6
    assert watched.most == 2
    assert counts(fake) == [(6, 6)]


def test_side_by_side_there_are_no_more_threads_than_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    begun: list[str] = []

    def counted(self: threading.Thread) -> None:
        begun.append(self.name)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", counted)
    with closing(streams(start_chats(good("a"), good("b")), threads=8)) as source:
        assert len(list(source)) == 4
    assert begun == ["openai-compat-0", "openai-compat-1"]


def test_side_by_side_long_streams_come_whole_and_in_order() -> None:
    contents = [str(i) for i in range(10 * WAITING)]
    with closing(streams(start_chats(good(*contents), good(*contents), good(*contents)), threads=2)) as source:
        found = texts(source)
    assert all(of(i, found) == [*contents, ""] for i in range(3))


def test_side_by_side_what_waits_is_in_hand() -> None:
    gate, other = Gate(), Watched(good("b"))
    with closing(streams(start_chats(saying(say("a"), gate, done()), other), threads=2)) as source:
        assert other.closed.wait(WAIT)
        messages = iter(source)
        found = [next(messages)[0] for _ in range(3)]
        assert source.pending is False
        assert sorted(found) == [0, 1, 1]
        gate.open()
        assert next(messages)[0] == 0
        assert list(messages) == []


def test_side_by_side_a_message_is_there_before_the_next_one() -> None:
    gates = [Gate(), Gate(), Gate()]
    fake = FakeOllama()
    for i, gate in enumerate(gates):
        fake.script("/api/chat", say(str(i)), gate, done())
    with live(fake) as url:
        source = streams(start_chats(*[Upstream(url, timeout=WAIT)] * 3), threads=3)
        messages = iter(source)
        firsts = [(index, text(message)) for index, message in islice(messages, 3)]
        place = {int(content): index for index, content in firsts}
        assert sorted(place) == sorted(place.values()) == [0, 1, 2]
        for number in (1, 0, 2):
            assert source.pending is False
            gates[number].open()
            index, message = next(messages)
            assert (index, message.done) == (place[number], True)
        assert list(messages) == []
        source.close()
    assert counts(fake) == [(3, 3)]


def answer_together(server: Chaos, count: int) -> None:
    """Let the next requests be answered once all of them are there, so that each has a connection."""
    together = threading.Barrier(count, timeout=WAIT)

    def meet(request: Request) -> bytes:
        together.wait()
        return b""

    for _ in range(count):
        server.script(meet, *answer(say("a"), done()))


@pytest.mark.parametrize("read", [6, 7], ids=["to the last line", "to the end"])
def test_f35_side_by_side_connections_are_used_again(read: int) -> None:
    with Chaos() as server:
        remote = upstream(server)
        for _ in range(3):
            answer_together(server, 3)
            with closing(streams(start_chats(*[remote] * 3), threads=3)) as source:
                assert len(list(islice(source, read))) == 6
        assert server.connections == 3


def test_side_by_side_first_calls_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread finds no client yet and makes one; that of one is used by all, or connections are lost."""
    from openai_compat.transport import http_client

    both, made = threading.Barrier(2, timeout=WAIT), http_client.HTTPClient

    def make(*args: Any, **kwargs: Any) -> http_client.HTTPClient:
        both.wait()
        return made(*args, **kwargs)

    monkeypatch.setattr(http_client, "HTTPClient", make)
    with Chaos() as server:
        remote = upstream(server)
        for _ in range(2):
            answer_together(server, 2)
            with closing(streams(start_chats(remote, remote), threads=2)) as source:
                assert len(list(source)) == 4
        assert server.connections == 2


def test_side_by_side_openers_see_the_context_of_their_request() -> None:
    trace: ContextVar[str] = ContextVar("trace", default="none")
    seen: list[str] = []

    def opening(name: str) -> StartChat:
        def open(cancel: Cancel) -> NativeStream[native.ChatResponse]:
            seen.append(trace.get())
            trace.set(name)  # in a context of its own
            return start_chat(good("a"))(cancel)

        return open

    token = trace.set("request")
    with closing(streams([opening("one"), opening("two")], threads=2)) as source:
        list(source)
    assert seen in (["request", "request"], ["request", "one"], ["request", "two"])
    assert trace.get() == "request"
    trace.reset(token)


# -- side by side: failures -------------------------------------------------------------------


def after(heads: SimpleQueue[Request], count: int = 1) -> Callable[[Request], bytes]:
    """A step that waits until another server received its request."""

    def wait(request: Request) -> bytes:
        for _ in range(count):
            heads.get(timeout=WAIT)
        return b""

    return wait


SILENCES = pytest.mark.parametrize(
    "silence", [b"", head(headers=[("Transfer-Encoding", "chunked")])], ids=["no head", "no line"]
)


@SILENCES
def test_f4_a_failure_before_the_head_ends_those_whose_servers_are_silent(silence: bytes) -> None:
    with Chaos() as silent, Chaos() as failing:
        for _ in range(2):
            silent.script(silence)
        failing.script(after(silent.heads, 2), *answer({"error": "busy"}, status=503))
        calls = start_chats(patient(silent), patient(failing), patient(silent))
        with soon(), pytest.raises(APIError, match="busy"):
            streams(calls, threads=3)
        assert ours() == []
        assert {silent.gone.get(timeout=WAIT) for _ in range(2)} == {1, 2}


def test_a_failure_before_the_head_leaves_unasked_what_was_not_asked_yet() -> None:
    fakes = [refusing(), refusing(), good("c"), good("d")]
    with pytest.raises(APIError, match="busy"):
        streams(start_chats(*fakes), threads=2)
    assert counts(*fakes[2:]) == [(0, 0)] * 2
    assert all(opened == closed for opened, closed in counts(*fakes))


def test_a_failure_comes_after_the_messages_that_wait() -> None:
    gate = Gate()
    whole, failing = Watched(good("a", "b", "c")), Watched(saying(say("d"), gate, line({"error": "boom"})))
    source = streams(start_chats(whole, failing), threads=2)
    assert whole.closed.wait(WAIT)
    gate.open()
    assert failing.closed.wait(WAIT)
    found: list[tuple[int, str]] = []
    with pytest.raises(APIError, match="boom"):
        found.extend((index, text(message)) for index, message in source)
    assert [of(i, found) for i in range(2)] == [["a", "b", "c", ""], ["d"]]
    source.close()


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    gates = [Gate(), Gate()]
    failing = [Acquainted(saying(say("a"), gates[i], line({"error": f"failure {i}"}))) for i in range(2)]
    with closing(streams(start_chats(*failing), threads=2)) as source:
        for i in (1, 0):
            gates[i].open()
            failing[i].join()
        with pytest.raises(APIError, match="failure 1"):
            list(source)


def test_a_failure_is_raised_again() -> None:
    gate = Gate()
    failing = saying(say("a"), gate, line({"error": "boom"}))
    with closing(streams(start_chats(failing, good("b")), threads=2)) as source:
        gate.open()
        for _ in range(2):
            with pytest.raises(APIError, match="boom"):
                list(source)


def test_f10_a_failure_in_the_middle_ends_those_whose_servers_are_silent() -> None:
    gate = Event()
    with Chaos() as silent, Chaos() as failing:
        silent.script(*answer(say("a"), done())[:2])
        failing.script(*answer(say("b"), gate, RST))
        with soon():
            source = streams(start_chats(patient(silent), patient(failing)), threads=2)
            messages = iter(source)
            assert sorted(index for index, _ in islice(messages, 2)) == [0, 1]
            gate.set()
            with pytest.raises(APIError) as raised:
                next(messages)
            source.close()
        assert raised.value.status == 502
        assert raised.value.retry is False
        assert ours() == []
        assert silent.gone.get(timeout=WAIT) == 1


def test_an_endless_stream_does_not_keep_a_failure_back() -> None:
    gate, lines = Gate(), Endless()
    endless, found = Watched(lines), []
    with closing(streams(start_chats(endless, saying(say("b"), gate, line({"error": "boom"}))), threads=2)) as source:
        messages = iter(source)
        read = next(i for i, (index, _) in enumerate(messages) if index == 1)
        assert lines.has_made(read + 2 * WAITING + 1)  # and no more, for nobody reads
        gate.open()
        assert endless.closed.wait(WAIT)
        with pytest.raises(APIError, match="boom"):
            found.extend(messages)
    assert len(found) <= 2 * WAITING


def test_after_a_failure_nothing_is_opened_any_more() -> None:
    gates = [Gate(), Gate()]
    failing, going = Acquainted(saying(say("a"), gates[0], line({"error": "boom"}))), Acquainted(good("b"))
    later = good("c")

    def slow(environ: Any, start_response: Any) -> Iterator[bytes]:
        for item in going(environ, start_response):
            yield item
            gates[1].wait()

    with closing(streams(start_chats(failing, slow, later, later), threads=2)) as source:
        gates[0].open()
        failing.join()
        gates[1].open()
        going.join()
        with pytest.raises(APIError, match="boom"):
            list(source)
    assert counts(later) == [(0, 0)]


def test_a_thread_that_cannot_be_started_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    endless = Endless()

    def limited(self: threading.Thread) -> None:
        if self.name == "openai-compat-1":
            assert endless.has_made(1)
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        with pytest.raises(RuntimeError, match="can't start"):
            streams(start_chats(endless, endless, endless), threads=3)
    assert ours() == []


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_a_wait_that_is_interrupted_leaves_no_thread_behind() -> None:
    def end(*_: object) -> None:
        raise Ended

    def interrupt(request: Request) -> bytes:  # as the server of a request that takes too long does
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return b""

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with Chaos() as silent:
            silent.script(b"")
            silent.script(after(silent.heads, 2), interrupt, b"")
            with soon(), pytest.raises(Ended):
                streams(start_chats(*[patient(silent)] * 2), threads=2)
            assert ours() == []
    finally:
        signal.signal(signal.SIGUSR1, before)


# -- side by side: its end --------------------------------------------------------------------


@framings
def test_f41_closing_wakes_what_waits_for_silent_servers(framing: str) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Chaos()) for _ in range(3)]
        for server in servers:
            server.script(*answer(say("a"), done(), framing=framing)[:2])
        with soon():
            source = streams(start_chats(*map(patient, servers)), threads=3)
            assert len(ours()) == 3
            source.close()
            assert ours() == []
        for server in servers:
            assert server.gone.get(timeout=WAIT) == 1
            assert server.connections == 1


@SILENCES
def test_f4_closing_wakes_what_waits_for_a_first_message(silence: bytes) -> None:
    with Chaos() as silent:
        silent.script(silence)
        together = threading.Barrier(2, timeout=WAIT)

        def app(environ: Any, start_response: Any) -> Any:
            together.wait()  # so each thread has had a first message when one goes on to the third call
            return good("a")(environ, start_response)

        with soon():
            source = streams(start_chats(app, app, patient(silent)), threads=2)
            silent.heads.get(timeout=WAIT)
            source.close()
            assert ours() == []
        assert silent.gone.get(timeout=WAIT) == 1


def test_f41_closing_ends_the_wait_of_the_reader() -> None:
    with Chaos() as silent:
        for _ in range(2):
            silent.script(*answer(say("a"), done())[:2])
        source = streams(start_chats(*[patient(silent)] * 2), threads=2)
        read: SimpleQueue[int] = SimpleQueue()

        def reading() -> None:
            for index, _ in source:
                read.put(index)

        with soon():
            reader = beside(reading)
            assert {read.get(timeout=WAIT) for _ in range(2)} == {0, 1}
            source.close()
            assert reader.result(timeout=WAIT) is None


def test_closing_does_not_wait_for_ever_for_what_cannot_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.generation.parallel._JOIN_TIMEOUT", 0.1)
    gates = [Gate() for _ in range(16)]
    source = streams(start_chats(*(saying(say("a"), gate, done()) for gate in gates)), threads=16)
    for gate in gates:
        assert gate.reached.wait(WAIT)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1  # for all of them
    left = ours()
    for gate in gates:
        gate.open()
    for thread in left:
        thread.join(WAIT)


#: lines that two threads take at most while nobody reads: what may wait, and one in hand of each
FULL = 2 * WAITING + 2


def test_f43_a_reader_that_does_not_read_holds_the_servers_back() -> None:
    endless = Endless()
    with closing(streams(start_chats(endless, endless), threads=2)) as source:
        assert endless.has_made(FULL)
        for read in (1, 10):
            assert not Event().wait(0.05)
            before = endless.made
            assert len(list(islice(source, read))) == read
            assert endless.has_made(before + read)
        assert endless.made == FULL + 11


def test_f43_closing_wakes_what_waits_for_the_reader() -> None:
    endless = Endless()
    watched = Watched(endless)
    with soon():
        source = streams(start_chats(watched, watched), threads=2)
        assert endless.has_made(FULL)
        source.close()
        assert ours() == []
    assert watched.now == 0


@framings
def test_f41_a_stopped_stream_ends_and_the_others_go_on(framing: str) -> None:
    gate = Event()
    with Chaos() as silent, Chaos() as speaking:
        silent.script(*answer(say("a"), done(), framing=framing)[:2])
        speaking.script(*answer(say("b"), gate, say("c"), done(), framing=CHUNKED))
        with soon(), closing(streams(start_chats(patient(silent), patient(speaking)), threads=2)) as source:
            messages = iter(source)
            assert sorted(index for index, _ in islice(messages, 2)) == [0, 1]
            source.stop(0)
            assert silent.gone.get(timeout=WAIT) == 1
            source.stop(0)
            gate.set()
            assert [(index, text(message)) for index, message in messages] == [(1, "c"), (1, "")]


def test_messages_of_a_stopped_stream_are_not_given_any_more() -> None:
    stopped, gate = Watched(good(*"abcdef")), Gate()
    with closing(streams(start_chats(stopped, saying(say("x"), gate, done())), threads=2)) as source:
        assert stopped.closed.wait(WAIT)
        messages = iter(source)
        found = [next(messages)[0] for _ in range(2)]
        source.stop(0)
        gate.open()
        found += [index for index, _ in messages]
    assert found.count(0) <= 2
    assert found.count(1) == 2


def test_messages_of_a_stopped_stream_are_not_in_hand() -> None:
    gates = [Gate(), Gate()]
    stopped = Watched(saying(say("a"), gates[0], say("b"), done()))
    with closing(streams(start_chats(stopped, saying(say("x"), gates[1], done())), threads=2)) as source:
        messages = iter(source)
        assert sorted(index for index, _ in islice(messages, 2)) == [0, 1]
        gates[0].open()
        assert stopped.closed.wait(WAIT)
        assert source.pending is True
        source.stop(0)
        assert source.pending is False
        gates[1].open()
        assert [index for index, _ in messages] == [1]


def test_f43_a_stopped_stream_that_waits_for_the_reader_ends() -> None:
    endless = Endless()
    stopped = Watched(endless)
    with closing(streams(start_chats(stopped, endless), threads=2)) as source:
        assert endless.has_made(FULL)
        source.stop(0)
        assert stopped.closed.wait(WAIT)  # though nobody reads
        assert {index for index, _ in islice(source, 5 * WAITING)} == {1}


def test_f45_closing_touches_no_connection_that_serves_another() -> None:
    gate = Event()
    with Chaos() as server, Chaos() as silent:
        remote = upstream(server)
        ended = Watched(remote)
        server.script(*answer(say("a"), done(), framing=SIZED))
        server.script(*answer(say("b"), gate, say("c"), done()))
        silent.script(*answer(say("x"), done(), framing=CLOSE)[:2])
        source = streams(start_chats(ended, patient(silent)), threads=2)
        assert ended.closed.wait(WAIT)
        with closing(start_chat(remote)(Cancel())) as other:
            source.stop(0)
            source.close()
            gate.set()
            assert [text(message) for message in other] == ["b", "c", ""]
        assert [request.connection for request in server.requests] == [1, 1]


@pytest.mark.slow
def test_closing_waits_two_seconds_for_what_cannot_be_woken() -> None:
    gates = [Gate(), Gate()]
    source = streams(start_chats(*(saying(say("a"), gate, done()) for gate in gates)), threads=2)
    for gate in gates:
        assert gate.reached.wait(WAIT)
    began = time.monotonic()
    source.close()
    assert 1.5 < time.monotonic() - began < WAIT / 2
    left = ours()
    assert len(left) == 2
    for gate in gates:
        gate.open()
    for thread in left:
        thread.join(WAIT)
