"""Agno's agents, with tools and an output schema; the versions are those of ``agno.txt``."""

from __future__ import annotations

import os
from typing import Any

import pytest

from openai_compat import OpenAICompat
from tests.frameworks.task import MODELS, PROMPT, Report, Task

agno = pytest.importorskip("agno.agent", reason="the package agno is not installed")
openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")
models = pytest.importorskip("agno.models.openai")

WHOLE_AND_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what Agno and its client would read from the environment, and tell nobody what is run."""
    for name in os.environ:
        if name.startswith(("OPENAI_", "AGNO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGNO_TELEMETRY", "false")


@WHOLE_AND_STREAM
@MODELS
@pytest.mark.parametrize("api", [models.OpenAIChat, models.OpenAIResponses])
def test_tools_are_called_before_an_output_schema(api: Any, name: str, stream: bool) -> None:
    task = Task(name)
    transport = httpx2.WSGITransport(app=OpenAICompat(task.native))
    with openai.DefaultHttpxClient(transport=transport, trust_env=False) as http:
        client = openai.OpenAI(base_url="http://testserver/v1", api_key="x", http_client=http, max_retries=0)
        agent = agno.Agent(
            model=api(id=name, client=client), tools=task.functions, output_schema=Report, telemetry=False
        )
        if stream:
            *_, last = agent.run(PROMPT, stream=True, stream_events=True)
            assert last.event == "RunCompleted"
        else:
            last = agent.run(PROMPT)
    task.check(last.content)
