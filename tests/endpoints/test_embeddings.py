"""Embeddings: texts in, vectors out, in either form and in any number."""

from __future__ import annotations

import base64
import gc
import json
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.endpoints.embeddings import _to_base64
from openai_compat.testing import FakeOllama
from tests.contract import check
from tests.endpoints.requests import Endpoint
from tests.harness import call, compat

EMBEDDINGS = Endpoint("/v1/embeddings", "/api/embed", {"model": "demo-embed", "input": "x"}, {"embeddings": [[0.5]]})


def embedded(*answers: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The answer, made of the native answers of so many calls."""
    fake = FakeOllama()
    for answer in answers:
        fake.script("/api/embed", answer)
    response = EMBEDDINGS.post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    assert len(fake.requests) == fake.closed == len(answers)
    return response.get_json()  # type: ignore[no-any-return]


# -- the request ------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    assert EMBEDDINGS.sent() == {"model": "demo-embed", "input": "x", "truncate": False}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": ["a", "b"]}, {"input": ["a", "b"]}),
        ({"input": ""}, {"input": [""]}),
        ({"input": [""]}, {"input": [""]}),
        ({"input": "é\u2028🦜"}, {"input": "é\u2028🦜"}),
        ({"dimensions": 8}, {"dimensions": 8}),
        ({"dimensions": 8.0}, {"dimensions": 8}),
        ({"dimensions": None, "encoding_format": None, "user": None}, {}),
        ({"encoding_format": "base64"}, {}),
        ({"encoding_format": ""}, {}),
        ({"keep_alive": "1h"}, {"keep_alive": "1h"}),
        ({"keep_alive": 0}, {"keep_alive": 0}),
        ({"truncate": True}, {"truncate": True}),
        ({"options": {"num_ctx": 512, "unheard_of": [1]}}, {"options": {"num_ctx": 512, "unheard_of": [1]}}),
        ({"options": {}}, {}),
    ],
)
def test_fields_of_a_request_become_ollama_s(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    answer = {"embeddings": [[0.5]] * len(expected.get("input", "x")) if "input" in expected else [[0.5]]}
    endpoint = Endpoint(EMBEDDINGS.path, EMBEDDINGS.native, EMBEDDINGS.body, answer)
    assert endpoint.sent(**fields) == {**EMBEDDINGS.sent(), **expected}


def test_the_settings_of_a_model_and_its_alias_reach_the_request() -> None:
    settings = {
        "aliases": {"text-embedding-*": "demo-embed"},
        "models": {"demo-embed": {"options": {"num_ctx": 99, "num_gpu": 1}, "keep_alive": "1h", "think": True}},
        "overflow": "truncate",
    }
    found = EMBEDDINGS.sent(settings, model="text-embedding-3-small", options={"num_ctx": 7})
    assert found == {
        "model": "demo-embed",
        "input": "x",
        "options": {"num_ctx": 7, "num_gpu": 1},
        "keep_alive": "1h",
    }


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "empty_array"),
        ({"input": 1}, "input", "invalid_type"),
        ({"input": {}}, "input", "missing_required_parameter"),
        ({"input": {"a": 1}}, "input", "invalid_type"),
        ({"input": [["a"]]}, "input[0]", "invalid_type"),
        ({"input": ["x", [1, "a"]]}, "input[1]", "invalid_type"),
        ({"input": ["a", None]}, "input[1]", "invalid_type"),
        ({"input": ["a", True]}, "input[1]", "invalid_type"),
        ({"input": ["a", {"text": "b"}]}, "input[1]", "invalid_type"),
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"dimensions": 1.5}, "dimensions", "invalid_type"),
        ({"dimensions": "8"}, "dimensions", "invalid_type"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"encoding_format": "hex", "input": None, "model": None}, "encoding_format", "invalid_value"),
        ({"encoding_format": 1}, "encoding_format", "invalid_type"),
        ({"options": {"num_ctx": "x"}}, "options.num_ctx", "invalid_type"),
        ({"keep_alive": True}, "keep_alive", "invalid_type"),
    ],
)
def test_f59_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = EMBEDDINGS.refused(**fields)
    assert (error["param"], error["code"]) == (param, code)


def test_no_input_at_all_is_refused() -> None:
    fake = FakeOllama()
    app, _ = compat(fake)
    found = call(app, "POST", "/v1/embeddings", body=b'{"model":"demo-embed"}')
    assert (found.status, json.loads(found.body)["error"]["param"]) == (400, "input")
    assert fake.requests == []


@pytest.mark.parametrize(
    "ids", [[1, 2, 3], [[1, 2], [3]], ["a", 1], ["a", [1]], [[]], [1] * 2048], ids=lambda ids: str(ids)[:12]
)
def test_token_ids_are_refused_and_the_client_is_told_what_to_set(ids: list[Any]) -> None:
    """LangChain's OpenAIEmbeddings sends them unless it is told not to."""
    error = EMBEDDINGS.refused(input=ids)
    assert (error["param"], error["code"]) == ("input", "invalid_type")
    assert "check_embedding_ctx_length=False" in error["message"]


def test_token_ids_are_refused_as_such_however_many_they_are() -> None:
    assert "check_embedding_ctx_length=False" in EMBEDDINGS.refused(input=[1] * 2049)["message"]


def test_f60_limits_are_settings() -> None:
    assert EMBEDDINGS.refused({"max_inputs": 2}, input=["x"] * 3)["code"] == "array_above_max_length"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, set()), ({"user": "u"}, {"user"}), ({"foo": 1, "stream": True, "bar": None}, {"foo", "stream"})],
)
def test_rule_1_what_has_no_effect_is_listed(fields: dict[str, Any], expected: set[str]) -> None:
    assert EMBEDDINGS.ignored(**fields) == expected
    assert EMBEDDINGS.ignored({"unsupported": "error"}, **fields) == expected


