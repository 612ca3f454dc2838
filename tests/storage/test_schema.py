"""Databases of an earlier version of the schema, as they are brought to this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openai_compat.storage import schema
from openai_compat.storage.database import Database, read_url
from openai_compat.storage.store import AlreadyStored, Item, Store, StoreFailed
from tests.servers import command
from tests.storage.databases import TIMEOUT, Make, audit, ids, items, new, not_memory, rows, stored_object

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

#: the tables of version 1, as they were created; the words in capitals depend on the database
VERSION_1 = """
CREATE TABLE openai_compat_version (version INTEGER NOT NULL);
CREATE TABLE openai_compat_owners (
    owner BYTES NOT NULL, objects BIGINT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (owner)
);
CREATE TABLE openai_compat_objects (
    seq SERIAL_KEY,
    created BIGINT NOT NULL, expires DOUBLE PRECISION NOT NULL, bytes BIGINT NOT NULL,
    owner BYTES NOT NULL, kind BYTES NOT NULL, id BYTES NOT NULL, model BYTES NOT NULL, metadata BYTES NOT NULL,
    body BYTES NOT NULL,
    UNIQUE (owner, kind, id)
);
CREATE INDEX openai_compat_by_expiry ON openai_compat_objects (expires);
CREATE INDEX openai_compat_by_age ON openai_compat_objects (owner, seq, kind);
CREATE TABLE openai_compat_labels (
    object SEQ NOT NULL, position INTEGER NOT NULL, key BYTES NOT NULL, value BYTES NOT NULL,
    PRIMARY KEY (object, position), FOREIGN KEY (object) REFERENCES openai_compat_objects (seq) ON DELETE CASCADE
);
CREATE TABLE openai_compat_items (
    object SEQ NOT NULL, position INTEGER NOT NULL, id BYTES NOT NULL, body BYTES NOT NULL,
    PRIMARY KEY (object, position), UNIQUE (object, id),
    FOREIGN KEY (object) REFERENCES openai_compat_objects (seq) ON DELETE CASCADE
);
INSERT INTO openai_compat_version (version) VALUES (1)
"""
TYPES = {
    "sqlite": {"BYTES": "BLOB", "SERIAL_KEY": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "SEQ": "INTEGER"},
    "postgresql": {"BYTES": "BYTEA", "SERIAL_KEY": "BIGSERIAL NOT NULL PRIMARY KEY", "SEQ": "BIGINT"},
}
#: owner → id of an object → ids of its items, each of which has the body 1
STORED = {b"me": {b"a": [b"i", b"j", b"k"], b"b": [b"j", b"\xf0\x9f\x98\x80"], b"c": []}, b"": {b"a": [b"i"]}}


def execute(url: str, work: Callable[[Any, str], None]) -> None:
    """Do something in a database that no store has opened."""
    from sqlalchemy import create_engine

    engine = create_engine(read_url(url))
    try:
        with engine.begin() as tx:
            work(tx, tx.dialect.name)
    finally:
        engine.dispose()


def make_version_1(tx: Any, dialect: str) -> None:
    script = VERSION_1
    for word, type in TYPES[dialect].items():
        script = script.replace(word, type)
    for statement in script.split(";"):
        tx.exec_driver_sql(statement)
    mark = "?" if dialect == "sqlite" else "%s"

    def insert(table: str, **values: Any) -> None:
        marks = ", ".join([mark] * len(values))
        statement = f"INSERT INTO openai_compat_{table} ({', '.join(values)}) VALUES ({marks})"
        tx.exec_driver_sql(statement, tuple(values.values()))

    seq = 0
    for owner, objects in STORED.items():
        total = 0
        for id, names in objects.items():
            seq += 1
            bytes = len(id) + 2 + sum(len(name) + 1 for name in names)
            total += bytes
            whole = {"owner": owner, "kind": b"chat", "id": id, "model": b"m", "metadata": b'{"k": "v"}', "body": b"{}"}
            insert("objects", created=7, expires=1_000_100.0, bytes=bytes, **whole)
            insert("labels", object=seq, position=0, key=b"k", value=b"v")
            for position, name in enumerate(names):  # a position is missing, as after a deletion
                insert("items", object=seq, position=position * 2, id=name, body=b"1")
        insert("owners", owner=owner, objects=len(objects), bytes=total)


@pytest.fixture
def version_1(url: str) -> str:
    not_memory(url)
    execute(url, make_version_1)
    return url


def is_migrated(store: Store) -> None:
    audit(store)
    assert rows(store, "version") == [(schema.VERSION,)]
    for owner, objects in STORED.items():
        for id, names in objects.items():
            whole = stored_object(id.decode(), metadata={"k": "v"})
            assert store.get("chat", owner.decode(), id.decode()) == whole
            expected = [Item(name.decode(), b"1") for name in names]
            assert store.context("chat", owner.decode(), id.decode(), limit=100).items == expected  # type: ignore[union-attr]
            assert store.outputs("chat", owner.decode(), id.decode()) == []
    assert ids(store.page("chat", "me", metadata={"k": "v"})) == ["a", "b", "c"]


def test_a_store_of_version_1(version_1: str, make: Make) -> None:
    store = make()
    is_migrated(store)
    assert store.append("chat", "me", "a", items("l"))
    with pytest.raises(AlreadyStored):
        store.append("chat", "me", "a", items("i"))
    assert ids(store.items("chat", "me", "a")) == ["i", "j", "k", "l"]
    assert store.delete_item("chat", "me", "a", "j")
    store.add("chat", "me", stored_object("d"), items("m"), parent="b")
    assert store.delete("chat", "me", "b")
    assert ids(store.items("chat", "me", "d")) == ["j", "\U0001f600", "m"]
    is_in_order = [row.seq for row in rows(store, "items")]
    assert len(is_in_order) == len(set(is_in_order))
    again = make()
    assert ids(again.items("chat", "me", "d")) == ["j", "\U0001f600", "m"]


def names_of(url: str) -> set[tuple[str, str]]:
    """The tables and columns of a database, and its indexes with their columns."""
    from sqlalchemy import inspect

    found: set[tuple[str, str]] = set()

    def look(tx: Any, dialect: str) -> None:
        inspector = inspect(tx)
        for table in inspector.get_table_names():
            found.update((table, f"{column['name']} {column['nullable']}") for column in inspector.get_columns(table))
            found.update((table, f"{index['column_names']}") for index in inspector.get_indexes(table))
            found.update((table, f"unique {key['column_names']}") for key in inspector.get_unique_constraints(table))

    execute(url, look)
    return found


def test_it_has_the_tables_of_a_new_one(version_1: str, make: Make, tmp_path: Any, request: Any) -> None:
    make().ping()
    migrated = names_of(version_1)
    if version_1.startswith("sqlite"):
        fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
        with new(fresh) as store:
            store.ping()
        assert migrated == names_of(fresh)
    else:
        with request.getfixturevalue("postgresql_server").schema() as fresh:
            with new(fresh) as store:
                store.ping()
            assert migrated == names_of(fresh)


STARTS = """
import os, sys
from openai_compat.storage.store import Store

