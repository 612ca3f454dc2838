"""OpenAI's own client: in process, and over a running server; ``way`` says which of both a test is run with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from openai_compat.testing.demo import Demo
from tests.clients import Scripted, Stage, client_of
from tests.servers import live, serving


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    with serving("--demo") as server:
        yield server.base_url


@pytest.fixture
def client(way: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of the demo backend."""
    if way == "in-process":
        with client_of("http://testserver/v1", OpenAICompat(Demo())) as client:
            yield client
    else:
        with client_of(request.getfixturevalue("demo_url")) as client:
            yield client


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Stage, str]]:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    stage = Stage()
    with live(stage) as url, serving("--upstream", url) as server:
        yield stage, server.base_url


@pytest.fixture
def scripted(way: str, request: pytest.FixtureRequest) -> Iterator[Scripted]:
    fake = FakeOllama()
    if way == "in-process":
        with client_of("http://testserver/v1", OpenAICompat(fake)) as client:
            yield Scripted(client, fake)
    else:
        stage, base_url = request.getfixturevalue("stage")
        stage.fake = fake
        with client_of(base_url) as client:
            yield Scripted(client, fake)
