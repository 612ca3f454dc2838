"""The arguments and results of endpoint functions: values only, so that an endpoint can be called without WSGI.

An endpoint is ``def create(call: Call, backend: Backend) -> Reply``. It closes what it opens,
except the source of an event stream that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from openai_compat.errors import APIError
from openai_compat.generation.background import Background
from openai_compat.settings import Settings
from openai_compat.storage.store import Store
from openai_compat.translate.content import Fetch
from openai_compat.translate.files import Files

#: response headers beside those that every response has
Headers = Sequence[tuple[str, str]]

#: the kinds of objects in the store
CHAT_COMPLETION, RESPONSE, CONVERSATION = "chat.completion", "response", "conversation"

#: ``system_fingerprint`` of every response; the same as from Ollama's own middleware
SYSTEM_FINGERPRINT = "fp_ollama"


@dataclass(frozen=True)
class Call:
    """A client's request as values, with the time and a source of ids."""

    #: decompressed
    body: bytes
    #: the variables of the route's path
    path: Mapping[str, str]
    settings: Settings
    #: Unix seconds
    now: int
    #: returns a new random id with the given prefix, of at least 128 bits
    new_id: Callable[[str], str]
    #: query parameters, in order; a name may be repeated
    query: Sequence[tuple[str, str]] = ()
    #: of the body, with parameters such as ``boundary``
    content_type: str = ""
    #: None if no store is configured
    store: Store | None = None
    #: digest of the client's key; None without keys
    owner: str | None = None
    #: generates responses without their clients; None without a store
    background: Background | None = None
    #: whether all workers see the same store
    is_store_shared: bool = True
    #: fetches an image by its URL; None if the settings do not allow it
    fetch: Fetch | None = None
    #: reads the files of the request, within its limits
    files: Files = field(default_factory=Files)
    #: the same for the history that the store has, with limits of their own
    past_fetch: Fetch | None = None
    past_files: Files = field(default_factory=Files)


class Source(Protocol):
    """The origin of an event stream, such as native streams; it is closed with the stream."""

    @property
    def pending(self) -> bool:
        """Return whether the next events are available without waiting."""

    def close(self) -> None:
        """Close everything that was opened for the stream."""


class NoSource:
    """The source of a stream whose events are all known."""

    pending = False

    def close(self) -> None:
        """Close nothing."""


@dataclass(frozen=True)
class Answer:
    """A JSON response; *value* is any value that the JSON encoder accepts."""

    value: object
    headers: Headers = field(default_factory=tuple)


@dataclass(frozen=True)
class Text:
    """A plain-text response."""

    text: str
    headers: Headers = field(default_factory=tuple)


class NamedEvent(NamedTuple):
    """An event with a name, sent with an ``event:`` line."""

    name: str
    data: object


#: an item of an event stream without events: all events before it are sent before the next item is taken, which takes
#: time, such as storing what was sent
FLUSH: Sequence[object] = ()


def error_events(error: APIError) -> Sequence[object]:
    """Return the last events of a stream that fails, as chat and completions have them: OpenAI's error object."""
    return (error.body(),)


@dataclass(frozen=True)
class EventStream:
    """A streamed response. An event is a value for the JSON encoder, a :class:`NamedEvent`, or a frame as bytes.

    Events are sent as soon as ``source`` has no more that are available without waiting.
    """

    #: each item has the events of one native message; it may be empty
    events: Iterator[Sequence[object]]
    source: Source
    headers: Headers = field(default_factory=tuple)
    #: returns the last events of a stream that fails after the head was sent
    failure_events: Callable[[APIError], Sequence[object]] = error_events
    #: whether a stream that does not fail ends with ``[DONE]``
    ends_with_done: bool = True


#: the result of an endpoint
Reply = Answer | Text | EventStream
