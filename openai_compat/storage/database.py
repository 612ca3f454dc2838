"""The database of the store: transactions in SQLite or PostgreSQL.

Only this module and the schema distinguish the two databases; owners and expiry belong to the store. Every exception
of a driver or the file system is raised as :exc:`StoreFailed`. Every wait of an operation ends at its deadline, and
after one that did not answer the store is not asked for a while. SQLAlchemy is an optional dependency: it is imported
inside functions, and nothing is connected before the first transaction.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from openai_compat.storage.circuit import Circuit, StoreFailed
from openai_compat.storage.deadline import Deadline, DeadlinePassed
from openai_compat.storage.schema import create_schema

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table

#: seconds for which a store that did not answer is not asked: long against the time-out of an operation, so that few
#: requests wait for it, and short for the operator who mended it
PAUSE = 5.0
#: seconds that an operation may take at most: a day, so that every number is in the range of the databases
_MAX_TIMEOUT = 86_400.0
#: connections of a process, as many as SQLAlchemy allows by default; PostgreSQL allows 100 of all processes by default
_CONNECTIONS = 15
#: the pool never waits: see Database
_POOL = {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_timeout": 0.1}
#: seconds, the last in milliseconds: connections that a firewall dropped are noticed while they are not used
_LIBPQ = {"keepalives_idle": "15", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
#: PostgreSQL's own time-outs. They release the locks of an operation that was given up, and of a process that hangs.
_LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
#: seconds for which SQLite waits for a lock before it is asked again: of 16 processes that wrote without a pause, one
#: waited for about 1 s at most, where SQLite alone let it wait for 3 s
_POLL = 0.1
#: steps of SQLite's machine between two looks at the deadline: less than a millisecond
_STEPS = 10_000
_URL_FORMS = "sqlite:///file, sqlite:// (memory) or postgresql+psycopg://user@host/database"
_INSTALL = "in a clone: pip install '.[store]'"

#: the deadline of the operation that runs in this thread
_deadline: ContextVar[Deadline] = ContextVar("openai_compat_store_deadline")


class AlreadyStored(ValueError):
    """The owner has an object with the same id already, or the object an item."""


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
    arguments = {"timeout": 0, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    def is_late() -> bool:
        deadline = _deadline.get(None)
        return deadline is not None and deadline.has_passed

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        # so that reads do not wait for a write
        _wait_for_lock(connection, _deadline.get(), "PRAGMA journal_mode = WAL")
        connection.set_progress_handler(is_late, _STEPS)  # a statement that takes too long is interrupted
        # NORMAL: a power failure may lose the last writes, but cannot damage the file
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        raw, deadline = connection.connection.driver_connection, _deadline.get()
        # SQLite fails at once if a transaction that began by reading writes after another connection wrote
        if connection.get_execution_options().get("openai_compat_write"):
            _wait_for_lock(raw, deadline, "BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
        _set_busy_timeout(raw, deadline.rest)

    @event.listens_for(engine, "commit")
    def on_commit(connection: Connection) -> None:
        # It waits for readers where the file system has no write-ahead log; what is done is not given up for lateness.
        _set_busy_timeout(connection.connection.driver_connection, _deadline.get().rest)

    @event.listens_for(engine, "before_cursor_execute")
    def on_execute(*arguments: Any) -> None:
        _deadline.get().remaining()

    return engine


def _set_busy_timeout(connection: Any, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {math.ceil(seconds * 1000)}").close()


def _wait_for_lock(connection: Any, deadline: Deadline, statement: str) -> None:
    """Run a statement as soon as no other connection has the lock.

    SQLite itself waits for longer and longer times, so that of many processes some would wait for seconds; and not at
    all when two connections switch a new file to write-ahead logging.
    """
    while True:
        _set_busy_timeout(connection, min(_POLL, deadline.rest))
        try:
            return connection.execute(statement).close()  # type: ignore[no-any-return]
        except Exception as error:
            if "locked" not in str(error) or deadline.has_passed:
                raise
        time.sleep(0.01)


def _postgresql(url: URL, timeout: float) -> Engine:
    """Return an engine for PostgreSQL. Parameters in the URL have precedence over :data:`_LIBPQ`."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import InvalidatePoolError

    url = url.set(query={**_LIBPQ, **url.query, "connect_timeout": str(_connect_timeout(url, timeout))})
    engine = create_engine(url, hide_parameters=True, isolation_level="READ COMMITTED", **_POOL)
    milliseconds = math.ceil(timeout * 1000)

    @event.listens_for(engine, "do_connect")
    def do_connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        # in a thread, because neither the resolver nor the driver can be given a deadline
        deadline = _deadline.get()
        connection: Any = deadline.call(
            lambda: dialect.connect(*arguments, **options), discard=lambda connection: connection.close()
        )
        try:
            deadline.shut_down(connection.pgconn.socket)
        except OSError:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.execute("; ".join(f"SET {name} = {milliseconds}" for name in _LIMITS))
        connection.commit()

    @event.listens_for(engine, "checkout")
    def on_checkout(connection: Any, record: Any, proxy: Any) -> None:
        # like pool_pre_ping, by which a server that was restarted is noticed, but with the deadline
        deadline = _deadline.get()
        deadline.shut_down(connection.pgconn.socket)
        with suppress(engine.dialect.loaded_dbapi.Error):
            if engine.dialect.do_ping(connection):
                return
        deadline.remaining()
        raise InvalidatePoolError("the connection was lost")

    return engine


