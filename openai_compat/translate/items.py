"""Items of the Responses API, its input and its history, to Ollama's messages.

An item is a message, a call, the result of a call, or reasoning; Ollama's message of an assistant has all three of
text, calls and thinking, so neighbours are put together. An item of the history may be of another server: what has no
native counterpart is listed, and never fails.

Source: ollama ``openai/responses.go`` ``FromResponsesRequest`` (at fb3076099). Differs: ``developer`` is ``system``;
items of unknown types are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import APIError, invalid, missing
from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.translate.compaction import uncompacted
from openai_compat.translate.content import Fetch
from openai_compat.translate.fields import Ignored
from openai_compat.translate.files import Files
from openai_compat.translate.item_content import ItemContent
from openai_compat.translate.item_tools import names_of, tools_of
from openai_compat.translate.item_types import (
    CallItem,
    decode_call,
    decode_compaction,
    decode_message,
    decode_output,
    decode_reasoning,
    decode_search_call,
    decode_tools,
    item_type,
    parts_of,
)
from openai_compat.translate.messages import native_role
from openai_compat.translate.past_calls import PastCalls
from openai_compat.translate.response_tools import SEARCH, ToolNames, from_response_tools, joined
from openai_compat.translate.sealed_text import unseal
from openai_compat.translate.tools import from_arguments
from openai_compat.wire import json

_I = TypeVar("_I")


class Past(NamedTuple):
    """The first items, which the client did not send: they were stored, and have limits of their own."""

    length: int
    #: where the client refers to them, for errors
    field: str
    files: Files
    fetch: Fetch | None


#: of a request that goes on from nothing
NO_PAST = Past(0, "", Files(), None)


def from_items(
    items: Sequence[Raw],
    names: ToolNames,
    ignored: Ignored,
    files: Files,
    fetch: Fetch | None = None,
    instructions: str | None = None,
    past: Past = NO_PAST,
) -> list[native.Message]:
    """Map items, in order, to messages; the newest compaction takes the place of those that it stands for.

    :param names: the request's tools, for the calls of the history.
    :param files: reads files.
    :param fetch: downloads images by URL; without it they are refused.
    :param instructions: the first system message.
    :param past: of which the first items are; a file or an image among them that cannot be read is passed over and
        listed.
    :raises APIError: 400 whose ``param`` is the path of what is not valid, such as ``input[0].content[1]``;
        the items of the past do not count, and such an error names only the field that refers to them.
    """
    history = _History(names, ignored, files, fetch)
    if instructions:
        history.messages.append(native.Message("system", instructions))
    for i, raw in uncompacted(items, past.length):
        if i < past.length:
            history.add_past(i, raw, past)
        else:
            history.add(raw, f"input[{i - past.length}]")
    history.end()
    if not history.messages and history.unknown is not None:
        raise history.unknown
    return history.messages


def check_items(
    items: Sequence[Raw], field: str, settings: Settings, ignored: Ignored, files: Files, fetch: Fetch | None
) -> None:
    """Check items that are stored, so that requests can go on from them.

    :param field: where the items stand in the request.
    :param fetch: as in :func:`from_items`, and so is *files*; neither needs to fetch anything.
    :raises APIError: 400 whose ``param`` is the path of what is not valid, such as ``items[0].content[1]``.
    """
    _, names = from_response_tools([], settings, ignored, tools_of(items, field=field))
    history = _History(names, ignored, files, fetch)
    for i, raw in enumerate(items):
        history.add(raw, f"{field}[{i}]")


class _History:
    """The messages so far, and thinking that waits for the message that it belongs to."""

    def __init__(self, names: ToolNames, ignored: Ignored, files: Files, fetch: Fetch | None) -> None:
        self.messages: list[native.Message] = []
        #: the error for the first item that cannot be read, if no item says anything
        self.unknown: APIError | None = None
        self._names = names
        self._past = PastCalls()
        self._ignored = ignored
        self._content = ItemContent(ignored, files, fetch)
        self._thinking: list[str] = []
        #: the last message that has thinking, and its pieces
        self._thinker: native.Message | None = None
        self._thoughts: list[str] = []

    def add(self, raw: Raw, path: str) -> None:
        """Add an item."""
        text = bytes(raw)
        kind = item_type(json.members_of(text, path), path)
        reader = _READERS.get(kind)
        if kind == "item_reference":
            text_of_error = f"{path}: the item that it refers to is not stored; send the item itself."
            raise invalid(text_of_error, f"{path}.id")
        if reader is None:
            self._add_unknown(kind, path)
        else:
            reader(self, text, path)

    def _add_unknown(self, kind: str, path: str) -> None:
        """List an item of a type that has no meaning here."""
        self._ignored.add(f"input[].{kind[:64]}")
        self._note_unread(f'unknown input item type: "{kind[:64]}"', path, "type")

    def _note_unread(self, text: str, path: str, field: str) -> None:
        """Remember an item that adds nothing to the messages, if the client sent it."""
        if not self._content.is_past:
            self.unknown = self.unknown or invalid(f"{path}: {text}", f"{path}.{field}")

    def add_past(self, place: int, raw: Raw, past: Past) -> None:
        """Add an item of the past."""
        own, self._content = self._content, ItemContent(self._ignored, past.files, past.fetch, is_past=True)
        path = f"input[{place}]"
        try:
            self.add(raw, path)
        except APIError as error:
            text = f"Invalid '{past.field}': {error.message.replace(path, f'items[{place}]')}"
            raise APIError(error.status, text, param=past.field, code=error.code) from error
        self._content = own

    def _noted(self, decoded: tuple[_I, list[str]]) -> _I:
        """Return a decoded item; list the keys that it does not have."""
        item, unknown = decoded
        for name in unknown:
            self._ignored.add(name)
        return item

    def _message(self, text: bytes, path: str) -> None:
        item = self._noted(decode_message(text, path))
        role = native_role(item.role, path)
        if item.phase:
            self._ignored.add("input[].phase")
        sent = native.Message(role, "")
        self._content.put(sent, item.content, f"{path}.content")
        if role == "assistant":
            self._take_thinking(sent)
        else:
            self._past.end_turn()
            self.end_thinking()
        self.messages.append(sent)

    # -- calls and results --------------------------------------------------------------------

    def _function_call(self, text: bytes, path: str) -> None:
        call = self._noted(decode_call(text, path))
        if call.input:
            self._ignored.add("input[].input")
        self._add_call(call, from_arguments(call.arguments), path)

    def _custom_call(self, text: bytes, path: str) -> None:
        call = self._noted(decode_call(text, path))
        if not json.is_blank(call.arguments):
            self._ignored.add("input[].arguments")
        self._add_call(call, Raw(json.encode({"input": call.input or ""})), path)

    def _search_call(self, text: bytes, path: str) -> None:
        item = self._noted(decode_search_call(text, path))
        if item.execution != "client":
            self._add_unknown("tool_search_call", path)
            return
        call = CallItem(name=SEARCH, call_id=item.call_id, id=item.id)
        self._add_call(call, from_arguments(item.arguments), path)

    def _search_output(self, text: bytes, path: str) -> None:
        """Say what was found: the tools are those of the request."""
        item = self._noted(decode_tools(text, path))
        if item.execution != "client":
            self._add_unknown("tool_search_output", path)
            return
        found = dict.fromkeys(names_of(item.tools or []))  # each once: no more than the tools of the request
        sent = self._add_result(item.call_id, SEARCH)
        sent.content = "\n".join(found) or "No tools were found."

    def _additional_tools(self, text: bytes, path: str) -> None:
        self._noted(decode_tools(text, path))

    def _add_call(self, call: CallItem, arguments: Raw, path: str) -> None:
        """Add a call to the last message if it is an assistant's, else to a new one."""
        if not call.name:
            raise missing(f"{path}.name")
        name = self._native_name(call.namespace, call.name)
        sent = native.ToolCall(native.ToolCallFunction(name, arguments), call.call_id or call.id or UNSET)
        if not self.messages or self.messages[-1].role != "assistant":
            self.messages.append(native.Message("assistant"))
        last = self.messages[-1]
        self._take_thinking(last)
        if not last.tool_calls:
            last.tool_calls = []
        last.tool_calls.append(sent)
        self._past.add(sent)

    def _native_name(self, namespace: str | None, name: str) -> str:
        """Return the name that the model sees; a tool of another request has its own."""
        return self._names.native_name(namespace, name) or joined(namespace, name)

    def _call_output(self, text: bytes, path: str) -> None:
        item = self._noted(decode_output(text, path))
        name = self._native_name(item.namespace, item.name) if item.name else None
        sent = self._add_result(item.call_id, name)
        if name:
            sent.tool_name = name
        self._set_output(sent, item.output, path)

    def _add_result(self, call_id: str | None, name: str | None) -> native.Message:
        """Add a message for the result of a call, and return it.

        :param name: the function that the result names, as the model knows it.
        """
        self.end_thinking()
        sent = native.Message("tool")
        call = self._past.answered(call_id, name)
        if call is not None:
            self._join_after(call)
        if call_id:
            sent.tool_call_id = call_id
        elif call is not None:
            sent.tool_name = call.function.name
            sent.tool_call_id = call.id or UNSET
        self.messages.append(sent)
        return sent

    def _set_output(self, sent: native.Message, output: Raw | UnsetType, path: str) -> None:
        text = json.text_of(output)
        parts = parts_of(Raw(text), path) if text[:1] == b"[" else None
        if parts is not None:
            self._content.put(sent, self._noted(parts), f"{path}.output")
        else:
            value = json.string(text)
            sent.content = text.decode() if value is None else value

    def _join_after(self, call: native.ToolCall) -> None:
        """Put what stands between a call and its result before the call: templates want the result to follow.

        Source: ``FromResponsesRequest``. Differs: any number of the assistant's messages, with calls too.
        """
        start = end = len(self.messages)
        for i in range(end - 1, -1, -1):
            message = self.messages[i]
            if message.role != "assistant":
                break
            if any(other is call for other in message.tool_calls or ()):
                start = i
                break
        if end - start < 2:
            return
        self._settle()
        before, *others = together = self.messages[start:]
        del self.messages[start + 1 :]
        before.content = "\n".join(message.content for message in together if message.content)
        thinking = "\n".join(message.thinking for message in together if message.thinking)
        if thinking:
            before.thinking = thinking
        images = [image for message in together for image in message.images or ()]
        if images:
            before.images = images
        assert before.tool_calls
        for message in others:
            before.tool_calls += message.tool_calls or ()

    # -- reasoning ----------------------------------------------------------------------------

    def _reasoning(self, text: bytes, path: str) -> None:
        item = self._noted(decode_reasoning(text, path))
        thinking = unseal(item.encrypted_content, "reasoning") if item.encrypted_content else None
        if thinking is None:
            if item.encrypted_content:
                self._ignored.add("input[].encrypted_content", "Another server encoded it.")
            thinking = self._content.thinking_of(item.content, path)
            if not thinking and not json.is_blank(item.summary):
                self._ignored.add("input[].summary")
        if thinking:
            self._thinking.append(thinking)
        else:
            self._note_unread("the reasoning has nothing that this server can read.", path, "encrypted_content")

    def _take_thinking(self, sent: native.Message) -> None:
        """Give the thinking that waits to a message of the assistant."""
        if self._thinking:
            if sent is not self._thinker:
                self._settle()
                self._thinker = sent
            self._thoughts += self._thinking
            self._thinking = []

    def _settle(self) -> None:
        """Write down what the last message with thinking thought: once, since each call may add to it."""
        if self._thinker is not None:
            self._thinker.thinking = "\n".join(self._thoughts)
            self._thinker, self._thoughts = None, []

    def end_thinking(self) -> None:
        """Make a message of the thinking that waits for one of the assistant, where none follows."""
        if self._thinking:
            sent = native.Message("assistant")
            self._take_thinking(sent)
            self.messages.append(sent)

    def end(self) -> None:
        """End the history."""
        self.end_thinking()
        self._settle()

    def _compaction(self, text: bytes, path: str) -> None:
        item = self._noted(decode_compaction(text, path))
        summary = unseal(item.encrypted_content or "", "compaction")
        if summary is None:
            self._ignored.add("input[].compaction", "Another server encoded it.")
            self._note_unread("the compaction is of another server.", path, "encrypted_content")
            return
        self.end_thinking()
        self.messages.append(native.Message("user", f"Summary of the conversation so far:\n\n{summary}"))


_READERS: dict[str, Callable[[_History, bytes, str], None]] = {
    "message": _History._message,
    "function_call": _History._function_call,
    "custom_tool_call": _History._custom_call,
    "function_call_output": _History._call_output,
    "custom_tool_call_output": _History._call_output,
    "tool_search_call": _History._search_call,
    "tool_search_output": _History._search_output,
    "additional_tools": _History._additional_tools,
    "reasoning": _History._reasoning,
    "compaction": _History._compaction,
}
