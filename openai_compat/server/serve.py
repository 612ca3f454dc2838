"""``openai-compat serve``: run gunicorn in this process, and announce the server.

The application with its connection pool and threads is made in each worker, after the fork: with a pool that processes
share, a request may get the response of another. So nothing is preloaded, and nothing here connects before the fork.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError
from openai_compat.middleware.app import OpenAICompat
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.transport.urls import redacted

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: seconds for each phase of the request that lists the models to announce: an upstream that does not respond should
#: not delay the announcement
PROBE_TIMEOUT = 1.0

#: defaults that differ from gunicorn's; GUNICORN_CMD_ARGS and flags override them
DEFAULTS: dict[str, Any] = {
    "bind": "127.0.0.1:8000",
    "worker_class": "gthread",
    "workers": 1,
    "threads": 64,
    # OpenAI's clients reuse idle connections for 5 s and more: gunicorn's 2 s would close some that a client just uses.
    "keepalive": 75,
    "loglevel": "warning",
}
#: gunicorn's settings that nothing overrides: no application, thread or socket of theirs before the fork
_FIXED = {"preload_app": False, "control_socket_disable": True}


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of a server, from flags, variables and a file."""

    #: the URL of an Ollama; None for the demo backend
    upstream: str | None
    #: sent with every native request
    headers: Mapping[str, str]
    #: whether certificates are checked, or the path of a bundle to check them with
    verify: bool | str
    settings: Settings
    #: gunicorn's settings; None is not set
    server: Mapping[str, Any]

    def backend(self, *, timeout: float | None = None) -> WSGIApplication:
        """Return a new native application; make it after the fork.

        :param timeout: seconds, instead of the settings' time-outs.
        """
        if self.upstream is None:
            from openai_compat.testing.demo import Demo

            return Demo()
        from openai_compat.transport.upstream import Upstream

        return Upstream(
            self.upstream,
            timeout=self.settings.timeout if timeout is None else timeout,
            headers=self.headers,
            verify=self.verify,
            native_admin=self.settings.native_admin,
            pool_size=self.settings.pool_size,
        )


def serve(config: ServerConfig) -> int:
    """Serve until a signal stops the server, and return the exit status; 2 if it cannot start."""
    try:
        from openai_compat.server.gunicorn_app import Application
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "gunicorn":
            raise
        sys.stderr.write("openai-compat: serving needs the extra 'server'; in a clone: pip install '.[server]'\n")
        return 2
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_relevant)
    options = {**DEFAULTS, "post_worker_init": _announcer(config), "worker_int": _stop_at_once}
    flags = {key: value for key, value in config.server.items() if value is not None}
    server = Application(lambda: OpenAICompat(config.backend(), settings=config.settings), options, flags | _FIXED)
    error_text = server.bind_error()
    if error_text:
        sys.stderr.write(f"openai-compat: {error_text}; set another address with --bind\n")
        return 2
    server.run()
    return 0


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return False for urllib3's warnings about connections above the pool's size, which requests with ``n`` need."""
    return not str(record.msg).startswith("Connection pool is full")


def _stop_at_once(worker: Any) -> None:
    """End the worker on SIGINT; gunicorn would wait 30 s for threads that stream."""
    sys.stdout.flush()
    os._exit(0)


def _announcer(config: ServerConfig) -> Any:
    """Return gunicorn's hook that prints the announcement, in a thread, since it waits for the upstream."""

    def post_worker_init(worker: Any) -> None:
        if worker.age == 1:  # only one worker announces the server
            addresses = [address(sock.getsockname()) for sock in worker.sockets]
            threading.Thread(target=lambda: print(announcement(config, addresses), flush=True), daemon=True).start()

    return post_worker_init


def address(name: Any) -> str:
    """Return the URL of a listening socket.

    :param name: the result of its ``getsockname``.
    """
    if not isinstance(name, tuple):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def announcement(config: ServerConfig, addresses: list[str]) -> str:
    """Return the text that the server prints once it listens: URLs, backend, models, and a command to try.

    :param addresses: URLs of the listening sockets, without the prefix.
    """
    base, flag = addresses[0] + config.settings.prefix, ""
    if addresses[0].startswith("unix:"):
        base, flag = "http://localhost" + config.settings.prefix, f" --unix-socket {addresses[0][5:]}"
    urls = [url if url.startswith("unix:") else url + config.settings.prefix for url in addresses]
    backend = "the built-in demo" if config.upstream is None else redacted(config.upstream)
    try:
        models = _probe(config).tags().models or []
        names = ", ".join(model.request_name for model in models) or "none yet; `ollama pull` one"
        model = next((model.request_name for model in models if model.can_chat), "MODEL")
    except APIError as error:
        names, model = f"unknown: {error.message} The server runs anyway; `--demo` needs no Ollama.", "MODEL"
    return (
        f"openai-compat listens at {', '.join(urls)}\n"
        f"  backend: {backend}\n"
        f"  models:  {names}\n"
        f"  try:     curl -N{flag} {base}/chat/completions -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )


def _probe(config: ServerConfig) -> Backend:
    return Backend(config.backend(timeout=PROBE_TIMEOUT), probe_environ(), config.settings, KnownLimits())


def probe_environ() -> dict[str, Any]:
    """Return a minimal environ, for native calls that do not belong to a client's request."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