def _connect_timeout(url: URL, timeout: float) -> int:
    """Return the seconds after which libpq ends an attempt to connect that the deadline has given up.

    libpq knows whole seconds, and no fewer than 2. The URL can only have a shorter time.
    """
    longest = max(2, math.ceil(timeout))
    try:
        given = int(str(url.query["connect_timeout"]))
    except (KeyError, ValueError):
        return longest
    return given if 0 < given < longest else longest


# -- transactions -----------------------------------------------------------------------------


class Database:
    """The database's connections of one process, used by any number of threads.

    :param timeout: seconds that an operation may take, in total.
    :param clock: of the pause after a failure.
    """

    def __init__(self, url: URL, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        server = url.get_backend_name() == "postgresql"
        self._file = None if server or url.database == ":memory:" else url.database
        self._memory = not server and not self._file
        self._timeout = min(timeout, _MAX_TIMEOUT)
        self._secrets = _secrets(url)
        self._lock = threading.Lock()
        # The pool's own time-out is the same for all; this one takes the rest of an operation's time.
        self._connections = threading.Semaphore(_CONNECTIONS)
        # A lock on a file of SQLite stops writes only.
        self._writes = Circuit(PAUSE, clock)
        self._reads = self._writes if server else Circuit(PAUSE, clock)
        self._ready = False
        self.engine = _postgresql(url, self._timeout) if server else _sqlite(url, self._memory)

    @contextmanager
    def begin(self, write: bool) -> Iterator[Connection]:
        """Run a transaction; the first one of a process creates the schema if the database has none.

        :raises StoreFailed: the database or the file system failed, their exception is the cause; or it failed before,
            and is not asked at present.
        :raises AlreadyStored: a row with the same key exists.
        """
        from sqlalchemy.exc import IntegrityError, SQLAlchemyError

        circuit = self._writes if write or not self._ready else self._reads
        with circuit.operation(), Deadline(self._timeout) as deadline:
            token = _deadline.set(deadline)
            try:
                if not self._ready:
                    self._create(circuit, deadline)
                with self._transaction(write, circuit, deadline) as tx:
                    yield tx
                circuit.answered()
            except IntegrityError:  # not as the cause: its message has the values
                circuit.answered()
                raise AlreadyStored("the id is already stored") from None
            except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error, OSError) as error:
                raise self._failure(error, circuit, deadline) from error
            finally:
                _deadline.reset(token)

    def _create(self, circuit: Circuit, deadline: Deadline) -> None:
        if self._file:
            # SQLite would create a file that other users can read. A file that exists is not opened, because closing
            # it would release this process's locks on it.
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with self._transaction(True, circuit, deadline) as tx:
            create_schema(tx)
        self._ready = True

    @contextmanager
    def _transaction(self, write: bool, circuit: Circuit, deadline: Deadline) -> Iterator[Connection]:
        # Writers of a file wait here too, because SQLite's own wait is not fair; and the first operations of a process,
        # because SQLAlchemy makes them wait for the first connection without a time-out.
        exclusive = self._memory or (write and self._file) or not self._ready
        with ExitStack() as stack:
            for lock in (self._lock, self._connections) if exclusive else (self._connections,):
                if not lock.acquire(timeout=deadline.remaining()):
                    raise DeadlinePassed(f"busy for {deadline.seconds:g} s")
                stack.callback(lock.release)
                circuit.check()  # those that waited for one that failed do not try it, too
            connection = stack.enter_context(self.engine.connect())
            connection.execution_options(openai_compat_write=write)
            with connection.begin():
                yield connection

    def _failure(self, error: Exception, circuit: Circuit, deadline: Deadline) -> StoreFailed:
        if isinstance(error, DeadlinePassed):
            reason = str(error)
        else:
            late = f"no answer within {deadline.seconds:g} s; " if deadline.has_passed else ""
            reason = late + _reason(error, self._secrets)
        if deadline.has_passed or _is_outage(error):
            circuit.failed(reason)
        else:
            circuit.answered()
        return StoreFailed(f"The store failed: {reason}.")


