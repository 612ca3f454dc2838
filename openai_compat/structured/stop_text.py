"""Stop sequences, applied here: under a format of ours Ollama would find them in the JSON around the text.

Knuth, Morris and Pratt's search, so that each character is looked at once for each sequence, in whatever parts the text
arrives, and no more is held than the beginning of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes a text on up to the first stop sequence in it, which is left out.

    :param stops: none is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        #: a stop sequence was read
        self.stopped = False
        self._patterns = [_Pattern(stop) for stop in stops]
        #: text that may begin a sequence
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what can be passed on of the next part."""
        if self.stopped:
            return ""
        if not self._patterns:
            return text
        held = len(self._held)
        text = self._held + text
        for index in range(held, len(text)):
            ends = [pattern.size for pattern in self._patterns if pattern.next(text[index])]
            if ends:
                self.stopped, self._held = True, ""
                return text[: index + 1 - max(ends)]
        keep = max(pattern.matched for pattern in self._patterns)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """Return what is held: the text ended before a sequence did."""
        held, self._held = self._held, ""
        return held


class _Pattern:
    """One sequence, and how much of it the text ends with."""

    def __init__(self, stop: str) -> None:
        self.size = len(stop)
        self.matched = 0
        self._stop = stop
        self._failures = [0] * len(stop)
        matched = 0
        for i in range(1, len(stop)):
            while matched and stop[i] != stop[matched]:
                matched = self._failures[matched - 1]
            matched += stop[i] == stop[matched]
            self._failures[i] = matched

    def next(self, character: str) -> bool:
        """Take the next character; return whether the text ends with the sequence."""
        while self.matched and self._stop[self.matched] != character:
            self.matched = self._failures[self.matched - 1]
        self.matched += self._stop[self.matched] == character
        if self.matched < self.size:
            return False
        self.matched = 0
        return True
