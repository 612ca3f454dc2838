"""One call of a WSGI application, by the rules of PEP 3333.

The application may call ``start_response`` as late as its first item and may use ``write()``; its ``close()`` is called
exactly once; every failure of it is raised as :class:`APIError` (W2–W5, F76). The response is not interpreted here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openai_compat.errors import APIError, answer_too_long, bad_gateway
from openai_compat.log import log
from openai_compat.transport.side_channel import calling_with, side_channel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

#: blank items after the last line that are read for the application to end by itself: most send one at most, and one
#: that never stops must not block the request
_MAX_BLANK_ITEMS = 64

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class WSGICall:
    """An application's response: ``status``, ``headers``, and the chunks of the body by iteration.

    Empty items are skipped. A failure of the application is logged and raised as a 502, or as the failure that
    ``Upstream`` stored in the side channel.

    :raises APIError: the application failed before its first chunk.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self._channel = side_channel(environ)
        self._written: deque[bytes] = deque()
        self._body_began = False
        self._iterable: Iterable[bytes] | None = None
        self._iterator: Iterator[bytes] = iter(())
        try:
            with calling_with(self._channel):
                self._iterable = app(environ, self._start_response)
                self._iterator = iter(self._iterable)
                while not self.status:
                    self._written.append(next(self._iterator))
        except StopIteration:
            if self.status:  # the body is empty
                return
            failure = self.take_failure()
            self.close()
            if failure is None:
                log.error("the wrapped application ended without calling start_response")
            raise failure or bad_gateway() from None
        except Exception as error:
            failure = self._translated(error)
            self.close()
            if failure is error:
                raise
            raise failure from error
        except BaseException:
            self.close()
            raise

    def take_failure(self) -> APIError | None:
        """Return the failure that ``Upstream`` stored, and clear it; None if its last call did not fail."""
        return self._channel.take_failure() if self._channel is not None else None

    def _translated(self, error: Exception) -> APIError:
        failure = self.take_failure()
        if failure is not None:
            return failure
        if isinstance(error, APIError):
            return error
        log.error("the wrapped application failed", cause=error)
        return bad_gateway("The backend failed.")

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if exc_info:
            try:
                if self._body_began and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks the reference cycle of this frame and the traceback
        elif self.status:
            raise RuntimeError("start_response was called twice")
        self.status = int(status[:3])
        self.headers = [(name + "", value + "") for name, value in headers]  # a TypeError here unless both are str
        return self._written.append

    def header(self, name: str) -> str:
        """Return the value of a response header, ``""`` if it is absent.

        :param name: in lower case.
        """
        return next((value for key, value in self.headers if key.lower() == name), "")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._channel is not None and self._channel.drain is None and self._channel.cancel.is_set:
            raise self.take_failure() or bad_gateway("The request was cancelled.")
        self._body_began = True
        try:
            item = b""
            while not item:
                item = self._written.popleft() if self._written else next(self._iterator)
                if not isinstance(item, bytes):
                    raise TypeError(f"the wrapped application returned {type(item).__name__}, not bytes")
        except StopIteration:
            if self._written:  # by write(), in the last step of the iterator
                return self.__next__()
            raise
        except Exception as error:
            failure = self._translated(error)
            if failure is error:
                raise
            raise failure from error
        return item

    def read(self, limit: int) -> bytes:
        """Return the rest of the body.

        :raises APIError: 502 if it is longer than *limit* bytes, or the application fails.
        """
        chunks, size = [], 0
        for chunk in self:
            size += len(chunk)
            if size > limit:
                raise answer_too_long()
            chunks.append(chunk)
        return b"".join(chunks)

    def finish(self) -> None:
        """Let the application end by itself after its last line, then close it.

        The body of an upstream is drained first, so that its connection can be reused. An application in process, and
        one that wraps an upstream whose body has ended, is iterated to its end, as a server would, so that code after
        its last ``yield`` runs.
        """
        drain = self._channel.drain if self._channel is not None else None
        try:
            if drain is None or drain():
                for _, item in zip(range(_MAX_BLANK_ITEMS), self, strict=False):
                    if item.strip():
                        break  # data after the last line is ignored (F35)
        except APIError as error:  # no failure of the request: the response is complete
            log.info("the backend failed after its last line: %s", error.message)
        finally:
            self.close()

    def close(self) -> None:
        """Close the application's iterable. Further calls do nothing."""
        iterable, self._iterable = self._iterable, None
        self._iterator = iter(())
        if self._channel is not None:
            self._channel.reset()
        close: Any = getattr(iterable, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # no failure of the request: the response is complete, or has failed already
                log.exception("the wrapped application failed in close()")
