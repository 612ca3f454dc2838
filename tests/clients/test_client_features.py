"""OpenAI's own client for Python, feature by feature: what Ollama cannot, and the other endpoints."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from openai_compat.testing.demo_text import instance
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
    client_of,
    collect,
    openai,
    text_of,
)

TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "weather"}}
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]},
}
CALL = '{"name": "weather", "parameters": {"city": "Oslo"}}'
WRITTEN = [say(CALL[i : i + 5]) for i in range(0, len(CALL), 5)]
NATIVE = say(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}])


# -- tool_choice ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "steps", [[say(CALL[i : i + 5]) for i in range(0, len(CALL), 5)], [NATIVE]], ids=["text", "native"]
)
@pytest.mark.parametrize(
    ("choice", "reason"),
    [(NAMED, "stop"), ("required", "tool_calls"), (ALLOWED, "tool_calls")],
    ids=["named", "required", "allowed"],
)
def test_a_forced_call(scripted: Scripted, steps: list[Any], choice: Any, reason: str) -> None:
    scripted.fake.script("/api/chat", *steps, done())
    [made] = scripted.ask(tools=[WEATHER, TIME], tool_choice=choice).choices
    assert (made.finish_reason, made.message.content) == (reason, None)
    [call] = made.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Oslo"},
    )
    assert "format" in scripted.fake.requests[0].json


@BOTH
def test_a_forced_call_is_streamed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", *[say(character) for character in CALL], done())
    arguments = {"model": "demo", "messages": HELLO, "tools": [WEATHER, TIME], "tool_choice": NAMED}
    with scripted.client.chat.completions.stream(**arguments) as stream:
        events = list(stream)
        completion = stream.get_final_completion()
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert len(deltas) > 3
    [call] = completion.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert completion.choices[0].finish_reason == "stop"


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_is_no_call_is_an_error(scripted: Scripted, stream: bool) -> None:
    scripted.fake.script("/api/chat", say("I would rather talk."), done())
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match="tool_choice") as caught:
        collect(scripted.ask(tools=[WEATHER], tool_choice="required", stream=stream), chunks)
    assert caught.value.code == "tool_choice_failed"
    assert text_of(chunks) == ""


@BOTH
def test_a_tool_choice_of_none_or_auto(client: Any) -> None:
    [made] = ask(client, model="demo-tools", tools=[WEATHER], tool_choice="none").choices
    assert (made.message.tool_calls, made.message.content) == (None, SAID)
    [made] = ask(client, model="demo-tools", tools=[WEATHER], tool_choice="auto").choices
    assert made.message.tool_calls[0].function.name == "weather"


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_one_call_at_a_time(scripted: Scripted, stream: bool) -> None:
    scripted.fake.script("/api/chat", NATIVE, NATIVE, done())
    found = scripted.ask(tools=[WEATHER], parallel_tool_calls=False, stream=stream)
    if stream:
        calls = [call for chunk in found for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    else:
        calls = found.choices[0].message.tool_calls
    assert len(calls) == 1


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_custom_call_goes_round(scripted: Scripted, stream: bool) -> None:
    tools = [{"type": "custom", "custom": {"name": "shell"}}]
    native = say(tool_calls=[{"function": {"name": "shell", "arguments": {"input": "ls -l"}}}])
    scripted.fake.script("/api/chat", native, done())
    found = scripted.ask(tools=tools, stream=stream)
    if stream:
        deltas = [call for chunk in found for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        id, custom = deltas[0].id, {"name": deltas[0].custom["name"]}  # which the client does not know in a chunk
        custom["input"] = "".join(delta.custom["input"] for delta in deltas)
    else:
        [call] = found.choices[0].message.tool_calls
        assert call.type == "custom"
        id, custom = call.id, call.custom.model_dump()
    assert custom == {"name": "shell", "input": "ls -l"}
    history = [
        *HELLO,
        {"role": "assistant", "tool_calls": [{"id": id, "type": "custom", "custom": custom}]},
        {"role": "tool", "tool_call_id": id, "content": "a.txt"},
    ]
    scripted.fake.script("/api/chat", say("a.txt is there."), done())
    assert scripted.ask(tools=tools, messages=history).choices[0].message.content == "a.txt is there."
    assert scripted.fake.requests[1].json["messages"][2]["tool_name"] == "shell"


# -- the old form -----------------------------------------------------------------------------


@BOTH
def test_the_old_form_of_functions_is_answered_in_it(scripted: Scripted) -> None:
    functions = [WEATHER["function"]]
    scripted.fake.script("/api/chat", NATIVE, done())
    [made] = scripted.ask(functions=functions).choices
    assert made.finish_reason == "function_call"
    assert (made.message.function_call.name, made.message.function_call.arguments) == ("weather", '{"city":"Oslo"}')
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": made.message.function_call.model_dump()},
        {"role": "function", "name": "weather", "content": "rain"},
    ]
    scripted.fake.script("/api/chat", say("It rains."), done())
    assert scripted.ask(functions=functions, messages=history).choices[0].message.content == "It rains."
    sent = scripted.fake.requests[1].json["messages"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}, "index": 0}
    assert (sent[2]["role"], sent[2]["tool_name"]) == ("tool", "weather")


@BOTH
def test_a_forced_function_is_streamed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(CALL), done())
    chunks = list(scripted.ask(functions=[WEATHER["function"]], function_call={"name": "weather"}, stream=True))
    calls = [choice.delta.function_call for chunk in chunks for choice in chunk.choices if choice.delta.function_call]
    assert calls[0].name == "weather"
    assert json.loads("".join(call.arguments for call in calls)) == {"city": "Oslo"}
    assert chunks[-1].choices[0].finish_reason == "stop"


# -- n ----------------------------------------------------------------------------------------


@BOTH
def test_several_choices(client: Any) -> None:
    completion = ask(client, n=3)
    assert [(choice.index, choice.message.content) for choice in completion.choices] == [(i, SAID) for i in range(3)]
    assert completion.usage.completion_tokens == 3 * WORDS


@BOTH
def test_several_choices_are_streamed(client: Any) -> None:
    with client.chat.completions.stream(
        model="demo", messages=HELLO, n=3, stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == [SAID] * 3
    assert completion.usage.completion_tokens == 3 * WORDS


@BOTH
def test_too_many_choices(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, n=9)
    assert (caught.value.param, caught.value.code) == ("n", "integer_above_max_value")


# -- parse ------------------------------------------------------------------------------------


def native_call(name: str, model: Any) -> str:
    return json.dumps({"name": name, "parameters": instance(model.model_json_schema())})


@BOTH
@pytest.mark.parametrize("model", [City, Journey])
@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "<think>Well.</think>{}"])
def test_parse_of_strict_json(scripted: Scripted, model: Any, around: str) -> None:
    text = json.dumps(instance(model.model_json_schema()))
    scripted.fake.script("/api/chat", say(around.replace("{}", text)), done())
    completion = scripted.client.chat.completions.parse(model="demo", messages=HELLO, response_format=model)
    assert isinstance(completion.choices[0].message.parsed, model)


@BOTH
def test_an_answer_that_breaks_its_schema(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say('{"name": 1}'), done())
    with pytest.raises(openai.InternalServerError, match="does not match the schema") as caught:
        scripted.client.chat.completions.parse(model="demo", messages=HELLO, response_format=City)
    assert caught.value.code == "response_format_failed"
    assert len(scripted.fake.requests) == 1


@BOTH
def test_parse_of_a_tool(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(native_call("Weather", Weather)), done())
    completion = scripted.client.chat.completions.parse(
        model="demo",
        messages=HELLO,
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice={"type": "function", "function": {"name": "Weather"}},
    )
    assert isinstance(completion.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)


# -- completions ------------------------------------------------------------------------------


@BOTH
def test_a_text_completion_is_created(client: Any) -> None:
    completion = client.completions.create(model="demo", prompt=["Hello!", "Hello!"], n=2, echo=True)
    assert completion.object == "text_completion"
    assert [(choice.index, choice.text) for choice in completion.choices] == [(i, "Hello!" + SAID) for i in range(4)]


@BOTH
def test_completions_are_streamed(client: Any) -> None:
    stream = client.completions.create(
        model="demo", prompt="Hello!", stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == SAID
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens == WORDS


@BOTH
def test_legacy_logprobs(client: Any) -> None:
    [choice] = client.completions.create(model="demo", prompt="Hello!", logprobs=2, max_tokens=3).choices
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[0] == 0
    assert len(choice.logprobs.top_logprobs[0]) == 2
    assert choice.finish_reason == "length"


# -- embeddings -------------------------------------------------------------------------------


@BOTH
def test_embeddings_by_the_client_s_own_base64(client: Any) -> None:
    by_client = client.embeddings.create(model="demo-embed", input=["one", "two"])
    as_floats = client.embeddings.create(model="demo-embed", input=["one", "two"], encoding_format="float")
    assert [item.index for item in by_client.data] == [0, 1]
    for mine, other in zip(by_client.data, as_floats.data, strict=True):
        assert mine.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert by_client.usage.prompt_tokens == 2
    assert len(client.embeddings.create(model="demo-embed", input="x", dimensions=8).data[0].embedding) == 8


@BOTH
def test_token_ids_cannot_be_embedded(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="demo-embed", input=[[1, 2], [3]])


# -- models -----------------------------------------------------------------------------------


@BOTH
def test_models_are_listed_and_retrieved_and_not_deleted(client: Any) -> None:
    ids = [model.id for model in client.models.list()]
    assert ids[:1] == ["demo:latest"]
    assert client.models.retrieve("demo").capabilities == ["completion", "vision"]
    with pytest.raises(openai.PermissionDeniedError, match="delete_models"):
        client.models.delete("ft:demo")


@BOTH
@pytest.mark.parametrize("name", ["team/ocean:small", "hf.co/a/b:Q4_K_M"])
def test_models_with_slashes(scripted: Scripted, name: str) -> None:
    scripted.fake.script("/api/show", b'{"capabilities":["completion"]}', content_type="application/json")
    assert scripted.client.models.retrieve(name).id == name
    assert scripted.fake.requests[0].json == {"name": name}


# -- transcriptions ---------------------------------------------------------------------------


def recording() -> Any:
    return ("speech.wav", io.BytesIO(b"RIFF....WAVE"), "audio/wav")


@BOTH
def test_a_file_is_transcribed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(" One"), say(" two. "), done())
    transcribed = scripted.client.audio.transcriptions.create(
        model="demo", file=recording(), language="en", prompt="Counting", temperature=0.2
    )
    assert transcribed.text == "One two."
    system, user = scripted.fake.requests[0].json["messages"]
    assert "en" in system["content"]
    assert "Counting" in system["content"]
    assert user["images"] == ["UklGRi4uLi5XQVZF"]
    assert scripted.fake.requests[0].json["options"]["temperature"] == 0.2


@BOTH
def test_transcription_as_text(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say("One two."), done())
    found = scripted.client.audio.transcriptions.create(model="demo", file=recording(), response_format="text")
    assert found == "One two."


@BOTH
def test_transcription_is_streamed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(" One"), say(" two."), done())
    events = list(scripted.client.audio.transcriptions.create(model="demo", file=recording(), stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert events[-1].text == "".join(event.delta for event in events[:-1]) == "One two."


@BOTH
@pytest.mark.parametrize("form", ["srt", "vtt", "diarized_json"])
def test_transcription_in_a_form_that_there_is_not(scripted: Scripted, form: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        scripted.client.audio.transcriptions.create(model="demo", file=recording(), response_format=form)
    assert caught.value.param == "response_format"
    assert scripted.fake.requests == []


# -- stored completions -----------------------------------------------------------------------


@pytest.fixture
def keeping() -> Iterator[Any]:
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    app = OpenAICompat(FakeOllama(), store="sqlite://")
    with client_of("http://testserver/v1", app) as client:
        yield client
    assert app.store is not None
    app.store.close()


def test_stored_completions(keeping: Any) -> None:
    completions = keeping.chat.completions
    made = [
        completions.create(model="demo", messages=HELLO, store=True, metadata={"i": str(i), "all": "x"}).id
        for i in range(5)
    ]
    assert [kept.id for kept in completions.list(limit=2)] == made  # over three pages
    assert [kept.id for kept in completions.list(metadata={"i": "3"})] == [made[3]]
    assert [kept.id for kept in completions.list(model="demo", order="desc", limit=1).data] == made[:-2:-1]
    assert completions.retrieve(made[0]).choices[0].message.content == SAID
    assert completions.update(made[0], metadata={"a": "b"}).metadata == {"a": "b"}
    [message] = completions.messages.list(made[0])
    assert (message.role, message.content) == ("user", "Hello!")
    assert completions.delete(made[0]).deleted is True
    with pytest.raises(openai.NotFoundError):
        completions.retrieve(made[0])