# -- the answer -------------------------------------------------------------------------------


def test_an_answer_has_every_field() -> None:
    found = embedded({"embeddings": [[1, 2], [3, 4]], "prompt_eval_count": 7}, input=["a", "b"], model="m")
    check("CreateEmbeddingResponse", found)
    assert found == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [1, 2], "index": 0},
            {"object": "embedding", "embedding": [3, 4], "index": 1},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_the_answer_names_the_model_as_the_client_does() -> None:
    assert embedded({"embeddings": [[1]]}, settings={"aliases": {"ada": "demo-embed"}}, model="ada")["model"] == "ada"


@pytest.mark.parametrize("format", ["float", "FLOAT", None])
def test_floats_leave_digit_for_digit(format: str | None) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"embeddings":[[0.10,-1.5E-3, 1e0,-0.0,0.30000000000000004]]}')
    response = EMBEDDINGS.post(fake, encoding_format=format)
    assert b'"embedding":[0.10,-1.5E-3, 1e0,-0.0,0.30000000000000004]' in response.data
    check("CreateEmbeddingResponse", response.get_json())


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        (b"[1.0]", "AACAPw=="),
        (b"[1,-2]", "AACAPwAAAMA="),
        (b"[0.1,0.2,0.3]", "zczMPc3MTD6amZk+"),
        (b"[0.5,-1.25,0e0,3.4028234663852886e38]", "AAAAPwAAoL8AAAAA//9/fw=="),
    ],
)
def test_base64_is_of_little_endian_float32(vector: bytes, expected: str) -> None:
    for name in ("base64", "Base64"):
        found = embedded(b'{"embeddings":[' + vector + b"]}", encoding_format=name)
        assert found["data"] == [{"object": "embedding", "embedding": expected, "index": 0}]


