"""A raw-socket HTTP server that answers as it is told, byte for byte, and remembers what came. Loopback only.

An answer is a list of steps: ``bytes`` are sent, as is what a function makes of the request; a
:class:`threading.Event` is waited for; ``FIN`` and ``RST`` close the connection. After the last step the connection
stays open, silent, for the next request: so silence needs no sleeping, and the server always notices its client go::

    with Chaos() as server:
        server.script(*answer(say("Hello"), done()))  # one whole answer, chunked
        server.script(*answer(say("Hel"), RST))  # the second request gets a line and a reset
        ...
        assert server.gone.get(timeout=WAIT) == 2  # the client left its second connection by itself
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from io import BufferedReader
from queue import SimpleQueue
from typing import Any

#: seconds that any wait in a test may take before the test fails
WAIT = 10.0


class End(Enum):
    """How the server ends a connection."""

    FIN = "fin"
    RST = "rst"


FIN, RST = End.FIN, End.RST


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire."""

    #: number of its connection, from 1
    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def names(self) -> set[str]:
        """The names of the headers, in lower case."""
        return {key.lower() for key, _ in self.headers}


Step = bytes | threading.Event | End | Callable[[Request], bytes]

Headers = Iterable[tuple[str, str]]

CHUNKED, SIZED, CLOSE = FRAMINGS = ("chunked", "sized", "close")


def head(status: int = 200, headers: Headers = (), *, content_type: str = "application/x-ndjson") -> bytes:
    """A status line and headers, with the empty line after them."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(
    *pieces: dict[str, Any] | Step,
    framing: str = CHUNKED,
    status: int = 200,
    headers: Headers = (),
    content_type: str = "application/x-ndjson",
    length: int | None = None,
) -> list[Step]:
    """A whole answer; dicts become lines of JSON. It has no proper end if the last piece is ``FIN``, ``RST`` or a gate.

    :param framing: one of :data:`FRAMINGS`.
    :param length: the Content-Length, if it shall lie.
    """
    steps = [json.dumps(piece).encode() + b"\n" if isinstance(piece, dict) else piece for piece in pieces]
    size = sum(len(step) for step in steps if isinstance(step, bytes))
    how = {
        CHUNKED: ("Transfer-Encoding", "chunked"),
        SIZED: ("Content-Length", str(size if length is None else length)),
        CLOSE: ("Connection", "close"),
    }
    first = head(status, [how[framing], *headers], content_type=content_type)
    if framing == CHUNKED:
        steps = [b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step for step in steps]
    if not steps or isinstance(steps[-1], bytes):
        steps += {CHUNKED: [b"0\r\n\r\n"], SIZED: [], CLOSE: [FIN]}[framing]
    return [first, *steps]


class Chaos:
    """The server; a context manager. A request beyond the script is recorded, and its connection closed.

    :param tls: serve https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        #: in order of their arrival, whole
        self.requests: list[Request] = []
        #: every request as soon as its head is there
        self.heads: SimpleQueue[Request] = SimpleQueue()
        #: how many connections were made
        self.connections = 0
        #: numbers of the connections whose client left before the server did
        self.gone: SimpleQueue[int] = SimpleQueue()
        self._tls = tls
        self._scripts: deque[Sequence[Step]] = deque()
        self._gates: list[threading.Event] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        self._stopping = False
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        #: what went wrong in a script
        self._failures: list[str] = []

    def __enter__(self) -> Chaos:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping = True
        socket.create_connection((self.host, self.port)).close()  # wakes accept()
        self._threads[0].join(WAIT)
        self._listener.close()
        for gate in self._gates:
            gate.set()  # a test that failed need not be waited for
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)
        assert not [thread for thread in self._threads if thread.is_alive()]
        assert not self._failures

    def script(self, *steps: Step) -> None:
        """Say what the next request without a script gets; several calls line up."""
        self._scripts.append(steps)
        self._gates += [step for step in steps if isinstance(step, threading.Event)]

    def join(self, connection: int) -> None:
        """Wait until a connection is closed on this side."""
        self._threads[connection].join(WAIT)
        assert not self._threads[connection].is_alive()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stopping:
                sock.close()
                return
            self.connections += 1
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, suppress(OSError, EOFError), sock.makefile("rb") as stream:
            while request := self._read(stream, number):
                if self._answer(sock, request):
                    return
        self.gone.put(number)

    def _read(self, stream: BufferedReader, number: int) -> Request | None:
        lines = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1").rstrip("\r\n"))
        if not lines:
            return None
        method, target, _ = lines[0].split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        request = Request(number, method, target, headers)
        self.heads.put(request)
        request = replace(request, body=_body(request, stream))
        self.requests.append(request)
        return request

    def _answer(self, sock: socket.socket, request: Request) -> End | None:
        """Play the next script; tell whether it ended the connection."""
        held = b""
        for step in [*(self._scripts.popleft() if self._scripts else [FIN]), None]:
            if callable(step):
                step = step(request)
            if isinstance(step, bytes):
                held += step  # what can be sent together is: no client sees half of it by chance
                continue
            sock.sendall(held)
            held = b""
            if isinstance(step, threading.Event) and not step.wait(WAIT):
                self._failures.append("a gate was never opened")
                return RST
            if step is RST:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if isinstance(step, End):
                return step
        return None


def _body(request: Request, stream: BufferedReader) -> bytes:
    if not request.all("transfer-encoding"):
        return _exactly(stream, int((request.all("content-length") or ["0"])[0]))
    body = b""
    while size := int(stream.readline() or b"-1", 16):
        if size < 0:  # the client is gone
            raise EOFError
        body += _exactly(stream, size)
        stream.readline()
    stream.readline()
    return body


def _exactly(stream: BufferedReader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


@contextmanager
def refusing() -> Iterator[str]:
    """The host and port of a place where nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
