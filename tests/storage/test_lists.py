"""Lists of items that objects share: parents, conversations, what is deleted with whom, and what is renewed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from openai_compat.storage.schema import LINK
from openai_compat.storage.store import (
    AlreadyStored,
    Context,
    Item,
    Page,
    Store,
    StoreFailed,
    TooLarge,
    UnknownCursor,
    UnknownParent,
)
from tests.servers import command
from tests.storage.databases import (
    Clock,
    Make,
    audit,
    fill,
    ids,
    items,
    new,
    not_memory,
    rows,
    stored_object,
    together,
)

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

CONVERSATION = ("conversation", "c")
CONVERSATION_OF_ME = ("conversation", "me", "c")


def respond(store: Store, id: str, inputs: str = "", outputs: str = "", **options: Any) -> None:
    store.add("response", "me", stored_object(id), items(*inputs), outputs=items(*outputs), **options)


def context(store: Store, id: str, kind: str = "response") -> str | None:
    found = store.context(kind, "me", id, limit=1000)
    return None if found is None else "".join(item.id for item in found.items)


def outputs(store: Store, id: str) -> str:
    found = store.outputs("response", "me", id)
    assert found is not None
    return "".join(item.id for item in found)


@pytest.fixture
def talk(store: Store) -> Store:
    """A conversation with the items i and j."""
    store.add("conversation", "me", stored_object("c"), items("i", "j"))
    return store


# -- parents ----------------------------------------------------------------------------------


def test_a_response_has_the_whole_context_of_its_parent(store: Store) -> None:
    respond(store, "1", "ab", "c")
    respond(store, "2", "d", "ef", parent="1")
    respond(store, "3", "", "g", parent="2")
    respond(store, "3'", "h", "", parent="2")
    assert [context(store, id) for id in ("1", "2", "3", "3'")] == ["abc", "abcdef", "abcdefg", "abcdefh"]
    assert [outputs(store, id) for id in ("1", "2", "3", "3'")] == ["c", "ef", "g", ""]
    assert len(rows(store, "items")) == 8, "each item once"
    assert ids(store.items("response", "me", "2", section=0)) == [*"abcd"]
    assert ids(store.items("response", "me", "2", section=1)) == [*"ef"]
    assert ids(store.items("response", "me", "2")) == [*"abcdef"]
    assert ids(store.items("response", "me", "2", section=0, after="b", order="asc", limit=1)) == ["c"]


@pytest.mark.parametrize("gone", ["1", "2", "3", "12", "21", "23", "123"])
def test_a_deleted_parent_breaks_no_child(store: Store, gone: str) -> None:
    respond(store, "1", "a", "b")
    respond(store, "2", "c", "d", parent="1")
    respond(store, "3", "e", "f", parent="2")
    respond(store, "4", "g", "h", parent="3")
    for id in gone:
        assert store.delete("response", "me", id)
    assert context(store, "4") == "abcdefgh"
    assert context(store, "3") == (None if "3" in gone else "abcdef")
    assert len(rows(store, "items")) == 8
    audit(store)
    assert store.delete("response", "me", "4")
    left = [id for id in "123" if id not in gone]
    assert len(rows(store, "items")) == 2 * int(left[-1]) if left else rows(store, "items") == []


def test_what_only_a_deleted_object_has_goes_with_it(store: Store) -> None:
    respond(store, "1", "a", "b")
    respond(store, "2", "c", "d", parent="1")
    respond(store, "3", "e", "f", parent="1")
    store.delete("response", "me", "2")
    assert sorted(row.id for row in rows(store, "items")) == [*"abef"]
    store.delete("response", "me", "1")
    assert context(store, "3") == "abef"
    store.delete("response", "me", "3")
    assert rows(store, "items") == rows(store, "links") == rows(store, "owners") == []


@pytest.mark.parametrize("option", [{"parent": "1"}, {"extend": ("response", "1")}])
@pytest.mark.parametrize("case", ["never", "deleted", "expired", "yours", "kind"])
def test_what_is_not_there_is_not_continued(store: Store, clock: Clock, option: Any, case: str) -> None:
    owner = "you" if case == "yours" else "me"
    if case != "never":
        store.add("chat" if case == "kind" else "response", owner, stored_object("1"), items("a"))
    if case == "deleted":
        store.delete("response", "me", "1")
    clock.now += 100 if case == "expired" else 0
    before = [rows(store, table) for table in ("objects", "items", "links", "owners")]
    with pytest.raises(UnknownParent):
        respond(store, "2", "b", "c", **option)
    assert [rows(store, table) for table in ("objects", "items", "links", "owners")] == before
    assert issubclass(UnknownParent, LookupError)


def test_a_parent_and_another_list_exclude_each_other(talk: Store) -> None:
    respond(talk, "1")
    with pytest.raises(ValueError, match="not both"):
        respond(talk, "2", parent="1", extend=CONVERSATION)
    with pytest.raises(ValueError, match="not both"):
        respond(talk, "2", inherit=CONVERSATION, extend=CONVERSATION)


def test_an_id_is_one_items_of_a_list(talk: Store) -> None:
    respond(talk, "1", "a", "b")
    before = {table: rows(talk, table) for table in ("objects", "items", "links", "owners")}
    for work in (
        lambda: respond(talk, "2", "c", "c"),
        lambda: respond(talk, "2", "b", "c", parent="1"),
        lambda: respond(talk, "2", "c", "a", parent="1"),
        lambda: respond(talk, "2", "c", "i", extend=CONVERSATION),
        lambda: talk.complete("response", "me", "1", b"{}", items("c", "a")),
        lambda: talk.complete("response", "me", "1", b"{}", items("c", "j"), extend=CONVERSATION),
        lambda: talk.append(*CONVERSATION[:1], "me", "c", items("k", "i")),
    ):
        with pytest.raises(AlreadyStored):
            work()
        assert {table: rows(talk, table) for table in before} == before
    respond(talk, "2", "a", "b")
    assert talk.find_items("me", ["a"]) == {"a": Item("a", b'"0"')}, "in another list it is another item"


# -- conversations ----------------------------------------------------------------------------


def test_a_response_extends_a_conversation(talk: Store) -> None:
    respond(talk, "1", "a", "b", extend=CONVERSATION)
    respond(talk, "2", "c", "d", extend=CONVERSATION)
    assert context(talk, "c", "conversation") == "ijabcd"
    assert (context(talk, "1"), context(talk, "2")) == ("ijab", "ijabcd")
    assert (outputs(talk, "1"), outputs(talk, "2")) == ("b", "d")
    assert len(rows(talk, "items")) == 6, "the same rows"
    talk.delete_item("conversation", "me", "c", "a")
    assert context(talk, "c", "conversation") == "ijbcd"
    assert context(talk, "1") == "ijab", "what was said stays"
    talk.delete("conversation", "me", "c")
    assert context(talk, "2") == "ijabcd"
    talk.delete("response", "me", "2")
    assert sorted(row.id for row in rows(talk, "items")) == [*"abij"]


def test_an_item_is_deleted_with_its_last_list(talk: Store) -> None:
    respond(talk, "1", extend=CONVERSATION)
    assert talk.delete_item("conversation", "me", "c", "j")
    assert not talk.delete_item("conversation", "me", "c", "j")
    assert len(rows(talk, "items")) == 2
    assert talk.delete_item("response", "me", "1", "j")
    assert [row.id for row in rows(talk, "items")] == ["i"]


def test_what_follows_the_deletion_of_the_last_items(talk: Store) -> None:
    """A position at the end may be used again: no own item is taken for one that was inherited."""
    respond(talk, "1", "a", extend=CONVERSATION)
    for id in "ija":
        assert talk.delete_item("response", "me", "1", id)
    assert talk.complete("response", "me", "1", b"{}", items("b"), extend=CONVERSATION)
    assert (context(talk, "1"), context(talk, "c", "conversation")) == ("b", "ijab")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_background_response_ends(talk: Store, at_once: bool) -> None:
    """Its input stands in the conversation from the beginning, or from the end, and once."""
    respond(talk, "1", "ab", **({"extend": CONVERSATION} if at_once else {}))
    talk.append("conversation", "me", "c", items("k"))
    assert talk.complete("response", "me", "1", b"[1]", items("x", "y"), extend=CONVERSATION)
    assert context(talk, "c", "conversation") == ("ijabkxy" if at_once else "ijkabxy")
    assert context(talk, "1") == ("ijabxy" if at_once else "abxy")
    assert outputs(talk, "1") == "xy"
    assert talk.get("response", "me", "1") == stored_object("1", body=b"[1]")
    assert talk.complete("response", "me", "1", b"", items("z"), extend=CONVERSATION)
    assert context(talk, "c", "conversation") == ("ijabkxyz" if at_once else "ijkabxyz")


def test_a_child_of_a_parent_extends_a_conversation_by_its_own_items(talk: Store) -> None:
    respond(talk, "1", "a", "b")
    respond(talk, "2", "c", parent="1")
    assert talk.complete("response", "me", "2", b"{}", items("d"), extend=CONVERSATION)
    assert (context(talk, "2"), context(talk, "c", "conversation")) == ("abcd", "ijcd")


def test_a_response_inherits_from_a_conversation(talk: Store) -> None:
    respond(talk, "1", "x", inherit=CONVERSATION)
    assert (context(talk, "1"), context(talk, "c", "conversation")) == ("ijx", "ij")
    respond(talk, "2", "y", extend=CONVERSATION)
    assert talk.complete("response", "me", "1", b"{}", items("z"), extend=CONVERSATION)
    assert (context(talk, "1"), context(talk, "c", "conversation")) == ("ijxz", "ijyxz")
    audit(talk)


@pytest.mark.parametrize("use", ["extend", "inherit"])
def test_it_inherits_what_it_has_seen(talk: Store, use: str) -> None:
    seen = talk.context(*CONVERSATION_OF_ME, limit=9)
    assert seen is not None
    respond(talk, "1", "ab", extend=CONVERSATION)
    respond(talk, "2", "c", "d", end=seen.end, **{use: CONVERSATION})
    audit(talk)
    assert context(talk, "2") == "ijcd"
    assert context(talk, "c", "conversation") == ("ijabcd" if use == "extend" else "ijab")
    assert talk.complete("response", "me", "2", b"{}", items("e"), extend=CONVERSATION)
    assert (context(talk, "2"), context(talk, "c", "conversation")) == ("ijcde", "ijabcde")
    respond(talk, "3", "f", end=0, inherit=CONVERSATION)
    assert context(talk, "3") == "f"
    audit(talk)


def test_an_object_does_not_extend_itself(talk: Store) -> None:
    with pytest.raises(ValueError, match="extend itself"):
        talk.complete("conversation", "me", "c", b"", extend=CONVERSATION)


def test_the_end_of_what_is_gone(talk: Store, clock: Clock) -> None:
    respond(talk, "1", "a")
    with pytest.raises(UnknownParent):
        talk.complete("response", "me", "1", b"[1]", items("x"), extend=("conversation", "other"))
    assert talk.get("response", "me", "1") == stored_object("1")
    assert context(talk, "1") == "a"
    for place in (("response", "me", "2"), ("response", "you", "1"), ("conversation", "me", "1")):
        assert talk.complete(*place, b"[1]", items("x")) is False
    clock.now += 100
    assert talk.complete("response", "me", "1", b"[1]", items("x")) is False


def append(i: int) -> Callable[[Store, int], None]:
    def work(store: Store, n: int) -> None:
        name = f"{i}-{n}-"
        if i % 2:
            assert store.append("conversation", "me", "c", items(f"{name}0", f"{name}1", f"{name}2"))
        else:
            more: Any = {"outputs": items(f"{name}1", f"{name}2"), "extend": CONVERSATION}
            store.add("response", "me", stored_object(name), items(f"{name}0"), **more)

    return work


def kept_together(found: list[str], writers: int, turns: int) -> None:
    """Nothing is lost, what came together stands together, and each writer's calls in their order."""
    assert len(found) == writers * turns * 3
    calls = [found[i : i + 3] for i in range(0, len(found), 3)]
    assert [call for call in calls if {name[:-1] for name in call} != {call[0][:-1]}] == []
    assert [call for call in calls if [name[-1] for name in call] != [*"012"]] == []
    for i in range(writers):
        of_writer = [call[0] for call in calls if call[0].startswith(f"{i}-")]
        assert of_writer == [f"{i}-{n}-0" for n in range(turns)]


