"""What a real Ollama said, replayed byte for byte through the middleware, against what its own /v1 made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
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

RECORDINGS = [json.loads(line) for line in (DATA / "recordings.jsonl").read_text().split("\n") if line]
CUTS = [0, pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(4096, marks=pytest.mark.slow)]


def named(prefix: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in RECORDINGS if row["name"].startswith(prefix)]


def the(name: str) -> dict[str, Any]:
    return next(row for row in RECORDINGS if row["name"] == name)


def replay(row: dict[str, Any], cut: int) -> FakeOllama:
    """A fake that gives the recorded native answer."""
    native = row["native"]
    fake = FakeOllama()
    fake.script(
        native["path"],
        native["body"].encode(),
        status=f"{native['status']} X",
        content_type=native["content_type"],
        cut=cut,
    )
    return fake


def usage(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")} if found else {}


# Listed defects and quirks of Ollama's own /v1 (contract/ollama.md 2.1 and decisions.md): what ours says instead.
STATUS = {"chat/no-thinking-capability": 200, "chat/bad-model-name": 404}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", named("chat/"))
def test_a_chat_answers_as_ollama_did(row: dict[str, Any], cut: int) -> None:
    theirs = row["openai"]
    fake = replay(row, cut)
    if row["name"] == "chat/no-thinking-capability":  # asked again without thinking
        text = the("chat/text")["native"]
        fake.script("/api/chat", text["body"].encode(), content_type=text["content_type"], cut=cut)
    client = Client(OpenAICompat(fake, overflow="truncate", emulate_tools=False))
    response = client.post("/v1/chat/completions", json=theirs["request"])
    assert response.status_code == STATUS.get(row["name"], theirs["status"])
    assert response.data
    response.close()
    assert fake.closed == fake.opened > 0
    if response.status_code != 200:
        assert_error(response.get_json(), json.loads(theirs["body"]))
    elif theirs["request"].get("stream"):
        assert response.content_type == "text/event-stream; charset=utf-8"
        ours = merged(check_stream(response.data))
        assert_same(ours, merged(list(frames(theirs["body"].encode()))[:-1]), row)
    else:
        check("CreateChatCompletionResponse", response.get_json())
        if theirs["status"] == 200:
            assert_same(whole(response.get_json()), whole(json.loads(theirs["body"])), row)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], row: dict[str, Any]) -> None:
    if row["name"] == "chat/max-tokens-zero":  # to Ollama 0 means no limit; to OpenAI, nothing
        assert (ours["content"], ours["finish_reason"]) == ("", "length")
        return
    for key in ("content", "reasoning", "tool_calls", "finish_reason"):
        assert ours[key] == theirs[key], key
    if theirs["usage"] is None:
        assert ours["usage"] is None
    else:
        assert usage(ours["usage"]) == usage(theirs["usage"])
    if not ours["reasoning"]:  # log-probabilities of thinking belong to no content
        assert ours["logprobs"] == theirs["logprobs"]
    elif theirs["logprobs"]:
        assert "".join(token for token, _ in ours["logprobs"]).strip() == ours["content"].strip()


def assert_error(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    check("ErrorResponse", ours)
    assert set(ours["error"]) == {"message", "type", "param", "code"}
    text = theirs["error"]["message"]
    if text.startswith("{"):  # Ollama shows the runner's JSON; ours is what it says
        text = json.loads(text)["error"]["message"]
    assert text in ours["error"]["message"]
    assert ours["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_runner_that_dies_is_an_error_never_a_quiet_end(cut: int, stream: bool) -> None:
    row = the("native/chat-runner-dies")
    client = Client(OpenAICompat(replay(row, cut)))
    response = client.post("/v1/chat/completions", json={**row["openai"]["request"], "stream": stream})
    text = "an error was encountered while running the model: unexpected EOF"
    if not stream:
        assert response.status_code == 502
        assert response.get_json()["error"]["message"] == text
        assert response.headers["x-should-retry"] == "false"
        return
    *chunks, last = frames(response.data)
    assert last["error"]["message"] == text
    lines = [json.loads(line) for line in row["native"]["body"].splitlines()]
    assert merged(chunks)["content"] == "".join(line["message"]["content"] for line in lines[:-1])
    assert merged(chunks)["finish_reason"] is None


NATIVE = {
    "native/chat-too-long-truncate-false": (400, "messages", "context_length_exceeded"),
    "native/chat-too-long-truncate-false-stream": (400, "messages", "context_length_exceeded"),
    "native/chat-too-long-shift-false": (400, "messages", "context_length_exceeded"),
    "native/chat-bad-option": (400, "options.temperature", "invalid_value"),
    "native/chat-bad-think": (400, "think", None),
    "native/chat-bad-json": (400, None, None),
    "native/chat-wrong-type": (400, None, None),
    "native/chat-no-model": (400, "model", None),
    "native/chat-load": (200, None, None),
    "native/chat-unload": (200, None, None),
    "native/chat-bad-role": (200, None, None),
}


def test_every_native_chat_scenario_is_here() -> None:
    names = {row["name"] for row in RECORDINGS if row["name"].startswith("native/chat-")}
    assert names == {*NATIVE, "native/chat-runner-dies"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", [row for row in named("native/chat-") if row.id in NATIVE])
def test_native_chat(row: dict[str, Any], stream: bool, cut: int) -> None:
    """Native answers that have no /v1 twin, to a request that is sound."""
    client = Client(OpenAICompat(replay(row, cut)))
    request = {"model": "ocean", "messages": [{"role": "user", "content": "Which ocean?"}], "stream": stream}
    response = client.post("/v1/chat/completions", json=request)
    status, param, code = NATIVE[row["name"]]
    assert response.status_code == status
    if status != 200:
        check("ErrorResponse", response.get_json())
        assert (response.get_json()["error"]["param"], response.get_json()["error"]["code"]) == (param, code)
        return
    line = json.loads(row["native"]["body"])
    ours = merged(check_stream(response.data)) if stream else whole(response.get_json())
    assert ours["content"] == line["message"]["content"]
    assert ours["finish_reason"] == "stop"


def test_overflow_has_both_counts() -> None:
    row = the("native/chat-too-long-truncate-false")
    fake = replay(row, 0)
    response = Client(OpenAICompat(fake)).post("/v1/chat/completions", json=row["native"]["request"])
    assert fake.requests[0].json["truncate"] is False
    assert response.get_json()["error"]["message"] == (
        "This model's maximum context length is 512 tokens. However, your messages resulted in 7208 tokens. "
        "Please reduce the length of the messages."
    )


# -- text completions -------------------------------------------------------------------------

# What ours says better than Ollama's own /v1 (contract/ollama.md 2.2), row by row:
# OpenAI has no reason "load"; a prompt that only loads the model stops.
BETTER_REASONS = {"completions/empty-prompt": "stop", "completions/empty-prompt-stream": "stop"}
# Ollama says zeros before the usage is known; OpenAI says null.
ZEROS = {"completions/text-stream-usage", "completions/length-stream"}
# Ollama sends a chunk without text for each line of thinking.
EMPTY_CHUNKS = {"completions/thinking-stream"}
# Ollama asks for log-probabilities and then drops them.
DROPPED_LOGPROBS = {"completions/logprobs", "completions/logprobs-stream"}
# Ollama names no field.
PARAMS = {"completions/suffix-not-supported": "suffix", "completions/unknown-model": None}


def text_of(chunks: list[dict[str, Any]]) -> tuple[str, str | None]:
    """Text and reason of an answer, or of all its chunks."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", named("completions/"))
