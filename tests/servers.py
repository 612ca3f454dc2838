"""Real servers for tests, on loopback only: ``openai-compat`` as a process, and a WSGI application on a socket.

Whatever is started here is ended here, and every wait has a time-out.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

import openai_compat

#: seconds that anything here may take
TIMEOUT = 20.0

#: seconds that a server may take to end: a worker that is asked while it boots misses the signal,
#: and is killed after gunicorn's graceful time-out of 30 s
ENDING = 45.0

_ROOT = str(Path(openai_compat.__file__).parents[1])
_LAST_LINE = b"  try: "


# -- openai-compat as a process ---------------------------------------------------------------


class Server:
    """A running ``openai-compat serve``."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], announced: str) -> None:
        self.process = process
        #: what it wrote to stdout until it listened
        self.announced = announced
        #: where OpenAI's routes begin, from its first line
        self.base_url = announced.splitlines()[0].partition(" listens at ")[2].split(",")[0]
        self._errors = errors

    @property
    def port(self) -> int:
        return int(self.base_url.split("/")[2].rpartition(":")[2])

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return _read(self._errors)

    def stop(self) -> int:
        """Ask it to end, as an init system does; its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDING)


@contextmanager
def serving(
    *arguments: str,
    bind: str | None = "127.0.0.1:0",
    environ: Mapping[str, str] | None = None,
    python: tuple[str, ...] = (),
    subcommand: str = "serve",
) -> Iterator[Server]:
    """Start ``openai-compat serve`` on a free port of loopback and wait for its announcement.

    :param bind: None leaves the flag out.
    :param subcommand: ``record`` is another that serves.
    :param environ: variables beside the usual ones; those that the command reads are taken from here only.
    :param python: options of the interpreter.
    """
    flags = ["--bind", bind] if bind else []
    command = [sys.executable, *python, "-m", "openai_compat", subcommand, *flags, *arguments]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(environ),
            start_new_session=True,
        )
        try:
            yield Server(process, errors, _announcement(process, errors))
        finally:
            _end(process)


def command(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    python: tuple[str, ...] = ("-m", "openai_compat"),
    timeout: float = TIMEOUT,
) -> subprocess.CompletedProcess[str]:
    """Run ``openai-compat``, or another Python program, to its end."""
    return subprocess.run(
        [sys.executable, *python, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=_environment(environ),
        check=False,
    )


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    ours = ("OPENAI_", "OLLAMA_", "GUNICORN_", "LISTEN_", "PORT", "WEB_CONCURRENCY")
    usual = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(filter(None, (_ROOT, usual.get("PYTHONPATH"))))
    return {**usual, "PYTHONPATH": path, **(given or {})}


def _announcement(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    assert process.stdout is not None
    deadline, text = time.monotonic() + TIMEOUT, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (_LAST_LINE in text and text.endswith(b"\n")):
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            data = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise AssertionError(f"the server did not announce itself: {text!r} {_read(errors)}")
            text += data
    return text.decode()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(ENDING)
    finally:
        # A session of its own: nobody but its own workers is in it, and usually they are gone.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT)
        if process.stdout is not None:
            process.stdout.close()


def _read(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1_000_000, 0).decode(errors="replace")


# -- a WSGI application on a socket -----------------------------------------------------------


class _Handler(WSGIRequestHandler):
    """HTTP/1.1, so that bodies are chunked and connections kept; each item leaves at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: an application that breaks off does so on purpose."""


class _Server(ThreadedWSGIServer):
    """A thread a connection; all are joined at the end, so their connections must be shut before."""

    daemon_threads = False

    def __init__(self, app: Any) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__("127.0.0.1", 0, app, _Handler)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def disconnect(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # its client was first
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def live(app: Any) -> Iterator[str]:
    """Serve a WSGI application on a free port of loopback; its URL."""
    server = _Server(app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        server.disconnect()
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port where nobody listens, and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
