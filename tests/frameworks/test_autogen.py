"""AutoGen's assistant, with tools and an output type; the versions are those of ``autogen.txt``."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.frameworks.served import served
from tests.frameworks.task import MODELS, PROMPT, Report, Task

autogen = pytest.importorskip("autogen_agentchat.agents", reason="the package autogen-agentchat is not installed")
core = pytest.importorskip("autogen_core.tools")
models = pytest.importorskip("autogen_ext.models.openai", reason="the package autogen-ext is not installed")
openai = pytest.importorskip("openai")
pytest.importorskip("sqlalchemy", reason="the package sqlalchemy is not installed")

# AutoGen dumps openai's parsed completion, and pydantic does not expect what was parsed in it.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic.main")

WHOLE_AND_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
#: what the model can do, as the client wants to be told
INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": "unknown",
    "multiple_system_messages": True,
}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the client would read from the environment."""
    for name in os.environ:
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@WHOLE_AND_STREAM
@MODELS
def test_tools_are_called_before_an_output_type(name: str, stream: bool) -> None:
    task = Task(name)
    # The client refuses functions beside a schema unless they are strict.
    tools = [core.FunctionTool(function, function.__doc__, strict=True) for function in task.functions]

    async def scenario(client: Any) -> Any:
        made = models.BaseOpenAIChatCompletionClient(client, create_args={"model": name}, model_info=INFO)
        agent = autogen.AssistantAgent(
            "Ann", made, tools=tools, output_content_type=Report, max_tool_iterations=3, model_client_stream=stream
        )
        *steps, result = [step async for step in agent.run_stream(task=PROMPT)]
        pieces = [step for step in steps if step.type == "ModelClientStreamingChunkEvent"]
        assert bool(pieces) == stream
        return result.messages[-1].content

    with served(task.native, []) as run:
        answer = run(scenario)
    task.check(answer)