def test_base64_and_floats_say_the_same() -> None:
    fields: dict[str, Any] = {"input": ["a", "b c"], "dimensions": 16}
    floats = EMBEDDINGS.post(FakeOllama(), **fields).get_json()
    packed = EMBEDDINGS.post(FakeOllama(), encoding_format="base64", **fields).get_json()
    for one, other in zip(floats["data"], packed["data"], strict=True):
        found = struct.unpack("<16f", base64.b64decode(other["embedding"]))
        assert found == pytest.approx(one["embedding"], rel=1e-6)
    assert floats["usage"] == packed["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_bytes_are_swapped_where_the_machine_has_the_other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base64.b64decode(_to_base64(Raw(b"[1,-2.5]"))) == struct.pack("<2f", 1, -2.5)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    assert base64.b64decode(_to_base64(Raw(b"[1,-2.5]"))) == struct.pack(">2f", 1, -2.5)


@pytest.mark.parametrize("format", ["float", "base64"])
@pytest.mark.parametrize("vector", [b'"x"', b"{}", b"null", b"1", b"[null]", b'["1"]', b"[[1]]", b"[1e400]", b"[NaN]"])
def test_what_is_no_vector_is_a_failure(vector: bytes, format: str) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"embeddings":[' + vector + b"]}")
    response = EMBEDDINGS.post(fake, encoding_format=format)
    assert response.status_code == 502
    check("ErrorResponse", response.get_json())
    assert fake.closed == 1


@pytest.mark.parametrize("body", [b"{}", b'{"embedding":[1]}', b"", b"[]", b"<html>", b'{"embeddings":[[1]]}{}'])
def test_what_is_no_answer_is_a_failure(body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", body)
    assert EMBEDDINGS.post(fake).status_code == 502


@pytest.mark.parametrize("count", ["null", "-1", "1e400", "9" * 400])
def test_f36_absurd_counters_are_0(count: str) -> None:
    body = b'{"embeddings":[[1]],"prompt_eval_count":' + count.encode() + b"}"
    assert embedded(body)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


# -- many inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "sizes"), [(1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])], ids=lambda value: str(value)
)
def test_batches_are_split_and_joined_in_order(inputs: int, sizes: list[int]) -> None:
    fake = FakeOllama()
    texts = [f"{'word ' * i}end" for i in range(inputs)]
    fields: dict[str, Any] = {"dimensions": 4, "keep_alive": "1h", "options": {"num_gpu": 1}}
    response = EMBEDDINGS.post(fake, {"embed_batch": 3}, input=texts, **fields)
    assert [len(request.json["input"]) for request in fake.requests] == sizes
    assert sum((request.json["input"] for request in fake.requests), []) == texts
    assert all(fields.items() <= {**request.json}.items() for request in fake.requests)
    alone = [EMBEDDINGS.post(FakeOllama(), input=text, **fields).get_json()["data"][0] for text in texts]
    assert response.get_json()["data"] == [{**one, "index": i} for i, one in enumerate(alone)]
    assert response.get_json()["usage"]["prompt_tokens"] == sum(len(text.split()) for text in texts)
    assert fake.closed == len(sizes)


def test_a_batch_is_256_inputs() -> None:
    fake = FakeOllama()
    EMBEDDINGS.post(fake, input=["x"] * 257)
    assert [len(request.json["input"]) for request in fake.requests] == [256, 1]


@pytest.mark.parametrize("second", [[[3]], [[3], [4], [5]], [], None])
def test_a_batch_of_another_number_is_a_failure(second: Any) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[1], [2]]})
    fake.script("/api/embed", {"embeddings": second})
    response = EMBEDDINGS.post(fake, {"embed_batch": 2}, input=["a", "b", "c", "d"])
    assert response.status_code == 502
    assert "another number of embeddings" in response.get_json()["error"]["message"]
    assert fake.opened == fake.closed == 2


@pytest.mark.parametrize("given", [["a"], ["a", "b", "c"]], ids=["more", "fewer"])
def test_a_list_that_was_not_split_must_get_as_many_too(given: list[str]) -> None:
    """Else a client would take vectors for those of other texts."""
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[1], [2]]})
    assert EMBEDDINGS.post(fake, input=given).status_code == 502


def test_a_failure_of_one_batch_is_that_of_all() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[1], [2]]})
    fake.script("/api/embed", {"error": "busy"}, status="503 X")
    response = EMBEDDINGS.post(fake, {"embed_batch": 2}, input=["a", "b", "c", "d", "e"])
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "overloaded")
    assert fake.opened == fake.closed == 2