store = Store(sys.argv[1], ttl=600, max_objects=1000, max_bytes=10**9, timeout=20, clock=lambda: 1_000_000.0)
pids, (ready, go) = [], os.pipe()
for i in range(4):
    pids.append(os.fork())
    if not pids[-1]:
        os.close(go)
        os.read(ready, 1)
        assert len(store.page("chat", "me").rows) == 3
        assert store.append("chat", "me", "c", [])
        store.close()
        sys.exit(0)
os.close(go)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 4
print("done")
"""


@pytest.mark.server
def test_processes_that_all_migrate(version_1: str, make: Make) -> None:
    ended = command(version_1, python=("-c", STARTS))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
    is_migrated(make())


def test_a_migration_that_fails_leaves_version_1(version_1: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_count_bytes", lambda *tables: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_only(version_1)
    execute(version_1, lambda tx, dialect: version_is(tx, 1))
    is_migrated(make())


def make_only(url: str) -> None:
    database = Database(read_url(url), TIMEOUT)
    try:
        with database.begin(False):
            pass
    finally:
        database.engine.dispose()


def version_is(tx: Any, version: int) -> None:
    assert tx.exec_driver_sql("SELECT version FROM openai_compat_version").all() == [(version,)]


@pytest.mark.parametrize("version", [0, 3, 99])
def test_other_versions_are_refused(url: str, version: int) -> None:
    not_memory(url)

    def change(tx: Any, dialect: str) -> None:
        make_version_1(tx, dialect)
        tx.exec_driver_sql(f"UPDATE openai_compat_version SET version = {version}")

    execute(url, change)
    with pytest.raises(StoreFailed, match=f"schema {version}; this version of openai_compat knows 2"):
        make_only(url)
    execute(url, lambda tx, dialect: version_is(tx, version))
