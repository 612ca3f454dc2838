"""OpenAI's Agents SDK over the Responses API; the versions are those of ``agents.txt``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.frameworks.backend import FORMS, NAME, SAID, TOLD, City, Model, expected
from tests.frameworks.served import Run, served
from tests.frameworks.task import MODELS, PROMPT, Report, Task

agents = pytest.importorskip("agents", reason="the package openai-agents is not installed")
openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")
pytest.importorskip("sqlalchemy", reason="the package sqlalchemy is not installed")

WHOLE_AND_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@agents.function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


#: as the model calls it
RAIN = TOLD + "rain in demo"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the client would read from the environment, and tell nobody what is run."""
    for name in os.environ:
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    agents.set_tracing_disabled(True)


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    assert model.is_closed


@pytest.fixture
def ignored() -> list[str | None]:
    """What each answer says it ignored of its request."""
    return []


@pytest.fixture
def run(model: Model, ignored: list[str | None]) -> Iterator[Run]:
    """Run what is to be done with a client in an event loop of its own."""
    with served(model, ignored) as run:
        yield run


def agent_of(client: Any, **options: Any) -> Any:
    made = agents.OpenAIResponsesModel(model=NAME, openai_client=client)
    return agents.Agent(**{"name": "Ann", "instructions": "Be brief.", "model": made, **options})


async def ran(agent: Any, prompt: Any, stream: bool = False, **options: Any) -> Any:
    """The result of a run."""
    if not stream:
        return await agents.Runner.run(agent, prompt, **options)
    result = agents.Runner.run_streamed(agent, prompt, **options)
    raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    assert {event.type for event in raw} >= {"response.created", "response.completed"}
    return result


# -- one run ----------------------------------------------------------------------------------


@WHOLE_AND_STREAM
def test_a_turn(run: Run, model: Model, ignored: list[str | None], stream: bool) -> None:
    result = run(lambda client: ran(agent_of(client), "Hello!", stream))
    assert result.final_output == SAID + "Hello!"
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.input_tokens_details.cached_tokens) == (1, 7, 0)
    assert [item.type for item in result.new_items] == ["reasoning_item", "message_output_item"]
    assert ignored == [None]
    [sent] = model.chats
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]


@WHOLE_AND_STREAM
def test_a_function_is_called(run: Run, model: Model, ignored: list[str | None], stream: bool) -> None:
    result = run(lambda client: ran(agent_of(client, tools=[weather]), "The weather?", stream))
    assert result.final_output == RAIN
    kinds = ["reasoning_item", "tool_call_item", "tool_call_output_item", "reasoning_item", "message_output_item"]
    assert [item.type for item in result.new_items] == kinds
    assert ignored == [None] * 2
    *_, asked, called, told = model.chats[1]["messages"]
    assert asked["content"] == "The weather?"
    assert (called["thinking"], called["tool_calls"][0]["function"]["arguments"]) == ("Well.", {"city": "demo"})
    assert (told["role"], told["content"]) == ("tool", "rain in demo")


@WHOLE_AND_STREAM
@FORMS
def test_an_output_type(run: Run, model: Model, stream: bool, form: Any) -> None:
    result = run(lambda client: ran(agent_of(client, output_type=form), "Tell me.", stream))
    assert result.final_output == expected(form)
    assert model.chats[0]["format"]["properties"].keys() == form.model_fields.keys()


@WHOLE_AND_STREAM
def test_an_output_type_beside_a_function(run: Run, model: Model, stream: bool) -> None:
    result = run(lambda client: ran(agent_of(client, output_type=City, tools=[weather]), "Tell me.", stream))
    assert result.final_output == expected(City)


@WHOLE_AND_STREAM
@MODELS
@pytest.mark.parametrize("api", [agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel])
def test_functions_are_called_before_an_output_type(api: Any, name: str, stream: bool) -> None:
    task = Task(name)
    tools = [agents.function_tool(function) for function in task.functions]

    def scenario(client: Any) -> Any:
        made = api(model=name, openai_client=client)
        return ran(agent_of(client, model=made, tools=tools, output_type=Report), PROMPT, stream)

    with served(task.native, []) as run:
        result = run(scenario)
    task.check(result.final_output)


@WHOLE_AND_STREAM
def test_a_forced_function(run: Run, model: Model, stream: bool) -> None:
    settings = agents.ModelSettings(tool_choice="required", parallel_tool_calls=False, temperature=0)
    agent = {"tools": [weather], "model_settings": settings, "tool_use_behavior": "stop_on_first_tool"}
    result = run(lambda client: ran(agent_of(client, **agent), "Hello!", stream))
    assert result.final_output == "rain in demo"
    assert model.chats[0]["options"]["temperature"] == 0


