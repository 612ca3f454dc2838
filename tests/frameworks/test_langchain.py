"""LangChain's models over OpenAI's API; the versions are those of ``langchain.txt``."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any, TypedDict

import pytest

from openai_compat import OpenAICompat, Settings
from tests.frameworks.backend import FORMS, NAME, SAID, TOLD, WAYS, Area, City, Journey, Model, Stop, expected
from tests.frameworks.task import MODELS, PROMPT, Report, Task
from tests.servers import live

langchain = pytest.importorskip("langchain_openai", reason="the package langchain-openai is not installed")
agents = pytest.importorskip("langchain.agents", reason="the package langchain is not installed")
structured = pytest.importorskip("langchain.agents.structured_output")
exceptions = pytest.importorskip("langchain_core.exceptions")
messages = pytest.importorskip("langchain_core.messages")
parsers = pytest.importorskip("langchain_core.output_parsers")
tools = pytest.importorskip("langchain_core.tools")
openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")
tiktoken = pytest.importorskip("tiktoken")

# LangChain dumps openai's parsed completion of a stream, and pydantic does not expect what was parsed in it.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic.main")

WHOLE_AND_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
STRUCTURED = pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])

Make = Callable[..., Any]


class Thing(TypedDict):
    """A thing."""

    name: str
    people: int


@tools.tool
def weather(city: str, days: list[int] | None = None) -> str:
    """Tell the weather."""
    return f"rain in {city}"


@tools.tool
def travel(journey: Journey) -> str:
    """Book a journey."""
    return f"booked {journey.title}"


# -- the models, in process -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what LangChain and its client would read from the environment."""
    for name in os.environ:
        if name.startswith(("OPENAI_", "LANGCHAIN_", "LANGSMITH_")):
            monkeypatch.delenv(name)


@pytest.fixture
def way() -> str:
    return "text"


@pytest.fixture
def model(way: str) -> Iterator[Model]:
    model = Model(way)
    yield model
    assert model.is_closed


@pytest.fixture
def ignored() -> list[str | None]:
    """What each answer says it ignored of its request."""
    return []


@pytest.fixture
def make(model: Model, ignored: list[str | None]) -> Iterator[Make]:
    """Makes a model of LangChain's; it retries as it is wont to."""
    with making(model, ignored) as make:
        yield make


@contextmanager
def making(native: Any, ignored: list[str | None]) -> Iterator[Make]:
    transport = httpx2.WSGITransport(app=OpenAICompat(native))
    note = [lambda response: ignored.append(response.headers.get("openai-compat-ignored"))]
    with openai.DefaultHttpxClient(transport=transport, trust_env=False, event_hooks={"response": note}) as http:
        yield lambda kind, name=NAME, **rest: kind(
            base_url="http://testserver/v1", api_key="x", model=name, http_client=http, **rest
        )


@pytest.fixture
def chat(make: Make) -> Any:
    return make(langchain.ChatOpenAI)


def answered(runnable: Any, prompt: Any, stream: bool) -> Any:
    """One answer, or what its chunks add up to."""
    return reduce(add, runnable.stream(prompt)) if stream else runnable.invoke(prompt)


# -- chat -------------------------------------------------------------------------------------


def test_invoke(chat: Any, model: Model, ignored: list[str | None]) -> None:
    answer = chat.invoke([("system", "Be brief."), ("human", "Hello!")], stop=["END"], max_tokens=50, seed=3)
    assert answer.content == SAID + "Hello!"
    assert answer.usage_metadata["input_tokens"] == 7
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == NAME
    assert ignored == [None]
    [sent] = model.chats
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    assert {"stop": ["END"], "num_predict": 50, "seed": 3}.items() <= sent["options"].items()


def test_stream(chat: Any) -> None:
    chunks = list(chat.stream("Hello!", stream_usage=True))
    assert len([chunk for chunk in chunks if chunk.content]) > 3
    answer = reduce(add, chunks)
    assert answer.content == SAID + "Hello!"
    assert answer.usage_metadata["total_tokens"] > 7
    assert answer.response_metadata["finish_reason"] == "stop"


def test_batch(chat: Any) -> None:
    assert [answer.content for answer in chat.batch(["one", "two", "three"])] == [
        SAID + text for text in ("one", "two", "three")
    ]


def test_several_choices(make: Make, model: Model) -> None:
    result = make(langchain.ChatOpenAI, n=2).generate([[messages.HumanMessage("Hello!")]])
    assert [generation.text for generation in result.generations[0]] == [SAID + "Hello!"] * 2
    assert len(model.chats) == 2


