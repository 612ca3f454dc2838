"""The protocol between ``Upstream`` and the code that calls it, beyond WSGI.

Everything that the two share outside WSGI is defined in this module, and each part is optional. An application that
wraps ``Upstream`` needs to know none of it. It should pass the environ through; one that calls ``Upstream`` with an
environ of its own before its head is known is recognised by a context variable.

* *Side channel*: the environ of a native call by the middleware has a :class:`SideChannel` under :data:`SIDE_CHANNEL`.
  A client's request that is passed through has none. Only a call with one may use a path that a setting of the
  middleware allows (``DELETE /api/delete``), and reports an upstream's 401 or redirect as a gateway error.
* *Failure*: ``Upstream`` returns every failure as a native error response, and stores the :class:`APIError` itself in
  ``failure``. The caller raises that one if the response it receives is an error or incomplete, because a wrapping
  application may replace error responses and catch exceptions. A successful response of that application is used.
* *Cancelling*: ``cancel`` ends the call from another thread (see ``cancel.py``).
* *Draining*: ``drain`` reads the rest of the body after the last line, within a short time, so that the connection can
  be reused, and returns whether the body has ended.
* *Kind*: an application whose attribute ``speaks_native_only`` is true is an Ollama and nothing else.
* *Concurrency*: an application whose attribute ``is_remote`` is true may be called in several threads at once. Any
  other is called in the thread of the client's request, one call after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.transport.cancel import Cancel

#: the environ key of a native call's :class:`SideChannel`
SIDE_CHANNEL = "openai_compat.side_channel"


class SideChannel:
    """The state of one native call beyond WSGI; the module's docstring describes each attribute."""

    __slots__ = ("cancel", "drain", "failure")

    def __init__(self, cancel: Cancel) -> None:
        self.cancel = cancel
        self.failure: APIError | None = None
        self.drain: Callable[[], bool] | None = None

    def reset(self) -> None:
        """Clear the failure and the drain function of an attempt.

        A wrapping application may call a second upstream after the first failed. Both attributes refer to the
        connection, and would keep it alive after the call.
        """
        self.failure = self.drain = None

    def take_failure(self) -> APIError | None:
        """Return the failure and clear it; None if there is none."""
        failure, self.failure = self.failure, None
        return failure


#: the side channel of the native call whose application is being called, for one that makes an environ of its own
_current: ContextVar[SideChannel | None] = ContextVar("openai_compat_side_channel", default=None)


def side_channel(environ: Mapping[str, Any]) -> SideChannel | None:
    """Return the side channel of a native call; None for a client's request that is passed through."""
    channel = environ.get(SIDE_CHANNEL)
    return channel if isinstance(channel, SideChannel) else _current.get()


@contextmanager
def calling_with(channel: SideChannel | None) -> Iterator[None]:
    """Run a block that calls an application until its head is known; an upstream in it needs no key of the environ."""
    token = _current.set(channel)
    try:
        yield
    finally:
        _current.reset(token)


def is_remote(app: object) -> bool:
    """Return whether *app* may be called in several threads at once."""
    return bool(getattr(app, "is_remote", False))


def speaks_native_only(app: object) -> bool:
    """Return whether *app* is an Ollama and nothing else: an ``Upstream``, or the demo backend."""
    return bool(getattr(app, "speaks_native_only", False))


def refused_credentials() -> APIError:
    """Return a 502 for a backend that refuses the gateway's credentials, not the client's (F14), and log it."""
    log.error("the backend refused the gateway's credentials; check the configured key")
    return APIError(502, "The backend refused the gateway's credentials.", code="upstream_auth", retry=False)
