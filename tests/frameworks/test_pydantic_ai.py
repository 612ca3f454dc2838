"""pydantic-ai's default model over the Responses API; the versions are those of ``pydantic_ai.txt``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.frameworks.backend import FORMS, NAME, SAID, TOLD, City, Model, expected
from tests.frameworks.served import Run, served
from tests.frameworks.task import MODELS, PROMPT, Report, Task

pydantic_ai = pytest.importorskip("pydantic_ai", reason="the package pydantic-ai-slim is not installed")
openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")
models = pytest.importorskip("pydantic_ai.models.openai")
providers = pytest.importorskip("pydantic_ai.providers.openai")
pytest.importorskip("sqlalchemy", reason="the package sqlalchemy is not installed")

WHOLE_AND_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
OUTPUTS = pytest.mark.parametrize(
    "output", [pydantic_ai.ToolOutput, pydantic_ai.NativeOutput, pydantic_ai.PromptedOutput]
)

#: what the tool says when the model calls it
RAIN = TOLD + "rain in demo"


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the client would read from the environment."""
    for name in os.environ:
        if name.startswith(("OPENAI_", "LOGFIRE_")):
            monkeypatch.delenv(name)


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
    """Run what is to be done with a model of pydantic-ai in an event loop of its own."""
    with served(model, ignored) as run:

        def of_model(scenario: Callable[[Any], Awaitable[Any]]) -> Any:
            def of_client(client: Any) -> Awaitable[Any]:
                provider = providers.OpenAIProvider(openai_client=client)
                return scenario(models.OpenAIResponsesModel(NAME, provider=provider))

            return run(of_client)

        yield of_model


async def ran(agent: Any, prompt: str, stream: bool = False, **options: Any) -> Any:
    """The output of a run, and all its messages."""
    if not stream:
        result = await agent.run(prompt, **options)
        return result.output, result.all_messages()
    async with agent.run_stream(prompt, **options) as result:
        *_, last = [part async for part in result.stream_output(debounce_by=None)]
        return last, result.all_messages()


def kinds(history: Any) -> list[str]:
    return [part.part_kind for message in history for part in message.parts]


# -- one run ----------------------------------------------------------------------------------


@WHOLE_AND_STREAM
def test_a_turn(run: Run, model: Model, ignored: list[str | None], stream: bool) -> None:
    settings = {"max_tokens": 50, "temperature": 0.5}
    output, history = run(
        lambda made: ran(pydantic_ai.Agent(made, instructions="Be brief."), "Hello!", stream, model_settings=settings)
    )
    assert output == SAID + "Hello!"
    assert kinds(history) == ["user-prompt", "thinking", "text"]
    answer = history[-1]
    assert (answer.finish_reason, answer.usage.input_tokens, answer.parts[0].content) == ("stop", 7, "Well.")
    assert ignored == [None]
    [sent] = model.chats
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    assert {"num_predict": 50, "temperature": 0.5}.items() <= sent["options"].items()


@WHOLE_AND_STREAM
def test_a_tool_is_called(run: Run, model: Model, stream: bool) -> None:
    output, history = run(lambda made: ran(pydantic_ai.Agent(made, tools=[weather]), "The weather?", stream))
    assert output == RAIN
    assert kinds(history) == ["user-prompt", "thinking", "tool-call", "tool-return", "thinking", "text"]
    _, called, told = model.chats[1]["messages"]
    assert called["tool_calls"][0]["function"]["arguments"] == {"city": "demo"}
    assert (told["role"], told["content"]) == ("tool", "rain in demo")


@WHOLE_AND_STREAM
@OUTPUTS
@FORMS
def test_an_output_type(run: Run, model: Model, output: Any, form: Any, stream: bool) -> None:
    found, _ = run(lambda made: ran(pydantic_ai.Agent(made, output_type=output(form)), "Tell me.", stream))
    assert found == expected(form)
    assert len(model.chats) == 1


@WHOLE_AND_STREAM
@MODELS
@pytest.mark.parametrize("api", [models.OpenAIResponsesModel, models.OpenAIChatModel])
def test_tools_are_called_before_a_native_output(api: Any, name: str, stream: bool) -> None:
    task = Task(name)

    def scenario(client: Any) -> Any:
        made = api(name, provider=providers.OpenAIProvider(openai_client=client))
        agent = pydantic_ai.Agent(made, tools=task.functions, output_type=pydantic_ai.NativeOutput(Report))
        return ran(agent, PROMPT, stream)

    with served(task.native, []) as run:
        output, _ = run(scenario)
    task.check(output)


