"""The demo backend's native API: it always answers the same way."""

from __future__ import annotations

import json
import math
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat.testing.demo import CONTEXT, MODELS, VERSION, Demo

SAID = "This is the openai-compat demo, not a model. You said: Hello!"
THOUGHT = "The demo pretends to think about it."
HELLO = [{"role": "user", "content": "Hello!"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def client() -> Client:
    return Client(validator(Demo()))


def get(client: Client, path: str) -> TestResponse:
    with client.get(path) as response:
        response.get_data()
        return response


def post(client: Client, path: str, **request: Any) -> TestResponse:
    with client.post(path, json=request) as response:
        response.get_data()
        return response


def lines_of(response: TestResponse) -> list[dict[str, Any]]:
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    assert response.get_data().endswith(b"\n")
    return [json.loads(line) for line in response.get_data().splitlines()]


def chat(client: Client, **request: Any) -> list[dict[str, Any]]:
    """The lines of a streamed chat."""
    return lines_of(post(client, "/api/chat", **{"model": "demo", "messages": HELLO, **request}))


def whole(client: Client, path: str = "/api/chat", **request: Any) -> dict[str, Any]:
    """A chat that is not streamed."""
    response = post(client, path, **{"model": "demo", "messages": HELLO, "stream": False, **request})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    answer: dict[str, Any] = response.get_json()
    return answer


def joined(lines: list[dict[str, Any]], key: str = "content") -> str:
    return "".join(line["message"].get(key, "") for line in lines)


def error(response: TestResponse) -> tuple[int, str]:
    body = response.get_json()
    assert list(body) == ["error"]
    return response.status_code, body["error"]


# -- chat -------------------------------------------------------------------------------------


def test_chat_streams_a_word_a_line(client: Client) -> None:
    *words, last = chat(client)
    assert joined(words) == SAID
    assert len(words) == len(SAID.split())
    assert {line["done"] for line in words} == {False}
    assert {(line["model"], line["message"]["role"]) for line in [*words, last]} == {("demo", "assistant")}
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")


def test_chat_counts_words(client: Client) -> None:
    last = chat(client, messages=[{"role": "system", "content": "Be brief."}, *HELLO])[-1]
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, len(SAID.split()))


def test_chat_in_one_piece_is_the_stream_put_together(client: Client) -> None:
    answer, last = whole(client), chat(client)[-1]
    assert answer["message"] == {"role": "assistant", "content": SAID}
    rest = {"model", "done", "done_reason", "prompt_eval_count", "eval_count"}
    assert {key: answer[key] for key in rest} == {key: last[key] for key in rest}


def test_every_line_says_when(client: Client) -> None:
    assert all(line["created_at"].endswith("Z") for line in chat(client))


def test_the_same_question_has_the_same_answer(client: Client) -> None:
    assert [line["message"] for line in chat(client)] == [line["message"] for line in chat(client)]


def test_space_and_lines_of_a_message_are_kept(client: Client) -> None:
    text = " two\n\n  lines\t\n"
    assert joined(chat(client, messages=[{"role": "user", "content": text}])).endswith(f"You said: {text}")


def test_the_last_message_is_answered(client: Client) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Hm."}, {"role": "user", "content": "Again?"}]
    assert joined(chat(client, messages=messages)).endswith("You said: Again?")


def test_images_are_seen(client: Client) -> None:
    messages = [{"role": "user", "content": "Look!", "images": ["aGk=", "aGk="]}]
    assert joined(chat(client, messages=messages)).endswith("You said: Look! You sent 2 image(s).")


def test_latest_is_the_same_model(client: Client) -> None:
    assert whole(client, model="demo:latest")["model"] == "demo:latest"


def test_no_messages_load_the_model(client: Client) -> None:
    answer = whole(client, messages=[])
    assert (answer["done"], answer["done_reason"], answer["message"]["content"]) == (True, "load", "")


def test_embedding_models_do_not_chat(client: Client) -> None:
    response = post(client, "/api/chat", model="demo-embed", messages=HELLO)
    assert error(response) == (400, '"demo-embed" does not support chat')


# -- thinking ---------------------------------------------------------------------------------

THINKS = {"not said": {}, "on": {"think": True}, "a level": {"think": "high"}}


@pytest.mark.parametrize("request_", THINKS.values(), ids=THINKS)
def test_the_thinking_model_thinks_first(client: Client, request_: dict[str, Any]) -> None:
    lines = chat(client, model="demo-think", **request_)
    thoughts = len(THOUGHT.split())
    assert joined(lines[:thoughts], "thinking") == THOUGHT
    assert joined(lines[:thoughts]) == ""
    assert joined(lines[thoughts:]) == SAID
    assert joined(lines[thoughts:], "thinking") == ""
    assert lines[-1]["eval_count"] == thoughts + len(SAID.split())


@pytest.mark.parametrize("request_", THINKS.values(), ids=THINKS)
def test_the_thinking_model_in_one_piece(client: Client, request_: dict[str, Any]) -> None:
    message = whole(client, model="demo-think", **request_)["message"]
    assert (message["thinking"], message["content"]) == (THOUGHT, SAID)


def test_thinking_can_be_turned_off(client: Client) -> None:
    lines = chat(client, model="demo-think", think=False)
    assert (joined(lines, "thinking"), joined(lines)) == ("", SAID)
    assert "thinking" not in whole(client, model="demo-think", think=False)["message"]


@pytest.mark.parametrize("think", [True, "low"])
def test_models_without_thinking_refuse_it(client: Client, think: bool | str) -> None:
    response = post(client, "/api/chat", model="demo", messages=HELLO, think=think)
    assert error(response) == (400, '"demo" does not support thinking')


def test_models_without_thinking_may_be_told_not_to(client: Client) -> None:
    assert joined(chat(client, think=False)) == SAID


# -- tools ------------------------------------------------------------------------------------


def ask_tools(client: Client, text: str, *tools: Any) -> list[dict[str, Any]]:
    return chat(client, model="demo-tools", messages=[{"role": "user", "content": text}], tools=list(tools))


def calls_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for line in lines for call in line["message"].get("tool_calls", [])]


