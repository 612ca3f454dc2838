"""Native errors, translated into the errors that the client sees.

Ollama reports an error as one string, which may itself be JSON of the model runner. The tables here map strings to
statuses, codes and parameters. The client sees the string, cut to 500 characters, only where the body was JSON.

Source: ollama ``middleware/openai.go`` ``BaseWriter.writeError``, ``openai/openai.go`` ``NewError``.
"""

from __future__ import annotations

import re
from http.client import responses
from typing import Any

from msgspec import UNSET, Struct

from openai_compat.errors import MAX_TEXT, APIError, bad_gateway, overloaded
from openai_compat.log import log
from openai_compat.transport.side_channel import refused_credentials
from openai_compat.wire import json

#: bytes that are logged of a body that is not JSON (F15): enough to recognise the error page of a proxy
_LOGGED = 200


class _Failure(Struct):
    """A native error, of Ollama itself or of the model runner behind it."""

    error: Any = UNSET
    #: proxies to remote models add it
    Status: Any = None
    message: Any = None
    code: Any = None
    n_prompt_tokens: Any = None
    n_ctx: Any = None


_decode = json.native_decoder(_Failure)

#: part of the text of a native 4xx → the request field that is not valid
_FAULTS = (
    ("model is required", "model"),
    ("does not support tools", "tools"),
    ("does not support thinking", "reasoning_effort"),
    ("invalid think value", "think"),
    ("does not support chat", "model"),
    ("does not support generate", "model"),
    ("does not support embeddings", "model"),
    ("does not support insert", "suffix"),
    ("json schema", "response_format"),
    ("invalid format:", "response_format"),
    ("invalid duration", "keep_alive"),
    ("multimodal", "messages"),
    ("image", "messages"),
)

#: native 5xx that are caused by the request, and are a 400 for the client
_CLIENTS_MISTAKE = re.compile(r"option \"([^\"]*)\" must be of type|does not support embeddings", re.I)
_OVERFLOW = re.compile(
    r"exceeds the (available )?context|longer than the context length|input \(\d+ tokens\) is too large to process",
    re.I,
)

#: the field of OpenAI's request that holds the prompt of a native call
_PROMPTS = {"POST /api/generate": "prompt", "POST /api/embed": "input"}


def from_status(
    status: int, body: bytes, model: str | None = None, *, operation: str = "", retry_after: str = ""
) -> APIError:
    """Translate a native response whose status is not 200.

    :param model: the client's name for the model, for the text of a 404.
    :param operation: method and path, such as ``POST /api/chat``, for the log and the name of the invalid field.
    :param retry_after: the response's ``Retry-After``, ``""`` without one.
    """
    failure = _read(body)
    if failure is None or (status == 404 and failure.error is UNSET):  # Ollama's 404 has an error
        log.warning("the backend answered %s with %d and no JSON body: %r", operation, status, body[:_LOGGED])
        error = _not_json(status)
    else:
        error = _translate(status, failure, model, operation)
    if error.status in (429, 503) and _RETRY_AFTER.fullmatch(retry_after.strip()):
        error.headers = (("Retry-After", retry_after.strip()),)
    return error


#: seconds, or a date
_RETRY_AFTER = re.compile(r"[0-9]{1,6}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT")


def from_line(error: Any, *, model: str | None = None, operation: str = "") -> APIError:
    """Translate an error line of a native stream: like a native 500, since the status was 200 already."""
    return _translate(500, _Failure(error=error), model, operation)


def unreadable(body: bytes, *, operation: str = "") -> APIError:
    """Translate a 200 whose body could not be decoded as the expected response."""
    failure = _read(body)
    if failure is not None and failure.error is not UNSET:
        return _translate(500, failure, None, operation)
    log.error("the backend answered 200 with a body that is not a native response: %r", body[:_LOGGED])
    return bad_gateway()


def _read(body: bytes) -> _Failure | None:
    """Return the error that a body holds; None if it holds none."""
    try:
        failure = _decode(body)
    except json.Malformed:
        return None
    return failure if failure.error is not UNSET or isinstance(failure.message, str) else None


