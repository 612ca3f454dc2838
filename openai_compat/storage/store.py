"""Stored objects, each with a kind, an owner and a list of items.

Every statement has the owner among its conditions, so that another owner's id is not found, and is built with
SQLAlchemy Core, never by joining strings. Every write is one transaction that first locks its owner's row: the writes
of an owner run one after another, so that none is lost, the counts are exact, and objects are numbered in the order in
which they become visible. Nothing is connected before the first use, and no connection is shared across a fork.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from openai_compat.log import log
from openai_compat.settings import Settings
from openai_compat.storage.circuit import StoreFailed
from openai_compat.storage.database import AlreadyStored, Database, encode, insert_if_new, read_url, tables

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import ColumnElement, Connection, Select, Table

__all__ = [
    "BATCH",
    "MAX_ID",
    "AlreadyStored",
    "Damaged",
    "Item",
    "Order",
    "Page",
    "Store",
    "StoreFailed",
    "StoredObject",
    "TooLarge",
    "UnknownCursor",
]

Order = Literal["asc", "desc"]
#: returns whether a body is what the caller stored; the store does not decode it
IsValid = Callable[[bytes], bool]
T = TypeVar("T")

#: objects that one statement deletes: enough that expired objects do not accumulate, and below the 999 parameters of a
#: statement in SQLite before 3.32
BATCH = 500
#: bytes of an id: owner, kind and id share an index, whose rows have at most about 2,700 bytes in PostgreSQL
MAX_ID = 512


class TooLarge(ValueError):
    """An object alone is larger than an owner's limit."""


class UnknownCursor(LookupError):
    """*after* is not the id of a stored object or item."""


class Damaged(StoreFailed):
    """A row is not what was stored, such as after a fault of the disk or an operator's statement."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it is stored."""

    id: str
    #: Unix time in seconds
    created: int
    model: str
    metadata: dict[str, str]
    #: JSON; the store does not decode it
    body: bytes


@dataclass(frozen=True)
class Item:
    """A part of an object, such as a message."""

    id: str
    #: JSON; the store does not decode it
    body: bytes


@dataclass(frozen=True)
class Page(Generic[T]):
    """Consecutive rows of a list, and whether more follow."""

    rows: list[T]
    has_more: bool


# -- owners, and pages of rows ----------------------------------------------------------------


@dataclass
class OwnerUsage:
    """The number and bytes of an owner's objects, during a write; *tx* holds the lock on the owner's row."""

    tx: Connection
    owner: str
    objects: int
    bytes: int

    def charge(self, objects: int, bytes: int) -> None:
        """Add to the owner's counts; both may be negative. The row of an owner without objects is deleted."""
        self.objects += objects
        self.bytes += bytes
        owners = tables().owners
        is_owner = owners.c.owner == self.owner
        if self.objects:
            self.tx.execute(owners.update().where(is_owner).values(objects=self.objects, bytes=self.bytes))
        else:
            self.tx.execute(owners.delete().where(is_owner))

    def drop(self, rows: Sequence[Any]) -> None:
        """Delete objects with their labels and items.

        :param rows: the ``seq`` and ``bytes`` of each.
        """
        objects = tables().objects
        self.tx.execute(objects.delete().where(objects.c.seq.in_([row.seq for row in rows])))
        self.charge(-len(rows), -sum(_size_of(row) for row in rows))

    def make_room(self, max_objects: int, max_bytes: int, spare: int) -> None:
        """Delete the owner's oldest objects until the counts are within the limits.

        :param spare: ``seq`` of an object that is not deleted.
        """
        o = tables().objects
        others = o.select().with_only_columns(o.c.seq, o.c.bytes).where(o.c.owner == self.owner, o.c.seq != spare)
        while self.objects > max_objects or self.bytes > max_bytes:
            excess_objects, excess_bytes = self.objects - max_objects, self.bytes - max_bytes
            oldest: list[Any] = []
            for row in self.tx.execute(others.order_by(o.c.seq).limit(BATCH)):
                if len(oldest) >= excess_objects and excess_bytes <= 0:
                    break
                oldest.append(row)
                excess_bytes -= _size_of(row)
            if not oldest:
                break
            self.drop(oldest)


def _size_of(row: Any) -> int:
    """Return the bytes of a stored object; 0 for a damaged number, so that the object can be deleted."""
    return row.bytes if isinstance(row.bytes, int) else 0


def _usage(tx: Connection, row: Any) -> OwnerUsage:
    """Return the counts of a row of ``owners``, which is locked.

    :raises Damaged: they are no numbers.
    """
    if not isinstance(row.objects, int) or not isinstance(row.bytes, int):
        raise Damaged("The stored counts of an owner are damaged.")
    return OwnerUsage(tx, row.owner, row.objects, row.bytes)


