"""The table of routes: what it tells, and what is not offered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat, Sampling, Upstream
from openai_compat.middleware.routes import NOT_OFFERED, ROUTES, shown
from openai_compat.testing import FakeOllama
from openai_compat.translate.fields import rows
from tests.contract import check


def described(**settings: Any) -> dict[str, Any]:
    response = Client(OpenAICompat(FakeOllama(), **settings)).get(f"{settings.get('prefix', '/v1')}/compatibility")
    assert response.status_code == 200
    return response.get_json()  # type: ignore[no-any-return]


def fields(found: dict[str, Any], path: str, method: str = "POST") -> dict[str, dict[str, Any]]:
    [route] = [route for route in found["routes"] if (route["method"], route["path"]) == (method, path)]
    return {field["name"]: field for field in route["fields"]}


def test_every_route_is_told() -> None:
    found = described()
    assert [(route["method"], route["path"]) for route in found["routes"]] == [
        (method, "/v1" + shown(path)) for method, path, _, _ in ROUTES
    ]
    assert all(route["summary"].endswith(".") for route in found["routes"])
    assert {route["path"] for route in described(prefix="/openai")["routes"]} >= {"/openai/models/{model}"}


@pytest.mark.parametrize("struct", [struct for *_, struct in ROUTES if struct is not None])
def test_every_field_has_a_row(struct: type[msgspec.Struct]) -> None:
    assert list(rows(struct)) == [field.encode_name for field in msgspec.structs.fields(struct)]


def test_every_field_is_told() -> None:
    found = described()
    for method, path, _, struct in ROUTES:
        names = set(rows(struct)) if struct is not None else set()
        assert set(fields(found, "/v1" + shown(path), method)) == names


@pytest.mark.parametrize(
    ("name", "status", "native"),
    [
        ("temperature", "mapped", "options.temperature"),
        ("tool_choice", "emulated", "format"),
        ("n", "emulated", None),
        ("user", "accepted", None),
        ("max_completion_tokens", "mapped", "options.num_predict"),
    ],
)
def test_what_becomes_of_a_field(name: str, status: str, native: str | None) -> None:
    field = fields(described(), "/v1/chat/completions")[name]
    assert (field["status"], field["native"]) == (status, native)


@pytest.mark.parametrize(("unsupported", "status"), [("warn", "accepted"), ("error", "refused")])
def test_the_policy_decides(unsupported: str, status: str) -> None:
    found = described(unsupported=unsupported)
    assert fields(found, "/v1/chat/completions")["logit_bias"]["status"] == status
    kinds = {field["status"] for route in found["routes"] for field in route["fields"]}
    assert kinds <= {"mapped", "emulated", "accepted", "refused"}


@pytest.mark.parametrize(
    ("name", "settings", "status"),
    [
        ("store", {}, "accepted"),
        ("store", {"store": "sqlite://"}, "emulated"),
        ("metadata", {}, "accepted"),
        ("presence_penalty_penalty", {}, "accepted"),
        ("presence_penalty_penalty", {"sampling": Sampling.v0_1_24()}, "mapped"),
    ],
)
def test_what_does_something_under_a_setting_only(name: str, settings: dict[str, Any], status: str) -> None:
    assert fields(described(**settings), "/v1/chat/completions")[name]["status"] == status


# -- what OpenAI has besides ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", path) for path in NOT_OFFERED],
        ("POST", "/images/generations"),
        ("POST", "/images/edits"),
        ("DELETE", "/files/file-1"),
        ("POST", "/batches"),
        ("POST", "/moderations"),
        ("POST", "/fine_tuning/jobs"),
        ("POST", "/audio/speech"),
        ("POST", "/audio/translations"),
        ("GET", "/realtime"),
        ("POST", "/threads/t/runs"),
        ("PUT", "/vector_stores/x/files"),
    ],
)
def test_a_route_that_is_not_offered_says_so(method: str, path: str) -> None:
    fake = FakeOllama()
    response = Client(OpenAICompat(fake)).open("/v1" + path, method=method)
    check("ErrorResponse", response.get_json())
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (404, "route_not_offered")
    assert "does not offer" in error["message"]
    assert f"{method} /v1{path}" in error["message"]
    assert fake.requests == []


@pytest.mark.parametrize(
    "path", ["/imagesx", "/foo", "/audio", "/audio/x", "/chat", "/chat/completions/a/b", "//images"]
)
def test_what_nobody_has_is_an_invalid_url(path: str) -> None:
    error = Client(OpenAICompat(FakeOllama())).get("/v1" + path).get_json()["error"]
    assert error["message"].startswith("Invalid URL (GET /v1/")
    assert error["code"] is None


def test_a_site_may_offer_what_we_do_not() -> None:
    def site(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the site's"]

    app = OpenAICompat(site, upstream=Upstream("http://127.0.0.1:9"))
    assert Client(app).get("/v1/files").data == b"the site's"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/chat/completions", "GET, HEAD, OPTIONS, POST"),
        ("/v1/chat/completions/x", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/v1/models/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/embeddings", "OPTIONS, POST"),
    ],
)
def test_options_tells_the_methods(path: str, methods: str) -> None:
    response = Client(OpenAICompat(FakeOllama())).options(path)
    assert (response.status_code, response.headers["Allow"]) == (204, methods)


def test_what_needs_a_store_is_refused_without_one() -> None:
    for store, status in ((None, "refused"), ("sqlite://", "emulated")):
        if store:
            pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
        found = Client(OpenAICompat(FakeOllama(), store=store)).get("/v1/compatibility").get_json()
        [route] = [route for route in found["routes"] if (route["method"], route["path"]) == ("POST", "/v1/responses")]
        fields = {field["name"]: field["status"] for field in route["fields"]}
        assert {fields[name] for name in ("previous_response_id", "conversation", "background")} == {status}
        assert fields["prompt"] == "refused"
