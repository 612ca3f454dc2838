"""OpenAI's own client for Python, in process and through ``openai-compat serve``."""

from __future__ import annotations

import asyncio
import base64
import time
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.testing import Gate, done, say
from openai_compat.testing.demo import CONTEXT, MODELS
from tests.clients import (
    BOTH,
    HELLO,
    SAID,
    WEATHER,
    WORDS,
    City,
    Journey,
    Scripted,
    Weather,
    ask,
    collect,
    openai,
    text_of,
)

# -- answers ----------------------------------------------------------------------------------


@BOTH
def test_a_chat_completion_is_created(client: Any) -> None:
    completion = ask(client)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "demo"
    [choice] = completion.choices
    assert (choice.message.role, choice.message.content) == ("assistant", SAID)
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


@BOTH
def test_usage_counts_the_tokens_of_the_prompt_and_the_answer(client: Any) -> None:
    usage = ask(client).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1, WORDS, 1 + WORDS)
    assert usage.completion_tokens_details.reasoning_tokens == 0


@BOTH
def test_max_tokens_cuts_the_answer(client: Any) -> None:
    [choice] = ask(client, max_completion_tokens=2).choices
    assert (choice.message.content, choice.finish_reason) == ("This is", "length")


@BOTH
def test_the_request_has_an_id(client: Any) -> None:
    assert ask(client)._request_id.startswith("req_")
    assert ask(client, extra_headers={"X-Request-ID": "mine-1"})._request_id == "mine-1"


@BOTH
def test_raw_response_headers(client: Any) -> None:
    response = client.chat.completions.with_raw_response.create(model="demo", messages=HELLO, user="me")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["openai-version"] == "2020-10-01"
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert response.headers["openai-compat-ignored"] == "user"
    assert response.parse().choices[0].message.content == SAID


@BOTH
def test_a_stream_is_read_chunk_by_chunk(client: Any) -> None:
    with ask(client, stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks) == SAID
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in chunks[1:]] == [None] * len(chunks[1:])
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@BOTH
def test_include_usage_is_the_last_chunk(client: Any) -> None:
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (1, WORDS)


@BOTH
def test_without_include_usage_no_chunk_knows_of_it(client: Any) -> None:
    assert not any("usage" in chunk.model_fields_set for chunk in ask(client, stream=True))


