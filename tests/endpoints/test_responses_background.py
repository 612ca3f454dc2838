"""Responses in the background: queued, followed, cancelled; what becomes of those whose process died."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.generation import background
from openai_compat.storage.store import StoreFailed
from openai_compat.testing import Gate, done, say
from tests.contract import check
from tests.endpoints.test_responses_state import Keeping, assistant, error, user

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    keeping = Keeping()
    yield keeping
    ended(keeping)


def ended(keeping: Keeping) -> None:
    """Wait until the application works on nothing any more."""
    found = keeping.app._background
    assert found is not None
    with found._changed:
        assert found._changed.wait_for(lambda: not found._jobs, timeout=20)


def sound(response: dict[str, Any]) -> dict[str, Any]:
    """Fail unless OpenAI's schema accepts a response. In one that has not ended OpenAI's own usage is null, too."""
    check("Response", {key: value for key, value in response.items() if key != "usage" or value is not None})
    return response


def begin(keeping: Keeping, *steps: Any, **fields: Any) -> str:
    keeping.fake.script("/api/chat", *steps)
    response = keeping.post(body={"model": "demo", "input": "Hi", "background": True, **fields})
    assert response.status_code == 200, response.data
    sound(response.get_json())
    assert (response.get_json()["status"], response.get_json()["background"]) == ("queued", True)
    return response.get_json()["id"]  # type: ignore[no-any-return]


def retrieve(keeping: Keeping, id: str) -> dict[str, Any]:
    response = keeping.get(f"/responses/{id}")
    assert response.status_code == 200, response.data
    return sound(response.get_json())


def followed(keeping: Keeping, id: str, **query: Any) -> list[dict[str, Any]]:
    response = keeping.get(f"/responses/{id}", stream="true", **query)
    assert response.status_code == 200, response.data
    return events(response.data)


def events(body: bytes) -> list[dict[str, Any]]:
    found = []
    for frame in body.decode().strip().split("\n\n"):
        name, _, data = frame.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if "response" in event:
            sound(event["response"])
        else:
            check("ResponseStreamEvent", event)
        found.append(event)
    return found


def test_a_response_is_generated_without_its_client(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    assert retrieve(keeping, id)["status"] in ("queued", "in_progress")
    gate.open()
    ended(keeping)
    found = retrieve(keeping, id)
    assert (found["status"], found["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    assert found["usage"]["output_tokens"] == 1
    keeping.ask(input="On", previous_response_id=id)
    assert keeping.sent() == [user("Hi"), assistant("Hello"), user("On")]


@pytest.mark.parametrize("fails", [False, True])
def test_one_in_a_conversation_has_its_history(keeping: Keeping, fails: bool) -> None:
    conversation = keeping.post("/conversations").get_json()["id"]
    keeping.ask(say("One"), done(), input="1", conversation=conversation)
    id = begin(keeping, *([{"error": "x"}] if fails else [say("Two"), done()]), input="2", conversation=conversation)
    ended(keeping)
    found = keeping.get(f"/responses/{id}/input_items", order="asc").get_json()["data"]
    assert [item["content"][0]["text"] for item in found] == ["1", "One", "2"]
    keeping.ask(input="3", previous_response_id=id)
    whole = ["1", "One", "2", "3"] if fails else ["1", "One", "2", "Two", "3"]
    assert [message["content"] for message in keeping.sent()] == whole
    keeping.ask(input="4", conversation=conversation)
    whole = ["1", "One", "4"] if fails else ["1", "One", "2", "Two", "4"]
    assert [message["content"] for message in keeping.sent()] == whole


@pytest.mark.parametrize(
    "body", ['{"status":"failed","background":true}', '{"status":"failed","background":true,"error":5}']
)
def test_a_failed_one_without_an_error_is_damaged(keeping: Keeping, body: str) -> None:
    id = begin(keeping, say("x"), done())
    ended(keeping)
    keeping.change(f"UPDATE openai_compat_objects SET body = CAST('{body}' AS BLOB)")
    found = followed(keeping, id, starting_after=3)[-1]
    assert (found["type"], found["code"]) == ("error", "store_failed")


def test_one_that_is_not_finished_cannot_be_gone_on_from(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, gate, say("x"), done())
    found = error(keeping.post(body={"model": "demo", "input": "x", "previous_response_id": id}))
    assert (found["param"], found["code"]) == ("previous_response_id", "previous_response_not_finished")
    gate.open()


def test_it_is_followed_from_its_beginning_to_its_end(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("Hel"), say("lo"), done())
    response = keeping.post(body={"model": "demo", "input": "x", "background": True, "stream": True})
    found = events(response.data)
    types = [event["type"] for event in found]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in found[:3]] == ["queued", "queued", "in_progress"]
    assert types[-1] == "response.completed"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["response"] == retrieve(keeping, found[0]["response"]["id"])


def test_a_stream_begins_while_its_response_waits_for_a_thread() -> None:
    keeping, gate = Keeping(max_background=1), Gate()
    begin(keeping, gate, say("x"), done())
    keeping.fake.script("/api/chat", say("y"), done())
    body = {"model": "demo", "input": "x", "background": True, "stream": True}
    response = keeping.client.post("/v1/responses", json=body, buffered=False)
    rest = iter(response.response)
    found = events(next(rest))  # type: ignore[arg-type]
    assert [event["type"] for event in found] == ["response.created", "response.queued"]
    gate.open()
    found += events(b"".join(rest))  # type: ignore[arg-type]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"
    ended(keeping)


def test_one_that_is_cancelled_while_it_waits_has_its_first_events() -> None:
    keeping, gate = Keeping(max_background=1), Gate()
    begin(keeping, gate, say("x"), done())
    id = begin(keeping, say("y"), done())
    keeping.client.post(f"/v1/responses/{id}/cancel")
    found = followed(keeping, id)
    assert [event["type"] for event in found] == ["response.created", "response.queued", "response.incomplete"]
    gate.open()
    ended(keeping)


def test_it_is_followed_from_any_event_on(keeping: Keeping) -> None:
    id = begin(keeping, say(thinking="Hm"), say("Hel"), say("lo"), done())
    ended(keeping)
    whole = followed(keeping, id)
    for number in (*range(-1, len(whole)), len(whole) + 5):
        assert followed(keeping, id, starting_after=number) == whole[number + 1 :] if number < len(whole) - 1 else True
    assert keeping.get(f"/responses/{id}", stream="true", starting_after=len(whole) - 1).data == b""
    assert error(keeping.get(f"/responses/{id}", stream="true", starting_after="x"))["param"] == "starting_after"


@pytest.mark.parametrize("background", [False, True])
def test_line_ends_of_the_request_are_none_of_the_stream(keeping: Keeping, background: bool) -> None:
    tools = b'[{"type": "custom",\r\n\r\n"name": "a"}, {"type": "function", "name": "f", "parameters": {\n\n}}]'
    head = json.dumps({"model": "demo", "input": "x", "stream": True, "background": background}).encode()
    keeping.fake.script("/api/chat", say("Hello"), done())
    body = head[:-1] + b',\n\n"tools": ' + tools + b"}"
    response = keeping.client.post("/v1/responses", data=body, content_type="application/json")
    assert events(response.data)[-1]["type"] == "response.completed"


def test_it_is_followed_live_by_several(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    found: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: found.append(followed(keeping, id))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert found[0][-1]["type"] == "response.completed"


def test_a_follower_that_leaves_ends_nothing(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    response = keeping.client.get(f"/v1/responses/{id}?stream=true", buffered=False)
    assert next(iter(response.response))
    response.close()
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "completed"


def test_a_native_failure_is_a_failed_response(keeping: Keeping) -> None:
    id = begin(keeping, say("Hel"), {"error": "the runner died"})
    ended(keeping)
    found = retrieve(keeping, id)
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    *_, before, last = followed(keeping, id)
    assert (before["type"], last["type"]) == ("error", "response.failed")
    assert last["response"]["error"] == found["error"]


@pytest.mark.parametrize("steps", [[], [say("Hel")]], ids=["first", "later"])
def test_a_native_error_names_the_field_of_a_response(keeping: Keeping, steps: list[Any]) -> None:
    id = begin(keeping, *steps, {"error": "the input length exceeds the context length"})
    ended(keeping)
    data = keeping.get(f"/responses/{id}", stream="true").data
    event = json.loads(data.partition(b"event: error\ndata: ")[2].partition(b"\n")[0])
    assert (event["param"], event["error"]["param"]) == ("input", "input")


def test_a_model_that_is_missing_is_a_failed_response(keeping: Keeping) -> None:
    response = keeping.post(body={"model": "nothing", "input": "x", "background": True})
    ended(keeping)
    assert retrieve(keeping, response.get_json()["id"])["status"] == "failed"


def test_a_cut_response_is_incomplete(keeping: Keeping) -> None:
    id = begin(keeping, say("Hel"), done("length"))
    ended(keeping)
    found = retrieve(keeping, id)
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert followed(keeping, id)[-1]["type"] == "response.incomplete"


def test_cancelling_ends_the_native_call(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, *[say("lo")] * 100, done())
    cancelled = [keeping.client.post(f"/v1/responses/{id}/cancel").get_json() for _ in range(2)]
    sound(cancelled[0])
    assert cancelled[0]["status"] == "cancelled"
    assert cancelled[0] == cancelled[1]
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id) == cancelled[0]
    last = followed(keeping, id)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert keeping.fake.closed == keeping.fake.opened


def test_cancelling_one_that_has_ended_returns_it(keeping: Keeping) -> None:
    id = begin(keeping, say("Hello"), done())
    ended(keeping)
    assert keeping.client.post(f"/v1/responses/{id}/cancel").get_json() == retrieve(keeping, id)


def test_deleting_ends_the_native_call(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, *[say("lo")] * 100, done())
    assert keeping.client.delete(f"/v1/responses/{id}").status_code == 200
    gate.open()
    ended(keeping)
    assert keeping.get(f"/responses/{id}").status_code == 404


def test_a_conversation_gets_the_turn_when_it_has_ended(keeping: Keeping) -> None:
    conversation = keeping.post("/conversations", {"items": [user("1")]}).get_json()["id"]
    gate = Gate()
    begin(keeping, gate, say("Hello"), done(), conversation=conversation)
    listed = keeping.get(f"/conversations/{conversation}/items", order="asc").get_json()["data"]
    assert len(listed) == 1
    gate.open()
    ended(keeping)
    listed = keeping.get(f"/conversations/{conversation}/items", order="asc").get_json()["data"]
    assert [item["content"][0]["text"] for item in listed] == ["1", "Hi", "Hello"]


def test_a_failed_turn_adds_nothing_to_its_conversation(keeping: Keeping) -> None:
    conversation = keeping.post("/conversations", {"items": [user("1")]}).get_json()["id"]
    begin(keeping, say("Hel"), {"error": "the runner died"}, conversation=conversation)
    ended(keeping)
    assert len(keeping.get(f"/conversations/{conversation}/items").get_json()["data"]) == 1


def test_more_than_may_run_at_once_wait_and_too_many_are_refused() -> None:
    keeping = Keeping(max_background=1)
    gates = [Gate() for _ in range(1 + background._MAX_WAITING)]
    started = [begin(keeping, gate, say("x"), done()) for gate in gates]
    response = keeping.post(body={"model": "demo", "input": "x", "background": True})
    assert error(response, 503)["code"] == "overloaded"
    assert response.headers["Retry-After"] == "2"
    for gate in gates:
        gate.open()
    ended(keeping)
    assert {retrieve(keeping, id)["status"] for id in started} == {"completed"}


def test_a_memory_of_one_of_several_workers_is_a_400() -> None:
    keeping = Keeping()
    body = json.dumps({"model": "demo", "input": "x", "background": True})
    response = keeping.client.post(
        "/v1/responses", data=body, content_type="application/json", environ_overrides={"wsgi.multiprocess": True}
    )
    assert error(response)["param"] == "background"


# -- other processes --------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Keeping, Keeping]]:
    """Two applications over one file, as two workers are."""
    url = f"sqlite:///{tmp_path}/store.db"
    first, second = Keeping(store=url), Keeping(store=url)
    yield first, second
    for keeping in (first, second):
        ended(keeping)
        assert keeping.app.store is not None
        keeping.app.store.close()


def test_another_worker_follows_and_cancels(two: tuple[Keeping, Keeping]) -> None:
    first, second = two
    gate = Gate()
    id = begin(first, say("Hel"), gate, *[say("lo")] * 100, done())
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.extend(followed(second, id)))
    thread.start()
    assert second.client.post(f"/v1/responses/{id}/cancel").get_json()["status"] == "cancelled"
    thread.join(20)
    assert found[-1]["response"]["status"] == "cancelled"
    assert first.app._background is not None
    [job] = first.app._background._jobs.values()
    changed = first.app._background._changed
    with changed:  # the next report says that the run was taken away
        assert changed.wait_for(lambda: job.cancel.is_set, timeout=20)
    gate.open()
    ended(first)
    assert retrieve(first, id)["status"] == "cancelled"


def test_an_end_does_not_replace_what_another_worker_cancelled(
    two: tuple[Keeping, Keeping], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    gate = Gate()
    id = begin(first, say("Hel"), gate, say("lo"), done())
    save = background.Report.save

    def save_after_the_cancel(self: Any, *arguments: Any, end_run: bool = False) -> None:
        if end_run:
            assert second.client.post(f"/v1/responses/{id}/cancel").get_json()["status"] == "cancelled"
        save(self, *arguments, end_run=end_run)

    monkeypatch.setattr(background.Report, "save", save_after_the_cancel)
    gate.open()
    ended(first)
    assert (retrieve(first, id)["status"], retrieve(first, id)["output"]) == ("cancelled", [])


def test_a_response_whose_process_died_is_failed(two: tuple[Keeping, Keeping], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two
    gate = Gate()
    id = begin(first, say("Hel"), gate, say("lo"), done())
    assert retrieve(second, id)["status"] in ("queued", "in_progress")
    monkeypatch.setattr(background, "_STALE", -1.0)
    found = retrieve(second, id)
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert [event["type"] for event in followed(second, id)[-2:]] == ["error", "response.failed"]
    gate.open()
    ended(first)
    assert retrieve(first, id)["status"] == "failed"


def test_one_whose_process_died_before_it_began_is_failed(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keeping.app.store is not None
    monkeypatch.setattr(keeping.app.store, "begin_run", lambda *arguments: None)
    gate = Gate()
    id = begin(keeping, gate, say("x"), done())
    monkeypatch.setattr(background, "_STALE", -1.0)
    assert retrieve(keeping, id)["status"] == "failed"
    gate.open()


@pytest.mark.parametrize("has_begun", [True, False])
def test_the_events_of_one_whose_process_died_are_followed_from_any_on(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    assert keeping.app.store is not None
    if not has_begun:
        monkeypatch.setattr(keeping.app.store, "begin_run", lambda *arguments: None)
    gate = Gate()
    id = begin(keeping, gate, say("x"), done())
    assert gate.reached.wait(20)
    monkeypatch.setattr(background, "_STALE", -1.0)
    whole = followed(keeping, id)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    types = [event["type"] for event in whole]
    assert (types[0], types[-2:]) == ("response.created", ["error", "response.failed"])
    assert (whole[0]["response"]["status"], whole[0]["response"]["error"]) == ("queued", None)
    for number in range(len(whole) - 1):
        assert followed(keeping, id, starting_after=number) == whole[number + 1 :]
    assert keeping.get(f"/responses/{id}", stream="true", starting_after=len(whole) - 1).data == b""
    gate.open()


def test_a_process_that_stops_fails_what_it_leaves(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    for _ in range(2):  # as it is asked to stop, and at its exit
        keeping.app.stop()
    found = retrieve(keeping, id)
    assert (found["status"], "stopped" in found["error"]["message"]) == ("failed", True)
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id) == found


def test_a_process_that_stops_fails_what_waits_for_a_thread() -> None:
    keeping, gate = Keeping(max_background=1), Gate()
    ids = [begin(keeping, gate, say("x"), done()), begin(keeping, say("y"), done())]
    keeping.app.stop()
    gate.open()
    ended(keeping)
    assert [retrieve(keeping, id)["status"] for id in ids] == ["failed", "failed"]


def test_a_process_that_stops_begins_nothing(keeping: Keeping) -> None:
    keeping.app.stop()
    response = keeping.post(body={"model": "demo", "input": "x", "background": True})
    assert error(response, 503)["message"] == "The server is stopping."
    assert keeping.app.store is not None
    assert keeping.app.store.page("response", None).rows == []


def test_who_follows_leaves_a_process_that_stops_and_goes_on_in_another(two: tuple[Keeping, Keeping]) -> None:
    first, second = two
    gate = Gate()
    id = begin(first, say("Hel"), gate, say("lo"), done())
    response = second.client.get(f"/v1/responses/{id}?stream=true", buffered=False)
    body = iter(response.response)
    found = events(next(body))  # type: ignore[arg-type]
    second.app.stop()
    found += events(b"".join(body))  # type: ignore[arg-type]
    failure = found.pop()
    assert (failure["type"], failure["code"]) == ("error", "overloaded")
    gate.open()
    found += followed(first, id, starting_after=failure["sequence_number"])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"


def test_who_follows_sees_the_end_of_a_response_that_ends_as_its_process_stops(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stops after the follower read that the response goes on, and before it looks whether it stops."""
    store, gate = keeping.app.store, Gate()
    assert store is not None
    read, stops = store.events, [keeping.app.stop]

    def stopping_after_the_last(*arguments: Any) -> Any:
        rows = read(*arguments)
        if not rows and stops:
            stops.pop()()
        return rows

    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    monkeypatch.setattr(store, "events", stopping_after_the_last)
    found = followed(keeping, id)
    gate.open()
    assert [event["type"] for event in found[-2:]] == ["error", "response.failed"]


