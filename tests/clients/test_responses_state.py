"""OpenAI's own client for Python, over a running server that stores: responses and conversations with their state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from openai_compat.testing import FakeOllama, Gate, done, say
from tests.clients import WEATHER, City, Stage, client_of, openai
from tests.servers import live, serving

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytest.importorskip("sqlalchemy", reason="the package sqlalchemy is not installed")

pytestmark = pytest.mark.server

#: seconds until a response in the background must have ended
PATIENCE = 15.0
TOOL = {"type": "function", "strict": False, **WEATHER["function"]}  # type: ignore[dict-item]
CALL = say(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}])


class Server(NamedTuple):
    """A client, the fake behind its server, and the URL of the server."""

    client: Any
    fake: FakeOllama
    url: str

    @property
    def sent(self) -> list[list[tuple[str, str]]]:
        """The role and the text of the messages of each native chat."""
        return [
            [(message["role"], message["content"]) for message in request.json["messages"]]
            for request in self.fake.requests
        ]

    def says(self, *texts: str) -> None:
        """Have the model say these in order, in as many chats."""
        for text in texts:
            self.fake.script("/api/chat", *[say(text[i : i + 4]) for i in range(0, len(text), 4)], done(prompt=9))

    def ask(self, input: Any = "Hello!", **arguments: Any) -> Any:
        return self.client.responses.create(model="llama3.2", input=input, **arguments)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, str]]:
    stage, file = Stage(), tmp_path_factory.mktemp("store") / "store.db"
    with live(stage) as url, serving("--upstream", url, "--store", f"sqlite:///{file}", "--workers", "2") as server:
        yield stage, server.base_url


@pytest.fixture
def server(stage: tuple[Stage, str]) -> Iterator[Server]:
    stage[0].fake = FakeOllama()
    with client_of(stage[1]) as client:
        yield Server(client, stage[0].fake, stage[1])


def text_in(item: Any) -> str:
    return "".join(part.text for part in item.content)


def ended(server: Server, id: str) -> Any:
    """A response in the background, once it has ended."""
    found = server.client.responses.retrieve(id)
    return None if found.status in ("queued", "in_progress") else found


def until(check: Callable[[], Any]) -> Any:
    """What a check returns as soon as it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


# -- responses --------------------------------------------------------------------------------


