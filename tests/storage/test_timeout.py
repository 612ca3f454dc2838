"""The time of an operation of the store: locks, frozen servers, and what is not asked afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from openai_compat.storage import database as module
from openai_compat.storage.circuit import StoreFailed
from openai_compat.storage.deadline import Deadline, DeadlinePassed
from openai_compat.storage.schema import tables
from openai_compat.storage.store import Store
from tests.servers import command
from tests.storage.databases import (
    SHORT,
    TIMEOUT,
    Clock,
    Postgres,
    ids,
    items,
    new,
    sqlite_file,
    stored_object,
    together,
    unhurried,
)

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

#: every operation of a store that has the object "a" with the item "i"
READS: dict[str, Callable[[Store], Any]] = {
    "get": lambda store: store.get("chat", "me", "a"),
    "page": lambda store: store.page("chat", "me", metadata={"k": "v"}),
    "items": lambda store: store.items("chat", "me", "a"),
    "context": lambda store: store.context("chat", "me", "a", limit=9),
    "find_items": lambda store: store.find_items("me", ["i"]),
    "events": lambda store: store.events("chat", "me", "a", -1) == [],
    "sizes_of_items": lambda store: store.sizes_of_items("me", ["i"]),
}
WRITES: dict[str, Callable[[Store], Any]] = {
    "add": lambda store: store.add("chat", "me", stored_object("b"), items("i")),
    "complete": lambda store: store.complete("chat", "me", "a", b"{}", items("o")),
    "beat": lambda store: store.beat("chat", "me", "a", "h"),
    "beat_all": lambda store: store.beat_all("chat", "h", ["a"]),
    "append": lambda store: store.append("chat", "me", "a", items("j")),
    "set_metadata": lambda store: store.set_metadata("chat", "me", "a", {"k": "w"}),
    "delete_item": lambda store: store.delete_item("chat", "me", "a", "i"),
    "delete": lambda store: store.delete("chat", "me", "a"),
    "ping": lambda store: store.ping(),
}
OPERATIONS = {**READS, **WRITES}

#: seconds within which an operation of SHORT seconds has ended on a busy machine; a sum of two would be longer
SLACK = 0.55


def filled(store: Store) -> Store:
    with unhurried(store):
        store.add("chat", "me", stored_object("a", metadata={"k": "v"}), items("i"))
    return store


@contextmanager
def fails_in_time(match: str | None = None) -> Iterator[None]:
    """The operation waits for its whole time, and no longer."""
    began = time.monotonic()
    with pytest.raises(StoreFailed, match=match):
        yield
    assert SHORT * 0.9 < time.monotonic() - began < SHORT + SLACK


def fails_at_once(work: Callable[[], object], match: str = "not asked") -> None:
    """The operation does not wait; a busy machine may rest during one attempt, or two."""

    def once() -> float:
        began = time.monotonic()
        with pytest.raises(StoreFailed, match=match):
            work()
        return time.monotonic() - began

    assert min(once() for _ in range(3)) < SHORT / 2


@contextmanager
def exclusive(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that holds the lock of a file of SQLite."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE IF NOT EXISTS theirs (x)")
        other.execute("BEGIN EXCLUSIVE")
        yield other
        other.execute("ROLLBACK")


# -- SQLite -----------------------------------------------------------------------------------


def test_eight_threads_that_store_in_a_locked_file_end_together(tmp_path: Path) -> None:
    def work(i: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreFailed):
            store.add("chat", f"owner{i}", stored_object("b"))
        return time.monotonic() - began

    with new(sqlite_file(tmp_path), timeout=SHORT) as store:
        filled(store)
        with exclusive(tmp_path / "store.db"):
            assert max(together(8, work)) < SHORT + SLACK
            fails_at_once(lambda: store.add("chat", "me", stored_object("b")))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_ends_where_a_new_file_is_locked(tmp_path: Path, operation: str) -> None:
    clock = Clock()  # the pause does not end
    with exclusive(tmp_path / "store.db"), new(sqlite_file(tmp_path), timeout=SHORT, monotonic=clock) as store:
        with fails_in_time("locked"):
            OPERATIONS[operation](store)
        for other in OPERATIONS.values():
            fails_at_once(partial(other, store))


@pytest.mark.parametrize("operation", WRITES)
def test_every_write_ends_where_another_program_writes(tmp_path: Path, operation: str) -> None:
    clock = Clock()
    with new(sqlite_file(tmp_path), timeout=SHORT, monotonic=clock) as store:
        filled(store)
        with exclusive(tmp_path / "store.db"):
            with fails_in_time("SQLITE_BUSY: database is locked" if hasattr(sqlite3, "SQLITE_BUSY") else "locked"):
                WRITES[operation](store)
            for write in WRITES.values():
                fails_at_once(partial(write, store))
            with unhurried(store):
                for read in READS.values():
                    assert read(store), "a read does not wait for a write"
            clock.now += module.PAUSE
            with fails_in_time("locked"):
                WRITES[operation](store)
        fails_at_once(lambda: WRITES[operation](store))
        clock.now += module.PAUSE
        with unhurried(store):
            for _ in range(2):
                store.append("chat", "me", "a", [])


def test_waits_of_an_operation_share_one_deadline(tmp_path: Path) -> None:
    """It waits for half of its time for this process, and then for another program."""
    with new(sqlite_file(tmp_path), timeout=SHORT) as store:
        filled(store)
        [database] = store._databases.values()
        database._lock.acquire()
        timer = threading.Timer(SHORT / 2, database._lock.release)
        timer.start()
        with exclusive(tmp_path / "store.db"), fails_in_time("locked"):
            store.add("chat", "me", stored_object("b"))
        timer.join(TIMEOUT)


def test_a_connection_of_the_pool_is_waited_for_no_longer(tmp_path: Path) -> None:
    with new(sqlite_file(tmp_path)) as store:
        filled(store)
        [database] = store._databases.values()
        with contextlib.ExitStack() as transactions:
            for _ in range(15):
                transactions.enter_context(store._begin())
            database._timeout = SHORT
            with fails_in_time(f"busy for {SHORT} s"):
                store.get("chat", "me", "a")
        assert store.get("chat", "me", "a"), "what ended well meanwhile has ended the pause"


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_statement_of_sqlite_is_interrupted(tmp_path: Path, kind: str) -> None:
    with new("sqlite://" if kind == "memory" else sqlite_file(tmp_path), timeout=SHORT) as store:
        filled(store)
        with fails_in_time("interrupted"), store._begin() as tx:
            tx.exec_driver_sql(ENDLESS)
        fails_at_once(lambda: store.get("chat", "me", "a"))


def test_many_statements_of_sqlite_are_interrupted(tmp_path: Path) -> None:
    with new(sqlite_file(tmp_path), timeout=SHORT) as store, fails_in_time(), store._begin() as tx:
        while True:
            tx.exec_driver_sql("SELECT 1")


def test_an_interrupted_write_is_rolled_back(tmp_path: Path) -> None:
    clock = Clock()
    with new(sqlite_file(tmp_path), timeout=SHORT, monotonic=clock) as store:
        filled(store)
        with fails_in_time(), store._begin(write=True) as tx:
            tx.execute(tables().objects.delete())
            tx.exec_driver_sql(ENDLESS)
        clock.now += module.PAUSE
        with unhurried(store):
            assert ids(store.page("chat", "me")) == ["a"]


@pytest.mark.parametrize("timeout", [1e-6, 1e15])
def test_any_time_is_possible(tmp_path: Path, timeout: float) -> None:
    with new(sqlite_file(tmp_path), timeout=timeout) as store:
        if timeout < 1:
            with pytest.raises(StoreFailed, match="no answer within 1e-06 s"):
                store.get("chat", "me", "a")
        else:
            assert filled(store).get("chat", "me", "a")


# -- PostgreSQL -------------------------------------------------------------------------------


@pytest.fixture
def frozen(postgresql_server: Postgres) -> Iterator[Callable[..., None]]:
    """Stop processes of the server, which go on at the end: those of connections, or the one that accepts them."""
    stopped: list[int] = []

    def freeze(*, connections: bool = True, acceptor: bool = False) -> None:
        pids = postgresql_server.connections() if connections else []
        for pid in [*pids, postgresql_server.pid] if acceptor else pids:
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    yield freeze
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def server_url(postgresql_server: Postgres) -> Iterator[str]:
    with postgresql_server.schema() as url:
        yield url


@pytest.mark.server
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_ends_where_postgresql_is_frozen(
    server_url: str, frozen: Callable[..., None], operation: str
) -> None:
    clock = Clock()
    with new(server_url, timeout=SHORT, monotonic=clock) as store:
        filled(store)
        frozen()
        with fails_in_time(f"no answer within {SHORT} s"):
            OPERATIONS[operation](store)
        for other in OPERATIONS.values():
            fails_at_once(partial(other, store))
        clock.now += module.PAUSE
        with unhurried(store):
            assert store.get("chat", "me", "a"), "a new connection has a process that is not stopped"
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):  # it has been cancelled
            thread.join(SHORT)
            assert not thread.is_alive()


@pytest.mark.server
def test_many_threads_end_together_where_postgresql_is_frozen(server_url: str, frozen: Callable[..., None]) -> None:
    def work(i: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreFailed):
            store.add("chat", f"owner{i}", stored_object("b"))
        return time.monotonic() - began

    with new(server_url, timeout=SHORT) as store:
        filled(store)
        with unhurried(store):
            together(8, lambda i: store.get("chat", "me", "a"))
        frozen(acceptor=True)
        assert max(together(24, work)) < SHORT + SLACK


@pytest.mark.server
def test_a_server_that_is_frozen_while_it_is_sent_an_object(server_url: str, frozen: Callable[..., None]) -> None:
    with new(server_url, timeout=SHORT) as store:
        filled(store)
        with fails_in_time(), store._begin(write=True) as tx:
            frozen()
            tx.execute(tables().objects.update().values(body=b"x" * 32_000_000))


@pytest.mark.server
def test_a_server_that_is_frozen_before_a_commit(server_url: str, frozen: Callable[..., None]) -> None:
    with new(server_url, timeout=SHORT) as store:
        filled(store)
        with fails_in_time(), store._begin(write=True) as tx:
            tx.execute(tables().objects.update().values(model="other"))
            frozen()


@pytest.mark.server
def test_a_server_that_accepts_no_connection(server_url: str, frozen: Callable[..., None]) -> None:
    clock = Clock()
    with new(server_url, timeout=SHORT, monotonic=clock) as store:
        frozen(connections=False, acceptor=True)
        with fails_in_time(f"no answer within {SHORT} s"):
            store.add("chat", "me", stored_object("a"))
        fails_at_once(lambda: store.get("chat", "me", "a"))


@pytest.mark.server
def test_a_connection_that_is_lost_during_an_operation(postgresql_server: Postgres, server_url: str) -> None:
    clock = Clock()

    def work() -> None:
        with store._begin() as tx:
            tx.exec_driver_sql("SELECT 1")
            postgresql_server.hang_up()
            tx.exec_driver_sql("SELECT 1")

    with new(server_url, monotonic=clock) as store:
        filled(store)
        with pytest.raises(StoreFailed, match="AdminShutdown, 57P01"):
            work()
        fails_at_once(lambda: store.get("chat", "me", "a"), "not asked for 5 s after a failure: AdminShutdown")
        clock.now += module.PAUSE
        assert store.get("chat", "me", "a")


@pytest.mark.server
def test_a_row_that_another_transaction_holds(server_url: str) -> None:
    with new(server_url) as other, new(server_url, timeout=SHORT) as store:
        filled(store)
        with other._begin(write=True) as tx:
            tx.execute(tables().owners.update().values(bytes=tables().owners.c.bytes))
            with fails_in_time():
                store.delete("chat", "me", "a")


# -- servers that are none ----------------------------------------------------------------------

#: what PostgreSQL sends after a start without a password: "authenticated", and "ready for a query"
WELCOME = b"R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"


class Silent:
    """A server on loopback that answers the first messages of each connection, and then nothing.

    :param answers: one to each message.
    :param held: is waited for before the last answer.
    """

    def __init__(self, *answers: bytes, held: threading.Event | None = None) -> None:
        self._answers, self._held = answers, held
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: released for each connection that the client closed
        self.closed = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://user:hunter2@127.0.0.1:{self._listener.getsockname()[1]}/database"

    def __enter__(self) -> Silent:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        with connection, suppress(ConnectionError):
            for answer in self._answers:
                if not connection.recv(65536):
                    break
                if self._held is not None and answer is self._answers[-1]:
                    assert self._held.wait(TIMEOUT)
                connection.sendall(answer)
            while connection.recv(65536):
                pass
        self.closed.release()


psycopg = pytest.mark.skipif(find_spec("psycopg") is None, reason="psycopg is not installed")


@psycopg
@pytest.mark.parametrize(
    "answers",
    [(), (b"N",), (b"S",), (b"N", WELCOME[:5]), (b"N", WELCOME[:9]), (b"N", WELCOME)],
    ids=["nothing", "no TLS", "TLS", "half a message", "half a start", "a start, and no answer to a statement"],
)
def test_a_server_that_does_not_answer(answers: tuple[bytes, ...]) -> None:
    with Silent(*answers) as server, new(server.url, timeout=SHORT) as store:
        with fails_in_time(f"The store failed: no answer within {SHORT} s"):
            store.add("chat", "me", stored_object("a"))
        fails_at_once(lambda: store.get("chat", "me", "a"))


@psycopg
def test_the_first_operations_of_many_threads_end_together() -> None:
    """Also those that wait until another has connected."""

    def work(i: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreFailed):
            store.add("chat", f"owner{i}", stored_object("b"))
        return time.monotonic() - began

    with Silent(b"N", WELCOME) as server, new(server.url, timeout=SHORT) as store:
        assert max(together(24, work)) < SHORT + SLACK


@psycopg
def test_a_connection_that_comes_too_late_is_closed() -> None:
    held = threading.Event()
    with Silent(b"N", WELCOME, held=held) as server, new(server.url, timeout=SHORT) as store:
        with fails_in_time():
            store.get("chat", "me", "a")
        held.set()
        assert server.closed.acquire(timeout=TIMEOUT)


@psycopg
def test_a_connection_that_cannot_be_watched_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "fromfd", full)
    with Silent(b"N", WELCOME) as server, new(server.url) as store:
        with pytest.raises(StoreFailed, match="The store failed: OSError: Too many open files"):
            store.get("chat", "me", "a")
        assert server.closed.acquire(timeout=TIMEOUT)


@psycopg
def test_a_time_out_in_the_url_does_not_extend_the_deadline() -> None:
    with Silent() as server, new(f"{server.url}?connect_timeout=30", timeout=SHORT) as store, fails_in_time():
        store.get("chat", "me", "a")


@psycopg
@pytest.mark.parametrize(
    ("given", "used"), [("", 3), ("30", 3), ("0", 3), ("-1", 3), ("x", 3), ("3", 3), ("2", 2), ("1", 1)]
)
def test_an_attempt_to_connect_ends_soon_after_the_deadline(given: str, used: int) -> None:
    url = module.read_url(f"postgresql+psycopg://user@host/database?connect_timeout={given}")
    assert module._connect_timeout(url, 2.5) == used
    assert module._connect_timeout(url, 0.5) == min(used, 2)


@psycopg
@pytest.mark.server
@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_go_on_while_one_waits_for_the_store() -> None:
    code = (
        "from openai_compat.storage.store import Store, StoreFailed\n"  # gevent may patch after the import
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, time, gevent\n"
        f"store = Store(sys.argv[1], ttl=9, max_objects=9, max_bytes=9, timeout={SHORT})\n"
        "ended, turns = [], 0\n"
        "def work():\n"
        "    began = time.monotonic()\n"
        "    try:\n"
        "        store.get('chat', 'me', 'a')\n"
        "    except StoreFailed:\n"
        "        ended.append(time.monotonic() - began)\n"
        "jobs = [gevent.spawn(work) for _ in range(8)]\n"
        "while not all(job.ready() for job in jobs):\n"
        "    turns += 1\n"
        "    gevent.sleep(0.01)\n"
        f"assert len(ended) == 8 and max(ended) < {SHORT} + {4 * SLACK}, ended\n"  # it imports the driver meanwhile
        "assert turns > 10, turns\n"
        "print('done')\n"
    )
    for answers in ((), (b"N", WELCOME)):
        with Silent(*answers) as server:
            ended = command(server.url, python=("-W", "error", "-c", code))
        assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)


# -- the deadline -------------------------------------------------------------------------------


def test_a_socket_is_shut_down_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Deadline(0.05) as deadline:
        deadline.shut_down(ours.fileno())
        ours.settimeout(TIMEOUT)
        assert ours.recv(1) == b""
        assert deadline.has_passed
        with pytest.raises(DeadlinePassed):
            deadline.shut_down(ours.fileno())


def test_a_socket_is_left_alone_after_the_operation() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Deadline(TIMEOUT) as deadline:
            deadline.shut_down(ours.fileno())
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
        deadline._shut_all_down()  # by a timer that is late
        theirs.sendall(b"y")
        assert ours.recv(1) == b"y"


def test_a_socket_that_comes_just_after_the_timer_is_shut_down_too() -> None:
    first, second = socket.socketpair(), socket.socketpair()
    with first[0], first[1], second[0], second[1], Deadline(TIMEOUT) as deadline:
        deadline.shut_down(first[0].fileno())
        deadline._shut_all_down()  # a timer may be early by the resolution of its clock
        deadline.shut_down(second[0].fileno())
        assert second[1].recv(1) == b""


def test_a_call_that_fails_raises_its_own_error() -> None:
    def fail() -> None:
        raise ConnectionRefusedError("nobody listens")

    with Deadline(TIMEOUT) as deadline, pytest.raises(ConnectionRefusedError, match="nobody listens"):
        deadline.call(fail, discard=pytest.fail)


def test_a_late_result_is_discarded() -> None:
    held, discarded = threading.Event(), threading.Semaphore(0)

    def call() -> str:
        assert held.wait(TIMEOUT)
        return "late"

    with Deadline(0.05) as deadline, pytest.raises(DeadlinePassed):
        deadline.call(call, discard=lambda result: discarded.release(len(result)))
    held.set()
    for _ in "late":
        assert discarded.acquire(timeout=TIMEOUT)


def test_a_thread_that_cannot_be_started_is_a_failure_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Silent() as server, new(server.url) as store:
        monkeypatch.setattr(threading.Thread, "start", full)
        with pytest.raises(StoreFailed, match="OSError: a thread could not be started"):
            store.get("chat", "me", "a")
        monkeypatch.undo()
