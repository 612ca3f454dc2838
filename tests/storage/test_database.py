"""Where it is kept: many at once, failures, and files and servers as they are found."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from openai_compat.storage import database as module
from openai_compat.storage import schema
from openai_compat.storage.database import StoreFailed
from openai_compat.storage.store import Item, Store
from tests.servers import command, refusing
from tests.storage.databases import (
    SHORT,
    TIMEOUT,
    Clock,
    Make,
    Postgres,
    fill,
    ids,
    items,
    new,
    not_memory,
    rows,
    sqlite_file,
    stored_object,
    together,
    unhurried,
    walked,
)

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")


# -- threads and processes --------------------------------------------------------------------


def test_what_many_threads_add_is_all_there(store: Store) -> None:
    together(16, lambda i: fill(store, f"owner{i % 3}", [f"{i}-{n}" for n in range(4)]))
    for owner in range(3):
        found = walked(lambda owner=owner, **arguments: store.page("chat", f"owner{owner}", **arguments), limit=7)
        assert sorted(found) == sorted(f"{i}-{n}" for i in range(owner, 16, 3) for n in range(4))


def test_64_threads_do_everything_at_once(store: Store) -> None:
    def work(i: int) -> None:
        owner = f"owner{i % 2}"
        store.add("chat", owner, stored_object(f"{i}", metadata={"k": "v"}), items("i"))
        assert store.get("chat", owner, f"{i}")
        assert store.append("chat", owner, f"{i}", items("j"))
        assert store.set_metadata("chat", owner, f"{i}", {"k": f"{i}"})
        assert ids(store.page("chat", owner, metadata={"k": f"{i}"})) == [f"{i}"]
        assert store.delete_item("chat", owner, f"{i}", "i")
        assert ids(store.items("chat", owner, f"{i}")) == ["j"]
        if i % 4 > 1:
            assert store.delete("chat", owner, f"{i}")

    together(64, work)
    assert len(rows(store, "objects")) == 32


#: children are forked from a process that has used its store, or has not; each appends, and adds an object
FORKS = """
import os, sys
from openai_compat.storage.store import Item, StoredObject, Store

def new(name):
    return StoredObject(name, 1, "m", {"k": name}, b"{}")

url, used, children, count = sys.argv[1], sys.argv[2] == "used", int(sys.argv[3]), int(sys.argv[4])
store = Store(url, ttl=600, max_objects=1000, max_bytes=10**9, timeout=20)
if used:
    store.add("chat", "me", new("shared"))
pids, (ready, go) = [], os.pipe()
for child in range(children):
    pids.append(os.fork())
    if not pids[-1]:
        os.close(go)
        os.read(ready, 1)
        store.add("chat", "me", new(f"own{child}"))
        for i in range(count):
            assert store.append("chat", "me", "shared", [Item(f"{child}-{i}", b"1")])
        store.close()
        sys.exit(0)
os.close(go)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * children
if used:
    assert store.append("chat", "me", "shared", [Item("parent", b"1")])
page = store.page("chat", "me", limit=100)
assert len(page.rows) == children + used, page
store.close()
print("done")
"""


#: a child that ends lets go of its parent's connections, which are not its to close
STRICT = ("-W", "error", "-W", "ignore::ResourceWarning", "-c")


@pytest.mark.server
def test_8_processes_append_400_items(url: str, make: Make) -> None:
    not_memory(url)
    ended = command(url, "used", "8", "50", python=(*STRICT, FORKS), timeout=3 * TIMEOUT)  # two cores may take a while
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
    store = make(clock=lambda: 0.0)
    found = walked(lambda **arguments: store.items("chat", "me", "shared", **arguments), limit=300)
    assert found.pop() == "parent"
    assert len(set(found)) == len(found) == 400
    for child in range(8):
        assert [name for name in found if name.startswith(f"{child}-")] == [f"{child}-{i}" for i in range(50)]
    assert sorted(row.position for row in rows(store, "links")) == list(range(401))


@pytest.mark.server
def test_processes_that_all_make_the_schema(url: str) -> None:
    not_memory(url)
    ended = command(url, "unused", "4", "0", python=(*STRICT, FORKS))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from openai_compat.storage.store import Item, StoredObject, Store

store = Store(sys.argv[1], ttl=600, max_objects=1000, max_bytes=10**9, timeout=20)
store.add("chat", None, StoredObject("shared", 1, "m", {}, b"{}"))

def work(i):
    for n in range(4):
        store.add("chat", f"owner{i % 3}", StoredObject(f"{i}-{n}", 1, "m", {}, b"{}"))
        assert store.append("chat", None, "shared", [Item(f"{i}-{n}", b"1")])
        assert store.get("chat", f"owner{i % 3}", f"{i}-{n}")

done = gevent.joinall([gevent.spawn(work, i) for i in range(24)], timeout=50, raise_error=True)
assert len(done) == 24
assert len(store.items("chat", None, "shared", limit=100).rows) == 96
store.close()
print("done")
"""


