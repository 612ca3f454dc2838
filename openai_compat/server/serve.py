"""``openai-compat serve``: run gunicorn in this process, and announce the server.

The application with its connection pool and threads is made in each worker, after the fork: with a pool that processes
share, a request may get the response of another. So nothing is preloaded, and nothing here connects before the fork.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.middleware.access import is_local_address
from openai_compat.middleware.app import OpenAICompat
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.server.incoming_request import RECEIVE_TIMEOUT
from openai_compat.settings import LOCAL, Settings
from openai_compat.transport.urls import redacted

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: seconds for each phase of the request that lists the models to announce: an upstream that does not respond should
#: not delay the announcement
PROBE_TIMEOUT = 1.0
#: seconds between two looks at whether the worker stops
_LOOK = 0.2
#: seconds for which a worker that stops at once waits for its application: more than the store takes for one operation
_STOPPING = 3.0

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
    #: the same, but GUNICORN_CMD_ARGS overrides them
    platform: Mapping[str, Any] = field(default_factory=dict)
    #: HTTP proxies of native requests, by scheme
    proxies: Mapping[str, str] = field(default_factory=dict)
    #: seconds in which a request must arrive, under workers with threads
    receive_timeout: float = RECEIVE_TIMEOUT
    #: whether the command has the flag ``--demo``
    has_demo: ClassVar[bool] = True

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
            proxies=self.proxies,
            native_admin=self.settings.native_admin,
            pool_size=self.settings.pool_size,
        )


def serve(config: ServerConfig) -> int:
    """Serve until a signal stops the server, and return the exit status; 2 if it cannot start."""
    if "WEB_CONCURRENCY" in os.environ and config.server.get("workers"):
        # gunicorn converts it when it is imported, although it does not use the value.
        os.environ["WEB_CONCURRENCY"] = str(config.server["workers"])
    try:
        from openai_compat.server.gunicorn_app import Application
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "gunicorn":
            raise
        sys.stderr.write("openai-compat: serving needs the extra 'server'; in a clone: pip install '.[server]'\n")
        return 2
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_relevant)
    if config.verify is False and config.upstream is not None:
        warn_insecure()
    stopper = _Stopper()
    hooks = {"post_worker_init": _worker_begins(config, stopper), "worker_int": stopper.stop_at_once}
    options = {**DEFAULTS, **config.platform, **hooks}
    flags = {key: value for key, value in config.server.items() if value is not None}
    server = Application(
        lambda: OpenAICompat(config.backend(), settings=guarded(config.settings, addresses)),
        options,
        flags | _FIXED,
        config.receive_timeout,
    )
    addresses: list[object] = []
    try:
        error_text = _inherited_error() or server.start_error()
        if not error_text:
            addresses += server.addresses()
            server.run()
    except (OSError, OverflowError, RuntimeError) as error:  # of a value in GUNICORN_CMD_ARGS
        error_text = f"gunicorn cannot start: {error}"
    if error_text:
        sys.stderr.write(f"openai-compat: {error_text}\n")
        return 2
    return 0


def _inherited_error() -> str:
    """Return which variable of systemd's socket activation is not valid, or an empty text."""
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        if not (os.environ.get(name) or "0").isdecimal():
            return f"{name} must be a number, not {os.environ[name]!r}"
    return ""


def guarded(settings: Settings, addresses: Sequence[object]) -> Settings:
    """Return settings that allow the hosts and origins that Ollama allows, where the settings say nothing.

    A server that listens at addresses of this machine or its network only is guarded like that; a public address and a
    Unix socket have a proxy or other guards, and names that are not known here.

    :param addresses: of all sockets, as ``getsockname`` returns them.
    """
    hosts = [f"[{name[0]}]" if ":" in name[0] else name[0] for name in addresses if isinstance(name, tuple)]
    if not hosts or len(hosts) < len(addresses) or not all(map(is_local_address, hosts)):
        return settings
    unset = {name: LOCAL for name in ("allowed_hosts", "allowed_origins") if getattr(settings, name) is None}
    return Settings(**{**vars(settings), **unset})


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return False for urllib3's warnings about connections above the pool's size, which requests with ``n`` need."""
    return not str(record.msg).startswith("Connection pool is full")


def warn_insecure() -> None:
    """Log that certificates are not checked: once, instead of urllib3's warning for each request."""
    log.warning("the certificate of the upstream is not checked (--insecure)")
    warnings.filterwarnings("ignore", "Unverified HTTPS request")