def test_a_response_is_kept(server: Server) -> None:
    server.says("Good day.")
    made = server.ask(metadata={"topic": "greeting"}, instructions="Be brief.")
    assert (made.output_text, made.store, made.status) == ("Good day.", True, "completed")
    found = server.client.responses.retrieve(made.id)
    assert found == made
    assert (found.metadata, found.usage.input_tokens) == ({"topic": "greeting"}, 9)
    assert server.client.responses.delete(made.id) is None
    with pytest.raises(openai.NotFoundError):
        server.client.responses.retrieve(made.id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_another(server: Server, stream: bool) -> None:
    server.says("One.", "Two.", "Three.")
    last = None
    for text in ("first", "second", "third"):
        arguments = {"previous_response_id": last.id if last else None, "instructions": text.upper()}
        if stream:
            with server.client.responses.stream(model="llama3.2", input=text, **arguments) as events:
                last = events.until_done().get_final_response()
        else:
            last = server.ask(text, **arguments)
    assert last.output_text == "Three."
    assert server.sent[-1] == [
        ("system", "THIRD"),
        ("user", "first"),
        ("assistant", "One."),
        ("user", "second"),
        ("assistant", "Two."),
        ("user", "third"),
    ]
    inputs = list(server.client.responses.input_items.list(last.id, order="asc", limit=2))
    assert [text_in(item) for item in inputs] == ["first", "One.", "second", "Two.", "third"]
    newest = server.client.responses.input_items.list(last.id, limit=1)
    assert ([text_in(item) for item in newest.data], newest.has_more) == (["third"], True)


def test_a_call_and_its_output_by_the_previous_response(server: Server) -> None:
    server.fake.script("/api/chat", CALL, done())
    server.says("It rains.")
    first = server.ask("The weather?", tools=[TOOL])
    [call] = first.output
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    assert server.ask([told], previous_response_id=first.id, tools=[TOOL]).output_text == "It rains."
    assert server.sent[-1] == [("user", "The weather?"), ("assistant", ""), ("tool", "rain")]


def test_what_was_deleted_is_still_the_history_of_others(server: Server) -> None:
    server.says("One.", "Two.", "Three.")
    first = server.ask("first")
    second = server.ask("second", previous_response_id=first.id)
    server.client.responses.delete(first.id)
    server.ask("third", previous_response_id=second.id)
    assert len(server.sent[-1]) == 5


def test_items_are_referred_to(server: Server) -> None:
    server.says("One.", "Two.")
    [item] = server.ask("first").output
    server.ask([{"type": "item_reference", "id": item.id}, {"role": "user", "content": "second"}])
    assert server.sent[-1] == [("assistant", "One."), ("user", "second")]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"previous_response_id": "resp_no"}, "previous_response_not_found"),
        ({"previous_response_id": "resp_no", "conversation": "conv_no"}, "mutually_exclusive_parameters"),
        ({"background": True, "store": False}, None),
    ],
)
def test_what_cannot_be_gone_on_from(server: Server, arguments: Any, code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.ask(**arguments)
    if code:
        assert caught.value.code == code
    assert server.fake.requests == []


def test_output_is_parsed_and_kept(server: Server) -> None:
    server.says('{"name": "Oslo", "people": 700000}', '{"name": "Bergen", "people": 290000}')
    made = server.client.responses.parse(model="llama3.2", input="A city", text_format=City)
    assert made.output_parsed == City(name="Oslo", people=700000)
    with server.client.responses.stream(
        model="llama3.2", input="Another", text_format=City, previous_response_id=made.id
    ) as events:
        assert events.get_final_response().output_parsed.name == "Bergen"


def test_headers_of_raw_responses(server: Server) -> None:
    server.says("One.")
    raw = server.client.responses.with_raw_response.create(
        model="llama3.2", input="first", extra_headers={"X-Client-Request-Id": "mine"}
    )
    assert raw.status_code == 200
    assert raw.headers["x-request-id"]
    assert raw.headers["content-type"].startswith("application/json")
    found = server.client.responses.with_raw_response.retrieve(raw.parse().id)
    assert found.headers["x-request-id"] != raw.headers["x-request-id"]
    assert found.parse().output_text == "One."


# -- in the background ------------------------------------------------------------------------


def test_a_response_in_the_background_is_polled(server: Server) -> None:
    gate = Gate()
    server.fake.script("/api/chat", say("One"), gate, say("."), done())
    made = server.ask("first", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    until(lambda: server.client.responses.retrieve(made.id).status == "in_progress")
    with pytest.raises(openai.BadRequestError, match="finished"):
        server.ask("second", previous_response_id=made.id)
    gate.open()
    assert until(lambda: ended(server, made.id)).output_text == "One."
    server.says("Two.")
    assert server.ask("second", previous_response_id=made.id).output_text == "Two."
    assert server.sent[-1] == [("user", "first"), ("assistant", "One."), ("user", "second")]


def test_the_events_of_a_response_are_followed_again(server: Server) -> None:
    gate = Gate()
    server.fake.script("/api/chat", say("One"), say(" two"), gate, say(" three."), done())
    seen = []
    with server.ask("first", background=True, stream=True) as events:
        for event in events:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    id, last = seen[0].response.id, seen[-1].sequence_number
    with server.client.responses.retrieve(id, stream=True, starting_after=last) as events:
        for event in events:
            seen.append(event)
            gate.open()
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    assert seen[-1].response.output_text == "One two three."
    with server.client.responses.stream(response_id=id) as followed:
        assert followed.get_final_response().output_text == "One two three."
    with server.client.responses.stream(response_id=id, starting_after=last) as followed:
        assert [event.sequence_number for event in followed] == [event.sequence_number for event in seen[last + 1 :]]


def test_a_response_in_the_background_is_cancelled(server: Server) -> None:
    gate = Gate()
    server.fake.script("/api/chat", say("One"), gate, say("."), done())
    made = server.ask("first", background=True)
    until(lambda: server.fake.requests)
    cancelled = server.client.responses.cancel(made.id)
    assert (cancelled.status, cancelled.id) == ("cancelled", made.id)
    gate.open()
    assert server.client.responses.cancel(made.id).status == "cancelled"
    until(lambda: server.fake.opened == server.fake.closed)
    assert list(server.client.responses.retrieve(made.id, stream=True))[-1].response.status == "cancelled"


def test_one_that_waits_for_its_client_is_not_cancelled(server: Server) -> None:
    server.says("One.")
    made = server.ask("first")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        server.client.responses.cancel(made.id)


def test_a_failure_in_the_background(server: Server) -> None:
    server.fake.script("/api/chat", b'{"error": "model not found"}', status="404 Not Found")
    made = server.ask("first", background=True)
    failed = until(lambda: ended(server, made.id))
    assert (failed.status, "not found" in failed.error.message) == ("failed", True)


# -- conversations ----------------------------------------------------------------------------


def test_a_conversation(server: Server) -> None:
    conversations = server.client.conversations
    made = conversations.create(metadata={"topic": "one"}, items=[{"role": "user", "content": "Remember me."}])
    assert conversations.retrieve(made.id) == made
    assert conversations.update(made.id, metadata={"topic": "two"}).metadata == {"topic": "two"}
    server.says("One.", "Two.")
    answer = server.ask("first", conversation=made.id)
    assert answer.conversation.id == made.id
    with server.ask("second", conversation={"id": made.id}, stream=True) as events:
        assert list(events)[-1].type == "response.completed"
    assert server.sent[-1] == [
        ("user", "Remember me."),
        ("user", "first"),
        ("assistant", "One."),
        ("user", "second"),
    ]
    assert [text_in(item) for item in conversations.items.list(made.id, order="asc", limit=2)] == [
        "Remember me.",
        "first",
        "One.",
        "second",
        "Two.",
    ]
    deleted = conversations.delete(made.id)
    assert (deleted.deleted, deleted.object) == (True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError):
        conversations.retrieve(made.id)
    assert server.client.responses.retrieve(answer.id).output_text == "One."


def test_items_of_a_conversation(server: Server) -> None:
    conversations = server.client.conversations
    id = conversations.create().id
    added = conversations.items.create(id, items=[{"role": "user", "content": text} for text in ("a", "b", "c")])
    assert [text_in(item) for item in added.data] == ["a", "b", "c"]
    first, second, _ = added.data
    assert conversations.items.retrieve(second.id, conversation_id=id) == second
    assert conversations.items.delete(second.id, conversation_id=id).id == id
    with pytest.raises(openai.NotFoundError):
        conversations.items.retrieve(second.id, conversation_id=id)
    assert [text_in(item) for item in conversations.items.list(id)] == ["c", "a"]
    assert [text_in(item) for item in conversations.items.list(id, order="asc", after=first.id)] == ["c"]


def test_a_turn_that_fails_adds_nothing(server: Server) -> None:
    id = server.client.conversations.create().id
    server.fake.script("/api/chat", b'{"error": "no"}', status="500 Internal Server Error")
    with pytest.raises(openai.InternalServerError):
        server.ask("first", conversation=id)
    assert list(server.client.conversations.items.list(id)) == []


# -- counts and compaction --------------------------------------------------------------------


def test_tokens_are_counted(server: Server) -> None:
    server.says("One.", "x")
    made = server.ask("first")
    counted = server.client.responses.input_tokens.count(model="llama3.2", input="second", previous_response_id=made.id)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 9)
    assert len(server.sent[-1]) == 3
    assert server.fake.requests[-1].json["options"]["num_predict"] == 1


# The client knows no user's messages in an output, though its description of a compaction has them.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic.main")
def test_a_compaction_is_gone_on_from(server: Server) -> None:
    server.says("One.", "They greeted.", "Two.")
    made = server.ask("first")
    compacted = server.client.responses.compact(model="llama3.2", input="and", previous_response_id=made.id)
    assert (compacted.object, compacted.usage.input_tokens) == ("response.compaction", 9)
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    assert server.ask([*compacted.output, {"role": "user", "content": "second"}]).output_text == "Two."
    assert [text for _, text in server.sent[-1]][:2] == ["first", "and"]
    assert "They greeted." in server.sent[-1][2][1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_compaction_is_asked_for_in_the_input(server: Server, stream: bool) -> None:
    server.fake.script("/api/chat", say(thinking="Hm."), say("They "), say("greeted."), done(prompt=9))
    server.says("Two.")
    given = [{"role": "user", "content": "first"}, {"type": "compaction_trigger"}]
    made = server.ask(given, tools=[TOOL], stream=stream)
    if stream:
        with made:
            *_, added, ended, last = list(made)
        assert (added.type, ended.type, last.type) == (
            "response.output_item.added",
            "response.output_item.done",
            "response.completed",
        )
        assert added.item == ended.item
        made = last.response
    assert [item.type for item in made.output] == ["compaction"]
    assert "tools" not in server.fake.requests[0].json
    assert [role for role, _ in server.sent[0]] == ["user", "user"]
    server.ask([made.output[0], {"role": "user", "content": "second"}])
    assert [("They greeted." in text, text == "second") for _, text in server.sent[-1]] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_compaction_without_a_summary_fails(server: Server, stream: bool) -> None:
    server.fake.script("/api/chat", say(thinking="Hm."), done())
    with pytest.raises(openai.APIError, match="no summary"):
        list(server.ask([{"role": "user", "content": "first"}, {"type": "compaction_trigger"}], stream=stream))


# -- without blocking -------------------------------------------------------------------------


def test_all_of_it_without_blocking(server: Server) -> None:
    server.says("One.", "Two.", "Three.")

    async def main() -> None:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", http_client=http, max_retries=0) as client:
            id = (await client.conversations.create()).id
            await client.responses.create(model="llama3.2", input="first", conversation=id)
            async with client.responses.stream(model="llama3.2", input="second", conversation=id) as events:
                assert (await events.get_final_response()).output_text == "Two."
            found = [text_in(item) async for item in client.conversations.items.list(id, limit=1, order="asc")]
            assert found == ["first", "One.", "second", "Two."]
            made = await client.responses.create(model="llama3.2", input="third", background=True)
            async for event in await client.responses.retrieve(made.id, stream=True):
                last = event
            assert (last.type, last.response.output_text) == ("response.completed", "Three.")
            assert [text_in(item) async for item in client.responses.input_items.list(made.id)] == ["third"]
            await client.responses.delete(made.id)

    asyncio.run(main())
