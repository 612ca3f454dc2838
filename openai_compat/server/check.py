"""``openai-compat check``: test what a backend is and what works with it."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from werkzeug.test import Client

from openai_compat.errors import APIError
from openai_compat.middleware.app import OpenAICompat
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.server.serve import probe_environ
from openai_compat.settings import Settings
from openai_compat.transport.upstream import Upstream
from openai_compat.transport.urls import redacted
from openai_compat.wire import json

#: what came with which release of Ollama
_SINCE = {
    "/api/embed (embeddings)": (0, 3, 0),
    'truncate: false (overflow="error")': (0, 12, 6),
    "logprobs": (0, 12, 11),
}
_TIMEOUT = (5.0, 300.0, 60.0)


def check(
    url: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    verify: bool | str = True,
    out: TextIO | None = None,
) -> int:
    """Get version and models, stream one small chat through the middleware, and print what worked.

    :param out: where to print; standard output by default.
    :returns: the exit status: 0 if everything worked, else 1.
    """
    out = sys.stdout if out is None else out
    upstream = Upstream(url, timeout=_TIMEOUT, headers=headers, verify=verify)
    backend = Backend(upstream, probe_environ(), Settings(), KnownLimits())
    out.write(f"{redacted(url)}\n")
    with _Reasons() as reasons:
        steps = _Steps(out, reasons.messages)
        _ask(backend, upstream, model, steps)
    return 1 if steps.failed else 0


def _ask(backend: Backend, upstream: Upstream, model: str | None, steps: _Steps) -> None:
    if steps.run("version", lambda: _version(backend)):
        found: list[native.ListedModel] = []
        steps.run("models", lambda: _models(backend, found))
        chosen = model or _choose(backend, found)
        steps.run("chat", lambda: _chat(upstream, chosen) if chosen else _no_model())


class _Steps:
    def __init__(self, out: TextIO, reasons: list[str]) -> None:
        self._out = out
        self._reasons = reasons
        self.failed = False

    def run(self, name: str, step: Callable[[], str]) -> bool:
        try:
            text, worked = step(), True
        except APIError as error:
            text, worked = f"{error.message} ({error.code or error.status})", False
        self.failed |= not worked
        reasons = "" if worked else "".join(f"                  {reason}\n" for reason in self._reasons)
        self._reasons.clear()
        self._out.write(f"  {'ok    ' if worked else 'FAILED'} {name:8} {text}\n{reasons}")
        return worked


class _Reasons(logging.Handler):
    """Collects what the package logs, to print the reason of a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._log = logging.getLogger("openai_compat")

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> _Reasons:
        self._log.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._log.removeHandler(self)


def _version(backend: Backend) -> str:
    version = backend.version().version
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    lacks = []
    if numbers and (release := tuple(map(int, numbers.groups()))) > (0, 0, 0):
        lacks = [what for what, since in _SINCE.items() if release < since]
    return (version or "not given") + (f"; too old for {', '.join(lacks)}" if lacks else "")


def _models(backend: Backend, found: list[native.ListedModel]) -> str:
    found += backend.tags().models or []
    return ", ".join(model.request_name for model in found) or "none"


def _choose(backend: Backend, found: list[native.ListedModel]) -> str | None:
    """Return a loaded model that can chat, else the first that can."""
    names = [model.request_name for model in found if model.can_chat]
    try:
        loaded = {model.request_name for model in backend.loaded().models or []}
    except APIError:  # an Ollama that is too old to tell
        loaded = set()
    return next((name for name in names if name in loaded), next(iter(names), None))


def _no_model() -> str:
    raise APIError(404, "there is no model to chat with", code="model_not_found")


def _chat(upstream: Upstream, model: str) -> str:
    body = {"model": model, "stream": True, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
    began = time.monotonic()
    with Client(OpenAICompat(upstream)).post("/v1/chat/completions", json=body) as response:
        data = response.get_data()
    events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    if response.status_code != 200 or not events or events[-1] != b"[DONE]":
        failure = _decode_failure(events[-1] if response.status_code == 200 and events else data)
        raise APIError(response.status_code, str(failure.error.get("message", "the stream broke off")))
    return f"{model} streamed {len(events) - 1} chunks in {time.monotonic() - began:.2f} s"


class _Failure(native.StreamLine):
    """An error in OpenAI's format."""


_decode_failure = json.native_decoder(_Failure)