def test_threads_that_extend_one_conversation(store: Store) -> None:
    store.add("conversation", "me", stored_object("c"))
    together(8, lambda i: [append(i)(store, n) for n in range(5)])
    whole = store.context("conversation", "me", "c", limit=1000)
    assert whole is not None
    kept_together([item.id for item in whole.items], 8, 5)
    for row in store.page("response", "me", limit=100).rows:
        own = store.context("response", "me", row.id, limit=1000)
        assert own is not None
        assert own.items == whole.items[: len(own.items)], "the list as it was then"


EXTENDING = """
import os, sys
from openai_compat.storage.store import Item, StoredObject, Store

store = Store(sys.argv[1], ttl=600, max_objects=1000, max_bytes=10**9, timeout=20)
store.add("conversation", "me", StoredObject("c", 1, "m", {}, b"{}"))
store.close()
pids = []
for i in range(2):
    pids.append(os.fork())
    if not pids[-1]:
        for n in range(20):
            new = [Item(f"{i}-{n}-{p}", b"1") for p in range(3)]
            if n % 2:
                assert store.append("conversation", "me", "c", new)
            else:
                whole = StoredObject(f"{i}-{n}", 1, "m", {}, b"{}")
                store.add("response", "me", whole, new[:1], outputs=new[1:], extend=("conversation", "c"))
        store.close()
        sys.exit(0)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
print("done")
"""


