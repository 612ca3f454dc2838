"""What tests of several native streams share: applications that are watched, and readers that are not waited for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

import pytest
from werkzeug.test import create_environ

from openai_compat import Upstream
from openai_compat.generation import parallel
from openai_compat.generation.parallel import Streams
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend, StartCall
from openai_compat.settings import Settings
from openai_compat.testing import FakeOllama, Step, done, say
from openai_compat.transport.cancel import Cancel
from tests.chaos import WAIT, Chaos
from tests.transport.gateways import line, upstream

T = TypeVar("T")
StartChat = StartCall[native.ChatResponse]
ChatStreams = Streams[native.ChatResponse]

CHAT = native.ChatRequest(model="demo", messages=[native.Message("user", "Hi")], options={})

#: seconds for which a server would be waited for, if nobody ended the wait
SILENCE = 30.0

#: messages a thread that may wait for the reader
WAITING = 64

both_ways = pytest.mark.parametrize("threads", [1, 8], ids=["in turn", "side by side"])


#: threads of native calls that another test did not end
others: set[threading.Thread] = set()


def ours() -> list[threading.Thread]:
    """The threads of native calls that this test has begun and that are alive."""
    named = [thread for thread in threading.enumerate() if thread.name.startswith("openai-compat-")]
    return [thread for thread in named if thread not in others]


@contextmanager
def soon() -> Iterator[None]:
    """The block ends long before a silence does."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SILENCE / 10


def beside(function: Callable[[], T]) -> Future[T]:
    """Run a function in a thread that no failing test waits for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def start_chat(app: Any) -> StartChat:
    """Ask an application, in process or remote, for one chat."""
    backend = Backend(app, create_environ(), Settings(), KnownLimits())
    return lambda cancel: backend.chat(CHAT, cancel=cancel)


def start_chats(*apps: Any) -> list[StartChat]:
    return [start_chat(app) for app in apps]


def streams(start_calls: Sequence[StartCall[Any]], *, threads: int, cancel: Cancel | None = None) -> Streams[Any]:
    """Several streams of a request; *cancel* is the request's."""
    return parallel.streams(start_calls, threads=threads, cancel=cancel or Cancel())


def patient(server: Chaos) -> Upstream:
    return upstream(server, timeout=SILENCE)


def saying(*steps: Step, **options: Any) -> FakeOllama:
    """A fake with one answer."""
    fake = FakeOllama()
    fake.script("/api/chat", *steps, **options)
    return fake


def good(*contents: str) -> FakeOllama:
    return saying(*(line(say(content)) for content in contents), line(done()))


def refusing(text: str = "busy") -> FakeOllama:
    return saying(json.dumps({"error": text}).encode(), status="503 Service Unavailable")


class Watched:
    """An application that tells when its answer was closed, and how many answers were open at once."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.now = self.most = 0
        self.closed = Event()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        return _Watched(self._app(environ, start_response), self)

    def count_close(self) -> None:
        with self._lock:
            self.now -= 1
        self.closed.set()


class _Watched:
    def __init__(self, answer: Any, owner: Watched) -> None:
        self._answer = answer
        self._owner = owner

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        self._answer.close()
        self._owner.count_close()


class Endless:
    """An application whose answer has no end; it counts the lines that were taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.made = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        while True:
            with self._changed:
                self.made += 1
                number = self.made
                self._changed.notify_all()
            yield line(say(str(number)))

    def has_made(self, count: int) -> bool:
        """Wait until so many lines were taken."""
        with self._changed:
            return self._changed.wait_for(lambda: self.made >= count, WAIT)


class Acquainted:
    """An application that knows the thread it was last called in."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._thread = threading.main_thread()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self._thread = threading.current_thread()
        return self._app(environ, start_response)

    def join(self) -> None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


class Ended(BaseException):
    """What no native call turns into a failure of its own."""


def text(message: native.ChatResponse) -> str:
    assert message.message is not None
    return message.message.content or ""


def texts(source: ChatStreams) -> list[tuple[int, str]]:
    """What is left of the texts; the done lines have none."""
    return [(index, text(message)) for index, message in source]


def of(index: int, pairs: Sequence[tuple[int, str]]) -> list[str]:
    return [found for i, found in pairs if i == index]


def counts(*fakes: FakeOllama) -> list[tuple[int, int]]:
    """How many answers of each were begun, and closed."""
    return [(fake.opened, fake.closed) for fake in fakes]
