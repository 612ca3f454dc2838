"""OpenAI's contract as checks: the schemas in ``data/``, the wire facts, and the shared validator where it is there."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"


def shared(path: str) -> Path:
    """A file of the project's shared material; the test is skipped where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"shared/{path} is not here")
    return found


@functools.cache
def validator() -> Any:
    """The module ``validate_openai`` of the shared contract, or None."""
    path = SHARED / "contract" / "validate_openai.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("validate_openai", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((DATA / f"{name}.json").read_text()))


def check(name: str, value: Any) -> None:
    """Fail unless OpenAI's schema *name* accepts the value, without any forgiveness."""
    found = [f"{error.json_path}: {error.message[:200]}" for error in _schema(name).iter_errors(value)]
    if validator():
        found += validator().check(name, value, wire=True)
    assert found == []


def frames(body: bytes) -> Iterator[Any]:
    """The data of each SSE frame, decoded; ``"[DONE]"`` as it is. Fails on anything that is no whole data frame."""
    assert body.endswith(b"\n\n")
    for frame in body[:-2].split(b"\n\n"):
        assert frame.startswith(b"data: "), frame
        assert b"\n" not in frame
        assert b"\r" not in frame
        data = frame[6:].decode()
        yield data if data == "[DONE]" else json.loads(data)


def check_stream(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a chat stream that ended well; fails unless every one is sound and they fit together."""
    *chunks, last = frames(body)
    assert last == "[DONE]"
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
    if validator():
        assert validator().check_sse("CreateChatCompletionStreamResponse", body.decode(), wire=True) == []
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert deltas[-1] == {}
    return chunks


def check_text_stream(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a completions stream that ended well; fails unless every one is sound and they fit together."""
    *chunks, last = frames(body)
    assert last == "[DONE]"
    for chunk in chunks:
        check_text_chunk(chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    reasons: dict[int, Any] = {}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        assert reasons.get(choice["index"]) is None, "a chunk after the finish reason"
        reasons[choice["index"]] = choice["finish_reason"]
    assert None not in reasons.values()
    return chunks


def check_text_chunk(chunk: dict[str, Any]) -> None:
    """As OpenAI's own chunks, one may have no finish reason yet, and no usage."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    rest = {key: value for key, value in chunk.items() if value is not None}
    check("CreateCompletionResponse", {**rest, "choices": choices})


def merged(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the deltas of a stream add up to, as OpenAI's clients add them up."""
    message: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": [], "finish_reason": None, "usage": None}
    logprobs = []
    for chunk in chunks:
        message["usage"] = chunk.get("usage") or message["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning") or ""
            message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
            logprobs += (choice.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls", ()):
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    return {**message, "logprobs": [(entry["token"], entry["logprob"]) for entry in logprobs]}


def whole(completion: dict[str, Any]) -> dict[str, Any]:
    """The same summary of an answer that was not streamed."""
    choice = completion["choices"][0]
    message = choice["message"]
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.get("tool_calls", ())
    ]
    logprobs = (choice.get("logprobs") or {}).get("content") or []
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning", ""),
        "tool_calls": calls,
        "finish_reason": choice["finish_reason"],
        "usage": completion["usage"],
        "logprobs": [(entry["token"], entry["logprob"]) for entry in logprobs],
    }
