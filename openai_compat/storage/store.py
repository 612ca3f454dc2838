"""What is kept between requests: objects of a kind, each with an owner and a list of items.

The rule: every statement names the owner, so that a stranger's id is simply not found, and is built by
SQLAlchemy Core, never from pieces of text. A write is one transaction that first takes its owner's
row: the writers of an owner follow one another, so none loses what another wrote, the
counts are exact, and the sequence is the order in which objects became visible. Nothing is
connected before the first use, and nothing is shared across a fork.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from openai_compat.storage.database import AlreadyStored, Database, StoreFailed, encode, insert_if_new, read_url, tables

if TYPE_CHECKING:  # an extra: only `database` needs it, where a Store is made
    from sqlalchemy import ColumnElement, Connection, Select, Table

__all__ = [
    "BATCH",
    "MAX_ID",
    "AlreadyStored",
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
T = TypeVar("T")

#: expired objects that one write deletes at most, and oldest ones that are looked at together
BATCH = 500
#: bytes of an id; PostgreSQL has no index beyond about 2,700
MAX_ID = 512


class TooLarge(ValueError):
    """An object alone is more than an owner may keep."""


class UnknownCursor(LookupError):
    """``after`` names nothing that is there."""


@dataclass(frozen=True)
class StoredObject:
    """An object; *created* is Unix time in seconds, *body* one JSON text, of which nothing is known here."""

    id: str
    created: int
    model: str
    metadata: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Item:
    """A part of an object, as a message; *body* is one JSON text."""

    id: str
    body: bytes


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows in order, and whether others follow."""

    rows: list[T]
    has_more: bool


# -- owners, and pages of rows ----------------------------------------------------------------


@dataclass
class OwnerUsage:
    """An owner during a write: its row is held, so nobody else writes its things until the end."""

    tx: Connection
    owner: str
    objects: int
    bytes: int

    def charge(self, objects: int, bytes: int) -> None:
        self.objects += objects
        self.bytes += bytes
        owners = tables().owners
        mine = owners.c.owner == self.owner
        if self.objects:
            self.tx.execute(owners.update().where(mine).values(objects=self.objects, bytes=self.bytes))
        else:
            self.tx.execute(owners.delete().where(mine))

    def drop(self, rows: Sequence[Any]) -> None:
        """Delete objects (their ``seq`` and ``bytes``), with all that is theirs."""
        objects = tables().objects
        self.tx.execute(objects.delete().where(objects.c.seq.in_([row.seq for row in rows])))
        self.charge(-len(rows), -sum(row.bytes for row in rows))

    def make_room(self, max_objects: int, max_bytes: int, spare: int) -> None:
        """Delete the owner's oldest objects, but not *spare*, until the rest is within the limits."""
        o = tables().objects
        others = o.select().with_only_columns(o.c.seq, o.c.bytes).where(o.c.owner == self.owner, o.c.seq != spare)
        while self.objects > max_objects or self.bytes > max_bytes:
            many, much = self.objects - max_objects, self.bytes - max_bytes
            oldest: list[Any] = []
            for row in self.tx.execute(others.order_by(o.c.seq).limit(BATCH)):
                if len(oldest) >= many and much <= 0:
                    break
                oldest.append(row)
                much -= row.bytes
            if not oldest:
                break
            self.drop(oldest)


def _account(tx: Connection, owner: str) -> OwnerUsage | None:
    """None: the owner has nothing."""
    owners = tables().owners
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update()).first()
    return None if row is None else OwnerUsage(tx, *row)


def _new_account(tx: Connection, owner: str) -> OwnerUsage:
    while (account := _account(tx, owner)) is None:  # another may make it, or end it, in between
        insert_if_new(tx, tables().owners, {"owner": owner, "objects": 0, "bytes": 0})
    return account


def _sweep(tx: Connection, now: float) -> None:
    """Delete some of what has expired, of one owner."""
    o, owners = tables().objects, tables().owners
    expired = o.select().where(o.c.expires <= now).order_by(o.c.expires)
    owner = expired.with_only_columns(o.c.owner).limit(1).scalar_subquery()
    # One that is held by another is skipped: who holds an owner must not wait for a second one.
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update(skip_locked=True)).first()
    if row is not None:
        mine = expired.with_only_columns(o.c.seq, o.c.bytes).where(o.c.owner == row.owner)
        OwnerUsage(tx, *row).drop(tx.execute(mine.limit(BATCH)).all())


