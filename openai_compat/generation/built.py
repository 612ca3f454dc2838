"""One native stream and the choice that a builder makes of it: the simplest source of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from openai_compat.generation.parallel import Source, StartSource
from openai_compat.native import types as native
from openai_compat.native.client import StartCall
from openai_compat.native.stream import NativeStream
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.transport.cancel import Cancel

L = TypeVar("L", bound="native.StreamLine")
L_contra = TypeVar("L_contra", bound="native.StreamLine", contravariant=True)

#: a native message, and what it adds to the choice
Step = tuple[L, ChoiceDelta]


class Builder(Protocol[L_contra]):
    """A builder of one choice, from the messages of one native stream."""

    def feed(self, response: L_contra, /) -> ChoiceDelta:
        """Return the delta of the next native message."""


class BuiltChoice(Generic[L]):
    """The native messages of a stream, each with what it adds to the choice."""

    def __init__(self, stream: NativeStream[L], feed: Callable[[L], ChoiceDelta]) -> None:
        self._stream = stream
        self._feed = feed

    @property
    def pending(self) -> bool:
        """Return whether the next message is available without waiting."""
        return self._stream.pending

    @property
    def done(self) -> bool:
        """Return whether the final message was read."""
        return self._stream.done

    @property
    def size(self) -> int:
        """Return the number of bytes read so far."""
        return self._stream.size

    def __iter__(self) -> Iterator[Step[L]]:
        feed = self._feed
        for message in self._stream:
            yield message, feed(message)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def built(start_call: StartCall[L], builder: Builder[L]) -> StartSource[Step[L]]:
    """Return a function that makes a native call whose messages go to a builder."""

    def start(cancel: Cancel) -> Source[Step[L]]:
        return BuiltChoice(start_call(cancel), builder.feed)

    return start
