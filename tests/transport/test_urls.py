"""URLs and the forms of ``OLLAMA_HOST``: text in, text out."""

from __future__ import annotations

import pytest

from openai_compat.transport.urls import checked_url, from_ollama_host, redacted


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("   ", "http://127.0.0.1:11434"),
        ("example.com", "http://example.com:11434"),
        ("example.com:", "http://example.com:11434"),
        ("example.com:80", "http://example.com:80"),
        ("example.com:65535", "http://example.com:65535"),
        (" example.com ", "http://example.com:11434"),
        ('"example.com:80"', "http://example.com:80"),
        ("'example.com:80'", "http://example.com:80"),
        (":80", "http://127.0.0.1:80"),
        ("10.0.0.7", "http://10.0.0.7:11434"),
        ("10.0.0.7:80", "http://10.0.0.7:80"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:80", "http://[::1]:80"),
        ("2001:db8::7", "http://[2001:db8::7]:11434"),
        ("http://example.com", "http://example.com:80"),
        ("http://example.com:11434", "http://example.com:11434"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("https://[::1]", "https://[::1]:443"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("https://example.com/a/b/", "https://example.com:443/a/b"),
        ("http://user:key@example.com:80", "http://user:key@example.com:80"),
        ("user:key@[::1]", "http://user:key@[::1]:11434"),
    ],
)
def test_ollama_host_becomes_a_url(text: str, url: str) -> None:
    assert from_ollama_host(text) == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("::", "http://[::1]:11434"),
        ("[::]", "http://[::1]:11434"),
        ("[::]:80", "http://[::1]:80"),
    ],
)
def test_an_address_that_means_all_is_this_machine(text: str, url: str) -> None:
    assert from_ollama_host(text) == url


@pytest.mark.parametrize("port", ["0", "65536", "123456", "-1", "+1", "x", "1 1", "٣"])
def test_ollama_host_without_a_usable_port_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="does not have a valid port"):
        from_ollama_host(f"example.com:{port}")


@pytest.mark.parametrize("text", ["ftp://example.com", "/run/ollama", "//example.com", "http:///a", "example.com/v1"])
def test_ollama_host_that_is_no_native_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid http or https URL|is an OpenAI API"):
        from_ollama_host(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("unix:///run/ollama.sock", "unix:///run/ollama.sock"),
        ("unix:/run/ollama.sock", "unix:///run/ollama.sock"),
        ("unix:///run/v1/api", "unix:///run/v1/api"),
    ],
)
def test_a_unix_socket_is_a_server(text: str, url: str) -> None:
    assert checked_url(text) == from_ollama_host(f" {text} ") == url


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "unix://",
        "unix:///",
        "unix://run/x.sock",
        "unix:run/x.sock",
        "unix:////x",
        "unix:///run/",
        "unix:///a?b",
    ],
)
def test_what_is_no_path_of_a_unix_socket_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid URL of a Unix socket \(unix:///path/to.sock\)"):
        checked_url(text)


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "localhost:11434", ":80", "::1", "[::1]:80", "0.0.0.0", "example.com/ollama", "user:key@box:1"],
)
def test_the_forms_of_ollama_host_without_a_scheme_are_urls_of_a_server(text: str) -> None:
    assert checked_url(text) == from_ollama_host(text)


def test_a_url_with_a_scheme_has_the_scheme_s_port() -> None:
    """A port that is not in the URL is not added: a proxy of the name may compare it."""
    assert checked_url("http://example.com") == "http://example.com"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://example.com", "http://example.com"),
        ("http://example.com/", "http://example.com"),
        ("http://example.com:11434//", "http://example.com:11434"),
        ("https://example.com/ollama/", "https://example.com/ollama"),
        ("http://[::1]:11434", "http://[::1]:11434"),
        ("http://user:key@example.com", "http://user:key@example.com"),
        ("http://example.com/v1beta", "http://example.com/v1beta"),
    ],
)
def test_a_url_is_kept_without_its_last_slash(given: str, url: str) -> None:
    assert checked_url(given) == url


@pytest.mark.parametrize(
    "url",
    [
        "//example.com",
        "http://",
        "http:///api",
        "http://:11434",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://example.com?key=1",
        "http://example.com#part",
        "http://example.com:0",
        "http://example.com:65536",
        "http://example.com:port",
        "http://[::1",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a valid (http or https )?URL"):
        checked_url(url)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://example.com/v1", "'http://example.com'"),
        ("http://example.com:11434/v1/", "'http://example.com:11434'"),
        ("https://example.com/ollama/v1", "'https://example.com/ollama'"),
        ("http://user:key@example.com/v1", r"'http://\*\*\*@example.com'"),
    ],
)
def test_openai_s_side_is_refused_and_the_native_one_named(url: str, base: str) -> None:
    with pytest.raises(ValueError, match=f"is an OpenAI API; the native API of the same server is {base}$"):
        checked_url(url)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://example.com/api", "'http://example.com'"),
        ("http://example.com:11434/api/", "'http://example.com:11434'"),
        ("https://example.com/ollama/api", "'https://example.com/ollama'"),
        ("localhost:11434/api", "'http://localhost:11434'"),
        ("http://example.com/api/chat", "'http://example.com'"),
        ("http://user:key@example.com/api/tags", r"'http://\*\*\*@example.com'"),
    ],
)
def test_a_native_route_is_refused_and_its_server_named(url: str, base: str) -> None:
    told = f"is a route of Ollama's API; the native API of the same server is {base}$"
    with pytest.raises(ValueError, match=told):
        checked_url(url)
    with pytest.raises(ValueError, match="is a route of Ollama's API"):
        from_ollama_host(url)


@pytest.mark.parametrize("path", ["/api/ollama", "/apis", "/my-api", "/v1/ollama", "/api/v1beta"])
def test_a_path_that_only_looks_like_a_route_is_a_base(path: str) -> None:
    assert checked_url(f"http://example.com:1{path}") == f"http://example.com:1{path}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://example.com/a", "http://example.com/a"),
        ("http://user@example.com", "http://***@example.com"),
        ("http://user:s3cret@example.com:80/a", "http://***@example.com:80/a"),
        ("http://user:s3@cret@example.com", "http://***@example.com"),
        ("http://:s3cret@[::1]:80", "http://***@[::1]:80"),
    ],
)
def test_user_and_password_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url", ["http://user:s3cret@example.com:port", "ftp://user:s3cret@example.com", "http://user:s3cret@example.com/v1"]
)
def test_an_error_about_a_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="example.com") as caught:
        checked_url(url)
    assert "s3cret" not in str(caught.value)


def test_a_scheme_in_capitals_is_one() -> None:
    assert from_ollama_host("HTTP://box") == "http://box:80"