@pytest.mark.parametrize(
    ("text", "name"), [("What time is it? Use clock.", "clock"), ("Hello!", "weather")], ids=["named", "first"]
)
def test_the_tool_that_is_named_is_called_else_the_first(client: Client, text: str, name: str) -> None:
    lines = ask_tools(client, text, WEATHER, CLOCK)
    [call] = calls_of(lines)
    assert call["function"]["name"] == name
    assert joined(lines) == ""
    assert lines[-1]["done_reason"] == "stop"


def test_arguments_are_an_instance_of_the_schema(client: Client) -> None:
    [call] = calls_of(ask_tools(client, "Hello!", WEATHER))
    assert call["function"]["arguments"] == {"city": "demo"}
    assert call["id"].startswith("call_")


def test_a_call_has_the_same_id_each_time_and_another_for_another_text(client: Client) -> None:
    ids = [calls_of(ask_tools(client, text, WEATHER))[0]["id"] for text in ("Hello!", "Hello!", "Bye!")]
    assert ids[0] == ids[1] != ids[2]


def test_a_call_in_one_piece(client: Client) -> None:
    message = whole(client, model="demo-tools", tools=[WEATHER])["message"]
    assert message["content"] == ""
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather"]


def test_what_the_tool_said_is_told(client: Client) -> None:
    [call] = calls_of(ask_tools(client, "Hello!", WEATHER))
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "It rains."},
    ]
    lines = chat(client, model="demo-tools", messages=messages, tools=[WEATHER])
    assert calls_of(lines) == []
    assert joined(lines) == "This is the openai-compat demo, not a model. The tool said: It rains."


def test_without_tools_it_talks(client: Client) -> None:
    assert joined(chat(client, model="demo-tools", tools=[])) == SAID