def _not_json(status: int) -> APIError:
    """Return the error for a status whose body is not a native error; the client sees nothing of the body."""
    if status == 503:
        return _busy("The backend is busy.")
    if status == 429:
        return APIError(429, "The backend received too many requests.", code="rate_limit_exceeded")
    if status in (404, 405):
        return not_ollama()
    if status == 504:
        return APIError(504, "The backend took too long.", code="upstream_timeout", retry=False)
    if status == 413:
        return APIError(413, "The request is larger than the backend accepts.", code="request_too_large")
    if 400 <= status < 500 and status in responses and status not in _GATEWAYS_OWN:
        return APIError(status, f"The backend refused the request with status {status}.", code="upstream_refused")
    retry = False if status == 500 else None
    return APIError(502, f"The backend failed with status {status}.", code="upstream_error", retry=retry)


#: statuses of a proxy that concern the gateway's own connection, credentials and time, and not the client's request
_GATEWAYS_OWN = (401, 402, 403, 407, 408, 425, 499)


def not_ollama() -> APIError:
    """Return the error for a server that does not speak Ollama's native API, or lacks this part of it."""
    log.error("the backend does not seem to speak Ollama's native API; to wrap a site, set `upstream=` to an Ollama")
    return APIError(502, "The backend is not an Ollama.", code="backend_not_ollama", retry=False)


def _translate(status: int, failure: _Failure, model: str | None, operation: str) -> APIError:
    """Return the client's error: a status of the runner, as ``code``, replaces the 5xx around it."""
    inner = _unwrap(failure)
    text, code = _text(inner), inner.code
    if isinstance(failure.Status, str) and failure.Status:
        text = f"{failure.Status}: {text}"[:MAX_TEXT]
    if status >= 500 and isinstance(code, int) and 400 <= code < 500:
        status = code
    if status in (401, 403, 407):
        return refused_credentials()
    if status == 499 or (status not in responses and status < 500):
        status = 502 if status == 499 else 400
    prompt = _PROMPTS.get(operation, "messages")
    if _OVERFLOW.search(text):
        return _overflow(inner, text, prompt)
    mistake = _CLIENTS_MISTAKE.search(text)
    if mistake and status >= 500:
        return APIError(400, text, param=f"options.{mistake[1]}" if mistake[1] else "model", code="invalid_value")
    if status < 500 and "invalid model name" in text.lower():
        return model_not_found(model, text)
    if status == 404 and "not found" in text.lower():
        return model_not_found(model, text) if model else not_ollama()
    if status == 503:
        return _busy(text)
    if status == 429:
        return APIError(429, text, code="rate_limit_exceeded")
    if 400 <= status < 500:
        return APIError(status, text, param=_param(text, prompt))
    if status == 504:
        return APIError(504, text, code="upstream_timeout", retry=False)
    if is_unparsable_output(text):
        return UnparsableOutput(text, _whole_text(inner))
    return APIError(502, text, code="upstream_error", retry=False if status == 500 else None)


#: what Ollama's parsers of tool calls say. Source: ollama ``model/parsers``, ``harmony`` (at fb3076099)
_UNPARSABLE = re.compile(
    r"(error|failed|unable|cannot|could not) (while )?(to )?pars(e|ing)|parse error|invalid character '.*' |"
    r"unexpected end of JSON|(unmarshal|decode|malformed|invalid) .*(tool call|arguments|JSON)|"
    r"XML syntax error|expected element type|tool call pars|\A(EOF|invalid format)\Z|"
    r"incomplete .{0,40}tool call|expected '.*' (prefix|in tool call)|"
    r"invalid (function call|argument format|object entry|argument: (expected|empty|missing|unterminated))|"
    r"empty .{0,40}(function|argument|tool call) ?name|tool ['\"].*['\"] (not found|is not declared)|"
    r"failed to produce valid JSON|undeclared .{0,40}function|parse .{0,40}call to |does not match ATEM|"
    r"(missing|malformed|unterminated) ATEM|mismatched arg_key|required argument .* is missing|"
    r"no tool calls? found|unterminated string|no matching closing",
    re.I | re.S,
)
#: what else cannot be parsed is part of the request, and will not be better the next time
_OF_THE_REQUEST = re.compile(r"grammar|schema|image|template|yaml|request body", re.I)
#: what a model wrote, quoted in an error; the end of the quote may be cut
_QUOTED = re.compile(r"raw='.*|\"(?:[^\"\\]|\\.)*(?:\"|\\?\Z)", re.S)


