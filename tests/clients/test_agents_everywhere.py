"""One agent on every kind of model: two tools, a structured answer, three turns; chat and responses, streamed or not.

The models are native applications that do what a kind of model does on Ollama: they see what their template shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.testing import done, say
from openai_compat.testing.demo import Demo, encode
from tests.clients import client_of

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOCK = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
SCHEMA = {
    "type": "object",
    "properties": {"degrees": {"type": "integer"}, "hour": {"type": "integer"}},
    "required": ["degrees", "hour"],
    "additionalProperties": False,
}
CALLS: list[tuple[str, dict[str, Any]]] = [("weather", {"city": "Oslo"}), ("clock", {"zone": "CET"})]
RESULTS = {"weather": '5 degrees, they say "cold"', "clock": "14 o'clock"}
ANSWER = '{"degrees": 5, "hour": 14}'

URL = "http://gateway/v1"

Lines = list[dict[str, Any]]


class Model:
    """A native application with one model: it calls each tool once, and then answers."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Lines | str]) -> None:
        self._answer = answer
        self.requests: list[dict[str, Any]] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        request = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.requests.append(request)
        seen = " ".join(str(message["content"]) for message in request["messages"])
        lines = self._answer(request, sum(result in seen for result in RESULTS.values()))
        if isinstance(lines, str):
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return iter([encode({"error": lines})])
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return iter([encode(line) + b"\n" for line in lines])


def tokens(text: str) -> Lines:
    return [*[say(character) for character in text], done()]


def constrained(request: dict[str, Any], results: int) -> Lines | None:
    """What any model answers under a format."""
    schema = request.get("format")
    if schema is None:
        return None
    if "anyOf" not in schema:
        return tokens(ANSWER)
    if results == len(CALLS):
        return tokens('{"answer": ' + ANSWER + "}")
    name, arguments = CALLS[results]
    return tokens(json.dumps({"calls": [{"name": name, "parameters": arguments}]}))


def native(request: dict[str, Any], results: int) -> Lines:
    if (found := constrained(request, results)) is not None:
        return found
    if results == len(CALLS):
        return tokens("It is 5 degrees at 14 o'clock.")
    name, arguments = CALLS[results]
    return [say(thinking="Hm."), say(tool_calls=[{"function": {"name": name, "arguments": arguments}}]), done()]


def without_tools(request: dict[str, Any], results: int) -> Lines | str:
    if request.get("tools"):
        return "registry.ollama.ai/library/plain:latest does not support tools"
    assert {message["role"] for message in request["messages"]} <= {"system", "user", "assistant"}
    return constrained(request, results) or tokens("Without a format?")


def writing(request: dict[str, Any], results: int) -> Lines:
    if (found := constrained(request, results)) is not None:
        return found
    if results == len(CALLS):
        return tokens("It is 5 degrees at 14 o'clock.")
    name, arguments = CALLS[results]
    return tokens(f"Let me see.\n<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>")


def thinking_only(request: dict[str, Any], results: int) -> Lines:
    return constrained(request, results) or [say(thinking="I could call something."), done()]


def must_think(request: dict[str, Any], results: int) -> Lines:
    """Like gpt-oss: under a format it answers nothing unless it thinks; its calls are lost."""
    found = constrained(request, results)
    if found is None:
        return [say(thinking="Hm."), {"error": "error parsing tool call: raw='...', err: unexpected end of JSON input"}]
    return [say(""), done()] if request.get("think") is False else [say(thinking="Hm."), *found]


MODELS: Mapping[str, Callable[[dict[str, Any], int], Lines | str]] = {
    "native tools": native,
    "no tools": without_tools,
    "calls as text": writing,
    "thinking only": thinking_only,
    "must think": must_think,
}
NAMES = {"must think": "gpt-oss:20b"}
every_model = pytest.mark.parametrize("kind", MODELS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True])