def test_models_without_tools_refuse_them(client: Client) -> None:
    status, text = error(post(client, "/api/chat", model="demo", messages=HELLO, tools=[WEATHER]))
    assert (status, text) == (400, "registry.ollama.ai/library/demo:latest does not support tools")


# -- a model without tools --------------------------------------------------------------------


def test_the_plain_model_refuses_tools(client: Client) -> None:
    assert joined(chat(client, model="demo-plain", tools=[])) == SAID
    response = post(client, "/api/chat", model="demo-plain", messages=HELLO, tools=[WEATHER])
    text = "registry.ollama.ai/library/demo-plain:latest does not support tools"
    assert error(response) == (400, text)


def test_the_plain_model_sees_no_calls_and_no_results(client: Client) -> None:
    call = {"function": {"name": "weather", "arguments": {}}}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    history = [calls, {"role": "tool", "content": "It rains."}]
    lines = chat(client, model="demo-plain", messages=[*history, *HELLO])
    assert (joined(lines), lines[-1]["prompt_eval_count"]) == (SAID, 1)
    for messages in (history[1:], history):
        assert joined(chat(client, model="demo-plain", messages=messages)) == SAID.removesuffix("Hello!")


AGENT = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "calls": {
                    "type": "array",
                    "items": {
                        "anyOf": [
                            {"properties": {"name": {"const": "clock"}, "parameters": {"type": "object"}}},
                            {
                                "properties": {
                                    "name": {"const": "weather"},
                                    "parameters": {"properties": {"city": {"type": "string"}}},
                                }
                            },
                        ]
                    },
                }
            },
        },
        {"type": "object", "properties": {"answer": {"type": "string"}}},
    ]
}


def test_the_plain_model_is_an_agent_under_a_format(client: Client) -> None:
    def ask(*contents: str) -> Any:
        messages = [{"role": "user", "content": content} for content in contents]
        return json.loads(joined(chat(client, model="demo-plain", messages=messages, format=AGENT)))

    assert ask("Hello!") == {"calls": [{"name": "clock", "parameters": {}}]}
    assert ask("Hello!", "The weather?") == {"calls": [{"name": "weather", "parameters": {"city": "demo"}}]}
    told = "Result of weather: It rains."
    said = f"This is the openai-compat demo, not a model. The tool said: {told}"
    assert ask("The weather?", told) == {"answer": said}
    assert ask("The weather?", told, "And now, weather?")["calls"][0]["name"] == "weather"


# -- a model that writes its calls ------------------------------------------------------------


def test_the_text_model_writes_its_call_token_by_token(client: Client) -> None:
    lines = chat(client, model="demo-text", tools=[WEATHER, CLOCK])
    assert calls_of(lines) == []
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "demo"}}\n</tool_call>'
    assert joined(lines) == text
    assert len(lines) == len(text.split()) + 1
    assert lines[-1]["eval_count"] == len(text.split())
    message = whole(client, model="demo-text", tools=[WEATHER, CLOCK])["message"]
    assert message == {"role": "assistant", "content": text}


def test_the_text_model_answers_after_a_result_and_without_tools(client: Client) -> None:
    messages = [*HELLO, {"role": "tool", "content": "It rains."}]
    lines = chat(client, model="demo-text", messages=messages, tools=[WEATHER])
    assert joined(lines) == "This is the openai-compat demo, not a model. The tool said: It rains."
    assert joined(chat(client, model="demo-text")) == SAID


@pytest.mark.parametrize("model", ["demo-tools", "demo-text"])
def test_a_format_constrains_all_output(client: Client, model: str) -> None:
    lines = chat(client, model=model, tools=[WEATHER], format={"properties": {"a": {"type": "integer"}}})
    assert (joined(lines), calls_of(lines)) == ('{"a": 1}', [])