def _paged(
    tx: Connection, query: Select[Any], column: ColumnElement[int], after: Select[Any] | None, limit: int, order: Order
) -> tuple[list[Any], bool]:
    if after is not None:
        start = tx.scalar(after)
        if start is None:
            raise UnknownCursor("nothing here has that id")
        query = query.where(column > start if order == "asc" else column < start)
    limit = max(limit, 0)  # below it SQLite knows no limit
    rows = tx.execute(query.order_by(column.asc() if order == "asc" else column.desc()).limit(limit + 1)).all()
    return list(rows[:limit]), len(rows) > limit


def _put(tx: Connection, table: Table, seq: int, start: int, rows: Iterable[Mapping[str, Any]]) -> None:
    values = [{"object": seq, "position": position, **row} for position, row in enumerate(rows, start)]
    if values:
        tx.execute(table.insert(), values)


def _size(*parts: StoredObject | Item) -> int:
    ids = [len(encode(part.id)) for part in parts]
    if max(ids, default=0) > MAX_ID:
        raise ValueError(f"an id has at most {MAX_ID} bytes")
    return sum(ids) + sum(len(part.body) for part in parts)


def _kept(row: Any) -> StoredObject:
    return StoredObject(row.id, row.created, row.model, json.loads(row.metadata), row.body)


# -- the store --------------------------------------------------------------------------------


