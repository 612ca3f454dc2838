"""Databases for tests, and stores in them: SQLite in a file and in memory, and a PostgreSQL that is started here.

The server listens on a Unix socket in a directory of its own only. Where it, or its driver, is not
installed, the tests that want it are skipped and say so. The fixtures are used by the tests that name them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from openai_compat.storage.database import _LIMITS
from openai_compat.storage.schema import LINK, encode, tables
from openai_compat.storage.store import Item, Page, Store, StoredObject

Make = Callable[..., Store]

#: seconds that anything here may take, and the time-out of a store that is to exceed it
TIMEOUT, SHORT = 20, 0.6

#: all that a test is run against
KINDS = ["file", "memory", pytest.param("postgresql", marks=pytest.mark.server)]


def sqlite_file(directory: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{directory / 'store.db'}"


class Postgres:
    """A running PostgreSQL, where every test gets a schema of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._conninfo = f"host={directory} user=tester dbname=postgres connect_timeout={TIMEOUT}"

    def url(self, schema: str) -> str:
        options = quote(f"-csearch_path={schema}")
        return f"postgresql+psycopg://tester@/postgres?host={quote(str(self._directory))}&options={options}"

    @contextmanager
    def schema(self) -> Iterator[str]:
        """The URL of an empty schema, which is dropped at the end."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP SCHEMA {name} CASCADE")

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._conninfo, autocommit=True, options=f"-clock_timeout={TIMEOUT}s") as connection:
            connection.execute(statement.encode())

    @property
    def pid(self) -> int:
        """The process that accepts connections."""
        return int((self._directory / "data" / "postmaster.pid").read_text().splitlines()[0])

    def connections(self) -> list[int]:
        """The processes of all connections but this one."""
        import psycopg

        own = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            return [pid for (pid,) in connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {own}".encode())]

    def hang_up(self) -> None:
        """End every other connection, as a restart of the server would."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


@contextmanager
def postgresql() -> Iterator[Postgres]:
    """Start a PostgreSQL; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    binaries, user = _binaries(), _user()
    # not below pytest's directory: the server's user could not enter that
    with tempfile.TemporaryDirectory(prefix="openai-compat-") as name:
        directory = Path(name)
        if user:
            shutil.chown(directory, user["user"], user["group"])
        data, log = directory / "data", directory / "log"
        _run(user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "--locale=C", "-N")
        options = f"-c listen_addresses= -c unix_socket_directories='{directory}' -c fsync=off"
        control = (binaries / "pg_ctl", "-D", data, "-w", "-t", TIMEOUT)
        try:
            _run(user, *control, "-l", log, "-o", options, "start")
            yield Postgres(directory)
        finally:
            if (data / "postmaster.pid").exists():
                _run(user, *control, "-m", "immediate", "stop")


def _binaries() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if all((place / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return place
    pytest.skip("PostgreSQL is not installed")


def _user() -> dict[str, Any]:
    """Who runs the server: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names.get("nobody")
    if entry is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user for it")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _run(user: dict[str, Any], *command: Any) -> None:
    with tempfile.TemporaryFile() as output:  # a pipe would be held open by the server
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=2 * TIMEOUT,
            cwd="/",
            check=False,
            **user,
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")


# -- stores -----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def not_memory(url: str) -> None:
    if url == "sqlite://":
        pytest.skip("memory is no other's")


def new(url: str, **options: Any) -> Any:
    """A store that is closed at the end; its books are not looked at."""
    limits = {"ttl": 100.0, "max_objects": 10, "max_bytes": 10**9, "timeout": TIMEOUT}
    return contextlib.closing(Store(url, **{**limits, **options}))


# -- what is put in, and what is there --------------------------------------------------------


def stored_object(id: str = "x", **values: Any) -> StoredObject:
    return StoredObject(**{"id": id, "created": 7, "model": "m", "metadata": {}, "body": b"{}", **values})


