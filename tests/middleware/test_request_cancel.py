"""One cancel per request ends every native call of it, whichever endpoint made it, at once and for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from werkzeug.test import create_environ

from openai_compat import OpenAICompat, Settings, Upstream
from openai_compat.endpoints import audio, chat, completions, embeddings, models
from openai_compat.endpoints.contract import Call, EventStream
from openai_compat.errors import APIError
from openai_compat.middleware.responder import new_id
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel
from tests.chaos import FIN, WAIT, Chaos, answer

#: the head and one line, then nothing
SILENT_AFTER_A_LINE = answer(say("a"), FIN)[:-1]

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
Endpoint = Callable[[Call, Backend], Any]
Case = tuple[Endpoint, dict[str, Any], Mapping[str, str]]

CASES: dict[str, Case] = {
    "chat": (chat.create, CHAT, {}),
    "chat, streamed": (chat.create, {**CHAT, "stream": True}, {}),
    "three choices": (chat.create, {**CHAT, "n": 3}, {}),
    "three choices, streamed": (chat.create, {**CHAT, "n": 3, "stream": True}, {}),
    "completions": (completions.create, {"model": "demo", "prompt": ["a", "b"]}, {}),
    "embeddings": (embeddings.create, {"model": "demo", "input": ["a", "b"]}, {}),
    "models": (models.list_all, {}, {}),
    "a model": (models.retrieve, {}, {"model": "demo"}),
    "deleting a model": (models.delete, {}, {"model": "demo"}),
    "audio": (audio.transcribe, {"model": "demo"}, {}),
    "audio, streamed": (audio.transcribe, {"model": "demo", "stream": "true"}, {}),
}
cases = pytest.mark.parametrize("case", CASES)


def call(body: dict[str, Any], path: Mapping[str, str], endpoint: Endpoint) -> Call:
    data, content_type = json.dumps(body).encode(), "application/json"
    if endpoint is audio.transcribe:
        form = {**body, "file": (BytesIO(b"RIFF"), "a.wav")}
        environ = create_environ("/", method="POST", data=form)
        data, content_type = environ["wsgi.input"].read(), environ["CONTENT_TYPE"]
    return Call(
        body=data,
        path=path,
        settings=Settings(embed_batch=1, delete_models=True),
        now=0,
        new_id=new_id,
        content_type=content_type,
    )


def run(case: str, app: Any, cancel: Cancel) -> Any:
    """Answer a request, a stream to its end."""
    endpoint, body, path = CASES[case]
    found = call(body, path, endpoint)
    reply = endpoint(found, Backend(app, create_environ(), found.settings, KnownLimits(), cancel))
    if isinstance(reply, EventStream):
        try:
            for _ in reply.events:
                pass
        finally:
            reply.source.close()
    return reply


@contextmanager
def in_thread(case: str, app: Any, cancel: Cancel) -> Iterator[Callable[[], Any]]:
    """Answer a request in a thread; gives what waits for its end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, case, app, cancel)
        yield lambda: future.result(timeout=WAIT / 2)


def upstream(server: Chaos) -> Upstream:
    return Upstream(server.url, timeout=10 * WAIT)


@cases
def test_f4_it_ends_a_wait_for_the_head(server: Chaos, case: str) -> None:
    for _ in range(3):
        server.script(b"")
    cancel = Cancel()
    with in_thread(case, upstream(server), cancel) as result:
        server.heads.get(timeout=WAIT)
        cancel.set()
        with pytest.raises(APIError) as raised:
            result()
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")


@pytest.mark.parametrize("case", [case for case in CASES if "chat" in case or "choices" in case or "audio" in case])
def test_f41_it_ends_a_silence_in_the_middle(server: Chaos, case: str) -> None:
    for _ in range(3):
        server.script(*SILENT_AFTER_A_LINE)
    cancel = Cancel()
    with in_thread(case, upstream(server), cancel) as result:
        server.heads.get(timeout=WAIT)
        cancel.set()
        with pytest.raises(APIError) as raised:
            result()
    assert raised.value.status == 502


@cases
def test_once_set_it_lets_no_call_begin(case: str) -> None:
    for app in (FakeOllama(), Remote()):
        cancel = Cancel()
        cancel.set()
        with pytest.raises(APIError) as raised:
            run(case, app, cancel)
        assert raised.value.status == 502
        assert app.requests == []


class Remote(FakeOllama):
    """A fake that several calls reach at once, each in a thread."""

    is_remote = True


@pytest.mark.parametrize("case", ["three choices", "three choices, streamed", "completions", "embeddings"])
def test_set_between_two_calls_the_second_is_not_made(case: str) -> None:
    class Cancelling(FakeOllama):
        def __call__(self, environ: Any, start_response: Any) -> Any:
            found = super().__call__(environ, start_response)
            cancel.set()
            return found

    cancel, fake = Cancel(), Cancelling()
    for path, lines in (("/api/chat", [say("a"), done()]), ("/api/embed", [{"embeddings": [[0.5]]}])):
        fake.script(path, *lines)
    with pytest.raises(APIError):
        run(case, fake, cancel)
    assert len(fake.requests) == fake.closed == 1


@pytest.mark.parametrize("n", [1, 3])
def test_f41_a_server_that_closes_a_stream_ends_its_calls(server: Chaos, n: int) -> None:
    for _ in range(n):
        server.script(*SILENT_AFTER_A_LINE)
    app = OpenAICompat(upstream(server))
    environ = create_environ("/v1/chat/completions", method="POST", json={**CHAT, "n": n, "stream": True})
    body: Any = app(environ, lambda *head: lambda data: None)
    next(iter(body))
    body.close()
    assert sorted(server.gone.get(timeout=WAIT) for _ in range(n)) == list(range(1, n + 1))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("openai-compat-")]
