"""OpenAI's own client for tests: in process, over its WSGI transport, and over ``openai-compat serve``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openai_compat.testing import FakeOllama

openai = pytest.importorskip("openai", reason="the package openai is not installed")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")
pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")

SAID = "This is the openai-compat demo, not a model. You said: Hello!"
WORDS = len(SAID.split())  # a token of the demo is a word
HELLO = [{"role": "user", "content": "Hello!"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class City(pydantic.BaseModel):
    name: str
    people: int


class Journey(pydantic.BaseModel):
    stops: list[City]
    by_train: bool


class Weather(pydantic.BaseModel):
    city: str


# -- the client, over both ways ---------------------------------------------------------------

BOTH = pytest.mark.parametrize("way", ["in-process", pytest.param("gunicorn", marks=pytest.mark.server)])


@contextmanager
def client_of(base_url: str, app: Any = None) -> Iterator[Any]:
    """The official client of a URL, or of an application in process; without retries."""
    transport = None if app is None else httpx2.WSGITransport(app=app)
    http = openai.DefaultHttpxClient(transport=transport, trust_env=False)
    with openai.OpenAI(api_key="x", base_url=base_url, http_client=http, max_retries=0, timeout=20.0) as client:
        yield client


class Stage:
    """The application behind the running server: each test puts its own fake there."""

    def __init__(self) -> None:
        self.fake = FakeOllama()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return self.fake(environ, start_response)


class Scripted:
    """A client, and the fake that it reaches."""

    def __init__(self, client: Any, fake: FakeOllama) -> None:
        self.client = client
        self.fake = fake

    def ask(self, **arguments: Any) -> Any:
        return self.client.chat.completions.create(**{"model": "demo", "messages": HELLO, **arguments})


def ask(client: Any, **arguments: Any) -> Any:
    return client.chat.completions.create(**{"model": "demo", "messages": HELLO, **arguments})


def text_of(chunks: Iterable[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def collect(stream: Iterable[Any], chunks: list[Any]) -> None:
    """Read a stream; what came before a failure is kept."""
    for chunk in stream:
        chunks.append(chunk)