@pytest.mark.server
def test_processes_that_extend_one_conversation(url: str, make: Make) -> None:
    not_memory(url)
    ended = command(url, python=("-W", "ignore::ResourceWarning", "-c", EXTENDING))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
    whole = make(clock=time.time).context("conversation", "me", "c", limit=1000)
    assert whole is not None
    kept_together([item.id for item in whole.items], 2, 20)


# -- reading ----------------------------------------------------------------------------------


def test_pages_before_an_item(store: Store) -> None:
    respond(store, "1", "abcde", "fg")

    def page(**arguments: Any) -> tuple[str, bool]:
        found = store.items("response", "me", "1", **arguments)
        assert found is not None
        return "".join(ids(found)), found.has_more

    assert page(before="d") == ("abc", False)
    assert page(before="d", limit=2) == ("bc", True), "those next to it"
    assert page(before="d", limit=2, order="desc") == ("fe", True)
    assert page(before="d", limit=3, order="desc") == ("gfe", False)
    assert page(before="f", after="b", limit=2) == ("cd", True)
    assert page(before="f", after="b", limit=3) == ("cde", False)
    assert page(before="b", after="f", order="desc", limit=9) == ("edc", False)
    assert page(before="b", after="f") == ("", False)
    assert page(before="g", section=1) == ("f", False)
    assert page(before="a") == ("", False)
    with pytest.raises(UnknownCursor):
        page(before="z")