def is_unparsable_output(text: str) -> bool:
    """Return whether a native error says that the model's output, such as a tool call, could not be parsed."""
    return bool(_UNPARSABLE.search(text)) and not _OF_THE_REQUEST.search(_QUOTED.sub("", text))


class UnparsableOutput(APIError):
    """A model wrote something that Ollama could not parse; it may write it well the next time.

    :param text: the whole native error, which may quote what the model wrote.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(502, message, code="upstream_error")
        self.text = text


def refuses_tools(error: APIError) -> bool:
    """Return whether a native error says that the model has no tools."""
    return error.status == 400 and "does not support tools" in error.message


def model_not_found(model: str | None, text: str = "") -> APIError:
    """Return OpenAI's 404 for a model, with Ollama's own text after it."""
    message = f"The model `{(model or '')[:MAX_TEXT]}` does not exist or you do not have access to it."
    return APIError(404, f"{message} {text}".strip(), code="model_not_found")


def _unwrap(failure: _Failure) -> _Failure:
    """Follow ``error`` through objects and JSON in strings to the innermost error."""
    # Ollama, a proxy and the runner may each wrap an error; deeper ones are not followed.
    for _ in range(4):
        error = failure.error
        if isinstance(error, dict):
            error = json.encode(error).decode()
        if not isinstance(error, str) or not error.lstrip().startswith("{"):
            break
        try:
            inner = _decode(error.encode())
        except json.Malformed:
            break
        if inner.error is UNSET and not isinstance(inner.message, str):
            break
        failure = inner
    return failure


def _text(failure: _Failure) -> str:
    return _whole_text(failure)[:MAX_TEXT]


def _whole_text(failure: _Failure) -> str:
    text = failure.error if isinstance(failure.error, str) else failure.message
    return text if isinstance(text, str) and text.strip() else "The backend failed and did not say why."


def _busy(text: str) -> APIError:
    return overloaded(text)


class ContextOverflow(APIError):
    """A prompt is longer than the context.

    :param prompt_tokens: its length; None where the backend does not say it.
    """

    def __init__(self, message: str, param: str, prompt_tokens: int | None) -> None:
        super().__init__(400, message, param=param, code="context_length_exceeded")
        self.prompt_tokens = prompt_tokens


def _overflow(failure: _Failure, text: str, param: str) -> APIError:
    """Return OpenAI's error for a prompt that is too long.

    :param param: the request field that holds the prompt.
    """
    # OpenAI's exact text: Codex, Cline and LangChain search for it.
    context, prompt = failure.n_ctx, failure.n_prompt_tokens
    batch = _BATCH.search(text)  # an embedding model reads its input as one batch
    if batch:
        prompt, context = int(batch[1]), int(batch[2])
    if isinstance(context, int) and isinstance(prompt, int):
        message = (
            f"This model's maximum context length is {context} tokens. However, your {param} resulted in "
            f"{prompt} tokens. Please reduce the length of the {param}."
        )
    else:
        verb = "exceed" if param == "messages" else "exceeds"
        message = f"Your {param} {verb} this model's maximum context length. Please reduce the length of the {param}."
    return ContextOverflow(message, param, prompt if isinstance(prompt, int) else None)


_BATCH = re.compile(r"input \((\d{1,15}) tokens\) is too large to process.*?batch size: (\d{1,15})", re.I | re.S)


def _param(text: str, prompt: str) -> str | None:
    lowered = text.lower()
    found = next((param for part, param in _FAULTS if part in lowered), None)
    return prompt if found == "messages" else found
