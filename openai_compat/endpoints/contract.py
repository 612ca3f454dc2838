"""What every endpoint receives and returns; values only, no environ.

An endpoint is ``def create(call: Call, backend: Backend) -> Reply``. It closes whatever it opened and does not hand on
in its reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.storage.store import Store
from openai_compat.translate.messages import Fetch

Headers = Sequence[tuple[str, str]]

#: the kind of stored chat completions, for who stores them and who lists them
CHAT_COMPLETION = "chat.completion"

#: ``system_fingerprint`` of every answer, as Ollama's own middleware has it
SYSTEM_FINGERPRINT = "fp_ollama"


@dataclass(frozen=True)
class Call:
    """The client's request as values, the time, and the source of ids."""

    body: bytes
    #: the variable parts of the path
    path: Mapping[str, str]
    settings: Settings
    #: Unix seconds
    now: int
    #: gives a fresh random id with the prefix, at least 128 bits
    new_id: Callable[[str], str]
    #: the arguments of the URL, in order; a name may stand twice
    query: Sequence[tuple[str, str]] = ()
    #: of the body, with its parameters
    content_type: str = ""
    #: where objects are stored between requests; None where nothing is
    store: Store | None = None
    #: digest of the caller's key, None where there are no keys
    owner: str | None = None
    #: gets images by URL; None where that is not allowed
    fetch: Fetch | None = None


class Source(Protocol):
    """What a stream is made from; it is closed with the stream."""

    @property
    def pending(self) -> bool:
        """Return whether the next step can be made without waiting."""

    def close(self) -> None:
        """Close what was opened for the stream."""


@dataclass(frozen=True)
class Answer:
    """A JSON response: any value that the encoder takes."""

    value: object
    headers: Headers = field(default_factory=tuple)


@dataclass(frozen=True)
class Text:
    """A plain-text response."""

    text: str
    headers: Headers = field(default_factory=tuple)


class NamedEvent(NamedTuple):
    """An event with a name, for streams whose events have ``event:`` lines."""

    name: str
    data: object


def error_events(error: APIError) -> Sequence[object]:
    """Return the last event of a failed stream of chat or completions: OpenAI's error object."""
    return (error.body(),)


@dataclass(frozen=True)
class EventStream:
    """A streamed response: each step gives the events of one native line.

    An event is a value that the JSON encoder takes, or a :class:`NamedEvent`. Events are sent as soon as ``source`` has
    no further step that can be made without waiting.
    """

    events: Iterator[Sequence[object]]
    source: Source
    headers: Headers = field(default_factory=tuple)
    #: the last events of a stream that fails after its status is out
    failure_events: Callable[[APIError], Sequence[object]] = error_events
    #: whether ``[DONE]`` follows the last event of a stream that does not fail
    ends_with_done: bool = True


Reply = Answer | Text | EventStream