# -- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"stop": ["demo,"]}, "This is the openai-compat ", "stop"),
        ({"stop": ["model", "demo,"]}, "This is the openai-compat ", "stop"),
        ({"stop": ["nowhere", ""]}, SAID, "stop"),
        ({"num_predict": 2}, "This is", "length"),
        ({"num_predict": 1000}, SAID, "stop"),
        ({"num_predict": -1}, SAID, "stop"),
        ({"num_predict": 2, "stop": ["is the"]}, "This ", "stop"),
        ({"num_predict": 1, "stop": ["the"]}, "This", "length"),
    ],
    ids=["stop", "first stop", "no stop", "cut", "not cut", "no limit", "stop before limit", "limit before stop"],
)
def test_stop_and_num_predict(client: Client, options: dict[str, Any], text: str, reason: str) -> None:
    lines = chat(client, options=options)
    assert (joined(lines), lines[-1]["done_reason"]) == (text, reason)
    answer = whole(client, options=options)
    assert (answer["message"]["content"], answer["done_reason"]) == (text, reason)


LONG = [{"role": "user", "content": "word " * (CONTEXT + 1)}]


def test_an_overlong_prompt_is_cut(client: Client) -> None:
    assert whole(client, messages=LONG)["prompt_eval_count"] == CONTEXT


def test_without_truncation_an_overlong_prompt_is_refused_as_the_runner_says_it(client: Client) -> None:
    status, text = error(post(client, "/api/chat", model="demo", messages=LONG, truncate=False))
    assert status == 400
    inner = json.loads(text)["error"]
    assert (inner["code"], inner["type"]) == (400, "exceed_context_size_error")
    assert (inner["n_prompt_tokens"], inner["n_ctx"]) == (CONTEXT + 1, CONTEXT)
    assert f"request ({CONTEXT + 1} tokens) exceeds the available context size ({CONTEXT} tokens)" in inner["message"]


def test_the_context_may_be_smaller(client: Client) -> None:
    messages = [{"role": "user", "content": "one two three"}]
    request = {"model": "demo", "messages": messages, "truncate": False}
    assert post(client, "/api/chat", **request, options={"num_ctx": 2}).status_code == 400
    assert post(client, "/api/chat", **request, options={"num_ctx": 3}).status_code == 200


# -- formats ----------------------------------------------------------------------------------


def test_a_chat_in_json_mode_answers_with_an_object(client: Client) -> None:
    assert json.loads(joined(chat(client, format="json"))) == {"backend": "openai-compat demo"}


def test_a_chat_with_a_schema_answers_with_an_instance_of_it(client: Client) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    assert json.loads(joined(chat(client, format=schema))) == {"name": "demo", "age": 1}


# -- log-probabilities ------------------------------------------------------------------------


def test_logprobs_of_a_stream_are_those_of_its_tokens(client: Client) -> None:
    *words, last = chat(client, logprobs=True)
    for line in words:
        [entry] = line["logprobs"]
        assert entry["token"] == line["message"]["content"]
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] < 0
        assert "top_logprobs" not in entry
    assert "logprobs" not in last


def test_logprobs_in_one_piece(client: Client) -> None:
    entries = whole(client, logprobs=True)["logprobs"]
    assert "".join(entry["token"] for entry in entries) == SAID


@pytest.mark.parametrize("top", [1, 3])
def test_top_logprobs_begin_with_the_token_itself(client: Client, top: int) -> None:
    for entry in whole(client, logprobs=True, top_logprobs=top)["logprobs"]:
        assert len(entry["top_logprobs"]) == top
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        likely = [other["logprob"] for other in entry["top_logprobs"]]
        assert likely == sorted(likely, reverse=True)


def test_logprobs_are_told_of_thoughts_too(client: Client) -> None:
    entries = whole(client, model="demo-think", logprobs=True)["logprobs"]
    assert "".join(entry["token"] for entry in entries) == THOUGHT + SAID


def test_without_logprobs_there_are_none(client: Client) -> None:
    assert "logprobs" not in whole(client)
    assert not any("logprobs" in line for line in chat(client))


