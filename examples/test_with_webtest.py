"""A test of a program that uses this package: no model, no server, no network.

``FakeOllama`` says what it is told to and remembers what it was asked; WebTest is the client. Needs webtest::

    python examples/test_with_webtest.py
    pytest -c /dev/null examples/test_with_webtest.py  (without the settings of this repository's own tests)
"""

from __future__ import annotations

from webtest import TestApp

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say

QUESTION = {"model": "demo", "temperature": 0.5, "messages": [{"role": "user", "content": "Who is there?"}]}


def test_an_answer() -> None:
    ollama = FakeOllama()
    ollama.script("/api/chat", say("Hello"), say(" world"), done(prompt=3, made=2))
    client = TestApp(OpenAICompat(ollama))

    answer = client.post_json("/v1/chat/completions", QUESTION).json

    assert answer["choices"][0]["message"]["content"] == "Hello world"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 5
    asked = ollama.requests[0]
    assert asked.path == "/api/chat"
    assert asked.json["messages"] == QUESTION["messages"]
    assert asked.json["options"]["temperature"] == 0.5


def test_a_model_that_is_not_there() -> None:
    ollama = FakeOllama()
    ollama.script("/api/chat", {"error": "model 'demo' not found"}, status="404 Not Found")
    client = TestApp(OpenAICompat(ollama))

    answer = client.post_json("/v1/chat/completions", QUESTION, status=404).json

    assert answer["error"]["code"] == "model_not_found"


if __name__ == "__main__":
    test_an_answer()
    test_a_model_that_is_not_there()
    print("both tests passed")
