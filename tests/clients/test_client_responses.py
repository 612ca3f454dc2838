"""OpenAI's own client for Python and the Responses API, in process and through ``openai-compat serve``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.testing import done, say
from tests.clients import BOTH, SAID, WORDS, City, Scripted, collect, openai

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
SHELL = {"type": "custom", "name": "shell"}
CALL = say(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}])
CUSTOM = say(tool_calls=[{"function": {"name": "shell", "arguments": {"input": "ls -l"}}}])
OSLO = '{"name": "Oslo", "people": 700000}'
ASKED: dict[str, Any] = {"model": "demo", "input": "Hello!"}


@BOTH
def test_a_response_is_created(client: Any) -> None:
    response = client.responses.create(**ASKED)
    assert (response.object, response.status, response.model) == ("response", "completed", "demo")
    assert response.id.startswith("resp_")
    assert response.output_text == SAID
    assert response.error is None
    assert response._request_id.startswith("req_")
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (1, WORDS, 1 + WORDS)
    assert usage.input_tokens_details.cached_tokens == usage.output_tokens_details.reasoning_tokens == 0


@BOTH
def test_a_response_that_was_cut_is_incomplete(client: Any) -> None:
    response = client.responses.create(**ASKED, max_output_tokens=2)
    assert (response.output_text, response.status) == ("This is", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"


@BOTH
def test_events_are_read_one_by_one(client: Any) -> None:
    with client.responses.create(**ASKED, stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == SAID
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


@BOTH
def test_the_stream_helper_accumulates(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(thinking="Hm."), say("a"), CALL, say("b"), done())
    with scripted.client.responses.stream(**ASKED, tools=[WEATHER]) as stream:
        events = list(stream)
        response = stream.get_final_response()
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "message"]
    assert response.output_text == "ab"
    assert response.output[0].summary[0].text == "Hm."
    [snapshot] = [event.snapshot for event in events if event.type == "response.function_call_arguments.delta"]
    assert json.loads(snapshot) == {"city": "Oslo"}


@BOTH
@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_forced_call_is_accumulated(scripted: Scripted, size: int) -> None:
    written = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    pieces = [say(written[i : i + size]) for i in range(0, len(written), size)]
    scripted.fake.script("/api/chat", *pieces, done())
    choice = {"type": "function", "name": "weather"}
    with scripted.client.responses.stream(**ASKED, tools=[WEATHER], tool_choice=choice) as stream:
        for _ in stream:
            pass
        [call] = stream.get_final_response().output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Oslo"})


@BOTH
def test_an_answer_is_parsed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say(f"```json\n{OSLO}\n```"), done())
    response = scripted.client.responses.parse(**ASKED, text_format=City)
    assert response.output_parsed == City(name="Oslo", people=700000)
    assert scripted.fake.requests[0].json["format"]["properties"]["people"]["type"] == "integer"


@BOTH
def test_an_answer_is_parsed_while_it_is_streamed(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", *[say(character) for character in OSLO], done())
    with scripted.client.responses.stream(**ASKED, text_format=City) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == City(name="Oslo", people=700000)


def ask(scripted: Scripted, streamed: bool, **arguments: Any) -> Any:
    if not streamed:
        return scripted.client.responses.create(**arguments)
    with scripted.client.responses.stream(**arguments) as stream:
        for _ in stream:
            pass
        return stream.get_final_response()


@BOTH
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_call_goes_round(scripted: Scripted, streamed: bool) -> None:
    """The output is sent back as the client has it, with ``parsed_arguments`` and nulls of its own."""
    scripted.fake.script("/api/chat", say(thinking="Hm."), say("I look."), CALL, done())
    history: list[Any] = [{"role": "user", "content": "Weather?"}]
    response = ask(scripted, streamed, model="demo", input=history, tools=[WEATHER])
    history += response.output
    [call] = [item for item in response.output if item.type == "function_call"]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    scripted.fake.script("/api/chat", say("It is sunny."), done())
    assert ask(scripted, streamed, model="demo", input=history, tools=[WEATHER]).output_text == "It is sunny."
    user, assistant, tool = scripted.fake.requests[1].json["messages"]
    assert (assistant["content"], assistant["thinking"]) == ("I look.", "Hm.")
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert tool == {"role": "tool", "content": "sunny", "tool_call_id": assistant["tool_calls"][0]["id"]}


@BOTH
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_custom_call_goes_round(scripted: Scripted, streamed: bool) -> None:
    scripted.fake.script("/api/chat", CUSTOM, done())
    response = ask(scripted, streamed, **ASKED, tools=[SHELL])
    [call] = response.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "shell", "ls -l")
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "a.txt"}
    scripted.fake.script("/api/chat", say("a.txt is there."), done())
    assert ask(scripted, streamed, model="demo", input=[call, output], tools=[SHELL]).output_text == "a.txt is there."
    assert scripted.fake.requests[1].json["messages"][1]["content"] == "a.txt"


@BOTH
def test_logprobs_are_included(scripted: Scripted) -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97]}
    scripted.fake.script("/api/chat", {**say("a"), "logprobs": [entry]}, done())
    response = scripted.client.responses.create(**ASKED, include=["message.output_text.logprobs"])
    [found] = response.output[0].content[0].logprobs
    assert (found.token, found.logprob, found.bytes) == ("a", -0.5, [97])


@BOTH
def test_a_failure_in_the_stream_raises(scripted: Scripted) -> None:
    scripted.fake.script("/api/chat", say("a"), {"error": "out of memory"})
    events: list[Any] = []
    with pytest.raises(openai.APIError, match="out of memory"):
        collect(scripted.client.responses.create(**ASKED, stream=True), events)
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["a"]


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_client_s_classes(scripted: Scripted, stream: bool) -> None:
    scripted.fake.script("/api/chat", {"error": "model 'demo' not found"}, status="404 X")
    with pytest.raises(openai.NotFoundError) as raised:
        scripted.client.responses.create(**ASKED, stream=stream)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        scripted.client.responses.create(model="demo", input=[{"type": "nothing"}], stream=stream)
    assert refused.value.param == "input[0].type"
