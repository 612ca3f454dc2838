"""Several sources of messages, read as one: each message has the index of its source.

Requests with several native calls (``n``, a list of prompts) read them through one object, which closes every source
that it opened. Calls of a remote backend run in parallel threads; an application in process is called in the request's
own thread, one call after the other, since it may not be thread-safe. Messages are passed on unchanged; a source is a
native stream, or what makes a choice of one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Generic, Protocol, TypeVar

from openai_compat.errors import APIError
from openai_compat.transport.cancel import Cancel

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)

#: messages a thread that may wait for the reader: about a second of a model's output, so that a slow client does not
#: block the native calls at once, while a fast server cannot fill the memory
_MAX_WAITING = 64

#: seconds that close() waits for its threads after it cancelled them: they end at once but while they connect, which
#: cannot be interrupted and must not delay the end of the request
_JOIN_TIMEOUT = 2.0


class Source(Protocol[L_co]):
    """The messages of one choice, or of one native stream. Iterate it once, close it once."""

    @property
    def pending(self) -> bool:
        """Return whether the next message is available without waiting."""

    @property
    def done(self) -> bool:
        """Return whether the last message was read."""

    @property
    def size(self) -> int:
        """Return the number of bytes read so far."""

    def __iter__(self) -> Iterator[L_co]: ...

    def close(self) -> None:
        """Close what was opened."""


#: a function that opens a source and reads its first message; its argument cancels this source alone
StartSource = Callable[[Cancel], Source[L]]


class Streams(Protocol[L_co]):
    """The messages of several sources, as pairs of a stream's index and a message. Iterate it once."""

    @property
    def pending(self) -> bool:
        """Return whether the next message is available without waiting."""

    @property
    def size(self) -> int:
        """Return the number of bytes read so far, of all native responses."""

    def __iter__(self) -> Iterator[tuple[int, L_co]]: ...

    def stop(self, index: int) -> None:
        """Close one stream early; no more of its messages follow."""

    def close(self) -> None:
        """Close every open stream, and start no more calls."""


def streams(start_calls: Sequence[StartSource[L]], *, threads: int, cancel: Cancel) -> Streams[L]:
    """Start native calls and return their messages.

    As many calls as may run at once have opened their streams, and so read a first message, when this returns.

    :param threads: number of calls that may run at once; with 1 they run one after the other, in this thread.
    :param cancel: cancels all calls.
    :raises APIError: the first error of a call; all other calls are closed.
    """
    if threads == 1 or len(start_calls) == 1:
        return Sequential(start_calls, cancel)
    return Threaded(start_calls, cancel, min(threads, len(start_calls)))


class Sequential(Generic[L]):
    """Streams of calls that run one after the other, in the thread that reads them."""

    def __init__(self, start_calls: Sequence[StartSource[L]], cancel: Cancel) -> None:
        self._start_calls = deque(enumerate(start_calls))
        self._cancel = cancel
        self._ended_size = 0
        self._index = 0
        self._stream: Source[L] | None = None
        self._messages: Iterator[L] = iter(())
        self._start_next()

    def _start_next(self) -> Source[L] | None:
        """Start the next call; return None if there is none."""
        if not self._start_calls:
            return None
        self._index, start_call = self._start_calls.popleft()
        try:
            self._stream = start_call(self._cancel.child())
            self._messages = iter(self._stream)
        except APIError as error:
            if self._ended_size:  # tokens were generated: a client that retries pays for them twice
                error.retry = False
            raise
        return self._stream

    @property
    def pending(self) -> bool:
        """Return whether the open stream has a message that is available without waiting."""
        # After the final message of a stream the next call starts, which may take long.
        return self._stream is not None and self._stream.pending and not (self._stream.done and self._start_calls)

    @property
    def size(self) -> int:
        """Return the number of bytes read so far, of the open and the closed streams."""
        return self._ended_size + (self._stream.size if self._stream is not None else 0)

    def __iter__(self) -> Iterator[tuple[int, L]]:
        # The stream is read again after each message: stop() may have closed it meanwhile.
        while (self._stream or self._start_next()) is not None:
            message = next(self._messages, None)
            if message is None:
                self._close_stream()
            else:
                yield self._index, message

    def stop(self, index: int) -> None:
        """Close one stream early, or never start its call."""
        if index == self._index:
            self._close_stream()
        self._start_calls = deque(job for job in self._start_calls if job[0] != index)

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._ended_size += stream.size
            stream.close()

    def close(self) -> None:
        """Close the open stream, and start no more calls."""
        self._start_calls.clear()
        self._close_stream()