def _lock_owner(tx: Connection, owner: str) -> OwnerUsage | None:
    """Lock the owner's row; None for an owner without objects."""
    owners = tables().owners
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update()).first()
    return None if row is None else _usage(tx, row)


def _lock_or_add_owner(tx: Connection, owner: str) -> OwnerUsage:
    while (usage := _lock_owner(tx, owner)) is None:  # another transaction may insert or delete it in between
        insert_if_new(tx, tables().owners, {"owner": owner, "objects": 0, "bytes": 0})
    return usage


def _sweep(tx: Connection, now: float) -> None:
    """Delete a batch of expired objects of one owner."""
    o, owners = tables().objects, tables().owners
    expired = o.select().where(o.c.expires <= now).order_by(o.c.expires)
    owner = expired.with_only_columns(o.c.owner).limit(1).scalar_subquery()
    # An owner that another transaction has locked is skipped: waiting with a lock of one's own may deadlock.
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update(skip_locked=True)).first()
    if row is not None:
        of_owner = expired.with_only_columns(o.c.seq, o.c.bytes).where(o.c.owner == row.owner)
        with suppress(Damaged):  # of an owner who need not be the one that writes
            _usage(tx, row).drop(tx.execute(of_owner.limit(BATCH)).all())


def _paged(
    tx: Connection,
    query: Select[Any],
    column: ColumnElement[int],
    after: Select[Any] | None,
    limit: int,
    order: Order,
    read: Callable[[Any], T],
) -> Page[T]:
    """Return a page of rows. Damaged ones are logged and left out; the next ones fill the page.

    :param read: reads a row, and raises :exc:`Damaged`.
    """
    start = None if after is None else tx.scalar(after)
    if after is not None and start is None:
        raise UnknownCursor("no object or item has that id")
    query = query.order_by(column.asc() if order == "asc" else column.desc())
    limit = max(limit, 0)  # to SQLite a negative limit means none
    found: list[T] = []
    missing = limit + 1
    while missing:
        following = query if start is None else query.where(column > start if order == "asc" else column < start)
        rows = tx.execute(following.limit(missing)).all()
        for row in rows:
            try:
                found.append(read(row))
            except Damaged as error:
                log.error("%s It is left out of a list.", error)
        if len(rows) < missing:
            break
        start, missing = rows[-1]._mapping[column], limit + 1 - len(found)
    return Page(found[:limit], len(found) > limit)


def _insert_rows(tx: Connection, table: Table, seq: int, start: int, rows: Iterable[Mapping[str, Any]]) -> None:
    values = [{"object": seq, "position": position, **row} for position, row in enumerate(rows, start)]
    if values:
        tx.execute(table.insert(), values)


def _size(*parts: StoredObject | Item) -> int:
    ids = [len(encode(part.id)) for part in parts]
    if max(ids, default=0) > MAX_ID:
        raise ValueError(f"an id must have at most {MAX_ID} bytes")
    return sum(ids) + sum(len(part.body) for part in parts)


def _any_body(body: bytes) -> bool:
    return True


def _stored_object(row: Any, is_valid: IsValid) -> StoredObject:
    """Return the object of a row.

    :raises Damaged: a value is not what was stored.
    """
    try:
        metadata = json.loads(row.metadata)
    except (TypeError, ValueError, RecursionError):
        metadata = None
    sound = {
        "id": isinstance(row.id, str),
        "created": isinstance(row.created, int),
        "model": isinstance(row.model, str),
        "metadata": isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()),
        "body": isinstance(row.body, bytes) and is_valid(row.body),
    }
    _check_row(f"object {row.seq}", sound)
    return StoredObject(row.id, row.created, row.model, metadata or {}, row.body)


def _item(row: Any, is_valid: IsValid) -> Item:
    """Return the item of a row.

    :raises Damaged: a value is not what was stored.
    """
    sound = {"id": isinstance(row.id, str), "body": isinstance(row.body, bytes) and is_valid(row.body)}
    _check_row(f"item {row.position} of object {row.object}", sound)
    return Item(row.id, row.body)


def _check_row(name: str, sound: Mapping[str, bool]) -> None:
    damaged = [column for column, is_sound in sound.items() if not is_sound]
    if damaged:
        raise Damaged(f"The stored {name} is damaged: {', '.join(damaged)}.")


# -- the store --------------------------------------------------------------------------------


