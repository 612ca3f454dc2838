"""A scriptable Ollama for tests, those of this package and of programs that use it.

:class:`FakeOllama` is a WSGI application. Without a script it answers like the demo backend; a script defines, byte for
byte if necessary, the next response::

    fake = FakeOllama()
    fake.script("/api/chat", say("Hello"), say(" world"), done())
    client = werkzeug.test.Client(OpenAICompat(fake))
    ...
    assert fake.requests[0].json["model"] == "demo"
    assert fake.closed == 1
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai_compat.testing.demo import Demo, encode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["FakeOllama", "Gate", "Recorded", "Step", "done", "say"]


class Gate:
    """A point in a script where the response waits until the test opens it.

    :param timeout: seconds; a gate that stays shut fails the response.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._open = threading.Event()
        #: set when the answer has come to the gate
        self.reached = threading.Event()

    def open(self) -> None:
        """Let the response continue."""
        self._open.set()

    def wait(self) -> None:
        """Wait until the gate is open."""
        self.reached.set()
        if not self._open.wait(self._timeout):
            raise AssertionError("a gate of FakeOllama was never opened")


#: a step of a script: a native message, raw bytes, a wait, or an exception to raise there
Step = dict[str, Any] | bytes | Gate | Exception


def say(content: str = "", **message: Any) -> dict[str, Any]:
    """Return one native chat line: *content*, and further keys of the message (``thinking``, ``tool_calls``)."""
    return {
        "model": "demo",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content, **message},
        "done": False,
    }


def done(reason: str = "stop", *, prompt: int = 1, made: int = 1, **rest: Any) -> dict[str, Any]:
    """Return the final native chat line: its reason, its token counts, and further keys."""
    return {**say(), "done": True, "done_reason": reason, "prompt_eval_count": prompt, "eval_count": made, **rest}


@dataclass(frozen=True)
class Recorded:
    """A request that the fake received."""

    method: str
    path: str
    #: names in lower case
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class _Script:
    steps: Sequence[Step]
    status: str
    headers: list[tuple[str, str]]
    cut: int | None


class FakeOllama:
    """An Ollama that answers as scripted, and records its requests.

    ``requests`` lists what was received, in order; ``opened`` and ``closed`` count the responses that were begun and
    closed.
    """

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.opened = 0
        self.closed = 0
        self._demo = Demo()
        self._scripts: dict[str, deque[_Script]] = {}
        self._lock = threading.Lock()

    def script(
        self,
        path: str,
        *steps: Step,
        status: str = "200 OK",
        content_type: str = "application/x-ndjson",
        headers: Iterable[tuple[str, str]] = (),
        cut: int | None = None,
    ) -> None:
        """Define the next response of *path*; several definitions are used in order.

        :param steps: in order: a ``dict`` is one line of JSON; ``bytes`` are sent as they are; a :class:`Gate` waits;
            an exception is raised. Leave :func:`done` out for a stream that breaks off.
        :param cut: split the bytes between gates into items of this size; 0 is one item. By default each step is one.
        """
        script = _Script(steps, status, [("Content-Type", content_type), *headers], cut)
        with self._lock:
            self._scripts.setdefault(path, deque()).append(script)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _recorded(environ)
        with self._lock:
            self.requests.append(request)
            self.opened += 1
            waiting = self._scripts.get(request.path)
            script = waiting.popleft() if waiting else None
        if script is None:
            environ = {**environ, "wsgi.input": _Bytes(request.body)}
            return _Answer(self, iter(self._demo(environ, start_response)))
        start_response(script.status, script.headers)
        return _Answer(self, _recut(script) if script.cut is not None else _items(script.steps))

    def count_close(self) -> None:
        with self._lock:
            self.closed += 1


class _Bytes:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        return self._body


class _Answer:
    """A response body that counts its close."""

    def __init__(self, fake: FakeOllama, items: Iterator[bytes]) -> None:
        self._fake = fake
        self._items = items

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._items)

    def close(self) -> None:
        self._fake.count_close()


def _items(steps: Sequence[Step]) -> Iterator[bytes]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Gate):
            step.wait()
        else:
            yield step if isinstance(step, bytes) else encode(step) + b"\n"


def _recut(script: _Script) -> Iterator[bytes]:
    """Yield the bytes of a script, split anew between the steps that are not bytes."""
    held = b""
    for step in [*script.steps, None]:
        if isinstance(step, bytes | dict):
            held += b"".join(_items([step]))
            continue
        size = script.cut or len(held)
        yield from (held[i : i + size] for i in range(0, len(held), size or 1))
        held = b""
        if step is not None:
            yield from _items([step])


def _recorded(environ: WSGIEnvironment) -> Recorded:
    # By Content-Length: under a real server, read() without a size would wait for more.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    headers = {
        key.removeprefix("HTTP_").replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return Recorded(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers, body)