def test_an_application_without_a_store_stops() -> None:
    Keeping(store=None).app.stop()


def test_a_defect_is_a_failed_response(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("defect")

    monkeypatch.setattr("openai_compat.endpoints.responses.progress.Progress.stream", fail)
    id = begin(keeping, say("x"), done())
    ended(keeping)
    assert retrieve(keeping, id)["error"]["message"] == "The gateway failed."


# -- failures of the store and of the system --------------------------------------------------


class Failing:
    """Fails the first calls of a store's method, before or after it has done its work."""

    def __init__(self, keeping: Keeping, name: str, times: int, *, after: bool = False, **only: Any) -> None:
        self._call = getattr(keeping.app.store, name)
        self._rest = times
        self._after = after
        self._only = only
        setattr(keeping.app.store, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self._rest or any(options.get(key) != value for key, value in self._only.items()):
            return self._call(*arguments, **options)
        self._rest -= 1
        if self._after:
            self._call(*arguments, **options)
        raise StoreFailed("gone")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("method", "only"), [("beat", {}), ("complete", {"end_run": True})])
def test_a_store_that_fails_for_a_while_loses_nothing(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, method: str, only: dict[str, Any], after: bool
) -> None:
    monkeypatch.setattr(background, "_RETRY", 0.05)
    Failing(keeping, method, 2, after=after, **only)
    id = begin(keeping, say("Hel"), say("lo"), done())
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "completed"
    found = followed(keeping, id)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))


