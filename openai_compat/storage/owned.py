"""The objects of an owner, as every operation finds them: visible ones, in a transaction, locked for a write."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from openai_compat.settings import Settings
from openai_compat.storage.database import Database, read_url
from openai_compat.storage.lists import ItemList
from openai_compat.storage.schema import tables
from openai_compat.storage.usage import OwnerUsage, lock_owner, renew, sweep

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from sqlalchemy import ColumnElement, Connection


class OwnedObjects:
    """The connections and limits of a store, for its operations.

    The parameters are those of :class:`openai_compat.storage.store.Store`.
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

    def _begin(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        database = self._databases.get(os.getpid())
        if database is None:  # setdefault: of two threads at this point, both use the same one
            database = self._databases.setdefault(os.getpid(), Database(self._url, self._timeout, self._monotonic))
        return database.begin(write)

    @contextmanager
    def _locked(self, kind: str, owner: str | None, id: str) -> Iterator[tuple[OwnerUsage, Any] | None]:
        """Run a write to an object, with its owner locked; None if there is no such object."""
        with self._begin(write=True) as tx:
            usage = lock_owner(tx, owner or "")
            row = self._find(tx, kind, owner, id)
            yield None if usage is None or row is None else (usage, row)
            sweep(tx, self._clock())

    def _visible(self, kind: str, owner: str | None) -> tuple[ColumnElement[bool], ...]:
        c = tables().objects.c
        return (c.owner == (owner or ""), c.kind == kind, c.expires > self._clock())

    def _find(self, tx: Connection, kind: str, owner: str | None, id: str) -> Any:
        o = tables().objects
        return tx.execute(o.select().where(*self._visible(kind, owner), o.c.id == id)).first()

    def _renew(self, tx: Connection, *seqs: int) -> None:
        for seq in seqs:
            renew(tx, seq, self._clock(), self._ttl)

    def _save(self, written: ItemList, *others: ItemList, is_limited: bool = True, **values: Any) -> None:
        """Store the numbers of lists that were changed, and delete objects as the limits require.

        :param others: those of objects that are deleted last.
        :param is_limited: whether the first list's object may be too large.
        :param values: of other columns of the first list's object.
        :raises TooLarge: one of the objects alone is over the limit.
        """
        written.save(self._max_bytes if is_limited else sys.maxsize, **values)
        for other in others:
            other.save(self._max_bytes)
        seqs: Sequence[int] = [other.seq for other in others]
        written.usage.make_room(self._max_objects, self._max_bytes, written.seq, seqs)
