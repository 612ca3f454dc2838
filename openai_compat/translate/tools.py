"""Tools and tool calls, in both directions: OpenAI's arguments are a string, Ollama's an object.

Schemas and arguments are passed on byte for byte.

Source: ollama ``openai/openai.go`` ``ToToolCalls``, ``FromChatRequest``; ``api/types.go`` ``Tool``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import bad_gateway, invalid, missing, too_long
from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.wire import json

# -- OpenAI's structs -------------------------------------------------------------------------


class FunctionDefinition(Struct):
    """Source: OpenAI's ``FunctionObject``."""

    name: str | None = None
    description: str | None = None
    #: a JSON Schema, passed on verbatim
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None


class ToolDefinition(Struct):
    """Source: OpenAI's ``ChatCompletionTool``."""

    type: str | None = None
    function: FunctionDefinition | None = None


class FunctionCall(Struct):
    """A function call in a message of the history: its arguments are a string, or from some clients an object."""

    name: str | None = None
    arguments: Raw | UnsetType = UNSET


class FunctionCallOut(Struct):
    """A function call in a response."""

    name: str
    #: one JSON object, as text
    arguments: str


class ToolCallIn(Struct):
    """A tool call in a message of the history."""

    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None


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
    return [_from_function(function, f"functions[{i}]", ignored) for i, function in enumerate(functions)]


def _from_tool(tool: ToolDefinition, path: str, ignored: Ignored) -> native.Tool:
    if tool.type not in ("function", None):
        raise invalid(f"Invalid value: '{tool.type[:64]}'. Supported values are: 'function'.", f"{path}.type")
    if tool.function is None:
        raise missing(f"{path}.function")
    return _from_function(tool.function, f"{path}.function", ignored)


def _from_function(function: FunctionDefinition, path: str, ignored: Ignored) -> native.Tool:
    """Map a function, whose ``parameters`` must be an object, null or absent."""
    if not function.name:
        raise missing(f"{path}.name")
    if function.strict:
        ignored.add("tools[].function.strict")
    sent = native.ToolFunction(function.name)
    if function.description is not None:
        sent.description = function.description
    schema = json.text_of(function.parameters)
    if schema:
        if not schema.startswith(b"{"):
            name = f"{path}.parameters"
            raise invalid(f"Invalid type for '{name}': expected an object.", name, "invalid_type")
        sent.parameters = function.parameters
    return native.Tool(sent)


def from_tool_calls(calls: Sequence[ToolCallIn], path: str) -> list[native.ToolCall]:
    """Map the tool calls of an assistant message.

    :raises APIError: 400 for a call without a function, or with arguments that are not an object.
    """
    return [_from_tool_call(call, f"{path}[{index}]") for index, call in enumerate(calls)]


def _from_tool_call(call: ToolCallIn, path: str) -> native.ToolCall:
    if call.function is None:
        raise missing(f"{path}.function.name")
    return native.ToolCall(from_function_call(call.function, f"{path}.function"), call.id or UNSET)


def from_function_call(call: FunctionCall, path: str) -> native.ToolCallFunction:
    """Map a function call of an assistant message, which has no id.

    :raises APIError: 400 for a missing name, or arguments that are not an object.
    """
    if not call.name:
        raise missing(f"{path}.name")
    return native.ToolCallFunction(call.name, from_arguments(call, path))


def from_arguments(call: FunctionCall, path: str) -> Raw:
    """Return arguments as a JSON object, byte for byte; ``""``, null and absent are an empty one.

    :raises APIError: 400 for arguments that are not an object.
    """
    text = json.text_of(call.arguments)
    if text[:1] == b'"':
        text = str(json.decode_raw(Raw(text))).encode().strip()
    if text in (b"", b"null"):
        return Raw(b"{}")
    if not json.is_object(text):
        raise invalid("invalid tool call arguments: expected a JSON object", f"{path}.arguments", "invalid_type")
    return Raw(text)


# -- native → OpenAI --------------------------------------------------------------------------


def to_tool_calls(calls: list[native.ToolCall], new_id: Callable[[str], str]) -> list[ToolCallOut]:
    """Map tool calls of a response; an id is made where an older server gave none.

    :raises APIError: 502 if the arguments are not an object.
    """
    return [ToolCallOut(call.id or new_id("call_"), _to_function(call.function)) for call in calls]


def to_deltas(calls: list[native.ToolCall], new_id: Callable[[str], str], *, start: int) -> list[ToolCallDelta]:
    """Map tool calls to deltas of a chunk, each call whole.

    :param start: index of the first; the native index is not used, since older servers always send 0.
    :raises APIError: 502 if the arguments are not an object.
    """
    return [
        ToolCallDelta(index, FunctionCallDelta(call.function.name, call.function.arguments), call.id, "function")
        for index, call in enumerate(to_tool_calls(calls, new_id), start)
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
    text = json.text_of(function.arguments)
    if text in (b"", b'""'):
        return FunctionCallOut(function.name, "{}")
    if text[:1] == b'"':  # some servers send a string, as OpenAI does
        text = str(json.decode_raw(Raw(text))).encode("utf-8", "replace")
    if not json.is_object(text):
        raise bad_gateway("The backend made a tool call whose arguments are not an object.")
    return FunctionCallOut(function.name, text.decode())
