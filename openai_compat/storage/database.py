"""The database of the store: its tables, and transactions in SQLite or PostgreSQL.

Only this module distinguishes the two databases; owners and expiry belong to ``store.py``. Every exception of a driver
or the file system is raised as :exc:`StoreFailed`, and every wait has a time-out. SQLAlchemy is an optional dependency:
it is imported inside functions, and nothing is connected before the first transaction.
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

#: version of the schema, stored in the database, so that a later version can migrate from it
VERSION = 1
#: seconds of every wait for a lock or a connection: half of the 30 after which servers often end a request
WAIT = 15.0
#: connections of a process, as many as SQLAlchemy allows by default; PostgreSQL allows 100 of all processes by default
_POOL = {"pool_size": 15, "max_overflow": 0, "pool_timeout": WAIT}
#: seconds, the last in milliseconds: a PostgreSQL server that is unreachable is noticed after about half a minute
_LIBPQ = {"connect_timeout": "5", "keepalives_idle": "15", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
#: milliseconds: the first is WAIT; the others are far above what a statement takes, which concerns one owner's rows,
#: and release the locks of a process that hangs
_LIMITS = {"lock_timeout": int(WAIT * 1000), "statement_timeout": 60_000, "idle_in_transaction_session_timeout": 60_000}
#: the key of PostgreSQL's advisory lock: "oaicompa" in ASCII, so that no other program has the same
_SCHEMA_LOCK = 0x6F61_6963_6F6D_7061
_URL_FORMS = "sqlite:///file, sqlite:// (memory) or postgresql+psycopg://user@host/database"
_INSTALL = "in a clone: pip install '.[store]'"


class StoreFailed(Exception):
    """The database failed. The message has no URL, statement or stored content."""


class AlreadyStored(ValueError):
    """The owner has an object with the same id already, or the object an item."""


# -- tables -----------------------------------------------------------------------------------


class Tables(NamedTuple):
    """The tables of the store."""

    #: one row: the version of the schema
    version: Table
    #: number and bytes of each owner's objects
    owners: Table
    objects: Table
    #: the metadata of objects, for searching; the JSON in ``objects`` is what is returned
    labels: Table
    #: the items of objects, by position
    items: Table


def encode(text: str) -> bytes:
    """Encode text as it is stored. Lone surrogates are allowed."""
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def tables() -> Tables:
    """Return the definitions of the tables, which are the same in both databases."""
    import sqlalchemy as sa

    class Text(sa.TypeDecorator[str]):
        """Text stored as bytes: comparison does not depend on a collation, and NUL and lone surrogates are allowed."""

        impl = sa.LargeBinary
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
            return None if value is None else encode(value)

        def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:
            return None if value is None else value.decode("utf-8", "surrogatepass")

    def table(name: str, *parts: Any, **options: Any) -> Table:
        return sa.Table(f"openai_compat_{name}", schema, *parts, **options)

    def table_of_parts(name: str, *parts: Any) -> Table:
        object = key("object", serial, sa.ForeignKey("openai_compat_objects.seq", ondelete="CASCADE"))
        return table(name, object, key("position", sa.Integer), *parts)

    schema, big, blob = sa.MetaData(), sa.BigInteger, sa.LargeBinary
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    column = functools.partial(sa.Column, nullable=False)
    key = functools.partial(column, primary_key=True)
    numbers = [column("created", big), column("expires", sa.Double), column("bytes", big)]
    texts = [column(name, Text) for name in ("owner", "kind", "id", "model", "metadata")]
    by_age = sa.Index("openai_compat_by_age", "owner", "seq", "kind")
    indexes = [sa.UniqueConstraint("owner", "kind", "id"), by_age, sa.Index("openai_compat_by_expiry", "expires")]
    return Tables(
        version=table("version", column("version", sa.Integer)),
        owners=table("owners", key("owner", Text), column("objects", big), column("bytes", big)),
        # autoincrement: otherwise SQLite would reuse the number of the newest object once that is deleted
        objects=table(
            "objects", key("seq", serial), *numbers, *texts, column("body", blob), *indexes, sqlite_autoincrement=True
        ),
        labels=table_of_parts("labels", column("key", Text), column("value", Text)),
        items=table_of_parts("items", column("id", Text), column("body", blob), sa.UniqueConstraint("object", "id")),
    )


def _create_schema(tx: Connection) -> None:
    """Create the tables unless they exist.

    :raises StoreFailed: the database has another version of the schema.
    """
    import sqlalchemy as sa

    if tx.dialect.name == "postgresql":  # where even IF NOT EXISTS fails if two processes create a table at once
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
    """Insert a row, unless the table has one with the same key."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (sqlite if tx.dialect.name == "sqlite" else postgresql).insert(table)
    tx.execute(insert.values(**row).on_conflict_do_nothing())


