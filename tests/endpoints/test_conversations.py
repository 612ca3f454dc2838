"""Conversations: created, changed and deleted; their items; responses in them; several writers at once."""

from __future__ import annotations

import io
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openai_compat.testing import done, say
from tests.contract import check
from tests.endpoints.test_responses_state import Keeping, assistant, error, user

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")

MISSING = "conv_" + "0" * 32


@pytest.fixture
def keeping() -> Keeping:
    return Keeping()


def create(keeping: Keeping, **fields: Any) -> str:
    response = keeping.post("/conversations", fields)
    assert response.status_code == 200, response.data
    check("ConversationResource", response.get_json())
    return response.get_json()["id"]  # type: ignore[no-any-return]


def texts(keeping: Keeping, id: str) -> list[str]:
    page = keeping.get(f"/conversations/{id}/items", order="asc", limit=100).get_json()
    check("ConversationItemList", page)
    return [item["content"][0]["text"] for item in page["data"]]


def test_a_conversation_is_created_changed_and_deleted(keeping: Keeping) -> None:
    id = create(keeping, metadata={"a": "b"})
    assert keeping.get(f"/conversations/{id}").get_json()["metadata"] == {"a": "b"}
    changed = keeping.post(f"/conversations/{id}", {"metadata": {"c": "d"}}).get_json()
    check("ConversationResource", changed)
    assert keeping.get(f"/conversations/{id}").get_json() == changed
    assert changed["metadata"] == {"c": "d"}
    assert keeping.post(f"/conversations/{id}", {"metadata": None}).get_json()["metadata"] == {}
    assert error(keeping.post(f"/conversations/{id}", {}))["param"] == "metadata"
    deleted = keeping.client.delete(f"/v1/conversations/{id}").get_json()
    check("DeletedConversationResource", deleted)
    assert deleted == {"id": id, "object": "conversation.deleted", "deleted": True}
    assert error(keeping.get(f"/conversations/{id}"), 404)["message"] == f"Conversation with id '{id}' not found."


def test_a_body_may_be_empty(keeping: Keeping) -> None:
    assert keeping.client.post("/v1/conversations", input_stream=io.BytesIO(), content_length=0).status_code == 200
    assert create(keeping, items=None, metadata=None)


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def image(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_image", **fields}]}


def file(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_file", **fields}]}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (image(file_id="file-1"), "items[1].content[0].file_id"),
        (image(), "items[1].content[0].image_url"),
        (image(image_url="data:image/png;base64,@@@"), "items[1].content[0].image_url"),
        (image(image_url="https://example.com/a.png"), "items[1].content[0].image_url"),
        (file(file_id="file-1"), "items[1].content[0].file_id"),
        (file(file_url="https://example.com/a.pdf"), "items[1].content[0].file_url"),
        (file(file_data="data:application/zip;base64,AAAA"), "items[1].content[0].file_data"),
        (file(), "items[1].content[0].file_data"),
        ({"role": "user", "content": [{"type": "input_sound"}]}, "items[1].content[0]"),
        ({"role": "user", "content": [{"x": 1}]}, "items[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text", "text": 5}]}, "items[1].content[0].text"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": 5}]}, "items[1].content[0].refusal"),
        ({"role": "bad role!", "content": "x"}, "items[1].role"),
        ({"role": "user", "content": "x", "status": 5}, "items[1].status"),
        ({"role": "user", "content": "x", "phase": 5}, "items[1].phase"),
        ({"type": "function_call", "name": "f", "call_id": 5}, "items[1].call_id"),
        ({"type": "function_call", "name": "f", "namespace": 5}, "items[1].namespace"),
        ({"type": "function_call_output", "call_id": "c", "output": "x", "name": 5}, "items[1].name"),
        ({"type": "custom_tool_call", "name": "f", "call_id": "c", "input": {"a": 1}}, "items[1].input"),
        ({"type": "reasoning", "encrypted_content": 5}, "items[1].encrypted_content"),
        ({"type": "additional_tools", "tools": [{"type": "function"}]}, "items[1].tools[0].name"),
        (
            {"type": "tool_search_output", "execution": "client", "tools": [{"type": "namespace", "name": "n" * 257}]},
            "items[1].tools[0].name",
        ),
        ({"type": "additional_tools", "tools": [{"name": f"f{i}"} for i in range(129)]}, "items[1].tools"),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "f"}]},
            "items[1].output[0].file_id",
        ),
    ],
)
def test_items_that_no_response_could_go_on_from_are_refused(keeping: Keeping, item: Any, param: str) -> None:
    id = create(keeping)
    for path in ("/conversations", f"/conversations/{id}/items"):
        assert error(keeping.post(path, {"items": [user("1"), item]}))["param"] == param
    assert texts(keeping, id) == []


