"""Any request that OpenAI's own schema allows is answered, or refused by the name of a parameter; never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from tests.contract import check, check_text_stream, frames

hypothesis = pytest.importorskip("hypothesis", reason="the package hypothesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.drawn import UNKNOWN, requests  # noqa: E402

pytestmark = pytest.mark.slow

PROFILE = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def post(path: str, body: Any, model: str = "demo-tools", **options: Any) -> Any:
    """Ask; what is no success must be a 400 that names a parameter."""
    fake = FakeOllama()
    body = {**body, "model": body["model"] or "m"}
    response = Client(OpenAICompat(fake, aliases={"*": model}, **options)).post(path, json=body)
    data = response.data
    response.close()
    assert fake.opened == fake.closed
    if response.status_code == 200:
        return response
    check("ErrorResponse", json.loads(data))
    error = json.loads(data)["error"]
    assert response.status_code == 400, (response.status_code, error, body)
    assert error["param"], (error, body)
    return None


def check_chat(response: Any, body: dict[str, Any]) -> None:
    if body.get("stream"):
        *chunks, last = frames(response.data)
        assert last == "[DONE]", last
        for chunk in chunks:
            check("CreateChatCompletionStreamResponse", chunk)
    else:
        check("CreateChatCompletionResponse", response.get_json())


@PROFILE
@given(
    body=requests("CreateChatCompletionRequest"),
    unknown=UNKNOWN,
    policy=st.sampled_from(["warn", "error"]),
)
def test_any_chat_is_answered_or_refused(body: dict[str, Any], unknown: dict[str, Any], policy: str) -> None:
    response = post("/v1/chat/completions", {**unknown, **body}, unsupported=policy)
    if response is not None:
        check_chat(response, body)


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": st.text(max_size=9)}),
    min_size=1,
    max_size=2,
)


@PROFILE
@given(body=requests("CreateChatCompletionRequest"), messages=MESSAGES, stream=st.booleans())
def test_any_chat_of_sound_messages_is_answered(body: dict[str, Any], messages: list[Any], stream: bool) -> None:
    body = {**body, "messages": messages, "stream": stream}
    response = post("/v1/chat/completions", body)
    if response is not None:
        check_chat(response, body)


@PROFILE
@given(body=requests("CreateCompletionRequest"), unknown=UNKNOWN)
def test_any_completion_is_answered_or_refused(body: dict[str, Any], unknown: dict[str, Any]) -> None:
    response = post("/v1/completions", {**unknown, **body}, "demo")
    if response is None:
        return
    if body.get("stream"):
        assert check_text_stream(response.data)
    else:
        check("CreateCompletionResponse", response.get_json())


@PROFILE
@given(body=requests("CreateEmbeddingRequest"), unknown=UNKNOWN)
def test_any_embedding_is_answered_or_refused(body: dict[str, Any], unknown: dict[str, Any]) -> None:
    response = post("/v1/embeddings", {**unknown, **body}, "demo-embed")
    if response is not None and body.get("encoding_format") != "base64":
        check("CreateEmbeddingResponse", response.get_json())
