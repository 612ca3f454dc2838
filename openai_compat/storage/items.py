"""The operations of the store that read and change the items of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openai_compat.storage import pages
from openai_compat.storage.lists import ItemList, linked
from openai_compat.storage.owned import OwnedObjects
from openai_compat.storage.schema import tables
from openai_compat.storage.types import Context, IsValid, Item, Order, Page, TooLarge, any_body, size
from openai_compat.storage.usage import batches

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection, Select


class Items(OwnedObjects):
    """The items of objects."""

    def items(
        self,
        kind: str,
        owner: str | None,
        id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
        is_valid: IsValid = any_body,
        section: int | None = None,
        before: str | None = None,
        max_bytes: int = 2**62,
    ) -> Page[Item] | None:
        """Return a page of an object's items, in their order or the reverse, without damaged ones.

        The result is None if there is no such object.

        :param after: id of the item before the page.
        :param before: id of the item behind the page. Without *after* the page has the last items before that one.
        :param max_bytes: of the page, which ends early where it would have more, and has one item at least.
        :param section: 0 for the input with its context only, 1 for the output only.
        :raises UnknownCursor: the object has no item with the id *after* or *before*.
        """
        links, items = tables().links, tables().items
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
            if row is None:
                return None
            whole = linked().where(links.c.object == row.seq)
            query = whole if section is None else whole.where(links.c.section == section)

            def position(item_id: str | None) -> Select[Any] | None:
                one = whole.with_only_columns(links.c.position, maintain_column_froms=True)
                return None if item_id is None else one.where(items.c.id == item_id)

            return pages.paged(
                tx,
                query,
                links.c.position,
                lambda row: pages.item(row, is_valid),
                limit=limit,
                order=order,
                after=position(after),
                before=position(before),
                size=items.c.bytes,
                max_bytes=max_bytes,
            )

    def context(
        self,
        kind: str,
        owner: str | None,
        id: str,
        *,
        limit: int,
        max_bytes: int = 2**62,
        is_valid: IsValid = any_body,
    ) -> Context | None:
        """Return all items of an object, in their order; None if there is no such object.

        :raises TooLarge: they are more than *limit*, or have more than *max_bytes* together; they are not read then.
        :raises Damaged: one of them is not what was stored.
        """
        query = linked().limit(limit + 1)
        with self._begin() as tx:
            row = self._find(tx, kind, owner, id)
            if row is not None and pages.number(row.context) > max_bytes:
                raise TooLarge(f"the items have more than {max_bytes} bytes")
            rows = self._whole(tx, query, kind, owner, id)
        if rows is not None and len(rows) > limit:
            raise TooLarge(f"the list has more than {limit} items")
        if rows is None:
            return None
        return Context([pages.item(row, is_valid) for row in rows], rows[-1].position + 1 if rows else 0)

    def outputs(self, kind: str, owner: str | None, id: str, *, is_valid: IsValid = any_body) -> list[Item] | None:
        """Return the items of an object's output, in their order; None if there is no such object.

        :raises Damaged: one of them is not what was stored.
        """
        query = linked().where(tables().links.c.section == 1)
        with self._begin() as tx:
            rows = self._whole(tx, query, kind, owner, id)
        return None if rows is None else [pages.item(row, is_valid) for row in rows]

    def item(self, kind: str, owner: str | None, id: str, item_id: str, *, is_valid: IsValid = any_body) -> Item | None:
        """Return an item of an object; None if there is no such object or item.

        :raises Damaged: the item is not what was stored.
        """
        query = linked().where(tables().items.c.id == item_id)
        with self._begin() as tx:
            rows = self._whole(tx, query, kind, owner, id)
        return pages.item(rows[0], is_valid) if rows else None

    def find_items(self, owner: str | None, ids: Sequence[str], *, is_valid: IsValid = any_body) -> dict[str, Item]:
        """Return an owner's items with these ids, of objects of any kind: the newest item of each id.

        :raises Damaged: one of them is not what was stored.
        """
        import sqlalchemy as sa

        o, items, links = tables().objects, tables().items, tables().links
        is_linked = (links.c.item == items.c.seq, links.c.object == o.c.seq, o.c.expires > self._clock())
        newest = sa.select(sa.func.max(items.c.seq)).where(
            items.c.owner == (owner or ""), sa.exists().where(*is_linked)
        )
        found: list[Any] = []
        with self._begin() as tx:
            for some in batches(list(dict.fromkeys(ids))):
                seqs = newest.where(items.c.id.in_(some)).group_by(items.c.id)
                found += tx.execute(items.select().where(items.c.seq.in_(seqs))).all()
        return {row.id: pages.item(row, is_valid) for row in found}

    def sizes_of_items(self, owner: str | None, ids: Sequence[str]) -> dict[str, int]:
        """Return the bytes of an owner's items with these ids, which need not be in a list: the largest of each id."""
        import sqlalchemy as sa

        items = tables().items
        query = sa.select(items.c.id, sa.func.max(items.c.bytes)).where(items.c.owner == (owner or ""))
        found: dict[str, int] = {}
        with self._begin() as tx:
            for some in batches(list(dict.fromkeys(ids))):
                found |= {
                    id: pages.number(size)
                    for id, size in tx.execute(query.where(items.c.id.in_(some)).group_by(items.c.id))
                }
        return found

    def append(self, kind: str, owner: str | None, id: str, items: Sequence[Item]) -> bool:
        """Append items to an object, all or none, and return whether there is such an object.

        Its time to live is renewed. Concurrent calls do not interleave their items.

        :raises TooLarge: the object alone would be over *max_bytes*.
        :raises AlreadyStored: the object has an item with the same id.
        :raises ValueError: an id is longer than :data:`MAX_ID`.
        """
        size(*items)
        with self._locked(kind, owner, id) as locked:
            if locked is not None:
                written = ItemList.of(*locked)
                written.add(items, 0)
                self._renew(written.usage.tx, written.seq)
                self._save(written)
            return locked is not None

    def delete_item(self, kind: str, owner: str | None, id: str, item_id: str) -> bool:
        """Delete an item from an object's list, and return whether there was such an item."""
        with self._locked(kind, owner, id) as locked:
            if locked is None:
                return False
            written = ItemList.of(*locked)
            is_deleted = written.remove(item_id)
            written.save(self._max_bytes)
            return is_deleted

    def _whole(self, tx: Connection, query: Select[Any], kind: str, owner: str | None, id: str) -> Any:
        """Return the rows of an object's list; None if there is no such object."""
        o, links = tables().objects, tables().links
        of_object = query.join(o, o.c.seq == links.c.object).where(*self._visible(kind, owner), o.c.id == id)
        # One statement: an object that is deleted between two has no empty list.
        rows = tx.execute(of_object.order_by(links.c.position)).all()
        return rows if rows or self._find(tx, kind, owner, id) is not None else None
