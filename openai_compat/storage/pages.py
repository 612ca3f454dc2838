"""Rows as they are read: one by one, in pages and in whole lists, with or without those that are damaged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from openai_compat.log import log
from openai_compat.storage.types import Damaged, IsValid, Item, Order, Page, StoredObject, T, UnknownCursor

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select


#: bytes that no owner has; the database can store the sum of 200,000 such numbers
MAX_NUMBER = 1 << 45


def paged(
    tx: Connection,
    query: Select[Any],
    column: ColumnElement[int],
    read: Callable[[Any], T],
    *,
    limit: int,
    order: Order,
    after: Select[Any] | None = None,
    before: Select[Any] | None = None,
    size: ColumnElement[int],
    max_bytes: int,
) -> Page[T]:
    """Return a page of rows. Damaged ones are logged and left out; the next ones fill the page.

    :param after: selects the position of the row before the page.
    :param before: selects the position of the row that ends the page; without *after* the page has the last rows
        before that one, and *has_more* says whether others stand before them.
    :param size: the bytes of a row.
    :param max_bytes: of the page, which ends early where it would have more, and has one row at least; none is read
        that would have to be thrown away.
    :param read: reads a row, and raises :exc:`Damaged`.
    """
    start, end = _position(tx, after, "after"), _position(tx, before, "before")
    is_backward = start is None and end is not None
    if is_backward:
        order, start, end = "desc" if order == "asc" else "asc", end, None
    if end is not None:
        query = query.where(column < end if order == "asc" else column > end)
    query = query.order_by(column.asc() if order == "asc" else column.desc())
    limit = max(limit, 0)  # to SQLite a negative limit means none
    found: list[T] = []
    is_cut = False
    while not is_cut and len(found) <= limit:
        missing = limit + 1 - len(found)
        following = query if start is None else query.where(column > start if order == "asc" else column < start)
        sizes = tx.execute(following.with_only_columns(size, maintain_column_froms=True).limit(missing)).all()
        fitting = _fitting([number(value) for (value,) in sizes], max_bytes, least=0 if found else 1)
        is_cut, max_bytes = len(fitting) < len(sizes), max_bytes - sum(fitting)
        rows = tx.execute(following.limit(len(fitting))).all()
        found += _sound(rows, read)
        if len(rows) < missing:
            break
        start = rows[-1]._mapping[column]
    page = found[:limit]
    return Page(page[::-1] if is_backward else page, is_cut or len(found) > limit)


def _fitting(sizes: list[int], max_bytes: int, *, least: int) -> list[int]:
    """Return the first sizes that are within the limit together, *least* at least."""
    sums = itertools.accumulate(sizes)
    return [size for i, (size, sum) in enumerate(zip(sizes, sums, strict=True)) if i < least or sum <= max_bytes]


def _position(tx: Connection, cursor: Select[Any] | None, name: str) -> int | None:
    if cursor is None:
        return None
    position: int | None = tx.scalar(cursor)
    if position is None:
        raise UnknownCursor(name)
    return position


def _sound(rows: Any, read: Callable[[Any], T]) -> list[T]:
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except Damaged as error:
            log.error("%s It is left out of a list.", error)
    return found


def stored_object(row: Any, is_valid: IsValid) -> StoredObject:
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
    check_row(f"object {row.seq}", sound)
    return StoredObject(row.id, row.created, row.model, metadata or {}, row.body)


def item(row: Any, is_valid: IsValid) -> Item:
    """Return the item of a row, of a list or of ``items``.

    :raises Damaged: a value is not what was stored, or the list has no item at that position.
    """
    sound = {"id": isinstance(row.id, str), "body": isinstance(row.body, bytes) and is_valid(row.body)}
    check_row(f"item {row.position} of object {row.object}" if hasattr(row, "position") else f"item {row.seq}", sound)
    return Item(row.id, row.body)


def check_row(name: str, sound: Mapping[str, bool]) -> None:
    """Check a row.

    :param sound: column → whether its value is what was stored.
    :raises Damaged: not all are.
    """
    damaged = [column for column, is_sound in sound.items() if not is_sound]
    if damaged:
        raise Damaged(f"The stored {name} is damaged: {', '.join(damaged)}.")


def number(value: Any) -> int:
    """Return a stored number of bytes; 0 for a damaged one, so that the object can be deleted."""
    return value if isinstance(value, int) and 0 <= value < MAX_NUMBER else 0
