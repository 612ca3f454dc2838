"""Ollama's own test cases, as data: what reaches the native API, and what the client gets.

Where contract and decisions want better than a vector, the vector stands in ``BETTER_REQUESTS`` or
``BETTER_ERRORS`` with what is right instead; the shape of answers is compared after :func:`as_openai`.
"""

from __future__ import annotations

import base64
import json
import sys
from array import array
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.sealed_text import seal
from tests.contract import (
    DATA,
    check,
    check_events,
    check_response,
    check_stream,
    check_text_stream,
    frames,
    merged,
    whole,
)

VECTORS = json.loads((DATA / "vectors.json").read_text())
CUTS = [None, pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(4096, marks=pytest.mark.slow)]

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
BETTER_REQUESTS: dict[str, dict[str, Any]] = {
    # several parts stay one message
    "chat handler with image content": {"messages": [{"role": "user", "content": "Hello", "images": [IMAGE]}]},
    # gif images are accepted
    "image url: invalid mime type": {
        "model": "test-model",
        "messages": [{"role": "user", "images": ["R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"]}],
        "options": {"temperature": 1.0, "top_p": 1.0},
    },
    # null content is no content
    "chat null content without tool_calls rejected": {
        "model": "m",
        "messages": [{"role": "assistant"}],
        "options": {"temperature": 1.0, "top_p": 1.0},
    },
    # Ollama's own search is not sold as OpenAI's: the type is decided by policy, and the client's function stays
    "responses: web_search tool": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "web_search",
                    "description": "client collision",
                    "parameters": {"type": "object"},
                },
            },
            {
                "type": "function",
                "function": {"name": "weather", "description": "weather", "parameters": {"type": "object"}},
            },
        ]
    },
    "responses: web_search ignores filters": {"tools": None},
    "responses: web_search ignores user_location": {"tools": None},
    "responses: web_search ignores search_context_size": {"tools": None},
    # honoured
    "responses text_format json_object is ignored (anchor gap)": {"format": "json"},
}
# a top_p of 0 is one
BETTER_OPTIONS = {"completions top_p 0 is treated as unset": {"temperature": 1.0, "top_p": 0}}
# vector → (status, param, code)
BETTER_ERRORS: dict[str, tuple[int, str | None, str | None]] = {
    # files are taken, but there is no store of them
    "responses input_file rejected": (400, "input[0].content[0].file_id", "unsupported_parameter"),
    "chat handler with options": (400, "temperature", "decimal_above_max_value"),
    "error type for status 500": (502, None, "upstream_error"),
    "native error non-JSON body becomes message": (502, None, "upstream_error"),
    "completions handler error forwarding": (400, "stop[0]", "invalid_type"),
    "responses: invalid input type": (400, "input", "invalid_type"),
    "responses body: zstd over max decompressed size": (400, None, None),
}


def rows(*keys: str, without: tuple[str, ...] = ()) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"])
        for vector in VECTORS
        if any(key in vector for key in keys) and not any(key in vector for key in without)
    ]


def fake(vector: dict[str, Any], cut: int | None = None) -> FakeOllama:
    """A fake that answers natively as the vector says; with a minimal answer where it says nothing."""
    made = FakeOllama()
    path = vector.get("native_endpoint", "/api/chat")
    request = vector.get("openai_request") or {}
    text_format = (request.get("text") or {}).get("format") or {}
    steps: list[Any] = [done()]
    if path == "/api/embed":
        inputs = request.get("input")
        steps = [{"embeddings": [[0.5]] * (len(inputs) if isinstance(inputs, list) else 1)}]
    elif "json_schema" in (request.get("response_format") or {}) or "schema" in text_format:
        steps = [say('{"name": "Ann", "age": 1}'), done()]
    if "native_response" in vector:
        steps = [vector["native_response"]]
    elif "native_responses" in vector:
        steps = vector["native_responses"]
    elif "native_raw_body" in vector:
        steps = [vector["native_raw_body"].encode()]
    made.script(path, *steps, status=f"{vector.get('native_status', 200)} X", cut=cut)
    return made


def send(vector: dict[str, Any], app: FakeOllama) -> TestResponse:
    client = Client(OpenAICompat(app, overflow="truncate"))
    if "request_headers" in vector:
        zstd = pytest.importorskip(ZSTD, reason="the extra 'zstd' is not installed")
        body = json.dumps(vector["openai_request"]).encode() if "openai_request" in vector else b"A" * (9 << 20)
        headers = {**vector["request_headers"], "Content-Type": "application/json"}
        return client.post(vector["endpoint"], data=zstd.compress(body), headers=headers)
    return client.open(
        vector["endpoint"], method=vector.get("method", "POST"), json=vector.get("openai_request") or None
    )


ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
DEFAULTS = (("content", ""), ("index", 0), ("frequency_penalty", 0), ("presence_penalty", 0))


def pruned(value: Any) -> Any:
    """Without what is null, and what is Ollama's default on either side: no content, an index or a penalty of 0."""
    if isinstance(value, dict):
        found = {key: pruned(item) for key, item in value.items() if key != "stream" and item is not None}
        return {key: item for key, item in found.items() if (key, item) not in DEFAULTS}
    return [pruned(item) for item in value] if isinstance(value, list) else value


