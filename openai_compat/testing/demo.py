"""The demo backend: a WSGI application with Ollama's native API that needs no model.

It is the backend of ``openai-compat serve --demo``, and of ``openai_compat.testing.FakeOllama`` without a script. Every
response but its time is a function of the request, and its text and version name the demo. It behaves like Ollama also
in errors; nothing that Ollama does not do belongs here. What the models say is in ``demo_text.py``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from openai_compat.testing.demo_text import THOUGHT, Json, limited, text_for, tokens_of, tool_calls, written

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: as ``/api/version`` returns it
VERSION = "0.0.0-openai-compat-demo"

#: name of each model → its capabilities, as ``/api/show`` returns them
MODELS = {
    "demo": ["completion", "vision"],
    "demo-think": ["completion", "thinking"],
    "demo-tools": ["completion", "tools"],
    "demo-plain": ["completion"],
    "demo-text": ["completion", "tools"],
    "demo-embed": ["embedding"],
}

#: whose template knows nothing of tools: it leaves calls and results of the history out
_WITHOUT_HISTORY = {"demo-plain"}
#: which writes its calls as text that its server does not parse
_WRITES_CALLS = {"demo-text"}

#: tokens of the context; each word is a token
CONTEXT = 4096
#: numbers of a vector: few, so that it can be read
_DIMENSIONS = 64
#: as large models have, so that a request cannot demand any amount of memory
_MAX_DIMENSIONS = 4096

_WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat().replace("+00:00", "Z")


class Refused(Exception):
    """A native error response: its status, and its text, which is Ollama's where Ollama has this error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Demo:
    """The demo application. It stores nothing between requests."""

    #: as of an ``Upstream``: it has Ollama's paths and no other
    speaks_native_only = True

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, as WSGI defines it."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "") or "/"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            status, content_type, lines = self.answer(method, path, body)
        except Refused as error:
            status, content_type, lines = error.status, _JSON, iter([encode({"error": error.text})])
        start_response(_STATUS[status], [("Content-Type", content_type)])
        return lines if method != "HEAD" else ()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
        """Return the response to a native request: status, content type, and the body, one item a line.

        :raises Refused: the response is a native error.
        """
        if path == "/" and method in ("GET", "HEAD"):
            return 200, "text/plain; charset=utf-8", iter([b"Ollama is running (openai-compat demo)"])
        if path not in _ROUTES:
            return 404, "text/plain", iter([b"404 page not found"])
        verb, function = _ROUTES[path]
        if method != verb and not (method == "HEAD" and verb == "GET"):
            return 405, "text/plain", iter([b"405 method not allowed"])
        try:
            messages = function(_decode(body) if verb == "POST" else {})
        # Requests are not validated field by field: a value of a wrong type ends in one of these.
        except (TypeError, ValueError, AttributeError, SystemError, RecursionError) as error:
            raise Refused(400, f"the demo cannot read this request: {type(error).__name__}") from error
        if isinstance(messages, dict):
            return 200, _JSON, iter([encode(messages)])
        return 200, "application/x-ndjson", (encode(message) + b"\n" for message in messages)


_JSON = "application/json; charset=utf-8"
_STATUS = {
    200: "200 OK",
    400: "400 Bad Request",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    501: "501 Not Implemented",
}


