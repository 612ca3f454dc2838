"""One cancel per request ends every native call of it, whichever endpoint made it, at once and for good."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from werkzeug.test import Client, create_environ, run_wsgi_app

from openai_compat import OpenAICompat, Settings, Upstream
from openai_compat.endpoints import audio, chat, completions, embeddings, models
from openai_compat.endpoints.contract import Answer, Call, EventStream
from openai_compat.errors import APIError
from openai_compat.middleware.responder import new_id
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL
from tests.chaos import FIN, WAIT, Chaos, Request, Step, answer
from tests.contract import frames
from tests.generation.streams import beside, ours
from tests.transport.gateways import line

MODEL = {"name": "demo", "model": "demo", "modified_at": "2026-01-01T00:00:00Z", "capabilities": ["completion"]}
TEXT = ({"response": "a", "done": False}, {**done(), "response": ""})
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
MULTIPART = "multipart/form-data; boundary=B"


@dataclass(frozen=True)
class Case:
    """A request that an endpoint answers, and the lines of a good native response to it."""

    endpoint: Callable[[Call, Backend], Any]
    route: str
    lines: tuple[dict[str, Any], ...] = (say("a"), done())
    fields: dict[str, Any] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    #: native calls that run at the same time
    at_once: int = 1

    @property
    def is_stream(self) -> bool:
        return bool(self.fields.get("stream"))

    @property
    def body(self) -> bytes:
        fields = {"model": "demo", **self.fields}
        if self.endpoint is not audio.transcribe:
            return json.dumps(fields).encode()
        parts = [f'name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
        parts.append('name="file"; filename="a.wav"\r\n\r\nRIFF')
        data = "".join(f"--B\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
        return data.encode() + b"--B--\r\n"

    @property
    def content_type(self) -> str:
        return MULTIPART if self.endpoint is audio.transcribe else "application/json"

    def silent(self) -> list[Step]:
        """A native answer of which the first half arrives."""
        first = self.lines[0] if len(self.lines) > 1 else line(self.lines[0])[:10]
        return answer(first, FIN)[:-1]


CHATS, TEXTS, AUDIO = "/v1/chat/completions", "/v1/completions", "/v1/audio/transcriptions"
CASES = {
    "chat": Case(chat.create, CHATS, fields=CHAT),
    "chat, streamed": Case(chat.create, CHATS, fields={**CHAT, "stream": True}),
    "three choices": Case(chat.create, CHATS, fields={**CHAT, "n": 3}, at_once=3),
    "three choices, streamed": Case(chat.create, CHATS, fields={**CHAT, "n": 3, "stream": True}, at_once=3),
    "completions": Case(completions.create, TEXTS, TEXT, {"prompt": ["a", "b"]}, at_once=2),
    "completions, streamed": Case(completions.create, TEXTS, TEXT, {"prompt": ["a", "b"], "stream": True}, at_once=2),
    "embeddings": Case(embeddings.create, "/v1/embeddings", ({"embeddings": [[0.5]]},), {"input": ["a", "b"]}),
    "models": Case(models.list_all, "/v1/models", ({"models": [MODEL]},), method="GET"),
    "a model": Case(models.retrieve, "/v1/models/demo", (MODEL,), path={"model": "demo"}, method="GET"),
    "deleting a model": Case(models.delete, "/v1/models/demo", ({},), path={"model": "demo"}, method="DELETE"),
    "audio": Case(audio.transcribe, AUDIO),
    "audio, streamed": Case(audio.transcribe, AUDIO, fields={"stream": "true"}),
}
STREAMS = [name for name, case in CASES.items() if case.is_stream]
SETTINGS = Settings(embed_batch=1, delete_models=True, retry_strict=True)

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
#: the response to a DELETE is its head: what follows is not read
cases_with_body = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.method != "DELETE"], ids=[n for n in CASES if "deleting" not in n]
)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = ours()
    yield
    assert [thread for thread in ours() if thread not in before] == []


def run(case: Case, app: Any, cancel: Cancel) -> Any:
    """Answer a request as the middleware does, a stream to its end, with a cancel that the test has too."""
    found = Call(
        body=case.body, path=case.path, settings=SETTINGS, now=0, new_id=new_id, content_type=case.content_type
    )
    reply = case.endpoint(found, Backend(app, create_environ(), SETTINGS, KnownLimits(), cancel))
    if isinstance(reply, EventStream):
        try:
            for _ in reply.events:
                pass
        finally:
            reply.source.close()
    return reply


def fails(future: Future[Any]) -> APIError:
    """The error that a request ends with, long before the silence of its server does."""
    with pytest.raises(APIError) as raised:
        future.result(timeout=WAIT / 2)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    return raised.value


def patient(server: Chaos) -> Upstream:
    return Upstream(server.url, timeout=2 * WAIT)


class Remote(FakeOllama):
    """An application in process that several calls reach at once, each in a thread."""

    is_remote = True


# -- the cancel of the request ----------------------------------------------------------------


@cases
def test_f4_it_ends_a_wait_for_the_head(server: Chaos, case: Case) -> None:
    for _ in range(case.at_once):
        server.script(b"")
    cancel = Cancel()
    future = beside(partial(run, case, patient(server), cancel))
    for _ in range(case.at_once):
        server.heads.get(timeout=WAIT)
    cancel.set()
    fails(future)
    assert sorted(server.gone.get(timeout=WAIT) for _ in range(case.at_once)) == list(range(1, case.at_once + 1))
    assert server.connections == case.at_once


@cases_with_body
def test_f41_it_ends_a_silence_in_the_middle(server: Chaos, case: Case) -> None:
    for _ in range(case.at_once):
        server.script(*case.silent())
    cancel = Cancel()
    future = beside(partial(run, case, patient(server), cancel))
    for _ in range(case.at_once):
        server.heads.get(timeout=WAIT)
    cancel.set()
    fails(future)
    assert sorted(server.gone.get(timeout=WAIT) for _ in range(case.at_once)) == list(range(1, case.at_once + 1))


@pytest.mark.parametrize("name", ["three choices", "three choices, streamed"])
def test_f41_it_ends_the_opening_of_streams_of_which_some_are_open(server: Chaos, name: str) -> None:
    sent = threading.Event()
    server.script(*CASES[name].silent())
    server.script(b"")
    server.script(lambda request: sent.set() or b"")
    cancel = Cancel()
    future = beside(partial(run, CASES[name], patient(server), cancel))
    assert sent.wait(WAIT)
    cancel.set()
    assert "cancelled" in fails(future).message
    assert sorted(server.gone.get(timeout=WAIT) for _ in range(3)) == [1, 2, 3]


def many(name: str, prompts: int) -> Case:
    """A completion of several prompts, each a native call."""
    case = CASES[name]
    return replace(case, fields={**case.fields, "prompt": [str(i) for i in range(prompts)]})


def test_every_call_is_cancelled_before_the_first_wakes_up(server: Chaos) -> None:
    class Seeing:
        """A socket of TLS in TLS, as ``Cancel`` takes it; it sees the cancels when it is shut down."""

        @property
        def socket(self) -> socket.socket:
            seen.append([child.is_set for child in children])
            return sock

    seen: list[list[bool]] = []
    cancel = Cancel()
    children = [cancel.child() for _ in range(3)]
    with socket.create_connection((server.host, server.port)) as sock:
        for child in children:
            child.watch(Seeing())  # type: ignore[arg-type]
        cancel.set()
    assert seen == [[True] * 3] * 3


@pytest.mark.parametrize("name", ["completions", "completions, streamed"])
def test_it_lets_no_call_begin_that_waits_for_a_thread(server: Chaos, name: str) -> None:
    most = SETTINGS.max_n
    for _ in range(most):
        server.script(b"")
    cancel = Cancel()
    future = beside(partial(run, many(name, most + 5), patient(server), cancel))
    for _ in range(most):
        server.heads.get(timeout=WAIT)
    cancel.set()
    fails(future)
    assert server.connections == most


@cases
@pytest.mark.parametrize("kind", [FakeOllama, Remote])
def test_once_set_it_lets_no_call_begin(case: Case, kind: type[FakeOllama]) -> None:
    app, cancel = kind(), Cancel()
    cancel.set()
    with pytest.raises(APIError, match="cancelled") as raised:
        run(case, app, cancel)
    assert raised.value.status == 502
    assert app.requests == []


@cases
def test_once_set_it_lets_nothing_be_sent(server: Chaos, case: Case) -> None:
    cancel = Cancel()
    cancel.set()
    fails(beside(partial(run, case, patient(server), cancel)))
    assert server.connections == 0


class Cancelling(FakeOllama):
    """An application in process in which the request is cancelled during the first call."""

    def __init__(self, cancel: Cancel) -> None:
        super().__init__()
        self._cancel = cancel

    def __call__(self, environ: Any, start_response: Any) -> Any:
        found = super().__call__(environ, start_response)
        self._cancel.set()
        return found


SEVERAL = ["three choices", "three choices, streamed", "completions", "completions, streamed", "embeddings"]


@pytest.mark.parametrize("name", SEVERAL)
def test_set_between_two_calls_the_second_is_not_made(name: str) -> None:
    fake = Cancelling(cancel := Cancel())
    for path, lines in (("/api/chat", [say("a"), done()]), ("/api/generate", TEXT)):
        fake.script(path, *lines)
    fake.script("/api/embed", {"embeddings": [[0.5]]})
    with pytest.raises(APIError, match="cancelled"):
        run(CASES[name], fake, cancel)
    assert len(fake.requests) == fake.opened == fake.closed == 1


@pytest.mark.parametrize("name", ["models", "a model"])
def test_set_between_two_calls_for_models_the_second_is_not_made(name: str) -> None:
    fake = Cancelling(cancel := Cancel())
    with pytest.raises(APIError, match="cancelled"):
        run(CASES[name], fake, cancel)
    assert len(fake.requests) == fake.opened == fake.closed == 1


@pytest.mark.parametrize("name", ["models", "a model"])
def test_f4_it_ends_a_wait_for_the_loaded_models(server: Chaos, name: str) -> None:
    server.script(*answer(*CASES[name].lines))
    server.script(b"")
    cancel = Cancel()
    future = beside(partial(run, CASES[name], patient(server), cancel))
    for _ in range(2):
        server.heads.get(timeout=WAIT)
    cancel.set()
    fails(future)


def test_set_before_an_old_server_is_asked_in_another_way_it_is_not() -> None:
    fake = Cancelling(cancel := Cancel())
    fake.script("/api/show", {"error": "model is required"}, status="400 Bad Request")
    with pytest.raises(APIError, match="cancelled"):
        run(CASES["a model"], fake, cancel)
    assert len(fake.requests) == fake.closed == 1


def test_set_before_a_second_attempt_without_thinking_it_is_not_made() -> None:
    fake = Cancelling(cancel := Cancel())
    fake.script("/api/chat", {"error": '"demo" does not support thinking'}, status="400 Bad Request")
    fields = {**CHAT, "reasoning_effort": "high"}
    with pytest.raises(APIError, match="cancelled"):
        run(replace(CASES["chat"], fields=fields), fake, cancel)
    assert len(fake.requests) == fake.closed == 1


def test_set_before_a_choice_is_generated_again_it_is_not() -> None:
    fake = Cancelling(cancel := Cancel())
    fake.script("/api/chat", say("no"), done())
    schema = {"name": "a", "strict": True, "schema": {"type": "object"}}
    fields = {**CHAT, "response_format": {"type": "json_schema", "json_schema": schema}}
    with pytest.raises(APIError, match="cancelled"):
        run(replace(CASES["chat"], fields=fields), fake, cancel)
    assert len(fake.requests) == fake.closed == 1


@pytest.mark.parametrize("name", ["chat", "three choices", "embeddings", "audio, streamed"])
def test_f45_set_after_the_end_it_touches_no_connection(server: Chaos, name: str) -> None:
    case, remote = CASES[name], patient(server)
    count = case.at_once if case.endpoint is not embeddings.create else 2
    connections = []
    for _ in range(2):
        together = threading.Barrier(case.at_once, timeout=WAIT)

        def meet(request: Request, together: threading.Barrier = together) -> bytes:
            together.wait()
            return b""

        for _ in range(count):
            server.script(meet, *answer(*case.lines))
        cancel = Cancel()
        assert isinstance(run(case, remote, cancel), Answer | EventStream)
        cancel.set()
        connections.append(server.connections)
    assert connections == [case.at_once] * 2


# -- the cancel of one call -------------------------------------------------------------------


class Keeping:
    """An application in front of an upstream that keeps the cancels of the calls, as one that limits their time."""

    def __init__(self, app: Any, *, is_remote: bool = True) -> None:
        self._app = app
        self.is_remote = is_remote
        self.cancels: list[Cancel] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.cancels.append(environ[SIDE_CHANNEL].cancel)
        return self._app(environ, start_response)


def respond(case: Case, app: Any) -> tuple[int, Any]:
    """Status and error of a whole response, or of a stream that ends with its error."""
    options = {"method": case.method}
    if case.method == "POST":
        options |= {"data": case.body, "content_type": case.content_type}
    found = Client(OpenAICompat(app, settings=SETTINGS)).open(case.route, buffered=True, **options)
    if found.mimetype != "text/event-stream":
        return found.status_code, found.get_json()["error"]
    *_, last = frames(found.data)
    return found.status_code, last["error"]


@pytest.mark.parametrize("is_remote", [True, False], ids=["in threads", "in turn"])
@pytest.mark.parametrize("before_the_head", [True, False], ids=["before the head", "in the middle"])
@cases_with_body
def test_f41_an_application_may_end_the_calls_of_a_request(
    server: Chaos, case: Case, before_the_head: bool, is_remote: bool
) -> None:
    count = case.at_once if is_remote else 1
    for _ in range(count):
        server.script(*([b""] if before_the_head else case.silent()))
    keeping = Keeping(patient(server), is_remote=is_remote)
    future = beside(partial(respond, case, keeping))
    for _ in range(count):
        server.heads.get(timeout=WAIT)
    for cancel in keeping.cancels:
        cancel.set()
    status, error = future.result(timeout=WAIT / 2)
    assert error["code"] == "upstream_error"
    # The status of a stream is out when its first message has come, and that may be before the call is cancelled.
    assert status == 502 or (case.is_stream and status == 200)
    assert len(keeping.cancels) == count


def test_f41_ending_one_of_several_calls_leaves_the_others(server: Chaos) -> None:
    case = CASES["three choices"]
    for _ in range(3):
        server.script(*case.silent())
    keeping = Keeping(patient(server))
    future = beside(partial(respond, case, keeping))
    for _ in range(3):
        server.heads.get(timeout=WAIT)
    first, *others = keeping.cancels
    first.set()
    assert server.gone.get(timeout=WAIT)
    assert server.gone.empty()
    for cancel in others:
        cancel.set()
    assert future.result(timeout=WAIT / 2)[0] == 502


# -- a server that closes a response ----------------------------------------------------------


def begin(case: Case, app: Any) -> tuple[Any, Iterator[bytes]]:
    """The body of a streamed response, and its iterator; a server takes them so."""
    environ = create_environ(case.route, method="POST", data=case.body, content_type=case.content_type)
    environ["CONTENT_LENGTH"] = str(len(case.body))
    body, status, _ = run_wsgi_app(OpenAICompat(app), environ)
    assert status == "200 OK"
    return body, iter(body)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("items", [0, 1])
def test_f41_a_server_that_closes_a_stream_ends_its_calls(server: Chaos, name: str, items: int) -> None:
    case = CASES[name]
    for _ in range(case.at_once):
        server.script(*case.silent())
    body, iterator = begin(case, patient(server))
    for _ in range(items):
        assert next(iterator)
    assert server.gone.empty()
    beside(body.close).result(timeout=WAIT / 2)
    assert sorted(server.gone.get(timeout=WAIT) for _ in range(case.at_once)) == list(range(1, case.at_once + 1))
    assert ours() == []
    body.close()


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kind", [FakeOllama, Remote])
def test_f41_w2_a_server_that_closes_a_stream_closes_an_application_once(name: str, kind: type[FakeOllama]) -> None:
    app = kind()
    for _ in range(3):
        app.script("/api/chat", *[say("a")] * 1000, done())
        app.script("/api/generate", *[TEXT[0]] * 1000, TEXT[1])
    body, iterator = begin(CASES[name], app)
    assert next(iterator)
    body.close()
    body.close()
    assert app.opened == app.closed > 0
    assert list(iterator) == []


def test_f41_a_stream_that_was_taken_whole_cancels_nothing(server: Chaos) -> None:
    remote = patient(server)
    for _ in range(2):
        server.script(*answer(say("a"), done()))
        body, iterator = begin(CASES["chat, streamed"], remote)
        assert b"[DONE]" in b"".join(iterator)
        body.close()
    assert server.connections == 1


@pytest.mark.parametrize("is_whole", [False, True], ids=["closed early", "taken whole"])
@pytest.mark.parametrize("name", STREAMS)
def test_f41_an_application_in_process_sees_that_a_stream_was_closed_early(name: str, is_whole: bool) -> None:
    keeping = Keeping(FakeOllama(), is_remote=False)
    body, iterator = begin(CASES[name], keeping)
    assert next(iterator)
    if is_whole:
        list(iterator)
    body.close()
    assert keeping.cancels
    assert {cancel.is_set for cancel in keeping.cancels} == {not is_whole}
