"""gunicorn as a library: its settings come from values, GUNICORN_CMD_ARGS and flags, in this order.

Only gunicorn's own interface is handled here; the values are chosen in ``serve.py``.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from gunicorn.app.base import BaseApplication

#: takes the place of gthread; as text, since gunicorn 22 does not know the name of a class
_BUFFERING_WORKER = "openai_compat.server.buffering_worker.BufferingThreadWorker"


#: the first descriptor that systemd passes on
_FIRST_INHERITED = 3


def _listed(name: str, value: Any) -> Any:
    """Return a value for gunicorn, which takes text for one address."""
    return value.split(",") if name == "bind" and isinstance(value, str) else value


def _bound(address: Any) -> Any:
    """Return the address of a socket as ``getsockname`` returns it: of one that is open already, or will be bound.

    :raises OSError: the descriptor is not a socket's.
    """
    if isinstance(address, int):
        with socket.socket(fileno=os.dup(address)) as inherited:
            return inherited.getsockname()
    if isinstance(address, tuple):
        with suppress(OSError):  # a name that is not found is an error of binding
            return socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM)[0][4]
    return address


class Application(BaseApplication):  # type: ignore[misc, unused-ignore]
    """A gunicorn server of one WSGI application.

    :param make_application: returns the application; it is called in each worker.
    :param options: gunicorn's settings, overridden by GUNICORN_CMD_ARGS.
    :param fixed: gunicorn's settings that override GUNICORN_CMD_ARGS.
    :param receive_timeout: seconds in which a request must arrive; the worker reads it.
    """

    def __init__(
        self,
        make_application: Callable[[], Any],
        options: Mapping[str, Any],
        fixed: Mapping[str, Any],
        receive_timeout: float,
    ) -> None:
        self.receive_timeout = receive_timeout
        self._make_application = make_application
        self._options = options
        self._fixed = fixed
        super().__init__(prog="openai-compat")

    def load_config(self) -> None:
        """Set gunicorn's settings; gunicorn calls this."""
        for name, value in self._options.items():
            self.cfg.set(name, _listed(name, value))
        from_environment = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
        for name, value in vars(from_environment).items():
            if value is not None and name != "args":
                self.cfg.set(name.lower(), value)
        for name, value in self._fixed.items():
            if name in self.cfg.settings:  # an older gunicorn lacks some
                self.cfg.set(name, _listed(name, value))
        if self.cfg.worker_class_str == "gthread":
            self.cfg.set("worker_class", _BUFFERING_WORKER)

    def addresses(self) -> list[Any]:
        """Return the addresses of the sockets, those that systemd has bound too, as ``getsockname`` returns them."""
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            return [_bound(address) for address in self.cfg.address]
        return [_bound(_FIRST_INHERITED + number) for number in range(int(os.environ.get("LISTEN_FDS", "0")))]

    def start_error(self) -> str:
        """Return why the server cannot start, or an empty text."""
        try:
            assert self.cfg.worker_class is not None  # it is imported here
        except (ImportError, RuntimeError) as error:
            return f"the worker class cannot be used: {' '.join(str(error).split())[-300:]}"
        return self._temporary_error() or self._bind_error()

    def _temporary_error(self) -> str:
        """Return why no temporary file can be made, or an empty text; each worker needs one, as a sign of life."""
        directory = self.cfg.worker_tmp_dir
        try:
            with tempfile.TemporaryFile(dir=directory):
                return ""
        except OSError as error:
            where = f"in {directory!r}" if directory else "in the usual directories"
            reason = error.strerror or error
            return f"no temporary file can be made {where} ({reason}); set a writable directory with --worker-tmp-dir"

    def _bind_error(self) -> str:
        """Return why an address cannot be bound, or an empty text.

        gunicorn itself would try five times and log each failure. Sockets that systemd or a server of before has bound
        are used as they are.
        """
        if os.environ.get("LISTEN_PID") == str(os.getpid()) or "GUNICORN_FD" in os.environ:
            return ""
        for address in self.cfg.address:
            error_text = _unix_error(address) if isinstance(address, str) else ""
            if isinstance(address, int):
                error_text = _descriptor_error(address)
            if isinstance(address, tuple) and not self.cfg.reuse_port:
                error_text = _address_error(address)
            if error_text:
                return f"{error_text}; set another address with --bind"
        return ""

    def load(self) -> Any:
        """Return the application of this worker; gunicorn calls this after the fork."""
        return self._make_application()


def _address_error(address: tuple[str, int]) -> str:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except (OSError, OverflowError) as error:
            return f"{address[0]}:{address[1]}: {getattr(error, 'strerror', None) or error}"
    return ""


def _descriptor_error(number: int) -> str:
    try:
        _bound(number)
    except OSError as error:
        return f"fd://{number}: {error.strerror or error}"
    return ""


def _unix_error(path: str) -> str:
    probe_path = f"{path}.{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(probe_path)
            os.unlink(probe_path)
        except OSError as error:
            return f"unix:{path}: {error.strerror or error}"
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        return f"unix:{path}: the file exists, and is not a socket"
    return ""