class Threaded(Generic[L]):
    """Streams of calls that run in a limited number of threads; each thread closes the streams that it opened."""

    def __init__(self, start_calls: Sequence[StartSource[L]], cancel: Cancel, threads: int) -> None:
        self._changed = threading.Condition()
        self._waiting_calls = deque(enumerate(start_calls))
        self._cancels = [cancel.child() for _ in start_calls]
        self._sizes = [0] * len(start_calls)
        self._ended: set[int] = set()
        self._messages: deque[tuple[int, L]] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        #: the first calls, one a thread, that have not opened their streams yet
        self._unopened = set(range(threads))
        self._limit = _MAX_WAITING * threads
        # Each runs in a copy of this context, so that logging and tracing see the request in its native calls too.
        self._threads = [
            threading.Thread(target=copy_context().run, args=(self._work,), name=f"openai-compat-{i}", daemon=True)
            for i in range(threads)
        ]
        self._running = threads
        try:
            for thread in self._threads:
                thread.start()
            with self._changed:
                # Any thread may open any of them: a fast thread may open two.
                self._changed.wait_for(lambda: not self._unopened or self._failure is not None or not self._running)
            self._raise_failure()
        except BaseException:  # a server may end a request by an exception, such as a time-out
            self.close()
            raise

    @property
    def pending(self) -> bool:
        """Return whether a message of any stream is available without waiting."""
        return bool(self._messages)

    @property
    def size(self) -> int:
        """Return the number of bytes that the threads read so far."""
        return sum(self._sizes)

    def __iter__(self) -> Iterator[tuple[int, L]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._failure is not None or not self._running)
                if not self._messages:
                    self._raise_failure()
                    return
                index, message = self._messages.popleft()
                if len(self._messages) == self._limit - 1:  # it was full, and threads wait for room
                    self._changed.notify_all()
            yield index, message

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def stop(self, index: int) -> None:
        """Cancel one call and drop its messages."""
        self._cancels[index].set()
        with self._changed:
            self._messages = deque(pair for pair in self._messages if pair[0] != index)
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel all calls and wait for their threads, for a limited time."""
        with self._changed:
            self._closed = True
            self._waiting_calls.clear()
            self._messages.clear()
            self._changed.notify_all()
        for index, cancel in enumerate(self._cancels):
            if index not in self._ended:  # the connection of a call that ended returns to the pool unharmed
                cancel.set()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        # A thread that could not be started cannot be joined.
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- run in the threads -------------------------------------------------------------------

    def _work(self) -> None:
        """Run waiting calls until there are no more."""
        try:
            while (job := self._take_call()) is not None:
                self._run(*job)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _take_call(self) -> tuple[int, StartSource[L]] | None:
        with self._changed:
            return self._waiting_calls.popleft() if self._waiting_calls else None

    def _run(self, index: int, start_call: StartSource[L]) -> None:
        """Make one call and pass on its messages."""
        cancel = self._cancels[index]
        if cancel.is_set:
            return
        try:
            stream = start_call(cancel)
            try:
                self._mark_opened(index)
                for message in stream:
                    self._sizes[index] = stream.size
                    if stream.done:
                        self._ended.add(index)
                    if not self._pass_on(index, message):
                        break
            finally:
                stream.close()
        except BaseException:
            if not cancel.is_set:  # a call that was cancelled fails as expected
                raise

    def _mark_opened(self, index: int) -> None:
        with self._changed:
            self._unopened.discard(index)
            self._changed.notify_all()

    def _pass_on(self, index: int, message: L) -> bool:
        """Queue a message for the reader; return False if the stream was stopped, or all were."""
        with self._changed:
            cancel = self._cancels[index]
            self._changed.wait_for(lambda: len(self._messages) < self._limit or self._is_finished() or cancel.is_set)
            if self._is_finished() or cancel.is_set:
                return False
            self._messages.append((index, message))
            self._changed.notify_all()
            return True

    def _is_finished(self) -> bool:
        return self._closed or self._failure is not None

    def _fail(self, error: BaseException) -> None:
        """Store the first failure, which the reader raises, and start no more calls."""
        with self._changed:
            if self._failure is None and not self._closed:
                self._failure = error
            self._waiting_calls.clear()
            self._changed.notify_all()
