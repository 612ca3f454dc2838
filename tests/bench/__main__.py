"""What things cost, in CPU time, against what decoding and encoding alone would.

``python -m tests.bench chunk``: a text chunk. ``python -m tests.bench tools``: one of a request with tools.
``python -m tests.bench embeddings``: a large batch of vectors. ``python -m tests.bench hostile``: how time grows with
hostile input.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.test import create_environ

from openai_compat import OpenAICompat
from tests.bench.hostile import hostile

CHUNKS = 5000
ROUNDS = 9

LINE = (
    b'{"model":"llama3.2","created_at":"2026-11-21T03:59:54.308661386Z","message":{"role":"assistant",'
    b'"content":" word"},"done":false}\n'
)
LAST = b'{"model":"llama3.2","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n'
BODY = json.dumps({"model": "llama3.2", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()


def native(lines: Iterable[bytes]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return lines

    return app


def through_middleware(
    together: int, items: list[bytes] | None = None, *, least: int = CHUNKS * 100, **fields: Any
) -> Callable[[], object]:
    """A stream through the whole middleware, *together* lines an item."""
    app = OpenAICompat(native(items or [LINE * together] * (CHUNKS // together) + [LAST]))
    data = json.dumps({**json.loads(BODY), **fields}).encode()

    def run() -> None:
        body = app(create_environ("/v1/chat/completions", method="POST", data=data), lambda *head: lambda data: None)
        size = sum(map(len, body))
        body.close()  # type: ignore[attr-defined]
        if size < least:
            raise RuntimeError("the stream was cut")

    return run


def codecs_alone() -> Callable[[], object]:
    """json.loads of each native line, json.dumps of a chunk of the same content."""
    chunk = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1795233594,
        "model": "llama3.2",
        "service_tier": "default",
        "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}],
    }

    def run() -> None:
        for _ in range(CHUNKS):
            content = json.loads(LINE)["message"]["content"]
            choice = {**chunk["choices"][0], "delta": {"content": content}}  # type: ignore[index]
            json.dumps({**chunk, "choices": [choice]}).encode()

    return run


def chunk() -> None:
    cases = {
        "middleware, a line an item": through_middleware(1),
        "middleware, 20 lines an item": through_middleware(20),
        ALONE: codecs_alone(),
    }
    print(f"{CHUNKS} text chunks, {ROUNDS} rounds, CPU µs a chunk")
    measure(cases, CHUNKS, 1e6)


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": PARAMETERS}} for i in range(20)]


def emulated() -> Callable[[], object]:
    """An answer of a model without tools: each line has a piece of a JSON string."""
    pieces = ['{"answer": "', *[" word"] * CHUNKS, '"}']
    lines = [
        json.dumps({"message": {"role": "assistant", "content": piece}, "done": False}).encode() for piece in pieces
    ]
    refusal = b'{"error": "registry.ollama.ai/library/plain:latest does not support tools"}'

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        request = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        if request.get("tools"):
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [refusal]
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return [*[line + b"\n" for line in lines], LAST]

    middleware = OpenAICompat(app)
    data = json.dumps({**json.loads(BODY), "tools": TOOLS}).encode()

    def run() -> None:
        environ = create_environ("/v1/chat/completions", method="POST", data=data)
        body = middleware(environ, lambda *head: lambda data: None)
        size = sum(map(len, body))
        body.close()  # type: ignore[attr-defined]
        if size < CHUNKS * 100:
            raise RuntimeError("the stream was cut")

    return run


def tools() -> None:
    text_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    cases = {
        "without tools": through_middleware(1),
        "with 20 tools": through_middleware(1, tools=TOOLS),
        "with tools and a format, held": through_middleware(1, least=CHUNKS, tools=TOOLS, response_format=text_format),
        "emulated tools": emulated(),
        ALONE: codecs_alone(),
    }
    print(f"{CHUNKS} text chunks, {ROUNDS} rounds, CPU µs a chunk (held text is generated twice)")
    measure(cases, CHUNKS, 1e6)


VECTORS, FLOATS, BATCH = 2048, 1024, 256


def through_embeddings(form: str, batch: bytes) -> Callable[[], object]:
    app = OpenAICompat(native([batch]), embed_batch=BATCH)
    data = json.dumps({"model": "m", "input": ["x"] * VECTORS, "encoding_format": form}).encode()

    def run() -> None:
        body = app(create_environ("/v1/embeddings", method="POST", data=data), lambda *head: lambda data: None)
        if sum(map(len, body)) < VECTORS * FLOATS * 4:
            raise RuntimeError("vectors are missing")

    return run


def embeddings() -> None:
    vectors = [[random.uniform(-1, 1) for _ in range(FLOATS)] for _ in range(BATCH)]
    batch = json.dumps({"embeddings": vectors, "prompt_eval_count": BATCH}).encode()
    cases = {
        "middleware, base64": through_embeddings("base64", batch),
        "middleware, float": through_embeddings("float", batch),
        ALONE: lambda: [json.dumps(json.loads(batch)) for _ in range(VECTORS // BATCH)],
    }
    print(f"{VECTORS} vectors of {FLOATS} floats, {ROUNDS} rounds, CPU ms in all")
    measure(cases, 1, 1e3)


ALONE = "json.loads + json.dumps alone"


def measure(cases: dict[str, Callable[[], object]], count: int, unit: float) -> None:
    """Interleaved rounds, CPU time, median."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, run in cases.items():
            began = time.process_time()
            run()
            spent[name].append((time.process_time() - began) / count * unit)
    floor = statistics.median(spent[ALONE])
    for name, found in spent.items():
        middle = statistics.median(found)
        print(f"  {name:32} {middle:6.2f}   (min {min(found):.2f}, max {max(found):.2f})   x{middle / floor:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=("chunk", "tools", "embeddings", "hostile"))
    {"chunk": chunk, "tools": tools, "embeddings": embeddings, "hostile": hostile}[parser.parse_args().name]()
