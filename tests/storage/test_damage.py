"""Rows that are not what was stored, and what a failure says in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from openai_compat.storage import database as module
from openai_compat.storage.schema import tables
from openai_compat.storage.store import Damaged, Store, StoreFailed
from tests.storage.databases import Clock, Postgres, fill, ids, items, new, stored_object, walked

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

#: column → what a fault of a disk or a statement may leave there: all databases take bytes, SQLite takes anything
DAMAGE: list[tuple[str, Any]] = [
    ("metadata", b""),
    ("metadata", b"{"),
    ("metadata", b"\xff\xfe"),
    ("metadata", b"null"),
    ("metadata", b"[]"),
    ("metadata", b'{"a": 1}'),
    ("metadata", b"[" * 100_000),
    ("model", b"\xff"),
    ("body", b"broken"),
]
ONLY_SQLITE: list[tuple[str, Any]] = [
    ("metadata", "broken"),
    ("metadata", 5),
    ("model", 5),
    ("created", "yesterday"),
    ("created", b"\xff"),
    ("body", 5),
    ("body", "broken"),
]


def damage(store: Store, table: str, id: str, column: str, value: Any) -> None:
    """Change a row past the types of its columns."""
    with store._begin(write=True) as tx:
        mark = "?" if tx.dialect.name == "sqlite" else "%s"
        statement = f"UPDATE openai_compat_{table} SET {column} = {mark} WHERE id = {mark}"
        assert tx.exec_driver_sql(statement, (value, id.encode())).rowcount == 1


def is_valid(body: bytes) -> bool:
    return body != b"broken"


@pytest.mark.parametrize(("column", "value"), [*DAMAGE, *ONLY_SQLITE])
def test_a_damaged_object_is_left_out_of_lists_and_logged(
    url: str, column: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if url.startswith("postgresql") and (column, value) in ONLY_SQLITE:
        pytest.skip("PostgreSQL's columns have types")
    with new(url) as store:
        fill(store, "me", "abc")
        damage(store, "objects", "b", column, value)
        page = store.page("chat", "me", is_valid=is_valid)
        assert (ids(page), page.has_more) == (["a", "c"], False)
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert record.message == f"The stored object 2 is damaged: {column}. It is left out of a list."
        with pytest.raises(Damaged, match=f"The stored object 2 is damaged: {column}"):
            store.get("chat", "me", "b", is_valid)
        with pytest.raises(Damaged):
            store.set_metadata("chat", "me", "b", {}, is_valid)
        assert store.get("chat", "me", "a", is_valid), "a damaged row is no reason not to ask the store"
        assert store.delete("chat", "me", "b")
        assert ids(store.page("chat", "me")) == ["a", "c"]


@pytest.mark.parametrize("value", [b"\xff", 5])
def test_an_object_whose_id_is_damaged(url: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    if url.startswith("postgresql") and value == 5:
        pytest.skip("PostgreSQL's columns have types")
    with new(url) as store:
        fill(store, "me", "abc")
        damage(store, "objects", "b", "id", value)
        assert ids(store.page("chat", "me")) == ["a", "c"]
        assert "object 2 is damaged: id" in caplog.text


def test_text_that_an_operator_wrote_is_no_damage(url: str) -> None:
    with new(url) as store:
        fill(store, "me", "a")
        values = {"metadata": '{"k": "ü"}', "model": "other", "body": '"ü"'}
        for column, value in values.items():
            damage(store, "objects", "a", column, value if url.startswith("sqlite") else value.encode())
        expected = stored_object("a", metadata={"k": "ü"}, model="other", body='"ü"'.encode())
        assert store.get("chat", "me", "a") == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_are_full_although_rows_are_damaged(url: str, order: Any) -> None:
    """A page of nothing but damaged rows would end a client's walk."""
    with new(url, max_objects=100) as store:
        names = [f"{i:02}" for i in range(20)]
        fill(store, "me", names)
        sound = [name for i, name in enumerate(names) if i in (0, 1, 9, 17)]
        for name in set(names) - set(sound):
            damage(store, "objects", name, "metadata", b"{")
        expected = sound if order == "asc" else sound[::-1]
        for limit in (1, 2, 3, 4, 5, 20):
            found = walked(lambda **arguments: store.page("chat", "me", order=order, **arguments), limit=limit)
            assert found == expected
            first = store.page("chat", "me", order=order, limit=limit)
            assert (len(first.rows), first.has_more) == (min(limit, 4), limit < 4)
        assert store.page("chat", "me", limit=0).has_more
        assert ids(store.page("chat", "me", after="05", limit=1)) == ["09"], "a damaged row can be a cursor"


