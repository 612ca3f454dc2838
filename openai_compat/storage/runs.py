"""The operations of the store that belong to runs: which process works on an object, and what it emitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from openai_compat.storage.lists import ItemList
from openai_compat.storage.owned import OwnedObjects
from openai_compat.storage.pages import check_row
from openai_compat.storage.schema import tables
from openai_compat.storage.types import Run
from openai_compat.storage.usage import batches

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection, Select

#: number of the first and the last event, and the data of all of them
Batch = tuple[int, int, bytes]


class Runs(OwnedObjects):
    """The runs of objects. An object has one run at most, which ends with the object."""

    def begin_run(self, kind: str, owner: str | None, id: str, holder: str, events: Sequence[Batch] = ()) -> None:
        """Begin a run, or take it over. Nothing happens if there is no such object: then :meth:`beat` says so.

        :param holder: who works, and reports by :meth:`beat`.
        :param events: the first ones, as those of :meth:`beat`.
        :raises TooLarge: the object alone would be over *max_bytes*.
        """
        runs = tables().runs
        with self._locked(kind, owner, id) as locked:
            if locked is not None:
                usage, row = locked
                usage.tx.execute(runs.delete().where(runs.c.object == row.seq))
                values = {"object": row.seq, "holder": holder, "heartbeat": self._clock()}
                usage.tx.execute(runs.insert().values(values))
                self._add_events(ItemList.of(usage, row), events)

    def beat(self, kind: str, owner: str | None, id: str, holder: str, events: Sequence[Batch] = ()) -> bool:
        """Report that a run goes on, store its events, and return whether the holder still has it.

        It is gone if the object was deleted, or another took the run away or ended it. Events renew the object's time
        to live.

        :param events: number of the first and the last event, and the data of all of them.
        :raises TooLarge: the object alone would be over *max_bytes*.
        """
        runs = tables().runs
        with self._locked(kind, owner, id) as locked:
            if locked is None or not held_run(locked[0].tx, locked[1].seq, holder):
                return False
            written = ItemList.of(*locked)
            tx, seq = written.usage.tx, written.seq
            tx.execute(runs.update().where(runs.c.object == seq).values(heartbeat=self._clock()))
            self._add_events(written, events)
            return True

    def _add_events(self, written: ItemList, events: Sequence[Batch]) -> None:
        """Store events of an object, and renew its time to live."""
        if not events:
            return
        rows = [{"object": written.seq, "first": first, "last": last, "data": data} for first, last, data in events]
        written.usage.tx.execute(tables().events.insert(), rows)
        written.grow(sum(len(data) for _, _, data in events))
        self._save(written, expires=self._clock() + self._ttl)

    def beat_all(self, kind: str, holder: str, ids: Sequence[str]) -> set[str]:
        """Report in one operation that runs of any owner go on; return the ids of those that *holder* still has.

        The time to live of their objects is renewed.

        :param ids: of the objects.
        """
        o, runs = tables().objects, tables().runs
        found: set[str] = set()
        with self._begin(write=True) as tx:
            for some in batches(ids):
                held = runs.select().with_only_columns(runs.c.object, o.c.id)
                held = held.join(o, o.c.seq == runs.c.object).where(o.c.kind == kind, o.c.id.in_(some))
                rows = tx.execute(held.where(runs.c.holder == holder, o.c.expires > self._clock())).all()
                found |= {row.id for row in rows}
                self._renew_runs(tx, [row.object for row in rows], holder)
        return found

    def _renew_runs(self, tx: Connection, seqs: Sequence[int], holder: str) -> None:
        """Renew runs and the time to live of their objects.

        What a transaction has locked is renewed or deleted by it: waiting for it may deadlock.
        """
        import sqlalchemy as sa

        o, runs, now = tables().objects, tables().runs, self._clock()
        held = sa.select(runs.c.object).where(runs.c.object.in_(seqs), runs.c.holder == holder)
        free = tx.scalars(held.with_for_update(skip_locked=True)).all()
        tx.execute(runs.update().where(runs.c.object.in_(free)).values(heartbeat=now))
        # only at half time: whoever locks an object waits for those that are renewed here
        due = sa.select(o.c.seq).where(o.c.seq.in_(free), o.c.expires < now + self._ttl / 2)
        due_seqs = tx.scalars(due.with_for_update(skip_locked=True)).all()
        if due_seqs:
            tx.execute(o.update().where(o.c.seq.in_(due_seqs)).values(expires=now + self._ttl))

    def run(self, kind: str, owner: str | None, id: str) -> Run | None:
        """Return the run of an object; None if there is none.

        :raises Damaged: it is not what was stored.
        """
        o, runs = tables().objects, tables().runs
        query = runs.select().join(o, o.c.seq == runs.c.object).where(*self._visible(kind, owner), o.c.id == id)
        with self._begin() as tx:
            row = tx.execute(query).first()
        if row is None:
            return None
        sound = {"holder": isinstance(row.holder, str), "heartbeat": isinstance(row.heartbeat, float)}
        check_row(f"run of object {row.object}", sound)
        return Run(row.holder, self._clock() - row.heartbeat)

    def events(self, kind: str, owner: str | None, id: str, after: int, limit: int = 100) -> list[Batch]:
        """Return batches of an object's events, in their order.

        :param after: the number that the last event of each batch exceeds.
        :param limit: of batches.
        :raises Damaged: one of them is not what was stored.
        """
        last = tables().events.c.last
        return self._batches(kind, owner, id, lambda query: query.where(last > after).order_by(last).limit(limit))

    def last_events(self, kind: str, owner: str | None, id: str) -> Batch | None:
        """Return the last batch of an object's events; None if there is none.

        :raises Damaged: it is not what was stored.
        """
        last = tables().events.c.last
        found = self._batches(kind, owner, id, lambda query: query.order_by(last.desc()).limit(1))
        return found[0] if found else None

    def _batches(
        self, kind: str, owner: str | None, id: str, narrowed: Callable[[Select[Any]], Select[Any]]
    ) -> list[Batch]:
        o, events = tables().objects, tables().events
        query = events.select().join(o, o.c.seq == events.c.object).where(*self._visible(kind, owner), o.c.id == id)
        with self._begin() as tx:
            rows = tx.execute(narrowed(query)).all()
        for row in rows:
            numbers = {name: isinstance(getattr(row, name), int) for name in ("first", "last")}
            sound = {**numbers, "data": isinstance(row.data, bytes)}
            check_row(f"batch {row.last} of the events of object {row.object}", sound)
        return [(row.first, row.last, row.data) for row in rows]


def held_run(tx: Connection, seq: int, holder: str) -> Any:
    """Return the row of an object's run; None unless *holder* has it."""
    runs = tables().runs
    return tx.execute(runs.select().where(runs.c.object == seq, runs.c.holder == holder)).first()


def drop_run(tx: Connection, seq: int) -> None:
    """Delete the run of an object."""
    runs = tables().runs
    tx.execute(runs.delete().where(runs.c.object == seq))