def encode(value: object) -> bytes:
    """Return one line of compact JSON, without a line feed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _decode(body: bytes) -> Json:
    """Return the JSON object of a body.

    :raises Refused: 400 for anything else, with Go's texts.
    """
    if not body:
        raise Refused(400, "missing request body")
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    if not isinstance(request, dict):
        raise Refused(400, "json: cannot unmarshal into Go value of type api.ChatRequest")
    return request


def _model(request: Json) -> str:
    """Return the name of the request's model in :data:`MODELS`.

    :raises Refused: 400 without a name, 404 for an unknown one.
    """
    name = request.get("model") or request.get("name") or ""
    if not name:
        raise Refused(400, "model is required")
    model = str(name).removesuffix(":latest")
    if model not in MODELS:
        raise Refused(404, f"model '{name}' not found")
    return model


# -- generating -------------------------------------------------------------------------------


def _chat(request: Json) -> Json | Iterator[Json]:
    model = _model(request)
    if "completion" not in MODELS[model]:
        raise Refused(400, f'"{model}" does not support chat')
    messages = request.get("messages") or []
    if not messages:
        return _message(request, {"message": {"role": "assistant", "content": ""}, **_end("load")})
    tools = request.get("tools") or []
    if tools and "tools" not in MODELS[model]:
        raise Refused(400, f"registry.ollama.ai/library/{model}:latest does not support tools")
    messages = _seen(model, messages)
    prompt = _checked_prompt(request, " ".join(str(message.get("content", "")) for message in messages))
    last = messages[-1]
    # As in Ollama, a format constrains all output, so that no tool call is generated.
    may_call = last.get("role") != "tool" and not request.get("format")
    calls = tool_calls(tools, str(last.get("content", ""))) if may_call else []
    text = "" if calls else text_for(last, request.get("format"))
    if model in _WRITES_CALLS:
        text, calls = text + written(calls), []
    return _generate(request, model, "message", text, calls, prompt)


def _seen(model: str, messages: list[Json]) -> list[Json]:
    """Return the messages that the model's template writes; at least an empty one."""
    if model not in _WITHOUT_HISTORY:
        return messages
    return [message for message in messages if message.get("role") != "tool"] or [{"role": "user"}]


def _generate_text(request: Json) -> Json | Iterator[Json]:
    model = _model(request)
    if request.get("suffix"):
        raise Refused(400, f"{model} does not support insert")
    if "completion" not in MODELS[model]:
        raise Refused(400, f'"{model}" does not support generate')
    if not request.get("prompt"):
        return _message(request, {"response": "", **_end("load")})
    prompt = _checked_prompt(request, str(request["prompt"]))
    text = text_for({"role": "user", "content": request["prompt"]}, request.get("format"))
    return _generate(request, model, "response", text, [], prompt)


def _generate(request: Json, model: str, key: str, text: str, calls: list[Json], prompt: int) -> Json | Iterator[Json]:
    """Return the response for generated output, or its messages if it is streamed.

    :param key: ``message`` in chat, ``response`` in generate.
    :param prompt: number of tokens of the prompt.
    """
    think = request.get("think")
    if think and "thinking" not in MODELS[model]:
        raise Refused(400, f'"{model}" does not support thinking')
    thinking = THOUGHT if "thinking" in MODELS[model] and think is not False else ""
    tokens, reason = limited(tokens_of(text), request.get("options") or {})
    thoughts = tokens_of(thinking)
    parts: list[Json] = [{"thinking": token} for token in thoughts]
    parts += [{"content": token} for token in tokens]
    parts += [{"tool_calls": [call]} for call in calls]
    end = _end(reason, prompt, len(tokens) + len(thoughts) + len(calls))
    if request.get("stream", True):
        return _stream(request, key, parts, end)
    fields: Json = {"content": "".join(tokens)}
    if thinking:
        fields["thinking"] = thinking
    if calls:
        fields["tool_calls"] = calls
    return _message(request, {**_part(key, fields), **_logprobs(request, [*thoughts, *tokens]), **end})


def _stream(request: Json, key: str, parts: list[Json], end: Json) -> Iterator[Json]:
    for part in parts:
        logprobs = _logprobs(request, [part.get("thinking") or part.get("content") or ""])
        yield _message(request, {**_part(key, part), "done": False, **logprobs})
    yield _message(request, {**_part(key, {}), **end})


def _message(request: Json, fields: Json) -> Json:
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": request.get("model"), "created_at": now, **fields}


