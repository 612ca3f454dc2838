"""Where it is kept: the tables, in SQLite or PostgreSQL, and transactions on them.

The rule: which of the two it is, is known here and nowhere else; whose a row is, and how long it stays, is decided
above. What a driver or the file system raises leaves as :exc:`StoreFailed`, and nothing waits without an end.
SQLAlchemy is an extra, so it is imported where it is used, and nothing is connected before the first transaction.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import URL, Connection, Engine, Table

#: of the schema; a later one migrates from it
VERSION = 1
#: seconds that anything waits for a lock or a connection
WAIT = 15.0
#: connections of a process; more threads than that take turns
_POOL = {"pool_size": 15, "max_overflow": 0, "pool_timeout": WAIT}
#: seconds (the last: milliseconds) after which a PostgreSQL that is gone is noticed
_LIBPQ = {"connect_timeout": "5", "keepalives_idle": "15", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
#: milliseconds; the last: a process that stands still lets its owner go
_LIMITS = {"lock_timeout": 15_000, "statement_timeout": 60_000, "idle_in_transaction_session_timeout": 60_000}
#: a number that only this program locks in a PostgreSQL
_SCHEMA_LOCK = 0x6F61_6963_6F6D_7061
_KNOWN = "sqlite:///file, sqlite:// (memory) or postgresql+psycopg://user@host/database"
_INSTALL = "pip install 'openai-compat[store]'"


class StoreFailed(Exception):
    """The database failed. The text holds no URL, statement or content."""


class AlreadyStored(ValueError):
    """The owner has an object of that id, or the object an item."""


# -- tables -----------------------------------------------------------------------------------


class Tables(NamedTuple):
    """The tables; those of objects, labels and items hold what is kept."""

    version: Table
    owners: Table
    objects: Table
    labels: Table
    items: Table


def encode(text: str) -> bytes:
    """The bytes that a text is kept as; any text has some."""
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def tables() -> Tables:
    """The tables, which are the same for every database."""
    import sqlalchemy as sa

    class Text(sa.TypeDecorator[str]):
        """Kept as bytes: equal is equal in every collation, and a NUL or a lone surrogate is no case of its own."""

        impl = sa.LargeBinary
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
            return None if value is None else encode(value)

        def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:
            return None if value is None else value.decode("utf-8", "surrogatepass")

    def table(name: str, *parts: Any, **options: Any) -> Table:
        return sa.Table(f"openai_compat_{name}", whole, *parts, **options)

    def part(name: str, *parts: Any) -> Table:
        object = key("object", serial, sa.ForeignKey("openai_compat_objects.seq", ondelete="CASCADE"))
        return table(name, object, key("position", sa.Integer), *parts)

    whole, big, blob = sa.MetaData(), sa.BigInteger, sa.LargeBinary
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    column = functools.partial(sa.Column, nullable=False)
    key = functools.partial(column, primary_key=True)
    numbers = [column("created", big), column("expires", sa.Double), column("bytes", big)]
    texts = [column(name, Text) for name in ("owner", "kind", "id", "model", "metadata")]
    by_age = sa.Index("openai_compat_by_age", "owner", "seq", "kind")
    rules = [sa.UniqueConstraint("owner", "kind", "id"), by_age, sa.Index("openai_compat_by_expiry", "expires")]
    return Tables(
        version=table("version", column("version", sa.Integer)),
        owners=table("owners", key("owner", Text), column("objects", big), column("bytes", big)),
        # autoincrement: or the number of the newest is used again when it is deleted
        objects=table(
            "objects", key("seq", serial), *numbers, *texts, column("body", blob), *rules, sqlite_autoincrement=True
        ),
        # for searching; what is read of the metadata stands in the object, as JSON
        labels=part("labels", column("key", Text), column("value", Text)),
        items=part("items", column("id", Text), column("body", blob), sa.UniqueConstraint("object", "id")),
    )


def _create_schema(tx: Connection) -> None:
    import sqlalchemy as sa

    if tx.dialect.name == "postgresql":  # where even IF NOT EXISTS fails when two create at once
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    table = tables().version
    table.create(tx, checkfirst=True)
    version = tx.scalar(table.select())
    if version is None:
        table.metadata.create_all(tx)
        tx.execute(table.insert().values(version=VERSION))
    elif version != VERSION:
        raise StoreFailed(f"The store has schema {version}; this version of openai_compat knows {VERSION}.")


def insert_if_new(tx: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, unless there is one of its key, which stays as it is."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (sqlite if tx.dialect.name == "sqlite" else postgresql).insert(table)
    tx.execute(insert.values(**row).on_conflict_do_nothing())


# -- engines ----------------------------------------------------------------------------------


def read_url(text: str) -> URL:
    """The URL of a database that can be used, its driver named.

    :raises ValueError: it is none, or what it needs is not installed; never with *text*, which may hold a password.
    """
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise ValueError(f"a store needs SQLAlchemy: {_INSTALL}") from None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"the store's URL cannot be read; write {_KNOWN}") from None
    if url.drivername == "postgresql":  # which driver that means depends on the version of SQLAlchemy
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg") or (url.database or "").startswith("file:"):
        raise ValueError(f"the store's URL is of another kind; write {_KNOWN}")
    try:
        url.get_dialect().import_dbapi()
    except ImportError:
        raise ValueError(f"the driver of {url.drivername} is not installed: {_INSTALL}") from None
    return url


def _sqlite(url: URL, memory: bool) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool, StaticPool

    pool: dict[str, Any] = {"poolclass": StaticPool} if memory else {"poolclass": QueuePool, **_POOL}
    # isolation_level: the driver begins nothing by itself
    arguments = {"timeout": WAIT, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        _use_wal(connection)
        # NORMAL: a loss of power may take the last writes, never the file
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        # a reader that became a writer would fail where another was faster
        write = connection.get_execution_options().get("openai_compat_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers go on while one writes. SQLite does not wait where two change a new file at once."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").close()
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _postgresql(url: URL) -> Engine:
    from sqlalchemy import create_engine, event

    url = url.set(query={**_LIBPQ, **url.query})
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, isolation_level="READ COMMITTED", **_POOL)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.execute("; ".join(f"SET {name} = {milliseconds}" for name, milliseconds in _LIMITS.items()))
        connection.commit()

    return engine


# -- transactions -----------------------------------------------------------------------------


class Database:
    """The database as one process sees it."""

    def __init__(self, url: URL) -> None:
        server = url.get_backend_name() == "postgresql"
        self._file = None if server or url.database == ":memory:" else url.database
        self._memory = not server and not self._file
        self._lock = threading.Lock()
        self._ready = False
        self.engine = _postgresql(url) if server else _sqlite(url, self._memory)

    @contextmanager
    def begin(self, write: bool) -> Iterator[Connection]:
        """A transaction; the first one makes the schema.

        :raises StoreFailed: what the database or the file system said is its cause.
        :raises AlreadyStored: a row is there.
        """
        from sqlalchemy.exc import IntegrityError, SQLAlchemyError

        try:
            if not self._ready:
                self._create()
            with self._transaction(write) as tx:
                yield tx
        except IntegrityError:  # whose text has the values
            raise AlreadyStored("that id is kept already") from None
        except (SQLAlchemyError, OSError) as error:
            raise StoreFailed(_reason(error)) from error

    def _create(self) -> None:
        if self._file:
            # SQLite would let others read it (its side files take its mode). One that is there is left
            # unopened: closing it would take this process's locks from it.
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with self._transaction(True) as tx:
            _create_schema(tx)
        self._ready = True

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Connection]:
        # One at a time in SQLite's memory; one writer at a time in its file, whose own waiting is not fair.
        alone = self._memory or (write and self._file)
        if alone and not self._lock.acquire(timeout=WAIT):
            raise StoreFailed("The store is busy.")
        try:
            with self.engine.connect() as connection:
                connection.execution_options(openai_compat_write=write)
                with connection.begin():
                    yield connection
        finally:
            if alone:
                self._lock.release()


def _reason(error: Exception) -> str:
    codes = [getattr(getattr(error, "orig", None), name, None) for name in ("sqlite_errorname", "sqlstate")]
    return f"The store failed: {', '.join([type(error).__name__, *filter(None, codes)])}."