def test_a_page_has_its_bytes(store: Store) -> None:
    respond(store, "1", "abcde")

    def page(**arguments: Any) -> tuple[str, bool]:
        found = store.items("response", "me", "1", **arguments)
        assert found is not None
        return "".join(ids(found)), found.has_more

    size = sum(len(item.id) + len(item.body) for item in items("a"))
    assert page(max_bytes=2 * size) == ("ab", True)
    assert page(max_bytes=3 * size - 1, after="b") == ("cd", True)
    assert page(max_bytes=2 * size, after="d") == ("e", False)
    assert page(max_bytes=0, after="a") == ("b", True), "one at least"
    assert page(max_bytes=2 * size, order="desc") == ("ed", True)
    assert page(max_bytes=2 * size, before="d") == ("bc", True)
    assert page(max_bytes=5 * size) == ("abcde", False)
    fill(store, "me", "xyz")
    found = store.page("chat", "me", max_bytes=1)
    assert (ids(found), found.has_more) == (["x"], True)


def test_a_whole_list_has_its_limit(store: Store) -> None:
    respond(store, "1", "ab", "c")
    respond(store, "2")
    assert store.context("response", "me", "1", limit=3) == Context([*items("a", "b"), *items("c")], 3)
    with pytest.raises(TooLarge):
        store.context("response", "me", "1", limit=2)
    size = sum(len(item.id) + len(item.body) for item in [*items("a", "b"), *items("c")])
    assert store.context("response", "me", "1", limit=3, max_bytes=size) is not None
    with pytest.raises(TooLarge, match="bytes"):
        store.context("response", "me", "1", limit=3, max_bytes=size - 1)
    assert store.context("response", "me", "2", limit=0) == Context([], 0)
    assert store.outputs("response", "me", "2") == []
    for place in (("response", "me", "3"), ("response", "you", "1"), ("chat", "me", "1")):
        assert store.context(*place, limit=3) is None
        assert store.outputs(*place) is None
        assert store.item(*place, "a") is None


