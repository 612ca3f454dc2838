"""Work that goes on without its client: in threads of this process, limited in number, with a lease in the store.

While work goes on, its process reports it to the store every few seconds, with the events that it made. A run that is
not reported any more belongs to a process that died: whoever reads it next fails it. What is generated, and how its
events and bodies look, belongs to the endpoint.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context

from openai_compat.errors import INTERNAL_ERROR, APIError, overloaded
from openai_compat.log import log
from openai_compat.storage.runs import Batch
from openai_compat.storage.store import AlreadyStored, Item, Store, StoreFailed
from openai_compat.transport.cancel import Cancel

#: seconds between two writes of the events of a run: followers see them so much later, and a long response takes a few
#: hundred rows
_INTERVAL = 0.2
#: seconds between two reports of all runs, and after which one that was not reported belongs to a process that died:
#: several times the time-out of the store
_BEAT, _STALE = 2.0, 20.0
#: seconds after which the end of a run is written again, if the store failed
_RETRY = 1.0
#: seconds after which a follower reads the store again: other processes do not notify it
_POLL = 0.25
#: runs that wait for a thread, for each thread
_MAX_WAITING = 8

#: makes the body of a failed or cancelled object of its stored body, the new status and the error; None if the object
#: has ended already
Ended = Callable[[bytes, str, "APIError | None"], "bytes | None"]


class Job:
    """One piece of work, and what it made that is not stored yet. It runs in the context in which it is made.

    :param first: events with which it begins, one or more, each of them framed.
    """

    def __init__(
        self, owner: str | None, id: str, work: Callable[[Job], None], report: Report, first: Sequence[bytes]
    ) -> None:
        self.owner = owner
        self.id = id
        #: ends the native calls of the work
        self.cancel = Cancel()
        self._work = work
        self._context = copy_context()
        self._report = report
        self._lock = threading.Lock()
        self._frames = list(first)
        #: number of the first of them
        self._next = 0
        self._waits_since = 0.0

    def queue(self) -> None:
        """Store that the work waits, and its first events.

        :raises StoreFailed: the store failed.
        :raises ValueError: the object would be too large.
        """
        count = len(self._frames)
        self._report.begin(self, [(0, count - 1, b"".join(self._frames))])
        self._frames, self._next = [], count

    def do(self) -> None:
        """Do the work.

        :raises StoreFailed: its end could not be stored.
        :raises ValueError: its end cannot be stored, because it is too large.
        """
        self._context.run(self._work, self)

    def add(self, frames: Sequence[bytes]) -> None:
        """Add events, each of them framed; they are stored soon."""
        with self._lock:
            if not self._frames:
                self._waits_since = time.monotonic()
            self._frames += frames

    def report(self) -> bool:
        """Store the events that wait; return False if the run was taken away.

        :raises StoreFailed: the store failed; the events wait for the next time.
        :raises ValueError: the object would be too large.
        """
        with self._lock:
            if not self._frames:
                return True
            last = self._next + len(self._frames) - 1
            try:
                goes_on = self._report.beat(self, [(self._next, last, b"".join(self._frames))])
            except AlreadyStored:  # by an attempt that seemed to have failed
                goes_on = True
            self._frames, self._next = [], last + 1
        return goes_on

    @property
    def waits(self) -> float:
        """Return the seconds for which events wait to be stored."""
        return time.monotonic() - self._waits_since if self._frames else 0.0

    def begin(self, body: bytes) -> None:
        """Store the body of the object as work begins; if that fails, it stays as it is until the end."""
        try:
            self._report.save(self, body)
        except (StoreFailed, ValueError) as error:
            log.error("the beginning of a background response could not be stored: %s", error)

    def finish(self, body: bytes, outputs: Sequence[Item], extend: tuple[str, str] | None) -> None:
        """Store the end: the events so far, then the body and the output, with which the run ends.

        :param extend: kind and id of an object to which the items are added.
        :raises StoreFailed: the store failed, also when it was asked again.
        :raises UnknownParent: there is no such object to extend; the run goes on.
        :raises ValueError: the end is too large to be stored.
        """
        end = time.monotonic() + _STALE
        while True:
            try:
                if self.report():
                    self._report.save(self, body, outputs, extend, end_run=True)
                return
            except StoreFailed:
                if time.monotonic() + _RETRY > end or self.cancel.is_set:
                    raise
            time.sleep(_RETRY)


class Report:
    """The writes of one process to the store.

    :param kind: of the objects.
    """

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._outage = _Outage()
        self.holder = secrets.token_hex(16)

    def begin(self, job: Job, events: Sequence[Batch]) -> None:
        """Begin the run of work that waits."""
        self._store.begin_run(self._kind, job.owner, job.id, self.holder, events)

    def beat(self, job: Job, events: Sequence[Batch]) -> bool:
        """Return False if the run is to end: it was taken away, or ended by another process."""
        with self._outage.noted(job.id):
            return self._store.beat(self._kind, job.owner, job.id, self.holder, events)

    def beat_all(self, jobs: Sequence[Job]) -> set[str]:
        """Return the ids of those that are to go on."""
        with self._outage.noted(""):
            return self._store.beat_all(self._kind, self.holder, [job.id for job in jobs])

    def save(
        self,
        job: Job,
        body: bytes,
        outputs: Sequence[Item] = (),
        extend: tuple[str, str] | None = None,
        *,
        end_run: bool = False,
    ) -> None:
        """Store the body, unless the run was taken away.

        :raises UnknownParent: there is no such object to extend; nothing was written.
        """
        place = (self._kind, job.owner, job.id)
        with self._outage.noted(job.id):
            self._store.complete(*place, body, outputs, extend=extend, end_run=end_run, only_if_running=self.holder)

    def forget(self, job: Job) -> None:
        """Expect nothing more of work that has ended."""
        self._outage.forget(job.id)


class _Outage:
    """A failure of the store that lasts: its beginning and its end are logged, and not each attempt between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: whose last write failed
        self._failing: set[str] = set()

    @contextmanager
    def noted(self, who: str) -> Iterator[None]:
        """Note how a write ends.

        :raises StoreFailed: as the write does.
        """
        try:
            yield
        except StoreFailed as error:
            with self._lock:
                is_first = not self._failing
                self._failing.add(who)
            if is_first:
                log.error("background responses cannot be stored at present: %s", error)
            raise
        with self._lock:
            is_last = self._failing == {who}
            self._failing.discard(who)
        if is_last:
            log.warning("background responses are stored again")

    def forget(self, who: str) -> None:
        """Expect no more writes of one."""
        with self._lock:
            self._failing.discard(who)


