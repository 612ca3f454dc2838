"""Images by URL: refused, or fetched where a setting allows it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import partial
from threading import Event
from typing import Any

import pytest

from openai_compat.testing import FakeOllama
from openai_compat.transport.images import Fetcher
from tests.chaos import WAIT
from tests.endpoints.requests import post, refused
from tests.servers import live

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 64


def image_message(url: Any, **image_url: Any) -> list[dict[str, Any]]:
    part = {"type": "image_url", "image_url": {"url": url, **image_url}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]


def pictures(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "image/png"), ("Content-Length", str(len(PNG)))])
    return [PNG]


def test_by_default_a_url_is_refused_and_the_setting_named() -> None:
    error = refused(messages=image_message("https://images.example/a.png"))
    assert (error["param"], error["code"]) == ("messages[0].content[1].image_url.url", "invalid_image_url")
    assert "fetch_images" in error["message"]


def test_where_it_is_allowed_the_image_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    # The server of a test is on loopback, which is never reached: only that rule is lifted here.
    monkeypatch.setattr("openai_compat.transport.images.Fetcher", partial(Fetcher, allowed=lambda address: True))
    fake = FakeOllama()
    with live(pictures) as url:
        response = post(fake, {"fetch_images": True}, messages=image_message(f"{url}/a.png"))
    assert response.status_code == 200
    [message] = fake.requests[0].json["messages"]
    assert (message["content"], message["images"]) == ("What is it?", [base64.b64encode(PNG).decode()])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://localhost:1/a.png", "http://169.254.169.254/x", "http://[::1]:1/"]
)
def test_a_private_address_is_not_asked(url: str) -> None:
    error = refused({"fetch_images": True}, messages=image_message(url))
    assert (error["param"], error["code"]) == ("messages[0].content[1].image_url.url", "invalid_image_url")


def test_the_limits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.transport.images.Fetcher", partial(Fetcher, allowed=lambda address: True))
    with live(pictures) as url:
        settings = {"fetch_images": True, "max_image": len(PNG) - 1}
        assert refused(settings, messages=image_message(f"{url}/a.png"))["code"] == "invalid_image_url"


def test_the_time_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.transport.images.Fetcher", partial(Fetcher, allowed=lambda address: True))
    refusal = Event()

    def late(environ: Any, start_response: Any) -> Iterable[bytes]:
        refusal.wait(WAIT)  # after which it is an image all the same
        return pictures(environ, start_response)

    with live(late) as url:
        settings = {"fetch_images": True, "image_timeout": 0.2}
        assert refused(settings, messages=image_message(f"{url}/a.png"))["code"] == "invalid_image_url"
        refusal.set()