class _Stopper:
    """Stops the application of a worker that stops, by a signal or a limit of requests.

    A worker waits for its streams before anything of Python's runs at its exit, and is killed if they take too long. No
    hook of gunicorn's is called before that wait, and a signal's handler must not use the store.
    """

    def __init__(self) -> None:
        self._has_stopped: threading.Event | None = None

    def watch(self, worker: Any) -> None:
        """Stop the application once the worker stops."""
        has_stopped = self._has_stopped = threading.Event()  # here, since gevent has replaced the class by now

        def wait() -> None:
            while worker.alive:
                time.sleep(_LOOK)
            try:
                worker.wsgi.stop()
            finally:
                has_stopped.set()

        _thread(wait)

    def stop_at_once(self, worker: Any) -> None:
        """End the worker on SIGINT; gunicorn would wait 30 s for threads that stream."""
        sys.stdout.flush()
        if self._has_stopped is not None:
            self._has_stopped.wait(_STOPPING)
        os._exit(0)


def _worker_begins(config: ServerConfig, stopper: _Stopper) -> Any:
    """Return gunicorn's hook for a worker that begins to serve."""

    def post_worker_init(worker: Any) -> None:
        stopper.watch(worker)
        if worker.age == 1:  # only one worker announces the server
            addresses = [address(sock.getsockname()) for sock in worker.sockets]
            _thread(lambda: print(announcement(config, addresses), flush=True))  # it waits for the upstream

    return post_worker_init


def _thread(target: Callable[[], object]) -> None:
    threading.Thread(target=target, daemon=True).start()


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
    is_public = not all(map(_is_local, addresses))
    try:
        probe = _probe(config)
        models = probe.tags().models or []
        names = ", ".join(model.request_name for model in models) or "none yet; `ollama pull` one"
        model = next(chat_models(probe, models, seconds=PROBE_TIMEOUT), "MODEL")
    except APIError as error:
        advice = "; `--demo` needs no Ollama." if config.has_demo else "."
        names, model = f"unknown: {error.message} The server runs anyway{advice}", "MODEL"
    return (
        f"openai-compat listens at {', '.join(urls)}\n"
        + ("  access:  reachable from other machines, no keys\n" if is_public else "")
        + f"  backend: {backend}\n"
        f"  models:  {names}\n"
        f"  try:     curl -N{flag} {base}/chat/completions -H 'Content-Type: application/json' "
        f'-d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )


def _is_local(url: str) -> bool:
    """Return whether the URL of a listening socket can be reached from this machine only."""
    host = urlsplit(url).hostname
    return host is None or ipaddress.ip_address(host.partition("%")[0]).is_loopback


def chat_models(backend: Backend, models: Iterable[native.ListedModel], *, seconds: float) -> Iterator[str]:
    """Yield the names of the models that can chat, as far as the server says so.

    The list of an older server has no capabilities, and that of a newer one may be wrong about an embedding model, so
    each model is looked up before it is yielded.

    :param seconds: after which models are not looked up any more.
    """
    until = time.monotonic() + seconds
    for model in models:
        if not model.can_chat:
            continue
        capabilities = model.capabilities
        if time.monotonic() < until:
            with suppress(APIError):  # the list has to do
                capabilities = backend.show(model.request_name).capabilities or capabilities
        if capabilities is None or "completion" in capabilities:
            yield model.request_name


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