def test_a_store_that_fails_at_the_beginning_fails_no_response(keeping: Keeping) -> None:
    Failing(keeping, "complete", 1, end_run=False)
    Failing(keeping, "complete", 1)
    id = begin(keeping, say("Hello"), done())
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "completed"


def test_an_end_that_cannot_be_stored_is_a_failure(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_RETRY", 30.0)
    Failing(keeping, "complete", 1, end_run=True)
    id = begin(keeping, say("Hello"), done())
    ended(keeping)
    assert "could not be stored" in retrieve(keeping, id)["error"]["message"]


def test_an_end_that_cannot_even_fail_is_failed_by_who_reads_it(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_RETRY", 30.0)
    Failing(keeping, "complete", 2, end_run=True)
    id = begin(keeping, say("Hello"), done())
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "in_progress"
    monkeypatch.setattr(background, "_STALE", -1.0)
    assert "died" in retrieve(keeping, id)["error"]["message"]


@pytest.mark.parametrize("words", [1, 100])
def test_what_is_larger_than_the_store_may_be_is_a_failure_at_once(words: int) -> None:
    keeping = Keeping(store_max_bytes=20_000)
    gate = Gate()
    id = begin(keeping, *[say("x" * (30_000 // words))] * words, *([gate] if words > 1 else []), done())
    found = keeping.app._background
    assert found is not None
    if words > 1:  # the events are too many before the end comes
        with found._changed:
            jobs = list(found._jobs.values())
            assert found._changed.wait_for(lambda: all(job.cancel.is_set for job in jobs), timeout=20)
    gate.open()
    ended(keeping)
    failed = retrieve(keeping, id)
    assert (failed["status"], "could not be stored" in failed["error"]["message"]) == ("failed", True)
    assert followed(keeping, id)[-1]["type"] == "response.failed"


def test_events_that_wait_for_too_long_end_the_response(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(background, "_STALE", -1.0)
    Failing(keeping, "beat", 1)
    id = begin(keeping, gate, say("x"), done())
    [job] = keeping.app._background._jobs.values()  # type: ignore[union-attr]
    changed = keeping.app._background._changed  # type: ignore[union-attr]
    with changed:
        assert changed.wait_for(lambda: job.cancel.is_set, timeout=20)
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "failed"


@pytest.mark.parametrize("max_bytes", [500, 2_000], ids=["the response", "its first events"])
def test_what_cannot_be_stored_as_it_is_queued_is_refused(max_bytes: int) -> None:
    keeping = Keeping(store_max_bytes=max_bytes)
    response = keeping.post(body={"model": "demo", "input": "x", "background": True})
    assert error(response)["param"] == "background"
    assert keeping.app.store is not None
    assert keeping.app.store.page("response", None).rows == []


@pytest.mark.parametrize("method", ["add", "begin_run"])
def test_a_store_that_fails_begins_nothing(keeping: Keeping, method: str) -> None:
    Failing(keeping, method, 1)
    response = keeping.post(body={"model": "demo", "input": "x", "background": True})
    assert error(response, 503)["code"] == "store_failed"
    assert keeping.app.store is not None
    assert keeping.app.store.page("response", None).rows == []


def test_a_store_that_fails_for_a_while_is_logged_twice(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "_INTERVAL", 0.01)
    before, after = [Gate(), Gate()], [Gate(), Gate()]
    for first, last in zip(before, after, strict=True):
        begin(keeping, first, say("Hello"), last, done())
        assert first.reached.wait(20)
    Failing(keeping, "beat", 10)
    for gate in before:
        gate.open()
    work = keeping.app._background
    assert work is not None
    with work._changed:
        assert work._changed.wait_for(lambda: "again" in caplog.text, timeout=20)
    for gate in after:
        gate.open()
    ended(keeping)
    assert [record.message for record in caplog.records] == [
        "background responses cannot be stored at present: gone",
        "background responses are stored again",
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_thread_nothing_is_started(keeping: Keeping, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background, "_thread", fail)
    response = keeping.post(body={"model": "demo", "input": "x", "background": True, "stream": stream})
    assert error(response, 503)["code"] == "overloaded"
    assert keeping.app.store is not None
    assert keeping.app.store.page("response", None).rows == []
    ended(keeping)


def test_a_defect_of_a_report_does_not_end_all_reports(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, report, raised = Gate(), background.Job.report, threading.Event()

    def once(job: background.Job) -> bool:
        if not raised.is_set():
            raised.set()
            raise RuntimeError("defect")
        return report(job)

    monkeypatch.setattr(background.Job, "report", once)
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    assert raised.wait(20)
    response = keeping.client.get(f"/v1/responses/{id}?stream=true", buffered=False)
    assert next(iter(response.response))  # reported while it goes on
    response.close()
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "completed"


def test_a_failure_to_report_does_not_end_the_work(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_BEAT", 0.0)
    gate, failed = Gate(), threading.Event()

    def fail(*arguments: Any) -> Any:
        failed.set()
        raise StoreFailed("gone")

    monkeypatch.setattr(keeping.app.store, "beat_all", fail)
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    assert failed.wait(20)
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id)["status"] == "completed"


def test_a_defect_at_the_end_is_a_failed_response(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("defect")

    monkeypatch.setattr(background.Job, "finish", fail)
    id = begin(keeping, say("x"), done())
    ended(keeping)
    assert retrieve(keeping, id)["error"]["message"] == "The gateway failed."


def test_a_conversation_deleted_meanwhile_fails_no_response(keeping: Keeping) -> None:
    conversation = keeping.post("/conversations").get_json()["id"]
    gate = Gate()
    id = begin(keeping, gate, say("Hello"), done(), conversation=conversation)
    keeping.client.delete(f"/v1/conversations/{conversation}")
    gate.open()
    ended(keeping)
    found = retrieve(keeping, id)
    assert (found["status"], found["conversation"], found["output"][0]["content"][0]["text"]) == (
        "completed",
        None,
        "Hello",
    )


def test_a_parent_deleted_meanwhile_fails_no_response(keeping: Keeping) -> None:
    parent, gate = keeping.ask(say("One"), done(), input="1")["id"], Gate()
    id = begin(keeping, gate, say("Two"), done(), input="2", previous_response_id=parent)
    keeping.client.delete(f"/v1/responses/{parent}")
    gate.open()
    ended(keeping)
    keeping.ask(input="3", previous_response_id=id)
    assert keeping.sent() == [user("1"), assistant("One"), user("2"), assistant("Two"), user("3")]


def test_a_process_that_stops_while_its_store_fails_stops(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, gate, say("x"), done())
    Failing(keeping, "run", 1)
    assert keeping.app._background is not None
    keeping.app._background.close()
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id)["status"] in ("queued", "in_progress")  # until it is stale


def test_a_process_exits_once_its_work_is_ended(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's thread ends the work while the main thread exits, and a process that exits leaves no thread."""
    found, gate = keeping.app._background, Gate()
    assert found is not None
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    job, end, is_ending, has_exited = found._jobs[id], found._end, threading.Event(), threading.Event()

    def end_slowly(*arguments: Any) -> None:
        if job.cancel.is_set:  # then it leaves the table before its end is stored
            gate.open()
            ended(keeping)
        is_ending.set()
        has_exited.wait(0.5)
        end(*arguments)

    monkeypatch.setattr(found, "_end", end_slowly)
    first = threading.Thread(target=found.close)
    first.start()
    assert is_ending.wait(20)
    found.close()  # as at the exit of the process
    status = retrieve(keeping, id)["status"]
    has_exited.set()
    first.join(20)
    gate.open()
    assert status == "failed"


def test_a_cancelled_one_waits_no_longer() -> None:
    keeping = Keeping(max_background=1)
    gates = [Gate() for _ in range(1 + background._MAX_WAITING)]
    started = [begin(keeping, gate, say("x"), done()) for gate in gates]
    assert keeping.client.post(f"/v1/responses/{started[-1]}/cancel").get_json()["status"] == "cancelled"
    last = begin(keeping, say("x"), done())
    for gate in gates:
        gate.open()
    ended(keeping)
    assert retrieve(keeping, last)["status"] == "completed"
    assert retrieve(keeping, started[-1])["status"] == "cancelled"


def test_one_that_waits_is_dropped_when_another_process_cancels_it(
    two: tuple[Keeping, Keeping], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    monkeypatch.setattr(background, "_BEAT", 0.0)
    found = first.app._background
    assert found is not None
    monkeypatch.setattr(found, "_threads", 1)
    gate = Gate()
    ids = [begin(first, gate, say("x"), done()), begin(first, say("x"), done())]
    assert second.client.post(f"/v1/responses/{ids[1]}/cancel").status_code == 200
    with found._changed:
        assert found._changed.wait_for(lambda: list(found._jobs) == ids[:1], timeout=20)
    gate.open()
    ended(first)
    assert [retrieve(second, id)["status"] for id in ids] == ["completed", "cancelled"]


# -- followers --------------------------------------------------------------------------------


def test_a_follower_sees_that_the_process_died_before_it_began(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeping.app.store is not None
    monkeypatch.setattr(keeping.app.store, "begin_run", lambda *arguments: None)
    gate, now, waits = Gate(), time.time(), []

    def wait(found: background.Background) -> None:
        waits.append(found)
        assert len(waits) < 10
        monkeypatch.setattr(time, "time", lambda: now + 60)

    id = begin(keeping, gate, say("x"), done())
    monkeypatch.setattr(background.Background, "wait", wait)
    assert followed(keeping, id, starting_after=-9)[-1]["type"] == "response.failed"
    gate.open()


def test_a_follower_sees_that_the_response_was_deleted(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    response = keeping.client.get(f"/v1/responses/{id}?stream=true", buffered=False)
    body = iter(response.response)
    found = events(next(body))  # type: ignore[arg-type]
    keeping.client.delete(f"/v1/responses/{id}")
    found += events(b"".join(body))  # type: ignore[arg-type]
    assert (found[-1]["type"], found[-1]["code"]) == ("error", "not_found")
    assert found[-1]["sequence_number"] >= found[-2]["sequence_number"]
    gate.open()


def test_a_follower_whose_store_fails_can_go_on_from_the_number_of_the_error(keeping: Keeping) -> None:
    id = begin(keeping, say("Hello"), done())
    ended(keeping)
    whole = followed(keeping, id)
    Failing(keeping, "events", 1)
    [failure] = followed(keeping, id, starting_after=2)
    assert (failure["type"], failure["code"]) == ("error", "store_failed")
    assert followed(keeping, id, starting_after=failure["sequence_number"]) == whole[3:]


def test_head_follows_nothing(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, gate, say("x"), done())
    response = keeping.client.head(f"/v1/responses/{id}?stream=true")
    assert (response.status_code, response.data) == (200, b"")
    gate.open()


def test_a_number_without_a_stream_is_listed(keeping: Keeping) -> None:
    id = begin(keeping, say("x"), done())
    ended(keeping)
    assert keeping.get(f"/responses/{id}", starting_after=0).headers["openai-compat-ignored"] == "starting_after"


def test_nothing_is_started_before_the_first() -> None:
    app = OpenAICompat(lambda environ, start_response: [], store="sqlite://")
    assert app._background is not None
    assert app._background._reporter is None