def test_a_completion_answers_as_ollama_did(row: dict[str, Any], stream: bool, cut: int) -> None:
    theirs = row["openai"]
    request = {**theirs["request"], "stream": stream}
    fake = replay(row, cut)
    response = Client(OpenAICompat(fake, overflow="truncate")).post("/v1/completions", json=request)
    assert response.status_code == theirs["status"]
    assert response.data
    response.close()
    assert fake.closed == fake.opened == 1
    assert_asked(fake.requests[0].json, row["native"]["request"])
    if response.status_code != 200:
        assert_error(response.get_json(), json.loads(theirs["body"]))
        assert response.get_json()["error"]["param"] == PARAMS[row["name"]]
        return
    said = theirs["body"].encode()
    expected = list(frames(said))[:-1] if theirs["request"].get("stream") else [json.loads(said)]
    ours = check_text_stream(response.data) if stream else [response.get_json()]
    assert_listed(row["name"], expected)
    text, reason = text_of(expected)
    assert text_of(ours) == (text, BETTER_REASONS.get(row["name"], reason))
    lines = [json.loads(line) for line in row["native"]["body"].splitlines()]
    assert_counted(ours, lines[-1], expected[-1].get("usage"), request)
    told = [choice["logprobs"] for chunk in ours for choice in chunk["choices"]]
    assert (None not in told) is (row["name"] in DROPPED_LOGPROBS)
    if row["name"] in DROPPED_LOGPROBS:
        assert_logprobs(told, text, [entry for line in lines for entry in line.get("logprobs", ())])
    if stream:
        assert [choice["text"] for chunk in ours for choice in chunk["choices"]][:-1] == [
            line["response"] for line in lines[:-1] if line["response"]
        ]
    else:
        check("CreateCompletionResponse", ours[0])


