"""Kinds of input that users and their clients send, in every endpoint where they can occur.

Each test is named after its kind. What becomes of single fields is tested beside the modules that map them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Struct
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.middleware.routes import ROUTES
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.fields import RequestObject
from tests.contract import check
from tests.endpoints.requests import TOOLS, answered, ignored, refused, sent, streamed

HELLO = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "demo", "messages": HELLO}
TEXT = {"model": "demo", "prompt": "Hi"}
EMBED = {"model": "demo-embed", "input": "Hi"}
RESPONSE = {"model": "demo", "input": "Hi"}

CHATS, TEXTS, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {CHATS: CHAT, TEXTS: TEXT, VECTORS: EMBED, RESPONSES: RESPONSE}

EMPTY = ["", [], {}]


def post(path: str, body: Any, fake: FakeOllama | None = None, **settings: Any) -> TestResponse:
    return Client(OpenAICompat(fake or FakeOllama(), **settings)).post(path, json={**BODIES[path], **body})


def native(path: str, body: Any, **settings: Any) -> dict[str, Any]:
    """The native request of a body that is taken."""
    fake = FakeOllama()
    response = post(path, body, fake, **settings)
    assert response.status_code == 200, response.data
    request: dict[str, Any] = fake.requests[0].json
    return request


def listed(path: str, body: Any, **settings: Any) -> set[str]:
    response = post(path, body, **settings)
    assert response.status_code == 200, response.data
    return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))


def error(path: str, body: Any, **settings: Any) -> dict[str, Any]:
    response = post(path, body, **settings)
    assert response.status_code == 400, response.data
    check("ErrorResponse", response.get_json())
    found: dict[str, Any] = response.get_json()["error"]
    return found


# -- empty means not set ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHATS, TEXTS, RESPONSES])
@pytest.mark.parametrize(
    ("stop", "options"), [("", {}), ([""], {}), ([], {}), (["", "Ocean"], {"stop": ["Ocean"]}), ({}, {})]
)
def test_empty_means_not_set_of_stop(path: str, stop: Any, options: Any, stream: bool) -> None:
    request = native(path, {"stop": stop, "stream": stream})
    assert {key: value for key, value in request["options"].items() if key == "stop"} == options


OPTIONAL: dict[str, list[str]] = {
    CHATS: ["temperature", "top_p", "n", "seed", "max_tokens", "stream", "stream_options", "tools", "tool_choice"]
    + ["functions", "function_call", "response_format", "format", "logprobs", "top_logprobs", "logit_bias", "reasoning"]
    + [
        "metadata",
        "options",
        "chat_template_kwargs",
        "thinking",
        "think",
        "keep_alive",
        "truncate",
        "modalities",
        "user",
    ]
    + [
        "reasoning_effort",
        "parallel_tool_calls",
        "service_tier",
        "prediction",
        "audio",
        "store",
        "verbosity",
        "num_ctx",
    ],
    TEXTS: [
        "temperature",
        "n",
        "best_of",
        "suffix",
        "stream",
        "stream_options",
        "logprobs",
        "options",
        "format",
        "stop",
    ]
    + ["echo", "raw", "logit_bias", "reasoning", "thinking", "chat_template_kwargs", "keep_alive", "truncate", "user"],
    RESPONSES: ["temperature", "top_p", "seed", "max_output_tokens", "max_tool_calls", "stream", "stream_options"]
    + ["tools", "tool_choice", "text", "format", "include", "top_logprobs", "reasoning", "metadata", "options"]
    + ["chat_template_kwargs", "thinking", "think", "keep_alive", "truncate", "user", "parallel_tool_calls", "store"]
    + ["service_tier", "prompt", "moderation", "context_management", "client_metadata", "truncation", "instructions"]
    + ["prompt_cache_key", "safety_identifier", "background_options", "access_programs", "image", "stop", "num_ctx"],
    VECTORS: ["dimensions", "encoding_format", "options", "keep_alive", "truncate", "user"],
}


@pytest.mark.parametrize("policy", ["warn", "error"])
@pytest.mark.parametrize("empty", EMPTY, ids=str)
@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in OPTIONAL.items() for field in fields])
def test_empty_means_not_set(path: str, field: str, empty: Any, policy: str) -> None:
    if (field, empty) == ("format", {}):
        pytest.skip("a schema that admits anything asks for JSON")
    plain, found = FakeOllama(), FakeOllama()
    assert post(path, {}, plain).status_code == 200
    response = post(path, {field: empty}, found, unsupported=policy)
    assert response.status_code == 200, response.data
    assert [request.json for request in found.requests] == [request.json for request in plain.requests]
    assert "openai-compat-ignored" not in response.headers


def test_empty_means_not_set_but_an_empty_object_may_ask_for_something() -> None:
    assert ignored(web_search_options={}) == {"web_search_options"}
    assert refused({"unsupported": "error"}, web_search_options={})["param"] == "web_search_options"


# -- nothing vanishes inside objects ----------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"reasoning": {"exclude": True, "max_tokens": 100}}, {"reasoning.max_tokens"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking.budget_tokens"}),
        ({"stream_options": {"continuous_usage_stats": True}}, {"stream_options.continuous_usage_stats"}),
        ({"response_format": {"type": "json_object", "x": 1}}, {"response_format.x"}),
        ({"response_format": {"type": "text", "schema": {"type": "object"}}}, {"response_format.schema"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}, "x": [1], "y": None},
                }
            },
            {"response_format.json_schema.x"},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "x": 1}, "y": 2}]},
            {"tools[].function.x", "tools[].y"},
        ),
        ({"functions": [{"name": "f", "x": 1}]}, {"functions[].x"}),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f", "x": 1}, "y": 1}},
            {"tool_choice.function.x", "tool_choice.y"},
        ),
        ({"messages": [{**HELLO[0], "cache_control": {"type": "ephemeral"}}]}, {"messages[].cache_control"}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"a": 1}}]}]},
            {"messages[].content[].cache_control"},
        ),
        ({"chat_template_kwargs": {"x": 1, "enable_thinking": None}}, {"chat_template_kwargs.x"}),
    ],
)
def test_nothing_vanishes_inside_objects(body: dict[str, Any], names: set[str]) -> None:
    demo = "demo-think" if "enabled" in str(body) else "demo-tools" if "'name': 'f'" in str(body) else "demo"
    assert names <= listed(CHATS, {**body, "model": demo})
    streaming = post(CHATS, {**body, "model": demo, "stream": True})
    assert names <= set(streaming.headers["openai-compat-ignored"].split(", "))


def test_nothing_vanishes_inside_objects_of_completions() -> None:
    body = {"stream_options": {"x": 1}, "reasoning": {"max_tokens": 5}, "thinking": {"type": "disabled", "y": 1}}
    assert listed(TEXTS, body) == {"stream_options.x", "reasoning.max_tokens", "thinking.y"}


def structs(kind: Any, seen: set[type[Struct]]) -> set[type[Struct]]:
    """The structs that a type of a request refers to."""
    from typing import get_args, get_type_hints

    if isinstance(kind, type) and issubclass(kind, Struct) and kind not in seen:
        seen.add(kind)
        for hint in get_type_hints(kind).values():
            structs(hint, seen)
    for part in get_args(kind):
        structs(part, seen)
    return seen


def test_no_struct_of_a_request_lets_a_key_vanish() -> None:
    bodies = {route.request for route in ROUTES if route.request is not None and route.method == "POST"}
    found = set().union(*(structs(kind, set()) for kind in bodies))
    forms = {kind for kind in found if kind.__name__ == "TranscriptionRequest"}  # read field by field
    assert len(found) > 8
    assert {kind for kind in found - forms if not issubclass(kind, RequestObject)} == set()


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    ],
)
def test_nothing_vanishes_of_a_schema_beside_the_type(response_format: dict[str, Any]) -> None:
    assert sent(response_format=response_format)["format"] == response_format["schema"]
    assert ignored(response_format=response_format) == set()


# -- roles, and bodies for another endpoint ---------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("role", ["control", "context", "ipython"])
def test_roles_that_only_some_models_have_are_passed_on_and_logged(
    role: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "openai_compat")
    request = native(CHATS, {"messages": [{"role": role, "content": "c"}, *HELLO], "stream": stream})
    assert request["messages"][0] == {"role": role, "content": "c"}
    assert role in caplog.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param", "url"),
    [
        (CHATS, {"messages": None, "input": "Hi"}, "messages", "/v1/responses"),
        (CHATS, {"messages": [], "input": HELLO, "instructions": "x"}, "messages", "/v1/responses"),
        (CHATS, {"messages": None, "prompt": "Hi"}, "messages", "/v1/completions"),
        (TEXTS, {"prompt": None, "messages": HELLO}, "prompt", "/v1/chat/completions"),
        (TEXTS, {"prompt": None, "input": "Hi"}, "prompt", "/v1/responses"),
        (TEXTS, {"prompt": "", "messages": HELLO}, "prompt", "/v1/chat/completions"),
        (VECTORS, {"input": None, "messages": HELLO}, "input", "/v1/chat/completions"),
        (VECTORS, {"input": None, "prompt": "Hi"}, "input", "/v1/completions"),
    ],
)
def test_a_body_for_another_endpoint_is_told_the_right_url(
    path: str, body: dict[str, Any], param: str, url: str, stream: bool
) -> None:
    found = error(path, {**body, **({"stream": True} if stream and path != VECTORS else {})})
    assert (found["param"], found["code"]) == (param, "missing_required_parameter")
    assert url in found["message"]


# -- schemas that Ollama cannot decode --------------------------------------------------------


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
@pytest.mark.parametrize(
    ("schema", "native_schema"),
    [
        ({"type": "object", "properties": {"x": True}}, {"type": "object", "properties": {"x": {}}}),
        ({"type": "object", "properties": {"x": False, "y": {}}}, {"type": "object", "properties": {"y": {}}}),
        ({"type": ["object", "null"]}, {"type": "object"}),
        ({"type": "object", "properties": []}, {"type": "object", "properties": {}}),
        (
            {"type": "object", "items": True, "$defs": {"a": True}},
            {"type": "object", "items": True, "$defs": {"a": True}},
        ),
    ],
)
def test_schemas_that_ollama_cannot_decode_are_rewritten_in_tools(schema: Any, native_schema: Any, choice: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    step = say('{"name":"f","parameters":{}}'), done()
    assert sent(*step, tools=tools, tool_choice=choice)["tools"][0]["function"]["parameters"] == native_schema


@pytest.mark.parametrize("name", ["tools", "functions"])
@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"required": {}}, ".required"),
        ({"required": True}, ".required"),
        (True, ""),
        ([1], ""),
        ({"properties": {"x": {"enum": "a"}}}, ".properties.x.enum"),
    ]
    + [({"properties": {"x": {"description": 5}}}, ".properties.x.description"), ("x", ""), (5, "")],
)
def test_what_is_no_schema_is_named(name: str, schema: Any, path: str) -> None:
    function = {"name": "f", "parameters": schema}
    fields = {"tools": [{"type": "function", "function": function}]} if name == "tools" else {"functions": [function]}
    prefix = "tools[0].function.parameters" if name == "tools" else "functions[0].parameters"
    assert refused(**fields)["param"] == prefix + path


@pytest.mark.parametrize("strict", [False, True])
def test_schemas_that_llama_cpp_cannot_read_are_rewritten_in_formats(strict: bool) -> None:
    schema = {"type": "object", "properties": {"x": True, "y": {"enum": None}}, "additionalProperties": True}
    json_schema = {"name": "n", "schema": schema, "strict": strict}
    found = sent(say("{}"), done(), response_format={"type": "json_schema", "json_schema": json_schema})["format"]
    assert found["properties"]["x"] is not True
    assert found["properties"]["y"].get("enum", 1) is not None
    assert found["additionalProperties"] is True


# -- lone surrogates --------------------------------------------------------------------------


def raw_post(path: str, body: bytes, fake: FakeOllama) -> TestResponse:
    return Client(OpenAICompat(fake)).post(path, data=body, content_type="application/json")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHATS, rb'{"model":"demo","messages":[{"role":"user","content":"a\ud83d"}]}'),
        (CHATS, rb'{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"a\udc00"}]}]}'),
        (CHATS, rb'{"model":"demo","messages":[{"role":"user","content":"a"}],"stop":"\ud83d","user":"\ud83d"}'),
        (CHATS, rb'{"model":"demo","messages":[{"role":"user","content":"a","\ud83d":1}]}'),
        (
            CHATS,
            rb'{"model":"demo","messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":'
            rb'[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":\"\ud83d\"}"}}]},'
            rb'{"role":"tool","tool_call_id":"c","content":"\udfff"}]}',
        ),
        (
            CHATS,
            rb'{"model":"demo","messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":'
            rb'[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":\"\\ud83d\"}"}}]}]}',
        ),
        (TEXTS, rb'{"model":"demo","prompt":["a\ud83d"]}'),
        (VECTORS, rb'{"model":"demo-embed","input":["a\ud83d","\udc00"]}'),
    ],
)
def test_lone_surrogates_in_any_text_become_the_replacement_character(path: str, body: bytes) -> None:
    fake = FakeOllama()
    response = raw_post(path, body, fake)
    assert response.status_code == 200, response.data
    for surrogate in (b"\\ud83d", b"\\udc00", b"\\udfff"):
        assert surrogate not in fake.requests[0].body


@pytest.mark.parametrize("stream", [False, True])
def test_lone_surrogates_of_a_native_line_leave_raw_json_as_it_is(stream: bool) -> None:
    line = (
        rb'{"message":{"role":"assistant","content":"a\ud83d","tool_calls":[{"function":{"name":"f",'
        rb'"arguments":{"n":12345678901234567890123,"f":1.0,"s":"\udc00"}}}]},"done":false}'
    )
    arguments = '{"n":12345678901234567890123,"f":1.0,"s":"\\ufffd"}'
    found: Any = streamed(line, b"\n", done()) if stream else answered(line, b"\n", done())
    text = json.dumps(found)
    assert json.dumps(arguments)[1:-1] in text
    assert "a\\ufffd" in text


# -- metadata ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [{"tags": ["a"]}, {"a": 1}, "x", 5, [1], {str(i): "x" for i in range(17)}])
def test_metadata_is_checked_only_where_it_is_stored(metadata: Any) -> None:
    assert ignored(metadata=metadata) == {"metadata"}
    assert ignored(metadata=metadata, store=True) == {"metadata", "store"}
    pytest.importorskip("sqlalchemy")
    assert ignored({"store": "sqlite://"}, metadata=metadata) == {"metadata"}
    assert refused({"store": "sqlite://"}, metadata=metadata, store=True)["param"].startswith("metadata")


# -- numbers as text, and other dialects ------------------------------------------------------


@pytest.mark.parametrize("path", [CHATS, TEXTS, VECTORS, RESPONSES])
@pytest.mark.parametrize(
    ("given", "expected"), [("-1", -1), ("300", 300), (" 5m", "5m"), ("", None), ("1.5", 1.5), (5, 5), ("0", 0)]
)
def test_numeric_text_is_a_number_in_ollama_s_own_fields(path: str, given: Any, expected: Any) -> None:
    assert native(path, {"keep_alive": given}).get("keep_alive") == expected
    assert native(path, {"options": {"num_ctx": "4096"}})["options"]["num_ctx"] == 4096


@pytest.mark.parametrize(
    ("path", "field"),
    [(CHATS, "temperature"), (CHATS, "n"), (CHATS, "max_tokens"), (CHATS, "seed"), (TEXTS, "logprobs")]
    + [(TEXTS, "best_of"), (VECTORS, "dimensions"), (CHATS, "top_logprobs"), (CHATS, "presence_penalty")],
)
def test_numeric_text_is_refused_in_openai_s_fields(path: str, field: str) -> None:
    assert error(path, {field: "1"})["code"] == "invalid_type"


@pytest.mark.parametrize("path", [CHATS, TEXTS, VECTORS, RESPONSES])
@pytest.mark.parametrize(("given", "expected"), [("END", True), ("NONE", False), ("end", True), (True, True)])
def test_truncate_of_nvidia_s_dialect(path: str, given: Any, expected: bool) -> None:
    assert native(path, {"truncate": given})["truncate"] is expected


@pytest.mark.parametrize("path", [CHATS, TEXTS, VECTORS, RESPONSES])
def test_truncate_at_the_start_is_listed(path: str) -> None:
    assert listed(path, {"truncate": "START"}) == {"truncate"}
    assert error(path, {"truncate": "MIDDLE"})["param"] == "truncate"


@pytest.mark.parametrize("path", [CHATS, TEXTS, RESPONSES])
@pytest.mark.parametrize("given", ["xml", 5, [1], True])
def test_a_format_that_ollama_does_not_have_is_a_400(path: str, given: Any) -> None:
    assert error(path, {"format": given})["param"] == "format"


# -- embeddings -------------------------------------------------------------------------------


def test_dimensions_that_the_model_did_not_honour_are_listed() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[1, 2, 3]]})
    response = post(VECTORS, {"dimensions": 99999}, fake)
    assert response.get_json()["data"][0]["embedding"] == [1, 2, 3]
    assert response.headers["openai-compat-ignored"] == "dimensions"
    fake.script("/api/embed", {"embeddings": [[1, 2, 3]]})
    strict = post(VECTORS, {"dimensions": 99999}, fake, unsupported="error")
    assert (strict.status_code, strict.get_json()["error"]["param"]) == (400, "dimensions")
    fake.script("/api/embed", {"embeddings": [[1, 2, 3]]})
    assert "openai-compat-ignored" not in post(VECTORS, {"dimensions": 3}, fake).headers


@pytest.mark.parametrize("status", ["500 X", "400 X"])
def test_an_input_that_is_too_large_for_a_batch_is_too_long(status: str) -> None:
    fake = FakeOllama()
    text = "input (1025 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    fake.script("/api/embed", {"error": text}, status=status)
    response = post(VECTORS, {}, fake)
    found = response.get_json()["error"]
    assert (response.status_code, found["code"], found["param"]) == (400, "context_length_exceeded", "input")
    assert "your input resulted in 1025 tokens" in found["message"]
    assert "messages" not in found["message"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("vectors", [[[]], [[], []], [[1], []]])
def test_an_empty_vector_is_a_502(vectors: Any, encoding: str) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": vectors})
    assert post(VECTORS, {"input": ["a"] * len(vectors), "encoding_format": encoding}, fake).status_code == 502


# -- log-probabilities of completions ---------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_the_sampled_token_is_among_the_top_log_probabilities(stream: bool) -> None:
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}]
    line = {"response": "z", "done": False, "logprobs": [{"token": "z", "logprob": -5.0, "top_logprobs": top}]}
    fake = FakeOllama()
    fake.script("/api/generate", line, {**done(), "response": ""})
    response = post(TEXTS, {"logprobs": 2, "stream": stream}, fake)
    text = response.get_data(as_text=True)
    assert '"top_logprobs":[{"b":-0.2,"a":-0.1,"z":-5.0}]' in text


# -- odd native values ------------------------------------------------------------------------

ODD = {
    "created_at": 1700000000,
    "done_reason": 5,
    "prompt_eval_count": "3",
    "eval_count": {"a": 1},
    "total_duration": "1s",
    "logprobs": {},
    "model": 5,
    "extra": [1],
}


@pytest.mark.parametrize("stream", [False, True])
def test_odd_native_values_where_nothing_depends_on_them_are_passed_over(stream: bool) -> None:
    call = {"id": 7, "function": {"index": 0.0, "name": "f", "arguments": {"a": 1}}}
    steps = [{**say("Hi"), **ODD}, {**say("", tool_calls=[call]), **ODD}, {**done(), **ODD}]
    if stream:
        chunks = streamed(*steps)
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        found = answered(*steps)
        message = found["choices"][0]["message"]
        assert (message["content"], message["tool_calls"][0]["function"]) == (
            "Hi",
            {"name": "f", "arguments": '{"a":1}'},
        )
        assert found["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_odd_native_values_of_completions_are_passed_over(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/generate", {"response": "Hi", "done": False, **ODD}, {"response": "", "done": True, **ODD})
    response = post(TEXTS, {"stream": stream}, fake)
    assert response.status_code == 200
    assert b'"text":"Hi"' in response.data


def test_odd_native_values_of_embeddings_and_models_are_passed_over() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[1]], "prompt_eval_count": "3", "total_duration": []})
    assert post(VECTORS, {}, fake).status_code == 200
    model = {"name": "m", "modified_at": 5, "capabilities": "all", "digest": 7, "size": "big"}
    fake.script("/api/tags", {"models": [model]})
    fake.script("/api/ps", {"models": [{"name": "m", "context_length": "4096"}]})
    assert Client(OpenAICompat(fake)).get("/v1/models").get_json()["data"][0]["id"] == "m"


@pytest.mark.parametrize("stream", [False, True])
def test_a_native_call_without_a_name_is_a_502(stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(tool_calls=[{"function": {"arguments": {}}}]), done())
    response = post(CHATS, {"tools": TOOLS, "stream": stream}, fake)
    if stream:
        assert b'"code":"upstream_error"' in response.data
        assert b"[DONE]" not in response.data
    else:
        assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_two_calls_of_one_answer_never_leave_with_one_id(stream: bool, n: int) -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": {}}}
    fake = FakeOllama()
    for _ in range(n):
        fake.script("/api/chat", say(tool_calls=[call, call]), say(tool_calls=[call]), done())
    response = post(CHATS, {"tools": TOOLS, "stream": stream, "n": n}, fake)
    ids = [part.split('"')[0] for part in response.get_data(as_text=True).split('"id":"call_')[1:]]
    assert len(ids) == len(set(ids)) == 3 * n


# -- the role chunk ---------------------------------------------------------------------------


def role_chunk(*steps: Any, **fields: Any) -> dict[str, Any]:
    delta: dict[str, Any] = streamed(*steps, **fields)[0]["choices"][0]["delta"]
    return delta


def test_the_role_chunk_has_null_where_no_text_comes_first() -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    assert role_chunk(say("Hi"), done())["content"] == ""
    assert role_chunk(say(thinking="hm"), say("Hi"), done())["content"] is None
    assert role_chunk(say(tool_calls=[call]), done(), tools=TOOLS)["content"] is None
    forced = say('{"name":"f","parameters":{}}'), done()
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        assert role_chunk(*forced, tools=TOOLS, tool_choice=choice)["content"] is None
    functions = [{"name": "f", "parameters": {"type": "object"}}]
    assert role_chunk(*forced, functions=functions, function_call={"name": "f"})["content"] is None


# -- advice to retry --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "error parsing tool call: raw='{\"a\"', err=unexpected end of JSON input",
        "failed to parse JSON: invalid character '}'",
    ],
)
def test_output_that_ollama_could_not_parse_may_be_tried_again(text: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status="500 X")
    fake.script("/api/chat", say("a"), {"error": text})
    for _ in range(2):
        response = post(CHATS, {}, fake)
        assert response.status_code == 502
        assert "x-should-retry" not in response.headers


def test_a_failure_after_tokens_is_not_to_be_tried_again() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), {"error": "boom"})
    fake.script("/api/chat", say("a", tool_calls=[{"function": {"name": "f", "arguments": "no object"}}]), done())
    for _ in range(2):
        response = post(CHATS, {"tools": TOOLS}, fake)
        assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")


@pytest.mark.parametrize("path", [CHATS, TEXTS, VECTORS, RESPONSES])
@pytest.mark.parametrize("status", [400, 413, 415, 429])
def test_a_proxy_s_4xx_keeps_its_status(path: str, status: int) -> None:
    fake = FakeOllama()
    native_path = {TEXTS: "/api/generate", VECTORS: "/api/embed"}.get(path, "/api/chat")
    page = b"<html>413 Request Entity Too Large</html>"
    fake.script(native_path, page, status=f"{status} X", headers=[("Retry-After", "17")])
    response = post(path, {}, fake)
    assert response.status_code == status
    assert b"html" not in response.data
    assert response.headers.get("Retry-After") == ("17" if status == 429 else None)


# -- what testers found -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ({"role": "assistant", "content": "x", "refusal": "no"}, {"messages[].refusal"}),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, {"messages[].tool_call_id"}),
        ({"role": "user", "content": "x", "tool_calls": [{"id": "c"}]}, {"messages[].tool_calls"}),
        ({"role": "assistant", "content": "x", "annotations": [{"type": "url_citation"}]}, {"messages[].annotations"}),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}], "function_call": {"name": "g"}},
            {"messages[].function_call"},
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "foo", "function": {"name": "f"}, "custom": {"name": "g"}}]},
            {"messages[].tool_calls[].type", "messages[].tool_calls[].custom"},
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f"}, "name": "g", "input": "x", "arguments": "{}"}],
            },
            {"messages[].tool_calls[].name", "messages[].tool_calls[].input", "messages[].tool_calls[].arguments"},
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "thinking": "S", "refusal": "R"}]},
            {"messages[].content[].thinking", "messages[].content[].refusal"},
        ),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": {"a": 1}}]},
            {"messages[].content[].thinking"},
        ),
        (
            {"role": "assistant", "reasoning": "a", "content": [{"type": "thinking", "thinking": "b"}]},
            {"messages[].content[].thinking"},
        ),
        (
            {"role": "assistant", "content": "", "reasoning": "a", "reasoning_content": "b"},
            {"messages[].reasoning_content"},
        ),
    ],
)
def test_nothing_vanishes_inside_messages(message: dict[str, Any], names: set[str]) -> None:
    assert listed(CHATS, {"messages": [message]}) == names
    # one at a time, as the messages of a large request are decoded
    assert listed(CHATS, {"messages": [message, {"role": "user", "content": "x" * 100_000}]}) == names


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "assistant", "content": "", "refusal": "no"}, "no"),
        ({"role": "assistant", "content": [], "refusal": "no"}, "no"),
        ({"role": "assistant", "content": [{"type": "text", "text": None}]}, ""),
        ({"role": "assistant", "content": "x", "function_call": {"name": None, "arguments": None}}, "x"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "", "arguments": ""}}, "x"),
        (
            {"role": "assistant", "content": [{"type": "reasoning", "summary": ["a"]}, {"type": "text", "text": "x"}]},
            "x",
        ),
    ],
)
def test_empty_means_not_set_inside_messages(message: dict[str, Any], content: str) -> None:
    found = native(CHATS, {"messages": [message]})["messages"][0]
    assert found["content"] == content
    assert "tool_calls" not in found
    assert listed(CHATS, {"messages": [message]}) == set()


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": {"type": ""}},
        {"tool_choice": {"type": "", "function": {}}},
        {"tools": [{**TOOLS[0], "type": ""}]},
        {"response_format": {"type": ""}},
        {"response_format": {"type": "text", "json_schema": {}}},
        {"function_call": "auto"},
        {"function_call": {"name": ""}},
        {"foo": {}, "bar": ""},
    ],
)
def test_empty_means_not_set_inside_objects(fields: dict[str, Any]) -> None:
    assert listed(CHATS, {"model": "demo-tools", **fields}) == set()


@pytest.mark.parametrize("schema", [{"name": "n", "schema": []}, [], {}, {"name": "n", "schema": ""}])
def test_an_empty_json_schema_asks_for_json(schema: Any) -> None:
    assert native(CHATS, {"response_format": {"type": "json_schema", "json_schema": schema}})["format"] == "json"


@pytest.mark.parametrize("kind", ["enum", "pattern", "format", "minimum", "minItems", "maxLength"])
def test_a_forced_call_has_no_null_keyword_in_its_format(kind: str) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "string", kind: None}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    step = say('{"name":"f","parameters":{}}'), done()
    assert "null" not in json.dumps(sent(*step, tools=tools, tool_choice="required")["format"])


def test_a_schema_under_items_that_is_none_is_named_in_a_forced_call() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "array", "items": {"enum": {"a": 1}}}}}
    other = {"type": "function", "function": {"name": "g"}}
    tools = [other, {"type": "function", "function": {"name": "f", "parameters": parameters}}]
    choice = {"type": "function", "function": {"name": "f"}}
    assert refused(tools=tools, tool_choice=choice)["param"] == "tools[1].function.parameters.properties.x.items.enum"


@pytest.mark.parametrize("path", [CHATS, TEXTS, RESPONSES])
@pytest.mark.parametrize(
    ("stop", "expected"), [([""], None), ([], None), (["", "a", "a"], ["a"]), (["a"] * 200, ["a"])]
)
def test_empty_means_not_set_in_the_settings_of_a_model(path: str, stop: list[str], expected: Any) -> None:
    request = native(path, {}, models={"demo": {"options": {"stop": stop}}})
    assert request["options"].get("stop") == expected


def test_the_role_chunk_has_null_after_an_empty_message_where_thinking_is_asked_for() -> None:
    steps = [say(""), say(thinking="hm"), say("Hi"), done()]
    assert role_chunk(*steps, think=True)["content"] is None
    assert role_chunk(say(""), say("Hi"), done())["content"] == ""


@pytest.mark.parametrize("stream", [False, True])
def test_lone_surrogates_in_arguments_that_are_text_are_mended(stream: bool) -> None:
    call = {"function": {"name": "f", "arguments": '{"s":"\\ud83d"}'}}
    forced = [say(part) for part in ('{"name":"f","parameters":{"s":"\\', "ud8", '3d"}', "}")]
    for steps, fields in (([say(tool_calls=[call])], {}), (forced, {"tool_choice": "required"})):
        found: Any = (streamed if stream else answered)(*steps, done(), tools=TOOLS, **fields)
        text = json.dumps(found)
        assert "ud83d" not in text
        assert "ufffd" in text


@pytest.mark.parametrize(
    "text", ["XML syntax error on line 7: element <function> closed by </parameter>", "tool call parsing failed"]
)
def test_output_in_xml_that_ollama_could_not_parse_may_be_tried_again(text: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status="500 X")
    assert "x-should-retry" not in post(CHATS, {}, fake).headers


@pytest.mark.parametrize("text", ["failed to parse grammar", "json schema: failed to parse", "failed to parse image"])
def test_a_request_that_ollama_could_not_parse_is_not_to_be_tried_again(text: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status="500 X")
    assert post(CHATS, {}, fake).headers["x-should-retry"] == "false"


def test_a_model_without_a_name_does_not_fail_the_list() -> None:
    fake = FakeOllama()
    models = [{"name": None, "model": "x"}, {"name": 5, "model": "z"}, {"name": "y", "model": None}, {}, {"name": ""}]
    fake.script("/api/tags", {"models": models})
    found = Client(OpenAICompat(fake)).get("/v1/models").get_json()["data"]
    assert [model["id"] for model in found] == ["x", "z", "y"]
