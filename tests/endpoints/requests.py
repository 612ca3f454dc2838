"""Asking for chats, and for other things in JSON: what is sent, refused, ignored, answered and streamed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done
from openai_compat.testing.demo import encode
from tests.contract import check, check_events, check_response, check_stream, check_text_stream, said

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def post(fake: FakeOllama, settings: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
    body = {"model": "demo", "messages": MESSAGES, **fields}
    return Client(OpenAICompat(fake, **(settings or {}))).post("/v1/chat/completions", json=body)


def sent(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The native request; *steps* are its answer, where the request wants one of a kind."""
    fake = FakeOllama()
    fake.script("/api/chat", *(steps or [done()]))
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return fake.requests[0].json  # type: ignore[no-any-return]


def refused(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 400, response.data
    assert fake.requests == []
    check("ErrorResponse", response.get_json())
    return response.get_json()["error"]  # type: ignore[no-any-return]


def answered(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    check("CreateChatCompletionResponse", response.get_json())
    return response.get_json()  # type: ignore[no-any-return]


def streamed(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, stream=True, **fields)
    assert response.status_code == 200, response.data
    return check_stream(response.data)


def ignored(settings: dict[str, Any] | None = None, **fields: Any) -> set[str]:
    fake = FakeOllama()
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))


@dataclass(frozen=True)
class Endpoint:
    """Another endpoint that takes JSON."""

    path: str
    #: the native path that it asks
    native: str
    #: what is asked for where a test does not say
    body: dict[str, Any]
    #: a native answer where a test does not say
    answer: dict[str, Any]

    def post(self, fake: FakeOllama, settings: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
        return Client(OpenAICompat(fake, **(settings or {}))).post(self.path, json={**self.body, **fields})

    def sent(self, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """The native request."""
        fake = FakeOllama()
        fake.script(self.native, self.answer)
        response = self.post(fake, settings, **fields)
        assert response.status_code == 200, response.data
        [request] = fake.requests
        assert request.path == self.native
        return request.json  # type: ignore[no-any-return]

    def refused(self, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        fake = FakeOllama()
        response = self.post(fake, settings, **fields)
        assert response.status_code == 400, response.data
        assert fake.requests == []
        check("ErrorResponse", response.get_json())
        return response.get_json()["error"]  # type: ignore[no-any-return]

    def ignored(self, settings: dict[str, Any] | None = None, **fields: Any) -> set[str]:
        response = self.post(FakeOllama(), settings, **fields)
        assert response.status_code == 200, response.data
        return set(filter(None, response.headers.get("openai-compat-ignored", "").split(", ")))


# -- text completions -------------------------------------------------------------------------


def write(text: str = "", **fields: Any) -> dict[str, Any]:
    """One native line of a generated text."""
    return {"model": "demo", "created_at": "2026-01-01T00:00:00Z", "response": text, "done": False, **fields}


def end(reason: str = "stop", *, prompt: int = 1, made: int = 1, **fields: Any) -> dict[str, Any]:
    """Its last line."""
    counts = {"prompt_eval_count": prompt, "eval_count": made}
    return {**write(), "done": True, "done_reason": reason, **counts, **fields}


def token(text: str, logprob: float | None = -1.0, data: list[int] | None = None, **fields: Any) -> dict[str, Any]:
    """A native log-probability."""
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if data is None else data, **fields}


def generated(*scripts: list[Any]) -> FakeOllama:
    """A fake with the native answers of several calls."""
    fake = FakeOllama()
    for steps in scripts:
        fake.script("/api/generate", *steps)
    return fake


class Completions(Endpoint):
    """``POST /v1/completions``; each script is the native answer of one call."""

    def answered(self, *scripts: list[Any], settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        fake = generated(*scripts)
        response = self.post(fake, settings, **fields)
        assert response.status_code == 200, response.data
        assert len(fake.requests) == fake.closed == len(scripts)
        check("CreateCompletionResponse", response.get_json())
        return response.get_json()  # type: ignore[no-any-return]

    def streamed(
        self, *scripts: list[Any], settings: dict[str, Any] | None = None, **fields: Any
    ) -> list[dict[str, Any]]:
        fake = generated(*scripts)
        response = self.post(fake, settings, stream=True, **fields)
        assert response.status_code == 200, response.data
        assert response.content_type == "text/event-stream; charset=utf-8"
        chunks = check_text_stream(response.data)
        response.close()
        assert len(fake.requests) == fake.closed == len(scripts)
        return chunks


def merged_choices(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices that the chunks of a stream of texts add up to, in order of their indexes."""
    found: dict[int, dict[str, Any]] = {}
    for part in [choice for chunk in chunks for choice in chunk["choices"]]:
        whole = found.setdefault(part["index"], {**part, "text": "", "logprobs": None})
        whole["text"] += part["text"]
        whole["finish_reason"] = part["finish_reason"]
        if part["logprobs"] is not None:
            kept = whole["logprobs"] or {key: [] for key in part["logprobs"]}
            whole["logprobs"] = {key: kept[key] + part["logprobs"][key] for key in kept}
    return [found[index] for index in sorted(found)]


class Watched:
    """A native application that writes down when each answer begins and is closed."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        prompt = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))["prompt"]
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return self._lines(prompt)

    def _lines(self, prompt: str) -> Iterator[bytes]:
        self.log.append(f"{prompt} begins")
        try:
            yield encode(write(prompt.upper())) + b"\n"
            yield encode(end()) + b"\n"
        finally:
            self.log.append(f"{prompt} is closed")


class Remote(Watched):
    """As a URL: each call waits until the other one runs too."""

    is_remote = True

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._all = threading.Barrier(calls, timeout=10)

    def _lines(self, prompt: str) -> Iterator[bytes]:
        self._all.wait()
        yield from super()._lines(prompt)


# -- responses --------------------------------------------------------------------------------


class Responses(Endpoint):
    """``POST /v1/responses``; *steps* are the native answer of one call."""

    def answered(self, *steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """The response, streamed and whole: both must say the same. Returned is the whole one."""
        streamed = self.events(*steps, settings=settings, **fields)[-1]["response"]
        fake = FakeOllama()
        fake.script("/api/chat", *steps)
        response = self.post(fake, settings, **fields)
        assert response.status_code == 200, response.data
        assert fake.opened == fake.closed == 1
        found = check_response(response.get_json())
        for key in found.keys() - {"id", "output"}:
            assert streamed[key] == found[key], key
        assert said(streamed) == said(found)
        return found

    def events(
        self, *steps: Any, settings: dict[str, Any] | None = None, cut: int | None = None, **fields: Any
    ) -> list[dict[str, Any]]:
        fake = FakeOllama()
        fake.script("/api/chat", *steps, cut=cut)
        response = self.post(fake, settings, stream=True, **fields)
        assert response.status_code == 200, response.data
        assert response.content_type == "text/event-stream; charset=utf-8"
        found = check_events(response.data)
        response.close()
        assert fake.opened == fake.closed == 1
        return found


RESPONSES = Responses("/v1/responses", "/api/chat", {"model": "demo", "input": "Hello"}, done())