def test_one_item(store: Store) -> None:
    respond(store, "1", "a", "b")
    respond(store, "2", "c", parent="1")
    assert store.item("response", "me", "2", "b") == Item("b", b'"0"')
    assert store.item("response", "me", "1", "c") is None


def test_items_are_found_by_their_ids(store: Store, clock: Clock) -> None:
    store.add("chat", "you", stored_object("1"), [Item("a", b"yours"), Item("y", b"yours")])
    respond(store, "old", "ao")
    clock.now += 60
    store.add("chat", "me", stored_object("1"), [Item("a", b"older"), Item("b", b"b")])
    store.add("response", "me", stored_object("2"), [Item("a", b"newer"), Item("c", b"c")])
    found = store.find_items("me", [*"abcyoz", "a"])
    assert found == {"a": Item("a", b"newer"), "b": Item("b", b"b"), "c": Item("c", b"c"), "o": items(*"ao")[1]}
    clock.now += 60
    assert "o" not in store.find_items("me", ["o"]), "its object has expired"
    store.delete("response", "me", "2")
    assert store.find_items("me", ["a"]) == {"a": Item("a", b"older")}
    assert store.find_items("you", ["a"]) == {}
    assert store.find_items("me", []) == store.find_items(None, ["a"]) == {}


def test_thousands_of_items(store: Store) -> None:
    names = [f"n{i}" for i in range(2500)]
    store.add("conversation", "me", stored_object("c"), items(*names))
    assert set(store.find_items("me", names)) == set(names)
    respond(store, "1", "a", "b", extend=CONVERSATION)
    assert len(store.context("conversation", "me", "c", limit=5000).items) == 2502  # type: ignore[union-attr]
    with pytest.raises(AlreadyStored):
        store.append("conversation", "me", "c", items("new", *names[2000:]))
    assert store.delete("conversation", "me", "c")
    assert store.delete("response", "me", "1")
    assert rows(store, "items") == []


def test_a_long_context_is_inherited_in_a_few_statements(store: Store) -> None:
    from sqlalchemy import event

    respond(store, "1", [f"n{i}" for i in range(1000)])  # type: ignore[arg-type]
    statements: list[Any] = []
    [database] = store._databases.values()
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call))
    respond(store, "2", "a", "b", parent="1")
    assert len(statements) < 30
    assert max(len(call[3] or ()) for call in statements) < 30, "no parameters for each link"
    assert len(store.context("response", "me", "2", limit=5000).items) == 1002  # type: ignore[union-attr]


# -- time to live -----------------------------------------------------------------------------