def test_an_image(chat: Any, model: Model) -> None:
    image = {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}
    chat.invoke([messages.HumanMessage([{"type": "text", "text": "What is it?"}, image])])
    assert model.chats[0]["messages"] == [{"role": "user", "content": "What is it?", "images": ["iVBORw0KGgo="]}]


def test_async() -> None:
    model = Model()

    async def ask(url: str) -> tuple[Any, Any, Any]:
        async with openai.DefaultAsyncHttpxClient(trust_env=False) as http:
            chat = langchain.ChatOpenAI(base_url=f"{url}/v1", api_key="x", model=NAME, http_async_client=http)
            whole = await chat.ainvoke("Hello!")
            chunks = [chunk async for chunk in chat.astream("Hello!")]
            return whole, reduce(add, chunks), await chat.with_structured_output(Journey).ainvoke("Where?")

    with live(OpenAICompat(model)) as url:
        whole, streamed, journey = asyncio.run(ask(url))
    assert whole.content == streamed.content == SAID + "Hello!"
    assert journey == expected(Journey)


def test_failures_have_langchain_s_own_classes(make: Make) -> None:
    chat = make(langchain.ChatOpenAI, "nothing")
    with pytest.raises(exceptions.ModelNotFoundError, match="`nothing` does not exist"):
        chat.invoke("Hello!")
    # LangChain looks for the code of an overflow in the text of the error, where this openai has it no more.
    chat = make(langchain.ChatOpenAI, "demo")
    with pytest.raises(exceptions.ModelInvalidRequestError, match="maximum context length is 4096") as caught:
        chat.invoke("word " * 5000)
    assert caught.value.code == "context_length_exceeded"


# -- tools ------------------------------------------------------------------------------------


@WHOLE_AND_STREAM
def test_a_tool_loop(chat: Any, model: Model, stream: bool) -> None:
    bound = chat.bind_tools([weather, travel])
    history: list[Any] = [messages.HumanMessage("the weather, then travel")]
    answer = answered(bound, history, stream)
    assert [call["name"] for call in answer.tool_calls] == ["weather", "travel"]
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    history.append(answer)
    history += [{"weather": weather, "travel": travel}[call["name"]].invoke(call) for call in answer.tool_calls]
    final = answered(bound, history, stream)
    assert (final.content, final.tool_calls) == (TOLD + "booked demo", [])
    [first, second] = model.chats
    assert "format" not in first
    user, called, *results = second["messages"]
    assert [call["function"]["name"] for call in called["tool_calls"]] == ["weather", "travel"]
    assert called["tool_calls"][1]["function"]["arguments"] == answer.tool_calls[1]["args"]
    assert [(result["tool_name"], result["content"]) for result in results] == [
        ("weather", "rain in demo"),
        ("travel", "booked demo"),
    ]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in answer.tool_calls]


@WAYS
@WHOLE_AND_STREAM
@pytest.mark.parametrize(
    ("choice", "names", "reason"),
    [
        ("any", ["weather", "travel"], "tool_calls"),
        ("required", ["weather", "travel"], "tool_calls"),
        (True, ["weather", "travel"], "tool_calls"),
        ("travel", ["travel"], "stop"),
        ({"type": "function", "function": {"name": "travel"}}, ["travel"], "stop"),
    ],
    ids=["any", "required", "True", "name", "object"],
)
def test_a_forced_tool(chat: Any, model: Model, stream: bool, choice: Any, names: list[str], reason: str) -> None:
    answer = answered(chat.bind_tools([weather, travel], tool_choice=choice), "I want to travel.", stream)
    [call] = answer.tool_calls
    assert (call["name"], answer.content, answer.invalid_tool_calls) == ("travel", "", [])
    assert Journey.model_validate(call["args"]["journey"]) == expected(Journey)
    assert answer.response_metadata["finish_reason"] == reason
    check_forced(model.chats[0], names)


@WHOLE_AND_STREAM
@pytest.mark.parametrize("way", ["talk"])
def test_what_is_no_call_is_an_error(chat: Any, model: Model, stream: bool) -> None:
    with pytest.raises(openai.APIError, match="tool_choice"):
        answered(chat.bind_tools([weather], tool_choice="weather"), "The weather?", stream)
    assert len(model.chats) == 1


