"""Tool calls, in both directions: OpenAI's arguments are a string, Ollama's an object.

Arguments are passed on byte for byte.

Source: ollama ``openai/openai.go`` ``ToToolCalls``, ``FromChatRequest``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import invalid_output, missing
from openai_compat.native import types as native
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.wire import json, surrogates

# -- OpenAI's structs -------------------------------------------------------------------------


class FunctionCall(RequestObject):
    """A function call in a message of the history: its arguments are a string, or from some clients an object."""

    name: str | None = None
    arguments: Raw | UnsetType = UNSET


class FunctionCallOut(Struct):
    """A function call in a response."""

    name: str
    #: one JSON object, as text
    arguments: str


class CustomCall(RequestObject):
    """A call of a custom tool in a message of the history: its input is text."""

    name: str | None = None
    input: str | None = None


class ToolCallIn(RequestObject, omit_defaults=True):
    """A tool call in a message of the history; its members may also stand beside the type, as those of a tool."""

    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None
    name: str | None = None
    arguments: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    #: of a streamed call, which a client kept as it came
    index: Raw | UnsetType = UNSET


class ToolCallOut(Struct):
    """Source: OpenAI's ``ChatCompletionMessageToolCall``."""

    id: str
    function: FunctionCallOut
    type: str = "function"


class FunctionCallDelta(Struct):
    """What a chunk adds to a function call; only the first chunk has the name."""

    name: str | UnsetType = UNSET
    arguments: str = ""


class ToolCallDelta(Struct):
    """A tool call in a chunk, or what one adds to it. Source: OpenAI's ``ChatCompletionMessageToolCallChunk``."""

    index: int
    function: FunctionCallDelta
    #: in the first chunk of a call only
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


# -- OpenAI → native --------------------------------------------------------------------------


def from_tool_calls(calls: Sequence[ToolCallIn], path: str, ignored: Ignored) -> list[native.ToolCall]:
    """Map the tool calls of an assistant message.

    :raises APIError: 400 for a call without a function or a name.
    """
    return [_from_tool_call(call, f"{path}[{index}]", ignored) for index, call in enumerate(calls)]


def _from_tool_call(call: ToolCallIn, path: str, ignored: Ignored) -> native.ToolCall:
    if call.type not in (None, "", "function", "custom"):
        ignored.add("messages[].tool_calls[].type")
    has_custom, has_function = call.custom not in (None, CustomCall()), call.function not in (None, FunctionCall())
    if call.name and not (has_custom or has_function):
        return native.ToolCall(_from_flat_call(call, path), call.id or UNSET)
    for name in ("name", "arguments", "input"):
        if getattr(call, name) not in (None, "", UNSET):
            ignored.add(f"messages[].tool_calls[].{name}")
    if has_custom and has_function:
        ignored.add("messages[].tool_calls[].custom")
    elif call.custom is not None and (has_custom or call.function is None):
        if not call.custom.name:
            raise missing(f"{path}.custom.name")
        return native.ToolCall(_from_custom_call(call.custom.name, call.custom.input), call.id or UNSET)
    if call.function is None:
        raise missing(f"{path}.function.name")
    return native.ToolCall(from_function_call(call.function, f"{path}.function"), call.id or UNSET)


def _from_flat_call(call: ToolCallIn, path: str) -> native.ToolCallFunction:
    """Map a call whose members stand beside its type."""
    text = json.string(json.text_of(call.input))
    if call.type == "custom" or (call.type != "function" and text is not None and json.is_blank(call.arguments)):
        return _from_custom_call(call.name or "", text)
    return from_function_call(FunctionCall(call.name, call.arguments), path)


def _from_custom_call(name: str, text: str | None) -> native.ToolCallFunction:
    return native.ToolCallFunction(name, Raw(json.encode({"input": text or ""})))


