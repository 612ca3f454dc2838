"""The log of the package. A handler or a filter of the application that raises never costs an answer (F75).

Every module logs by ``from openai_compat.log import log``. Records belong to the logger ``openai_compat`` of the
standard library, where applications configure them as usual.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

_logger = logging.getLogger("openai_compat")


class Log:
    """The methods of a logger that the package uses. None of them raises."""

    def debug(self, message: str, *values: object) -> None:
        """Log what is of use to a developer."""
        self._log(logging.DEBUG, message, values)

    def info(self, message: str, *values: object) -> None:
        """Log what is usual."""
        self._log(logging.INFO, message, values)

    def warning(self, message: str, *values: object) -> None:
        """Log what an operator may want to change."""
        self._log(logging.WARNING, message, values)

    def error(self, message: str, *values: object, cause: BaseException | None = None) -> None:
        """Log a failure.

        :param cause: its traceback is logged too.
        """
        self._log(logging.ERROR, message, values, exc_info=cause)

    def exception(self, message: str, *values: object) -> None:
        """Log a failure with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, message, values, exc_info=True)

    def log(self, level: int, message: str, *values: object) -> None:
        """Log at any level."""
        self._log(level, message, values)

    def _log(self, level: int, message: str, values: tuple[object, ...], **options: Any) -> None:
        try:
            # 3: the record names the line that called a method above
            _logger.log(level, message, *values, stacklevel=3, **options)
        except Exception:  # of a filter, a handler or a factory of records, whatever it is
            _report()


def _report() -> None:
    """Write the traceback to standard error, as handlers of the standard library do, if that is possible."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            traceback.print_exc(file=sys.stderr)
        except (OSError, ValueError):  # standard error is closed: nothing is left to report to
            return


log = Log()
