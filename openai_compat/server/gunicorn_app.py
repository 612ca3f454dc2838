"""gunicorn as a library: configured by values, then by GUNICORN_CMD_ARGS, then by flags."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from gunicorn.app.base import BaseApplication


class Application(BaseApplication):  # type: ignore[misc, unused-ignore]
    """A gunicorn server of one application.

    :param make: makes the application, in each worker.
    :param options: gunicorn's settings; GUNICORN_CMD_ARGS overrides them.
    :param fixed: gunicorn's settings that override both.
    """

    def __init__(self, make: Callable[[], Any], options: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        self._make = make
        self._options = options
        self._fixed = fixed
        super().__init__(prog="openai-compat")

    def load_config(self) -> None:
        """Set gunicorn's configuration."""
        for name, value in self._options.items():
            self.cfg.set(name, value)
        from_environment = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
        for name, value in vars(from_environment).items():
            if value is not None and name != "args":
                self.cfg.set(name.lower(), value)
        for name, value in self._fixed.items():
            if name in self.cfg.settings:  # an older gunicorn has not all of them
                self.cfg.set(name, value)

    def taken_address(self) -> str:
        """Return why an address cannot be bound, empty if all can: gunicorn would retry and log five times."""
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
        """Return the application of this worker."""
        return self._make()
