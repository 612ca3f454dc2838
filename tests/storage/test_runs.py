"""Runs: who works on an object, what it emitted, and how others end it."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.storage.store import AlreadyStored, Run, Store, TooLarge
from tests.storage.databases import Clock, Make, audit, fill, ids, items, rows, stored_object, together

pytestmark = pytest.mark.slow

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

R = ("response", "me", "r")


@pytest.fixture
def running(store: Store) -> Store:
    store.add("response", "me", stored_object("r"), items("i"))
    store.begin_run(*R, "h")
    return store


def test_a_run_has_its_holder_and_its_age(running: Store, clock: Clock) -> None:
    assert running.run(*R) == Run("h", 0.0)
    clock.now += 5
    assert running.run(*R) == Run("h", 5.0)
    assert running.beat(*R, "h") is True
    assert running.run(*R) == Run("h", 0.0)
    assert running.complete(*R, b"", end_run=True)
    assert running.run(*R) is None
    assert running.beat(*R, "h") is False


def test_what_has_no_run(running: Store, clock: Clock) -> None:
    fill(running, "me", "r")
    for place in (("response", "me", "other"), ("response", "you", "r"), ("chat", "me", "r"), ("response", None, "r")):
        assert running.run(*place) is None
        assert running.beat(*place, "h", [(0, 1, b"x")]) is False
        assert running.events(*place, -1) == []
    running.begin_run("response", "me", "other", "h")
    assert running.beat(*R, "another") is False
    assert [row.object for row in rows(running, "runs")] == [1]
    assert rows(running, "events") == []
    clock.now += 100
    assert running.run(*R) is None
    assert running.beat(*R, "h") is False


def test_a_holder_hears_that_another_took_its_run(running: Store) -> None:
    running.begin_run(*R, "next")
    assert running.run(*R) == Run("next", 0.0)
    assert running.beat(*R, "h") is False
    assert running.beat(*R, "next") is True


def test_all_runs_of_a_holder_are_reported_at_once(running: Store, clock: Clock) -> None:
    for owner, id, holder in [("you", "s", "h"), (None, "t", "h"), ("me", "u", "other"), ("me", "v", "h")]:
        running.add("response", owner, stored_object(id))
        running.begin_run("response", owner, id, holder)
    assert running.complete("response", None, "t", b"", end_run=True)
    running.begin_run("response", "me", "v", "next")
    clock.now += 5
    assert running.beat_all("response", "h", []) == set()
    assert running.beat_all("response", "h", ["r", "s", "t", "u", "v", "w"]) == {"r", "s"}
    assert running.run(*R) == Run("h", 0.0)
    assert running.run("response", "you", "s") == Run("h", 0.0)
    assert running.run("response", "me", "u") == Run("other", 5.0)
    assert running.beat_all("chat", "h", ["r"]) == set()
    clock.now += 100
    assert running.beat_all("response", "h", ["r"]) == set(), "they have expired"


def test_what_runs_is_deleted_last(make: Make) -> None:
    store = make(max_objects=2)
    for id in ("a", "b", "c"):
        store.add("response", "me", stored_object(id))
        if id == "a":
            store.begin_run("response", "me", "a", "h")
    assert [store.get("response", "me", id) is not None for id in ("a", "b", "c")] == [True, False, True]
    store.begin_run("response", "me", "c", "h")
    store.add("response", "me", stored_object("d"))
    assert [store.get("response", "me", id) is not None for id in ("a", "c", "d")] == [False, True, True]
    audit(store)


def test_events_renew_the_time_to_live(running: Store, clock: Clock) -> None:
    clock.now += 60
    running.beat(*R, "h", [(0, 0, b"x")])
    clock.now += 60
    assert running.get(*R) is not None


def test_a_report_of_all_runs_renews_the_time_to_live(running: Store, clock: Clock) -> None:
    running.add("response", "you", stored_object("s"))
    running.begin_run("response", "you", "s", "other")
    for _ in range(4):
        clock.now += 40
        assert running.beat_all("response", "h", ["r", "s"]) == {"r"}
    assert running.get(*R) is not None
    assert running.get("response", "you", "s") is None
    clock.now += 99
    assert running.get(*R) is not None


def test_reports_of_all_and_of_one_do_not_wait_for_each_other(make: Make, clock: Clock) -> None:
    store = make(ttl=100.0)
    names = [f"r{i}" for i in range(4)]
    for id in names:
        store.add("response", id, stored_object(id))
        store.begin_run("response", id, id, "h")
    clock.now += 60  # so that each report renews the time to live

    def report(i: int) -> bool:
        if i % 2:
            return store.beat_all("response", "h", names) == set(names)
        return all(store.beat("response", id, id, "h", [(i, i, b"x")]) for id in names)

    assert all(together(8, report))


def test_a_run_begins_with_events(make: Make) -> None:
    store = make(max_bytes=200)
    store.add(*R[:2], stored_object("r", body=b""))
    assert store.last_events(*R) is None
    with pytest.raises(TooLarge):
        store.begin_run(*R, "h", [(0, 1, b"x" * 200)])
    assert store.run(*R) is None
    store.begin_run(*R, "h", [(0, 1, b"ab")])
    assert store.beat(*R, "h", [(2, 2, b"c")]) is True
    assert store.events(*R, -1) == [(0, 1, b"ab"), (2, 2, b"c")]
    assert store.last_events(*R) == (2, 2, b"c")
    assert store.last_events("response", "you", "r") is None


def test_events_come_in_batches(running: Store) -> None:
    batches = [(0, 2, b"abc"), (3, 3, b"\x00\xff"), (4, 9, b"")]
    assert running.beat(*R, "h", batches[:2]) is True
    assert running.beat(*R, "h", batches[2:]) is True
    assert running.events(*R, -1) == batches
    assert running.events(*R, 1) == batches, "the batch that has the next one"
    assert running.events(*R, 2) == batches[1:]
    assert running.events(*R, 3) == batches[2:]
    assert running.events(*R, 9) == []
    assert running.events(*R, -1, limit=1) == batches[:1]
    audit(running)
    assert running.complete(*R, b"", end_run=True)
    assert running.events(*R, 3) == batches[2:], "they stay with the object"
    running.begin_run(*R, "h")
    with pytest.raises(AlreadyStored):
        running.beat(*R, "h", [(8, 9, b"")])
    assert running.delete(*R)
    assert rows(running, "events") == rows(running, "runs") == rows(running, "owners") == []


def test_the_end_of_a_run_with_its_object(running: Store) -> None:
    assert running.complete(*R, b"[1]", items("o"), end_run=True, only_if_running="h")
    assert running.run(*R) is None
    assert running.get(*R) == stored_object("r", body=b"[1]")
    assert running.complete(*R, b"[2]", items("p"), only_if_running="h") is False
    assert running.get(*R) == stored_object("r", body=b"[1]")
    assert running.outputs(*R) == items("o")
    assert running.complete(*R, b"[3]", end_run=True), "whether or not there is a run"


def test_a_run_goes_on_unless_it_ends(running: Store) -> None:
    assert running.complete(*R, b"[1]", only_if_running="h")
    assert running.complete(*R, b"[2]", only_if_running="other") is False
    assert running.beat(*R, "h") is True


def test_a_failure_to_complete_leaves_the_run(running: Store) -> None:
    with pytest.raises(AlreadyStored):
        running.complete(*R, b"[1]", items("i"), end_run=True)
    assert running.run(*R) == Run("h", 0.0)


def test_a_run_is_taken_away_once(running: Store) -> None:
    won = together(8, lambda i: running.complete(*R, b"[%d]" % i, end_run=True, only_if_running="h"))
    assert sorted(won) == [False] * 7 + [True]
    assert running.get(*R) == stored_object("r", body=b"[%d]" % won.index(True))
    assert running.beat(*R, "h") is False


def test_a_run_of_a_deleted_object_is_gone(running: Store) -> None:
    assert running.delete(*R)
    assert running.beat(*R, "h", [(0, 0, b"x")]) is False
    assert rows(running, "runs") == rows(running, "events") == []


def test_event_bytes_count(make: Make) -> None:
    store = make(max_bytes=200)
    store.add(*R[:2], stored_object("r", body=b""))
    fill(store, "me", "ab")
    store.begin_run(*R, "h")
    assert store.beat(*R, "h", [(0, 0, b"x" * 193)]) is True
    assert ids(store.page("chat", "me")) == ["a", "b"]
    assert store.beat(*R, "h", [(1, 1, b"x")]) is True
    assert ids(store.page("chat", "me")) == ["b"]
    with pytest.raises(TooLarge):
        store.beat(*R, "h", [(2, 2, b"x" * 10)])
    assert [batch[:2] for batch in store.events(*R, -1)] == [(0, 0), (1, 1)]
    with pytest.raises(TooLarge):
        store.complete(*R, b"x" * 50, only_if_running="h")
    assert store.complete(*R, b"x" * 50, end_run=True, only_if_running="h"), "it can end nevertheless"
    assert store.run(*R) is None
    audit(store)


def test_events_of_many_at_once(running: Store) -> None:
    def work(i: int) -> Any:
        id = f"r{i}"
        running.add("response", "me", stored_object(id))
        running.begin_run("response", "me", id, id)
        for n in range(5):
            assert running.beat("response", "me", id, id, [(n, n, b"%d" % i)]) is True
        assert running.events("response", "me", id, -1) == [(n, n, b"%d" % i) for n in range(5)]
        return running.complete("response", "me", id, b"", end_run=True, only_if_running=id)

    assert all(together(8, work))
    assert [row.object for row in rows(running, "runs")] == [1]