@pytest.mark.server
@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_share_a_store(url: str) -> None:
    ended = command(url, python=("-c", GREENLETS), timeout=3 * TIMEOUT)  # on two busy cores
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)


# -- failures ---------------------------------------------------------------------------------


SECRETS = ["hunter2", "s3cr3t-owner", "s3cr3t-body", "s3cr3t-id", "s3cr3t-value", "s3cr3t-model"]


def try_all(store: Store) -> None:
    """Every method fails in the one way, and tells no secret."""
    whole = stored_object(SECRETS[3], model=SECRETS[5], metadata={"k": SECRETS[4]}, body=SECRETS[2].encode())
    more = [Item(SECRETS[3], SECRETS[2].encode())]
    place = ("chat", SECRETS[1])
    for work in (
        lambda: store.add(*place, whole, more),
        lambda: store.get(*place, SECRETS[3]),
        lambda: store.page(*place, model=SECRETS[5], metadata=whole.metadata),
        lambda: store.items(*place, SECRETS[3]),
        lambda: store.append(*place, SECRETS[3], more),
        lambda: store.set_metadata(*place, SECRETS[3], whole.metadata),
        lambda: store.delete(*place, SECRETS[3]),
        lambda: store.delete_item(*place, SECRETS[3], SECRETS[3]),
        lambda: store.add(*place, whole, more, outputs=more, parent=SECRETS[3]),
        lambda: store.complete(*place, SECRETS[3], SECRETS[2].encode(), more),
        lambda: store.context(*place, SECRETS[3], limit=1),
        lambda: store.outputs(*place, SECRETS[3]),
        lambda: store.item(*place, SECRETS[3], SECRETS[3]),
        lambda: store.find_items(SECRETS[1], [SECRETS[3]]),
        lambda: store.begin_run(*place, SECRETS[3], SECRETS[4]),
        lambda: store.beat(*place, SECRETS[3], SECRETS[4], [(0, 1, SECRETS[2].encode())]),
        lambda: store.beat_all(SECRETS[1], SECRETS[4], [SECRETS[3]]),
        lambda: store.run(*place, SECRETS[3]),
        lambda: store.events(*place, SECRETS[3], 0),
        store.ping,
    ):
        with pytest.raises(StoreFailed) as caught:
            work()
        assert caught.value.__cause__ is not None
        text = "".join(traceback.format_exception(caught.value)) + str(caught.value) + repr(store)
        assert [secret for secret in SECRETS if secret in text] == []
        assert "/" not in str(caught.value)
        assert "SELECT" not in str(caught.value)


def test_a_server_that_is_down() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    with refusing() as address, new(f"postgresql+psycopg://user:hunter2@{address[7:]}/database") as store:
        try_all(store)


def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    with new(f"sqlite:///{tmp_path}/missing/store.db") as store:
        try_all(store)
        (tmp_path / "missing").mkdir()
        store.add("chat", "me", stored_object("a"))
        assert store.get("chat", "me", "a")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"text" * 1000)
    with new(sqlite_file(tmp_path)) as store:
        try_all(store)
    assert (tmp_path / "store.db").read_bytes() == b"text" * 1000


def test_tables_that_are_lost(store: Store, make: Make) -> None:
    other = make()
    other.add("chat", "me", stored_object("a"))
    store.get("chat", "me", "a")
    with store._begin(write=True) as tx:
        schema.tables().objects.metadata.drop_all(tx)
    try_all(store)
    with store._begin(write=True) as tx:
        schema.create_schema(tx)


@pytest.mark.server
def test_a_server_that_was_started_again(postgresql_server: Postgres) -> None:
    with postgresql_server.schema() as url, new(url) as store:
        store.add("chat", "me", stored_object("a"))
        together(5, lambda i: store.get("chat", "me", "a"))
        postgresql_server.hang_up()
        assert store.get("chat", "me", "a")