# -- generate ---------------------------------------------------------------------------------


def generate(client: Client, **request: Any) -> TestResponse:
    return post(client, "/api/generate", **{"model": "demo", "prompt": "Hello!", **request})


def test_generate_streams(client: Client) -> None:
    *words, last = lines_of(generate(client))
    assert "".join(line["response"] for line in words) == SAID
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert not any("message" in line for line in [*words, last])


def test_generate_in_one_piece(client: Client) -> None:
    answer = generate(client, stream=False).get_json()
    assert (answer["response"], answer["done"]) == (SAID, True)


def test_generate_thinks(client: Client) -> None:
    lines = lines_of(generate(client, model="demo-think"))
    assert "".join(line.get("thinking", "") for line in lines) == THOUGHT
    assert "".join(line["response"] for line in lines) == SAID
    answer = generate(client, model="demo-think", stream=False).get_json()
    assert (answer["thinking"], answer["response"]) == (THOUGHT, SAID)


def test_generate_without_a_prompt_loads_the_model(client: Client) -> None:
    answer = generate(client, prompt="").get_json()
    assert (answer["response"], answer["done_reason"]) == ("", "load")


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"suffix": "!"}, "demo does not support insert"),
        ({"model": "demo-embed"}, '"demo-embed" does not support generate'),
    ],
    ids=["suffix", "embedding"],
)
def test_what_generate_refuses(client: Client, request_: dict[str, Any], text: str) -> None:
    assert error(generate(client, **request_)) == (400, text)


# -- embed ------------------------------------------------------------------------------------


def embed(client: Client, input: Any, **request: Any) -> Any:
    response = post(client, "/api/embed", **{"model": "demo-embed", "input": input, **request})
    assert response.status_code == 200
    return response.get_json()


def test_embed_is_deterministic(client: Client) -> None:
    first, second, third = embed(client, ["one", "one", "two"])["embeddings"]
    assert first == second != third
    assert embed(client, "one")["embeddings"] == [first]


@pytest.mark.parametrize("size", [None, 1, 8, 1024])
def test_embed_is_normalised(client: Client, size: int | None) -> None:
    [vector] = embed(client, "Hello!", **({"dimensions": size} if size else {}))["embeddings"]
    assert len(vector) == (size or 64)
    assert math.isclose(math.hypot(*vector), 1.0)


def test_embed_counts_words(client: Client) -> None:
    assert embed(client, ["one two", "three"])["prompt_eval_count"] == 3


def test_embed_of_nothing(client: Client) -> None:
    assert embed(client, [])["embeddings"] == []


@pytest.mark.parametrize("input", [1, [1], {"a": 1}, [["one"]]], ids=["number", "numbers", "object", "lists"])
def test_embed_takes_texts_only(client: Client, input: Any) -> None:
    response = post(client, "/api/embed", model="demo-embed", input=input)
    assert error(response) == (400, "invalid input type")


@pytest.mark.parametrize("model", [name for name in MODELS if name != "demo-embed"])
def test_chat_models_do_not_embed(client: Client, model: str) -> None:
    status, text = error(post(client, "/api/embed", model=model, input="Hello!"))
    assert status == 501
    assert "does not support embeddings" in text


# -- models -----------------------------------------------------------------------------------


def test_tags_list_every_model(client: Client) -> None:
    models = get(client, "/api/tags").get_json()["models"]
    assert [model["model"] for model in models] == [f"{name}:latest" for name in MODELS]
    assert [model["name"] for model in models] == [model["model"] for model in models]
    assert {model["model"]: model["capabilities"] for model in models}["demo-embed:latest"] == ["embedding"]


@pytest.mark.parametrize("key", ["model", "name"])
@pytest.mark.parametrize("name", MODELS)
def test_show_tells_of_a_model_by_either_key(client: Client, key: str, name: str) -> None:
    shown = post(client, "/api/show", **{key: name}).get_json()
    assert shown["capabilities"] == MODELS[name]
    assert shown["model_info"]["demo.context_length"] == CONTEXT
    assert shown["modified_at"] == "2026-01-01T00:00:00Z"