def test_every_vector_is_run() -> None:
    ran = {row.id for row in [*REQUESTS, *ANSWERS, *SUBSETS, *STREAMS, *EVENTS, *ERRORS]}
    assert ran == {vector["name"] for vector in VECTORS}
    assert len(ran) == 118


def of_endpoint(found: list[Any], endpoint: str) -> list[Any]:
    return [row for row in found if row.values[0]["endpoint"].startswith(endpoint)]


REQUESTS = rows("expect_native_request") + [row for row in rows("expect_error") if row.id in BETTER_REQUESTS]
ANSWERS = rows("expect_openai_response")
SUBSETS = rows("expect_openai_response_subset")
STREAMS = rows("expect_sse")
EVENTS = rows("expect_events")
ERRORS = [
    row
    for row in rows("expect_error", "expect_status")
    if row.id not in BETTER_REQUESTS and row.values[0].get("expect_status", 400) >= 400
]


@pytest.mark.parametrize("vector", [row for row in REQUESTS if row.id not in BETTER_ERRORS])
def test_native_request(vector: dict[str, Any]) -> None:
    app = fake(vector)
    response = send(vector, app)
    assert response.data
    assert response.status_code == 200, response.data
    request, *others = app.requests
    # An empty answer to a request with tools counts as a lost call, which is generated once more.
    assert {other.path for other in others} <= ({"/api/chat"} if request.json.get("tools") else {"/api/ps"})
    assert request.path == vector.get("native_endpoint", "/api/chat")
    expected = {**vector.get("expect_native_request", {}), **BETTER_REQUESTS.get(vector["name"], {})}
    if vector["name"] in BETTER_OPTIONS:
        expected["options"] = BETTER_OPTIONS[vector["name"]]
    elif vector["endpoint"] == "/v1/responses":  # as in chat: a model's own default is not OpenAI's
        expected["options"] = {"top_p": 1.0, **expected["options"]}
    assert pruned(request.json) == pruned(expected)
    assert not set(vector.get("expect_native_absent", ())) & set(request.json) - set(
        BETTER_REQUESTS.get(vector["name"], ())
    )
    if request.path == "/api/chat":
        assert request.json["stream"] is True


@pytest.mark.parametrize("vector", [row for row in REQUESTS if row.id in BETTER_ERRORS] + ERRORS)
def test_an_error_has_the_status_and_the_shape(vector: dict[str, Any]) -> None:
    app = fake(vector)
    response = send(vector, app)
    error = response.get_json()["error"]
    check("ErrorResponse", response.get_json())
    if "native_endpoint" not in vector or vector["name"] == "chat handler with options":
        assert app.requests == []
    if vector["name"] in BETTER_ERRORS:
        assert (response.status_code, error["param"], error["code"]) == BETTER_ERRORS[vector["name"]]
        return
    expected = vector["expect_error"]
    assert response.status_code == expected["status"]
    assert expected["message"] in error["message"]
    assert error["type"] == ("invalid_request_error" if expected["status"] < 500 else "server_error")