def check_forced(sent: Any, names: list[str]) -> None:
    """The native request admits calls of these tools, and nothing else."""
    assert [tool["function"]["name"] for tool in sent["tools"]] == names
    assert [call["properties"]["name"] for call in sent["format"]["anyOf"]] == [{"const": name} for name in names]
    assert sent["think"] is False


@WAYS
@pytest.mark.parametrize("named", [City, Stop, Area])
def test_definitions_of_several_tools(chat: Any, model: Model, named: Any) -> None:
    forms = [City, Stop, Area]
    # Of models, LangChain writes the schemas without definitions.
    given = [
        {"type": "function", "function": {"name": form.__name__, "parameters": form.model_json_schema()}}
        for form in forms
    ]
    answer = chat.bind_tools(given, tool_choice="any").invoke(named.__name__)
    assert answer.tool_calls[0]["name"] == named.__name__
    assert named.model_validate(answer.tool_calls[0]["args"])
    assert [tool["function"]["parameters"] for tool in model.chats[0]["tools"]] == [
        form.model_json_schema() for form in forms
    ]


def test_no_tools_and_one_at_a_time(chat: Any, model: Model) -> None:
    assert chat.bind_tools([weather], tool_choice="none").invoke("the weather").content == SAID + "the weather"
    assert "tools" not in model.chats[0]
    bound = chat.bind_tools([weather, travel], parallel_tool_calls=False)
    assert [call["name"] for call in bound.invoke("weather, travel").tool_calls] == ["weather"]


# -- structured output ------------------------------------------------------------------------


def prompt_for(form: Any, method: str) -> str:
    """JSON mode knows no schema: the prompt tells it, in LangChain's words."""
    told = parsers.PydanticOutputParser(pydantic_object=form).get_format_instructions()
    return f"Tell me.\n{told}" if method == "json_mode" else "Tell me."


def check_structured(sent: Any, form: Any, method: str) -> None:
    if method == "function_calling":
        check_forced(sent, [form.__name__])
    elif method == "json_mode":
        assert (sent["format"], "tools" in sent) == ("json", False)
    else:
        assert (sent["format"]["properties"].keys(), "tools" in sent) == (form.model_fields.keys(), False)


@WAYS
@FORMS
@STRUCTURED
def test_structured_output(chat: Any, model: Model, form: Any, method: str, ignored: list[str | None]) -> None:
    found = chat.with_structured_output(form, method=method, include_raw=True).invoke(prompt_for(form, method))
    assert (found["parsed"], found["parsing_error"], ignored) == (expected(form), None, [None])
    [sent] = model.chats
    check_structured(sent, form, method)


@WAYS
@FORMS
@STRUCTURED
def test_structured_output_is_streamed(chat: Any, model: Model, form: Any, method: str) -> None:
    *_, last = chat.with_structured_output(form, method=method).stream(prompt_for(form, method))
    assert last == expected(form)
    check_structured(model.chats[0], form, method)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("form", [Thing, City.model_json_schema()], ids=["TypedDict", "schema"])
def test_structured_output_as_it_grows(chat: Any, form: Any, method: str) -> None:
    steps = list(chat.with_structured_output(form, method=method).stream("Tell me."))
    assert len(steps) > 2
    assert steps[-1] == {"name": "demo", "people": 1}


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_a_model_within_itself(chat: Any, method: str) -> None:
    # By function_calling LangChain's schema says nothing about the inner one.
    found = chat.with_structured_output(Area, method=method).invoke(prompt_for(Area, method))
    assert isinstance(found, Area)


@pytest.mark.parametrize("strict", [False, True])
def test_strictness_of_functions(chat: Any, strict: bool, ignored: list[str | None]) -> None:
    runnable = chat.with_structured_output(Journey, method="function_calling", strict=strict)
    assert runnable.invoke("Tell me.") == expected(Journey)
    # The call is held to the schema by its format, whether strict or not.
    assert ignored == [None]


def test_structured_output_beside_tools(chat: Any, model: Model) -> None:
    runnable = chat.with_structured_output(City, method="json_schema", tools=[weather], strict=True, include_raw=True)
    history = [messages.HumanMessage("Tell me."), runnable.invoke("Tell me.")["raw"]]
    [call] = history[-1].tool_calls
    assert runnable.invoke([*history, weather.invoke(call)])["parsed"] == expected(City)
    kinds = [sent.keys() & {"tools", "format"} for sent in model.chats]
    assert kinds == [{"tools"}, {"tools"}, {"format"}]