def test_too_many_files_are_refused_at_once(keeping: Keeping) -> None:
    text = file(filename="a.txt", file_data="data:text/plain;base64,aGVsbG8=")
    id = create(keeping, items=[text] * 16)
    keeping.ask(conversation=id)
    assert error(keeping.post("/conversations", {"items": [text] * 17}))["param"] == "items[16].content[0].file_data"
    assert keeping.post(f"/conversations/{id}/items", {"items": [text]}).status_code == 200
    keeping.ask(input=[text], conversation=id)
    assert keeping.sent()[-1]["content"] == keeping.sent()[0]["content"]


def test_nothing_is_fetched_before_a_response_goes_on() -> None:
    keeping = Keeping(fetch_images=True, fetch_files=True)
    items = [image(image_url="https://127.0.0.1/a.png"), file(file_url="https://127.0.0.1/a.pdf"), user("x")]
    id = create(keeping, items=items)
    for _ in range(2):
        keeping.fake.script("/api/chat", say("x"), done())
        response = keeping.post(body={"model": "demo", "input": "y", "conversation": id})
        assert response.status_code == 200, "what cannot be fetched is passed over"
        listed = "input[].content[].file_url, input[].content[].image_url"
        assert response.headers["openai-compat-ignored"] == listed
    own = {"model": "demo", "input": [image(image_url="https://127.0.0.1/a.png")], "conversation": id}
    assert error(keeping.post(body=own))["param"] == "input[0].content[0].image_url"


def test_a_page_of_large_items_ends_early() -> None:
    keeping = Keeping(max_body=10_000)
    id = create(keeping)
    for i in range(5):
        assert keeping.post(f"/conversations/{id}/items", {"items": [user(f"{i}" * 4_000)]}).status_code == 200
    found, after = [], {}
    while True:
        page = keeping.get(f"/conversations/{id}/items", order="asc", limit=100, **after).get_json()
        found.append([item["content"][0]["text"][0] for item in page["data"]])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert found == [["0", "1"], ["2", "3"], ["4"]]


def test_items_are_listed_complete(keeping: Keeping) -> None:
    items: list[dict[str, Any]] = [
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "f", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
        {"type": "function_call_output", "call_id": "c"},
        {"type": "custom_tool_call_output", "output": [1, "x"]},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "function_call_output", "call_id": "c", "output": []},
        {"type": "shell_call_output", "call_id": "c", "output": []},
        {"type": "compaction"},
    ]
    id = create(keeping, items=items)
    page = keeping.get(f"/conversations/{id}/items", order="asc").get_json()
    check("ConversationItemList", page)
    found = page["data"]
    assert found[0]["call_id"].startswith("call_")
    assert found[1]["input"] == ""
    assert [item["output"] for item in found[2:7]] == ['{"a": 1}', "", '[1, "x"]', items[5]["output"], []]
    assert found[7]["status"] == "completed"
    keeping.ask(conversation=id)


def test_items_are_added_read_and_deleted(keeping: Keeping) -> None:
    id = create(keeping, items=[user("1")])
    added = keeping.post(f"/conversations/{id}/items?include[]=x", {"items": [assistant("One"), user("2")]})
    check("ConversationItemList", added.get_json())
    first, second = added.get_json()["data"]
    assert (added.get_json()["first_id"], added.get_json()["last_id"]) == (first["id"], second["id"])
    assert texts(keeping, id) == ["1", "One", "2"]
    assert keeping.get(f"/conversations/{id}/items/{first['id']}").get_json() == first
    deleted = keeping.client.delete(f"/v1/conversations/{id}/items/{first['id']}")
    check("ConversationResource", deleted.get_json())
    assert texts(keeping, id) == ["1", "2"]
    for method in ("GET", "DELETE"):
        missing = keeping.client.open(f"/v1/conversations/{id}/items/{first['id']}", method=method)
        assert error(missing, 404)["message"] == f"Item with id '{first['id']}' not found."


