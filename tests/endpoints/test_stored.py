"""Stored chat completions: kept with ``store``, listed, read, changed and deleted."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from openai_compat import OpenAICompat
from openai_compat.storage.store import StoreFailed
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, check_stream
from tests.endpoints.requests import MESSAGES
from tests.servers import refusing

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")


class Keeping:
    """A client of a middleware with a store in memory."""

    def __init__(self, **settings: Any) -> None:
        self.fake = FakeOllama()
        self.app = OpenAICompat(self.fake, **{"store": "sqlite://", **settings})
        self.client = Client(self.app)

    def ask(self, text: str = "Hi", **fields: Any) -> Any:
        self.fake.script("/api/chat", say(text), done())
        body = {"model": "demo", "messages": MESSAGES, "store": True, **fields}
        response = self.client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.data
        return response

    def id(self, text: str = "Hi", **fields: Any) -> str:
        return self.ask(text, **fields).get_json()["id"]  # type: ignore[no-any-return]

    def get(self, path: str = "", **query: Any) -> Any:
        return self.client.get(f"/v1/chat/completions{path}", query_string=query)

    def ids(self, **query: Any) -> list[str]:
        response = self.get(**query)
        assert response.status_code == 200, response.data
        check("ChatCompletionList", response.get_json())
        return [completion["id"] for completion in response.get_json()["data"]]


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    keeping = Keeping()
    yield keeping
    assert keeping.app.store is not None
    keeping.app.store.close()


# -- what is kept -----------------------------------------------------------------------------


def test_what_was_answered_is_kept(keeping: Keeping) -> None:
    response = keeping.ask(metadata={"topic": "greeting"})
    assert "openai-compat-ignored" not in response.headers
    completion = response.get_json()
    assert completion["metadata"] == {"topic": "greeting"}
    kept = keeping.get(f"/{completion['id']}").get_json()
    check("CreateChatCompletionResponse", kept)
    assert kept == completion


def test_a_stream_is_kept_too(keeping: Keeping) -> None:
    chunks = check_stream(keeping.ask(stream=True, n=1).data)
    kept = keeping.get(f"/{chunks[0]['id']}").get_json()
    check("CreateChatCompletionResponse", kept)
    assert kept["choices"][0]["message"]["content"] == "Hi"
    assert kept["created"] == chunks[0]["created"]
    assert kept["usage"]["total_tokens"] == 2


@pytest.mark.parametrize("fields", [{"store": False}, {"store": None}])
def test_what_is_not_to_be_kept_is_not(keeping: Keeping, fields: dict[str, Any]) -> None:
    keeping.ask(**fields)
    assert keeping.ids() == []


def test_a_stream_that_fails_is_not_kept(keeping: Keeping) -> None:
    keeping.fake.script("/api/chat", say("x"), b'{"error":"x"}\n')
    body = {"model": "demo", "messages": MESSAGES, "store": True, "stream": True}
    assert b"error" in keeping.client.post("/v1/chat/completions", json=body).data
    assert keeping.ids() == []


def test_without_a_store_it_is_listed_as_ignored() -> None:
    keeping = Keeping(store=None)
    response = keeping.ask(metadata={"a": "b"})
    assert response.headers["openai-compat-ignored"] == "metadata, store"
    assert "metadata" not in response.get_json()
    assert keeping.ids() == []
    assert keeping.get(f"/{response.get_json()['id']}").status_code == 404


def test_metadata_without_store_is_listed_as_ignored(keeping: Keeping) -> None:
    response = keeping.ask(store=None, metadata={"a": "b"})
    assert response.headers["openai-compat-ignored"] == "metadata"


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({str(i): "x" for i in range(17)}, "metadata"),
        ({"k" * 65: "x"}, "metadata." + "k" * 64),
        ({"k": "v" * 513}, "metadata.k"),
        ({"k": "a\x00"}, "metadata"),
    ],
)
def test_metadata_is_bounded(keeping: Keeping, metadata: dict[str, str], param: str) -> None:
    body = {"model": "demo", "messages": MESSAGES, "store": True, "metadata": metadata}
    response = keeping.client.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    assert keeping.fake.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cannot_be_kept_is_answered(
    keeping: Keeping, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise StoreFailed("the database is away")

    monkeypatch.setattr(keeping.app.store, "add", fail)
    response = keeping.ask(stream=stream)
    if stream:
        assert check_stream(response.data)
    else:
        assert response.headers["openai-compat-ignored"] == "store"
        assert "metadata" not in response.get_json()
    assert "could not be stored" in caplog.text


# -- listing ----------------------------------------------------------------------------------


def test_a_list_is_in_order_and_paged(keeping: Keeping) -> None:
    made = [keeping.id() for _ in range(5)]
    assert keeping.ids() == made
    assert keeping.ids(order="desc") == made[::-1]
    page = keeping.get(limit=2).get_json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[0], made[1], True)
    page = keeping.get(limit=2, after=made[2]).get_json()
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (made[3:], False)
    assert keeping.ids(after=made[2], order="desc") == made[1::-1]
    assert keeping.ids(limit=1000) == made


def test_an_empty_list(keeping: Keeping) -> None:
    page = keeping.get().get_json()
    check("ChatCompletionList", page)
    assert page == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


def test_a_list_of_a_model_or_of_metadata(keeping: Keeping) -> None:
    one = keeping.id(metadata={"a": "1", "b": "x"})
    two = keeping.id(metadata={"a": "1"})
    keeping.fake.script("/api/chat", say("x"), done())
    three = keeping.id(model="demo-think")
    assert keeping.ids(model="demo") == [one, two]
    assert keeping.ids(model="demo-think") == [three]
    assert keeping.ids(**{"metadata[a]": "1"}) == [one, two]
    assert keeping.ids(**{"metadata[a]": "1", "metadata[b]": "x"}) == [one]
    assert keeping.ids(**{"metadata[a]": "%"}) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": "x"}, "limit"), ({"limit": "-1"}, "limit"), ({"order": "up"}, "order"), ({"after": "x"}, "after")],
)
def test_an_argument_that_is_none_is_named(keeping: Keeping, query: dict[str, str], param: str) -> None:
    keeping.ask()
    response = keeping.get(**query)
    check("ErrorResponse", response.get_json())
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


def test_unknown_arguments_are_listed(keeping: Keeping) -> None:
    assert keeping.get(foo="1", limit="").headers["openai-compat-ignored"] == "foo"
    id = keeping.id()
    response = keeping.get(f"/{id}/messages", model="x", **{"metadata[a]": "b"})
    assert response.headers["openai-compat-ignored"] == "metadata[a], model"


def test_too_many_arguments_are_a_400(keeping: Keeping) -> None:
    assert keeping.get(**{f"a{i}": "x" for i in range(101)}).status_code == 400


# -- one --------------------------------------------------------------------------------------


def test_metadata_is_replaced(keeping: Keeping) -> None:
    id = keeping.id(metadata={"a": "1"})
    response = keeping.client.post(f"/v1/chat/completions/{id}", json={"metadata": {"b": "2"}, "foo": 1})
    check("CreateChatCompletionResponse", response.get_json())
    assert response.get_json()["metadata"] == {"b": "2"}
    assert response.headers["openai-compat-ignored"] == "foo"
    assert keeping.get(f"/{id}").get_json()["metadata"] == {"b": "2"}
    assert keeping.ids(**{"metadata[a]": "1"}) == []
    assert keeping.ids(**{"metadata[b]": "2"}) == [id]


@pytest.mark.parametrize(
    ("body", "param"), [({}, "metadata"), ({"metadata": 5}, "metadata"), ({"metadata": {"a": 1}}, "metadata.a")]
)
def test_an_update_needs_metadata(keeping: Keeping, body: dict[str, Any], param: str) -> None:
    response = keeping.client.post(f"/v1/chat/completions/{keeping.id()}", json=body)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


def test_metadata_of_null_is_none(keeping: Keeping) -> None:
    response = keeping.client.post(f"/v1/chat/completions/{keeping.id(metadata={'a': '1'})}", json={"metadata": None})
    assert (response.status_code, response.get_json()["metadata"]) == (200, {})


def test_it_is_deleted(keeping: Keeping) -> None:
    id = keeping.id()
    response = keeping.client.delete(f"/v1/chat/completions/{id}", content_type="application/json")
    check("ChatCompletionDeleted", response.get_json())
    assert response.get_json() == {"object": "chat.completion.deleted", "id": id, "deleted": True}
    assert keeping.get(f"/{id}").status_code == 404
    assert keeping.ids() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/x"), ("POST", "/x"), ("DELETE", "/x"), ("GET", "/x/messages"), ("GET", "/x%27%20OR%201=1")],
)
def test_what_is_not_there_is_a_404(keeping: Keeping, method: str, path: str) -> None:
    keeping.ask()
    body = {"metadata": {}} if method == "POST" else None
    response = keeping.client.open(f"/v1/chat/completions{path}", method=method, json=body)
    check("ErrorResponse", response.get_json())
    assert response.status_code == 404


def test_the_messages_of_one(keeping: Keeping) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "name": "Ann",
            "content": [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": image}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    id = keeping.id(messages=messages)
    page = keeping.get(f"/{id}/messages").get_json()
    assert [message["role"] for message in page["data"]] == ["system", "user", "assistant", "tool"]
    assert page["data"][0] == {
        "id": f"{id}-0",
        "role": "system",
        "content": "Be brief.",
        "refusal": None,
        "name": None,
        "content_parts": None,
    }
    assert page["data"][1]["content"] is None
    assert page["data"][1]["content_parts"] == messages[1]["content"]
    assert page["data"][2]["tool_calls"] == messages[2]["tool_calls"]
    assert page["data"][3]["tool_call_id"] == "c1"
    assistants = {**page, "data": [{**message, "role": "assistant"} for message in page["data"]]}
    check("ChatCompletionMessageList", assistants)  # the schema knows no other role, OpenAI's answers do
    assert (page["first_id"], page["last_id"], page["has_more"]) == (f"{id}-0", f"{id}-3", False)
    last = keeping.get(f"/{id}/messages", after=f"{id}-1", limit=1).get_json()
    assert [message["id"] for message in last["data"]] == [f"{id}-2"]
    assert last["has_more"] is True


def test_the_messages_keep_the_old_form(keeping: Keeping) -> None:
    call = {"name": "f", "arguments": "{}"}
    id = keeping.id(messages=[*MESSAGES, {"role": "assistant", "content": None, "function_call": call}, *MESSAGES])
    assert keeping.get(f"/{id}/messages").get_json()["data"][1]["function_call"] == call


def test_a_store_that_fails_is_a_503(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise StoreFailed("the database is away")

    monkeypatch.setattr(keeping.app.store, "get", fail)
    response = keeping.get("/x")
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "store_failed")
    assert "database" not in json.dumps(response.get_json())


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/x"), ("POST", "/x"), ("DELETE", "/x"), ("GET", "/x/messages")]
)
def test_why_a_store_failed_is_logged_without_secrets(caplog: pytest.LogCaptureFixture, method: str, path: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    with refusing() as address:
        keeping = Keeping(store=f"postgresql+psycopg://user:hunter2@{address[7:]}/database")
        body = {"metadata": {"a": "s3cr3t"}} if method == "POST" else None
        for _ in range(2):
            response = keeping.client.open(f"/v1/chat/completions{path}", method=method, json=body)
            check("ErrorResponse", response.get_json())
            assert (response.status_code, response.get_json()["error"]["code"]) == (503, "store_failed")
            assert "x-should-retry" not in response.headers
    first, second = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert first.startswith("The store failed: OperationalError: connection failed")
    assert second.startswith("The store is not asked for 5 s after a failure: OperationalError")
    for text in (first, second, response.get_data(as_text=True)):
        assert [secret for secret in ("hunter2", "user", "127.0.0.1", "s3cr3t", "SELECT") if secret in text] == []
    assert "refused" in first


def test_a_store_that_hangs_holds_neither_answers_nor_lists(tmp_path: Path) -> None:
    """Another program holds the lock of the file."""
    keeping = Keeping(store=f"sqlite:///{tmp_path}/store.db")
    store = keeping.app.store
    assert store is not None
    store._timeout = 0.2
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN EXCLUSIVE")
        for stream in (False, True, False):
            began = time.monotonic()
            response = keeping.ask(stream=stream)
            assert b"Hi" in response.data
            assert time.monotonic() - began < 1.0
        assert response.headers["openai-compat-ignored"] == "store"
        assert keeping.get().status_code == 503
    store.close()


# -- damage -----------------------------------------------------------------------------------

#: what may be left of an object's JSON
BROKEN = [b"", b"{", b'{"id": "x"', b"[]", b"null", b'{"a": "\xff"}', b'{"a": tru}', b'{"a":' * 5000, b"\x00" * 100, 5]


def damage(keeping: Keeping, table: str, id: str, body: Any) -> None:
    assert keeping.app.store is not None
    with keeping.app.store._begin(write=True) as tx:
        statement = f"UPDATE openai_compat_{table} SET body = ? WHERE id = ?"
        assert tx.exec_driver_sql(statement, (body, id.encode())).rowcount == 1


@pytest.mark.parametrize("body", BROKEN)
def test_a_damaged_completion_is_left_out_of_a_list_and_a_503_alone(
    keeping: Keeping, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    made = [keeping.id("s3cr3t", metadata={"a": "b"}) for _ in range(3)]
    damage(keeping, "objects", made[1], body)
    assert keeping.ids() == keeping.ids(**{"metadata[a]": "b"}) == [made[0], made[2]]
    assert "The stored object 2 is damaged: body. It is left out of a list." in caplog.text
    page = keeping.get(limit=1, after=made[0]).get_json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == ([made[2]], False)
    for method in ("GET", "POST"):
        path = f"/v1/chat/completions/{made[1]}"
        response = keeping.client.open(path, method=method, json={"metadata": {"a": "c"}} if method == "POST" else None)
        check("ErrorResponse", response.get_json())
        assert (response.status_code, response.get_json()["error"]["code"]) == (503, "store_failed")
        assert response.headers["x-should-retry"] == "false"
    assert keeping.get(f"/{made[1]}/messages").status_code == 200
    assert keeping.client.delete(f"/v1/chat/completions/{made[1]}").status_code == 200
    assert keeping.get(f"/{made[1]}").status_code == 404
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize("body", BROKEN)
def test_a_damaged_message_is_left_out_of_a_list(keeping: Keeping, caplog: pytest.LogCaptureFixture, body: Any) -> None:
    id = keeping.id(messages=[*MESSAGES, *MESSAGES, *MESSAGES])
    count = 3 * len(MESSAGES)
    damage(keeping, "items", f"{id}-1", body)
    page = keeping.get(f"/{id}/messages").get_json()
    assert [message["id"] for message in page["data"]] == [f"{id}-{i}" for i in range(count) if i != 1]
    assert "The stored item 1 of object 1 is damaged: body." in caplog.text


# -- the setting ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["nonsense", "mysql+nothing://x", "http://x"])
def test_a_store_that_is_none_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="store|URL|driver"):
        OpenAICompat(FakeOllama(), store=url)


def test_the_oldest_go_first() -> None:
    keeping = Keeping(store_max_objects=2)
    made = [keeping.id() for _ in range(3)]
    assert keeping.ids() == made[1:]
    assert keeping.app.store is not None
    keeping.app.store.close()


def test_how_long_completions_are_stored_is_a_setting() -> None:
    keeping = Keeping(store_ttl=1e-6)
    made = keeping.id()
    assert keeping.ids() == []
    assert keeping.get(f"/{made}").status_code == 404
    assert keeping.app.store is not None
    keeping.app.store.close()


def test_how_many_bytes_are_stored_is_a_setting() -> None:
    keeping = Keeping(store_max_bytes=5000)
    made = [keeping.id("x" * 2000) for _ in range(3)]
    assert keeping.ids() == made[-len(keeping.ids()) :]
    assert len(keeping.ids()) in (1, 2)
    assert keeping.app.store is not None
    keeping.app.store.close()


# -- a store in the way of an answer ----------------------------------------------------------


def test_only_done_waits_for_the_store(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames but the terminal one have left when the completion is stored; that one follows the write."""
    seen: list[bytes] = []
    stored_at: list[int] = []
    add = keeping.app.store.add  # type: ignore[union-attr]

    def adding(*args: Any) -> None:
        stored_at.append(len(seen))
        add(*args)

    monkeypatch.setattr(keeping.app.store, "add", adding)
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "store": True, "stream": True}
    items, status, _ = run_wsgi_app(
        keeping.app, EnvironBuilder("/v1/chat/completions", method="POST", json=body).get_environ()
    )
    for item in items:
        seen.append(item)
    assert status == "200 OK"
    assert seen[-1] == b"data: [DONE]\n\n"
    assert b'"finish_reason":"stop"' in b"".join(seen[:-1])
    assert stored_at == [len(seen) - 1]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_hangs_ends_an_answer_after_store_timeout(tmp_path: Path, stream: bool) -> None:
    keeping = Keeping(store=f"sqlite:///{tmp_path}/kept.db", store_timeout=0.3)
    assert keeping.ask().status_code == 200
    with closing(sqlite3.connect(tmp_path / "kept.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        response = keeping.ask(stream=stream)
        assert response.status_code == 200
        assert response.data
        assert time.monotonic() - began < 5
        if not stream:
            assert response.headers["openai-compat-ignored"] == "store"
