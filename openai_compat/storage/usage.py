"""What belongs to an owner, during a write: counts, ancestors, and what is deleted to keep to the limits.

Every function here needs the lock on the owner's row, which a write takes first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai_compat.storage.database import insert_if_new
from openai_compat.storage.pages import MAX_NUMBER, number
from openai_compat.storage.schema import tables
from openai_compat.storage.types import Damaged, T

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection, Select

#: objects or ids of one statement: enough that expired objects do not accumulate, and below the 999 parameters of a
#: statement in SQLite before 3.32
BATCH = 500
#: bytes of the objects that one write deletes because they have expired, if they are more than two: with a list of
#: many links each, 500 objects would take longer than an operation may
SWEEP = 1 << 20
#: rounds of an eviction that delete no object too many
_EXACT = 8


@dataclass
class OwnerUsage:
    """The number and bytes of an owner's objects; *tx* holds the lock on the owner's row."""

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
        """Delete objects, and the items that no other object has. Their children become those of their parents.

        :param rows: the ``seq``, ``bytes`` and ``parent`` of each, :data:`BATCH` at most.
        """
        o, seqs = tables().objects, [row.seq for row in rows]
        items = _items_only_of(self.tx, seqs)
        _adopt_children(self.tx, rows)
        self.tx.execute(o.delete().where(o.c.seq.in_(seqs)))
        freed = drop_items(self.tx, items)
        self.charge(-len(rows), -freed - sum(number(row.bytes) for row in rows))

    def make_room(self, max_objects: int, max_bytes: int, spare: int, others: Sequence[int] = ()) -> None:
        """Delete the owner's least recently used objects until the counts are within the limits.

        :param spare: ``seq`` of an object that is not deleted; its ancestors, *others* and objects with a run are
            deleted last.
        """
        import sqlalchemy as sa

        o, runs = tables().objects, tables().runs
        columns = (o.c.seq, o.c.bytes, o.c.context, o.c.parent)
        used = o.select().with_only_columns(*columns).where(o.c.owner == self.owner, o.c.seq != spare)
        used = used.order_by(o.c.expires, o.c.seq)
        is_idle = o.c.seq.not_in(sa.select(runs.c.object))
        self._evict(used.where(o.c.seq.not_in(lineage(spare)), o.c.seq.not_in(others), is_idle), max_objects, max_bytes)
        self._evict(used, max_objects, max_bytes)

    def _evict(self, used: Select[Any], max_objects: int, max_bytes: int) -> None:
        # What an object frees is known once it is deleted, because others may have the same items. So no round deletes
        # more than what would do if they had not; but a store whose limit was lowered must not take a round an object.
        for round in itertools.count():
            objects, bytes = self.objects - max_objects, self.bytes - max_bytes
            if objects <= 0 and bytes <= 0:
                break
            rows = _first(self.tx.execute(used.limit(BATCH)), objects, bytes, 2 ** max(0, round - _EXACT))
            if not rows:
                break
            self.drop(rows)


def _first(rows: Iterable[Any], objects: int, bytes: int, least: int) -> list[Any]:
    """Return the first rows: *least* at least, so many *objects*, and such that they have the *bytes* at most."""
    first: list[Any] = []
    for row in rows:
        if len(first) >= max(objects, least) and bytes <= 0:
            break
        first.append(row)
        bytes -= number(row.bytes) + number(row.context)
    return first


def _items_only_of(tx: Connection, seqs: Sequence[int]) -> list[Any]:
    """Return ``seq`` and ``bytes`` of the items that are in the lists of these objects and in no other."""
    import sqlalchemy as sa

    o, items, links = tables().objects, tables().items, tables().links
    dropped = sa.select(o.c.seq).where(o.c.seq.in_(seqs)).cte("dropped")
    linked = sa.select(links.c.item).where(links.c.object.in_(sa.select(dropped.c.seq)))
    is_kept = sa.exists().where(links.c.item == items.c.seq, links.c.object.not_in(sa.select(dropped.c.seq)))
    query = sa.select(items.c.seq, items.c.bytes).where(items.c.seq.in_(linked), ~is_kept)
    return list(tx.execute(query))


def drop_items(tx: Connection, rows: Sequence[Any]) -> int:
    """Delete items that are in no list, and return their bytes.

    :param rows: the ``seq`` and ``bytes`` of each.
    """
    items = tables().items
    for some in batches([row.seq for row in rows]):
        tx.execute(items.delete().where(items.c.seq.in_(some)))
    return sum(number(row.bytes) for row in rows)


def _adopt_children(tx: Connection, rows: Sequence[Any]) -> None:
    """Make the children of objects those of the nearest ancestor that is not among the objects."""
    import sqlalchemy as sa

    o, parents = tables().objects, {row.seq: row.parent for row in rows}
    children = tx.execute(sa.select(o.c.seq, o.c.parent).where(o.c.parent.in_(parents))).all()
    moved = []
    for seq, parent in children:
        while parent in parents:
            above = parents[parent]
            parent = above if isinstance(above, int) and above < parent else None  # a damaged one may be its own
        moved.append({"child": seq, "new": parent})
    if moved:
        is_child = o.c.seq == sa.bindparam("child")
        tx.execute(o.update().where(is_child).values(parent=sa.bindparam("new")), moved)


def lineage(seq: int) -> Select[Any]:
    """Select the ``seq`` of an object and of all its ancestors."""
    import sqlalchemy as sa

    o = tables().objects
    above = o.alias()
    line = sa.select(o.c.seq, o.c.parent).where(o.c.seq == seq).cte("lineage", recursive=True)
    # UNION, which ends in a damaged circle too, unlike UNION ALL
    line = line.union(sa.select(above.c.seq, above.c.parent).where(above.c.seq == line.c.parent))
    return sa.select(line.c.seq)


def renew(tx: Connection, seq: int, now: float, ttl: float) -> None:
    """Renew the time to live of an object and all its ancestors."""
    o = tables().objects
    is_older = (o.c.expires > now, o.c.expires < now + ttl)
    tx.execute(o.update().where(o.c.seq.in_(lineage(seq)), *is_older).values(expires=now + ttl))


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return the values in parts that one statement can have as parameters."""
    return (values[i : i + BATCH] for i in range(0, len(values), BATCH))


