"""Stored objects, each with a kind, an owner and a list of items.

Every statement for a client has the owner among its conditions, so that another owner's id is not found, and is built
with SQLAlchemy Core, never by joining strings. Every write is one transaction that first locks its owner's row: the
writes of an owner run one after another, so that none is lost, the counts are exact, and objects are numbered in the
order in which they become visible. Nothing is connected before the first use, and no connection is shared across a
fork.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openai_compat.storage.circuit import StoreFailed
from openai_compat.storage.database import AlreadyStored
from openai_compat.storage.items import Items
from openai_compat.storage.lists import ItemList, check_size
from openai_compat.storage.pages import paged, stored_object
from openai_compat.storage.runs import Runs, drop_run, held_run
from openai_compat.storage.schema import LINK, tables
from openai_compat.storage.types import (
    MAX_ID,
    Context,
    Damaged,
    IsValid,
    Item,
    Order,
    Page,
    Run,
    StoredObject,
    TooLarge,
    UnknownCursor,
    UnknownParent,
    any_body,
    size,
)
from openai_compat.storage.usage import OwnerUsage, lock_or_add_owner, sweep

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection

__all__ = [
    "MAX_ID",
    "AlreadyStored",
    "Context",
    "Damaged",
    "Item",
    "Order",
    "Page",
    "Run",
    "Store",
    "StoreFailed",
    "StoredObject",
    "TooLarge",
    "UnknownCursor",
    "UnknownParent",
]


class Store(Items, Runs):
    """Stored objects in SQLite or PostgreSQL, for any number of threads.

    After a fork both processes may use it, each with its own connections; a SQLite file should not be used before the
    fork, because its locks belong to a process. ``None`` is the owner of objects that clients without a key store.
    Every method raises :exc:`StoreFailed` if the database fails.

    :param url: SQLAlchemy's: ``sqlite:///file``, ``sqlite://`` (this process's memory), ``postgresql+psycopg://…``.
    :param ttl: seconds from the last use of an object to its expiry: adding it, appending to it, and adding an object
        that continues or extends it.
    :param max_objects: objects of one owner, of all kinds; the least recently used are deleted first.
    :param max_bytes: bytes of one owner's ids, bodies and events, with items that several objects share counted once,
        and 16 for each place of an item in a list; the least recently used objects are deleted first.
    :param timeout: seconds that one operation may take, in total. After one that took longer, or could not reach the
        database, all fail at once for some seconds.
    :param clock: returns Unix time in seconds.
    :param monotonic: returns seconds that only increase, for the pause after a failure.
    :raises ValueError: the URL is not a valid one of these, or a package is not installed.
    """

    def add(
        self,
        kind: str,
        owner: str | None,
        stored: StoredObject,
        items: Sequence[Item] = (),
        *,
        outputs: Sequence[Item] = (),
        parent: str | None = None,
        extend: tuple[str, str] | None = None,
        inherit: tuple[str, str] | None = None,
        end: int | None = None,
    ) -> None:
        """Store an object; the owner's least recently used objects are deleted as the limits require.

        :param items: of section 0, in their order, behind those of the parent or the extended object.
        :param outputs: items of section 1, which follow.
        :param parent: id of an object of the same kind, whose items come first. It may be deleted later. Its time to
            live is renewed, and that of all its ancestors.
        :param extend: kind and id of an object, whose items come first. *items* and *outputs* are appended to its list
            too. Its time to live is renewed.
        :param inherit: kind and id of an object, whose items come first, and to whose list nothing is appended now;
            :meth:`complete` may extend it later. Its time to live is renewed.
        :param end: :attr:`Context.end` of the items that were read of the object to extend or to inherit from: later
            ones do not come first. None: all do.
        :raises UnknownParent: there is no such object to continue, to extend or to inherit from.
        :raises TooLarge: one of the objects alone is over *max_bytes*.
        :raises AlreadyStored: the owner has an object of this kind and id, or two items of an object have the same id.
        :raises ValueError: an id is longer than :data:`MAX_ID`; or more than one of *parent*, *extend* and *inherit*
            is given.
        """
        begun = [place for place in ((kind, parent) if parent is not None else None, extend, inherit) if place]
        if len(begun) > 1:
            raise ValueError("an object has a parent, extends or inherits from another one: not both")
        own, new = size(stored), (*items, *outputs)
        check_size(own + size(*new) + LINK * len(new), self._max_bytes)
        with self._begin(write=True) as tx:
            usage = lock_or_add_owner(tx, owner or "")
            sources = [self._continued(usage, source, owner, id) for source, id in begun]
            others = sources if parent is None else []
            added = self._insert(usage, kind, stored, own, None if parent is None else sources[0].seq)
            for source in sources:
                added.inherit(source, end)
                self._renew(tx, source.seq)
            added.add(items, 0)
            added.add(outputs, 1)
            if extend is not None:
                added.share(others[0])
            self._save(added, *others)
            sweep(tx, self._clock())

    def _insert(self, usage: OwnerUsage, kind: str, stored: StoredObject, own: int, parent: int | None) -> ItemList:
        """Add an object with an empty list, and return the list.

        :param own: bytes of the object.
        """
        row = {**vars(stored), "metadata": json.dumps(stored.metadata), "owner": usage.owner, "kind": kind}
        numbers = {"bytes": own, "context": 0, "shared": 0, "parent": parent, "expires": self._clock() + self._ttl}
        inserted: Any = usage.tx.execute(tables().objects.insert().values(**row, **numbers))
        usage.charge(1, own)
        added = ItemList(usage, inserted.inserted_primary_key[0], bytes=own, context=0, shared=0)
        _label(usage.tx, added.seq, stored.metadata)
        return added

    def get(self, kind: str, owner: str | None, id: str, is_valid: IsValid = any_body) -> StoredObject | None:
        """Return an object; None if there is no such object, or it has expired.

        :raises Damaged: a part of the object is not what was stored.
        """
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
        return None if row is None else stored_object(row, is_valid)

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
        is_valid: IsValid = any_body,
        max_bytes: int = 2**62,
    ) -> Page[StoredObject]:
        """Return a page of objects, in the order in which they were added, or the reverse, without damaged ones.

        :param after: id of the object before the page, which need not match *model* and *metadata*.
        :param metadata: pairs that each object must have.
        :param max_bytes: of the page, which ends early where it would have more, and has one object at least.
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
            return paged(
                tx,
                query,
                o.c.seq,
                lambda row: stored_object(row, is_valid),
                limit=limit,
                order=order,
                after=cursor,
                size=o.c.bytes,
                max_bytes=max_bytes,
            )

    def set_metadata(
        self, kind: str, owner: str | None, id: str, metadata: Mapping[str, str], is_valid: IsValid = any_body
    ) -> StoredObject | None:
        """Replace an object's metadata, and return the object; None if there is no such object.

        :raises Damaged: a part of the object is not what was stored.
        """
        o, values = tables().objects, dict(metadata)
        with self._locked(kind, owner, id) as locked:
            if locked is None:
                return None
            usage, row = locked
            usage.tx.execute(o.update().where(o.c.seq == row.seq).values(metadata=json.dumps(values)))
            _label(usage.tx, row.seq, values)
            return replace(stored_object(row, is_valid), metadata=values)

    def complete(
        self,
        kind: str,
        owner: str | None,
        id: str,
        body: bytes,
        outputs: Sequence[Item] = (),
        *,
        extend: tuple[str, str] | None = None,
        end_run: bool = False,
        only_if_running: str | None = None,
    ) -> bool:
        """Replace the body of an object, and append items of section 1; return whether there is such an object.

        :param extend: kind and id of an object to whose list the items of this one are appended, without those that
            were inherited, or appended to it before. Its time to live is renewed.
        :param end_run: whether the object's run ends.
        :param only_if_running: who must have the run of the object; otherwise nothing happens, and the result is False.
        :raises UnknownParent: there is no such object to extend; nothing was written.
        :raises TooLarge: one of the objects alone would be over *max_bytes*. A run can end without items
            nevertheless.
        :raises AlreadyStored: two items of an object have the same id.
        :raises ValueError: an id is longer than :data:`MAX_ID`; or the object is to extend itself.
        """
        size(*outputs)
        if extend == (kind, id):
            raise ValueError("an object cannot extend itself")
        with self._locked(kind, owner, id) as locked:
            if locked is None or not _may_complete(locked[0].tx, locked[1].seq, only_if_running):
                return False
            usage, row = locked
            others = [] if extend is None else [self._continued(usage, extend[0], owner, extend[1])]
            written = ItemList.of(usage, row)
            written.add(outputs, 1)
            for other in others:
                written.share(other)
                self._renew(usage.tx, other.seq)
            written.grow(len(body) - (len(row.body) if isinstance(row.body, bytes) else 0))
            is_end = end_run and not outputs and not others
            self._save(written, *others, is_limited=not is_end, body=body)
            if end_run:
                drop_run(usage.tx, row.seq)
            return True

    def delete(self, kind: str, owner: str | None, id: str) -> bool:
        """Delete an object, with the items that no other object has, and return whether there was such an object."""
        with self._locked(kind, owner, id) as locked:
            if locked is not None:
                usage, row = locked
                usage.drop([row])
            return locked is not None

    def ping(self) -> None:
        """Check that the database can be written to, and write nothing.

        :raises StoreFailed: it cannot be reached, or is locked or read-only.
        """
        with self._begin(write=True) as tx:
            # a lock that waits for no other one of this kind, and that a read-only server does not give
            tx.execute(tables().version.select().with_for_update(read=True, key_share=True)).all()

    def _continued(self, usage: OwnerUsage, kind: str, owner: str | None, id: str) -> ItemList:
        """Return the list of an object that another one continues or extends.

        :raises UnknownParent: there is no such object.
        """
        row = self._find(usage.tx, kind, owner, id)
        if row is None:
            raise UnknownParent("no object has that id")
        return ItemList.of(usage, row)


def _label(tx: Connection, seq: int, metadata: Mapping[str, str]) -> None:
    """Replace the labels of an object."""
    labels = tables().labels
    tx.execute(labels.delete().where(labels.c.object == seq))
    rows = [
        {"object": seq, "position": i, "key": key, "value": value} for i, (key, value) in enumerate(metadata.items())
    ]
    if rows:
        tx.execute(labels.insert(), rows)


def _may_complete(tx: Connection, seq: int, holder: str | None) -> bool:
    return holder is None or held_run(tx, seq, holder) is not None
