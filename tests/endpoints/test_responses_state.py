"""Responses that go on: from a previous one, in a conversation, by reference, after a restart; stored ones."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.storage.store import StoreFailed
from openai_compat.testing import FakeOllama, Gate, done, say
from tests.contract import check

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")

TRIGGER = {"type": "compaction_trigger"}
MISSING = "resp_" + "0" * 32


class Keeping:
    """A client of a middleware with a store in memory."""

    def __init__(self, **settings: Any) -> None:
        self.fake = FakeOllama()
        # Where other programs take the processors, 2 s are not enough for a transaction.
        self.app = OpenAICompat(self.fake, **{"store": "sqlite://", "store_timeout": 20.0, **settings})
        self.client = Client(self.app)

    def post(self, path: str = "/responses", body: Any = None) -> TestResponse:
        return self.client.post(f"/v1{path}", json={} if body is None else body)

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.client.get(f"/v1{path}", query_string=query)

    def ask(self, *steps: Any, **fields: Any) -> Any:
        """Ask for a response, which must be a good one, and return it; of a stream that of its last event."""
        self.fake.script("/api/chat", *(steps or [say("Hello"), done()]))
        response = self.post(body={"model": "demo", "input": "Hi", **fields})
        assert response.status_code == 200, response.data
        if not fields.get("stream"):
            return response.get_json()
        return json.loads(response.data.decode().strip().rpartition("data: ")[2])["response"]

    def change(self, statement: str) -> None:
        """Change the database as an operator may."""
        assert self.app.store is not None
        with self.app.store._begin(write=True) as tx:
            tx.exec_driver_sql(statement)

    def sent(self) -> list[dict[str, Any]]:
        """The messages of the last native request."""
        return self.fake.requests[-1].json["messages"]  # type: ignore[no-any-return]


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    keeping = Keeping()
    yield keeping
    assert keeping.app.store is not None
    keeping.app.store.close()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def error(response: TestResponse, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.data
    check("ErrorResponse", response.get_json())
    return response.get_json()["error"]  # type: ignore[no-any-return]


# -- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_the_previous_one(keeping: Keeping, stream: bool) -> None:
    first = keeping.ask(say("One"), done(), input="1", instructions="Count.", stream=stream)
    assert first["store"] is True
    second = keeping.ask(say("Two"), done(), input="2", previous_response_id=first["id"], stream=stream)
    # Instructions are not inherited.
    assert keeping.sent() == [user("1"), assistant("One"), user("2")]
    assert second["previous_response_id"] == first["id"]
    keeping.ask(input="3", previous_response_id=second["id"], instructions="Again.", stream=stream)
    assert [message["content"] for message in keeping.sent()] == ["Again.", "1", "One", "2", "Two", "3"]


@pytest.mark.parametrize("path", ["/responses", "/responses/input_tokens", "/responses/compact"])
def test_references_to_a_large_item_have_a_limit(path: str) -> None:
    keeping = Keeping(max_body=10_000)
    [message] = keeping.ask(say("x" * 4_000), done())["output"]
    references = [{"type": "item_reference", "id": message["id"]}] * 3
    keeping.ask(input=references[:2])
    found = error(keeping.post(path, {"model": "demo", "input": references}))
    assert (found["param"], "10000 bytes" in found["message"]) == ("input[2]", True)


def test_a_response_may_go_on_twice(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    for text in ("a", "b"):
        keeping.ask(input=text, previous_response_id=first["id"])
        assert keeping.sent() == [user("1"), assistant("One"), user(text)]


def test_deleting_a_parent_does_not_break_its_children(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    second = keeping.ask(say("Two"), done(), input="2", previous_response_id=first["id"])
    deleted = keeping.client.delete(f"/v1/responses/{first['id']}")
    assert deleted.get_json() == {"id": first["id"], "object": "response", "deleted": True}
    keeping.ask(input="3", previous_response_id=second["id"])
    assert [message["content"] for message in keeping.sent()] == ["1", "One", "2", "Two", "3"]
    found = error(keeping.post(body={"model": "demo", "input": "x", "previous_response_id": first["id"]}))
    assert found["code"] == "previous_response_not_found"


@pytest.mark.parametrize("store_failure", ["answer", "refuse"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_parent_deleted_while_its_child_is_generated_does_not_lose_it(store_failure: str, stream: bool) -> None:
    keeping, gate = Keeping(store_failure=store_failure), Gate()
    first = keeping.ask(say("One"), done(), input="1")
    asked: list[Any] = []

    def ask() -> None:
        asked.append(keeping.ask(gate, say("Two"), done(), input="2", previous_response_id=first["id"], stream=stream))

    thread = threading.Thread(target=ask)
    thread.start()
    assert gate.reached.wait(20)
    assert keeping.client.delete(f"/v1/responses/{first['id']}").status_code == 200
    gate.open()
    thread.join(20)
    [second] = asked
    assert second["store"] is True
    listed = keeping.get(f"/responses/{second['id']}/input_items", order="asc").get_json()["data"]
    assert [item["content"][0]["text"] for item in listed] == ["1", "One", "2"]
    assert listed[1]["id"] == first["output"][0]["id"]
    keeping.ask(input="3", previous_response_id=second["id"])
    assert [message["content"] for message in keeping.sent()] == ["1", "One", "2", "Two", "3"]


def test_thinking_and_calls_go_on(keeping: Keeping) -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}, "id": "call_1"}
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    first = keeping.ask(say(thinking="Hm"), say(tool_calls=[call]), done(), tools=tools)
    result = [{"type": "function_call_output", "call_id": "call_1", "output": "42"}]
    keeping.ask(input=result, previous_response_id=first["id"], tools=tools)
    _, turn, output = keeping.sent()
    assert (turn["thinking"], turn["tool_calls"][0]["function"]["arguments"]) == ("Hm", {"a": 1})
    assert output == {"role": "tool", "content": "42", "tool_call_id": "call_1"}


def test_two_turns_at_once_have_the_history_that_each_was_sent(keeping: Keeping) -> None:
    conversation = keeping.post("/conversations").get_json()["id"]
    keeping.fake.script("/api/chat", say("A-"), say("out"), done())
    body = {"model": "demo", "input": "A-in", "conversation": conversation, "stream": True}
    stream = keeping.client.post("/v1/responses", json=body, buffered=False)
    frames = iter(stream.response)
    next(frames)
    keeping.ask(say("B-out"), done(), input="B-in", conversation=conversation)
    id = json.loads(b"".join(frames).decode().strip().rpartition("data: ")[2])["response"]["id"]  # type: ignore[arg-type]

    def texts(path: str) -> list[str]:
        return [item["content"][0]["text"] for item in keeping.get(path, order="asc").get_json()["data"]]

    assert texts(f"/responses/{id}/input_items") == ["A-in"]
    assert texts(f"/conversations/{conversation}/items") == ["B-in", "B-out", "A-in", "A-out"]


@pytest.mark.parametrize("path", ["/responses", "/responses/input_tokens", "/responses/compact"])
@pytest.mark.parametrize("goes_on", [False, True])
def test_errors_count_the_items_that_the_client_sent(keeping: Keeping, path: str, goes_on: bool) -> None:
    place = {"previous_response_id": keeping.ask()["id"]} if goes_on else {}
    for item, param in (
        ({"role": "bad role!"}, "input[1].role"),
        ({"type": "item_reference", "id": "x"}, "input[1].id"),
    ):
        found = error(keeping.post(path, {"model": "demo", "input": [user("x"), item], **place}))
        assert found["param"] == param


@pytest.mark.parametrize("path", ["/responses", "/responses/input_tokens"])
def test_errors_of_a_conversation_count_the_items_that_the_client_sent(keeping: Keeping, path: str) -> None:
    id = keeping.post("/conversations", {"items": [user("1")]}).get_json()["id"]
    found = error(keeping.post(path, {"model": "demo", "input": [{"role": "bad role!"}], "conversation": id}))
    assert found["param"] == "input[0].role"


def test_an_error_of_the_history_names_what_refers_to_it(keeping: Keeping) -> None:
    first = keeping.ask(input=[user("1"), user("2")])
    keeping.change("UPDATE openai_compat_items SET body = CAST(replace(body, '\"user\"', '5') AS BLOB)")
    found = error(keeping.post(body={"model": "demo", "input": "x", "previous_response_id": first["id"]}))
    wanted = "Invalid type for 'items[0].role': expected a string, but got an integer instead."
    assert found["param"] == "previous_response_id"
    assert found["message"] == f"Invalid 'previous_response_id': {wanted}"


def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    before = Keeping(store=store)
    first = before.ask(say("One"), done(), input="1")
    conversation = before.post("/conversations").get_json()
    before.ask(say("Yes"), done(), input="a", conversation=conversation["id"])
    assert before.app.store is not None
    before.app.store.close()
    after = Keeping(store=store)
    after.ask(input="2", previous_response_id=first["id"])
    assert after.sent() == [user("1"), assistant("One"), user("2")]
    after.ask(input="b", conversation={"id": conversation["id"]})
    assert after.sent() == [user("a"), assistant("Yes"), user("b")]
    assert after.app.store is not None
    after.app.store.close()


def test_items_are_found_by_reference(keeping: Keeping) -> None:
    [message] = keeping.ask(say("One"), done(), input="1")["output"]
    for reference in ({"type": "item_reference", "id": message["id"]}, {"id": message["id"]}):
        keeping.ask(input=[user("1"), reference, user("2")])
        assert keeping.sent() == [user("1"), assistant("One"), user("2")]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"previous_response_id": MISSING}, "previous_response_id", "previous_response_not_found"),
        (
            {"previous_response_id": MISSING, "conversation": "conv_1"},
            "previous_response_id",
            "mutually_exclusive_parameters",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id", "item_not_found"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id", "missing_required_parameter"),
        ({"background": True, "store": False}, "background", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_go_on_is_a_400(
    keeping: Keeping, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    body = {"model": "demo", "input": "x", "stream": stream, **fields}
    found = error(keeping.post(body=body))
    assert (found["param"], found["code"]) == (param, code)
    assert keeping.fake.requests == []


def test_an_unknown_conversation_is_a_404(keeping: Keeping) -> None:
    found = error(keeping.post(body={"model": "demo", "input": "x", "conversation": "conv_1"}), 404)
    assert found["message"] == "Conversation with id 'conv_1' not found."


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": MISSING},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"background": True},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_without_a_store_it_is_said_how_to_configure_one(fields: dict[str, Any]) -> None:
    keeping = Keeping(store=None)
    found = error(keeping.post(body={"model": "demo", "input": "x", **fields}))
    assert "OPENAI_COMPAT_STORE" in found["message"]
    assert found["param"].partition("[")[0] == next(iter(fields))
    assert keeping.fake.requests == []


def test_a_history_that_is_too_long_is_a_400() -> None:
    keeping = Keeping(max_messages=3)
    first = keeping.ask(input=[user("1"), user("2")])
    found = error(keeping.post(body={"model": "demo", "input": "x", "previous_response_id": first["id"]}))
    assert (found["param"], found["code"]) == ("input", "array_above_max_length")


def test_a_history_with_more_bytes_than_a_request_may_have_is_a_400() -> None:
    keeping = Keeping(max_body=10_000)
    first = keeping.ask(input="x" * 8_000)
    second = keeping.ask(input="x" * 8_000, previous_response_id=first["id"])
    found = error(keeping.post(body={"model": "demo", "input": "x", "previous_response_id": second["id"]}))
    assert (found["param"], found["code"]) == ("input", "array_above_max_length")
    assert len(keeping.fake.requests) == 2


# -- what is stored ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_response_is_what_was_answered(keeping: Keeping, stream: bool) -> None:
    steps = (say(thinking="Hm"), say("Hello"), done())
    asked = keeping.ask(*steps, stream=stream, metadata={"a": "b"}, temperature=0.5)
    found = keeping.get(f"/responses/{asked['id']}")
    check("Response", found.get_json())
    assert found.get_json() == asked


def test_the_items_of_an_input_are_listed_with_their_history(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    image = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "input_text", "text": "2"}, {"type": "input_image", "image_url": image}]
    second = keeping.ask(input=[{"role": "user", "content": parts}], previous_response_id=first["id"])
    page = keeping.get(f"/responses/{second['id']}/input_items", order="asc").get_json()
    check("ResponseItemList", page)
    assert [item["content"][0]["text"] for item in page["data"]] == ["1", "One", "2"]
    assert page["data"][1] == first["output"][0]
    assert page["data"][2]["content"][1] == {"type": "input_image", "image_url": image, "detail": "auto"}
    newest = keeping.get(f"/responses/{second['id']}/input_items", limit=2).get_json()
    assert [item["content"][0]["text"] for item in newest["data"]] == ["2", "One"]
    assert newest["has_more"] is True
    rest = keeping.get(f"/responses/{second['id']}/input_items", after=newest["last_id"], limit=2).get_json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([page["data"][0]["id"]], False)


def test_every_kind_of_item_is_listed_as_openai_lists_it(keeping: Keeping) -> None:
    items = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "1"}], "status": "completed"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAxyz"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": {"a": 1}},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "42"}]},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "y"},
        {"role": "assistant", "content": "Done"},
        {"role": "assistant", "content": [{"type": "input_text", "text": "Done"}]},
        {"type": "compaction", "encrypted_content": "gAAAAxyz"},
        {"role": "user", "content": ""},
    ]
    asked = keeping.ask(input=items)
    page = keeping.get(f"/responses/{asked['id']}/input_items", order="asc", limit=100).get_json()
    check("ResponseItemList", page)
    assert len({item["id"] for item in page["data"]}) == len(items)
    assert page["data"][3]["arguments"] == '{"a": 1}'
    conversation = keeping.post("/conversations", {"items": items}).get_json()
    page = keeping.get(f"/conversations/{conversation['id']}/items", order="asc").get_json()
    check("ConversationItemList", page)


def test_store_false_stores_nothing(keeping: Keeping) -> None:
    asked = keeping.ask(store=False)
    assert asked["store"] is False
    assert keeping.get(f"/responses/{asked['id']}").status_code == 404


def test_without_a_store_only_an_explicit_one_is_listed() -> None:
    keeping = Keeping(store=None)
    for fields, listed in (({}, None), ({"store": True}, "store"), ({"store": False}, None)):
        keeping.fake.script("/api/chat", say("Hello"), done())
        response = keeping.post(body={"model": "demo", "input": "x", **fields})
        assert response.headers.get("openai-compat-ignored") == listed
        assert response.get_json()["store"] is False


def test_a_response_belongs_to_its_owner() -> None:
    keeping = Keeping(authenticate=lambda environ: environ.get("HTTP_AUTHORIZATION"))
    ann, bob = ({"Authorization": name} for name in ("ann", "bob"))
    keeping.fake.script("/api/chat", say("Hello"), done())
    asked = keeping.client.post("/v1/responses", json={"model": "demo", "input": "x"}, headers=ann).get_json()
    conversation = keeping.client.post("/v1/conversations", json={"items": [user("a")]}, headers=ann).get_json()
    item = asked["output"][0]["id"]
    for method, path in [
        ("GET", f"/responses/{asked['id']}"),
        ("DELETE", f"/responses/{asked['id']}"),
        ("POST", f"/responses/{asked['id']}/cancel"),
        ("GET", f"/responses/{asked['id']}/input_items"),
        ("GET", f"/conversations/{conversation['id']}"),
        ("DELETE", f"/conversations/{conversation['id']}"),
        ("GET", f"/conversations/{conversation['id']}/items"),
        ("GET", f"/conversations/{conversation['id']}/items/{item}"),
    ]:
        assert keeping.client.open(f"/v1{path}", method=method, headers=bob).status_code == 404, path
    for fields in (
        {"previous_response_id": asked["id"]},
        {"conversation": conversation["id"]},
        {"input": [{"type": "item_reference", "id": item}]},
    ):
        body = {"model": "demo", "input": "x", **fields}
        assert keeping.client.post("/v1/responses", json=body, headers=bob).status_code in (400, 404)
    assert keeping.client.get(f"/v1/responses/{asked['id']}", headers=ann).status_code == 200


@pytest.mark.parametrize("path", [f"/responses/{MISSING}", f"/responses/{MISSING}/input_items"])
@pytest.mark.parametrize("store", ["sqlite://", None])
def test_what_is_not_there_is_a_404(path: str, store: str | None) -> None:
    found = error(Keeping(store=store).get(path), 404)
    assert found["message"] == f"Response with id '{MISSING}' not found."


def test_a_response_without_background_cannot_be_cancelled_or_streamed_again(keeping: Keeping) -> None:
    asked = keeping.ask()
    assert error(keeping.client.post(f"/v1/responses/{asked['id']}/cancel"))["param"] == "response_id"
    assert error(keeping.get(f"/responses/{asked['id']}", stream="true"))["param"] == "stream"
    assert error(keeping.client.post(f"/v1/responses/{MISSING}/cancel"), 404)


def test_a_stream_that_its_client_leaves_is_cancelled_and_not_stored(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("One"), say("Two"), done(), cut=1)
    body = {"model": "demo", "input": "x", "stream": True}
    response = keeping.client.post("/v1/responses", json=body, buffered=False)
    first = next(response.response)
    id = json.loads(first.decode().partition("data: ")[2].partition("\n")[0])["response"]["id"]
    response.close()
    assert keeping.fake.closed == keeping.fake.opened == 1
    assert keeping.get(f"/responses/{id}").status_code == 404


# -- a store that fails -----------------------------------------------------------------------


@pytest.fixture
def failing(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> Keeping:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise StoreFailed("the disk is full")

    for name in ("add", "get", "context", "append", "find_items", "ping"):
        monkeypatch.setattr(keeping.app.store, name, fail)
    return keeping


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_cannot_be_stored_is_answered_and_says_so(
    failing: Keeping, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        asked = failing.ask(stream=stream)
    assert (asked["status"], asked["store"]) == ("completed", False)
    assert "the disk is full" in caplog.text


def test_what_cannot_be_stored_is_listed(failing: Keeping) -> None:
    failing.fake.script("/api/chat", say("Hello"), done())
    response = failing.post(body={"model": "demo", "input": "x"})
    assert response.headers["openai-compat-ignored"] == "store"


def test_nothing_is_generated_where_the_store_cannot_be_written_to(tmp_path: Path) -> None:
    keeping = Keeping(store=f"sqlite:///{tmp_path}/store.db", store_failure="refuse")
    keeping.ask()
    assert keeping.app.store is not None
    [database] = keeping.app.store._databases.values()
    database._timeout = 0.2  # only of what is to fail
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = len(keeping.fake.requests)
        response = keeping.post(body={"model": "demo", "input": "x"})
        assert error(response, 503)["code"] == "store_failed"
        assert response.headers["Retry-After"] == "2"
        assert len(keeping.fake.requests) == before


@pytest.mark.parametrize("fields", [{"previous_response_id": MISSING}, {"conversation": "conv_1"}])
def test_nothing_is_answered_without_its_history(failing: Keeping, fields: dict[str, Any]) -> None:
    found = error(failing.post(body={"model": "demo", "input": "x", **fields}), 503)
    assert found["code"] == "store_failed"
    assert failing.fake.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("store", "method"), [(True, "add"), (False, "append")])
def test_a_turn_that_is_not_in_its_conversation_says_so(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, store: bool, method: str, stream: bool
) -> None:
    conversation = keeping.post("/conversations").get_json()["id"]

    def fail(*arguments: Any, **options: Any) -> Any:
        raise StoreFailed("down")

    monkeypatch.setattr(keeping.app.store, method, fail)
    found = keeping.ask(conversation=conversation, store=store, stream=stream)
    assert (found["store"], found["conversation"]) == (False, None)


def test_a_failed_stream_is_not_stored_and_says_so(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("Hel"), {"error": "the runner died"})
    response = keeping.post(body={"model": "demo", "input": "x", "stream": True})
    found = json.loads(response.data.decode().strip().rpartition("data: ")[2])["response"]
    assert (found["status"], found["store"]) == ("failed", False)
    error(keeping.get(f"/responses/{found['id']}"), 404)


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_is_wanted_and_down_is_a_503_before_anything_is_generated(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    keeping = Keeping(store_failure="refuse")

    def fail(*arguments: Any) -> Any:
        raise StoreFailed("down")

    monkeypatch.setattr(keeping.app.store, "ping", fail)
    found = error(keeping.post(body={"model": "demo", "input": "x", "stream": stream}), 503)
    assert found["code"] == "store_failed"
    assert keeping.fake.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_is_wanted_and_fails_at_the_end_fails_the_response(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    keeping = Keeping(store_failure="refuse")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise StoreFailed("down")

    monkeypatch.setattr(keeping.app.store, "add", fail)
    keeping.fake.script("/api/chat", say("Hello"), done())
    response = keeping.post(body={"model": "demo", "input": "x", "stream": stream})
    if stream:
        *_, event, last = [
            json.loads(frame.partition("data: ")[2]) for frame in response.data.decode().strip().split("\n\n")
        ]
        assert (event["type"], event["code"], last["type"]) == ("error", "store_failed", "response.failed")
        assert last["response"]["store"] is False
    else:
        assert error(response, 503)["code"] == "store_failed"


# -- counting and compacting ------------------------------------------------------------------


def test_the_tokens_of_a_prompt_are_counted(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    keeping.fake.script("/api/chat", say("x"), done(prompt=17))
    body = {"model": "demo", "input": "2", "previous_response_id": first["id"], "truncation": "auto"}
    counted = keeping.post("/responses/input_tokens", body)
    check("TokenCountsResource", counted.get_json())
    assert counted.get_json() == {"object": "response.input_tokens", "input_tokens": 17}
    sent = keeping.fake.requests[-1].json
    assert (sent["options"]["num_predict"], sent["truncate"]) == (1, False)
    assert keeping.sent() == [user("1"), assistant("One"), user("2")]
    keeping.fake.script("/api/chat", say("x"), done(prompt=5))
    counted = keeping.post("/chat/completions/input_tokens", {"model": "demo", "messages": [user("1")]})
    assert counted.get_json() == {"input_tokens": 5}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/responses/input_tokens", {"input": "x"}),
        ("/chat/completions/input_tokens", {"messages": [user("x")]}),
    ],
)
def test_a_prompt_longer_than_the_context_is_counted_too(keeping: Keeping, path: str, body: dict[str, Any]) -> None:
    text = {
        "error": {
            "type": "exceed_context_size_error",
            "message": "the request exceeds the available context size",
            "n_prompt_tokens": 7208,
            "n_ctx": 512,
        }
    }
    keeping.fake.script("/api/chat", {"error": json.dumps(text)}, status="400 Bad Request")
    assert keeping.post(path, {"model": "demo", **body}).get_json()["input_tokens"] == 7208


@pytest.mark.parametrize(
    ("path", "body", "listed"),
    [
        (
            "/responses/input_tokens",
            {"input": "x", "stream": True, "background": True, "store": True, "metadata": {"a": "b"}, "include": ["a"]},
            "background, include, include.a, metadata, store, stream",
        ),
        ("/responses/input_tokens", {"input": "x", "stream": False, "metadata": {}, "max_output_tokens": 5}, "max_o"),
        ("/responses/input_tokens", {"input": "x", "store": False, "include": []}, ""),
        ("/chat/completions/input_tokens", {"messages": [user("x")], "n": 2, "max_tokens": 5}, "max_tokens, n"),
    ],
)
def test_what_has_no_effect_on_a_count_is_listed(
    keeping: Keeping, path: str, body: dict[str, Any], listed: str
) -> None:
    keeping.fake.script("/api/chat", say("x"), done(prompt=5))
    response = keeping.post(path, {"model": "demo", **body})
    assert response.get_json()["input_tokens"] == 5
    assert response.headers.get("openai-compat-ignored", "").startswith(listed)


@pytest.mark.parametrize("counted", [{"prompt": 0}, {"prompt_eval_count": None}])
def test_a_backend_that_does_not_count_is_a_502(keeping: Keeping, counted: dict[str, Any]) -> None:
    keeping.fake.script("/api/chat", say("x"), done(**counted))
    error(keeping.post("/responses/input_tokens", {"model": "demo", "input": "x"}), 502)
    assert keeping.fake.closed == keeping.fake.opened


def test_a_count_that_fails_is_the_native_error(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", {"error": "model 'demo' not found"}, status="404 Not Found")
    found = error(keeping.post("/responses/input_tokens", {"model": "demo", "input": "x"}), 404)
    assert found["code"] == "model_not_found"


def test_a_conversation_is_compacted_and_goes_on(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("They counted to two."), done(prompt=9))
    history = [user("1"), assistant("One"), user("2"), assistant("Two")]
    response = keeping.post("/responses/compact", {"model": "demo", "input": history, "instructions": "Count."})
    compacted = response.get_json()
    check("CompactResource", compacted)
    assert [item["type"] for item in compacted["output"]] == ["message", "message", "compaction"]
    assert [item["content"][0]["text"] for item in compacted["output"][:2]] == ["1", "2"]
    assert compacted["usage"]["input_tokens"] == 9
    system, *before, asked = keeping.sent()
    assert (system["content"], before) == ("Count.", history)
    assert "Summarize" in asked["content"]
    keeping.ask(input=[*compacted["output"], user("3")])
    *_, summary, last = keeping.sent()
    assert summary == user("Summary of the conversation so far:\n\nThey counted to two.")
    assert last == user("3")


def test_compaction_returns_parts_in_the_form_of_the_responses_api(keeping: Keeping) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    parts = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "input_image", "image_url": image, "detail": None},
        {"type": "input_file", "file_data": "data:,x", "filename": None},
        {"type": "file", "file": {"file_data": "data:,x"}},
    ]
    keeping.fake.script("/api/chat", say("All"), done())
    response = keeping.post("/responses/compact", {"model": "demo", "input": [{"role": "user", "content": parts}]})
    check("CompactResource", response.get_json())
    kinds = [part["type"] for part in response.get_json()["output"][0]["content"]]
    assert kinds == ["input_image", "input_image", "input_file", "input_file"]
    keeping.ask(input=[*response.get_json()["output"], user("3")])


def test_a_stored_response_is_compacted(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    keeping.fake.script("/api/chat", say("One it is."), done())
    body = {"model": "demo", "input": [], "previous_response_id": first["id"]}
    compacted = keeping.post("/responses/compact", body).get_json()
    assert [item["type"] for item in compacted["output"]] == ["message", "compaction"]


def summary(text: str) -> dict[str, Any]:
    return user(f"Summary of the conversation so far:\n\n{text}")


def compacted(keeping: Keeping, text: str, **fields: Any) -> dict[str, Any]:
    """A response with a summary, which a trigger asked for."""
    made = keeping.ask(say(text), done(), input=[TRIGGER], **fields)
    assert [item["type"] for item in made["output"]] == ["compaction"]
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("stream", [False, True])
def test_a_compaction_replaces_what_precedes_it_in_a_chain(keeping: Keeping, stream: bool) -> None:
    first = keeping.ask(say("One"), done(), input=[{"role": "developer", "content": "Count."}, user("1")])
    second = compacted(keeping, "They began.", previous_response_id=first["id"], stream=stream)
    third = keeping.ask(say("Two"), done(), input="2", previous_response_id=second["id"], stream=stream)
    system = {"role": "system", "content": "Count."}
    assert keeping.sent() == [system, user("1"), summary("They began."), user("2")]
    keeping.ask(input="3", previous_response_id=third["id"])
    assert keeping.sent() == [system, user("1"), summary("They began."), user("2"), assistant("Two"), user("3")]
    listed = keeping.get(f"/responses/{third['id']}/input_items", order="asc").get_json()["data"]
    assert [item["type"] for item in listed] == ["message", "message", "message", "compaction", "message"]


def test_a_summary_of_a_summary_replaces_it(keeping: Keeping) -> None:
    before = keeping.ask(say("One"), done(), input="1")
    for number in range(3):
        before = compacted(keeping, f"Summary {number}.", previous_response_id=before["id"])
    *_, before_last, asked = keeping.sent()
    assert (before_last, "Summarize" in asked["content"]) == (summary("Summary 1."), True)
    keeping.ask(input="2", previous_response_id=before["id"])
    assert keeping.sent() == [user("1"), summary("Summary 2."), user("2")]


def test_a_compaction_replaces_what_precedes_it_in_a_conversation(keeping: Keeping) -> None:
    id = keeping.post("/conversations").get_json()["id"]
    keeping.ask(say("One"), done(), input="1", conversation=id)
    compacted(keeping, "They began.", conversation=id)
    keeping.ask(say("Two"), done(), input="2", conversation=id)
    assert keeping.sent() == [user("1"), summary("They began."), user("2")]
    compacted(keeping, "They counted.", conversation=id)
    keeping.ask(input="3", conversation=id)
    assert keeping.sent() == [user("1"), user("2"), summary("They counted."), user("3")]


def test_a_history_is_counted_and_compacted_as_it_is_told(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    second = compacted(keeping, "They began.", previous_response_id=first["id"])
    body = {"model": "demo", "input": "2", "previous_response_id": second["id"]}
    keeping.fake.script("/api/chat", say("x"), done(prompt=17))
    assert keeping.post("/responses/input_tokens", body).get_json()["input_tokens"] == 17
    assert keeping.sent() == [user("1"), summary("They began."), user("2")]
    keeping.fake.script("/api/chat", say("They counted."), done())
    output = keeping.post("/responses/compact", body).get_json()["output"]
    assert keeping.sent()[:-1] == [user("1"), summary("They began."), user("2")]
    assert [item["type"] for item in output] == ["message", "message", "compaction"]
    keeping.ask(input=[*output, user("3")])
    assert keeping.sent() == [user("1"), user("2"), summary("They counted."), user("3")]


def test_a_summary_that_was_cut_replaces_nothing(keeping: Keeping) -> None:
    first = keeping.ask(say("One"), done(), input="1")
    second = keeping.ask(say("They"), done("length"), input=[TRIGGER], previous_response_id=first["id"])
    keeping.ask(input="2", previous_response_id=second["id"])
    assert keeping.sent() == [user("1"), assistant("One"), user("2")]


def test_a_compaction_without_a_summary_is_a_502(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say(" "), done())
    found = error(keeping.post("/responses/compact", {"model": "demo", "input": "x"}), 502)
    assert found["code"] == "compaction_failed"


def test_a_foreign_compaction_is_passed_over_and_listed(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("x"), done())
    items = [{"type": "compaction", "encrypted_content": "gAAAAB"}, user("x")]
    response = keeping.post(body={"model": "demo", "input": items})
    assert response.headers["openai-compat-ignored"] == "input[].compaction"
    assert keeping.sent() == [user("x")]


# -- WebSockets -------------------------------------------------------------------------------


def test_a_websocket_handshake_is_a_426(keeping: Keeping) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    found = error(keeping.client.get("/v1/responses", headers=headers), 426)
    assert found["code"] == "websockets_not_offered"
    assert keeping.client.get("/v1/responses").status_code == 405
