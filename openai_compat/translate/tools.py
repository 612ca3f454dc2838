"""Tools and tool calls, in both directions: OpenAI's arguments are a string, Ollama's an object.

Schemas and arguments are passed on byte for byte.

Source: ollama ``openai/openai.go`` ``ToToolCalls``, ``FromChatRequest``; ``api/types.go`` ``Tool``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import invalid, invalid_output, missing, too_long
from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.native_schema import readable, tool_parameters
from openai_compat.wire import json, surrogates

# -- OpenAI's structs -------------------------------------------------------------------------


class FunctionDefinition(RequestObject):
    """Source: OpenAI's ``FunctionObject``."""

    name: str | None = None
    description: str | None = None
    #: a JSON Schema, passed on verbatim, but for what Ollama cannot decode
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None


class ToolDefinition(RequestObject):
    """Source: OpenAI's ``ChatCompletionTool``."""

    type: str | None = None
    function: FunctionDefinition | None = None


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
    """A tool call in a message of the history."""

    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None
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


def from_tools(tools: Sequence[ToolDefinition], settings: Settings, ignored: Ignored) -> list[native.Tool]:
    """Map the tools of a request.

    :raises APIError: 400, naming the field, for what is not a function tool.
    """
    if len(tools) > settings.max_tools:
        raise too_long("tools", settings.max_tools, len(tools))
    return [_from_tool(tool, f"tools[{i}]", ignored) for i, tool in enumerate(tools)]


def from_functions(functions: Sequence[FunctionDefinition], settings: Settings, ignored: Ignored) -> list[native.Tool]:
    """Map ``functions``, the predecessor of ``tools``.

    :raises APIError: 400, naming the field.
    """
    if len(functions) > settings.max_tools:
        raise too_long("functions", settings.max_tools, len(functions))
    return [_from_function(function, f"functions[{i}]", "functions[]", ignored) for i, function in enumerate(functions)]


def _from_tool(tool: ToolDefinition, path: str, ignored: Ignored) -> native.Tool:
    if tool.type not in ("function", "", None):
        raise invalid(f"Invalid value: '{tool.type[:64]}'. Supported values are: 'function'.", f"{path}.type")
    if tool.function is None:
        raise missing(f"{path}.function")
    return _from_function(tool.function, f"{path}.function", "tools[].function", ignored)


def _from_function(function: FunctionDefinition, path: str, name: str, ignored: Ignored) -> native.Tool:
    if not function.name:
        raise missing(f"{path}.name")
    if function.strict:
        ignored.add(f"{name}.strict")
    sent = native.ToolFunction(function.name)
    if function.description is not None:
        sent.description = function.description
    sent.parameters = from_parameters(function.parameters, f"{path}.parameters")
    return native.Tool(sent)


def from_parameters(given: Raw | UnsetType, path: str) -> Raw | UnsetType:
    """Return the parameters of a function as Ollama can decode them; ``""``, null and absent are none.

    :raises APIError: 400 for what is no object. ``[]`` is PHP's empty one.
    """
    return UNSET if json.text_of(given) in (b"", b'""') else readable(given, tool_parameters, path)


def from_tool_calls(calls: Sequence[ToolCallIn], path: str, ignored: Ignored) -> list[native.ToolCall]:
    """Map the tool calls of an assistant message.

    :raises APIError: 400 for a call without a function or a name.
    """
    return [_from_tool_call(call, f"{path}[{index}]", ignored) for index, call in enumerate(calls)]


def _from_tool_call(call: ToolCallIn, path: str, ignored: Ignored) -> native.ToolCall:
    if call.type not in (None, "", "function", "custom"):
        ignored.add("messages[].tool_calls[].type")
    has_custom = call.custom not in (None, CustomCall())
    if has_custom and call.function not in (None, FunctionCall()):
        ignored.add("messages[].tool_calls[].custom")
    elif call.custom is not None and (has_custom or call.function is None):
        if not call.custom.name:
            raise missing(f"{path}.custom.name")
        arguments = Raw(json.encode({"input": call.custom.input or ""}))
        return native.ToolCall(native.ToolCallFunction(call.custom.name, arguments), call.id or UNSET)
    if call.function is None:
        raise missing(f"{path}.function.name")
    return native.ToolCall(from_function_call(call.function, f"{path}.function"), call.id or UNSET)


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
    """The ids of the tool calls of one response, each of which is used once.

    :param new_id: returns a new random id with the given prefix.
    """

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id
        self._used: set[str] = set()

    def of(self, given: str | UnsetType | None = None) -> str:
        """Return the id of the next call: the given one, or a new one where it is empty or used already."""
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