@BOTH
def test_the_stream_helper_accumulates(client: Any) -> None:
    with client.chat.completions.stream(model="demo", messages=HELLO, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        completion = stream.get_final_completion()
    assert [event.content for event in events if event.type == "content.done"] == [SAID]
    message = completion.choices[0].message
    assert (message.role, message.content) == ("assistant", SAID)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 1 + WORDS


@BOTH
def test_an_image_reaches_the_model(client: Any) -> None:
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    parts = [
        {"type": "text", "text": "Look!"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    completion = ask(client, messages=[{"role": "user", "content": parts}])
    assert completion.choices[0].message.content.endswith("You said: Look! You sent 1 image(s).")


def test_async_client(demo_url: str) -> None:
    async def main() -> list[Any]:
        async with (
            openai.DefaultAsyncHttpxClient(trust_env=False) as http,
            openai.AsyncOpenAI(api_key="x", base_url=demo_url, http_client=http, timeout=20.0) as client,
        ):
            return [chunk async for chunk in await ask(client, stream=True)]

    assert text_of(asyncio.run(main())) == SAID


# -- tools ------------------------------------------------------------------------------------


def call(name: str, arguments: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A native tool call; its index is 0, as older servers say of every call."""
    return {"function": {"index": 0, "name": name, "arguments": arguments}, **rest}


PARALLEL = {
    "in one line": [say(tool_calls=[call("weather", {"city": "Köln"}), call("weather", {"city": "Bonn"})])],
    "in two lines": [
        say(tool_calls=[call("weather", {"city": "Köln"})]),
        say(tool_calls=[call("weather", {"city": "Bonn"})]),
    ],
    "after text": [
        say("Let me see."),
        say(tool_calls=[call("weather", {"city": "Köln"}, id="call_1"), call("weather", {"city": "Bonn"})]),
    ],
}


@BOTH
@pytest.mark.parametrize("lines", PARALLEL.values(), ids=PARALLEL)
def test_the_stream_helper_keeps_parallel_tool_calls_apart(scripted: Scripted, lines: list[dict[str, Any]]) -> None:
    scripted.fake.script("/api/chat", *lines, done())
    with scripted.client.chat.completions.stream(
        model="demo-tools", messages=HELLO, tools=[openai.pydantic_function_tool(Weather, name="weather")]
    ) as stream:
        events = list(stream)
        [choice] = stream.get_final_completion().choices
    calls = choice.message.tool_calls
    assert [made.function.parsed_arguments for made in calls] == [Weather(city="Köln"), Weather(city="Bonn")]
    assert [(made.type, made.function.name) for made in calls] == [("function", "weather")] * 2
    assert len({made.id for made in calls}) == 2
    assert choice.finish_reason == "tool_calls"
    finished = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.index, event.parsed_arguments.city) for event in finished] == [(0, "Köln"), (1, "Bonn")]


@BOTH
def test_parallel_tool_calls_in_one_answer(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", *PARALLEL["in one line"], done())
    [choice] = scripted.ask(tools=[WEATHER]).choices
    assert [made.function.arguments for made in choice.message.tool_calls] == ['{"city":"Köln"}', '{"city":"Bonn"}']
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")


@BOTH
def test_a_tool_call_there_and_back(client: Any) -> None:
    messages = [{"role": "user", "content": "What is the weather?"}]
    [choice] = ask(client, model="demo-tools", messages=messages, tools=[WEATHER]).choices
    [made] = choice.message.tool_calls
    assert (made.function.name, made.function.arguments) == ("weather", '{"city":"demo"}')
    answered = {"role": "tool", "tool_call_id": made.id, "content": "It rains."}
    completion = ask(client, model="demo-tools", messages=[*messages, choice.message, answered], tools=[WEATHER])
    assert completion.choices[0].message.content.endswith("The tool said: It rains.")
    assert completion.choices[0].finish_reason == "stop"


# -- structured output ------------------------------------------------------------------------


@BOTH
def test_an_answer_is_parsed_into_a_pydantic_model(client: Any) -> None:
    completion = client.chat.completions.parse(model="demo", messages=HELLO, response_format=Journey)
    assert completion.choices[0].message.parsed == Journey(stops=[City(name="demo", people=1)], by_train=True)


@BOTH
def test_parse_of_a_stream(client: Any) -> None:
    with client.chat.completions.stream(model="demo", messages=HELLO, response_format=City) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.parsed == City(name="demo", people=1)


@BOTH
def test_parse_of_an_answer_that_was_cut_raises(client: Any) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="demo", messages=HELLO, response_format=City, max_tokens=1)


@BOTH
def test_json_object(client: Any) -> None:
    completion = ask(client, response_format={"type": "json_object"})
    assert completion.choices[0].message.content == '{"backend": "openai-compat demo"}'


# -- reasoning and log-probabilities ----------------------------------------------------------

THOUGHT = "The demo pretends to think about it."


@BOTH
@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_a_field_of_its_own(client: Any, field: str) -> None:
    message = ask(client, model="demo-think", reasoning_effort="high").choices[0].message
    assert message.content == SAID
    assert message.model_extra[field] == THOUGHT


@BOTH
def test_reasoning_comes_before_the_content_of_a_stream(client: Any) -> None:
    deltas = [chunk.choices[0].delta for chunk in ask(client, model="demo-think", stream=True)]
    kinds = [
        "reasoning" if delta.model_extra.get("reasoning") else "content"
        for delta in deltas
        if delta.content or delta.model_extra
    ]
    assert kinds[0] == "reasoning"
    assert sorted(kinds, reverse=True) == kinds
    assert "".join(delta.model_extra.get("reasoning", "") for delta in deltas) == THOUGHT
    assert "".join(delta.content or "" for delta in deltas) == SAID


@BOTH
def test_the_stream_helper_keeps_reasoning(client: Any) -> None:
    with client.chat.completions.stream(model="demo-think", messages=HELLO) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.content, message.model_extra["reasoning"]) == (SAID, THOUGHT)


@BOTH
def test_reasoning_can_be_turned_off(client: Any) -> None:
    message = ask(client, model="demo-think", reasoning_effort="none").choices[0].message
    assert "reasoning" not in message.model_extra


@BOTH
def test_log_probabilities_are_those_of_the_answer(client: Any) -> None:
    entries = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == SAID
    assert all(bytes(entry.bytes).decode() == entry.token for entry in entries)
    assert [len(entry.top_logprobs) for entry in entries] == [2] * len(entries)


@BOTH
def test_the_stream_helper_accumulates_logprobs(client: Any) -> None:
    with client.chat.completions.stream(model="demo", messages=HELLO, logprobs=True) as stream:
        choice = stream.get_final_completion().choices[0]
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content == SAID


@BOTH
def test_without_logprobs_there_are_none(client: Any) -> None:
    assert ask(client).choices[0].logprobs is None


# -- models -----------------------------------------------------------------------------------


@BOTH
def test_models_list(client: Any) -> None:
    models = list(client.models.list())
    assert [model.id for model in models] == [f"{name}:latest" for name in MODELS]
    assert {(model.object, model.owned_by) for model in models} == {("model", "library")}
    assert all(model.created > 0 for model in models)


@BOTH
def test_models_retrieve(client: Any) -> None:
    assert client.models.retrieve("demo").id == "demo"


@BOTH
def test_models_retrieve_of_an_id_with_slashes(scripted: Scripted) -> None:
    name = "hf.co/someone/some-model:Q4_K_M"
    scripted.fake.script("/api/show", {"modified_at": "2026-01-01T00:00:00Z"}, content_type="application/json")
    model = scripted.client.models.retrieve(name)
    assert (model.id, model.owned_by, model.created) == (name, "someone", 1767225600)
    assert [request.path for request in scripted.fake.requests] == ["/api/show", "/api/ps"]
    assert scripted.fake.requests[0].json == {"name": name}


@BOTH
def test_models_retrieve_of_an_unknown_one(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("hf.co/nobody/nothing")
    assert caught.value.code == "model_not_found"


# -- errors -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_model_is_not_found(client: Any, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `nothing` does not exist") as caught:
        ask(client, model="nothing", stream=stream)
    error = caught.value
    assert (error.code, error.type, error.status_code) == ("model_not_found", "invalid_request_error", 404)
    assert error.request_id.startswith("req_")


@BOTH
@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
    ],
    ids=["range", "combination", "unsupported", "type", "empty"],
)
def test_a_bad_request_names_its_parameter(client: Any, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **arguments)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_prompt_beyond_the_context_is_refused_as_openai_does(client: Any, stream: bool) -> None:
    long = [{"role": "user", "content": "word " * (CONTEXT + 1)}]
    with pytest.raises(openai.BadRequestError, match=f"maximum context length is {CONTEXT} tokens") as caught:
        ask(client, messages=long, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@BOTH
def test_an_unknown_path_is_not_found(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/moderations\).*does not offer"):
        client.moderations.create(input="Hello!")


@BOTH
@pytest.mark.parametrize(
    ("native", "status", "code"),
    [("500 Internal Server Error", 502, "upstream_error"), ("503 Service Unavailable", 503, "overloaded")],
    ids=["502", "503"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_backend_that_fails_is_a_server_error(
    scripted: Scripted, native: str, status: int, code: str, stream: bool
) -> None:
    scripted.fake.script("/api/chat", {"error": "no luck"}, status=native, content_type="application/json")
    with pytest.raises(openai.InternalServerError, match="no luck") as caught:
        scripted.ask(stream=stream)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, code, "server_error")


ENDS_BADLY = {
    "error line": ([{"error": "out of memory"}], "out of memory"),
    "without done": ([], "ended before it was complete"),
    "no JSON": ([b"<html>\n"], "could not be understood"),
}


@BOTH
@pytest.mark.parametrize(("end", "text"), ENDS_BADLY.values(), ids=ENDS_BADLY)
def test_a_stream_that_breaks_off_raises(scripted: Scripted, end: list[Any], text: str) -> None:
    scripted.fake.script("/api/chat", say("Once"), say(" upon"), *end)
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match=text) as caught:
        collect(scripted.ask(stream=True), chunks)
    assert text_of(chunks) == "Once upon"
    assert (caught.value.code, caught.value.type) == ("upstream_error", "server_error")


@BOTH
def test_a_stream_whose_backend_raises_raises(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say("Once"), RuntimeError("on purpose"))
    with pytest.raises(openai.APIError) as caught:
        list(scripted.ask(stream=True))
    assert caught.value.code == "upstream_error"
    assert "on purpose" not in caught.value.message


@BOTH
@pytest.mark.parametrize(("end", "text"), ENDS_BADLY.values(), ids=ENDS_BADLY)
def test_the_stream_helper_raises_when_it_breaks_off(scripted: Scripted, end: list[Any], text: str) -> None:
    scripted.fake.script("/api/chat", say("Once"), *end)
    with (
        scripted.client.chat.completions.stream(model="demo", messages=HELLO) as stream,
        pytest.raises(openai.APIError, match=text),
    ):
        stream.until_done()


@BOTH
@pytest.mark.parametrize(("end", "text"), ENDS_BADLY.values(), ids=ENDS_BADLY)
def test_an_answer_that_breaks_off_is_a_server_error(scripted: Scripted, end: list[Any], text: str) -> None:
    scripted.fake.script("/api/chat", say("Once"), *end)
    with pytest.raises(openai.InternalServerError, match=text) as caught:
        scripted.ask()
    assert caught.value.status_code == 502


# -- retries ----------------------------------------------------------------------------------


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have slept, in seconds."""
    slept: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": slept.append})
    monkeypatch.setattr("openai._base_client.time", clock)
    return slept


@BOTH
def test_503_is_retried_after_the_pause_that_it_names(scripted: Scripted, pauses: list[float]) -> None:
    scripted.fake.script("/api/chat", {"error": "server busy"}, status="503 Service Unavailable")
    scripted.fake.script("/api/chat", say("Here."), done())
    scripted.client = scripted.client.with_options(max_retries=2)
    assert scripted.ask().choices[0].message.content == "Here."
    assert len(scripted.fake.requests) == 2
    assert pauses == [2.0]


@BOTH
@pytest.mark.parametrize(
    ("native", "status"),
    [("504 Gateway Timeout", 504), ("500 Internal Server Error", 502)],
    ids=["504", "502 of a native 500"],
)
def test_what_would_fail_again_is_not_retried(
    scripted: Scripted, pauses: list[float], native: str, status: int
) -> None:
    scripted.fake.script("/api/chat", {"error": "no luck"}, status=native)
    scripted.client = scripted.client.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as caught:
        scripted.ask()
    assert caught.value.status_code == status
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(scripted.fake.requests) == 1
    assert pauses == []


@BOTH
def test_an_answer_that_broke_off_after_tokens_is_not_retried(scripted: Scripted, pauses: list[float]) -> None:
    scripted.fake.script("/api/chat", say("Once"))
    scripted.client = scripted.client.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError):
        scripted.ask()
    assert len(scripted.fake.requests) == 1
    assert pauses == []


@BOTH
def test_an_answer_that_broke_off_before_any_token_is_retried(scripted: Scripted, pauses: list[float]) -> None:
    scripted.fake.script("/api/chat")
    scripted.client = scripted.client.with_options(max_retries=2)
    assert scripted.ask().choices[0].message.content == SAID
    assert len(scripted.fake.requests) == 2
    assert len(pauses) == 1


@BOTH
def test_a_mistake_is_not_retried(scripted: Scripted, pauses: list[float]) -> None:
    scripted.client = scripted.client.with_options(max_retries=2)
    with pytest.raises(openai.NotFoundError):
        scripted.ask(model="nothing")
    assert len(scripted.fake.requests) == 1
    assert pauses == []


# -- live, and ended early --------------------------------------------------------------------


@BOTH
def test_chunks_are_live(scripted: Scripted) -> None:
    gates = [Gate(15.0) for _ in range(3)]
    scripted.fake.script("/api/chat", say("0"), gates[0], say("1"), gates[1], say("2"), gates[2], done())
    seen = []
    for chunk in scripted.ask(stream=True):
        content = chunk.choices[0].delta.content
        if content:
            gates[len(seen)].open()
            seen.append(content)
    assert seen == ["0", "1", "2"]


@pytest.mark.parametrize("way", ["in-process"])
def test_closing_a_stream_closes_the_native_one(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say("Once"), say(" upon"), done())
    with scripted.ask(stream=True) as stream:
        next(iter(stream))
        assert scripted.fake.closed == 0
    assert scripted.fake.closed == 1


@BOTH
def test_what_is_sent_is_what_ollama_takes(scripted: Scripted) -> None:
    scripted.ask(temperature=0.5, seed=7, max_tokens=3, stop="\n", tools=[WEATHER], model="demo-tools")
    sent = scripted.fake.requests[0].json
    assert sent["model"] == "demo-tools"
    assert sent["messages"] == HELLO
    assert sent["tools"][0]["function"] == WEATHER["function"]
    assert sent["options"] == {"temperature": 0.5, "top_p": 1.0, "seed": 7, "num_predict": 3, "stop": ["\n"]}