class Background:
    """The background work of an application, in whichever process it is.

    :param kind: of the objects in the store.
    :param threads: pieces of work at once, in each process; more wait.
    :param ended: makes the body of an object that did not come to its end.
    """

    def __init__(self, store: Store, kind: str, *, threads: int, ended: Ended) -> None:
        self._store = store
        self._kind = kind
        self._threads = threads
        self._ended = ended
        self._pid = 0
        self._lock = threading.Lock()
        self._begin_process()

    def _begin_process(self) -> None:
        """Begin without work: in a new object, and in a child of a fork."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._report = Report(self._store, self._kind)
            self._changed = threading.Condition()
            self._jobs: dict[str, Job] = {}
            self._waiting: deque[Job] = deque()
            self._running = 0
            self._reporter: threading.Thread | None = None
            self._has_exit_hook = False
            self._is_closing = False
            #: whether the work of this process was ended, since the process stops
            self.is_closed = False

    def start(self, owner: str | None, id: str, work: Callable[[Job], None], first: Sequence[bytes]) -> None:
        """Start work on a stored object, at once or when a thread is free.

        :param first: events, one or more, each of them framed, which are stored at once.
        :raises APIError: 503 if too much work waits, or the process stops.
        :raises StoreFailed: the store failed.
        :raises ValueError: the object would be too large.
        """
        self._begin_process()
        with self._changed:
            if len(self._waiting) >= self._threads * _MAX_WAITING:
                raise overloaded("Too many background responses wait.")
        job = Job(owner, id, work, self._report, first)
        job.queue()
        with self._changed:
            if self._is_closing:
                raise stopping()
            if not self._has_exit_hook:
                self._has_exit_hook = True
                atexit.register(_close, weakref.ref(self), os.getpid())
            self._jobs[id] = job
            self._waiting.append(job)
            try:
                self._start_threads()
            except RuntimeError as error:  # the system has no room for another one, or the process ends
                if not self._running:
                    self._drop(job)
                    raise overloaded("No thread could be started.") from error

    def _start_threads(self) -> None:
        if self._reporter is None:
            self._reporter = _thread(self._report_all, "openai-compat-background")
        if self._running < self._threads:
            _thread(self._run_all, "openai-compat-background-run")
            self._running += 1

    def _run_all(self) -> None:
        """Do all work that waits, in a thread of its own."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._running -= 1
                    return
                job = self._waiting.popleft()
            self._run(job)
            self._report.forget(job)
            with self._changed:
                self._jobs.pop(job.id, None)
                self._changed.notify_all()

    def _run(self, job: Job) -> None:
        """Do a piece of work; whatever happens, it ends."""
        try:
            if not job.cancel.is_set:
                job.do()
        except (StoreFailed, ValueError) as error:
            self._fail(job, error)
        except Exception:
            log.exception("a background response failed because of a defect in openai_compat")
            self._fail(job, None)

    def _fail(self, job: Job, error: Exception | None) -> None:
        """End work whose events or end cannot be stored."""
        job.cancel.set()
        if error is not None:
            log.error("a background response could not be stored: %s", error)
        try:
            self._end(job.owner, job.id, "failed", INTERNAL_ERROR if error is None else _UNSTORED)
        except (StoreFailed, ValueError) as failure:  # it becomes stale, and then failed
            log.error("a background response could not be ended: %s", failure)

    def _drop(self, job: Job) -> None:
        """End work that was taken away. What waits for a thread waits no longer."""
        job.cancel.set()
        if job in self._waiting:
            self._waiting.remove(job)
            self._jobs.pop(job.id, None)

    def _report_all(self) -> None:
        """Report all work of this process, until there is none."""
        reported = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._jobs, timeout=_INTERVAL)
                if not self._jobs:
                    self._reporter = None
                    return
                jobs = [job for job in self._jobs.values() if not job.cancel.is_set]
            try:
                if time.monotonic() - reported > _BEAT:
                    self._beat(jobs)
                    reported = time.monotonic()
                for job in jobs:
                    self._report_one(job)
            except Exception:  # the next round may succeed, and without a report all work is lost
                log.exception("background responses could not be reported because of a defect in openai_compat")
            with self._changed:
                self._changed.notify_all()

    def _beat(self, jobs: Sequence[Job]) -> None:
        """Report all work in one operation: one for each could take longer than the lease."""
        try:
            kept = self._report.beat_all(jobs)
        except StoreFailed:
            return
        with self._changed:
            for job in jobs:
                if job.id not in kept:
                    self._drop(job)

    def _report_one(self, job: Job) -> None:
        try:
            if not job.report():
                with self._changed:
                    self._drop(job)
        except StoreFailed as error:
            if job.waits > _STALE:  # a longer wait would take more and more memory
                self._fail(job, error)
        except ValueError as error:  # they never can
            self._fail(job, error)

    def cancel(self, owner: str | None, id: str) -> None:
        """Cancel the work on an object, wherever it is; nothing happens if it has ended.

        :raises StoreFailed: the store failed.
        """
        self._end(owner, id, "cancelled", None)
        self._begin_process()
        with self._changed:
            job = self._jobs.get(id)
            if job is not None:
                self._drop(job)
            self._changed.notify_all()

    def fail_if_stale(self, owner: str | None, id: str, created: int) -> None:
        """Fail the work on an object that has not ended, if its process has died.

        :param created: when the object was stored, in Unix seconds, which is before its run begins.
        :raises StoreFailed: the store failed.
        """
        run = self._store.run(self._kind, owner, id)
        if (time.time() - created if run is None else run.age) > _STALE:
            self._end(owner, id, "failed", _DIED)

    def wait(self) -> None:
        """Wait until there may be new events, for a short time at most."""
        self._begin_process()
        with self._changed:
            self._changed.wait(_POLL)

    def close(self) -> None:
        """End all work of this process as failed, since the process ends; followers end, too."""
        self._begin_process()
        with self._changed:
            self._is_closing = True
            jobs = list(self._jobs.values())
        for job in jobs:
            try:
                self._end(job.owner, job.id, "failed", _STOPPED)
            except (StoreFailed, ValueError) as error:
                log.error("a background response could not be ended: %s", error)
            # Not before: work that is cancelled leaves the table, and another thread that closes would exit.
            job.cancel.set()
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def _end(self, owner: str | None, id: str, status: str, error: APIError | None) -> None:
        """Take the run of an object away, and end the object."""
        run = self._store.run(self._kind, owner, id)
        stored = self._store.get(self._kind, owner, id)
        body = None if stored is None else self._ended(stored.body, status, error)
        if body is not None:
            holder = None if run is None else run.holder
            self._store.complete(self._kind, owner, id, body, end_run=True, only_if_running=holder)


def stopping() -> APIError:
    """Return the error for what a process that stops does not do; another one may."""
    return overloaded("The server is stopping.")


_DIED = APIError(500, "The process that generated the response died.")
_STOPPED = APIError(500, "The server was stopped while it generated the response.")
_UNSTORED = APIError(500, "The response could not be stored.")


def _thread(target: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _close(background: weakref.ref[Background], pid: int) -> None:
    """End the work of a process as it exits; not that of its parent, in a child of a fork."""
    found = background()
    if found is not None and pid == os.getpid():
        found.close()