@pytest.mark.parametrize(("column", "value"), [("body", b"broken"), ("id", b"\xff")])
def test_a_damaged_item_is_left_out_of_lists_and_logged(
    url: str, column: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with new(url) as store:
        store.add("chat", "me", stored_object("a"), items("i", "j", "k"))
        damage(store, "items", "j", column, value)
        for limit in (1, 2, 3):
            found = walked(
                lambda **arguments: store.items("chat", "me", "a", is_valid=is_valid, **arguments), limit=limit
            )
            assert found == ["i", "k"]
        assert f"The stored item 1 of object 1 is damaged: {column}." in caplog.text
        assert store.append("chat", "me", "a", items("l"))


@pytest.mark.parametrize(("column", "value"), [("body", b"broken"), ("id", b"\xff")])
def test_a_conversation_does_not_go_on_without_a_damaged_item(store: Store, column: str, value: bytes) -> None:
    store.add("response", "me", stored_object("a"), items("i", "j"), outputs=items("o"))
    damage(store, "items", "j", column, value)
    with pytest.raises(Damaged, match=f"The stored item 1 of object 1 is damaged: {column}"):
        store.context("response", "me", "a", limit=9, is_valid=is_valid)
    assert store.outputs("response", "me", "a", is_valid=is_valid) == items("o")
    assert set(store.find_items("me", ["i", "o"], is_valid=is_valid)) == {"i", "o"}
    if column == "body":
        with pytest.raises(Damaged, match="item 1 of object 1"):
            store.item("response", "me", "a", "j", is_valid=is_valid)
        with pytest.raises(Damaged, match="The stored item 2 is damaged: body"):
            store.find_items("me", ["j"], is_valid=is_valid)
        damage(store, "items", "j", column, b'"1"')
    else:
        store.add("conversation", "me", stored_object("c"))
        assert store.complete("response", "me", "a", b"{}", extend=("conversation", "c"))
        assert store.delete("conversation", "me", "c")
        assert store.delete("response", "me", "a")


def execute(store: Store, statement: str) -> None:
    with store._begin(write=True) as tx:
        tx.exec_driver_sql(statement)


def test_a_lost_item_is_a_hole() -> None:
    with new("sqlite://") as store:
        store.add("chat", "me", stored_object("a"), items("i", "j", "k"))
        store.ping()
        [database] = store._databases.values()
        with database.engine.connect() as connection:  # the pragma has no effect in a transaction
            connection.connection.driver_connection.executescript(
                "PRAGMA foreign_keys = OFF; DELETE FROM openai_compat_items WHERE seq = 2"
            )
        with pytest.raises(Damaged, match="item 1 of object 1 is damaged: id, body"):
            store.context("chat", "me", "a", limit=9)
        assert ids(store.items("chat", "me", "a")) == ["i", "k"]


def test_damaged_runs_and_events() -> None:
    with new("sqlite://") as store:
        fill(store, "me", "ab")
        for id in "ab":
            store.begin_run("chat", "me", id, "h")
        assert store.beat("chat", "me", "a", "h", [(0, 1, b"x")]) is True
        execute(store, "UPDATE openai_compat_runs SET heartbeat = 'now'")
        execute(store, "UPDATE openai_compat_events SET last = 'x'")
        with pytest.raises(Damaged, match="batch x of the events of object 1 is damaged: last"):
            store.events("chat", "me", "a", -1)
        execute(store, "UPDATE openai_compat_events SET data = 5, last = 1")
        with pytest.raises(Damaged, match="The stored run of object 1 is damaged: heartbeat"):
            store.run("chat", "me", "a")
        with pytest.raises(Damaged, match="batch 1 of the events of object 1 is damaged: data"):
            store.events("chat", "me", "a", -1)
        damage(store, "objects", "a", "id", b"\xff")
        assert store.beat_all("chat", "h", ["a", "b"]) == {"b"}


@pytest.mark.parametrize("value", [2**62, -(2**62)])
def test_an_impossible_number_of_an_object_does_not_count(value: int) -> None:
    with new("sqlite://") as store:
        fill(store, "me", "abcdef")
        execute(store, f"UPDATE openai_compat_objects SET bytes = {value}, context = {value}")
        for id in "abcdef":
            assert store.delete("chat", "me", id)


def test_an_impossible_number_of_an_owner_deletes_nothing() -> None:
    with new("sqlite://") as store:
        fill(store, "me", "a")
        execute(store, f"UPDATE openai_compat_owners SET bytes = {2**62}")
        with pytest.raises(Damaged):
            fill(store, "me", "b")
        assert ids(store.page("chat", "me")) == ["a"]


def test_a_circle_of_parents_ends() -> None:
    with new("sqlite://") as store:
        for id, parent in (("a", None), ("b", "a"), ("c", "b")):
            store.add("response", "me", stored_object(id), items(id), parent=parent)
        execute(store, "UPDATE openai_compat_objects SET parent = 3 WHERE seq = 1")
        store.add("response", "me", stored_object("d"), parent="c")
        for id in "cbda":
            assert store.delete("response", "me", id)


@pytest.mark.parametrize("value", ["many", b"\xff", 1.5])
def test_a_damaged_number_fails_as_a_store_fails(value: Any) -> None:
    with new("sqlite://") as store:
        fill(store, "me", "abc")
        damage(store, "objects", "b", "bytes", value)
        assert store.append("chat", "me", "b", items("i"))
        assert store.delete("chat", "me", "b")
        with store._begin(write=True) as tx:
            tx.exec_driver_sql("UPDATE openai_compat_owners SET bytes = ?", (value,))
        with pytest.raises(Damaged, match="counts of an owner"):
            fill(store, "me", "d")
        assert ids(store.page("chat", "me")) == ["a", "c"]
        fill(store, "you", "e")
        assert store.delete("chat", "you", "e")


def test_an_owner_whose_counts_are_damaged_stops_no_other(clock: Clock) -> None:
    with new("sqlite://", clock=clock) as store:
        fill(store, "me", "a")
        with store._begin(write=True) as tx:
            tx.exec_driver_sql("UPDATE openai_compat_owners SET objects = 'many'")
        clock.now += 1000
        fill(store, "you", "b")  # which sweeps what has expired of anybody
        assert ids(store.page("chat", "you")) == ["b"]


# -- what the log says --------------------------------------------------------------------------


class DriverError(Exception):
    """An exception as drivers raise it."""


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        ("database is locked", "database is locked"),
        (
            "UNIQUE constraint failed: openai_compat_objects.owner",
            "UNIQUE constraint failed: openai_compat_objects.owner",
        ),
        (
            'connection failed: connection to server at "db.internal" (10.0.0.5), port 5432 failed: FATAL:  password '
            'authentication failed for user "bob"\nconnection to ...',
            "connection failed: connection to server at … …, port 5432 failed: FATAL:  password authentication failed "
            "for user …",
        ),
        ("Authentifizierung für »bob« fehlgeschlagen", "Authentifizierung für … fehlgeschlagen"),
        ("échouée pour l’utilisateur « bob » ici", "échouée pour l’utilisateur … ici"),
        ("échouée pour l'utilisateur « bob »", "échouée pour l…"),
        ("nepodařila „bob“ zde, “bob” ‘bob’ ‹bob› ”bob” `bob` `bob' 'bob'", "nepodařila … zde, … … … … … … …"),
        ("could not open /var/lib/store.db: no", "could not open … no"),
        ("unknown option password=hunter2 given", "unknown option … given"),
        ("bad URL postgresql://bob:hunter2@db/x here", "bad URL … here"),
        ('unfinished "hunter2', "unfinished …"),
        ("no route to db.internal for hunter2", "no route to … for …"),
        ("duplicate key\nDETAIL:  Key (id)=(hunter2) already exists.", "duplicate key"),
        ("SELECT * FROM t\n" * 3, "SELECT * FROM t"),
        ("x" * 500, "x" * 200),
        ("", ""),
    ],
)
def test_the_reason_has_no_secrets(message: str, logged: str) -> None:
    url = module.read_url("postgresql+psycopg://tester:hunter2@db.internal/database")
    reason = module._reason(DriverError(message), module._secrets(url))
    assert reason == (f"DriverError: {logged}" if logged else "DriverError")


@pytest.mark.server
def test_a_deadlock_is_no_reason_not_to_ask_the_store(postgresql_server: Postgres) -> None:
    deadlock = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"
    with postgresql_server.schema() as url, new(url) as store:
        with pytest.raises(StoreFailed, match="DeadlockDetected, 40P01: x"), store._begin() as tx:
            tx.exec_driver_sql(deadlock)
        assert store.get("chat", "me", "a") is None


def test_a_failure_names_the_drivers_class_and_code(store: Store) -> None:
    store.add("chat", "me", stored_object("a"))
    with pytest.raises(StoreFailed) as caught, store._begin() as tx:
        tx.exec_driver_sql("SELECT hunter2 FROM missing")
    kind = tx.dialect.name
    expected = {
        "sqlite": r"The store failed: OperationalError(, SQLITE_ERROR)?: no such table: missing\.",
        "postgresql": r"The store failed: UndefinedTable, 42P01: relation … does not exist\.",
    }
    assert caught.match(expected[kind])
    assert store.get("chat", "me", "a"), "a database that refuses a statement is asked again"
    assert tables().objects.name == "openai_compat_objects"
