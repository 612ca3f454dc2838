"""``openai-compat check``: test an Ollama with a few native requests and one chat through the middleware.

Each step prints one line. A step does not change the backend and takes few tokens.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TextIO

from werkzeug.test import Client

from openai_compat.errors import APIError
from openai_compat.middleware.app import OpenAICompat
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.server.serve import chat_models, probe_environ, warn_insecure
from openai_compat.settings import Settings
from openai_compat.transport.upstream import Upstream
from openai_compat.transport.urls import redacted
from openai_compat.wire import json

#: features that the middleware needs → the release of Ollama that added each
_SINCE = {
    "/api/embed (embeddings)": (0, 3, 0),
    'truncate: false (overflow="error")': (0, 12, 6),
    "logprobs": (0, 12, 11),
}
#: seconds to connect, until the head, and between reads: a large model takes minutes to load
_TIMEOUT = (5.0, 300.0, 60.0)
#: seconds for looking up which models can chat
_LOOK_UP = 10.0
#: models that are chatted with at most, while each refuses to chat
_MAX_TRIES = 5


def check(
    url: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    verify: bool | str = True,
    proxies: Mapping[str, str] | None = None,
    out: TextIO | None = None,
) -> int:
    """Test an Ollama and print which steps worked: its version, its models, and a small streamed chat.

    :param model: the model to chat with; by default a loaded one, or the first that can chat.
    :param headers: sent with every native request.
    :param verify: check certificates; or the path of a bundle to check them with.
    :param proxies: HTTP proxies of native requests, by scheme.
    :param out: standard output by default.
    :returns: the exit status: 0 if every step worked, otherwise 1.
    """
    out = sys.stdout if out is None else out
    if verify is False:
        warn_insecure()
    upstream = Upstream(url, timeout=_TIMEOUT, headers=headers, verify=verify, proxies=proxies)
    backend = Backend(upstream, probe_environ(), Settings(), KnownLimits())
    out.write(f"{redacted(url)}\n")
    with _Warnings() as warnings:
        steps = _Steps(out, warnings.messages)
        _run_steps(backend, upstream, model, steps)
    return 1 if steps.failed else 0


def _run_steps(backend: Backend, upstream: Upstream, model: str | None, steps: _Steps) -> None:
    if steps.run("version", lambda: _version(backend)):
        models: list[native.ListedModel] = []
        steps.run("models", lambda: _models(backend, models))
        names = iter((model,)) if model else _candidates(backend, models)
        steps.run("chat", lambda: _chat_with_one(upstream, names))


class _Steps:
    """The steps of a check.

    :param warnings: messages that were logged during a step; they are printed below a failure, and removed.
    """

    def __init__(self, out: TextIO, warnings: list[str]) -> None:
        self._out = out
        self._warnings = warnings
        self.failed = False

    def run(self, name: str, step: Callable[[], str]) -> bool:
        """Run a step, print the text that it returns or the error that it raises, and return whether it worked."""
        try:
            text, worked = step(), True
        except APIError as error:
            text, worked = f"{error.message} ({error.code or error.status})", False
        self.failed |= not worked
        reasons = "" if worked else "".join(f"                  {warning}\n" for warning in self._warnings)
        self._warnings.clear()
        self._out.write(f"  {'ok    ' if worked else 'FAILED'} {name:8} {text}\n{reasons}")
        return worked


class _Warnings(logging.Handler):
    """A collector of the warnings that the package logs: the client's error text leaves out the reason of a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._log = logging.getLogger("openai_compat")

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> _Warnings:
        self._log.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._log.removeHandler(self)


def _version(backend: Backend) -> str:
    """Return the version, and the features that it lacks; a server with the routes that chats need may not tell it."""
    try:
        version = backend.version().version
    except APIError as error:
        if error.status != 404 and error.code != "backend_not_ollama":
            raise
        version = ""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    lacks = []
    # Builds from source, and other servers with this API, have the version 0.0.0.
    if numbers and (release := tuple(map(int, numbers.groups()))) > (0, 0, 0):
        lacks = [feature for feature, since in _SINCE.items() if release < since]
    return (version or "unknown") + (f"; too old for {', '.join(lacks)}" if lacks else "")


def _models(backend: Backend, models: list[native.ListedModel]) -> str:
    """Return the names of all models, and add the models to the list."""
    models += backend.tags().models or []
    return ", ".join(model.request_name for model in models) or "none"


def _candidates(backend: Backend, models: list[native.ListedModel]) -> Iterator[str]:
    """Yield the models that can chat, those that are loaded first."""
    try:
        loaded = {model.request_name for model in backend.loaded().models or []}
    except APIError:  # an old Ollama does not have this route
        loaded = set()
    in_order = sorted(models, key=lambda model: model.request_name not in loaded)
    return chat_models(backend, in_order, seconds=_LOOK_UP)


def _chat_with_one(upstream: Upstream, names: Iterator[str]) -> str:
    """Chat with the first model; with the next one where that cannot chat, which an old server does not list.

    :raises APIError: the failure of the first model, if all fail.
    """
    failure = APIError(404, "There is no model that can chat.", code="model_not_found")
    for tried, name in enumerate(islice(names, _MAX_TRIES)):
        try:
            return _chat(upstream, name)
        except APIError as error:
            failure = failure if tried else error
            if error.status != 400:
                break
    raise failure


def _chat(upstream: Upstream, model: str) -> str:
    """Stream a short chat through the middleware and return what was received.

    :raises APIError: the error response, or the error event that ends the stream.
    """
    body = {"model": model, "stream": True, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
    began = time.monotonic()
    with Client(OpenAICompat(upstream)).post("/v1/chat/completions", json=body) as response:
        data = response.get_data()
    events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    if response.status_code != 200 or not events or events[-1] != b"[DONE]":
        failure = _decode_failure(events[-1] if response.status_code == 200 and events else data)
        raise APIError(response.status_code, str(failure.error.get("message", "The stream broke off.")))
    return f"{model} streamed {len(events) - 1} chunks in {time.monotonic() - began:.2f} s"


class _Failure(native.StreamLine):
    """An error response in OpenAI's format."""


_decode_failure = json.native_decoder(_Failure)