# -- failures ---------------------------------------------------------------------------------

#: what a driver's message has in parentheses or in the quotation marks of a server's language: names of users, hosts
#: and files, addresses, and values. A mark without a second one hides the rest.
_MARKS = ["()", '""', "''", "`'`", "«»", "»«", "„“”", "“”", "””", "‘’", "‹›", "「」"]
_QUOTED = re.compile("|".join(f"[{marks[0]}].*?(?:[{marks[1:]}]|$)" for marks in _MARKS))
#: words that may be a path, a URL or a pair of a name and a value
_PATH = re.compile(r"\S*[/\\@=]\S*")
#: characters of a driver's message that are logged
_MAX_REASON = 200


def _is_outage(error: Exception) -> bool:
    """Return whether the database could not be reached, or did not answer in time."""
    if isinstance(error, TimeoutError) or getattr(error, "connection_invalidated", False):
        return True
    driver = getattr(error, "orig", None) or error
    classes = [base.__name__ for base in type(driver).__mro__]
    if "OperationalError" not in classes and "InterfaceError" not in classes:
        return False
    if type(driver).__module__.startswith("sqlite3"):  # which has this class for every failure of the file, too
        return any(word in str(driver) for word in ("locked", "interrupted"))
    return not (getattr(driver, "sqlstate", None) or "").startswith("40")  # which one may repeat at once


def _secrets(url: URL) -> list[str]:
    """Return the parts of a URL that a log must not have, the longest first."""
    query = [value for values in url.query.values() for value in ([values] if isinstance(values, str) else values)]
    parts = [url.password, url.username, url.host, *query]
    return sorted((str(part) for part in parts if part and len(str(part)) > 2), key=len, reverse=True)


def _reason(error: Exception, secrets: list[str]) -> str:
    """Return the driver's exception, its code and its message, without what the message quotes."""
    driver = getattr(error, "orig", None) or error
    codes = [getattr(driver, name, None) for name in ("sqlite_errorname", "sqlstate")]
    text = str(getattr(driver, "strerror", None) or driver)
    text = (text.splitlines() or [""])[0]
    for secret in secrets:
        text = text.replace(secret, "…")
    text = _PATH.sub("…", _QUOTED.sub("…", text))[:_MAX_REASON].strip(" .")
    return ": ".join(filter(None, [", ".join([type(driver).__name__, *filter(None, codes)]), text]))
