"""The tools of a chat, functions and custom tools, as functions of Ollama.

Schemas are passed on byte for byte, but for what Ollama cannot decode.

Source: ollama ``openai/openai.go`` ``FromChatRequest``; ``api/types.go`` ``Tool``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing, too_long
from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.translate.custom_tools import CustomDefinition, CustomFormat, from_custom
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.native_schema import readable, tool_parameters
from openai_compat.wire import json

# -- OpenAI's structs -------------------------------------------------------------------------


class FunctionDefinition(RequestObject):
    """Source: OpenAI's ``FunctionObject``."""

    name: str | None = None
    description: str | None = None
    #: a JSON Schema, passed on verbatim, but for what Ollama cannot decode
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None


class ToolDefinition(RequestObject):
    """Source: OpenAI's ``ChatCompletionTool``, ``CustomToolChatCompletions``.

    The members of a function or a custom tool may also stand beside the type, as in the Responses API: Cursor's form.
    """

    type: str | None = None
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None
    name: str | None = None
    description: str | None = None
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None
    format: CustomFormat | None = None


# -- OpenAI → native --------------------------------------------------------------------------


def from_tools(tools: Sequence[ToolDefinition], settings: Settings, ignored: Ignored) -> list[native.Tool]:
    """Map the tools of a request.

    :raises APIError: 400, naming the field, for what is neither a function nor a custom tool.
    """
    if len(tools) > settings.max_tools:
        raise too_long("tools", settings.max_tools, len(tools))
    return [_from_tool(tool, f"tools[{i}]", ignored) for i, tool in enumerate(tools)]


def from_functions(functions: Sequence[FunctionDefinition], settings: Settings) -> list[native.Tool]:
    """Map ``functions``, the predecessor of ``tools``.

    :raises APIError: 400, naming the field.
    """
    if len(functions) > settings.max_tools:
        raise too_long("functions", settings.max_tools, len(functions))
    return [_from_function(function, f"functions[{i}]") for i, function in enumerate(functions)]


def custom_names(tools: Sequence[ToolDefinition]) -> frozenset[str]:
    """Return the names of the custom tools among tools that were mapped; of two with one name the last one counts."""
    definitions = [_definition(tool, "")[0] for tool in tools]
    kinds = {definition.name or "": isinstance(definition, CustomDefinition) for definition in definitions}
    return frozenset(name for name, is_custom in kinds.items() if is_custom)


def strict_names(tools: Sequence[ToolDefinition]) -> dict[str, str]:
    """Return the fields that want the arguments of a function to be checked, by the names of the functions."""
    found = [_definition(tool, "tools[]") for tool in tools]
    return {
        definition.name or "": f"{path}.strict"
        for definition, path in found
        if isinstance(definition, FunctionDefinition) and definition.strict
    }


def schema_paths(tools: Sequence[ToolDefinition]) -> dict[str, str]:
    """Return the paths of the parameters, by the names of tools that were mapped."""
    found = [_definition(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    return {definition.name or "": f"{path}.parameters" for definition, path in found}


def _from_tool(tool: ToolDefinition, path: str, ignored: Ignored) -> native.Tool:
    definition, where = _definition(tool, path)
    listed = "tools[]" + where.removeprefix(path)
    _note_unused(tool, definition, ignored, is_flat=where == path)
    if isinstance(definition, FunctionDefinition):
        return _from_function(definition, where)
    if not definition.name:
        raise missing(f"{where}.name")
    return from_custom(
        definition.name, definition.description, definition.format, ignored, f"{listed}.format", f"{where}.format"
    )


def _definition(tool: ToolDefinition, path: str) -> tuple[FunctionDefinition | CustomDefinition, str]:
    """Return what a tool is, in either form, and its path.

    :raises APIError: 400 for a tool of another type, and for one that is nothing.
    """
    kind = tool.type or ("custom" if tool.custom and not tool.function else "function")
    if kind == "custom":
        if tool.name and tool.custom in (None, CustomDefinition()):
            return CustomDefinition(tool.name, tool.description, tool.format), path
        return tool.custom or CustomDefinition(), f"{path}.custom"
    if kind != "function":
        supported = "'function' and 'custom'"
        raise invalid(f"Invalid value: '{kind[:64]}'. Supported values are: {supported}.", f"{path}.type")
    if tool.name and tool.function in (None, FunctionDefinition()):
        return FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict), path
    if tool.function is None:
        raise missing(f"{path}.function")
    return tool.function, f"{path}.function"


#: the members of a tool that count in either form
_FLAT = {
    FunctionDefinition: ("name", "description", "parameters", "strict"),
    CustomDefinition: ("name", "description", "format"),
}
_NESTED = {FunctionDefinition: ("function",), CustomDefinition: ("custom",)}


def _note_unused(
    tool: ToolDefinition, definition: FunctionDefinition | CustomDefinition, ignored: Ignored, *, is_flat: bool
) -> None:
    """List the members of a tool that its form does not use."""
    used = (_FLAT if is_flat else _NESTED)[type(definition)]
    empty = (None, "", False, FunctionDefinition(), CustomDefinition(), CustomFormat())
    for name in ("function", "custom", "name", "description", "strict", "format"):
        if name not in used and getattr(tool, name) not in empty:
            ignored.add(f"tools[].{name}")
    if "parameters" not in used and not json.is_blank(tool.parameters):
        ignored.add("tools[].parameters")


def _from_function(function: FunctionDefinition, path: str) -> native.Tool:
    if not function.name:
        raise missing(f"{path}.name")
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
