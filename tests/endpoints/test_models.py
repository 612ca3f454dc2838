"""Models: the list, and one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from werkzeug.test import Client, create_environ

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from openai_compat.testing.demo import MODELS
from tests.chaos import WAIT, Chaos, answer
from tests.contract import check
from tests.harness import call, compat


def test_the_list_names_each_model_and_what_it_can_do() -> None:
    found = Client(OpenAICompat(FakeOllama())).get("/v1/models").get_json()
    check("ListModelsResponse", found)
    assert found["data"][0] == {
        "id": "demo:latest",
        "object": "model",
        "created": 1767225600,
        "owned_by": "library",
        "capabilities": ["completion", "vision"],
    }


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
def test_a_model_is_found_by_its_whole_name(path: str, id: str, owner: str) -> None:
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


# -- what is known of them --------------------------------------------------------------------

LOADED = {"models": [{"name": "demo:latest", "model": "demo:latest", "context_length": 512}]}


def test_the_context_length_is_the_one_in_force() -> None:
    fake = FakeOllama()
    fake.script("/api/ps", json.dumps(LOADED).encode())
    found = {model["id"]: model for model in Client(OpenAICompat(fake)).get("/v1/models").get_json()["data"]}
    assert found["demo:latest"]["context_length"] == 512
    assert "context_length" not in found["demo-think:latest"]


@pytest.mark.parametrize(
    ("parameters", "loaded", "expected"),
    [
        ("temperature    0\nnum_ctx                        4096\n", {"models": []}, 4096),
        ("num_ctx                        4096", LOADED, 512),
        ("stop num_ctx 7", {"models": None}, None),
        (None, {"models": [{"name": "other", "context_length": 9}]}, None),
    ],
)
def test_of_a_model_that_is_not_loaded_the_modelfile_tells(parameters: str | None, loaded: Any, expected: Any) -> None:
    fake = FakeOllama()
    fake.script("/api/show", json.dumps({"parameters": parameters, "capabilities": ["completion"]}).encode())
    fake.script("/api/ps", json.dumps(loaded).encode())
    found = Client(OpenAICompat(fake)).get("/v1/models/demo").get_json()
    check("Model", found)
    assert found.get("context_length") == expected
    assert found["capabilities"] == ["completion"]


def test_a_native_side_that_cannot_tell_what_is_loaded_lists_its_models_all_the_same() -> None:
    fake = FakeOllama()
    fake.script("/api/ps", b"404 page not found", status="404 Not Found", content_type="text/plain")
    client = Client(OpenAICompat(fake))
    for _ in range(2):
        response = client.get("/v1/models")
        assert response.status_code == 200
        assert len(response.get_json()["data"]) == len(MODELS)
    assert [request.path for request in fake.requests].count("/api/ps") == 1


# -- aliases ----------------------------------------------------------------------------------

ALIASES = {"gpt-4o": "demo", "gpt-*": "demo", "text-embedding-3-small": "demo-embed", "nobody": "nothing-there"}


def test_aliases_of_models_that_are_there_are_listed() -> None:
    data = Client(OpenAICompat(FakeOllama(), aliases=ALIASES)).get("/v1/models").get_json()["data"]
    assert [model["id"] for model in data[len(MODELS) :]] == ["gpt-4o", "text-embedding-3-small"]
    assert data[len(MODELS)] == {**data[0], "id": "gpt-4o"}


def test_an_alias_that_a_model_has_is_listed_once() -> None:
    data = (
        Client(OpenAICompat(FakeOllama(), aliases={"demo:latest": "demo-think"})).get("/v1/models").get_json()["data"]
    )
    assert [model["id"] for model in data].count("demo:latest") == 1


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-3.5-turbo"])
def test_an_alias_is_described_under_its_own_name(name: str) -> None:
    fake = FakeOllama()
    found = Client(OpenAICompat(fake, aliases=ALIASES)).get(f"/v1/models/{name}").get_json()
    assert (found["id"], found["capabilities"]) == (name, ["completion", "vision"])
    assert fake.requests[0].json == {"name": "demo"}


def test_a_404_names_what_the_client_asked_for() -> None:
    response = Client(OpenAICompat(FakeOllama(), aliases=ALIASES)).get("/v1/models/nobody")
    assert response.get_json()["error"]["message"] == (
        "The model `nobody` does not exist or you do not have access to it. model 'nothing-there' not found"
    )


# -- deleting ---------------------------------------------------------------------------------


def test_models_cannot_be_deleted() -> None:
    fake = FakeOllama()
    response = Client(OpenAICompat(fake)).delete("/v1/models/demo", content_type="application/json")
    check("ErrorResponse", response.get_json())
    assert response.status_code == 403
    assert "delete_models" in response.get_json()["error"]["message"]
    assert fake.requests == []


@pytest.mark.parametrize("name", ["demo", "team/ocean:small", "ft:gpt-4o-mini:acemeco:suffix:abc123"])
def test_models_can_be_deleted_where_that_is_wanted(name: str) -> None:
    fake = FakeOllama()
    fake.script("/api/delete", b"")
    app, inner = compat(fake, delete_models=True)
    answered = call(app, "DELETE", f"/v1/models/{name}", body=b"")
    check("DeleteModelResponse", json.loads(answered.body))
    assert json.loads(answered.body) == {"id": name, "object": "model", "deleted": True}
    [request] = fake.requests
    assert (request.method, request.json["model"], request.json["name"]) == ("DELETE", name, name)
    assert inner.closes == 1


def test_a_model_that_is_not_there_cannot_be_deleted() -> None:
    fake = FakeOllama()
    fake.script("/api/delete", b'{"error":"model \'x\' not found"}', status="404 Not Found")
    response = Client(OpenAICompat(fake, delete_models=True)).delete("/v1/models/x")
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")


def test_an_alias_cannot_be_deleted() -> None:
    fake = FakeOllama()
    response = Client(OpenAICompat(fake, delete_models=True, aliases=ALIASES)).delete("/v1/models/gpt-4o")
    assert response.status_code == 403
    assert fake.requests == []


def test_the_context_length_that_the_settings_ask_for_is_the_one_in_force() -> None:
    settings: dict[str, Any] = {"models": {"demo": {"options": {"num_ctx": 8192}}}, "aliases": {"gpt-4o": "demo"}}
    fake = FakeOllama()
    fake.script("/api/show", b'{"parameters":"num_ctx 4096"}')
    client = Client(OpenAICompat(fake, **settings))
    assert client.get("/v1/models/demo").get_json()["context_length"] == 8192
    found = {model["id"]: model.get("context_length") for model in client.get("/v1/models").get_json()["data"]}
    assert (found["demo:latest"], found["gpt-4o"], found["demo-think:latest"]) == (8192, 8192, None)


def test_a_native_side_that_has_no_list_is_not_an_unknown_model() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", b'{"error":"Not Found"}', status="404 Not Found")
    response = Client(OpenAICompat(fake)).get("/v1/models")
    assert (response.status_code, response.get_json()["error"]["code"]) == (502, "backend_not_ollama")


# -- capabilities -----------------------------------------------------------------------------

EMBEDDER = {"name": "e:latest", "model": "e:latest", "digest": "d1", "capabilities": ["completion"]}
CHATTER = {"name": "c:latest", "model": "c:latest", "digest": "d2", "capabilities": ["completion"]}


def shown(*capabilities: str) -> bytes:
    return json.dumps({"capabilities": capabilities}).encode()


def listed(app: Any) -> dict[str, Any]:
    found = Client(app).get("/v1/models").get_json()["data"]
    return {model["id"]: model.get("capabilities") for model in found}


def test_the_list_and_the_single_entry_agree_where_ollama_s_tags_are_wrong() -> None:
    fake = FakeOllama()
    fake.script("/api/tags", json.dumps({"models": [EMBEDDER, CHATTER]}).encode())
    for capabilities in (["embedding"], ["completion", "tools"], ["embedding"]):
        fake.script("/api/show", shown(*capabilities))
    app = OpenAICompat(fake)
    assert listed(app) == {"e:latest": ["embedding"], "c:latest": ["completion", "tools"]}
    assert Client(app).get("/v1/models/e:latest").get_json()["capabilities"] == ["embedding"]


def test_a_digest_is_described_once_and_a_new_one_again() -> None:
    fake = FakeOllama()
    app = OpenAICompat(fake)
    for digest, answers in (("d1", [shown("embedding")]), ("d1", []), ("d9", [shown("completion")])):
        fake.script("/api/tags", json.dumps({"models": [{**EMBEDDER, "digest": digest}]}).encode())
        for body in answers:
            fake.script("/api/show", body)
        before = len(fake.requests)
        assert listed(app)["e:latest"] == (["completion"] if digest == "d9" else ["embedding"])
        assert [request.path for request in fake.requests[before:]].count("/api/show") == len(answers)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"error":"boom"}', "500 X"), (b"{}", "200 OK"), (b"<html>", "200 OK"), (b'{"capabilities":5}', "200 OK")],
)
def test_a_model_that_cannot_be_described_is_as_the_tags_say(body: bytes, status: str) -> None:
    fake = FakeOllama()
    fake.script("/api/tags", json.dumps({"models": [CHATTER]}).encode())
    fake.script("/api/show", body, status=status)
    assert listed(OpenAICompat(fake)) == {"c:latest": ["completion"]}


def test_very_many_models_are_described_a_hundred_at_a_time() -> None:
    fake = FakeOllama()
    app = OpenAICompat(fake)
    names = [{"name": f"m{i}", "digest": f"d{i}"} for i in range(150)]
    counts = []
    for _ in range(3):
        fake.script("/api/tags", json.dumps({"models": names}).encode())
        for _ in range(150):
            fake.script("/api/show", shown("completion"))
        before = len(fake.requests)
        assert len(listed(app)) == 150
        counts.append([request.path for request in fake.requests[before:]].count("/api/show"))
    assert counts == [100, 50, 0]


@pytest.mark.server
def test_several_models_are_described_at_once_and_a_silent_server_does_not_hold_up_the_list(server: Chaos) -> None:
    models = [{"name": f"m{i}", "digest": f"d{i}"} for i in range(4)]
    server.script(*answer(json.dumps({"models": models}).encode(), content_type="application/json"))
    server.script(*answer(b'{"models":[]}', content_type="application/json"))
    for _ in range(3):
        server.script(*answer(shown("tools"), content_type="application/json"))
    server.script(b"")  # silence
    began = time.monotonic()
    found = listed(OpenAICompat(server.url))
    assert time.monotonic() - began < 8
    assert sorted(map(str, found.values())) == ["None", "['tools']", "['tools']", "['tools']"]
    assert server.gone.get(timeout=WAIT)  # the call that is still silent was ended


def test_a_digest_with_several_names_is_described_once() -> None:
    fake = FakeOllama()
    names = [{"name": name, "digest": "d1", "capabilities": ["completion"]} for name in ("a", "b", "c")]
    fake.script("/api/tags", json.dumps({"models": names}).encode())
    fake.script("/api/show", json.dumps({"capabilities": ["embedding"], "parameters": "num_ctx 4096"}).encode())
    found = Client(OpenAICompat(fake)).get("/v1/models").get_json()["data"]
    assert [(model["capabilities"], model["context_length"]) for model in found] == [(["embedding"], 4096)] * 3
    assert [request.path for request in fake.requests].count("/api/show") == 1


@pytest.mark.server
def test_one_silent_description_does_not_hold_up_the_list(server: Chaos) -> None:
    server.script(*answer(json.dumps({"models": [CHATTER]}).encode(), content_type="application/json"))
    server.script(*answer(b'{"models":[]}', content_type="application/json"))
    server.script(b"")  # silence
    began = time.monotonic()
    assert listed(OpenAICompat(server.url)) == {"c:latest": ["completion"]}
    assert time.monotonic() - began < 8
