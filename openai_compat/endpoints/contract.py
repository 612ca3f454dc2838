"""What an endpoint is given and what it gives back; values only, no environ.

An endpoint is ``def create(call: Call, backend: Backend) -> Reply``. Whatever it opened and does not
hand on in its reply, it closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openai_compat.settings import Settings
from openai_compat.store import Store
from openai_compat.translate.messages import Fetch

Headers = Sequence[tuple[str, str]]

#: the kind of kept chat completions, for who keeps them and who shows them
CHAT_COMPLETION = "chat.completion"


@dataclass(frozen=True)
class Call:
    """The client's request as values, the clock and the dice."""

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
    #: what is kept between requests; None without one
    store: Store | None = None
    #: digest of the caller's key, None where there are no keys
    owner: str | None = None
    #: gets images by URL; None where that is not allowed
    fetch: Fetch | None = None


class Source(Protocol):
    """What a stream is made from: tells whether more is in hand, and is closed with the stream."""

    @property
    def pending(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    """A JSON answer: anything that the encoder takes."""

    value: object
    headers: Headers = field(default_factory=tuple)


@dataclass(frozen=True)
class Text:
    """An answer of plain text."""

    text: str
    headers: Headers = field(default_factory=tuple)


@dataclass(frozen=True)
class EventStream:
    """A stream of events: each step gives the events of one native line.

    Events leave when ``source`` has nothing more in hand. A failure is the last event.
    """

    events: Iterator[Sequence[object]]
    source: Source
    headers: Headers = field(default_factory=tuple)
    #: whether ``[DONE]`` follows the last event
    says_done: bool = True


Reply = Answer | Text | EventStream
