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
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial

from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.storage.store import Item, Store, StoreFailed, UnknownParent
from openai_compat.transport.cancel import Cancel

#: seconds between two writes of the events of a run: followers see them so much later, and a long response takes a few
#: hundred rows
_INTERVAL = 0.2
#: seconds after which a run without events is reported, and after which one that was not reported belongs to a process
#: that died: several times the time-out of the store
_BEAT, _STALE = 2.0, 20.0
#: seconds after which a follower reads the store again: other processes do not notify it
_POLL = 0.25
#: runs that wait for a thread, for each thread
_MAX_WAITING = 8

#: makes the body of a failed or cancelled object of its stored body, the new status and the error; None if the object
#: has ended already
Ended = Callable[[bytes, str, "APIError | None"], "bytes | None"]


class Job:
    """One piece of work, and what it made that is not stored yet.

    :param first: number of its first event.
    """

    def __init__(self, owner: str | None, id: str, work: Callable[[Job], None], report: Report, first: int = 0) -> None:
        self.owner = owner
        self.id = id
        #: ends the native calls of the work
        self.cancel = Cancel()
        self.work = work
        self._report = report
        self._lock = threading.Lock()
        self._frames: list[bytes] = []
        self._next = first
        self._reported = time.monotonic()

    def add(self, frames: Sequence[bytes]) -> None:
        """Add events, each of them framed; they are stored soon."""
        with self._lock:
            self._frames += frames

    def report(self, *, now: bool = False) -> bool:
        """Store the events that wait, and renew the lease; return False if the run was taken away.

        :param now: also if nothing waits.
        :raises StoreFailed: the store failed; the events wait for the next time.
        """
        with self._lock:
            if not (self._frames or now or time.monotonic() - self._reported > _BEAT):
                return True
            last = self._next + len(self._frames) - 1
            batch = [(self._next, last, b"".join(self._frames))] if self._frames else []
            goes_on = self._report.beat(self, batch)
            self._frames, self._next, self._reported = [], last + 1, time.monotonic()
        return goes_on

    @property
    def unreported(self) -> float:
        """Return the seconds since the lease was renewed."""
        return time.monotonic() - self._reported

    def begin(self, body: bytes) -> None:
        """Store the body of the object as work begins.

        :raises StoreFailed: the store failed.
        """
        self._report.save(self, body)

    def finish(self, body: bytes, outputs: Sequence[Item], extend: tuple[str, str] | None) -> None:
        """Store the end: the events so far, then the body and the output, with which the run ends.

        :param extend: kind and id of an object to which the items are added.
        """
        try:
            if self.report():
                self._report.save(self, body, outputs, extend, end_run=True)
        except (StoreFailed, ValueError) as error:  # it becomes stale, and then failed
            log.error("the end of a background response could not be stored: %s", error)