@pytest.mark.parametrize("method", ["function_calling", "json_mode"])
def test_what_breaks_the_schema_is_a_parsing_error(chat: Any, model: Model, method: str) -> None:
    model.edits.append(lambda value: {**value, "people": "many"})
    runnable = chat.with_structured_output(City, method=method, include_raw=True)
    found = runnable.invoke(prompt_for(City, method))
    assert found["parsed"] is None
    assert "valid integer" in str(found["parsing_error"])


@WHOLE_AND_STREAM
def test_what_breaks_a_strict_schema_is_an_error(chat: Any, model: Model, stream: bool) -> None:
    model.edits.append(lambda value: {**value, "people": "many"})
    runnable = chat.with_structured_output(City, method="json_schema")
    with pytest.raises(openai.APIError, match=r"\$\.people: 'many' is not of type 'integer'"):
        answered(runnable, "Tell me.", stream)
    assert len(model.chats) == 1


# -- responses --------------------------------------------------------------------------------

#: how an answer's content is written
VERSIONS = pytest.mark.parametrize("version", ["v0", "responses/v1", "v1"])

REASONING = {"effort": "low", "summary": "auto"}


@pytest.fixture
def respond(model: Model, ignored: list[str | None]) -> Iterator[Make]:
    """Makes a model over the Responses API of a server with a store."""
    pytest.importorskip("sqlalchemy", reason="the package sqlalchemy is not installed")
    app = OpenAICompat(model, settings=Settings(store="sqlite://"))
    note = [lambda response: ignored.append(response.headers.get("openai-compat-ignored"))]
    transport = httpx2.WSGITransport(app=app)
    with openai.DefaultHttpxClient(transport=transport, trust_env=False, event_hooks={"response": note}) as http:
        options = {"base_url": "http://testserver/v1", "api_key": "x", "model": NAME, "http_client": http}
        yield lambda **rest: langchain.ChatOpenAI(use_responses_api=True, **options, **rest)


@WHOLE_AND_STREAM
@VERSIONS
def test_a_response(respond: Make, model: Model, ignored: list[str | None], stream: bool, version: str) -> None:
    chat = respond(output_version=version, max_tokens=50, temperature=0.5)
    answer = answered(chat, [("system", "Be brief."), ("human", "Hello!")], stream)
    assert answer.text == SAID + "Hello!"
    assert answer.usage_metadata["input_tokens"] == 7
    assert answer.response_metadata["id"].startswith("resp_")
    assert answer.response_metadata["model_name"] == NAME
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]
    assert ignored == [None]
    [sent] = model.chats
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    assert {"num_predict": 50, "temperature": 0.5}.items() <= sent["options"].items()


@WHOLE_AND_STREAM
@VERSIONS
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_response_with_a_tool(respond: Make, model: Model, stream: bool, version: str, encrypted: bool) -> None:
    options = {"store": False, "include": ["reasoning.encrypted_content"]} if encrypted else {}
    chat = respond(output_version=version, reasoning=REASONING, **options).bind_tools([weather])
    history = [messages.HumanMessage("The weather?")]
    history.append(answered(chat, history, stream))
    [call] = history[-1].tool_calls
    assert (call["name"], call["args"]["city"]) == ("weather", "demo")
    history.append(weather.invoke(call))
    history.append(answered(chat, history, stream))
    assert history[-1].text == TOLD + "rain in demo"
    answered(chat, [*history, messages.HumanMessage("Really?")], stream)
    sent = model.chats[2]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert [message.get("thinking") for message in sent if message["role"] == "assistant"] == ["Well."] * 2


@WHOLE_AND_STREAM
@pytest.mark.parametrize("choice", ["any", "travel"])
def test_a_response_with_a_forced_tool(respond: Make, model: Model, stream: bool, choice: str) -> None:
    answer = answered(respond().bind_tools([weather, travel], tool_choice=choice), "I want to travel.", stream)
    [call] = answer.tool_calls
    assert Journey.model_validate(call["args"]["journey"]) == expected(Journey)
    check_forced(model.chats[0], ["weather", "travel"] if choice == "any" else ["travel"])


@WHOLE_AND_STREAM
@WAYS
@FORMS
@STRUCTURED
def test_structured_output_of_a_response(respond: Make, model: Model, form: Any, method: str, stream: bool) -> None:
    runnable = respond().with_structured_output(form, method=method)
    prompt = prompt_for(form, method)
    found = list(runnable.stream(prompt))[-1] if stream else runnable.invoke(prompt)
    assert found == expected(form)
    check_structured(model.chats[0], form, method)