def test_items_are_listed_page_by_page_the_newest_first(keeping: Keeping) -> None:
    id = create(keeping, items=[user(str(n)) for n in range(5)])
    seen: list[str] = []
    after = None
    while True:
        page = keeping.get(f"/conversations/{id}/items", limit=2, **({"after": after} if after else {})).get_json()
        seen += [item["content"][0]["text"] for item in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == ["4", "3", "2", "1", "0"]
    assert error(keeping.get(f"/conversations/{id}/items", after="msg_0"))["param"] == "after"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"items": [user("x")] * 21}, "items", "array_above_max_length"),
        ({"items": [{"content": "x"}]}, "items[0].type", "missing_required_parameter"),
        ({"items": ["x"]}, "items[0]", "invalid_type"),
        ({"items": {"a": 1}}, "items", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"items": [{"type": "message", "content": "x"}]}, "items[0].role", "missing_required_parameter"),
        ({"items": [{"type": "message", "role": 5, "content": "x"}]}, "items[0].role", "invalid_type"),
        ({"items": [{"role": "user", "content": 5}]}, "items[0].content", "invalid_type"),
        ({"items": [{"role": "user", "content": {"a": 1}}]}, "items[0].content", "invalid_type"),
        ({"items": [{"role": "user", "content": [{"text": "x"}, 5]}]}, "items[0].content[1]", "invalid_type"),
        ({"items": [{"type": "function_call", "arguments": "{}"}]}, "items[0].name", "missing_required_parameter"),
        ({"items": [{"type": "custom_tool_call", "name": 5}]}, "items[0].name", "invalid_type"),
        ({"items": [{"type": "item_reference", "id": "msg_0"}]}, "items[0].id", "item_not_found"),
        ({"items": [{"type": "item_reference"}]}, "items[0].id", "missing_required_parameter"),
    ],
)
def test_what_is_not_valid_is_a_400(keeping: Keeping, fields: dict[str, Any], param: str, code: str) -> None:
    found = error(keeping.post("/conversations", fields))
    assert (found["param"], found["code"]) == (param, code)
    if "items" in fields:
        id = create(keeping)
        found = error(keeping.post(f"/conversations/{id}/items", fields))
        assert (found["param"], found["code"]) == (param, code)
        assert texts(keeping, id) == []


def test_references_become_what_they_refer_to(keeping: Keeping) -> None:
    [message] = keeping.ask(say("One"), done(), input="1")["output"]
    reference = {"type": "item_reference", "id": message["id"]}
    id = create(keeping, items=[reference])
    added = keeping.post(f"/conversations/{id}/items", {"items": [{"id": message["id"]}]}).get_json()
    assert added["data"][0]["content"] == message["content"]
    assert texts(keeping, id) == ["One", "One"]
    keeping.ask(input="2", conversation=id)
    assert keeping.sent() == [assistant("One"), assistant("One"), user("2")]


@pytest.mark.parametrize("text", ["", None, []])
def test_a_message_may_be_empty(keeping: Keeping, text: Any) -> None:
    id = create(keeping, items=[{"role": "user", "content": text}])
    keeping.ask(input="2", conversation=id)
    assert keeping.sent() == [user(""), user("2")]


@pytest.mark.parametrize("name", ["after", "before"])
def test_a_cursor_that_does_not_exist_is_named(keeping: Keeping, name: str) -> None:
    id = create(keeping, items=[user("1")])
    found = error(keeping.get(f"/conversations/{id}/items", **{name: "msg_0"}))
    assert (found["param"], f"'{name}'" in found["message"]) == (name, True)


