"""gunicorn as a library: its settings come from values, GUNICORN_CMD_ARGS and flags, in this order.

Only gunicorn's own interface is handled here; the values are chosen in ``serve.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from gunicorn.app.base import BaseApplication


class Application(BaseApplication):  # type: ignore[misc, unused-ignore]
    """A gunicorn server of one WSGI application.

    :param make_application: returns the application; it is called in each worker.
    :param options: gunicorn's settings, overridden by GUNICORN_CMD_ARGS.
    :param fixed: gunicorn's settings that override GUNICORN_CMD_ARGS.
    """

    def __init__(
        self, make_application: Callable[[], Any], options: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> None:
        self._make_application = make_application
        self._options = options
        self._fixed = fixed
        super().__init__(prog="openai-compat")

    def load_config(self) -> None:
        """Set gunicorn's settings; gunicorn calls this."""
        for name, value in self._options.items():
            self.cfg.set(name, value)
        from_environment = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
        for name, value in vars(from_environment).items():
            if value is not None and name != "args":
                self.cfg.set(name.lower(), value)
        for name, value in self._fixed.items():
            if name in self.cfg.settings:  # an older gunicorn lacks some
                self.cfg.set(name, value)

    def bind_error(self) -> str:
        """Return why an address cannot be bound, or an empty text.

        gunicorn itself would try five times and log each failure.
        """
        for address in self.cfg.address:
            if not isinstance(address, tuple) or self.cfg.reuse_port:
                continue
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(address)
                except OSError as error:
                    return f"{address[0]}:{address[1]}: {error.strerror or error}"
        return ""

    def load(self) -> Any:
        """Return the application of this worker; gunicorn calls this after the fork."""
        return self._make_application()