def from_function_call(call: FunctionCall, path: str) -> native.ToolCallFunction:
    """Map a function call of an assistant message, which has no id.

    :raises APIError: 400 for a missing name.
    """
    if not call.name:
        raise missing(f"{path}.name")
    return native.ToolCallFunction(call.name, from_arguments(call.arguments))


def from_arguments(raw: Raw | UnsetType) -> Raw:
    """Return arguments as a JSON object; ``""``, null and absent are an empty one.

    To OpenAI they are text, and need not be valid: a response that is cut by length has arguments without an end. The
    text of an object is passed on byte for byte, also if it is text within text, as some clients encode it twice. Any
    other text is passed on as ``{"arguments": text}``, since Ollama takes objects only.
    """
    text = surrogates.mended(_inner_text(json.text_of(raw)))
    if text in (b"", b"null", b'""'):
        return Raw(b"{}")
    if json.is_object(text):
        return Raw(text)
    twice = _inner_text(text)
    if twice is not text and json.is_object(twice):
        return Raw(surrogates.mended(twice))
    return Raw(json.encode({"arguments": text.decode()}))


def _inner_text(text: bytes) -> bytes:
    """Return the text that a JSON string holds; anything else unchanged."""
    if text[:1] != b'"':
        return text
    value = json.string(text)
    return text if value is None else value.encode().strip()


# -- native → OpenAI --------------------------------------------------------------------------


class CallIds:
    """The ids of the tool calls of one response, each of which is used once; several threads may ask for them.

    :param new_id: returns a new random id with the given prefix.
    :param used: ids that the calls of the conversation have: servers may number the calls of every turn anew.
    """

    def __init__(self, new_id: Callable[[str], str], used: Iterable[str] = ()) -> None:
        self._new_id = new_id
        self._used = set(used)
        self._lock = threading.Lock()

    def of(self, given: str | UnsetType | None = None) -> str:
        """Return the id of the next call: the given one, or a new one where it is empty or used already."""
        with self._lock:
            id = given or self._new_id("call_")
            if id in self._used:
                id = self._new_id("call_")
            self._used.add(id)
            return id


def to_tool_calls(calls: list[native.ToolCall], ids: CallIds) -> list[ToolCallOut]:
    """Map tool calls of a response.

    :raises APIError: 502 for a call without a name, and for arguments that are not an object.
    """
    return [ToolCallOut(ids.of(call.id), _to_function(call.function)) for call in calls]


def to_deltas(calls: list[native.ToolCall], ids: CallIds, *, start: int) -> list[ToolCallDelta]:
    """Map tool calls to deltas of a chunk, each call whole.

    :param start: index of the first; the native index is not used, since older servers always send 0.
    :raises APIError: as :func:`to_tool_calls`.
    """
    return [
        ToolCallDelta(index, FunctionCallDelta(call.function.name, call.function.arguments), call.id, "function")
        for index, call in enumerate(to_tool_calls(calls, ids), start)
    ]


def add_deltas(calls: list[ToolCallOut], deltas: Sequence[ToolCallDelta]) -> None:
    """Add deltas to the tool calls of a response, as OpenAI's clients do."""
    for delta in deltas:
        name, arguments = delta.function.name, delta.function.arguments
        if delta.index == len(calls):
            calls.append(ToolCallOut(delta.id or "", FunctionCallOut(name or "", arguments)))
        else:
            calls[delta.index].function.arguments += arguments


def _to_function(function: native.ToolCallFunction) -> FunctionCallOut:
    """Map a native call; absent and empty arguments are an empty object."""
    if not function.name.strip():
        raise invalid_output("The backend made a tool call without a name.", "upstream_error")
    text = surrogates.mended(_inner_text(json.text_of(function.arguments)))  # some send a string, as OpenAI does
    if text in (b"", b"[]", b'""'):
        return FunctionCallOut(function.name, "{}")
    if not json.is_native_object(text):
        raise invalid_output("The backend made a tool call whose arguments are not an object.", "upstream_error")
    return FunctionCallOut(function.name, text.decode())
