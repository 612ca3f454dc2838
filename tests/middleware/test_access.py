"""Who may call: hosts, origins, CORS and the login of a site, on both sides of the prefix."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import APIError, OpenAICompat
from openai_compat.middleware.access import is_local_address
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama
from openai_compat.testing.demo import Demo
from tests.contract import check

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
LOCAL = {"allowed_hosts": "local", "allowed_origins": "local"}


def get(path: str = "/v1/models", app: Any = None, method: str = "GET", **options: Any) -> TestResponse:
    headers = {name: options.pop(name) for name in ("Host", "Origin") if name in options}
    more = options.pop("headers", {})
    compat = OpenAICompat(app or Demo(), **options)
    return Client(compat).open(path, method=method, headers={**headers, **more}, base_url="http://127.0.0.1:9")


# -- hosts ------------------------------------------------------------------------------------

OUR_NAME = socket.gethostname()


@pytest.mark.parametrize("path", ["/v1/models", "/api/version", "/v1/nothing"])
@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        *[(host, True) for host in ("localhost", "localhost:11434", "LOCALHOST", "127.0.0.1:8000", "127.3.2.1")],
        *[(host, True) for host in ("[::1]", "[::1]:8000", "0.0.0.0", "0.0.0.0:1", "10.1.2.3", "192.168.0.7:80")],
        *[(host, True) for host in ("box.local", "a.internal:5", "x.localhost", OUR_NAME, OUR_NAME.upper(), "")],
        *[(host, False) for host in ("example.com", "localhost.example.com", "notlocalhost", "local", "8.8.8.8")],
        *[(host, False) for host in ("[2606:4700::1]", "127.0.0.1.example.com", "evil.com:11434")],
    ],
)
def test_a_foreign_host_is_refused_as_by_ollama(path: str, host: str, is_allowed: bool) -> None:
    response = get(path, allowed_hosts="local", headers={}, **{"Host": host})
    assert (response.status_code != 403) is is_allowed
    if not is_allowed:
        error = response.get_json()["error"]
        assert (error["code"] if path.startswith("/v1") else error) in (
            "host_not_allowed",
            "This host name is not allowed here.",
        )


def test_named_hosts_are_the_only_ones() -> None:
    named = {"allowed_hosts": ["gateway.example.com", "*.chat.example"]}
    for host, status in (
        ("gateway.example.com:443", 200),
        ("a.chat.example", 200),
        ("localhost", 403),
        ("x.example.com", 403),
    ):
        assert get(Host=host, **named).status_code == status
    assert get(Host="localhost", allowed_hosts="local,gateway.example.com").status_code == 200


def test_in_the_library_every_host_is_allowed() -> None:
    assert get(Host="evil.example").status_code == 200


# -- origins and CORS -------------------------------------------------------------------------

LOCAL_ORIGINS = [
    "http://localhost",
    "https://localhost:3000",
    "http://127.0.0.1:5173",
    "http://0.0.0.0:8080",
    "http://[::1]:8000",
    "http://app.localhost:3000",
    "app://obsidian.md",
    "file://",
    "tauri://localhost",
    "vscode-webview://1hf3",
    "vscode-file://vscode-app",
]
FOREIGN_ORIGINS = [
    "https://example.com",
    "http://localhost.example.com",
    "null",
    "chrome-extension://abcdef",
    "moz-extension://abcdef",
    "http://localhost@example.com",
    "http://example.com/localhost",
    "http://192.168.0.9",
    "localhost",
    "ftp://localhost",
    "http://[::1",
]


@pytest.mark.parametrize("path", ["/v1/models", "/api/version"])
@pytest.mark.parametrize("origin", LOCAL_ORIGINS)
def test_a_local_origin_is_allowed_and_gets_cors_headers(path: str, origin: str) -> None:
    response = get(path, Origin=origin, **LOCAL)
    assert response.status_code == 200
    assert response.headers.getlist("Access-Control-Allow-Origin") == [origin]
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", ["/v1/models", "/api/version", "/v1/none"])
@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_is_refused(path: str, origin: str) -> None:
    response = get(path, Origin=origin, **LOCAL)
    assert response.status_code == 403
    assert "Access-Control-Allow-Origin" not in response.headers
    preflight = get(path, Origin=origin, method="OPTIONS", headers={"Access-Control-Request-Method": "POST"}, **LOCAL)
    assert preflight.status_code == 403


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        ("https://chat.example", "chat.example", True),
        ("https://chat.example", "chat.example:443", True),
        ("https://chat.example:8443", "chat.example:8443", True),
        ("http://chat.example", "CHAT.example:80", True),
        ("https://chat.example:8443", "chat.example", False),
        ("https://chat.example", "chat.example:8443", False),
        ("https://other.example", "chat.example", False),
        ("null", "", False),
    ],
)
def test_a_page_of_the_server_itself_is_no_foreign_origin(origin: str, host: str, is_same: bool) -> None:
    response = get(Origin=origin, Host=host, allowed_origins=["https://else.example"])
    assert (response.status_code == 200) is is_same


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_preflight_request_of_an_allowed_origin_is_answered(path: str) -> None:
    fake = FakeOllama()
    fake.speaks_native_only = True  # type: ignore[attr-defined]
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, X-Stainless-Lang, b@d",
    }
    app = OpenAICompat(fake, allowed_origins=["https://*.example.com"], authenticate=lambda environ: None)
    response = Client(app).options(path, headers={**asked, "Origin": "https://app.example.com"})
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, x-stainless-lang"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert fake.requests == []


def test_any_origin_never_comes_with_credentials() -> None:
    response = get(Origin="https://x.example", allowed_origins="*", authenticate=lambda environ: "me")
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in response.headers
    named = get(Origin="https://x.example", allowed_origins=["https://x.example"], authenticate=lambda environ: "me")
    assert named.headers["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://evil.com/.example.com", "https://evil.com#.example.com/", "https://example.com"]
)
def test_a_pattern_does_not_run_over_the_end_of_a_host(origin: str) -> None:
    assert get(Origin=origin, allowed_origins=["https://*.example.com"]).status_code == 403


@pytest.mark.parametrize("stream", [False, True])
def test_every_kind_of_response_has_the_headers(stream: bool) -> None:
    app = OpenAICompat(Demo(), allowed_origins="local")
    client, origin = Client(app), {"Origin": "http://localhost:3000"}
    answers = [
        client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=origin),
        client.post("/v1/chat/completions", json={**CHAT, "n": 0}, headers=origin),
        client.get("/v1/nothing", headers=origin),
        client.put("/v1/models", headers=origin),
        client.post("/api/chat", json=CHAT, headers=origin),
    ]
    for response in answers:
        assert response.headers.getlist("Access-Control-Allow-Origin") == ["http://localhost:3000"], response
        response.close()


def test_in_the_library_no_origin_is_refused_and_none_gets_headers() -> None:
    response = get(Origin="https://evil.example")
    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers


# -- the login of the site --------------------------------------------------------------------


def by_header(environ: dict[str, Any]) -> str | None:
    return environ.get("HTTP_X_USER") or None


@pytest.mark.parametrize(
    ("path", "method"),
    [("/v1/models", "GET"), ("/v1/chat/completions", "POST"), ("/v1/chat/completions", "GET"), ("/v1/x", "GET")]
    + [("/api/tags", "GET"), ("/api/chat", "POST"), ("/", "GET"), ("/v1/chat/completions/chatcmpl-1", "GET")],
)
def test_without_a_login_there_is_nothing(path: str, method: str) -> None:
    app = OpenAICompat(Demo(), authenticate=by_header)
    stream = _Unread()
    environ = {"wsgi.input": stream, "CONTENT_LENGTH": "5"}
    response = Client(app).open(path, method=method, environ_overrides=environ)
    assert response.status_code == 401
    if path.startswith("/v1"):
        check("ErrorResponse", response.get_json())
        assert response.get_json()["error"]["code"] == "invalid_api_key"
    else:
        assert list(response.get_json()) == ["error"]


class _Unread:
    """A body that must not be read."""

    def read(self, *size: Any) -> bytes:
        raise AssertionError("the body was read before the login was checked")

    readline = __iter__ = read


def test_a_caller_with_a_login_is_served_and_the_body_is_whole() -> None:
    response = Client(OpenAICompat(Demo(), authenticate=by_header)).post(
        "/v1/chat/completions", json=CHAT, headers={"X-User": "me"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags"])
def test_an_error_of_ours_stands_as_it_is(path: str) -> None:
    def refuse(environ: dict[str, Any]) -> str:
        raise APIError(429, "Slow down.", code="rate_limit_exceeded")

    response = get(path, authenticate=refuse)
    assert (response.status_code, b"Slow down." in response.data) == (429, True)


def raising(environ: dict[str, Any]) -> str:
    raise KeyError("secret")


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags"])
@pytest.mark.parametrize(
    "authenticate", [raising, lambda environ: True, lambda environ: object(), lambda environ: b"x"]
)
def test_a_login_that_fails_is_never_a_way_in(path: str, authenticate: Any) -> None:
    response = get(path, authenticate=authenticate)
    assert response.status_code == 500
    assert b"secret" not in response.data


@pytest.mark.parametrize("name", ["", None])
def test_an_empty_name_is_no_login(name: Any) -> None:
    assert get(authenticate=lambda environ: name).status_code == 401


def test_a_number_is_a_name() -> None:
    assert get(authenticate=lambda environ: 0).status_code == 200


def test_with_a_login_a_foreign_origin_is_refused_on_every_address() -> None:
    app = OpenAICompat(Demo(), authenticate=lambda environ: "me")
    for base in ("https://chat.example", "http://localhost"):
        response = Client(app).get("/v1/models", base_url=base, headers={"Origin": "https://evil.example"})
        assert response.status_code == 403
    assert (
        Client(app)
        .get("/v1/models", base_url="https://chat.example", headers={"Origin": "https://chat.example"})
        .status_code
        == 200
    )


def test_a_site_keeps_its_own_paths_and_guards() -> None:
    def site(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the site"]

    app = OpenAICompat(site, upstream=Demo(), authenticate=by_header, **LOCAL)
    client = Client(app)
    foreign = {"Host": "evil.example", "Origin": "https://evil.example"}
    assert client.get("/login", headers=foreign).data == b"the site"
    assert client.get("/v1/of-the-site", headers=foreign).data == b"the site"
    assert client.get("/v1/models", headers=foreign).status_code == 403
    assert client.get("/v1/models").status_code == 401


def test_the_owner_of_stored_objects_is_the_caller() -> None:
    pytest.importorskip("sqlalchemy")
    client = Client(OpenAICompat(FakeOllama(), store="sqlite://", authenticate=by_header))
    stored = client.post("/v1/chat/completions", json={**CHAT, "store": True}, headers={"X-User": "ann"}).get_json()
    path = f"/v1/chat/completions/{stored['id']}"
    assert client.get(path, headers={"X-User": "ann"}).status_code == 200
    assert client.get(path, headers={"X-User": "bob"}).status_code == 404
    assert client.delete(path, headers={"X-User": "bob"}).status_code == 404
    assert client.get("/v1/chat/completions", headers={"X-User": "bob"}).get_json()["data"] == []


# -- a path without the prefix ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/chat/completions", "/models", "/models/m", "/embeddings", "/responses", "/completions"]
)
def test_a_path_without_the_prefix_says_what_base_url_should_end_in(path: str, method: str) -> None:
    response = get(path, method=method)
    assert response.status_code == 404
    assert "base_url should end in /v1" in response.get_json()["error"]["message"]


def test_a_prefix_that_is_there_twice_is_named() -> None:
    assert "twice" in get("/v1/v1/models").get_json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/models"])
def test_native_paths_are_passed_through(path: str) -> None:
    assert "base_url" not in get(path).get_data(as_text=True)


def test_an_application_in_process_has_paths_of_its_own() -> None:
    fake = FakeOllama()
    fake.script("/models", b"its own")
    assert Client(OpenAICompat(fake)).get("/models").data == b"its own"


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["allowed_hosts", "allowed_origins"])
def test_names_are_a_list_or_text_with_commas(name: str) -> None:
    assert getattr(Settings(**{name: "a, b/,"}), name) == ("a", "b")
    assert getattr(Settings(**{name: ["a"]}), name) == ("a",)
    for value, error in ((" ", ValueError), ([], ValueError), (5, TypeError), ([5], TypeError)):
        with pytest.raises(error, match=name):
            Settings(**{name: value})


def test_authenticate_is_a_function() -> None:
    with pytest.raises(TypeError, match="authenticate"):
        Settings(authenticate="me")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("localhost:1", True),
        ("192.168.1.5:80", True),
        ("10.0.0.1", True),
    ]
    + [("0.0.0.0:8000", False), ("[::]:8000", False), ("8.8.8.8:80", False), ("unix:/tmp/x", False), (":8000", False)],
)
def test_a_local_address(bind: str, expected: bool) -> None:
    assert is_local_address(bind) is expected


@pytest.mark.parametrize(
    ("pattern", "origin", "is_named"),
    [
        ("https://chat.example", "https://chat.example", True),
        ("https://*.chat.example", "https://a.chat.example", True),
        ("http://chat.example:*", "http://chat.example:81", True),
        ("http://*", "http://evil.example", False),
        ("*://*", "http://evil.example", False),
        ("https://*.example", "https://evil.example", False),
        ("https://*chat.example", "https://evilchat.example", False),
        ("null", "null", False),
        ("local", "http://localhost:3000", False),
    ],
)
def test_credentials_go_only_to_a_site_that_is_named(pattern: str, origin: str, is_named: bool) -> None:
    response = get(Origin=origin, allowed_origins=[pattern], authenticate=lambda environ: "me")
    assert response.status_code == 200
    assert (response.headers.get("Access-Control-Allow-Credentials") == "true") is is_named


@pytest.mark.parametrize("host", ["240.0.0.1", "198.18.0.1", "192.0.2.1", "169.254.1.1", "[2001:db8::1]"])
def test_special_addresses_are_not_private(host: str) -> None:
    assert get(Host=host, allowed_hosts="local").status_code == 403