def test_what_is_needed_is_asked_for(keeping: Keeping) -> None:
    id = create(keeping)
    assert error(keeping.post(f"/conversations/{id}/items", {}))["param"] == "items"
    assert error(keeping.post(f"/conversations/{id}", {}))["param"] == "metadata"


@pytest.mark.parametrize("store", ["sqlite://", None])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {"metadata": {"a": "b"}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [user("x")]}),
        ("GET", "/items/msg_1", None),
        ("DELETE", "/items/msg_1", None),
    ],
)
def test_what_is_not_there_is_a_404(store: str | None, method: str, path: str, body: Any) -> None:
    keeping = Keeping(store=store)
    error(keeping.client.open(f"/v1/conversations/{MISSING}{path}", method=method, json=body), 404)


def test_without_a_store_it_is_said_how_to_configure_one() -> None:
    assert "OPENAI_COMPAT_STORE" in error(Keeping(store=None).post("/conversations"))["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_adds_its_input_and_output(keeping: Keeping, stream: bool) -> None:
    id = create(keeping, items=[user("1")])
    first = keeping.ask(say("One"), done(), input="2", conversation=id, stream=stream)
    assert keeping.sent() == [user("1"), user("2")]
    assert first["conversation"] == {"id": id}
    assert texts(keeping, id) == ["1", "2", "One"]
    keeping.ask(say("Two"), done(), input="3", conversation={"id": id}, store=False, stream=stream)
    assert keeping.sent() == [user("1"), user("2"), assistant("One"), user("3")]
    assert texts(keeping, id) == ["1", "2", "One", "3", "Two"]
    listed = keeping.get(f"/responses/{first['id']}/input_items", order="asc").get_json()
    assert [item["content"][0]["text"] for item in listed["data"]] == ["1", "2"]
    # One item, in two lists.
    [message] = first["output"]
    assert keeping.get(f"/conversations/{id}/items/{message['id']}").get_json() == message


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_fails_adds_nothing(keeping: Keeping, stream: bool) -> None:
    id = create(keeping, items=[user("1")])
    keeping.fake.script("/api/chat", say("On"), {"error": "the runner died"})
    response = keeping.post(body={"model": "demo", "input": "2", "conversation": id, "stream": stream})
    assert response.data
    assert texts(keeping, id) == ["1"]


def test_a_conversation_deleted_meanwhile_is_listed_as_unstored(keeping: Keeping) -> None:
    id = create(keeping)

    def deleting(environ: Any, start_response: Any) -> Any:
        keeping.client.delete(f"/v1/conversations/{id}")
        return keeping.fake(environ, start_response)

    keeping.app.backend = deleting
    keeping.fake.script("/api/chat", say("One"), done())
    response = keeping.post(body={"model": "demo", "input": "1", "conversation": id})
    assert response.status_code == 200
    assert response.headers["openai-compat-ignored"] == "store"


def test_deleting_a_conversation_keeps_its_responses(keeping: Keeping) -> None:
    id = create(keeping, items=[user("1")])
    asked = keeping.ask(say("One"), done(), input="2", conversation=id)
    keeping.client.delete(f"/v1/conversations/{id}")
    assert keeping.get(f"/responses/{asked['id']}").get_json() == asked
    keeping.ask(input="3", previous_response_id=asked["id"])
    assert keeping.sent() == [user("1"), user("2"), assistant("One"), user("3")]


@pytest.mark.slow
def test_several_writers_lose_nothing_and_keep_their_turns_together(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    apps = [Keeping(store=url, store_timeout=20.0) for _ in range(2)]
    id = create(apps[0])

    def write(n: int) -> None:
        keeping = apps[n % 2]
        items = [user(f"{n}.{part}") for part in range(3)]
        assert keeping.post(f"/conversations/{id}/items", {"items": items}).status_code == 200

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(write, range(24)))
    found = texts(apps[0], id)
    assert len(found) == 72
    turns = [found[i : i + 3] for i in range(0, 72, 3)]
    assert sorted(turns) == sorted([[f"{n}.{part}" for part in range(3)] for n in range(24)])
    with closing(sqlite3.connect(tmp_path / "store.db")) as database:
        assert database.execute("SELECT count(*) FROM openai_compat_items").fetchone() == (72,)