def test_a_child_renews_all_its_ancestors(store: Store, clock: Clock) -> None:
    respond(store, "1", "a")
    respond(store, "2", "b", parent="1")
    respond(store, "3", "c", parent="2")
    respond(store, "other", "d", parent="1")
    assert store.delete("response", "me", "2")
    clock.now += 60
    respond(store, "4", "e", parent="3")
    clock.now += 60
    assert ids(store.page("response", "me")) == ["1", "3", "4"], "past the deleted one; no sibling"
    respond(store, "5", "", parent="3")
    clock.now += 60
    assert ids(store.page("response", "me")) == ["1", "3", "5"]
    fill(store, "me", "x")
    clock.now += 100
    fill(store, "you", "x")
    assert len(rows(store, "items")) == 0


def test_ancestors_of_a_swept_middle_are_renewed(make: Make, clock: Clock) -> None:
    """The middle of a chain may expire first, if processes have different times to live."""
    store = make()
    respond(store, "1", "a")
    respond(store, "2", "b", parent="1")
    respond(store, "3", "c", parent="2")
    respond(store, "4", "d", parent="3")
    with store._begin(write=True) as tx:
        tx.exec_driver_sql("UPDATE openai_compat_objects SET expires = expires - 90 WHERE seq IN (2, 3)")
    clock.now += 20
    fill(store, "you", "x")
    assert {row.seq: row.parent for row in rows(store, "objects") if row.owner == "me"} == {1: None, 4: 1}
    clock.now += 70
    respond(store, "5", "", parent="4")
    clock.now += 20
    assert ids(store.page("response", "me")) == ["1", "4", "5"]
    assert context(store, "5") == "abcd"


@pytest.mark.parametrize("use", ["append", "extend", "complete"])
def test_use_renews_a_conversation(talk: Store, clock: Clock, use: str) -> None:
    clock.now += 60
    respond(talk, "1", "a")
    work: dict[str, Callable[[], Any]] = {
        "append": lambda: talk.append("conversation", "me", "c", items("k")),
        "extend": lambda: respond(talk, "2", extend=CONVERSATION),
        "complete": lambda: talk.complete("response", "me", "1", b"", extend=CONVERSATION),
    }
    work[use]()
    clock.now += 60
    assert talk.get("conversation", "me", "c")
    talk.delete_item("conversation", "me", "c", "i")
    talk.set_metadata("conversation", "me", "c", {})
    clock.now += 40
    assert talk.get("conversation", "me", "c") is None


# -- limits -----------------------------------------------------------------------------------


def test_the_least_recently_used_gives_way(make: Make, clock: Clock) -> None:
    store = make(max_objects=3)
    for id in "abc":
        clock.now += 1
        fill(store, "me", id)
    clock.now += 1
    store.append("chat", "me", "a", items("i"))
    fill(store, "me", "d")
    assert ids(store.page("chat", "me")) == ["a", "c", "d"]


def test_ancestors_and_the_conversation_go_last(make: Make) -> None:
    """All have the same time here, where the first one stored would go first."""
    store = make(max_objects=4)
    respond(store, "1", "a")
    respond(store, "2", "b", parent="1")
    fill(store, "me", "xy")
    respond(store, "3", "c", parent="2")
    respond(store, "4", "d", parent="3")
    assert ids(store.page("response", "me")) == ["1", "2", "3", "4"]
    assert ids(store.page("chat", "me")) == []
    respond(store, "5", "e", parent="4")
    assert ids(store.page("response", "me")) == ["2", "3", "4", "5"], "if there are no others, the first"
    assert context(store, "5") == "abcde"


def test_an_extended_conversation_goes_last(make: Make) -> None:
    store = make(max_objects=2)
    store.add("conversation", "me", stored_object("c"), items("i"))
    respond(store, "1", "a", extend=CONVERSATION)
    respond(store, "2", "b", extend=CONVERSATION)
    assert context(store, "c", "conversation") == "iab"
    assert context(store, "1") is None
    store.complete("response", "me", "2", b"", items("z"), extend=CONVERSATION)
    fill(store, "me", "x")
    assert context(store, "c", "conversation") is None, "the least recently used, where it is not extended"