def assert_listed(name: str, theirs: list[dict[str, Any]]) -> None:
    """That Ollama's answer has the defects which are listed for it, and no other."""
    choices = [choice for chunk in theirs for choice in chunk["choices"]]
    assert (choices[-1]["finish_reason"] == "load") is (name in BETTER_REASONS)
    assert ("usage" in theirs[0] and theirs[0] is not theirs[-1]) is (name in ZEROS)
    assert ("" in [choice["text"] for choice in choices[:-1]]) is (name in EMPTY_CHUNKS)
    assert not any("logprobs" in choice for choice in choices)


def assert_asked(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What Ollama's own mapping asks, without what says nothing there."""
    expected = {key: value for key, value in theirs.items() if value != "" or key == "prompt"}
    expected["options"] = {key: value for key, value in theirs["options"].items() if "penalty" not in key or value}
    assert ours == {**expected, "stream": True}


def assert_counted(ours: list[dict[str, Any]], end: dict[str, Any], theirs: Any, request: dict[str, Any]) -> None:
    if request["stream"] and "stream_options" not in request:
        assert all("usage" not in chunk for chunk in ours)
        return
    *before, last = ours
    assert [chunk["usage"] for chunk in before] == [None] * len(before)
    prompt, made = end.get("prompt_eval_count", 0), end.get("eval_count", 0)
    assert usage(last["usage"]) == {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
    }
    assert theirs in (None, usage(last["usage"]))


def assert_logprobs(told: list[Any], text: str, native: list[dict[str, Any]]) -> None:
    ours = {key: [item for part in told for item in part[key]] for key in told[0]}
    assert ours["tokens"] == [entry["token"] for entry in native]
    assert ours["token_logprobs"] == [entry["logprob"] for entry in native]
    assert ours["top_logprobs"] == [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in native]
    ends = [*ours["text_offset"][1:], len(text)]
    assert [text[a:b] for a, b in zip(ours["text_offset"], ends, strict=True)] == ours["tokens"]


def test_every_native_scenario_of_the_other_endpoints_is_here() -> None:
    names = {row["name"] for row in RECORDINGS if row["name"].startswith("native/")}
    others = {"too-long-truncate-false", "raw", "runner-dies"}
    assert {name for name in names if "generate" in name} == {f"native/generate-{name}" for name in others}
    assert {name for name in names if "chat" not in name and "generate" not in name} == {
        "native/embed-too-long-truncate-false",
        "native/ps",
        "native/show-missing",
    }


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt_has_both_counts(stream: bool, cut: int) -> None:
    row = the("native/generate-too-long-truncate-false")
    fake = replay(row, cut)
    request = {"model": "ocean", "prompt": row["native"]["request"]["prompt"], "stream": stream}
    response = Client(OpenAICompat(fake)).post("/v1/completions", json=request)
    assert fake.requests[0].json["truncate"] is False
    assert response.status_code == 400
    check("ErrorResponse", response.get_json())
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "512 tokens" in error["message"]
    assert "7208 tokens" in error["message"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_raw_skips_the_template(stream: bool, cut: int) -> None:
    row = the("native/generate-raw")
    fake = replay(row, cut)
    request = {**row["native"]["request"], "stream": stream}
    response = Client(OpenAICompat(fake, overflow="truncate")).post("/v1/completions", json=request)
    assert fake.requests[0].json == {
        **row["native"]["request"],
        "options": {"temperature": 0, "top_p": 1.0},
        "stream": True,
    }
    ours = check_text_stream(response.data) if stream else [response.get_json()]
    assert text_of(ours) == (json.loads(row["native"]["body"])["response"], "stop")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_runner_that_dies_is_an_error_of_completions_too(cut: int, stream: bool) -> None:
    row = the("native/generate-runner-dies")
    fake = replay(row, cut)
    response = Client(OpenAICompat(fake)).post("/v1/completions", json={**row["openai"]["request"], "stream": stream})
    text = "an error was encountered while running the model: unexpected EOF"
    if not stream:
        assert response.status_code == 502
        assert response.get_json()["error"]["message"] == text
        assert response.headers["x-should-retry"] == "false"
        return
    *chunks, last = frames(response.data)
    assert last["error"]["message"] == text
    lines = [json.loads(line) for line in row["native"]["body"].splitlines()]
    assert text_of(chunks) == ("".join(line["response"] for line in lines[:-1]), None)
    assert {chunk["model"] for chunk in chunks} == {"loop"}


# -- embeddings -------------------------------------------------------------------------------

# A model that cannot embed is the client's mistake, not an endpoint that is not implemented.
BETTER_STATUS = {"embeddings/not-an-embedding-model": 400}
# What is refused before anything is asked, since the client must be told more than Ollama says.
OURS_TO_REFUSE = {"embeddings/tokens", "embeddings/token-lists"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", named("embeddings/"))
def test_embeddings_are_as_ollama_s(row: dict[str, Any], cut: int) -> None:
    theirs = row["openai"]
    fake = replay(row, cut)
    response = Client(OpenAICompat(fake, overflow="truncate")).post("/v1/embeddings", json=theirs["request"])
    assert response.status_code == BETTER_STATUS.get(row["name"], theirs["status"])
    assert fake.closed == fake.opened == (row["name"] not in OURS_TO_REFUSE)
    if fake.requests:
        expected = {key: value for key, value in row["native"]["request"].items() if key != "options"}
        assert fake.requests[0].json == expected
    if response.status_code != 200:
        assert_error(response.get_json(), json.loads(theirs["body"]))
        return
    assert response.get_json() == json.loads(theirs["body"])
    if theirs["request"].get("encoding_format") != "base64":
        check("CreateEmbeddingResponse", response.get_json())
        digits = row["native"]["body"].partition('"embeddings":[[')[2].partition("]")[0]
        assert f'"embedding":[{digits}]'.encode() in response.data


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("format", ["float", "base64"])
def test_too_long_an_input_is_openai_s_400(format: str, cut: int) -> None:
    row = the("native/embed-too-long-truncate-false")
    fake = replay(row, cut)
    request = {"model": "embed", "input": row["native"]["request"]["input"], "encoding_format": format}
    response = Client(OpenAICompat(fake)).post("/v1/embeddings", json=request)
    assert fake.requests[0].json == row["native"]["request"]
    assert response.status_code == 400
    check("ErrorResponse", response.get_json())
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


# -- models -----------------------------------------------------------------------------------


def models_of(row: dict[str, Any]) -> dict[str, Any]:
    return {model["model"]: model for model in json.loads(row["native"]["body"])["models"]}


def loaded(fake: FakeOllama) -> FakeOllama:
    """The fake, which tells what a real one had loaded."""
    fake.script("/api/ps", the("native/ps")["native"]["body"].encode(), content_type="application/json")
    return fake


def test_the_list_of_models_is_as_ollama_s() -> None:
    row = the("models/models")
    fake = loaded(replay(row, 0))
    response = Client(OpenAICompat(fake)).get("/v1/models")
    check("ListModelsResponse", response.get_json())
    native, in_memory = models_of(row), models_of(the("native/ps"))
    theirs = json.loads(row["openai"]["body"])
    for model in theirs["data"]:  # what Ollama tells of them, and its own /v1 does not
        model["capabilities"] = native[model["id"]]["capabilities"]  # its /api/show is not recorded for each
        if model["id"] in in_memory:
            model["context_length"] = in_memory[model["id"]]["context_length"]
    assert response.get_json() == theirs
    assert 0 < sum("context_length" in model for model in theirs["data"]) < len(theirs["data"])
    paths = [request.path for request in fake.requests]
    assert paths == ["/api/tags", "/api/ps"] + ["/api/show"] * len(theirs["data"])
    assert fake.closed == fake.opened


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_model_is_as_ollama_s(in_memory: bool) -> None:
    """The context length is that of the loaded model, else that of its Modelfile: here both are the same."""
    row = the("models/model")
    fake = loaded(replay(row, 0)) if in_memory else replay(row, 0)
    response = Client(OpenAICompat(fake)).get("/v1/models/ocean")
    check("Model", response.get_json())
    more = {"capabilities": json.loads(row["native"]["body"])["capabilities"], "context_length": 512}
    assert response.get_json() == {**json.loads(row["openai"]["body"]), **more}


def test_a_model_with_a_slash_in_its_name() -> None:
    """Ollama's own /v1 has no route for it; the native side does."""
    row = the("models/model-team")
    assert row["openai"]["status"] == 404
    fake = FakeOllama()
    fake.script("/api/show", the("models/model")["native"]["body"].encode(), content_type="application/json")
    response = Client(OpenAICompat(fake)).get(row["openai"]["path"])
    check("Model", response.get_json())
    assert (response.get_json()["id"], response.get_json()["owned_by"]) == ("team/ocean:small", "team")
    assert fake.requests[0].json == {"name": "team/ocean:small"}


@pytest.mark.parametrize("name", ["models/model-missing", "native/show-missing"])
def test_missing_model(name: str) -> None:
    response = Client(OpenAICompat(replay(the(name), 0))).get("/v1/models/nothing-here")
    check("ErrorResponse", response.get_json())
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"
    assert json.loads(the(name)["native"]["body"])["error"] in response.get_json()["error"]["message"]


# -- responses --------------------------------------------------------------------------------


def response_of(row: dict[str, Any]) -> dict[str, Any]:
    """What Ollama's own /v1 made of it: its response, or that of its last event."""
    body = row["openai"]["body"]
    if row["openai"]["request"].get("stream"):
        body = body.rstrip("\n").rsplit("\ndata: ", 1)[1]
        return json.loads(body)["response"]  # type: ignore[no-any-return]
    return json.loads(body)  # type: ignore[no-any-return]


def texts_of(response: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a response says, without status: Ollama's items of reasoning have none, and its cut texts are complete."""
    found: list[tuple[Any, ...]] = []
    for item in response["output"]:
        if item["type"] == "function_call":
            found.append((item["name"], json.loads(item["arguments"])))
        else:
            parts = item["summary"] if item["type"] == "reasoning" else item["content"]
            found.append((item["type"], "".join(part["text"] for part in parts)))
    return found


#: fields of the request that Ollama has in its response, too
SAME = ("object", "created_at", "model", "instructions", "max_output_tokens", "temperature", "top_p", "truncation")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", named("responses/"))
def test_a_response_says_at_least_what_ollama_said(row: dict[str, Any], stream: bool, cut: int) -> None:
    theirs = row["openai"]
    fake = replay(row, cut)
    client = Client(OpenAICompat(fake, overflow="truncate"))
    response = client.post("/v1/responses", json={**theirs["request"], "stream": stream})
    assert response.status_code == theirs["status"]
    sent = fake.requests[0].json
    assert {**sent, "options": {**sent["options"], "temperature": 0}} == {
        **row["native"]["request"],
        "options": {"top_p": 1.0, **row["native"]["request"]["options"], "temperature": 0},
        "stream": True,
        **({"tools": sent["tools"]} if "tools" in sent else {}),
    }
    if response.status_code != 200:
        assert_error(response.get_json(), json.loads(theirs["body"]))
        return
    ours = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    response.close()
    assert fake.opened == fake.closed == 1
    expected = response_of(row)
    assert texts_of(ours) == texts_of(expected)
    assert {key: ours[key] for key in SAME} == {key: expected[key] for key in SAME}
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        assert ours["usage"][key] == expected["usage"][key]
    assert expected["status"] == "completed"  # a listed defect of those that were cut
    assert ours["status"] == ("incomplete" if "length" in row["name"] else "completed")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", [row for row in named("native/chat-") if row.id in NATIVE])
@pytest.mark.parametrize("stream", [False, True])
def test_native_chat_as_a_response(row: dict[str, Any], stream: bool, cut: int) -> None:
    client = Client(OpenAICompat(replay(row, cut)))
    response = client.post("/v1/responses", json={"model": "ocean", "input": "Which ocean?", "stream": stream})
    status, param, code = NATIVE[row["name"]]
    if stream and code == "context_length_exceeded":  # Codex reads it in the stream only
        events = check_events(response.data)
        assert (events[-2]["code"], events[-1]["response"]["error"]["code"]) == (code, code)
        return
    assert response.status_code == status
    if status != 200:
        check("ErrorResponse", response.get_json())
        found = response.get_json()["error"]
        assert (found["param"], found["code"]) in ((param, code), ("input", code))
        return
    line = json.loads(row["native"]["body"])
    ours = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    assert texts_of(ours) == [("message", line["message"]["content"])]


@pytest.mark.parametrize("cut", CUTS)
def test_a_runner_that_dies_is_a_failed_response(cut: int) -> None:
    row = the("native/chat-runner-dies")
    body = {"model": "ocean", "input": "Which ocean?"}
    response = Client(OpenAICompat(replay(row, cut))).post("/v1/responses", json=body)
    text = "an error was encountered while running the model: unexpected EOF"
    assert (response.status_code, response.get_json()["error"]["message"]) == (502, text)
    response = Client(OpenAICompat(replay(row, cut))).post("/v1/responses", json={**body, "stream": True})
    events = check_events(response.data)
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": text}
    lines = [json.loads(line) for line in row["native"]["body"].splitlines()]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "".join(line["message"]["content"] for line in lines[:-1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", [row for row in named("chat/") if row.values[0]["native"]["status"] == 200])
def test_a_recorded_chat_is_a_response_too(row: dict[str, Any], stream: bool) -> None:
    """The native answer of every chat says as a response what it says as a chat."""
    body = {"model": "demo", "input": "x", "stream": stream}
    response = Client(OpenAICompat(replay(row, 7))).post("/v1/responses", json=body)
    assert response.status_code == 200
    ours = check_events(response.data)[-1]["response"] if stream else check_response(response.get_json())
    chat = Client(OpenAICompat(replay(row, 7))).post("/v1/chat/completions", json={"model": "demo", "messages": HELLO})
    expected = whole(chat.get_json())
    said = texts_of(ours)
    assert "".join(item[1] for item in said if item[0] == "message") == expected["content"]
    assert "".join(item[1] for item in said if item[0] == "reasoning") == expected["reasoning"]
    assert [item for item in said if item[0] not in ("message", "reasoning")] == expected["tool_calls"]
    assert (ours["status"] == "incomplete") is (expected["finish_reason"] == "length")


HELLO = [{"role": "user", "content": "x"}]
