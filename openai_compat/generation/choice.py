"""Builders of choices: each maps the messages of one native stream to the deltas of one choice.

A builder remembers only what the next message needs. Nothing about an endpoint's response format belongs here.

Source: ollama ``openai/openai.go`` ``ToChatCompletion``, ``ToStreamChunks``, ``ToCompleteChunk``;
``middleware/openai.go`` ``ChatWriter``, ``CompleteWriter``, whose flags are attributes here.
"""

from __future__ import annotations

from collections.abc import Callable

from openai_compat.errors import bad_gateway
from openai_compat.log import log
from openai_compat.native import types as native
from openai_compat.structured.content_reader import NOTHING, ContentReader, CutCall, joined
from openai_compat.structured.written.whole import ReadName, named_calls
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.logprobs import ContentLogprobs, TextLogprobs
from openai_compat.translate.sampling import clear_final_message
from openai_compat.translate.tools import CallIds, FunctionCallDelta, ToolCallDelta, to_deltas
from openai_compat.translate.usage import to_finish_reason


def _check_not_empty(response: native.StreamLine) -> None:
    """Raise if a stream without output ends without a reason and token counts, as failing servers end it.

    :raises APIError: 502.
    """
    if response.is_bare_end:
        raise bad_gateway("The backend answered nothing, and gave no reason.")


class ChoiceBuilder:
    """A builder of one choice of a chat: thinking, content and tool calls.

    :param ids: ids of tool calls.
    :param single_tool_call: drop all tool calls but the first.
    :param closes_after_call: finish at the first message with tool calls, before the native stream ends.
    :param max_tokens_is_zero: drop all output; the finish reason is ``length``.
    :param allowed: functions that may be called; calls of others are dropped, since a model may call functions that
        only its messages mention.
    :param tool_name: returns the name of the tool that a model means by a name.
    :param reader: tells text from calls and thinking; without one all text is text.
    :param read_name: reads a native call whose name is itself written calls.
    """

    def __init__(
        self,
        ids: CallIds,
        *,
        single_tool_call: bool = False,
        closes_after_call: bool = False,
        max_tokens_is_zero: bool = False,
        allowed: frozenset[str] | None = None,
        tool_name: Callable[[str], str] = str,
        reader: ContentReader | None = None,
        read_name: ReadName | None = None,
        needs_usage: bool = True,
    ) -> None:
        self._ids = ids
        self._single_tool_call = single_tool_call
        self._closes_after_call = closes_after_call
        self._max_tokens_is_zero = max_tokens_is_zero
        self._allowed = allowed
        self._tool_name = tool_name
        self._reader = reader
        self._read_name = read_name
        self._needs_usage = needs_usage
        self._logprobs = ContentLogprobs()
        #: log-probabilities of text that the reader may hold
        self._text_logprobs = TextLogprobs()
        self._has_output = False
        self._calls = 0

    def feed(self, response: native.ChatResponse) -> ChoiceDelta:
        """Return the delta of the next native message.

        :raises APIError: 502 for a stream that ends without output, and for a tool call whose arguments are not an
            object.
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
            return _finish_only(response)
        delta = ChoiceDelta()
        if message is not None:
            delta.thinking, delta.content = message.thinking or "", message.content or ""
            if message.tool_calls:
                delta.calls = self._to_calls(message.tool_calls)
        delta.logprobs = self._logprobs.of(response, delta.content, delta.thinking, calls=has_calls)
        stopped = self._reader is not None and self._read(self._reader, delta, response)
        if response.done or (stopped and not self._needs_usage):
            reason = "stop" if stopped else response.done_reason
            delta.finish_reason = to_finish_reason(reason, tool_calls=self._calls > 0)
        elif delta.calls and self._closes_after_call:
            delta.finish_reason = "tool_calls"
        return delta

    def interrupt(self) -> str:
        """Return text that is held and leaves before what follows, since thinking follows."""
        return "" if self._reader is None else self._reader.interrupt()

    def _read(self, reader: ContentReader, delta: ChoiceDelta, response: native.ChatResponse) -> bool:
        """Replace the text of a delta by what it is; return whether a stop sequence ended the text."""
        read = reader.feed(delta.content) if delta.content else NOTHING
        if delta.calls:
            read = read._replace(text=read.text + reader.release())
        if response.done:
            read = joined((read, reader.end(is_cut=response.done_reason == "length")))
        delta.content = read.text
        if read.thinking:
            delta.thinking += read.thinking
        if read.calls:
            delta.calls += self._to_calls(list(read.calls))
        if read.cut_call is not None:
            delta.calls += self._to_cut_call(read.cut_call)
        all_left = not (reader.holding or read.calls)
        delta.logprobs = self._text_logprobs.of(delta.logprobs, read.text, all_left=all_left)
        return reader.stopped

    def _to_cut_call(self, call: CutCall) -> list[ToolCallDelta]:
        """Return a call without an end, whose arguments come after its name: a delta that has both is a whole call."""
        index = self._calls
        self._calls += 1
        begin = ToolCallDelta(index, FunctionCallDelta(call.name), self._ids.of(), "function")
        return [begin, ToolCallDelta(index, FunctionCallDelta(arguments=call.arguments))]

    def _to_calls(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        calls = named_calls(calls, self._read_name)
        if self._allowed is not None:
            permitted = [call for call in calls if self._tool_name(call.function.name) in self._allowed]
            if len(permitted) < len(calls):
                log.warning("dropped a tool call that tool_choice does not allow")
            calls = permitted
        if self._single_tool_call:
            calls = calls[: 1 - self._calls]
        deltas = to_deltas(calls, self._ids, start=self._calls)
        self._calls += len(deltas)
        return deltas


def _finish_only(response: native.ChatResponse) -> ChoiceDelta:
    """Return the delta of a message whose output is dropped."""
    if not response.done:
        return ChoiceDelta()
    clear_final_message(response)
    return ChoiceDelta(finish_reason="length")


class TextChoiceBuilder:
    """A builder of one choice of a text completion; thinking is dropped.

    :param echo: text to send before the generated text: the prompt, or nothing.
    :param max_tokens_is_zero: drop all generated text; the finish reason is ``length``.
    """

    def __init__(self, echo: str = "", *, max_tokens_is_zero: bool = False) -> None:
        self._echo = echo
        self._max_tokens_is_zero = max_tokens_is_zero
        self._logprobs = ContentLogprobs()
        self._has_output = False

    def feed(self, response: native.GenerateResponse) -> ChoiceDelta:
        """Return the delta of the next native message.

        :raises APIError: 502 for a stream that ends without output.
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
