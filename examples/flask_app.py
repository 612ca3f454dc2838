"""A Flask app that speaks Ollama's native API: wrapped, it speaks OpenAI's as well.

Whatever makes the words in ``/api/chat`` is the model; here it is the question itself. The middleware calls the app
in this process, so there is no second server. Needs flask; PORT is where it listens, 5000 if not set::

    python examples/flask_app.py
    curl -N http://127.0.0.1:5000/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "Hello there!"}]}'
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from flask import Flask, Response, request

from openai_compat import OpenAICompat

MODEL = {"name": "echo", "model": "echo", "modified_at": "2026-01-01T00:00:00Z", "capabilities": ["completion"]}

app = Flask(__name__)
app.wsgi_app = OpenAICompat(app.wsgi_app)


@app.post("/api/chat")
def chat() -> Response:
    words = request.json["messages"][-1]["content"].split()
    # A generator, so that each line leaves at once. The middleware always asks for a stream.
    return Response(answer(words), content_type="application/x-ndjson")


def answer(words: list[str]) -> Iterator[str]:
    yield line("You said:")
    for word in words:
        yield line(" " + word)
    yield line("", done=True, done_reason="stop", prompt_eval_count=len(words), eval_count=len(words) + 2)


def line(content: str, *, done: bool = False, **end: Any) -> str:
    now = datetime.now(timezone.utc).isoformat()
    message = {"role": "assistant", "content": content}
    return json.dumps({"model": "echo", "created_at": now, "message": message, "done": done, **end}) + "\n"


@app.get("/api/tags")
def tags() -> dict[str, Any]:
    return {"models": [MODEL]}


@app.post("/api/show")
def show() -> Any:
    name = request.json.get("model") or request.json.get("name")
    return MODEL if name == "echo" else ({"error": f"model '{name}' not found"}, 404)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