@WHOLE_AND_STREAM
@VERSIONS
def test_the_previous_response(respond: Make, model: Model, stream: bool, version: str) -> None:
    chat = respond(output_version=version, use_previous_response_id=True).bind_tools([weather])
    history = [messages.HumanMessage("The weather?")]
    history.append(answered(chat, history, stream))
    history.append(weather.invoke(history[-1].tool_calls[0]))
    history.append(answered(chat, history, stream))
    assert history[-1].text == TOLD + "rain in demo"
    answered(chat, [*history, messages.HumanMessage("Really?")], stream)
    sent = model.chats[2]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]


@WHOLE_AND_STREAM
def test_a_response_that_fails(respond: Make, model: Model, stream: bool) -> None:
    model.edits.append(lambda value: {**value, "people": "many"})
    runnable = respond().with_structured_output(City, method="json_schema", strict=True)
    with pytest.raises(openai.APIError, match=r"\$\.people: 'many' is not of type 'integer'"):
        answered(runnable, "Tell me.", stream)


def test_a_response_of_several_turns_at_once(respond: Make, model: Model) -> None:
    async def main() -> list[str]:
        with live(OpenAICompat(model)) as url:
            chat = langchain.ChatOpenAI(base_url=f"{url}/v1", api_key="x", model=NAME, use_responses_api=True)
            answers = await asyncio.gather(*(chat.ainvoke(text) for text in ("one", "two", "three")))
            return [answer.text for answer in answers]

    assert asyncio.run(main()) == [SAID + text for text in ("one", "two", "three")]


# -- agents -----------------------------------------------------------------------------------


@WHOLE_AND_STREAM
@MODELS
@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_an_agent_calls_tools_before_it_answers_in_a_schema(responses: bool, name: str, stream: bool) -> None:
    task = Task(name)
    strategy = structured.ProviderStrategy(Report)
    with making(task.native, []) as make:
        chat = make(langchain.ChatOpenAI, name, use_responses_api=responses)
        agent = agents.create_agent(chat, task.functions, response_format=strategy)
        prompt = {"messages": [("human", PROMPT)]}
        if stream:  # the model streams where its messages are asked for
            steps = list(agent.stream(prompt, stream_mode=["messages", "values"]))
            assert len([step for mode, step in steps if mode == "messages"]) > 4
            _, state = [step for step in steps if step[0] == "values"][-1]
        else:
            state = agent.invoke(prompt)
    task.check(state["structured_response"])


# -- embeddings -------------------------------------------------------------------------------


def test_embeddings(make: Make, model: Model) -> None:
    embeddings = make(langchain.OpenAIEmbeddings, "demo-embed", check_embedding_ctx_length=False, dimensions=8)
    found = embeddings.embed_documents(["one", "two", "three"], chunk_size=2)
    assert [len(vector) for vector in found] == [8] * 3
    assert embeddings.embed_query("two") == found[1]
    assert [request.json["input"] for request in model.requests] == [["one", "two"], ["three"], ["two"]]


def test_embeddings_of_token_ids(make: Make, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # tiktoken would fetch its table: here is one without the merges, where a token is a byte.
    ranks = {bytes([byte]): byte for byte in range(256)}
    table = tiktoken.Encoding("cl100k_base", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", table)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
        make(langchain.OpenAIEmbeddings, "demo-embed").embed_query("one")
    assert caught.value.param == "input"
    assert model.requests == []


# -- completions ------------------------------------------------------------------------------

DEMO = "This is the openai-compat demo, not a model. You said: "


def test_completions(make: Make, model: Model) -> None:
    llm = make(langchain.OpenAI, "demo", temperature=0)
    assert llm.invoke("one") == DEMO + "one"
    assert llm.batch(["one", "two"]) == [DEMO + "one", DEMO + "two"]
    pieces = list(llm.stream("one"))
    assert (len(pieces) > 3, "".join(pieces)) == (True, DEMO + "one")
    assert {request.path for request in model.requests} == {"/api/generate"}
    assert {json.dumps(request.json["options"]["temperature"]) for request in model.requests} == {"0.0"}


def test_several_completions(make: Make, model: Model) -> None:
    result = make(langchain.OpenAI, "demo", n=2, best_of=3).generate(["one", "two"], stop=["said"])
    texts = [[generation.text for generation in made] for made in result.generations]
    assert texts == [[DEMO.partition("said")[0]] * 2] * 2
    assert result.llm_output["token_usage"]["prompt_tokens"] > 0
    assert len(model.requests) == 6