class Report:
    """The writes of one process to the store.

    :param kind: of the objects.
    """

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self.holder = secrets.token_hex(16)

    def begin(self, job: Job) -> None:
        self._store.begin_run(self._kind, job.owner, job.id, self.holder)

    def beat(self, job: Job, events: Sequence[tuple[int, int, bytes]]) -> bool:
        """Return False if the run is to end: it was taken away, or somebody asked for its end."""
        return self._store.beat(self._kind, job.owner, job.id, self.holder, events) is False

    def save(
        self,
        job: Job,
        body: bytes,
        outputs: Sequence[Item] = (),
        extend: tuple[str, str] | None = None,
        *,
        end_run: bool = False,
    ) -> None:
        """Store the body, unless the run was taken away."""

        def complete(extend: tuple[str, str] | None) -> None:
            place = (self._kind, job.owner, job.id)
            self._store.complete(*place, body, outputs, extend=extend, end_run=end_run, only_if_running=self.holder)

        try:
            complete(extend)
        except UnknownParent:
            log.error("a background response could not be added to its conversation, which was deleted")
            complete(None)


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
            self._closes = False

    def start(self, owner: str | None, id: str, work: Callable[[Job], None]) -> None:
        """Start work on a stored object, at once or when a thread is free.

        :raises APIError: 503 if too much work waits.
        :raises StoreFailed: the store failed.
        """
        self._begin_process()
        with self._changed:
            if len(self._waiting) >= self._threads * _MAX_WAITING:
                raise APIError(503, "Too many background responses wait.", code="overloaded")
        job = Job(owner, id, work, self._report)
        self._report.begin(job)
        with self._changed:
            if not self._closes:
                self._closes = True
                atexit.register(_close, weakref.ref(self), os.getpid())
            self._jobs[id] = job
            self._waiting.append(job)
            if self._reporter is None:
                self._reporter = _thread(self._report_all, "openai-compat-background")
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and self._running < self._threads:
            self._running += 1
            _thread(partial(self._run, self._waiting.popleft()), "openai-compat-background-run")

    def _run(self, job: Job) -> None:
        """Do a piece of work, in a thread of its own."""
        try:
            if not job.cancel.is_set:
                job.work(job)
        except Exception:
            log.exception("a background response failed because of a defect in openai_compat")
        finally:
            with self._changed:
                self._running -= 1
                self._jobs.pop(job.id, None)
                self._start_waiting()
                self._changed.notify_all()

    def _report_all(self) -> None:
        """Report all work of this process, until there is none."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._jobs, timeout=_INTERVAL)
                if not self._jobs:
                    self._reporter = None
                    return
                jobs = list(self._jobs.values())
            for job in jobs:
                self._report_one(job)
            with self._changed:
                self._changed.notify_all()

    def _report_one(self, job: Job) -> None:
        try:
            if not job.report():
                job.cancel.set()
        except (StoreFailed, ValueError) as error:
            log.error("a background response could not be reported: %s", error)
            if job.unreported > _STALE:  # another process has failed it by now
                job.cancel.set()

    def cancel(self, owner: str | None, id: str) -> None:
        """Cancel the work on an object, wherever it is; nothing happens if it has ended.

        :raises StoreFailed: the store failed.
        """
        self._end(owner, id, "cancelled", None)
        self._begin_process()
        with self._changed:
            job = self._jobs.get(id)
            if job is not None:
                job.cancel.set()
            self._changed.notify_all()

    def fail_if_stale(self, owner: str | None, id: str, age: float) -> None:
        """Fail the work on an object that has not ended, if its process has died.

        :param age: seconds since the object was stored, which is before its run begins.
        :raises StoreFailed: the store failed.
        """
        run = self._store.run(self._kind, owner, id)
        if (age if run is None else run.age) > _STALE:
            self._end(owner, id, "failed", _DIED)

    def wait(self) -> None:
        """Wait until there may be new events, for a short time at most."""
        self._begin_process()
        with self._changed:
            self._changed.wait(_POLL)

    def close(self) -> None:
        """End all work of this process as failed, since the process ends."""
        with self._changed:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel.set()
            try:
                self._end(job.owner, job.id, "failed", _STOPPED)
            except StoreFailed as error:
                log.error("a background response could not be ended: %s", error)

    def _end(self, owner: str | None, id: str, status: str, error: APIError | None) -> None:
        """Take the run of an object away, and end the object."""
        run = self._store.run(self._kind, owner, id)
        stored = self._store.get(self._kind, owner, id)
        body = None if stored is None else self._ended(stored.body, status, error)
        if body is not None:
            holder = None if run is None else run.holder
            self._store.complete(self._kind, owner, id, body, end_run=True, only_if_running=holder)


_DIED = APIError(500, "The process that generated the response died.")
_STOPPED = APIError(500, "The server was stopped while it generated the response.")


def _thread(target: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=copy_context().run, args=(target,), name=name, daemon=True)
    thread.start()
    return thread


def _close(background: weakref.ref[Background], pid: int) -> None:
    """End the work of a process as it exits; not that of its parent, in a child of a fork."""
    found = background()
    if found is not None and pid == os.getpid():
        found.close()