@WHOLE_AND_STREAM
def test_a_handoff(run: Run, model: Model, stream: bool) -> None:
    def scenario(client: Any) -> Any:
        bob = agent_of(client, name="Bob", instructions="You are Bob.")
        return ran(agent_of(client, handoffs=[bob]), "Ask for transfer_to_bob.", stream)

    result = run(scenario)
    assert result.last_agent.name == "Bob"
    assert result.final_output.startswith(TOLD)
    assert [sent["messages"][0]["content"] for sent in model.chats] == ["Be brief.", "You are Bob."]


def test_a_failure_is_raised(run: Run) -> None:
    settings = agents.ModelSettings(max_tokens=2)

    async def scenario(client: Any) -> None:
        made = agents.OpenAIResponsesModel(model="absent", openai_client=client)
        with pytest.raises(openai.NotFoundError):
            await ran(agent_of(client, model=made), "Hello!")
        with pytest.raises(agents.ModelBehaviorError):  # JSON that was cut
            await ran(agent_of(client, output_type=City, model_settings=settings), "Tell me.")

    run(scenario)


# -- several runs -----------------------------------------------------------------------------


@WHOLE_AND_STREAM
@pytest.mark.parametrize("encrypted", [False, True])
def test_items_are_sent_again(run: Run, model: Model, ignored: list[str | None], stream: bool, encrypted: bool) -> None:
    extra = {"store": False, "response_include": ["reasoning.encrypted_content"]} if encrypted else {}

    async def scenario(client: Any) -> Any:
        agent = agent_of(client, tools=[weather], model_settings=agents.ModelSettings(**extra))
        first = await ran(agent, "The weather?", stream)
        return await ran(agent, [*first.to_input_list(), {"role": "user", "content": "Really?"}], stream)

    assert run(scenario).final_output == RAIN
    assert set(ignored) == {None}
    sent = model.chats[2]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [message.get("thinking") for message in sent if message["role"] == "assistant"] == ["Well."] * 2


@WHOLE_AND_STREAM
def test_the_previous_response(run: Run, model: Model, stream: bool) -> None:
    async def scenario(client: Any) -> Any:
        agent = agent_of(client, tools=[weather])
        first = await ran(agent, "The weather?", stream, auto_previous_response_id=True)
        return await ran(agent, "Really?", stream, previous_response_id=first.last_response_id)

    assert run(scenario).final_output == RAIN
    roles = ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert [message["role"] for message in model.chats[3]["messages"]] == roles


@WHOLE_AND_STREAM
def test_a_conversation(run: Run, model: Model, stream: bool) -> None:
    async def scenario(client: Any) -> Any:
        agent, made = agent_of(client, tools=[weather]), await client.conversations.create()
        for prompt in ("The weather?", "Really?"):
            last = await ran(agent, prompt, stream, conversation_id=made.id)
        items = [item.type async for item in client.conversations.items.list(made.id, order="asc")]
        return last.final_output, items

    said, items = run(scenario)
    assert said == RAIN
    assert items == ["message", "reasoning", "function_call", "function_call_output", "reasoning", "message"] * 2
    assert len(model.chats[3]["messages"]) == 8


@WHOLE_AND_STREAM
def test_a_session_of_conversations(run: Run, model: Model, stream: bool) -> None:
    async def scenario(client: Any) -> None:
        agent = agent_of(client, tools=[weather])
        session = agents.OpenAIConversationsSession(openai_client=client)
        for prompt in ("The weather?", "Really?"):
            assert (await ran(agent, prompt, stream, session=session)).final_output == RAIN
        kept = await session.get_items()
        assert [item["type"] for item in kept].count("function_call_output") == 2
        assert len(await session.get_items(limit=3)) == 3
        assert (await session.pop_item())["type"] == "message"
        assert len(await session.get_items()) == len(kept) - 1
        await session.clear_session()

    run(scenario)
    assert [message["role"] for message in model.chats[3]["messages"]].count("tool") == 2


@pytest.mark.parametrize("mode", ["previous_response_id", "input"])
def test_a_session_that_is_compacted(run: Run, model: Model, mode: str) -> None:
    async def scenario(client: Any) -> Any:
        agent = agent_of(client)
        session = agents.OpenAIResponsesCompactionSession(
            "s", agents.SQLiteSession("s"), client=client, model="gpt-4.1", compaction_mode=mode
        )
        session.model = NAME  # only OpenAI's names may be given
        await ran(agent, "Hello!", session=session)
        await session.run_compaction({"force": True})
        kept = await session.get_items()
        return kept, await ran(agent, "And now?", session=session)

    kept, result = run(scenario)
    assert [item["type"] for item in kept][-1] == "compaction"
    assert result.final_output == SAID + "And now?"
    assert "Hello!" in str(model.chats[-1]["messages"])
