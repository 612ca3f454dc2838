"""Responses in the background: queued, followed, cancelled; what becomes of those whose process died."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.generation import background
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


def test_a_response_whose_process_died_is_failed(two: tuple[Keeping, Keeping], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two
    gate = Gate()
    id = begin(first, say("Hel"), gate, say("lo"), done())
    assert retrieve(second, id)["status"] in ("queued", "in_progress")
    monkeypatch.setattr(background, "_STALE", -1.0)
    found = retrieve(second, id)
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert followed(second, id)[-1]["type"] == "response.failed"
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


def test_a_process_that_stops_fails_what_it_leaves(keeping: Keeping) -> None:
    gate = Gate()
    id = begin(keeping, say("Hel"), gate, say("lo"), done())
    assert keeping.app._background is not None
    keeping.app._background.close()
    found = retrieve(keeping, id)
    assert (found["status"], "stopped" in found["error"]["message"]) == ("failed", True)
    gate.open()
    ended(keeping)
    assert retrieve(keeping, id) == found


def test_a_defect_is_a_failed_response(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("defect")

    monkeypatch.setattr("openai_compat.endpoints.responses.progress.Progress.stream", fail)
    id = begin(keeping, say("x"), done())
    ended(keeping)
    assert retrieve(keeping, id)["error"]["message"] == "The gateway failed."


def test_nothing_is_started_before_the_first() -> None:
    app = OpenAICompat(lambda environ, start_response: [], store="sqlite://")
    assert app._background is not None
    assert app._background._reporter is None
