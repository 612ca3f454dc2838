"""The operations of the store that belong to runs: which process works on an object, and what it emitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openai_compat.storage.lists import ItemList
from openai_compat.storage.owned import OwnedObjects
from openai_compat.storage.pages import check_row
from openai_compat.storage.schema import tables
from openai_compat.storage.types import Run
from openai_compat.storage.usage import batches

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import Connection


class Runs(OwnedObjects):
    """The runs of objects. An object has one run at most, which ends with the object."""

    def begin_run(self, kind: str, owner: str | None, id: str, holder: str) -> None:
        """Begin a run, or take it over. Nothing happens if there is no such object: then :meth:`beat` says so.

        :param holder: who works, and reports by :meth:`beat`.
        """
        runs = tables().runs
        with self._locked(kind, owner, id) as locked:
            if locked is not None:
                usage, row = locked
                usage.tx.execute(runs.delete().where(runs.c.object == row.seq))
                values = {"object": row.seq, "holder": holder, "heartbeat": self._clock()}
                usage.tx.execute(runs.insert().values(values))

    def beat(
        self, kind: str, owner: str | None, id: str, holder: str, events: Sequence[tuple[int, int, bytes]] = ()
    ) -> bool:
        """Report that a run goes on, store its events, and return whether the holder still has it.

        It is gone if the object was deleted, or another took the run away or ended it. Events renew the object's time
        to live.

        :param events: number of the first and the last event, and the data of all of them.
        :raises TooLarge: the object alone would be over *max_bytes*.
        """
        runs, table = tables().runs, tables().events
        with self._locked(kind, owner, id) as locked:
            if locked is None or not held_run(locked[0].tx, locked[1].seq, holder):
                return False
            written = ItemList.of(*locked)
            tx, seq = written.usage.tx, written.seq
            tx.execute(runs.update().where(runs.c.object == seq).values(heartbeat=self._clock()))
            if events:
                rows = [{"object": seq, "first": first, "last": last, "data": data} for first, last, data in events]
                tx.execute(table.insert(), rows)
                written.grow(sum(len(data) for _, _, data in events))
                self._save(written, expires=self._clock() + self._ttl)
            return True

    def beat_all(self, kind: str, holder: str, ids: Sequence[str]) -> set[str]:
        """Report in one operation that runs of any owner go on; return the ids of those that *holder* still has.

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
                # One that a transaction has locked is reported or deleted by it: waiting for it may deadlock.
                free = (
                    runs.select()
                    .with_only_columns(runs.c.object)
                    .where(runs.c.object.in_([row.object for row in rows]), runs.c.holder == holder)
                )
                seqs = tx.scalars(free.with_for_update(skip_locked=True)).all()
                tx.execute(runs.update().where(runs.c.object.in_(seqs)).values(heartbeat=self._clock()))
        return found

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

    def events(
        self, kind: str, owner: str | None, id: str, after: int, limit: int = 100
    ) -> list[tuple[int, int, bytes]]:
        """Return batches of an object's events, in their order.

        :param after: the number that the last event of each batch exceeds.
        :param limit: of batches.
        :raises Damaged: one of them is not what was stored.
        """
        o, events = tables().objects, tables().events
        query = events.select().join(o, o.c.seq == events.c.object).where(*self._visible(kind, owner), o.c.id == id)
        with self._begin() as tx:
            rows = tx.execute(query.where(events.c.last > after).order_by(events.c.last).limit(limit)).all()
        for row in rows:
            sound = {
                "first": isinstance(row.first, int),
                "last": isinstance(row.last, int),
                "data": isinstance(row.data, bytes),
            }
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
