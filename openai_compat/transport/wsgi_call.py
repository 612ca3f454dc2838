"""One call of a WSGI application, as PEP 3333 has it.

The head may come as late as the first item, bytes may come by ``write()``, ``close()`` is called
exactly once, and whatever else the application does wrong is one :class:`APIError` (W2–W5, F76).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError, answer_too_long, bad_gateway
from openai_compat.transport.side_channel import side_channel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger("openai_compat")

#: blank items after the last line that are waited for
_BLANKS = 64

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class WSGICall:
    """An application's answer: ``status``, ``headers``, and its body by iteration.

    Empty items are left out. Every failure of the application is logged and raised as a 502; where the side channel
    has the failure of an ``Upstream``, that one is raised.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self._channel = side_channel(environ)
        self._written: deque[bytes] = deque()
        self._began = False
        self._iterable: Iterable[bytes] | None = None
        self._iterator: Iterator[bytes] = iter(())
        try:
            self._iterable = app(environ, self._start_response)
            self._iterator = iter(self._iterable)
            while not self.status:
                self._written.append(next(self._iterator))
        except StopIteration:
            failure = self.take_failure()
            self.close()
            if failure is None:
                log.error("the wrapped application ended without calling start_response")
            raise failure or bad_gateway() from None
        except Exception as error:
            failure = self._translated(error)
            self.close()
            raise failure from error
        except BaseException:
            self.close()
            raise

    def take_failure(self) -> APIError | None:
        """Return the failure of the ``Upstream`` behind the application, if its last answer was one; once."""
        return self._channel.take_failure() if self._channel is not None else None

    def _translated(self, error: Exception) -> APIError:
        failure = self.take_failure()
        if failure is not None:
            return failure
        if isinstance(error, APIError):
            return error
        log.error("the wrapped application failed", exc_info=error)
        return bad_gateway("The backend failed.")

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if exc_info:
            try:
                if self._began and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # or the traceback holds this frame, and the frame the traceback
        elif self.status:
            raise RuntimeError("start_response was called twice")
        self.status = int(status[:3])
        self.headers = [(name + "", value + "") for name, value in headers]  # strings, or a TypeError here
        return self._written.append

    def header(self, name: str) -> str:
        """The value of a response header, or ``""``."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._began = True
        try:
            item = b""
            while not item:
                item = self._written.popleft() if self._written else next(self._iterator)
                if not isinstance(item, bytes):
                    raise TypeError(f"the wrapped application gave {type(item).__name__}, not bytes")
        except StopIteration:
            if self._written:  # by write(), in the last step of the iterator
                return self.__next__()
            failure = self.take_failure()
            if failure is not None:  # caught on its way, so that a broken answer looks like a short one
                raise failure from None
            raise
        except Exception as error:
            raise self._translated(error) from error
        return item

    def read(self, limit: int) -> bytes:
        """The rest of the body.

        :raises APIError: 502 if it is longer than *limit* bytes.
        """
        pieces, size = [], 0
        for piece in self:
            size += len(piece)
            if size > limit:
                raise answer_too_long()
            pieces.append(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """Let the application end by itself, after its last line, then close it.

        A remote body is drained, within its own short time; an application in process is run to its end, as its
        server would, so that code after its last ``yield`` runs.
        """
        drain = self._channel.drain if self._channel is not None else None
        try:
            if drain is not None:
                drain()
            else:
                for _, item in zip(range(_BLANKS), self, strict=False):
                    if item.strip():
                        break  # more after the end: nobody's (F35)
        except APIError as error:  # logged already, or of no matter any more: the answer is complete
            log.info("the backend failed after its last line: %s", error.message)
        finally:
            self.close()

    def close(self) -> None:
        """Close the application's iterable, once."""
        iterable, self._iterable = self._iterable, None
        self._iterator = iter(())
        if self._channel is not None:
            self._channel.reset()
        close: Any = getattr(iterable, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # what was answered stands
                log.exception("the wrapped application failed in close()")
