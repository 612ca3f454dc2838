"""One choice of an answer, as it grows: native messages in, what each adds out.

What a native message adds is a :class:`Piece`, in OpenAI's terms and in no endpoint's shape: an answer collects
pieces, a stream sends them on. A :class:`Turn` keeps what must be known between two messages.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``; ``middleware/openai.go`` ``ChatWriter``,
whose flags are attributes here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from openai_compat.errors import broken
from openai_compat.native import messages as native
from openai_compat.translate.logprobs import ContentLogprobs
from openai_compat.translate.purejson import PureJSON
from openai_compat.translate.sampling import silence
from openai_compat.translate.tools import ToolCallDelta, to_deltas
from openai_compat.translate.usage import to_finish_reason

log = logging.getLogger("openai_compat")


class Piece(Struct):
    """What one native message adds to a choice."""

    thinking: str = ""
    content: str = ""
    logprobs: list[native.Logprob] = []
    calls: list[ToolCallDelta] = []
    #: of the last piece only
    finish_reason: str | None = None


class Turn:
    """A choice as the model makes it: thinking, text and calls of its own accord.

    :param new_id: gives ids of tool calls where the native side gave none.
    :param one_call: pass on the first tool call only.
    :param stop_after_call: end with the first tool call, whatever was still to come.
    :param allowed: the functions that may be called, where not all may: a template can find a call that nobody wanted.
    :param is_silent: nothing was asked for: pass on the end only.
    :param pure: takes off what surrounds JSON.
    :param check: is given the whole text of an answer that ended by itself.
    """

    def __init__(
        self,
        new_id: Callable[[str], str],
        *,
        one_call: bool = False,
        stop_after_call: bool = False,
        is_silent: bool = False,
        allowed: frozenset[str] | None = None,
        pure: PureJSON | None = None,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self._new_id = new_id
        self._one_call = one_call
        self._stop_after_call = stop_after_call
        self._is_silent = is_silent
        self._allowed = allowed
        self._pure = pure
        self._check = check
        self._logprobs = ContentLogprobs()
        self._text: list[str] = []
        self._told = False
        self.called = 0

    def feed(self, response: native.ChatResponse) -> Piece:
        """Take the next native message.

        :raises APIError: 502 for an end that says nothing at all, or a call that is none; what the check raises.
        """
        message = response.message
        self._check_told(response)
        if self._is_silent:
            return self._silenced(response)
        piece = Piece()
        if message is not None:
            piece.thinking, piece.content = message.thinking or "", message.content or ""
            if message.tool_calls:
                piece.calls = self._calls(message.tool_calls)
        called = bool(message is not None and message.tool_calls)
        piece.logprobs = self._logprobs.of(response, piece.content, piece.thinking, calls=called)
        if self._pure is not None:
            self._purify(self._pure, piece, bool(response.done))
        if self._check is not None and piece.content:
            self._text.append(piece.content)
        if response.done:
            piece.finish_reason = to_finish_reason(response.done_reason, tool_calls=self.called > 0)
            if self._check is not None and piece.finish_reason == "stop":
                self._check("".join(self._text))
        elif piece.calls and self._stop_after_call:
            piece.finish_reason = "tool_calls"
        return piece

    def _check_told(self, response: native.ChatResponse) -> None:
        """An end with no output, no reason and no counts is no answer."""
        if self._told:
            return
        message = response.message
        self._told = message is not None and bool(message.content or message.thinking or message.tool_calls)
        if response.is_bare_end and not self._told:
            raise broken("The backend answered nothing, and gave no reason.")
        self._told = self._told or response.logprobs is not None

    def _silenced(self, response: native.ChatResponse) -> Piece:
        if not response.done:
            return Piece()
        silence(response)
        return Piece(finish_reason="length")

    def _calls(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        if self._allowed is not None:
            kept = [call for call in calls if call.function.name in self._allowed]
            if len(kept) < len(calls):
                log.warning("dropped a tool call that tool_choice does not allow")
            calls = kept
        if self._one_call:
            calls = calls[: 1 - self.called]
        deltas = to_deltas(calls, self._new_id, start=self.called)
        self.called += len(deltas)
        return deltas

    def _purify(self, pure: PureJSON, piece: Piece, is_last: bool) -> None:
        if piece.content:
            thinking, piece.content = pure.feed(piece.content)
            piece.thinking += thinking
        if is_last:
            thinking, content = pure.end()
            piece.thinking += thinking
            piece.content += content
