"""What the tests of images by URL need: pictures, addresses, a resolver that notes, servers without an end."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openai_compat.transport.images import Fetcher
from tests.chaos import FRAMINGS, SIZED, WAIT, Chaos, Step, answer, head

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMAGES = {
    "png": PNG,
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100),
    "gif87": b"GIF87a" + bytes(100),
    "gif89": b"GIF89a" + bytes(100),
    "webp": b"RIFF\x0a\x00\x00\nWEBPVP8 " + bytes(100),
}

#: seconds that an image may take where a server does not come to its end; such a server takes SILENCE
SHORT, SILENCE = 0.5, 30.0

#: where the servers of the tests are, and an address of this machine that no fetcher here may reach
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


# -- addresses --------------------------------------------------------------------------------

DANGEROUS = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.254 169.254.0.1
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.255
192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:0.0.0.0 ::ffff:10.0.0.1 ::ffff:100.64.0.1 ::ffff:127.0.0.1
::ffff:169.254.169.254 ::ffff:192.88.99.1 ::ffff:224.0.0.1 ::ffff:7f00:1 ::ffff:0:7f00:1 64:ff9b::7f00:1
64:ff9b::808:808 64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:0:7f00:1:: 2001:1::1 2001:2::1 2001:3::1
2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff:: 2001:db8::1 2001:db8:ffff:: 2002:7f00:1::
2002:808:808::1 2002:a9fe:a9fe:: 3fff::1 3fff:fff:: 4000::1 5f00::1 8000::1 fc00::1 fd00:ec2::254 fe80::1
fe80::1%lo fec0::1 ff02::1 ff0e::1 2606:4700:4700::1111%lo ::ffff:8.8.8.8%lo
"""

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.88.98.255 192.88.100.0
192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 2001:200:: 2001:4860:4860::8888
2003::1 2606:4700:4700::1111 2a00:1450:4001:80b::200e 3ffe:ffff::1 3fff:1000::
"""

#: what some readers take for 127.0.0.1
SPELLINGS = ["0x7f000001", "2130706433", "127.1", "127.0.1", "0177.0.0.1", "017700000001", "0x7f.1", "127.0.0.1."]


# -- asking and answering ---------------------------------------------------------------------


class Names:
    """A resolver that records its lookups.

    :param answers: one for each lookup; the last one stays.
    """

    def __init__(self, *answers: list[str]) -> None:
        self.lookups: list[tuple[str, int]] = []
        self._answers = list(answers) or [[HERE]]

    def __call__(self, host: str, port: int) -> list[str]:
        self.lookups.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def fetcher(names: Callable[[str, int], list[str]] | None = None, *allowed: str, **options: Any) -> Fetcher:
    """One that may reach HERE, and *allowed*."""
    passes = {HERE, *allowed}
    return Fetcher(**{"resolve": names or Names(), "allowed": passes.__contains__, "timeout": WAIT, **options})


def at(server: Chaos, target: str = "/cat.png", host: str = "images.example", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{server.port}{target}"


def image(*pieces: Step, **options: Any) -> list[Step]:
    return answer(*(pieces or (PNG,)), **{"content_type": "image/png", **options})


def after(seconds: float) -> Step:
    """A step that takes its time."""
    never = threading.Event()
    return lambda request: b"never" if never.wait(seconds) else b""


def moved(location: str, status: int = 302) -> list[Step]:
    return answer(b"elsewhere", status=status, headers=[("Location", location)], framing=SIZED)


# -- servers without an end -------------------------------------------------------------------


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@contextmanager
def full(address: str, port: int) -> Iterator[None]:
    """A place that does not answer: it listens, and has no room for one more."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((address, port))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


@contextmanager
def dripping(first: bytes, drop: bytes = b"x") -> Iterator[int]:
    """The port of a server that sends *first*, and then *drop* again and again for SILENCE seconds.

    At its end the client must have left by itself.
    """
    over, left = threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(first)
                for _ in range(int(SILENCE / 0.02)):
                    if over.wait(0.02):
                        return
                    connection.sendall(drop)
            except OSError:
                left.set()

    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(WAIT)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
            assert left.wait(WAIT)
        finally:
            over.set()
            thread.join(WAIT)
    assert not thread.is_alive()


#: the head of a TLS record
RECORD = b"\x16\x03\x03\x40\x00\x02\x00\x30\x00"

#: what comes first, and what comes again and again
DRIPS = {
    "a status line": (b"", b"H"),
    "a head": (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body with its length": (head(headers=[("Content-Length", "100000")]) + PNG, b"x"),
    "a body without end": (head() + PNG, b"x"),
    "a body in chunks": (
        head(headers=[("Transfer-Encoding", "chunked")]) + b"8\r\n" + PNG[:8] + b"\r\n",
        b"1\r\nx\r\n",
    ),
    "a size of a chunk": (head(headers=[("Transfer-Encoding", "chunked")]), b"0"),
    "a trailer": (head(headers=[("Transfer-Encoding", "chunked")]) + b"8\r\n" + PNG[:8] + b"\r\n0\r\n", b"X: y\r\n"),
}


class Secure(Chaos):
    """Serves https, and notes the names that clients ask for."""

    def __init__(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, f"{certificate}.key")
        self.names: list[str | None] = []
        context.sni_callback = lambda _, name, __: self.names.append(name)
        super().__init__(context)


# -- fixtures, and what they share ---------------------------------------------------------------

#: the field of the request, for the error
PATH = "messages[0].content[1].image_url.url"

TEXT = "The image could not be fetched. Expected a public URL of a png, jpeg, gif or webp image of moderate size."

#: where a server is silent the time-out of the socket and the end of the time come together
ENDED = ("it took too long", "timed out")

framings = pytest.mark.parametrize("framing", FRAMINGS)


Refused = Callable[..., str]
