"""Several native streams read as one: in parallel threads, or one after the other.

What needs several calls (``n``, a list of prompts) reads ``(index, message)`` pairs from one object, which also closes
everything that it opened. Behind a URL each call has a thread; an application in process is called in the thread of its
request, since it may not be thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from typing import Generic, Protocol, TypeVar

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.client import StartCall
from openai_compat.native.stream import NativeStream
from openai_compat.transport.cancel import Cancel

L = TypeVar("L", bound="native.StreamLine")
L_co = TypeVar("L_co", bound="native.StreamLine", covariant=True)

#: messages of a thread that wait for the reader at most: enough for a slow client, little memory for a fast server
_MAX_WAITING = 64

#: seconds that close() waits for its threads after they were cancelled: connecting cannot be interrupted
_JOIN_TIMEOUT = 2.0


class Streams(Protocol[L_co]):
    """The messages of several streams, each with the index of its stream."""

    @property
    def pending(self) -> bool:
        """Return whether the next message can be read without waiting."""

    @property
    def size(self) -> int:
        """Return the bytes of all native responses that were read so far."""

    def __iter__(self) -> Iterator[tuple[int, L_co]]: ...

    def stop(self, index: int) -> None:
        """Close one stream: no more messages of it are needed."""

    def close(self) -> None:
        """Close every stream that was opened, once."""


def streams(start_calls: Sequence[StartCall[L]], *, threads: int, cancel: Cancel) -> Streams[L]:
    """Start the calls; the first message of those that run at once has been read then.

    :param threads: calls that may run at once; with 1 they run one after the other, in this thread.
    :param cancel: ends all of them.
    :raises APIError: the first error of one of them; the others are closed.
    """
    if threads == 1 or len(start_calls) == 1:
        return Sequential(start_calls, cancel)
    return Threaded(start_calls, cancel, min(threads, len(start_calls)))


class Sequential(Generic[L]):
    """Calls one after the other: each starts when the one before has ended."""

    def __init__(self, start_calls: Sequence[StartCall[L]], cancel: Cancel) -> None:
        self._start_calls = deque(enumerate(start_calls))
        self._cancel = cancel
        self._read = 0
        self._index = 0
        self._stream: NativeStream[L] | None = None
        self._next()

    def _next(self) -> NativeStream[L] | None:
        if not self._start_calls:
            return None
        self._index, start_call = self._start_calls.popleft()
        try:
            self._stream = start_call(self._cancel.child())
        except APIError as error:
            if self._read:  # tokens were produced: a client that repeats the request pays for them twice
                error.retry = False
            raise
        return self._stream

    @property
    def pending(self) -> bool:
        # What follows the end of a stream is the opening of the next, and that may take long.
        return self._stream is not None and self._stream.pending and not (self._stream.done and self._start_calls)

    @property
    def size(self) -> int:
        return self._read + (self._stream.size if self._stream is not None else 0)

    def __iter__(self) -> Iterator[tuple[int, L]]:
        # The stream is looked at anew after each message: stop() may have ended it meanwhile.
        while (stream := self._stream or self._next()) is not None:
            message = next(stream, None)
            if message is None:
                self._end()
            else:
                yield self._index, message

    def stop(self, index: int) -> None:
        if index == self._index:
            self._end()
        self._start_calls = deque(job for job in self._start_calls if job[0] != index)

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._read += stream.size
            stream.close()

    def close(self) -> None:
        self._start_calls.clear()
        self._end()


class Threaded(Generic[L]):
    """Calls in threads, a limited number at once; each thread closes what it opened."""

    def __init__(self, start_calls: Sequence[StartCall[L]], cancel: Cancel, threads: int) -> None:
        self._changed = threading.Condition()
        self._todo = deque(enumerate(start_calls))
        self._cancels = [cancel.child() for _ in start_calls]
        self._sizes = [0] * len(start_calls)
        self._ended: set[int] = set()
        self._messages: deque[tuple[int, L]] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._unopened = set(range(threads))
        self._limit = _MAX_WAITING * threads
        # Each in a copy of this context, so that what follows a request (its log, its trace) follows the calls.
        self._threads = [
            threading.Thread(target=copy_context().run, args=(self._work,), name=f"openai-compat-{i}", daemon=True)
            for i in range(threads)
        ]
        self._running = threads
        try:
            for thread in self._threads:
                thread.start()
            with self._changed:
                # Which thread opens one does not matter: a fast one may do the work of two.
                self._changed.wait_for(lambda: not self._unopened or self._failure is not None or not self._running)
            self._raise()
        except BaseException:  # also of the wait, such as the time-out of a server
            self.close()
            raise

    @property
    def pending(self) -> bool:
        return bool(self._messages)

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def __iter__(self) -> Iterator[tuple[int, L]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._failure is not None or not self._running)
                if not self._messages:
                    self._raise()
                    return
                index, message = self._messages.popleft()
                if len(self._messages) == self._limit - 1:
                    self._changed.notify_all()
            yield index, message

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def stop(self, index: int) -> None:
        self._cancels[index].set()
        with self._changed:
            self._messages = deque(pair for pair in self._messages if pair[0] != index)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._todo.clear()
            self._messages.clear()
            self._changed.notify_all()
        for index, cancel in enumerate(self._cancels):
            if index not in self._ended:  # those that have are on their way back to the pool
                cancel.set()
        until = time.monotonic() + _JOIN_TIMEOUT
        for thread in filter(threading.Thread.is_alive, self._threads):  # not all, where one could not be started
            thread.join(max(0.0, until - time.monotonic()))

    # -- in the threads -----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (job := self._take()) is not None:
                self._run(*job)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _take(self) -> tuple[int, StartCall[L]] | None:
        with self._changed:
            return self._todo.popleft() if self._todo else None

    def _run(self, index: int, start_call: StartCall[L]) -> None:
        cancel = self._cancels[index]
        if cancel.is_set:
            return
        try:
            stream = start_call(cancel)
            try:
                self._opened(index)
                for message in stream:
                    self._sizes[index] = stream.size
                    if message.done:
                        self._ended.add(index)
                    if not self._put(index, message):
                        break
            finally:
                stream.close()
        except BaseException:
            if not cancel.is_set:  # a call that was cancelled fails as expected
                raise

    def _opened(self, index: int) -> None:
        with self._changed:
            self._unopened.discard(index)
            self._changed.notify_all()

    def _put(self, index: int, message: L) -> bool:
        """Hand a message over; return False if no more messages of this stream are needed."""
        with self._changed:
            cancel = self._cancels[index]
            self._changed.wait_for(lambda: len(self._messages) < self._limit or self._is_over() or cancel.is_set)
            if self._is_over() or cancel.is_set:
                return False
            self._messages.append((index, message))
            self._changed.notify_all()
            return True

    def _is_over(self) -> bool:
        return self._closed or self._failure is not None

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None and not self._closed:
                self._failure = error
            self._todo.clear()
            self._changed.notify_all()