def as_openai(expected: dict[str, Any]) -> dict[str, Any]:
    """A summary of Ollama's answer where OpenAI's contract wants another shape: a reason is never null or foreign."""
    if expected["finish_reason"] not in ("length", "tool_calls", "stop"):
        expected["finish_reason"] = "tool_calls" if expected["tool_calls"] else "stop"
    return expected


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", of_endpoint(ANSWERS, "/v1/chat/completions"))
def test_a_chat_answer_is_as_expected(vector: dict[str, Any], cut: int | None) -> None:
    response = send(vector, fake(vector, cut))
    ours, theirs = response.get_json(), vector["expect_openai_response"]
    check("CreateChatCompletionResponse", ours)
    for key in ("object", "created", "model", "system_fingerprint"):
        assert ours[key] == theirs[key]
    found, expected = whole(ours), as_openai(whole(theirs))
    assert {key: found["usage"][key] for key in expected.pop("usage")} == theirs["usage"]
    assert {key: found[key] for key in expected} == expected
    told = [call["id"] for call in ours["choices"][0]["message"].get("tool_calls", ())]
    assert told == [call["id"] for call in theirs["choices"][0]["message"].get("tool_calls", ())]
    if "choices.0.logprobs" in vector.get("expect_absent", ()):
        assert ours["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("vector", SUBSETS)
def test_part_of_an_answer(vector: dict[str, Any]) -> None:
    assert_contains(send(vector, fake(vector)).get_json(), vector["expect_openai_response_subset"])


def assert_contains(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_contains(found[key], value)
    else:
        assert found == expected


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", of_endpoint(ANSWERS, "/v1/embeddings"))
def test_embeddings_are_as_expected(vector: dict[str, Any], cut: int | None) -> None:
    ours, theirs = send(vector, fake(vector, cut)).get_json(), vector["expect_openai_response"]
    if vector["name"] == "embedding list: empty embeddings":  # null data, no model: listed defects
        assert ours == {"object": "list", "data": [], "model": "test-model", "usage": theirs["usage"]}
        return
    if isinstance(ours["data"][0]["embedding"], list):
        check("CreateEmbeddingResponse", ours)
    if "expect_embedding_decodes_to" in vector:
        found = [list(array("f", base64.b64decode(item.pop("embedding")))) for item in ours["data"]]
        assert found == [pytest.approx(floats, abs=1e-6) for floats in vector["expect_embedding_decodes_to"]]
        theirs = {**theirs, "data": [{**item, "embedding": ...} for item in theirs["data"]]}
        ours["data"] = [{**item, "embedding": ...} for item in ours["data"]]
    assert ours == theirs


@pytest.mark.parametrize("vector", of_endpoint(ANSWERS, "/v1/models"))
def test_the_list_of_models_is_as_expected(vector: dict[str, Any]) -> None:
    response = send(vector, fake(vector))
    expected = vector["expect_openai_response"]
    if vector["name"] == "list handler empty output":  # null data is a listed defect
        expected = {"object": "list", "data": []}
    assert response.get_json() == expected


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", of_endpoint(STREAMS, "/v1/completions"))
def test_text_stream(vector: dict[str, Any], cut: int | None) -> None:
    ours = check_text_stream(send(vector, fake(vector, cut)).data)
    theirs = [frame for frame in vector["expect_sse"] if frame != "[DONE]"]
    assert [chunk.get("usage") for chunk in ours[:-1]] == [None] * (len(ours) - 1)  # zeros are a listed defect
    for mine, other in zip(ours, theirs, strict=True):
        assert [choice.pop("logprobs") for choice in mine["choices"]] == [None] * len(mine["choices"])
        assert mine["choices"] == other["choices"]
        assert (mine["object"], mine["model"]) == (other["object"], other["model"])
    assert {key: ours[-1]["usage"][key] for key in theirs[-1]["usage"]} == theirs[-1]["usage"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", of_endpoint(STREAMS, "/v1/chat/completions"))
def test_a_chat_stream_has_the_expected_events(vector: dict[str, Any], cut: int | None) -> None:
    response = send(vector, fake(vector, cut))
    assert response.status_code == 200
    expected = [frame for frame in vector["expect_sse"] if frame != "[DONE]"]
    if vector.get("anchor_bug"):  # the failure must be told, not swallowed
        *chunks, last = frames(response.data)
        assert last["error"]["message"] == vector["native_responses"][-1]["error"]
        expected = expected[:-1]
    elif vector.get("truncated_stream"):
        *chunks, last = frames(response.data)
        assert last["error"]["code"] == "upstream_error"
    else:
        chunks = check_stream(response.data)
    found, wanted = merged(chunks), merged(expected)
    if "[DONE]" in vector["expect_sse"]:
        as_openai(wanted)
    usage = wanted.pop("usage")
    assert {key: found[key] for key in wanted} == wanted
    assert not usage or {key: found["usage"][key] for key in usage} == usage
    created = {chunk["created"] for chunk in expected} - {"<int>"}
    assert not created or created == {chunk["created"] for chunk in chunks}
    assert {chunk["model"] for chunk in chunks} == {expected[0]["model"]}


# -- responses --------------------------------------------------------------------------------

#: what Ollama does not send, and clients of OpenAI's know
ADDED = ("response.reasoning_summary_part.added", "response.reasoning_summary_part.done")


def as_responses(expected: Any) -> Any:
    """Of Ollama's items and events, what OpenAI's contract wants otherwise: ids are our own, thinking is encoded."""
    if isinstance(expected, list):
        return [as_responses(item) for item in expected]
    if not isinstance(expected, dict):
        return expected
    found = {key: as_responses(value) for key, value in expected.items() if value not in ("<any>", "<int>")}
    if "encrypted_content" in found:
        found["encrypted_content"] = seal(found["encrypted_content"], "reasoning")
    return found


def assert_has(found: Any, expected: Any) -> None:
    """That each value of an expected object is in ours; arrays are of the same length."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_has(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for mine, other in zip(found, expected, strict=True):
            assert_has(mine, other)
    else:
        assert found == expected


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", of_endpoint(ANSWERS, "/v1/responses"))
def test_a_response_is_as_expected(vector: dict[str, Any], cut: int | None) -> None:
    ours = check_response(send(vector, fake(vector, cut)).get_json())
    expected = as_responses(vector["expect_openai_response"])
    assert expected.pop("reasoning") is None
    assert ours["reasoning"] == {"effort": None, "summary": None}
    assert_has(ours, expected)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", EVENTS)
def test_a_stream_has_the_expected_events(vector: dict[str, Any], cut: int | None) -> None:
    events = check_events(send(vector, fake(vector, cut)).data)
    ours = [event for event in events if event["type"] not in ADDED]
    if vector.get("truncated_stream"):  # the failure is told
        assert [event["type"] for event in ours[-2:]] == ["error", "response.failed"]
        ours = ours[:-2]
    assert [event["type"] for event in ours] == [event["event"] for event in vector["expect_events"]]
    for mine, other in zip(ours, vector["expect_events"], strict=True):
        assert_has(mine, as_responses(other.get("data_subset", {})))