# -- engines ----------------------------------------------------------------------------------


def read_url(text: str) -> URL:
    """Parse and check the URL of a database. The result always names a driver.

    :raises ValueError: it is not a valid URL of a supported database, or a package is not installed. The message never
        has *text*, which may contain a password.
    """
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise ValueError(f"the store needs SQLAlchemy: {_INSTALL}") from None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"the store's URL is not a valid URL; write {_URL_FORMS}") from None
    if url.drivername == "postgresql":  # the driver that it implies depends on the version of SQLAlchemy
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg") or (url.database or "").startswith("file:"):
        raise ValueError(f"the store's URL is not one of a supported database; write {_URL_FORMS}")
    try:
        url.get_dialect().import_dbapi()
    except ImportError:
        raise ValueError(f"the driver of {url.drivername} is not installed: {_INSTALL}") from None
    return url


def _sqlite(url: URL, memory: bool) -> Engine:
    """Return an engine for SQLite. A database in memory has one connection, which all threads share."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool, StaticPool

    pool: dict[str, Any] = {"poolclass": StaticPool} if memory else {"poolclass": QueuePool, **_POOL}
    # isolation_level: the driver must not begin transactions itself
    arguments = {"timeout": WAIT, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        _use_wal(connection)
        # NORMAL: a power failure may lose the last writes, but cannot damage the file
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # SQLite fails at once if a transaction that began by reading writes after another connection wrote
        write = connection.get_execution_options().get("openai_compat_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, so that reads do not wait for a write.

    SQLite's own time-out does not apply when two connections switch a new file at once; hence the loop.
    """
    end = time.monotonic() + WAIT
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").close()
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _postgresql(url: URL) -> Engine:
    """Return an engine for PostgreSQL. Parameters in the URL have precedence over :data:`_LIBPQ`."""
    from sqlalchemy import create_engine, event

    url = url.set(query={**_LIBPQ, **url.query})
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, isolation_level="READ COMMITTED", **_POOL)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.execute("; ".join(f"SET {name} = {milliseconds}" for name, milliseconds in _LIMITS.items()))
        connection.commit()

    return engine


# -- transactions -----------------------------------------------------------------------------


class Database:
    """The database's connections of one process, used by any number of threads."""

    def __init__(self, url: URL) -> None:
        server = url.get_backend_name() == "postgresql"
        self._file = None if server or url.database == ":memory:" else url.database
        self._memory = not server and not self._file
        self._lock = threading.Lock()
        self._ready = False
        self.engine = _postgresql(url) if server else _sqlite(url, self._memory)

    @contextmanager
    def begin(self, write: bool) -> Iterator[Connection]:
        """Run a transaction; the first one of a process creates the schema if the database has none.

        :raises StoreFailed: the database or the file system failed; their exception is the cause.
        :raises AlreadyStored: a row with the same key exists.
        """
        from sqlalchemy.exc import IntegrityError, SQLAlchemyError

        try:
            if not self._ready:
                self._create()
            with self._transaction(write) as tx:
                yield tx
        except IntegrityError:  # not as the cause: its message has the values
            raise AlreadyStored("the id is already stored") from None
        except (SQLAlchemyError, OSError) as error:
            raise StoreFailed(_reason(error)) from error

    def _create(self) -> None:
        if self._file:
            # SQLite would create a file that other users can read. A file that exists is not opened, because closing
            # it would release this process's locks on it.
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with self._transaction(True) as tx:
            _create_schema(tx)
        self._ready = True

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Connection]:
        # Writers of a file wait here too, because SQLite's own wait is not fair.
        exclusive = self._memory or (write and self._file)
        if exclusive and not self._lock.acquire(timeout=WAIT):
            raise StoreFailed("The store is busy.")
        try:
            with self.engine.connect() as connection:
                connection.execution_options(openai_compat_write=write)
                with connection.begin():
                    yield connection
        finally:
            if exclusive:
                self._lock.release()


def _reason(error: Exception) -> str:
    """Return a message with the exception's type and the database's error code, but none of its text."""
    codes = [getattr(getattr(error, "orig", None), name, None) for name in ("sqlite_errorname", "sqlstate")]
    return f"The store failed: {', '.join([type(error).__name__, *filter(None, codes)])}."