def test_nothing_is_loaded(client: Client) -> None:
    assert get(client, "/api/ps").get_json() == {"models": []}


def test_the_version_says_what_it_is(client: Client) -> None:
    assert get(client, "/api/version").get_json() == {"version": VERSION}
    assert "demo" in VERSION


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
@pytest.mark.parametrize("name", ["llama3", "demo:other", "Demo"])
def test_any_other_name_is_not_found(client: Client, path: str, name: str) -> None:
    response = post(client, path, model=name, messages=HELLO, prompt="Hello!", input="Hello!")
    assert error(response) == (404, f"model '{name}' not found")


# -- the HTTP side ----------------------------------------------------------------------------

POSTS = ["/api/chat", "/api/generate", "/api/embed", "/api/show"]
GETS = ["/", "/api/tags", "/api/ps", "/api/version"]


def test_the_root_says_that_it_runs(client: Client) -> None:
    assert get(client, "/").text == "Ollama is running (openai-compat demo)"


@pytest.mark.parametrize("path", ["/api", "/api/pull", "/v1/models", "/api/chat/", "/nowhere"])
def test_other_paths_are_not_found(client: Client, path: str) -> None:
    response = get(client, path)
    assert (response.status_code, response.mimetype, response.text) == (404, "text/plain", "404 page not found")


@pytest.mark.parametrize(
    ("method", "path"), [*(("GET", path) for path in POSTS), *(("POST", path) for path in GETS[1:])]
)
def test_other_methods_are_not_allowed(client: Client, method: str, path: str) -> None:
    with client.open(path, method=method) as response:
        assert (response.status_code, response.text) == (405, "405 method not allowed")


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(client: Client, path: str) -> None:
    with client.head(path) as response:
        assert (response.status_code, response.get_data()) == (200, b"")
        assert response.mimetype == get(client, path).mimetype


@pytest.mark.parametrize(
    ("body", "text"),
    [(b"", "missing request body"), (b"[]", "cannot unmarshal"), (b"{", "Expecting property name")],
    ids=["none", "no object", "no JSON"],
)
@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_no_request(client: Client, path: str, body: bytes, text: str) -> None:
    with client.post(path, data=body) as response:
        status, said = error(response)
    assert status == 400
    assert text in said


@pytest.mark.parametrize("path", POSTS)
def test_a_request_without_a_model(client: Client, path: str) -> None:
    assert error(post(client, path, stream=False)) == (400, "model is required")


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/api/embed", {"model": "demo-embed", "input": "x", "dimensions": "x"}),
        ("/api/embed", {"model": "demo-embed", "input": "x", "dimensions": -1}),
        ("/api/chat", {"model": "demo", "messages": ["x"]}),
        ("/api/chat", {"model": "demo", "messages": HELLO, "options": "x"}),
        ("/api/chat", {"model": "demo", "messages": HELLO, "options": {"stop": 1}}),
        ("/api/chat", {"model": "demo", "messages": HELLO, "options": {"num_predict": "5"}}),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400(client: Client, path: str, request_: dict[str, Any]) -> None:
    response = post(client, path, **request_)
    assert response.status_code == 400
    assert response.get_json()["error"]


def test_a_prompt_has_4096_words_at_most(client: Client) -> None:
    prompt = {"model": "demo", "stream": False, "truncate": False}
    assert post(client, "/api/generate", prompt="word " * 4096, **prompt).status_code == 200
    assert post(client, "/api/generate", prompt="word " * 4097, **prompt).status_code == 400


def test_a_vector_has_4096_numbers_at_most(client: Client) -> None:
    response = post(client, "/api/embed", model="demo-embed", input="a", dimensions=10**6)
    assert len(response.get_json()["embeddings"][0]) == 4096
