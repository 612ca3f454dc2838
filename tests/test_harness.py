"""The harness itself: each planted mistake is seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness import call


def answer(headers: list[tuple[str, str]], items: list[bytes], twice: bool = False) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        if twice:
            start_response("200 OK", headers)
        return items

    return app


PLAIN = [("Content-Type", "text/plain")]


def changes_environ(environ: Any, start_response: Any) -> list[bytes]:
    environ["PATH_INFO"] = "/other"
    start_response("200 OK", PLAIN)
    return [b"x"]


def reads_too_far(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(100)
    start_response("200 OK", PLAIN)
    return [b"x"]


@pytest.mark.parametrize(
    ("app", "method"),
    [
        pytest.param(answer([*PLAIN, ("Connection", "close")], [b"x"]), "GET", id="hop-by-hop"),
        pytest.param(answer(PLAIN, [b"x"], twice=True), "GET", id="start_response twice"),
        pytest.param(changes_environ, "GET", id="environ changed"),
        pytest.param(reads_too_far, "POST", id="read past the end"),
        pytest.param(answer(PLAIN, [b"x"]), "HEAD", id="body on HEAD"),
        pytest.param(answer(PLAIN, [b"", b"x"]), "GET", id="empty first item"),
        pytest.param(answer([*PLAIN, ("Content-Length", "5")], [b"x"]), "GET", id="wrong length"),
    ],
)
def test_a_planted_mistake_is_seen(app: Any, method: str) -> None:
    with pytest.raises(AssertionError):
        call(app, method, body=b"{}" if method == "POST" else None)


def test_a_sound_application_passes() -> None:
    assert call(answer([*PLAIN, ("Content-Length", "1")], [b"x"])).body == b"x"