def test_shared_bytes_count_once(make: Make) -> None:
    store = make(max_bytes=1000)
    store.add("response", "me", stored_object("1", body=b""), [Item("a", b"x" * 499)])
    for id, parent in ("21", "32", "43"):
        store.add("response", "me", stored_object(id, body=b""), parent=parent)
    assert [row.bytes for row in rows(store, "owners")] == [500 + 4 * (1 + LINK)]
    assert ids(store.page("response", "me")) == [*"1234"]


def test_no_object_is_deleted_too_many(make: Make) -> None:
    """Objects with the same items free little: more have to go than where each has its own."""
    store = make(max_bytes=2000)
    respond(store, "1", "a")
    for i in range(2, 6):
        respond(store, f"{i}", parent=f"{i - 1}")
    store.add("chat", "me", stored_object("x", body=b""), [Item("i", b"x" * 1600)])
    assert len(store.page("response", "me").rows) == 5
    used = rows(store, "owners")[0].bytes
    store._max_bytes = used + 1
    store.add("chat", "me", stored_object("y", body=b"x" * 30))  # 31 bytes, two responses have 38
    assert ids(store.page("response", "me")) == ["3", "4", "5"]
    store._max_bytes = 1650
    store.add("chat", "me", stored_object("z", body=b""))
    assert ids(store.page("response", "me")) == []
    assert ids(store.page("chat", "me")) == ["x", "y", "z"]


def test_a_lowered_limit_takes_few_rounds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_compat.storage.usage import OwnerUsage

    store = make()
    store.add("response", "me", stored_object("0"), [Item("a", b"x" * 10_000)])
    for i in range(1, 100):
        respond(store, f"{i}", parent=f"{i - 1}")
    drops: list[int] = []
    drop = OwnerUsage.drop
    monkeypatch.setattr(OwnerUsage, "drop", lambda self, rows: (drops.append(len(rows)), drop(self, rows))[1])
    store._max_bytes = 1000
    store.add("chat", "me", stored_object("x"))
    assert len(drops) < 20
    assert sum(drops) == 100


def test_an_object_alone_has_its_context(make: Make) -> None:
    store = make(max_bytes=1000)
    store.add("response", "me", stored_object("1", body=b""), [Item("a", b"x" * 599)])
    store.add("conversation", "me", stored_object("c", body=b""), [Item("b", b"x" * 99)])
    for work in (
        lambda: store.add("response", "me", stored_object("2", body=b"x" * 399), parent="1"),
        lambda: store.add("response", "me", stored_object("2", body=b""), [Item("c", b"x" * 399)], parent="1"),
        lambda: store.complete("response", "me", "1", b"x" * 399),
        lambda: store.complete("response", "me", "1", b"", [Item("c", b"x" * 399)]),
        lambda: store.complete("response", "me", "1", b"", [Item("c", b"x" * 280)], extend=CONVERSATION),
        lambda: store.add("response", "me", stored_object("2"), items(*map(str, range(60)))),
    ):
        with pytest.raises(TooLarge):
            work()
    assert (context(store, "1"), context(store, "c", "conversation")) == ("a", "b")
    assert store.complete("response", "me", "1", b"x" * 300)
    assert context(store, "c", "conversation") is None, "it made room"


def test_a_sweep_of_long_lists_is_bounded(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_compat.storage import usage

    monkeypatch.setattr(usage, "SWEEP", 100)
    for i in range(9):
        respond(store, f"{i}", "abc")  # 3 + 48 bytes of its own
    fill(store, "me", map(str, range(3)))
    clock.now += 100
    for left in (10, 8, 6, 4, 0):
        store.delete("chat", "me", "nothing")
        assert len(rows(store, "objects")) == left


# -- the database -----------------------------------------------------------------------------


def test_a_store_answers(store: Store, make: Make) -> None:
    store.ping()
    assert store.page("chat", "me") == Page([], False)


def test_a_store_that_does_not_answer(tmp_path: Any) -> None:
    with new(f"sqlite:///{tmp_path}/missing/store.db") as store, pytest.raises(StoreFailed):
        store.ping()