class Store:
    """Stored objects in SQLite or PostgreSQL, for any number of threads.

    After a fork both processes may use it, each with its own connections; a SQLite file should not be used before the
    fork, because its locks belong to a process. ``None`` is the owner of objects that clients without a key store.
    Every method raises :exc:`StoreFailed` if the database fails.

    :param url: SQLAlchemy's: ``sqlite:///file``, ``sqlite://`` (this process's memory), ``postgresql+psycopg://…``.
    :param ttl: seconds from adding an object to its expiry.
    :param max_objects: objects of one owner, of all kinds; the oldest are deleted first.
    :param max_bytes: bytes of one owner's ids and bodies, including items; the oldest objects are deleted first.
    :param timeout: seconds that one operation may take, in total. After one that took longer, or could not reach the
        database, all fail at once for some seconds.
    :param clock: returns Unix time in seconds.
    :param monotonic: returns seconds that only increase, for the pause after a failure.
    :raises ValueError: the URL is not a valid one of these, or a package is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: float,
        max_objects: int,
        max_bytes: int,
        timeout: float = Settings.store_timeout,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = read_url(url)
        self._ttl = ttl
        self._max_objects = max_objects
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._clock = clock
        self._monotonic = monotonic
        # By process id. A child of a fork leaves the parent's entry alone: closing it would end the parent's sessions.
        self._databases: dict[int, Database] = {}

    def __repr__(self) -> str:
        return f"Store({self._url.set(query={}).render_as_string(hide_password=True)!r})"

    def close(self) -> None:
        """Close the connections of this process. A database in memory is lost."""
        database = self._databases.pop(os.getpid(), None)
        if database is not None:
            database.engine.dispose()

    def add(self, kind: str, owner: str | None, stored: StoredObject, items: Sequence[Item] = ()) -> None:
        """Store an object; the owner's oldest objects are deleted as the limits require.

        :raises TooLarge: the object alone is over *max_bytes*.
        :raises AlreadyStored: the owner has an object of this kind and id, or two items have the same id.
        :raises ValueError: an id is longer than :data:`MAX_ID`.
        """
        size = self._check_size(_size(stored, *items))
        with self._begin(write=True) as tx:
            usage, now, t = _lock_or_add_owner(tx, owner or ""), self._clock(), tables()
            row = {**vars(stored), "metadata": json.dumps(stored.metadata), "bytes": size, "expires": now + self._ttl}
            new: Any = tx.execute(t.objects.insert().values(owner=owner or "", kind=kind, **row))
            seq: int = new.inserted_primary_key[0]
            _insert_rows(tx, t.labels, seq, 0, ({"key": key, "value": value} for key, value in stored.metadata.items()))
            _insert_rows(tx, t.items, seq, 0, map(vars, items))
            usage.charge(1, size)
            usage.make_room(self._max_objects, self._max_bytes, spare=seq)
            _sweep(tx, now)

    def get(self, kind: str, owner: str | None, id: str, is_valid: IsValid = _any_body) -> StoredObject | None:
        """Return an object; None if there is no such object, or it has expired.

        :raises Damaged: a part of the object is not what was stored.
        """
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
        return None if row is None else _stored_object(row, is_valid)

    def page(
        self,
        kind: str,
        owner: str | None,
        *,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_valid: IsValid = _any_body,
    ) -> Page[StoredObject]:
        """Return a page of objects, in the order in which they were added, or the reverse, without damaged ones.

        :param after: id of the object before the page, which need not match *model* and *metadata*.
        :param metadata: pairs that each object must have.
        :raises UnknownCursor: there is no object with the id *after*.
        """
        o, labels = tables().objects, tables().labels
        visible = self._visible(kind, owner)
        query = o.select().where(*visible)
        if model is not None:
            query = query.where(o.c.model == model)
        for key, value in (metadata or {}).items():
            has_pair = (labels.c.object == o.c.seq, labels.c.key == key, labels.c.value == value)
            query = query.where(labels.select().where(*has_pair).exists())
        cursor = None if after is None else o.select().with_only_columns(o.c.seq).where(*visible, o.c.id == after)
        with self._begin() as tx:
            return _paged(tx, query, o.c.seq, cursor, limit, order, lambda row: _stored_object(row, is_valid))

    def set_metadata(
        self, kind: str, owner: str | None, id: str, metadata: Mapping[str, str], is_valid: IsValid = _any_body
    ) -> StoredObject | None:
        """Replace an object's metadata, and return the object; None if there is no such object.

        :raises Damaged: a part of the object is not what was stored.
        """
        o, labels, values = tables().objects, tables().labels, dict(metadata)
        with self._locked(kind, owner, id) as locked:
            if locked is None:
                return None
            usage, row = locked
            usage.tx.execute(o.update().where(o.c.seq == row.seq).values(metadata=json.dumps(values)))
            usage.tx.execute(labels.delete().where(labels.c.object == row.seq))
            _insert_rows(usage.tx, labels, row.seq, 0, ({"key": key, "value": value} for key, value in values.items()))
            return replace(_stored_object(row, is_valid), metadata=values)

    def delete(self, kind: str, owner: str | None, id: str) -> bool:
        """Delete an object with its items, and return whether there was such an object."""
        with self._locked(kind, owner, id) as locked:
            if locked is not None:
                usage, row = locked
                usage.drop([row])
            return locked is not None

    def items(
        self,
        kind: str,
        owner: str | None,
        id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
        is_valid: IsValid = _any_body,
    ) -> Page[Item] | None:
        """Return a page of an object's items, in their order or the reverse, without damaged ones.

        The result is None if there is no such object.

        :param after: id of the item before the page.
        :raises UnknownCursor: the object has no item with the id *after*.
        """
        items = tables().items
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
            if row is None:
                return None
            query = items.select().where(items.c.object == row.seq)
            cursor = None
            if after is not None:
                cursor = query.with_only_columns(items.c.position).where(items.c.id == after)
            return _paged(tx, query, items.c.position, cursor, limit, order, lambda row: _item(row, is_valid))

    def append(self, kind: str, owner: str | None, id: str, items: Sequence[Item]) -> bool:
        """Append items to an object, all or none, and return whether there is such an object.

        Concurrent calls do not interleave their items.

        :raises TooLarge: the object alone would be over *max_bytes*.
        :raises AlreadyStored: the object has an item with the same id.
        :raises ValueError: an id is longer than :data:`MAX_ID`.
        """
        added, table = _size(*items), tables().items
        with self._locked(kind, owner, id) as locked:
            if locked is None:
                return False
            usage, row = locked
            self._check_size(_size_of(row) + added)
            positions = table.select().with_only_columns(table.c.position).where(table.c.object == row.seq)
            last = usage.tx.scalar(positions.order_by(table.c.position.desc()).limit(1))
            _insert_rows(usage.tx, table, row.seq, 0 if last is None else last + 1, map(vars, items))
            self._resize(usage, row, added)
            usage.make_room(self._max_objects, self._max_bytes, spare=row.seq)
            return True

    def delete_item(self, kind: str, owner: str | None, id: str, item_id: str) -> bool:
        """Delete an item of an object, and return whether there was such an item."""
        table = tables().items
        with self._locked(kind, owner, id) as locked:
            if locked is None:
                return False
            usage, row = locked
            is_item = (table.c.object == row.seq, table.c.id == item_id)
            item: Any = usage.tx.execute(table.select().where(*is_item)).first()
            if item is not None:
                usage.tx.execute(table.delete().where(*is_item))
                self._resize(usage, row, -_size(Item(item.id, item.body)))
            return item is not None

    def _begin(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        database = self._databases.get(os.getpid())
        if database is None:  # setdefault: of two threads at this point, both use the same one
            database = self._databases.setdefault(os.getpid(), Database(self._url, self._timeout, self._monotonic))
        return database.begin(write)

    @contextmanager
    def _locked(self, kind: str, owner: str | None, id: str) -> Iterator[tuple[OwnerUsage, Any] | None]:
        """Run a write to an object, with its owner locked; None if there is no such object."""
        with self._begin(write=True) as tx:
            usage = _lock_owner(tx, owner or "")
            row = self._find(tx, kind, owner, id)
            yield None if usage is None or row is None else (usage, row)
            _sweep(tx, self._clock())

    def _visible(self, kind: str, owner: str | None) -> tuple[ColumnElement[bool], ...]:
        c = tables().objects.c
        return (c.owner == (owner or ""), c.kind == kind, c.expires > self._clock())

    def _find(self, tx: Connection, kind: str, owner: str | None, id: str) -> Any:
        o = tables().objects
        return tx.execute(o.select().where(*self._visible(kind, owner), o.c.id == id)).first()

    def _check_size(self, size: int) -> int:
        if size > self._max_bytes:
            raise TooLarge(f"an object must have at most {self._max_bytes} bytes, not {size}")
        return size

    def _resize(self, usage: OwnerUsage, row: Any, difference: int) -> None:
        o = tables().objects
        usage.tx.execute(o.update().where(o.c.seq == row.seq).values(bytes=_size_of(row) + difference))
        usage.charge(0, difference)