def calls_of(function: Callable[[], object]) -> int:
    """The calls that it makes, of Python's functions and of C's."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what is finalized meanwhile would count, and hypothesis has callbacks of its own
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def calls_for(size: int) -> int:
    """The calls that it takes to answer 2,048 texts with vectors of so many floats as base64."""
    vector = b"[" + b",".join([b"-0.0123456"] * size) + b"]"
    fake = FakeOllama()
    for _ in range(8):
        fake.script("/api/embed", b'{"embeddings":[' + b",".join([vector] * 256) + b"]}")
    answers: list[Any] = []
    fields: dict[str, Any] = {"input": ["x"] * 2048, "encoding_format": "base64"}
    count = calls_of(lambda: answers.append(EMBEDDINGS.post(fake, **fields)))
    data = answers[0].get_json()["data"]
    assert len(data) == 2048
    assert base64.b64decode(data[-1]["embedding"]) == struct.pack("<f", -0.0123456) * size
    return count


def test_2048_vectors_of_1024_floats_are_not_packed_float_by_float() -> None:
    # Less than two calls more a vector, though each has 1,023 floats more; most are those that scan the longer body.
    calls_for(1)  # the process's first request imports modules, and those calls belong to no vector
    assert calls_for(1024) < calls_for(1) + 2 * 2048


# -- failures ---------------------------------------------------------------------------------


def test_too_long_an_input_is_openai_s_400_and_names_the_input() -> None:
    body = b'{"error":"the input length exceeds the context length"}'
    fake = FakeOllama()
    fake.script("/api/embed", body, status="400 Bad Request")
    response = EMBEDDINGS.post(fake)
    assert response.status_code == 400
    assert fake.requests[0].json["truncate"] is False
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
    assert "maximum context length" in error["message"]


def test_too_long_an_input_is_left_to_ollama_by_the_other_policy() -> None:
    assert "truncate" not in EMBEDDINGS.sent({"overflow": "truncate"})


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        ("404 X", 'model "x" not found, try pulling it first', (404, None, "model_not_found")),
        ("501 X", "This server does not support embeddings.", (400, "model", "invalid_value")),
        ("400 X", "invalid model name", (404, None, "model_not_found")),
        ("400 X", "does not support embeddings", (400, "model", None)),
        ("500 X", "boom", (502, None, "upstream_error")),
        ("503 X", "busy", (503, None, "overloaded")),
    ],
)
def test_native_failures_keep_their_meaning(status: str, text: str, expected: tuple[Any, ...]) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"error": text}, status=status)
    response = EMBEDDINGS.post(fake, {"aliases": {"ada": "demo-embed"}}, model="ada")
    error = response.get_json()["error"]
    check("ErrorResponse", response.get_json())
    assert (response.status_code, error["param"], error["code"]) == expected
    assert ("`ada`" in error["message"]) is (expected[0] == 404)
    assert fake.closed == 1


def test_f40_an_answer_is_bounded() -> None:
    fake = FakeOllama()
    fake.script("/api/embed", {"embeddings": [[0.5] * 1000]})
    response = EMBEDDINGS.post(fake, {"max_answer": 2000})
    assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
    assert fake.closed == 1


def test_native_sides_are_closed_once_by_the_rules_of_wsgi() -> None:
    app, inner = compat(FakeOllama(), embed_batch=1)
    body = json.dumps({"model": "demo-embed", "input": ["a", "b"], "encoding_format": "base64"}).encode()
    assert call(app, "POST", "/v1/embeddings", body=body).status == 200
    assert inner.calls == inner.closes == 2


@pytest.mark.parametrize("number", ["1e39", "-3.5e38", "3.41e38"])
def test_a_number_that_no_float32_holds_never_leaves_as_infinity(number: str) -> None:
    fake = FakeOllama()
    fake.script("/api/embed", b'{"embeddings":[[0.5,%b]]}' % number.encode())
    response = Client(OpenAICompat(fake)).post(
        "/v1/embeddings", json={"model": "demo-embed", "input": "a", "encoding_format": "base64"}
    )
    assert response.status_code == 502
    assert response.get_json()["error"]["code"] == "upstream_error"
