"""Log-probabilities, from native to OpenAI's two formats: that of chat and the legacy one of completions.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``. Differs: ``bytes`` and ``top_logprobs`` are always there.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from openai_compat.native import types as native

#: OpenAI's value for a token that is very unlikely; JSON has no −infinity
_IMPOSSIBLE = -9999.0


class TopLogprob(Struct):
    """Source: OpenAI's ``TopLogprob``."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct):
    """Source: OpenAI's ``ChatCompletionTokenLogprob``."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct):
    """``choices[].logprobs``."""

    content: list[TokenLogprob] | None
    refusal: None = None


def to_logprobs(logprobs: list[native.Logprob]) -> ChoiceLogprobs:
    """Map the log-probabilities of some tokens to the format of chat."""
    return ChoiceLogprobs(
        [
            TokenLogprob(
                entry.token,
                _logprob(entry),
                _bytes(entry),
                [TopLogprob(top.token, _logprob(top), _bytes(top)) for top in entry.top_logprobs or ()],
            )
            for entry in logprobs
        ]
    )


class LegacyLogprobs(Struct):
    """``choices[].logprobs`` of completions. Source: OpenAI's ``CreateCompletionResponse``."""

    tokens: list[str]
    token_logprobs: list[float]
    #: the most likely tokens at each place, with their log-probabilities
    top_logprobs: list[dict[str, float]]
    #: where each token begins in the text, in characters
    text_offset: list[int]


def to_legacy_logprobs(entries: list[native.Logprob], offset: int) -> LegacyLogprobs:
    """Map the log-probabilities of some tokens to the legacy format.

    :param offset: where the first token begins in the text, in characters.
    """
    found = LegacyLogprobs([], [], [], [])
    for entry in entries:
        found.tokens.append(entry.token)
        found.token_logprobs.append(_logprob(entry))
        # The most likely one comes first; of two with the same text, such as halves of characters, it wins.
        top_logprobs = {top.token: _logprob(top) for top in reversed(entry.top_logprobs or ())}
        if top_logprobs:  # OpenAI adds the sampled token, where it is not among the most likely ones
            top_logprobs.setdefault(entry.token, _logprob(entry))
        found.top_logprobs.append(top_logprobs)
        found.text_offset.append(offset)
        offset += characters(entry)
    return found


def characters(entry: native.TokenLogprob) -> int:
    """Count the characters that begin in a token, which may hold only a part of one."""
    return sum(byte & 0xC0 != 0x80 for byte in _bytes(entry))


def mean_logprob(entries: list[native.Logprob]) -> float | None:
    """Return the mean log-probability of a text's tokens; None for no tokens."""
    return sum(map(_logprob, entries)) / len(entries) if entries else None


def _logprob(entry: native.TokenLogprob) -> float:
    return _IMPOSSIBLE if entry.logprob is None else entry.logprob


def _bytes(entry: native.TokenLogprob) -> list[int]:
    return list(entry.token.encode()) if entry.bytes is None else entry.bytes


#: entries that are held for text at most: a character or a tag takes a few tokens, so more are a server's fault
_MAX_HELD = 1000


class ContentLogprobs:
    """A filter that removes the log-probabilities of thinking, which OpenAI does not report.

    A native line may carry log-probabilities and no text: a part of a character, or a tag around the thinking. Those
    are held until the next line with text and treated like that line's; of those between thinking and content, only as
    many are passed on as the content is made of.
    """

    def __init__(self) -> None:
        self._held: list[native.Logprob] = []
        self._in_content = False
        self._had_thinking = False

    def of(self, line: native.StreamLine, content: str, thinking: str, *, calls: bool = False) -> list[native.Logprob]:
        """Return the log-probabilities that belong to the content of this line, or at the end to content before it.

        :param content: the line's text; *thinking* likewise.
        :param calls: whether the line has tool calls.
        """
        if line.logprobs:
            self._held += line.logprobs
        self._had_thinking = self._had_thinking or bool(thinking)
        if content:
            if self._had_thinking and not self._in_content:
                self._held = _covering(self._held, content)
            self._in_content = True
        elif thinking or calls:
            self._in_content = False
            self._held = []
        if not self._held or not (self._in_content and (line.done or content)):
            del self._held[:-_MAX_HELD]  # limits what waits for text, not what one line has
            return []
        found, self._held = self._held, []
        return found


class TextLogprobs:
    """A filter for text that leaves later than it comes, or not at all: an entry leaves with the text it begins in."""

    def __init__(self) -> None:
        self._held: deque[native.Logprob] = deque()
        #: bytes of the text that left beyond the entries that left
        self._ahead = 0

    def of(self, entries: list[native.Logprob], text: str, *, all_left: bool) -> list[native.Logprob]:
        """Return the entries of the text that leaves now.

        :param entries: of the text that comes now.
        :param all_left: no text is held.
        """
        if not entries and not self._held:
            return entries
        self._held.extend(entries)
        found: list[native.Logprob] = []
        self._ahead += len(text.encode("utf-8", "replace"))
        while self._held and (all_left or self._ahead > 0):
            entry = self._held.popleft()
            found.append(entry)
            self._ahead -= len(_bytes(entry))
        if all_left:
            self._ahead = 0
        return found


def _covering(entries: list[native.Logprob], content: str) -> list[native.Logprob]:
    """Return the last entries, as many as *content* is made of."""
    missing, first = len(content.encode()), len(entries)
    while missing > 0 and first > 0:
        first -= 1
        missing -= len(_bytes(entries[first]))
    return entries[first:]
