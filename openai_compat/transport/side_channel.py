"""What a caller of a wrapped application and ``Upstream`` agree upon beside WSGI, all of it.

WSGI has no word for these, and each is optional. An application between the two that knows nothing of them, and hands
the environ on, loses nothing:

* *The side channel*: a native call that the middleware makes carries a :class:`SideChannel` in its environ, under
  :data:`SIDE_CHANNEL`. ``Upstream`` knows by it that the call is ours and not a client's request that is passed
  through: it may use paths that only a setting opens (``DELETE /api/delete``), and an upstream's 401 or redirect is the
  operator's matter.
* *The failure*: ``Upstream`` answers every failure as a native error response, and leaves the exact :class:`APIError`
  in ``failure``. The caller raises that one if the answer that it gets is an error too, or breaks off: an application
  in between may catch exceptions and rewrite error pages, or answer in another way, and then its answer stands.
* *Cancelling*: ``cancel`` ends the call from another thread, by its socket (see ``cancel.py``).
* *Draining*: ``drain`` reads what follows the last line, within a short time, so that a connection can be used again.
* *Several calls at once*: an application whose attribute ``is_remote`` is true stands several calls in threads. Any
  other is called in the thread of its request, one call after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from openai_compat.errors import APIError
from openai_compat.transport.cancel import Cancel

log = logging.getLogger("openai_compat")

#: the environ key of a native call's :class:`SideChannel`
SIDE_CHANNEL = "openai_compat.side_channel"


class SideChannel:
    """The state of one native call that is not part of WSGI; the top of this file describes each attribute.

    :param cancel: ends the call.
    """

    __slots__ = ("cancel", "drain", "failure")

    def __init__(self, cancel: Cancel) -> None:
        self.cancel = cancel
        self.failure: APIError | None = None
        self.drain: Callable[[], None] | None = None

    def reset(self) -> None:
        """Forget the failure and the body of an attempt.

        An application in between may call a second upstream after the first failed; and what an attempt leaves here
        refers to its connection, which is to be freed with the call.
        """
        self.failure = self.drain = None

    def take_failure(self) -> APIError | None:
        """Return the failure, once."""
        failure, self.failure = self.failure, None
        return failure


def side_channel(environ: Mapping[str, Any]) -> SideChannel | None:
    """Return the side channel of a native call; None for a request that is passed through."""
    channel = environ.get(SIDE_CHANNEL)
    return channel if isinstance(channel, SideChannel) else None


def is_remote(app: object) -> bool:
    """Return whether *app* stands several calls at once, each in a thread of its own."""
    return bool(getattr(app, "is_remote", False))


def refused_credentials() -> APIError:
    """Make the error of a backend that refuses who calls it: the operator's matter, not the client's (F14)."""
    log.error("the backend refused the gateway's credentials; is its key right?")
    return APIError(502, "The backend refused the gateway's credentials.", code="upstream_auth", retry=False)