class Store:
    """Objects that are kept, in SQLite or PostgreSQL. Threads may share one.

    Both sides of a fork may go on with it, each with connections of its own; a SQLite file, whose locks are a
    process's, had better not be used before. ``None`` as an owner is nobody in particular. Every method
    raises :exc:`StoreFailed` when the database fails.

    :param url: SQLAlchemy's: ``sqlite:///file``, ``sqlite://`` (this process's memory), ``postgresql+psycopg://…``.
    :param ttl: seconds an object is kept after it was added.
    :param max_objects: objects of an owner, of all kinds; the oldest go first.
    :param max_bytes: bytes of an owner's ids and bodies, those of items too; the oldest objects go first.
    :param clock: Unix time in seconds.
    :raises ValueError: the URL is none of these, or what it needs is not installed.
    """

    def __init__(
        self, url: str, *, ttl: float, max_objects: int, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = read_url(url)
        self._ttl = ttl
        self._max_objects = max_objects
        self._max_bytes = max_bytes
        self._clock = clock
        # By process. After a fork those of the parent stay here untouched: to close them would end the parent's.
        self._databases: dict[int, Database] = {}

    def __repr__(self) -> str:
        return f"Store({self._url.set(query={}).render_as_string(hide_password=True)!r})"

    def close(self) -> None:
        """Close the connections of this process; what was in memory is gone."""
        database = self._databases.pop(os.getpid(), None)
        if database is not None:
            database.engine.dispose()

    def add(self, kind: str, owner: str | None, kept: StoredObject, items: Sequence[Item] = ()) -> None:
        """Keep an object; the owner's oldest give way.

        :raises TooLarge: it is more than an owner may keep.
        :raises AlreadyStored: its id is there, or two of its items have the same.
        :raises ValueError: an id is longer than 512 bytes.
        """
        size = self._fitting(_size(kept, *items))
        with self._begin(write=True) as tx:
            account, now, t = _new_account(tx, owner or ""), self._clock(), tables()
            row = {**vars(kept), "metadata": json.dumps(kept.metadata), "bytes": size, "expires": now + self._ttl}
            new: Any = tx.execute(t.objects.insert().values(owner=owner or "", kind=kind, **row))
            seq: int = new.inserted_primary_key[0]
            _put(tx, t.labels, seq, 0, ({"key": key, "value": value} for key, value in kept.metadata.items()))
            _put(tx, t.items, seq, 0, map(vars, items))
            account.charge(1, size)
            account.make_room(self._max_objects, self._max_bytes, spare=seq)
            _sweep(tx, now)

    def get(self, kind: str, owner: str | None, id: str) -> StoredObject | None:
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
        return None if row is None else _kept(row)

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
    ) -> Page[StoredObject]:
        """Some objects, in the order in which they were added.

        :param after: an object's id; what lies beyond it is wanted, whether it is of the *model* itself or not.
        :param metadata: pairs that an object must all have.
        :raises UnknownCursor: *after* is not there.
        """
        o, labels = tables().objects, tables().labels
        visible = self._visible(kind, owner)
        query = o.select().where(*visible)
        if model is not None:
            query = query.where(o.c.model == model)
        for key, value in (metadata or {}).items():
            same = (labels.c.object == o.c.seq, labels.c.key == key, labels.c.value == value)
            query = query.where(labels.select().where(*same).exists())
        cursor = None if after is None else o.select().with_only_columns(o.c.seq).where(*visible, o.c.id == after)
        with self._begin() as tx:
            rows, more = _paged(tx, query, o.c.seq, cursor, limit, order)
        return Page([_kept(row) for row in rows], more)

    def set_metadata(self, kind: str, owner: str | None, id: str, metadata: Mapping[str, str]) -> StoredObject | None:
        """Replace an object's metadata; the object as it is then, or None if there is none."""
        o, labels, values = tables().objects, tables().labels, dict(metadata)
        with self._changing(kind, owner, id) as found:
            if found is None:
                return None
            account, row = found
            account.tx.execute(o.update().where(o.c.seq == row.seq).values(metadata=json.dumps(values)))
            account.tx.execute(labels.delete().where(labels.c.object == row.seq))
            _put(account.tx, labels, row.seq, 0, ({"key": key, "value": value} for key, value in values.items()))
            return replace(_kept(row), metadata=values)

    def delete(self, kind: str, owner: str | None, id: str) -> bool:
        """Delete an object with its items; whether there was one."""
        with self._changing(kind, owner, id) as found:
            if found is not None:
                account, row = found
                account.drop([row])
            return found is not None

    def items(
        self, kind: str, owner: str | None, id: str, *, after: str | None = None, limit: int = 20, order: Order = "asc"
    ) -> Page[Item] | None:
        """Some items of an object, in their order; None if there is no such object.

        :raises UnknownCursor: *after* is no item of it.
        """
        items = tables().items
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
            if row is None:
                return None
            query = items.select().where(items.c.object == row.seq)
            cursor = query.with_only_columns(items.c.position).where(items.c.id == after)
            rows, more = _paged(tx, query, items.c.position, None if after is None else cursor, limit, order)
        return Page([Item(row.id, row.body) for row in rows], more)

    def append(self, kind: str, owner: str | None, id: str, items: Sequence[Item]) -> bool:
        """Put items at the end of an object, side by side, all or none; whether there is such an object.

        :raises TooLarge: the object would be more than an owner may keep.
        :raises AlreadyStored: the object has an item of that id.
        :raises ValueError: an id is longer than 512 bytes.
        """
        more, table = _size(*items), tables().items
        with self._changing(kind, owner, id) as found:
            if found is None:
                return False
            account, row = found
            self._fitting(row.bytes + more)
            positions = table.select().with_only_columns(table.c.position).where(table.c.object == row.seq)
            last = account.tx.scalar(positions.order_by(table.c.position.desc()).limit(1))
            _put(account.tx, table, row.seq, 0 if last is None else last + 1, map(vars, items))
            self._resize(account, row, more)
            account.make_room(self._max_objects, self._max_bytes, spare=row.seq)
            return True

    def delete_item(self, kind: str, owner: str | None, id: str, item_id: str) -> bool:
        """Delete an item of an object; whether there was one."""
        table = tables().items
        with self._changing(kind, owner, id) as found:
            if found is None:
                return False
            account, row = found
            this = (table.c.object == row.seq, table.c.id == item_id)
            item: Any = account.tx.execute(table.select().where(*this)).first()
            if item is not None:
                account.tx.execute(table.delete().where(*this))
                self._resize(account, row, -_size(Item(item.id, item.body)))
            return item is not None

    def _begin(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        database = self._databases.get(os.getpid())
        if database is None:  # of two threads that come here one's is taken; nothing is connected yet
            database = self._databases.setdefault(os.getpid(), Database(self._url))
        return database.begin(write)

    @contextmanager
    def _changing(self, kind: str, owner: str | None, id: str) -> Iterator[tuple[OwnerUsage, Any] | None]:
        """An object during a write, and its owner's account."""
        with self._begin(write=True) as tx:
            account = _account(tx, owner or "")
            row = self._find(tx, kind, owner, id)
            yield None if account is None or row is None else (account, row)
            _sweep(tx, self._clock())

    def _visible(self, kind: str, owner: str | None) -> tuple[ColumnElement[bool], ...]:
        c = tables().objects.c
        return (c.owner == (owner or ""), c.kind == kind, c.expires > self._clock())

    def _find(self, tx: Connection, kind: str, owner: str | None, id: str) -> Any:
        o = tables().objects
        return tx.execute(o.select().where(*self._visible(kind, owner), o.c.id == id)).first()

    def _fitting(self, size: int) -> int:
        if size > self._max_bytes:
            raise TooLarge(f"{size} bytes are more than the {self._max_bytes} that are kept for one owner")
        return size

    def _resize(self, account: OwnerUsage, row: Any, more: int) -> None:
        o = tables().objects
        account.tx.execute(o.update().where(o.c.seq == row.seq).values(bytes=row.bytes + more))
        account.charge(0, more)
