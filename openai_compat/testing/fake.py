"""A scriptable Ollama, for tests of this package and of programs that use it.

:class:`FakeOllama` is a WSGI application. A script defines the next response of a path, byte by byte if necessary;
without a script the demo backend responds. Only what a server can send belongs into a script::

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
    """A step of a script at which the response waits until the test opens the gate.

    :param timeout: seconds to wait; then the response fails.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._open = threading.Event()
        #: is set when the response waits at the gate
        self.reached = threading.Event()

    def open(self) -> None:
        """Let the response continue."""
        self._open.set()

    def wait(self) -> None:
        """Wait until the gate is open.

        :raises AssertionError: it was not opened in time.
        """
        self.reached.set()
        if not self._open.wait(self._timeout):
            raise AssertionError("a gate of FakeOllama was never opened")


#: a step of a script: a native message, raw bytes, a wait, or an exception to raise
Step = dict[str, Any] | bytes | Gate | Exception


def say(content: str = "", **message: Any) -> dict[str, Any]:
    """Return a native chat message.

    :param message: further keys of ``message``, such as ``thinking`` and ``tool_calls``.
    """
    return {
        "model": "demo",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content, **message},
        "done": False,
    }


def done(reason: str = "stop", *, prompt: int = 1, made: int = 1, **rest: Any) -> dict[str, Any]:
    """Return the final native chat message.

    :param prompt: number of tokens of the prompt.
    :param made: number of generated tokens.
    :param rest: further keys.
    """
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
    """A scripted response; see :meth:`FakeOllama.script`."""

    steps: Sequence[Step]
    status: str
    headers: list[tuple[str, str]]
    cut: int | None


class FakeOllama:
    """An Ollama that sends scripted responses and records its requests. It may be called from several threads."""

    def __init__(self) -> None:
        #: in the order in which they were received
        self.requests: list[Recorded] = []
        #: number of responses that were begun
        self.opened = 0
        #: number of calls of a response's ``close``
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
        """Define the next response of a path; several scripts of a path are used in order.

        :param steps: a ``dict`` is sent as one line of JSON, ``bytes`` as they are; a :class:`Gate` waits; an exception
            is raised. A stream without :func:`done` breaks off.
        :param cut: number of bytes of each item of the body, between gates and exceptions; 0: one item. By default
            each step is one item.
        """
        script = _Script(steps, status, [("Content-Type", content_type), *headers], cut)
        with self._lock:
            self._scripts.setdefault(path, deque()).append(script)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, as WSGI defines it."""
        request = _recorded(environ)
        with self._lock:
            self.requests.append(request)
            self.opened += 1
            scripts = self._scripts.get(request.path)
            script = scripts.popleft() if scripts else None
        if script is None:
            environ = {**environ, "wsgi.input": _Bytes(request.body)}
            return _Response(self, iter(self._demo(environ, start_response)))
        start_response(script.status, script.headers)
        return _Response(self, _recut(script) if script.cut is not None else _items(script.steps))

    def count_close(self) -> None:
        """Count a call of a response's ``close``."""
        with self._lock:
            self.closed += 1


class _Bytes:
    """An input stream that was read already and can be read again."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        return self._body


class _Response:
    """A response body that counts the calls of its ``close``."""

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
    """Yield the bytes of a script in items of the wanted size; a gate or an exception ends an item."""
    data = b""
    for step in [*script.steps, None]:
        if isinstance(step, bytes | dict):
            data += b"".join(_items([step]))
            continue
        size = script.cut or len(data)
        yield from (data[i : i + size] for i in range(0, len(data), size or 1))
        data = b""
        if step is not None:
            yield from _items([step])


def _recorded(environ: WSGIEnvironment) -> Recorded:
    # Under a real server, read() without a size would wait for more than the body.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    headers = {
        key.removeprefix("HTTP_").replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return Recorded(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers, body)
