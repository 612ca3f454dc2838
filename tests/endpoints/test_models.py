"""Models: the list, and one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client, create_environ

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from tests.contract import check
from tests.harness import call, compat


def test_the_list() -> None:
    found = Client(OpenAICompat(FakeOllama())).get("/v1/models").get_json()
    check("ListModelsResponse", found)
    assert found["data"][0] == {"id": "demo:latest", "object": "model", "created": 1767225600, "owned_by": "library"}


@pytest.mark.parametrize("body", [b'{"models":null}', b'{"models":[]}'])
def test_no_models_is_an_empty_list(body: bytes) -> None:
    fake = FakeOllama()
    fake.script("/api/tags", body)
    assert Client(OpenAICompat(fake)).get("/v1/models").data == b'{"object":"list","data":[]}'


@pytest.mark.parametrize(
    ("path", "id", "owner"),
    [
        ("/v1/models/demo", "demo", "library"),
        ("/v1/models/team/ocean:small", "team/ocean:small", "team"),
        ("/v1/models/hf.co/a/b:Q4_K_M", "hf.co/a/b:Q4_K_M", "a"),
        ("/v1/models/caf\xc3\xa9", "café", "library"),
    ],
)
def test_one_model(path: str, id: str, owner: str) -> None:
    fake = FakeOllama()
    fake.script("/api/show", json.dumps({"modified_at": "2023-06-16T17:03:22Z"}).encode())
    answered = call(compat(fake)[0], "GET", path)
    check("Model", json.loads(answered.body))
    assert json.loads(answered.body) == {"id": id, "object": "model", "created": 1686935002, "owned_by": owner}
    assert fake.requests[0].json == {"name": id}


def test_a_model_of_an_unknown_age_is_of_now() -> None:
    fake = FakeOllama()
    fake.script("/api/show", b"{}")
    assert Client(OpenAICompat(fake)).get("/v1/models/x").get_json()["created"] > 1700000000


def test_an_unknown_model_is_404() -> None:
    response = Client(OpenAICompat(FakeOllama())).get("/v1/models/nothing")
    check("ErrorResponse", response.get_json())
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["a\x00b", "a b", "../x", "a/../b", "http://x", "a\\b", "a\nb"])
def test_what_no_model_is_called_is_not_asked_for(name: str) -> None:
    fake = FakeOllama()
    answered = call(OpenAICompat(fake), "GET", f"/v1/models/{name}")
    assert answered.status == 404
    assert fake.requests == []


def test_a_native_failure_keeps_its_meaning() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", b'{"error":"busy"}', status="503 X")
    response: Any = Client(OpenAICompat(fake)).get("/v1/models")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


def test_a_path_that_is_text_already_is_taken_as_it_is() -> None:
    """As a transport in process has it that does not know of PEP 3333's latin-1."""
    fake = FakeOllama()
    fake.script("/api/show", b"{}")
    client = OpenAICompat(fake)
    heads: list[Any] = []
    environ = create_environ("/v1/models/x")
    body = b"".join(client({**environ, "PATH_INFO": "/v1/models/模型"}, lambda *head: heads.append(head)))  # type: ignore[arg-type, return-value]
    assert json.loads(body)["id"] == "模型"
    body = b"".join(client({**environ, "PATH_INFO": "/v1/\ud800"}, lambda *head: heads.append(head)))  # type: ignore[arg-type, return-value]
    assert heads[-1][0] == "404 Not Found"
    assert json.loads(body)["error"]["message"]
