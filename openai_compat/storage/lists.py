"""The list of items of an object, during a write, and the statements that read lists.

An item is stored once. A list has links to items, in the order of their positions, each with a section: 0 for what was
there before an answer, 1 for the answer. Positions are not reused before the end of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai_compat.storage.database import AlreadyStored
from openai_compat.storage.pages import number
from openai_compat.storage.schema import LINK, tables
from openai_compat.storage.types import Item, TooLarge, size
from openai_compat.storage.usage import OwnerUsage, batches, drop_items

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection, Select


@dataclass
class ItemList:
    """The list of an object whose owner is locked. Changes of its numbers are stored by :meth:`save`."""

    usage: OwnerUsage
    #: of the object
    seq: int
    #: of the object alone, its links and its events
    bytes: int
    #: bytes of the items in the list
    context: int
    #: links at lower positions are inherited, or are in the extended object's list too
    shared: int
    #: bytes that are not yet charged to the owner
    charged: int = 0

    @classmethod
    def of(cls, usage: OwnerUsage, row: Any) -> ItemList:
        """Return the list of an object.

        :param row: of ``objects``.
        """
        return cls(usage, row.seq, number(row.bytes), number(row.context), number(row.shared))

    def inherit(self, source: ItemList, end: int | None = None) -> None:
        """Begin the list, which is empty, with the links of another one.

        :param end: the position before which they stand; None: all of them.
        """
        import sqlalchemy as sa

        links = tables().links
        is_inherited = [links.c.object == source.seq, *([] if end is None else [links.c.position < end])]
        count, last = self.usage.tx.execute(
            sa.select(sa.func.count(), sa.func.max(links.c.position)).where(*is_inherited)
        ).one()
        values = sa.select(sa.literal(self.seq), links.c.position, links.c.item, sa.literal(0))
        names = ["object", "position", "item", "section"]
        self.usage.tx.execute(links.insert().from_select(names, values.where(*is_inherited)))
        self._count_links(count, source.context - (0 if end is None else source._bytes_from(end)))
        self.shared = 0 if last is None else last + 1

    def add(self, items: Sequence[Item], section: int) -> None:
        """Store items, and append links to them.

        :raises AlreadyStored: two items have the same id.
        """
        self._check_new([item.id for item in items])
        owner, table = self.usage.owner, tables().items
        rows = [{**vars(item), "owner": owner, "bytes": size(item)} for item in items]
        if rows:
            self.usage.tx.execute(table.insert(), rows)
        bytes = sum(row["bytes"] for row in rows)
        self._link(_newest(self.usage.tx, owner, [item.id for item in items]), bytes, section)
        self.charged += bytes

    def share(self, target: ItemList) -> None:
        """Append links to the items of this list to another list, without those that were shared or inherited.

        :raises AlreadyStored: the other list has an item with the same id.
        """
        links, table = tables().links, tables().items
        own = table.select().with_only_columns(table.c.seq, table.c.id, table.c.bytes, links.c.position)
        own = own.join(links, links.c.item == table.c.seq).where(links.c.object == self.seq)
        rows = self.usage.tx.execute(own.where(links.c.position >= self.shared).order_by(links.c.position)).all()
        target._check_new([row.id for row in rows if isinstance(row.id, str)])  # a damaged one is like no other
        target._link([row.seq for row in rows], sum(number(row.bytes) for row in rows), 0)
        if rows:
            self.shared = rows[-1].position + 1

    def remove(self, item_id: str) -> bool:
        """Delete a link, and its item unless another list has it; return whether there was one."""
        import sqlalchemy as sa

        tx, links, items = self.usage.tx, tables().links, tables().items
        places = sa.select(items.c.seq, items.c.bytes, links.c.position).join(links, links.c.item == items.c.seq)
        row = tx.execute(places.where(links.c.object == self.seq, items.c.id == item_id)).first()
        if row is None:
            return False
        tx.execute(links.delete().where(links.c.object == self.seq, links.c.position == row.position))
        if tx.scalar(links.select().where(links.c.item == row.seq).limit(1)) is None:
            self.charged -= drop_items(tx, [row])
        self._count_links(-1, -number(row.bytes))
        return True

    def grow(self, bytes: int) -> None:
        """Count bytes of the object itself, or of its events; they may be negative."""
        self.bytes += bytes
        self.charged += bytes

    def save(self, max_bytes: int, **values: Any) -> None:
        """Store the numbers, and charge the owner.

        :param values: of other columns of the object.
        :raises TooLarge: the object with its items is over *max_bytes*, and is so by this change.
        """
        if self.charged > 0:
            check_size(self.bytes + self.context, max_bytes)
        o = tables().objects
        values |= {"bytes": self.bytes, "context": self.context, "shared": self.shared}
        self.usage.tx.execute(o.update().where(o.c.seq == self.seq).values(values))
        self.usage.charge(0, self.charged)
        self.charged = 0

    def _bytes_from(self, position: int) -> int:
        """Return the bytes of the items at a position and behind it."""
        links, items = tables().links, tables().items
        later = items.select().with_only_columns(items.c.bytes).join(links, links.c.item == items.c.seq)
        rows = self.usage.tx.execute(later.where(links.c.object == self.seq, links.c.position >= position))
        return sum(number(row.bytes) for row in rows)

    def _check_new(self, ids: Sequence[str]) -> None:
        """Check that the list has no items with these ids, which are new ones of it."""
        import sqlalchemy as sa

        links, items = tables().links, tables().items
        is_linked = sa.exists().where(links.c.item == items.c.seq, links.c.object == self.seq)
        same = sa.select(items.c.seq).where(items.c.owner == self.usage.owner, is_linked).limit(1)
        found = (self.usage.tx.scalar(same.where(items.c.id.in_(some))) for some in batches(ids))
        if len(set(ids)) < len(ids) or any(seq is not None for seq in found):
            raise AlreadyStored("the id is already stored")

    def _link(self, items: Sequence[int], bytes: int, section: int) -> None:
        links = tables().links
        if not items:
            return
        positions = links.select().with_only_columns(links.c.position).where(links.c.object == self.seq)
        last = self.usage.tx.scalar(positions.order_by(links.c.position.desc()).limit(1))
        start = max(0 if last is None else last + 1, self.shared)
        values = {"object": self.seq, "section": section}
        rows = [{**values, "position": position, "item": item} for position, item in enumerate(items, start)]
        self.usage.tx.execute(links.insert(), rows)
        self._count_links(len(items), bytes)

    def _count_links(self, links: int, bytes: int) -> None:
        self.grow(LINK * links)
        self.context += bytes


def _newest(tx: Connection, owner: str, ids: Sequence[str]) -> list[int]:
    """Return the ``seq`` of the owner's newest item with each id."""
    import sqlalchemy as sa

    items = tables().items
    found: dict[str, int] = {}
    newest = sa.select(items.c.id, sa.func.max(items.c.seq)).where(items.c.owner == owner).group_by(items.c.id)
    for some in batches(ids):
        for id, seq in tx.execute(newest.where(items.c.id.in_(some))):
            found[id] = seq
    return [found[id] for id in ids]


def check_size(bytes: int, max_bytes: int) -> None:
    """Check the bytes of an object with its items.

    :raises TooLarge: they are more than *max_bytes*.
    """
    if bytes > max_bytes:
        raise TooLarge(f"an object must have at most {max_bytes} bytes, not {bytes}")


def linked() -> Select[Any]:
    """Select the items in lists, with ``object``, ``position`` and ``section`` of their links."""
    import sqlalchemy as sa

    links, items = tables().links, tables().items
    columns = (links.c.object, links.c.position, links.c.section, items.c.id, items.c.body)
    # outer: a link whose item is lost is damage, and no shorter list
    return sa.select(*columns).select_from(links.outerjoin(items, items.c.seq == links.c.item))