def chat_turn(client: Any, stream: bool, **fields: Any) -> Any:
    if not stream:
        return client.chat.completions.create(**fields).choices[0].message
    with client.chat.completions.stream(**fields) as events:
        return events.get_final_completion().choices[0].message


def chat_agent(client: Any, model: str, *, stream: bool) -> tuple[str, list[Any], list[Any]]:
    """Run the agent, and return its answer, the messages, and the calls that were made."""
    tools = [
        {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
        {"type": "function", "function": {"name": "clock", "parameters": CLOCK}},
    ]
    response_format = {"type": "json_schema", "json_schema": {"name": "now", "schema": SCHEMA, "strict": True}}
    messages: list[Any] = [{"role": "user", "content": "How cold is it, and how late?"}]
    made: list[Any] = []
    while True:
        fields: Any = {"model": model, "messages": messages, "tools": tools, "response_format": response_format}
        message = chat_turn(client, stream, **fields)
        if not message.tool_calls:
            return message.content, messages, made
        messages.append(message.to_dict())
        for call in message.tool_calls:
            made.append((call.function.name, json.loads(call.function.arguments)))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]})


def response_turn(client: Any, stream: bool, **fields: Any) -> Any:
    if not stream:
        return client.responses.create(**fields)
    with client.responses.stream(**fields) as events:
        return events.get_final_response()


def response_agent(client: Any, model: str, *, stream: bool) -> tuple[str, list[Any]]:
    """Run the agent, and return its answer and the calls that were made."""
    tools = [
        {"type": "function", "name": "weather", "parameters": WEATHER},
        {"type": "function", "name": "clock", "parameters": CLOCK},
    ]
    text = {"format": {"type": "json_schema", "name": "now", "schema": SCHEMA, "strict": True}}
    items: Any = "How cold is it, and how late?"
    previous: str | None = None
    made: list[Any] = []
    while True:
        fields: Any = {"model": model, "input": items, "tools": tools, "text": text, "previous_response_id": previous}
        response = response_turn(client, stream, **fields)
        previous = response.id
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text, made
        made += [(call.name, json.loads(call.arguments)) for call in calls]
        items = [{"type": "function_call_output", "call_id": c.call_id, "output": RESULTS[c.name]} for c in calls]


@every_model
@streamed_or_not
def test_an_agent_of_chat(kind: str, stream: bool) -> None:
    model = Model(MODELS[kind])
    with client_of(URL, OpenAICompat(model)) as client:
        answer, messages, made = chat_agent(client, NAMES.get(kind, "m"), stream=stream)
    assert (made, answer) == (CALLS, ANSWER)
    ids = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert len(set(ids)) == len(CALLS)
    # Two native calls at most a turn; a model without tools refused one more.
    assert len(model.requests) <= 3 * 2 + (kind == "no tools")


@every_model
@streamed_or_not
def test_an_agent_of_responses(kind: str, stream: bool) -> None:
    model = Model(MODELS[kind])
    with client_of(URL, OpenAICompat(model, store="sqlite://")) as client:
        answer, made = response_agent(client, NAMES.get(kind, "m"), stream=stream)
    assert (made, answer) == (CALLS, ANSWER)
    assert len(model.requests) <= 3 * 2 + (kind == "no tools")


@pytest.mark.parametrize("name", ["demo-tools", "demo-plain", "demo-text"])
@streamed_or_not
def test_the_demo_s_models(name: str, stream: bool) -> None:
    with client_of(URL, OpenAICompat(Demo(), store="sqlite://")) as client:
        answer, _, made = chat_agent(client, name, stream=stream)
        assert made == [("weather", {"city": "demo"})]
        assert json.loads(answer) == {"degrees": 1, "hour": 1}
        answer, made = response_agent(client, name, stream=stream)
        assert made == [("weather", {"city": "demo"})]
        assert json.loads(answer) == {"degrees": 1, "hour": 1}
