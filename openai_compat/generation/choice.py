"""Builders of choices: each takes the messages of one native stream and returns a delta for each.

A builder holds only what must be known between two messages. It knows no endpoint and no response format.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``, ``ToCompleteChunk``;
``middleware/openai.go`` ``ChatWriter``, ``CompleteWriter``, whose flags are attributes here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from openai_compat.errors import bad_gateway
from openai_compat.native import types as native
from openai_compat.structured.json_text import JSONUnwrapper
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.logprobs import ContentLogprobs
from openai_compat.translate.sampling import clear_final_message
from openai_compat.translate.tools import ToolCallDelta, to_deltas
from openai_compat.translate.usage import to_finish_reason

log = logging.getLogger("openai_compat")


def _check_not_empty(response: native.StreamLine) -> None:
    """Refuse an answer without output that ends without a reason and counts, as failing servers send it.

    :raises APIError: 502.
    """
    if response.is_bare_end:
        raise bad_gateway("The backend answered nothing, and gave no reason.")


class ChoiceBuilder:
    """Builds a choice of a chat: thinking, text and tool calls.

    :param new_id: makes ids of tool calls where the native side gave none.
    :param single_tool_call: pass on the first tool call only.
    :param closes_after_call: finish after the first tool call, before the native stream does.
    :param allowed: functions that may be called; calls of others, which a template may find in the text, are dropped.
    :param max_tokens_is_zero: pass on the end only.
    :param unwrapper: removes what surrounds JSON.
    """

    def __init__(
        self,
        new_id: Callable[[str], str],
        *,
        single_tool_call: bool = False,
        closes_after_call: bool = False,
        max_tokens_is_zero: bool = False,
        allowed: frozenset[str] | None = None,
        unwrapper: JSONUnwrapper | None = None,
    ) -> None:
        self._new_id = new_id
        self._single_tool_call = single_tool_call
        self._closes_after_call = closes_after_call
        self._max_tokens_is_zero = max_tokens_is_zero
        self._allowed = allowed
        self._unwrapper = unwrapper
        self._logprobs = ContentLogprobs()
        self._has_output = False
        self._calls = 0

    def feed(self, response: native.ChatResponse) -> ChoiceDelta:
        """Take the next native message and return what it adds.

        :raises APIError: 502 for an end without any output, or a tool call whose arguments are not an object.
        """
        message = response.message
        has_calls = message is not None and bool(message.tool_calls)
        if not self._has_output:
            if message is None or not (message.content or message.thinking or has_calls):
                _check_not_empty(response)
                self._has_output = response.logprobs is not None
            else:
                self._has_output = True
        if self._max_tokens_is_zero:
            return _only_the_end(response)
        delta = ChoiceDelta()
        if message is not None:
            delta.thinking, delta.content = message.thinking or "", message.content or ""
            if message.tool_calls:
                delta.calls = self._to_calls(message.tool_calls)
        delta.logprobs = self._logprobs.of(response, delta.content, delta.thinking, calls=has_calls)
        if self._unwrapper is not None:
            _unwrap(self._unwrapper, delta, bool(response.done))
        if response.done:
            delta.finish_reason = to_finish_reason(response.done_reason, tool_calls=self._calls > 0)
        elif delta.calls and self._closes_after_call:
            delta.finish_reason = "tool_calls"
        return delta

    def _to_calls(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        if self._allowed is not None:
            permitted = [call for call in calls if call.function.name in self._allowed]
            if len(permitted) < len(calls):
                log.warning("dropped a tool call that tool_choice does not allow")
            calls = permitted
        if self._single_tool_call:
            calls = calls[: 1 - self._calls]
        deltas = to_deltas(calls, self._new_id, start=self._calls)
        self._calls += len(deltas)
        return deltas


def _only_the_end(response: native.ChatResponse) -> ChoiceDelta:
    if not response.done:
        return ChoiceDelta()
    clear_final_message(response)
    return ChoiceDelta(finish_reason="length")


def _unwrap(unwrapper: JSONUnwrapper, delta: ChoiceDelta, is_last: bool) -> None:
    if delta.content:
        thinking, delta.content = unwrapper.feed(delta.content)
        delta.thinking += thinking
    if is_last:
        thinking, content = unwrapper.end()
        delta.thinking += thinking
        delta.content += content


class TextChoiceBuilder:
    """Builds a choice of a text completion; thinking never becomes text.

    :param echo: the prompt, if it is to stand before the text.
    :param max_tokens_is_zero: pass on the echo and the end only.
    """

    def __init__(self, echo: str = "", *, max_tokens_is_zero: bool = False) -> None:
        self._echo = echo
        self._max_tokens_is_zero = max_tokens_is_zero
        self._logprobs = ContentLogprobs()
        self._has_output = False

    def feed(self, response: native.GenerateResponse) -> ChoiceDelta:
        """Take the next native message and return what it adds.

        :raises APIError: 502 for an end without any output.
        """
        self._has_output = self._has_output or bool(response.response or response.thinking or response.logprobs)
        if not self._has_output:
            _check_not_empty(response)
        if self._max_tokens_is_zero:
            if not response.done:
                return ChoiceDelta()
            clear_final_message(response)
            response.response = ""
        text = response.response or ""
        delta = ChoiceDelta(logprobs=self._logprobs.of(response, text, response.thinking or ""))
        delta.content, self._echo = self._echo + text, ""
        if response.done:
            delta.finish_reason = to_finish_reason(response.done_reason, tool_calls=False)
        return delta