@pytest.mark.parametrize("output", [pydantic_ai.ToolOutput, pydantic_ai.PromptedOutput])
def test_an_output_type_is_asked_for_again(run: Run, model: Model, output: Any) -> None:
    model.edits.append(lambda value: {**value, "people": "many"})
    found, _ = run(lambda made: ran(pydantic_ai.Agent(made, output_type=output(City), retries=2), "Tell me."))
    assert found == expected(City)
    assert len(model.chats) == 2


@WHOLE_AND_STREAM
def test_a_failure_is_raised(run: Run, stream: bool) -> None:
    async def scenario(made: Any) -> None:
        absent = models.OpenAIResponsesModel("absent", provider=made._provider)
        with pytest.raises(pydantic_ai.ModelHTTPError) as caught:
            await ran(pydantic_ai.Agent(absent), "Hello!", stream)
        assert caught.value.status_code == 404

    run(scenario)


# -- several runs -----------------------------------------------------------------------------


@WHOLE_AND_STREAM
@pytest.mark.parametrize("settings", [{}, {"openai_store": False}])
def test_messages_are_sent_again(run: Run, model: Model, stream: bool, settings: Any) -> None:
    profile = {"openai_supports_encrypted_reasoning_content": True}  # as of OpenAI's own reasoning models

    async def scenario(made: Any) -> Any:
        reasoning = models.OpenAIResponsesModel(NAME, provider=made._provider, profile=profile)
        agent = pydantic_ai.Agent(reasoning, tools=[weather], model_settings=settings)
        _, history = await ran(agent, "The weather?", stream)
        return await ran(agent, "Really?", stream, message_history=history)

    output, _ = run(scenario)
    assert output == RAIN
    sent = model.chats[2]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert [message.get("thinking") for message in sent if message["role"] == "assistant"] == ["Well."] * 2


@WHOLE_AND_STREAM
def test_thinking_is_sent_again_as_text(run: Run, model: Model, stream: bool) -> None:
    # pydantic-ai holds a model whose name it does not know to be without reasoning items.
    async def scenario(made: Any) -> Any:
        _, history = await ran(pydantic_ai.Agent(made), "Hello!", stream)
        return await ran(pydantic_ai.Agent(made), "Really?", stream, message_history=history)

    run(scenario)
    assert [message["content"] for message in model.chats[1]["messages"]] == [
        "Hello!",
        "<think>\nWell.\n</think>",
        SAID + "Hello!",
        "Really?",
    ]


@WHOLE_AND_STREAM
@pytest.mark.parametrize("setting", ["openai_previous_response_id", "openai_conversation_id"])
def test_the_server_has_the_history(run: Run, model: Model, stream: bool, setting: str) -> None:
    async def scenario(made: Any) -> Any:
        value = "auto"
        if setting == "openai_conversation_id":
            value = (await made.client.conversations.create()).id
        agent = pydantic_ai.Agent(made, tools=[weather], model_settings={setting: value})
        _, history = await ran(agent, "The weather?", stream)
        return await ran(agent, "Really?", stream, message_history=history)

    output, _ = run(scenario)
    assert output == RAIN
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert [message["role"] for message in model.chats[3]["messages"]] == roles


def test_compaction(run: Run, model: Model) -> None:
    async def scenario(made: Any) -> Any:
        compaction = models.OpenAICompaction(message_count_threshold=2)
        agent = pydantic_ai.Agent(made, capabilities=[compaction])
        _, history = await ran(agent, "Hello!")
        return await ran(agent, "And now?", message_history=history)

    output, _ = run(scenario)
    assert output == SAID + "And now?"
    *_, summarized, last = model.chats
    assert "Hello!" in str(summarized["messages"])
    assert "Summarize" in last["messages"][-2]["content"]  # the model said it again


def test_tokens_are_counted(run: Run) -> None:
    async def scenario(made: Any) -> Any:
        limits = pydantic_ai.UsageLimits(input_tokens_limit=5, count_tokens_before_request=True)
        with pytest.raises(pydantic_ai.UsageLimitExceeded):
            await ran(pydantic_ai.Agent(made), "Hello!", usage_limits=limits)

    run(scenario)
