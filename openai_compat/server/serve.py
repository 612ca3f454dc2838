"""``openai-compat serve``: gunicorn in this process.

The application, its sessions and threads are made in ``load()``, in each worker after the fork: a connection pool that
is shared over a fork gives one request the response of another. So nothing is preloaded.
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

#: seconds that the look at the upstream may take at the start
PROBE_TIMEOUT = 1.0

#: gunicorn's settings where ours differ from its own; GUNICORN_CMD_ARGS and flags change them
DEFAULTS: dict[str, Any] = {
    "bind": "127.0.0.1:8000",
    "worker_class": "gthread",
    "workers": 1,
    "threads": 64,
    # OpenAI's clients keep connections for 5 s and more; gunicorn's 2 s would race with their next request.
    "keepalive": 75,
    "loglevel": "warning",
}
_FIXED = {"preload_app": False, "control_socket_disable": True}


@dataclass(frozen=True)
class ServerConfig:
    """What to serve, and how."""

    #: the URL of an Ollama; None for the demo backend
    upstream: str | None
    headers: Mapping[str, str]
    verify: bool | str
    settings: Settings
    #: gunicorn's settings that were given; None is not given
    server: Mapping[str, Any]

    def backend(self, *, timeout: float | None = None) -> WSGIApplication:
        """Return the native application. It is made after the fork: see the top of this file."""
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


def serve(plan: ServerConfig) -> int:
    """Serve until stopped and return the exit status."""
    try:
        from openai_compat.server.gunicorn_app import Application
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "gunicorn":
            raise
        sys.stderr.write("openai-compat: serving needs the extra 'server': in a clone: pip install '.[server]'\n")
        return 2
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_news)
    options = {**DEFAULTS, "post_worker_init": _announcer(plan), "worker_int": _stop_at_once}
    given = {key: value for key, value in plan.server.items() if value is not None}
    server = Application(lambda: OpenAICompat(plan.backend(), settings=plan.settings), options, given | _FIXED)
    taken = server.taken_address()
    if taken:
        sys.stderr.write(f"openai-compat: {taken}; choose another place with --bind\n")
        return 2
    server.run()
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a log record matters: urllib3 logs each connection above the pool's size, which ``n`` needs."""
    return not str(record.msg).startswith("Connection pool is full")


def _stop_at_once(worker: Any) -> None:
    """End the worker on SIGINT: a thread that streams would keep it until gunicorn kills it after 30 s."""
    sys.stdout.flush()
    os._exit(0)


def _announcer(plan: ServerConfig) -> Any:
    def post_worker_init(worker: Any) -> None:
        if worker.age == 1:  # only one worker announces the server
            addresses = [address(sock.getsockname()) for sock in worker.sockets]
            threading.Thread(target=lambda: print(announcement(plan, addresses), flush=True), daemon=True).start()

    return post_worker_init


def address(name: Any) -> str:
    """Return the URL of a listening socket, from the result of ``getsockname``."""
    if not isinstance(name, tuple):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def announcement(plan: ServerConfig, addresses: list[str]) -> str:
    """Return what the server prints once it listens: where, what it serves, and a command to try."""
    base, flag = addresses[0] + plan.settings.prefix, ""
    if addresses[0].startswith("unix:"):
        base, flag = "http://localhost" + plan.settings.prefix, f" --unix-socket {addresses[0][5:]}"
    listens = [at if at.startswith("unix:") else at + plan.settings.prefix for at in addresses]
    where = "the built-in demo" if plan.upstream is None else redacted(plan.upstream)
    try:
        found = _probe(plan).tags().models or []
        seen = ", ".join(model.request_name for model in found) or "none yet; `ollama pull` one"
        model = next((model.request_name for model in found if model.can_chat), "MODEL")
    except APIError as error:
        seen, model = f"not known: {error.message} Serving all the same; `--demo` needs no Ollama.", "MODEL"
    return (
        f"openai-compat listens at {', '.join(listens)}\n"
        f"  backend: {where}\n"
        f"  models:  {seen}\n"
        f"  try:     curl -N{flag} {base}/chat/completions -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )


def _probe(plan: ServerConfig) -> Backend:
    return Backend(plan.backend(timeout=PROBE_TIMEOUT), probe_environ(), plan.settings, KnownLimits())


def probe_environ() -> dict[str, Any]:
    """Return an environ for native calls that no client's request caused."""
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