def items(*ids: str) -> list[Item]:
    return [Item(id, b'"%d"' % i) for i, id in enumerate(ids)]


def fill(store: Store, owner: str, names: Iterable[str]) -> Store:
    for name in names:
        store.add("chat", owner, stored_object(name))
    return store


def rows(store: Store, table: str) -> list[Any]:
    """All that a table holds, whoever owns it."""
    with store._begin() as tx:
        return list(tx.execute(getattr(tables(), table).select()))


def audit(store: Store) -> None:
    """What is counted is what there is."""
    objects, labels = rows(store, "objects"), rows(store, "labels")
    kept, links = {row.seq: row for row in rows(store, "items")}, rows(store, "links")
    assert {seq: row.bytes for seq, row in kept.items()} == {
        seq: len(encode(row.id)) + len(row.body) for seq, row in kept.items()
    }
    assert {link.item for link in links} == set(kept), "no item without a list, and no link without an item"
    sizes = {row.seq: len(encode(row.id)) + len(row.body) for row in objects}
    contexts, listed = dict.fromkeys(sizes, 0), []
    for link in links:
        sizes[link.object] += LINK
        contexts[link.object] += kept[link.item].bytes
        listed.append((link.object, kept[link.item].id))
    assert len(listed) == len(set(listed)), "an id is one item's of a list"
    for event in rows(store, "events"):
        sizes[event.object] += len(event.data)
    assert {row.seq: (row.bytes, row.context) for row in objects} == {
        seq: (bytes, contexts[seq]) for seq, bytes in sizes.items()
    }
    owners = {row.seq: row.owner for row in objects}
    assert all(owners[link.object] == kept[link.item].owner for link in links)
    assert {row.object for row in rows(store, "runs")} <= set(owners)
    assert {row.parent for row in objects} <= {None, *owners}
    assert {row.owner: (row.objects, row.bytes) for row in rows(store, "owners")} == {
        owner: (
            len([row for row in objects if row.owner == owner]),
            sum(row.bytes for row in [*objects, *kept.values()] if row.owner == owner),
        )
        for owner in owners.values()
    }
    for row in objects:
        pairs = [(label.position, label.key, label.value) for label in labels if label.object == row.seq]
        assert [pair[1:] for pair in sorted(pairs)] == list(json.loads(row.metadata).items())
    assert {label.object for label in labels} <= set(sizes)


def ids(page: Page[Any] | None) -> list[str]:
    assert page is not None
    return [row.id for row in page.rows]


def walked(turn: Callable[..., Page[Any] | None], **arguments: Any) -> list[str]:
    """All ids, page by page."""
    found: list[str] = []
    while True:
        page = turn(after=found[-1] if found else None, **arguments)
        assert page is not None
        found += ids(page)
        if not page.has_more:
            return found


@contextmanager
def unhurried(store: Store) -> Iterator[None]:
    """What is to succeed has more time than what is to fail: a busy machine, or its disk, may rest for a while."""
    import sqlalchemy

    store._begin()  # makes it
    [database] = store._databases.values()
    short, database._timeout = database._timeout, max(database._timeout, TIMEOUT)
    # a connection of PostgreSQL has limits of its own from when it was opened
    limits = _LIMITS if database.engine.dialect.name == "postgresql" else ()

    def lift(connection: Any) -> None:
        if limits:  # in one statement: the limits hold until it, and between two
            found = ", ".join(f"set_config('{name}', '0', true)" for name in limits)
            connection.exec_driver_sql(f"SELECT {found}")

    sqlalchemy.event.listen(database.engine, "begin", lift)
    yield
    sqlalchemy.event.remove(database.engine, "begin", lift)
    database._timeout = short


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do it in so many threads that start at once."""
    barrier = threading.Barrier(count)

    def run(i: int) -> Any:
        barrier.wait(TIMEOUT)
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(TIMEOUT) for future in [pool.submit(run, i) for i in range(count)]]
