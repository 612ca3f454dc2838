"""The demo backend: it answers, streams, thinks, calls tools and embeds without a model, always in the same way.

A WSGI application that speaks Ollama's native API, for use without an Ollama (``openai-compat serve --demo``) and
inside ``openai_compat.testing.FakeOllama``. Every answer is a function of the request; answers and version say that
they come from the demo.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

VERSION = "0.0.0-openai-compat-demo"

#: what each model can do, as ``/api/show`` says it
MODELS = {
    "demo": ["completion", "vision"],
    "demo-think": ["completion", "thinking"],
    "demo-tools": ["completion", "tools"],
    "demo-embed": ["embedding"],
}

#: tokens; a token of the demo is a word
CONTEXT = 4096
_DIMENSIONS = 64
_MAX_DIMENSIONS = 4096

# What a schema may make of the demo: values in all, levels, items of an array.
_MAX_VALUES = 1000
_MAX_PATH = 64
_MAX_ITEMS = 16

_WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat().replace("+00:00", "Z")

Json = dict[str, Any]


class Refused(Exception):
    """A native error: a status, and Ollama's text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Demo:
    """The demo application. It stores nothing between requests."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "") or "/"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            status, content_type, lines = self.answer(method, path, body)
        except Refused as error:
            status, content_type, lines = error.status, _JSON, iter([encode({"error": error.text})])
        start_response(_STATUS[status], [("Content-Type", content_type)])
        return lines if method != "HEAD" else ()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
        """Answer one native request; return status, content type, and the body, one line an item.

        :raises Refused: a native error.
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
    """Return one line of compact JSON, without its line end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _decode(body: bytes) -> Json:
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
    prompt = _checked_prompt(request, " ".join(str(message.get("content", "")) for message in messages))
    last = messages[-1]
    # As in Ollama, a format applies at once: what it does not admit is not written, and so no call.
    may_call = last.get("role") != "tool" and not request.get("format")
    calls = _tool_calls(tools, str(last.get("content", ""))) if may_call else []
    text = "" if calls else _text(request, last)
    return _generate(request, model, "message", text, calls, prompt)


def _generate_text(request: Json) -> Json | Iterator[Json]:
    model = _model(request)
    if request.get("suffix"):
        raise Refused(400, f"{model} does not support insert")
    if "completion" not in MODELS[model]:
        raise Refused(400, f'"{model}" does not support generate')
    if not request.get("prompt"):
        return _message(request, {"response": "", **_end("load")})
    prompt = _checked_prompt(request, str(request["prompt"]))
    text = _text(request, {"role": "user", "content": request["prompt"]})
    return _generate(request, model, "response", text, [], prompt)


def _generate(request: Json, model: str, key: str, text: str, calls: list[Json], prompt: int) -> Json | Iterator[Json]:
    think = request.get("think")
    if think and "thinking" not in MODELS[model]:
        raise Refused(400, f'"{model}" does not support thinking')
    thinking = "The demo pretends to think about it." if "thinking" in MODELS[model] and think is not False else ""
    tokens, reason = _limited(_tokens(text), request.get("options") or {})
    thoughts = _tokens(thinking)
    parts: list[Json] = [{"thinking": token} for token in thoughts]
    parts += [{"content": token} for token in tokens]
    parts += [{"tool_calls": [call]} for call in calls]
    end = _end(reason, prompt, len(tokens) + len(thoughts) + len(calls))
    if request.get("stream", True):
        return _stream(request, key, parts, end)
    whole = {"content": "".join(tokens)}
    if thinking:
        whole["thinking"] = thinking
    logprobs = _logprobs(request, [*thoughts, *tokens])
    return _message(request, {**_part(key, whole | ({"tool_calls": calls} if calls else {})), **logprobs, **end})


def _stream(request: Json, key: str, parts: list[Json], end: Json) -> Iterator[Json]:
    for part in parts:
        logprobs = _logprobs(request, [part.get("thinking") or part.get("content") or ""])
        yield _message(request, {**_part(key, part), "done": False, **logprobs})
    yield _message(request, {**_part(key, {}), **end})


def _message(request: Json, rest: Json) -> Json:
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": request.get("model"), "created_at": now, **rest}


def _part(key: str, part: Json) -> Json:
    """Return a part of an answer in the format of chat (``message``) or generate (``response``)."""
    if key == "message":
        return {"message": {"role": "assistant", "content": "", **part}}
    return {"response": part.get("content", ""), **({"thinking": part["thinking"]} if "thinking" in part else {})}


def _end(reason: str, prompt: int = 0, made: int = 0) -> Json:
    counts = {"prompt_eval_count": prompt, "eval_count": made, "total_duration": 1000, "eval_duration": 1000}
    return {"done": True, "done_reason": reason, **(counts if prompt else {})}


def _text(request: Json, last: Json) -> str:
    form = request.get("format")
    if isinstance(form, dict):
        return json.dumps(instance(form), ensure_ascii=False)
    if form == "json":
        return '{"backend": "openai-compat demo"}'
    text = str(last.get("content", ""))
    if last.get("role") == "tool":
        return f"This is the openai-compat demo, not a model. The tool said: {text}"
    images = f" You sent {len(last['images'])} image(s)." if last.get("images") else ""
    return f"This is the openai-compat demo, not a model. You said: {text}{images}"


def _tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _limited(tokens: list[str], options: Json) -> tuple[list[str], str]:
    """Apply ``stop`` and ``num_predict``."""
    text, reason = "".join(tokens), "stop"
    ends = [text.find(stop) for stop in options.get("stop") or [] if stop and stop in text]
    if ends:
        tokens = _tokens(text[: min(ends)])
    limit = options.get("num_predict") or -1
    if 0 < limit < len(tokens):
        tokens, reason = tokens[:limit], "length"
    return tokens, reason


def _checked_prompt(request: Json, text: str) -> int:
    """Return the tokens of the prompt: cut to the context length, or refused, as the request says."""
    count, context = len(text.split()), int((request.get("options") or {}).get("num_ctx") or CONTEXT)
    if count <= context:
        return max(count, 1)
    if request.get("truncate") is not False:
        return context
    message = f"request ({count} tokens) exceeds the available context size ({context} tokens), try increasing it"
    inner = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    raise Refused(400, json.dumps({"error": {**inner, "n_prompt_tokens": count, "n_ctx": context}}))


def _logprobs(request: Json, tokens: list[str]) -> Json:
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


def _tool_calls(tools: list[Json], text: str) -> list[Json]:
    """Return one call: of the tool whose name is in the text, else of the first."""
    functions = [tool.get("function", {}) for tool in tools]
    if not functions:
        return []
    chosen = next((function for function in functions if function.get("name", "") in text), functions[0])
    made = instance(chosen.get("parameters") or {"type": "object"})
    arguments = made if isinstance(made, dict) else {}
    digest = hashlib.sha256(encode([chosen.get("name"), arguments, text])).hexdigest()
    return [{"id": f"call_{digest[:8]}", "function": {"index": 0, "name": chosen.get("name"), "arguments": arguments}}]


def instance(schema: Any) -> Any:
    """Return a small value that a JSON Schema admits, for common schemas.

    A circular reference becomes null, and so does every value after the first thousand.
    """
    return _instance(schema, schema, (), [_MAX_VALUES])


def _instance(schema: Any, root: Any, path: tuple[str, ...], left: list[int]) -> Any:
    left[0] -= 1
    if not isinstance(schema, dict) or len(path) > _MAX_PATH or left[0] < 0:
        return None
    if "$ref" in schema:
        name = str(schema["$ref"])
        return None if name in path else _instance(_referred(name, root), root, (*path, name), left)
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            return _instance(schema[word][0], root, (*path, word), left)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner = (schema.get("properties") or {}).items()
        return {key: _instance(value, root, (*path, "properties"), left) for key, value in inner}
    if kind == "array":
        count = min(max(1, schema.get("minItems", 1)), _MAX_ITEMS)
        return [_instance(schema.get("items") or {}, root, (*path, "items"), left)] * count
    return {"integer": 1, "number": 1.5, "boolean": True, "null": None}.get(kind, "demo")


def _referred(name: str, root: Any) -> Any:
    return (root.get("$defs") or {}).get(name.rsplit("/", 1)[-1])


# -- the rest of the native API ---------------------------------------------------------------


def _embed(request: Json) -> Json:
    model = _model(request)
    if "embedding" not in MODELS[model]:
        raise Refused(501, "This server does not support embeddings. Start it with `--embeddings`")
    given = request.get("input", [])
    texts = [given] if isinstance(given, str) else given
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


_ROUTES: dict[str, tuple[str, Any]] = {
    "/api/chat": ("POST", _chat),
    "/api/generate": ("POST", _generate_text),
    "/api/embed": ("POST", _embed),
    "/api/tags": ("GET", _tags),
    "/api/show": ("POST", _show),
    "/api/ps": ("GET", _ps),
    "/api/version": ("GET", _version),
}