#: a file may grow to so many bytes: a disk that is full
FULL = """
import resource, sys
from openai_compat.storage.store import Item, StoredObject, Store, StoreFailed

store = Store(sys.argv[1], ttl=600, max_objects=1000, max_bytes=10**9, timeout=20)
store.add("chat", None, StoredObject("a", 1, "m", {}, b"{}"))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    store.add("chat", None, StoredObject("b", 1, "m", {}, b"{}"), [Item(str(i), b"x" * 10_000) for i in range(100)])
except StoreFailed as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert [kept.id for kept in store.page("chat", None).rows] == ["a"]
store.add("chat", None, StoredObject("b", 1, "m", {}, b"{}"))
store.close()
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    ended = command(sqlite_file(tmp_path), python=(*STRICT, FULL))
    assert ended.stdout.startswith("The store failed: OperationalError")
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_a_file_that_another_program_holds(tmp_path: Path) -> None:
    clock = Clock()
    with new(sqlite_file(tmp_path), timeout=SHORT, monotonic=clock) as store:
        with unhurried(store):
            store.add("chat", "me", stored_object("a"))
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreFailed):
                store.add("chat", "me", stored_object("b"))
            with unhurried(store):
                assert ids(store.page("chat", "me")) == ["a"], "who only reads does not wait"
            other.execute("ROLLBACK")
        clock.now += module.PAUSE
        with unhurried(store):
            store.add("chat", "me", stored_object("b"))
            assert ids(store.page("chat", "me")) == ["a", "b"]


def test_a_new_file_that_another_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN IMMEDIATE")
        with new(sqlite_file(tmp_path), timeout=SHORT) as store, pytest.raises(StoreFailed, match="locked"):
            store.add("chat", "me", stored_object("a"))
        monkeypatch.setattr(time, "sleep", lambda seconds: other.execute("ROLLBACK"))
        with new(sqlite_file(tmp_path)) as store:
            store.add("chat", "me", stored_object("a"))
            assert ids(store.page("chat", "me")) == ["a"]


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_writer_that_waits_too_long_for_another(tmp_path: Path, kind: str) -> None:
    clock = Clock()
    url = "sqlite://" if kind == "memory" else sqlite_file(tmp_path)
    with new(url, timeout=SHORT, monotonic=clock) as store:
        with unhurried(store):
            store.add("chat", "me", stored_object("a"))
        [database] = store._databases.values()
        with database._lock, pytest.raises(StoreFailed, match=f"busy for {SHORT} s"):
            store.add("chat", "me", stored_object("b"))
        clock.now += module.PAUSE
        with unhurried(store):
            store.add("chat", "me", stored_object("b"))
            assert ids(store.page("chat", "me")) == ["a", "b"]


# -- URLs, files and the schema ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "hunter2",
        "://user:hunter2@host",
        "postgresql+psycopg://user:hunter2@host:port/database",
        "mysql://user:hunter2@host/database",
        "nothing://user:hunter2@host/database",
        "postgresql+asyncpg://user:hunter2@host/database",
        "sqlite+aiosqlite:///hunter2",
        "sqlite:///file:hunter2?mode=memory&uri=true",
    ],
)
def test_a_url_that_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="write sqlite:///file") as caught:
        new(wrong)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace(repr(wrong), "")


@pytest.mark.parametrize(
    ("package", "url"),
    [("sqlalchemy", "sqlite://"), ("psycopg", "postgresql://user:hunter2@host/database")],
)
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, package: str, url: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"pip install '\.\[store\]'") as caught:
        new(url)
    assert "hunter2" not in str(caught.value)


def test_only_its_user_reads_the_file(tmp_path: Path) -> None:
    with new(sqlite_file(tmp_path)) as store:
        store.add("chat", "me", stored_object("a"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert modes == dict.fromkeys(["store.db", "store.db-wal", "store.db-shm"], 0o600)


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    (tmp_path / "store.db").chmod(0o640)
    with new(sqlite_file(tmp_path)) as store:
        store.add("chat", "me", stored_object("a"))
    assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o640


def test_a_schema_of_another_version(url: str, make: Make) -> None:
    not_memory(url)
    store = make()
    store.add("chat", "me", stored_object("a"))
    version = schema.tables().version
    with store._begin(write=True) as tx:
        tx.execute(version.update().values(version=3))
    with new(url) as newer, pytest.raises(StoreFailed, match="schema 3; this version of openai_compat knows 2"):
        newer.get("chat", "me", "a")
    with store._begin(write=True) as tx:
        tx.execute(version.update().values(version=2))
    assert rows(store, "version") == [(2,)]


def test_a_process_has_15_connections_at_most(tmp_path: Path) -> None:
    with new(sqlite_file(tmp_path), timeout=SHORT) as store, contextlib.ExitStack() as transactions:
        store.get("chat", "me", "a")
        for _ in range(15):
            transactions.enter_context(store._begin())
        with pytest.raises(StoreFailed, match="busy"):
            transactions.enter_context(store._begin())


@pytest.mark.server
def test_a_server_gives_up_what_the_store_gave_up(postgresql_server: Postgres) -> None:
    with postgresql_server.schema() as url, new(url, timeout=2.5) as store, store._begin() as tx:
        settings = {row.name: row.setting for row in tx.exec_driver_sql("SELECT name, setting FROM pg_settings")}
        assert [settings[name] for name in module._LIMITS] == ["2500"] * 3
        connection: Any = tx.connection.driver_connection
        parameters = connection.info.get_parameters()
        names = ("connect_timeout", "keepalives_idle", "keepalives_interval", "tcp_user_timeout")
        assert [parameters[name] for name in names] == ["3", "15", "5", "30000"]
