"""What is kept: the same in SQLite's file, in its memory and in PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openai_compat.storage import usage as module
from openai_compat.storage.store import (
    MAX_ID,
    AlreadyStored,
    Item,
    Order,
    Page,
    Store,
    StoreFailed,
    TooLarge,
    UnknownCursor,
)
from tests.servers import command
from tests.storage.databases import (
    TIMEOUT,
    Clock,
    Make,
    fill,
    ids,
    items,
    new,
    not_memory,
    rows,
    sqlite_file,
    stored_object,
    together,
    walked,
)

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

ODD = ["plain", "", "it's", '"quoted"', "100%", "a_b", "a%b", "\\", "\x00", "a\x00b", "\xe9", "e\u0301", "日本", "😀"]
ODD += ["' OR 1=1 --", "); DROP TABLE openai_compat_items; --", ":owner", "%(owner)s", "?", "NULL", "\ud800", "A", "a"]


# -- what is put in comes out -----------------------------------------------------------------


def test_an_object_comes_back(store: Store) -> None:
    whole = stored_object("a", created=2**40, model="m:8b", metadata={"z": "1", "a": "2"}, body=bytes(range(256)))
    store.add("chat", "me", whole, items("i", "j"))
    assert store.get("chat", "me", "a") == whole
    assert list(store.get("chat", "me", "a").metadata) == ["z", "a"]  # type: ignore[union-attr]
    assert store.items("chat", "me", "a") == Page(items("i", "j"), False)
    assert store.page("chat", "me") == Page([whole], False)


def test_any_text_is_text(store: Store) -> None:
    for text in ODD:
        whole = stored_object(text, model=text, metadata={text: text, "other": "x"})
        store.add(text, text, whole, [Item(text, b"1")])
        store.add(text, text, stored_object("other"))
        assert store.get(text, text, text) == whole
        assert store.page(text, text, model=text, metadata={text: text}).rows == [whole]
        assert ids(store.page(text, text, after=text)) == ["other"]
        assert store.append(text, text, text, items("more"))
        assert ids(store.items(text, text, text, after=text)) == ["more"]
        assert store.set_metadata(text, text, text, {text: ""}) == stored_object(text, model=text, metadata={text: ""})
        assert store.delete_item(text, text, text, text)
    for text in ODD:
        assert ids(store.items(text, text, text)) == ["more"]
        assert store.delete(text, text, text)


def test_equal_text_only_is_the_same(store: Store) -> None:
    for i, text in enumerate(ODD):
        store.add("chat", None, stored_object(text, model=text, metadata={"key": text, text: str(i)}))
    for i, text in enumerate(ODD):
        assert ids(store.page("chat", None, model=text)) == [text]
        assert ids(store.page("chat", None, metadata={"key": text})) == [text]
        assert ids(store.page("chat", None, metadata={text: str(i)})) == [text]
    assert len(walked(lambda **a: store.page("chat", None, **a), limit=2)) == len(ODD)


def test_what_is_not_there(store: Store) -> None:
    store.add("chat", "me", stored_object("a"))
    for kind, owner, id in [("chat", "me", "b"), ("chat", "you", "a"), ("other", "me", "a"), ("chat", None, "a")]:
        assert store.get(kind, owner, id) is None
        assert store.items(kind, owner, id) is None
        assert store.set_metadata(kind, owner, id, {}) is None
        assert store.append(kind, owner, id, items("i")) is False
        assert store.delete_item(kind, owner, id, "i") is False
        assert store.delete(kind, owner, id) is False
    assert store.page("chat", "you") == Page([], False)
    assert store.delete_item("chat", "me", "a", "i") is False
    assert store.get("chat", "me", "a") == stored_object("a")


def test_nobody_in_particular_is_an_owner_too(store: Store) -> None:
    store.add("chat", None, stored_object("a"))
    assert store.get("chat", "", "a") == stored_object("a")
    assert store.get("chat", "me", "a") is None


def test_owners_and_kinds_have_ids_of_their_own(store: Store) -> None:
    places = [("chat", "me"), ("chat", "you"), ("other", "me")]
    for i, (kind, owner) in enumerate(places):
        store.add(kind, owner, stored_object("a", created=i, metadata={"k": "v"}), items(f"i{i}"))
    for i, (kind, owner) in enumerate(places):
        assert store.get(kind, owner, "a") == stored_object("a", created=i, metadata={"k": "v"})
        assert ids(store.items(kind, owner, "a")) == [f"i{i}"]
        assert len(store.page(kind, owner, metadata={"k": "v"}).rows) == 1
    assert store.delete("chat", "me", "a")
    assert store.get("chat", "you", "a")
    assert ids(store.items("other", "me", "a")) == ["i2"]


def test_an_id_is_there_once(store: Store) -> None:
    store.add("chat", "s3cr3t", stored_object("a"), items("i"))
    for work in (
        lambda: store.add("chat", "s3cr3t", stored_object("a", body=b"other"), items("j")),
        lambda: store.add("chat", "s3cr3t", stored_object("b"), items("j", "k", "j")),
        lambda: store.append("chat", "s3cr3t", "a", items("j", "k", "i")),
        lambda: store.append("chat", "s3cr3t", "a", items("j", "k", "j")),
    ):
        with pytest.raises(AlreadyStored) as caught:
            work()
        assert "s3cr3t" not in str(caught.value)
        hidden = caught.value.__suppress_context__ or caught.value.__context__ is None
        assert hidden, "the database's text has the values"
    assert store.page("chat", "s3cr3t").rows == [stored_object("a")]
    assert ids(store.items("chat", "s3cr3t", "a")) == ["i"]


def test_an_id_has_its_length(store: Store) -> None:
    longest = "é" * (MAX_ID // 2)
    store.add("chat", "me", stored_object(longest), items(longest))
    assert store.get("chat", "me", longest)
    for work in (
        lambda: store.add("chat", "me", stored_object(longest + "x")),
        lambda: store.add("chat", "me", stored_object("a"), items(longest + "x")),
        lambda: store.append("chat", "me", longest, items(longest + "x")),
    ):
        with pytest.raises(ValueError, match="at most 512 bytes"):
            work()
    assert store.get("chat", "me", "x" * 100_000) is None
    with pytest.raises(UnknownCursor):
        store.page("chat", "me", after="x" * 100_000)


def test_large_values_come_back(store: Store) -> None:
    whole = stored_object("a", model="m" * 10_000, metadata={"k" * 10_000: "v" * 100_000}, body=b"x" * 5_000_000)
    store.add("chat", "me", whole, [Item("i", b"y" * 5_000_000)])
    assert store.page("chat", "me", model=whole.model, metadata=whole.metadata).rows == [whole]
    assert store.items("chat", "me", "a") == Page([Item("i", b"y" * 5_000_000)], False)


def test_a_failure_half_way_leaves_nothing(store: Store) -> None:
    broken: Any = [Item("i", b"1"), Item("j", object())]  # type: ignore[arg-type]
    store.add("chat", "me", stored_object("a"), items("k"))
    with pytest.raises((StoreFailed, TypeError)):
        store.add("chat", "me", stored_object("b", metadata={"k": "v"}), broken)
    with pytest.raises((StoreFailed, TypeError)):
        store.append("chat", "me", "a", broken)
    assert ids(store.page("chat", "me")) == ["a"]
    assert ids(store.items("chat", "me", "a")) == ["k"]


# -- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_go_both_ways_through_ties(store: Store, limit: int) -> None:
    names = [f"n{i}" for i in range(7)]
    store.add("other", "me", stored_object("elsewhere"))
    for i, name in enumerate(names):
        store.add("chat", "me", stored_object(name, created=i // 3), items(*names))
        store.add("chat", "you", stored_object(name))

    for turn in (
        lambda **arguments: store.page("chat", "me", **arguments),
        lambda **arguments: store.items("chat", "me", "n3", **arguments),
    ):
        assert walked(turn, limit=limit) == names
        assert walked(turn, limit=limit, order="desc") == names[::-1]


def test_the_end_of_a_page(store: Store) -> None:
    for name in "abc":
        store.add("chat", "me", stored_object(name))
    assert store.page("chat", "me", limit=2).has_more
    assert not store.page("chat", "me", limit=3).has_more
    assert store.page("chat", "me", after="c") == Page([], False)
    assert store.page("chat", "me", after="a", order="desc") == Page([], False)
    assert len(store.page("chat", "me").rows) == 3
    for none in (0, -1, -2):
        assert store.page("chat", "me", limit=none).rows == []


def test_a_page_has_20_rows_unless_told(store: Store) -> None:
    store.add("chat", "me", stored_object("a"), items(*map(str, range(21))))
    for i in range(20):
        store.add("chat", "me", stored_object(f"n{i}"))
    assert (len(store.page("chat", "me").rows), store.page("chat", "me").has_more) == (20, True)
    page = store.items("chat", "me", "a")
    assert page is not None
    assert (len(page.rows), page.has_more) == (20, True)


def test_a_cursor_is_an_object_of_the_owner(store: Store, clock: Clock) -> None:
    store.add("chat", "me", stored_object("old"), items("i"))
    clock.now += 60
    store.add("chat", "me", stored_object("gone"), items("j"))
    store.add("chat", "me", stored_object("a"), items("k", "l"))
    store.add("chat", "you", stored_object("yours"))
    store.add("other", "me", stored_object("kind"))
    store.delete("chat", "me", "gone")
    store.delete_item("chat", "me", "a", "l")
    clock.now += 60
    for after in ("old", "gone", "yours", "kind", "never", ""):
        with pytest.raises(UnknownCursor):
            store.page("chat", "me", after=after)
    for after in ("i", "j", "l", "a", ""):
        with pytest.raises(UnknownCursor):
            store.items("chat", "me", "a", after=after)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_walk_while_others_write(store: Store, order: Order) -> None:
    names = [f"n{i}" for i in range(30)]
    for name in names:
        store.add("chat", "me", stored_object(name))
    stop = threading.Event()

    def disturb() -> None:
        for i in range(10_000):
            if stop.is_set():
                return
            store.add("chat", "me", stored_object(f"late{i}"))
            store.add("chat", "you", stored_object(f"n{i}"))
            store.delete("chat", "me", f"late{i}")

    def seen(after: str | None) -> list[str]:
        return [name for name in ids(store.page("chat", "me", after=after, limit=3, order=order)) if name in names]

    found: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(disturb)
        try:
            while more := seen(found[-1] if found else None):
                found += more
        finally:
            stop.set()
        work.result(TIMEOUT)
    assert found == (names if order == "asc" else names[::-1])


def test_a_page_holds_what_has_the_model_and_the_metadata(store: Store) -> None:
    store.add("chat", "me", stored_object("a", model="m", metadata={"x": "1", "y": "2"}))
    store.add("chat", "me", stored_object("b", model="n", metadata={"x": "1", "y": "3"}))
    store.add("chat", "me", stored_object("c", model="m", metadata={"x": "2"}))
    store.add("chat", "me", stored_object("d", model="m"))

    def found(**arguments: Any) -> str:
        return "".join(ids(store.page("chat", "me", **arguments)))

    assert found(model="m") == "acd"
    assert found(model="M") == ""
    assert found(metadata={}) == "abcd"
    assert found(metadata={"x": "1"}) == "ab"
    assert found(metadata={"x": "1", "y": "3"}) == "b"
    assert found(metadata={"x": "1", "y": "4"}) == ""
    assert found(metadata={"1": "x"}) == ""
    assert found(metadata={"y": "1"}) == ""
    assert found(metadata={"x": "%"}) == found(metadata={"x": "_"}) == found(metadata={"%": "1"}) == ""
    assert found(metadata={"x": "1"}, model="n") == "b"
    assert found(model="m", after="b", order="desc") == "a"
    assert store.page("chat", "me", model="m", limit=2) == Page(
        [stored_object("a", metadata={"x": "1", "y": "2"}), stored_object("c", metadata={"x": "2"})], True
    )


def test_new_metadata_replaces_all_of_the_old(store: Store) -> None:
    store.add("chat", "me", stored_object("a", metadata={"x": "1", "y": "2"}), items("i"))
    store.add("chat", "me", stored_object("b", metadata={"x": "1"}))
    new = {"y": "3", "z": "'; --"}
    assert (
        store.set_metadata("chat", "me", "a", new) == stored_object("a", metadata=new) == store.get("chat", "me", "a")
    )
    assert ids(store.page("chat", "me", metadata={"x": "1"})) == ["b"]
    assert ids(store.page("chat", "me", metadata=new)) == ["a"]
    assert store.set_metadata("chat", "me", "a", {}) == stored_object("a")
    assert ids(store.page("chat", "me", metadata=new)) == []
    assert ids(store.items("chat", "me", "a")) == ["i"]


# -- items ------------------------------------------------------------------------------------


def test_items_keep_their_order(store: Store) -> None:
    store.add("chat", "me", stored_object("a"), items("z", "y"))
    assert store.append("chat", "me", "a", items("x", "w"))
    assert store.append("chat", "me", "a", [])
    assert store.append("chat", "me", "a", items("v"))
    assert ids(store.items("chat", "me", "a")) == ["z", "y", "x", "w", "v"]
    assert store.delete_item("chat", "me", "a", "x")
    assert not store.delete_item("chat", "me", "a", "x")
    assert store.delete_item("chat", "me", "a", "v")
    assert store.append("chat", "me", "a", items("x"))
    assert ids(store.items("chat", "me", "a", after="y")) == ["w", "x"]
    assert ids(store.items("chat", "me", "a", order="desc", limit=2)) == ["x", "w"]


def test_what_belongs_to_an_object_goes_with_it(store: Store) -> None:
    for name in "ab":
        store.add("chat", "me", stored_object(name, metadata={"k": "v"}), items("i", "j"))
    assert store.delete("chat", "me", "a")
    assert not store.delete("chat", "me", "a")
    assert store.get("chat", "me", "a") is None
    assert len(rows(store, "items")) == 2
    assert len(rows(store, "labels")) == 1
    assert store.delete("chat", "me", "b")
    assert rows(store, "items") == rows(store, "labels") == rows(store, "owners") == []
    store.add("chat", "me", stored_object("a"))
    assert ids(store.items("chat", "me", "a")) == []


def test_many_append_to_one_object(store: Store) -> None:
    store.add("chat", "me", stored_object("a"))
    together(16, lambda i: [store.append("chat", "me", "a", items(f"{i}-{n}-0", f"{i}-{n}-1")) for n in range(8)])
    found = walked(lambda **arguments: store.items("chat", "me", "a", **arguments), limit=100)
    assert len(found) == 256
    assert [name[:-1] + "1" for name in found[::2]] == found[1::2], "what came together stands together"
    for i in range(16):
        assert [name for name in found if name.startswith(f"{i}-")] == [
            f"{i}-{n}-{p}" for n in range(8) for p in (0, 1)
        ]
    assert sorted(row.position for row in rows(store, "links")) == list(range(256))


# -- expiry and limits ------------------------------------------------------------------------


def test_what_has_expired_is_not_there(store: Store, clock: Clock) -> None:
    store.add("chat", "me", stored_object("a", metadata={"k": "v"}), items("i"))
    clock.now += 1
    store.add("chat", "me", stored_object("b"))
    clock.now += 98.9
    assert ids(store.page("chat", "me")) == ["a", "b"]
    clock.now += 0.1
    assert store.get("chat", "me", "a") is None
    assert ids(store.page("chat", "me")) == ["b"]
    assert ids(store.page("chat", "me", metadata={"k": "v"})) == []
    assert store.items("chat", "me", "a") is None
    assert len(rows(store, "objects")) == 2, "a reader deletes nothing"
    for work in (
        lambda: store.append("chat", "me", "a", items("j")),
        lambda: store.set_metadata("chat", "me", "a", {}),
        lambda: store.delete_item("chat", "me", "a", "i"),
        lambda: store.delete("chat", "me", "a"),
    ):
        assert not work()
    assert len(rows(store, "objects")) == 1


@pytest.mark.parametrize("write", ["add", "append", "set_metadata", "delete", "delete_item", "nothing"])
def test_a_write_sweeps_what_has_expired_of_anybody(store: Store, clock: Clock, write: str) -> None:
    for name in "abc":
        store.add("chat", "you", stored_object(name, metadata={"k": "v"}), items("i", "j"))
    clock.now += 100
    store.add("chat", "me", stored_object("live", metadata={"k": "v"}), items("i"))
    clock.now += 99
    assert [row.id for row in rows(store, "objects")] == ["live"]
    store.add("chat", "you", stored_object("d"))
    clock.now += 1
    work: dict[str, Callable[[], Any]] = {
        "add": lambda: store.add("chat", "you", stored_object("e")),
        "append": lambda: store.append("chat", "you", "d", items("x")),
        "set_metadata": lambda: store.set_metadata("chat", "you", "d", {}),
        "delete": lambda: store.delete("chat", "you", "d"),
        "delete_item": lambda: store.delete_item("chat", "you", "d", "x"),
        "nothing": lambda: store.delete("chat", "nobody", "d"),
    }
    work[write]()
    assert "live" not in [row.id for row in rows(store, "objects")]
    assert "i" not in [row.id for row in rows(store, "items")]
    assert "me" not in [row.owner for row in rows(store, "owners")]


def test_a_sweep_is_bounded(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        store.add("chat", "me", stored_object(f"{i}"))
    clock.now += 100
    monkeypatch.setattr(module, "BATCH", 4)
    for left in (6, 2, 0, 0):
        store.delete("chat", "me", "nothing")
        assert len(rows(store, "objects")) == left


def test_the_oldest_of_an_owner_give_way(make: Make) -> None:
    store = make(max_objects=3)
    store.add("chat", "you", stored_object("first"))
    store.add("other", "me", stored_object("0"))
    for i in range(1, 6):
        store.add("chat", "me", stored_object(f"{i}", created=100 - i, metadata={"k": "v"}), items("i"))
    assert ids(store.page("chat", "me")) == ["3", "4", "5"]
    assert ids(store.page("other", "me")) == []
    assert ids(store.page("chat", "you")) == ["first"]
    assert len(rows(store, "items")) == len(rows(store, "labels")) == 3


def test_the_newest_stays_whatever_the_limit(make: Make) -> None:
    store = make(max_objects=0)
    for name in "ab":
        store.add("chat", "me", stored_object(name))
    assert ids(store.page("chat", "me")) == ["b"]


def test_a_lower_limit_holds_from_the_next_write(make: Make, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    not_memory(url)
    before = make()
    for i in range(20):
        before.add("chat", "me", stored_object(f"{i}"))
    monkeypatch.setattr(module, "BATCH", 4)
    make(max_objects=2).add("chat", "me", stored_object("new"))
    assert ids(before.page("chat", "me")) == ["19", "new"]


def test_bytes_are_limited(make: Make) -> None:
    store = make(max_bytes=100)
    store.add("chat", "you", stored_object("1", body=b"x" * 99))
    for i in range(4):
        store.add("chat", "me", stored_object(f"{i}", body=b"x" * 4), [Item("i", b"x" * 8)])  # 30 bytes each
    assert ids(store.page("chat", "me")) == ["1", "2", "3"]
    store.add("chat", "me", stored_object("4", body=b"x" * 39))
    assert ids(store.page("chat", "me")) == ["2", "3", "4"]
    store.add("chat", "me", stored_object("5", body=b"x" * 99))
    assert ids(store.page("chat", "me")) == ["5"]
    assert ids(store.page("chat", "you")) == ["1"]


def test_what_is_appended_counts(make: Make) -> None:
    store = make(max_bytes=116)
    store.add("chat", "you", stored_object("1", body=b"x" * 99))
    for name in "abc":
        store.add("chat", "me", stored_object(name, body=b"x" * 29))
    assert store.append("chat", "me", "a", [Item("i", b"x" * 9)])  # 26 bytes
    assert ids(store.page("chat", "me")) == ["a", "b", "c"]
    assert store.append("chat", "me", "a", [Item("j", b"x")])
    assert ids(store.page("chat", "me")) == ["a", "c"], "the oldest but itself"
    assert store.delete_item("chat", "me", "a", "i")
    store.add("chat", "me", stored_object("d", body=b"x" * 29))
    assert ids(store.page("chat", "me")) == ["a", "c", "d"]
    assert ids(store.page("chat", "you")) == ["1"]


def test_what_is_too_large_alone(make: Make) -> None:
    store = make(max_bytes=100)
    store.add("chat", "me", stored_object("a", body=b"x" * 49), items("i"))
    for work in (
        lambda: store.add("chat", "me", stored_object("b", body=b"x" * 100)),
        lambda: store.add("chat", "me", stored_object("b", body=b"x" * 50), [Item("i", b"x" * 50)]),
        lambda: store.append("chat", "me", "a", [Item("j", b"x" * 50)]),
    ):
        with pytest.raises(TooLarge):
            work()
    assert store.page("chat", "me").rows == [stored_object("a", body=b"x" * 49)]
    assert ids(store.items("chat", "me", "a")) == ["i"]
    assert isinstance(TooLarge(), ValueError)


def test_owners_that_sweep_each_other_wait_for_nobody(make: Make) -> None:
    now = iter(range(10**9))
    store = make(ttl=5.0, clock=lambda: float(next(now)))
    together(8, lambda i: [fill(store, f"owner{(i + n) % 4}", [f"{i}-{n}"]) for n in range(8)])
    assert len(rows(store, "objects")) < 20


def test_an_owner_within_its_limit_whoever_writes(make: Make) -> None:
    store = make(max_objects=5)
    together(16, lambda i: fill(store, "me", [f"{i}-{n}" for n in range(2)]))
    assert len(rows(store, "objects")) == 5


# -- making and closing one -------------------------------------------------------------------


def test_without_a_store_its_packages_are_left_alone() -> None:
    script = "import sys, openai_compat.storage.store; print({'sqlalchemy', 'psycopg', 'sqlite3'} & set(sys.modules))"
    assert command(python=("-c", script)).stdout == "set()\n"


def test_making_one_connects_nothing(tmp_path: Path) -> None:
    with new(sqlite_file(tmp_path)):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:hunter2@host:5433/database", "postgresql+psycopg://user:***@host:5433/database"),
        ("postgresql+psycopg://user@host/database?password=hunter2", "postgresql+psycopg://user@host/database"),
        ("sqlite:////var/store.db", "sqlite:////var/store.db"),
    ],
)
def test_what_is_shown_of_it(url: str, shown: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    assert repr(Store(url, ttl=1.0, max_objects=1, max_bytes=1)) == f"Store('{shown}')"


def test_a_restart_finds_what_was_kept(url: str, make: Make) -> None:
    not_memory(url)
    first = make()
    first.add("chat", "me", stored_object("a", metadata={"k": "v"}), items("i"))
    first.close()
    second = make()
    assert second.get("chat", "me", "a") == stored_object("a", metadata={"k": "v"})
    assert ids(second.items("chat", "me", "a")) == ["i"]
    second.delete("chat", "me", "a")
    second.add("chat", "me", stored_object("b"))
    assert ids(first.page("chat", "me")) == ["b"], "a closed one opens again"


def test_memory_is_gone_when_it_is_closed() -> None:
    with new("sqlite:///:memory:") as store:
        store.add("chat", "me", stored_object("a"))
        store.close()
        store.close()
        assert store.get("chat", "me", "a") is None


def test_a_write_deletes_500_expired_objects_at_most(make: Make, clock: Clock) -> None:
    store = make(ttl=50)
    fill(store, "me", map(str, range(501)))
    clock.now += 100
    for left in (1, 0):
        store.delete("chat", "me", "nothing")
        assert len(rows(store, "objects")) == left
