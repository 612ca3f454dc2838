"""A scriptable Ollama, for tests of this package and of programs that use it.

:class:`FakeOllama` is a WSGI application. A script defines the next response of a path, byte by byte if necessary;
without a script the demo backend responds, or a recording. Only what a server can send belongs into a script::

    fake = FakeOllama()
    fake.script("/api/chat", say("Hello"), say(" world"), done())
    client = werkzeug.test.Client(OpenAICompat(fake))
    ...
    assert fake.requests[0].json["model"] == "demo"
    assert fake.closed == 1
    fake.assert_all_used()
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai_compat.testing.demo import Demo, encode
from openai_compat.testing.recording import Exchange, Recording, decoded, read_recording

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from typing_extensions import Self

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
    """Return a native chat message. A script of ``/api/generate`` sends it in the form of that path.

    :param message: further keys of ``message``, such as ``thinking`` and ``tool_calls``.
    """
    return {
        "model": "demo",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content, **message},
        "done": False,
    }


def done(reason: str = "stop", *, prompt: int = 1, made: int = 1, **rest: Any) -> dict[str, Any]:
    """Return the final native chat message; in a script of ``/api/generate``, that of this path.

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
        #: number of scripts of each path, used or not
        self._scripted: Counter[str] = Counter()
        self._recording: Recording | None = None
        self._lock = threading.Lock()

    @classmethod
    def replay(cls, path: str | os.PathLike[str]) -> Self:
        """Return a fake that answers from a recording, such as ``openai-compat record`` makes.

        A request gets the response to the recorded request of its path that is most like it; of several that are alike
        the first that was not used yet. A path without one is a native 500. Scripts go before the recording.

        :raises ValueError: the file is no recording.
        :raises OSError: it cannot be read.
        """
        fake = cls()
        fake._recording = Recording(read_recording(path))
        return fake

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
            is raised. A stream without :func:`done` breaks off. For ``/api/generate`` a chat message, as :func:`say`
            and :func:`done` make it, is sent with ``response`` in the place of ``message``.
        :param cut: number of bytes of each item of the body, between gates and exceptions; 0: one item. By default
            each step is one item.
        """
        if path == "/api/generate":
            steps = tuple(_generated(step) if isinstance(step, dict) else step for step in steps)
        script = _Script(steps, status, [("Content-Type", content_type), *headers], cut)
        with self._lock:
            self._scripts.setdefault(path, deque()).append(script)
            self._scripted[path] += 1

    def assert_all_used(self) -> None:
        """Fail unless every script, and every exchange of a recording, was the response to a request.

        :raises AssertionError: it names those that were not, and the requests that were received.
        """
        with self._lock:
            unused = [
                f"{len(scripts)} of {self._scripted[path]} scripts of {path}"
                for path, scripts in self._scripts.items()
                if scripts
            ]
            exchanges = self._recording.exchanges if self._recording is not None else []
            unused += [f"the recorded exchange {exchange.name!r}" for exchange in exchanges if not exchange.is_used]
            received = Counter(f"{request.method} {request.path}" for request in self.requests)
        if unused:
            requests = ", ".join(f"{count} × {request}" for request, count in received.items()) or "none"
            raise AssertionError(f"FakeOllama: not used: {'; '.join(unused)}. Requests: {requests}.")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, as WSGI defines it."""
        request = _recorded(environ)
        with self._lock:
            self.requests.append(request)
            self.opened += 1
            scripts = self._scripts.get(request.path)
            script = scripts.popleft() if scripts else None
            if script is None and self._recording is not None:
                script = _replayed(self._recording, request)
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


def _generated(line: dict[str, Any]) -> dict[str, Any]:
    """Return a chat message in the form of ``/api/generate``; anything else as it is."""
    message = line.get("message")
    if not isinstance(message, dict) or "response" in line:
        return line
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    found: dict[str, Any] = {}
    for key, value in line.items():  # in the same order
        found |= {"response": message.get("content", ""), **rest} if key == "message" else {key: value}
    return found


def _replayed(recording: Recording, request: Recorded) -> _Script:
    """Return the recorded response to a request, as a script."""
    exchange = recording.choose(request.method, request.path, decoded(request.body))
    steps: list[Step] = []
    if exchange is None:
        text = f"the recording has no response to {request.method} {request.path}"
        steps = [{"error": text}] if request.method != "HEAD" else steps
        return _Script(steps, "500 Internal Server Error", [("Content-Type", "application/json")], None)
    steps = _steps(exchange) if request.method != "HEAD" else steps
    return _Script(steps, exchange.status_line, [("Content-Type", exchange.content_type)], None)


def _steps(exchange: Exchange) -> list[Step]:
    end: list[Step] = [] if exchange.is_complete else [ConnectionResetError("the recorded response breaks off here")]
    return [*exchange.items(), *end]


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