def _part(key: str, part: Json) -> Json:
    """Return the fields of a response for generated output, in chat's format (``message``) or generate's."""
    if key == "message":
        return {"message": {"role": "assistant", "content": "", **part}}
    return {"response": part.get("content", ""), **({"thinking": part["thinking"]} if "thinking" in part else {})}


def _end(reason: str, prompt: int = 0, generated: int = 0) -> Json:
    """Return the fields that only a final message has; *prompt* and *generated* are counts of tokens."""
    counts = {"prompt_eval_count": prompt, "eval_count": generated, "total_duration": 1000, "eval_duration": 1000}
    return {"done": True, "done_reason": reason, **(counts if prompt else {})}


def _checked_prompt(request: Json, text: str) -> int:
    """Return the number of tokens of a prompt, at most the context length.

    :raises Refused: 400 for a longer prompt that ``truncate: false`` forbids to cut, with the runner's error.
    """
    count, context = len(text.split()), int((request.get("options") or {}).get("num_ctx") or CONTEXT)
    if count <= context:
        return max(count, 1)
    if request.get("truncate") is not False:
        return context
    message = f"request ({count} tokens) exceeds the available context size ({context} tokens), try increasing it"
    inner = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    raise Refused(400, json.dumps({"error": {**inner, "n_prompt_tokens": count, "n_ctx": context}}))


def _logprobs(request: Json, tokens: list[str]) -> Json:
    """Return ``logprobs`` if the request has it: each token is certain, and has made-up alternatives."""
    if not request.get("logprobs"):
        return {}
    top = int(request.get("top_logprobs") or 0)
    entries = []
    for token in filter(None, tokens):
        entry = {"token": token, "logprob": -0.1, "bytes": list(token.encode())}
        others = [
            {"token": f" other{i}", "logprob": -3.0 - i, "bytes": list(f" other{i}".encode())} for i in range(top)
        ]
        entries.append({**entry, "top_logprobs": [entry, *others][:top]} if top else entry)
    return {"logprobs": entries} if entries else {}


# -- the rest of the native API ---------------------------------------------------------------


def _embed(request: Json) -> Json:
    model = _model(request)
    if "embedding" not in MODELS[model]:
        raise Refused(501, "This server does not support embeddings. Start it with `--embeddings`")
    value = request.get("input", [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "invalid input type")
    size = min(int(request.get("dimensions") or _DIMENSIONS), _MAX_DIMENSIONS)
    vectors = [_vector(text, size) for text in texts]
    return {
        "model": request.get("model"),
        "embeddings": vectors,
        "prompt_eval_count": sum(len(t.split()) for t in texts),
    }


def _vector(text: str, size: int) -> list[float]:
    """Return a vector of length 1, made from a hash of the text."""
    digest = hashlib.shake_256(text.encode()).digest(size)
    values = [(byte - 127.5) / 127.5 for byte in digest]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _tags(request: Json) -> Json:
    return {"models": [{"name": f"{n}:latest", "model": f"{n}:latest", **_described(n)} for n in MODELS]}


def _show(request: Json) -> Json:
    model = _model(request)
    info = {"general.architecture": "demo", "demo.context_length": CONTEXT}
    return {"modelfile": "FROM demo", "model_info": info, **_described(model)}


def _described(model: str) -> Json:
    details = {"format": "none", "family": "demo", "families": ["demo"], "parameter_size": "0"}
    return {"modified_at": _WHEN, "size": 0, "details": details, "capabilities": MODELS[model]}


def _ps(request: Json) -> Json:
    return {"models": []}


def _version(request: Json) -> Json:
    return {"version": VERSION}


#: path → method, and the function that handles the decoded body
_ROUTES: dict[str, tuple[str, Any]] = {
    "/api/chat": ("POST", _chat),
    "/api/generate": ("POST", _generate_text),
    "/api/embed": ("POST", _embed),
    "/api/tags": ("GET", _tags),
    "/api/show": ("POST", _show),
    "/api/ps": ("GET", _ps),
    "/api/version": ("GET", _version),
}
