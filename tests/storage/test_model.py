"""The store against a simple model of it: any order of operations leaves the lists, counts and bytes that it has."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from openai_compat.storage.schema import LINK
from openai_compat.storage.store import Item, Store, UnknownParent
from tests.storage.databases import Clock, audit, rows, stored_object

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

TTL = 100.0
KINDS = ("response", "conversation")
OWNERS = ("me", "you")


@dataclass
class Whole:
    """An object of the model."""

    expires: float
    parent: tuple[str, str, str] | None = None
    body: bytes = b"{}"
    #: items with their sections
    items: list[tuple[Item, int]] = field(default_factory=list)
    #: items that were inherited, or are in the conversation too
    shared: list[Item] = field(default_factory=list)

    @property
    def own(self) -> list[Item]:
        return [item for item, _ in self.items if item not in self.shared]


class Model:
    """What is stored: kind, owner and id → the object."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self.store, self.clock, self.random = store, clock, random.Random(seed)
        self.all: dict[tuple[str, str, str], Whole] = {}
        self.count = 0

    def new_items(self) -> list[Item]:
        names = []
        for _ in range(self.random.randrange(4)):
            self.count += 1
            names.append(Item(f"i{self.count}", b"x" * self.random.randrange(5)))
        return names

    def place(self, kind: str | None = None, owner: str | None = None) -> tuple[str, str, str]:
        """The key of an object that is there, or seldom is not."""
        known = [key for key in self.all if kind in (None, key[0]) and owner in (None, key[1])]
        if known and self.random.random() < 0.95:
            return self.random.choice(known)
        return (kind or "response", owner or "me", "never")

    def find(self, key: tuple[str, str, str]) -> Whole | None:
        whole = self.all.get(key)
        return whole if whole is not None and whole.expires > self.clock.now else None

    def renew(self, key: tuple[str, str, str] | None) -> None:
        while key is not None:
            whole = self.all[key]
            if whole.expires > self.clock.now:
                whole.expires = self.clock.now + TTL
            key = whole.parent

    def drop(self, key: tuple[str, str, str]) -> None:
        gone = self.all.pop(key)
        for whole in self.all.values():
            if whole.parent == key:
                whole.parent = gone.parent

    def add(self) -> None:
        self.count += 1
        kind, owner = self.random.choice(KINDS), self.random.choice(OWNERS)
        key, source = (kind, owner, f"o{self.count}"), self.random.choice([None, "parent", "extend"])
        inputs, outputs = self.new_items(), self.new_items()
        other = None if source is None else self.place(kind if source == "parent" else "conversation", owner)
        options: dict[str, Any] = {}
        if other is not None:
            options = {"parent": other[2]} if source == "parent" else {"extend": (other[0], other[2])}
        add = lambda: self.store.add(kind, owner, stored_object(key[2]), inputs, outputs=outputs, **options)  # noqa: E731
        if other is not None and self.find(other) is None:
            with pytest.raises(UnknownParent):
                add()
            return
        add()
        whole = Whole(self.clock.now + TTL, other if source == "parent" else None)
        if other is not None:
            self.renew(other)
            whole.shared = [item for item, _ in self.all[other].items]
            whole.items = [(item, 0) for item in whole.shared]
        whole.items += [(item, 0) for item in inputs] + [(item, 1) for item in outputs]
        if other is not None and source == "extend":
            self.share(whole, self.all[other])
        self.all[key] = whole

    def share(self, whole: Whole, target: Whole) -> None:
        target.items += [(item, 0) for item in whole.own]
        whole.shared += whole.own

    def complete(self) -> None:
        key = self.place()
        whole, outputs, body = self.find(key), self.new_items(), b"[]" * self.random.randrange(3)
        other = self.place("conversation", key[1]) if self.random.random() < 0.5 else None
        if other == key:  # it is not extended by itself
            other = None
        options: dict[str, Any] = {} if other is None else {"extend": (other[0], other[2])}
        if whole is not None and other is not None:
            target = self.find(other)
            if target is None:
                with pytest.raises(UnknownParent):
                    self.store.complete(*key, body, outputs, **options)
                return
            if any(item in [there for there, _ in target.items] for item in whole.own):
                return  # it has them from another one
        assert self.store.complete(*key, body, outputs, **options) == (whole is not None)
        if whole is not None:
            whole.body = body
            whole.items += [(item, 1) for item in outputs]
            if other is not None:
                self.share(whole, self.all[other])
                self.renew(other)

    def append(self) -> None:
        key, more = self.place(), self.new_items()
        whole = self.find(key)
        assert self.store.append(*key, more) == (whole is not None)
        if whole is not None:
            whole.items += [(item, 0) for item in more]
            self.renew(key)

    def delete(self) -> None:
        key = self.place()
        there = self.find(key) is not None
        assert self.store.delete(*key) == there
        if there:
            self.drop(key)

    def delete_item(self) -> None:
        key = self.place()
        whole = self.find(key)
        items = [item for item, _ in whole.items] if whole is not None else []
        item = self.random.choice(items) if items else Item("never", b"")
        assert self.store.delete_item(*key, item.id) == bool(items)
        if whole is not None:
            whole.items = [pair for pair in whole.items if pair[0] != item]

    def step(self) -> None:
        works = [self.add, self.add, self.add, self.append, self.complete, self.delete, self.delete_item]
        self.random.choice(works)()
        if self.random.random() < 0.5:
            self.clock.now += self.random.random() * 12

    def compare(self) -> None:
        """Every object has its list, and the database has nothing else once all that has expired is swept."""
        for key in list(self.all):
            if self.find(key) is None:
                self.drop(key)
        while len(rows(self.store, "objects")) > len(self.all):
            self.store.delete("response", "nobody", "sweep")
        audit(self.store)
        for key, whole in self.all.items():
            items = [item for item, _ in whole.items]
            assert self.store.context(*key, limit=10_000).items == items  # type: ignore[union-attr]
            assert self.store.outputs(*key) == [item for item, section in whole.items if section == 1]
            assert self.store.get(*key) == stored_object(key[2], body=whole.body)
            assert self.store.find_items(key[1], [item.id for item in items]) == {item.id: item for item in items}
        for owner in OWNERS:
            mine = {key: whole for key, whole in self.all.items() if key[1] == owner}
            items = {item for whole in mine.values() for item, _ in whole.items}
            total = sum(len(key[2]) + len(whole.body) + LINK * len(whole.items) for key, whole in mine.items())
            total += sum(len(item.id) + len(item.body) for item in items)
            counted = [(row.objects, row.bytes) for row in rows(self.store, "owners") if row.owner == owner]
            assert counted == ([(len(mine), total)] if mine else [])


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_operations(store: Store, clock: Clock, seed: int) -> None:
    model = Model(store, clock, seed)
    for _ in range(12):
        for _ in range(12):
            model.step()
        model.compare()
    assert model.count > 100