# -- owners -----------------------------------------------------------------------------------


def _usage(tx: Connection, row: Any) -> OwnerUsage:
    """Return the counts of a row of ``owners``, which is locked.

    :raises Damaged: they are no numbers, or impossible ones.
    """
    if not all(isinstance(count, int) and abs(count) < MAX_NUMBER for count in (row.objects, row.bytes)):
        raise Damaged("The stored counts of an owner are damaged.")
    return OwnerUsage(tx, row.owner, row.objects, row.bytes)


def lock_owner(tx: Connection, owner: str) -> OwnerUsage | None:
    """Lock the owner's row; None for an owner without objects."""
    owners = tables().owners
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update()).first()
    return None if row is None else _usage(tx, row)


def lock_or_add_owner(tx: Connection, owner: str) -> OwnerUsage:
    """Lock the owner's row, which is added if there is none."""
    while (usage := lock_owner(tx, owner)) is None:  # another transaction may insert or delete it in between
        insert_if_new(tx, tables().owners, {"owner": owner, "objects": 0, "bytes": 0})
    return usage


def sweep(tx: Connection, now: float) -> None:
    """Delete a batch of expired objects of one owner."""
    o, owners = tables().objects, tables().owners
    expired = o.select().where(o.c.expires <= now).order_by(o.c.expires, o.c.seq)
    owner = expired.with_only_columns(o.c.owner).limit(1).scalar_subquery()
    # An owner that another transaction has locked is skipped: waiting with a lock of one's own may deadlock.
    row = tx.execute(owners.select().where(owners.c.owner == owner).with_for_update(skip_locked=True)).first()
    if row is not None:
        of_owner = expired.with_only_columns(o.c.seq, o.c.bytes, o.c.parent).where(o.c.owner == row.owner)
        with suppress(Damaged):  # of an owner who need not be the one that writes
            usage = _usage(tx, row)
            rows = tx.execute(of_owner.limit(BATCH)).all()  # none if another transaction has deleted them
            sums = itertools.accumulate(number(row.bytes) for row in rows)
            usage.drop([row for i, (row, bytes) in enumerate(zip(rows, sums, strict=True)) if i < 2 or bytes <= SWEEP])
