"""``tool_choice``: which tools may be called, and whether one must be.

Ollama has no such parameter: only the allowed tools are sent, and ``forced_request.py`` requires a call.
"""

from __future__ import annotations

from dataclasses import dataclass

from openai_compat.errors import invalid, missing
from openai_compat.native import types as native
from openai_compat.translate.fields import RequestObject

# -- the request ------------------------------------------------------------------------------


class NamedFunction(RequestObject):
    """Source: OpenAI's ``ChatCompletionNamedToolChoice.function``."""

    name: str | None = None


class AllowedTool(RequestObject):
    """Source: OpenAI's ``ChatCompletionAllowedTools.tools[]``; ``name`` is the form of the Responses API."""

    type: str | None = None
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    name: str | None = None


class AllowedTools(RequestObject):
    """Source: OpenAI's ``ChatCompletionAllowedTools``."""

    #: ``auto`` or ``required``
    mode: str | None = None
    tools: list[AllowedTool] | None = None


class ToolChoice(RequestObject):
    """Source: OpenAI's ``ChatCompletionToolChoiceOption``, all its objects in one; ``name`` as in an allowed tool."""

    type: str | None = None
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None
    custom: NamedFunction | None = None
    name: str | None = None


#: choices that are a word, which some clients write as an object's type
WORDS = ("auto", "none", "required")


@dataclass(frozen=True)
class ForcedChoice:
    """The tool call that the answer must be."""

    names: frozenset[str]
    #: one function, by its name: OpenAI's ``finish_reason`` is then ``stop``
    is_named: bool


def unused(choice: ToolChoice) -> list[str]:
    """Return the members of a choice that its type does not use."""
    given = {"function": choice.function, "allowed_tools": choice.allowed_tools, "custom": choice.custom}
    unused = [name for name, value in given.items() if name != choice.type and value not in _EMPTY]
    uses_name = choice.type in _NAMING and given[choice.type] in _EMPTY
    return [*unused, "name"] if choice.name and not uses_name else unused


_EMPTY = (None, NamedFunction(), NamedFunction(""), AllowedTools())
#: types of tools, and of choices of one
_NAMING = ("function", "custom")


def choose(
    choice: str | ToolChoice | None, tools: list[native.Tool], param: str = "tool_choice"
) -> tuple[list[native.Tool], ForcedChoice | None]:
    """Return the tools that a choice allows, and the call that it requires, if it does.

    :param param: the request's field, for errors.
    :raises APIError: 400 for a choice that is not valid, or names a tool that is not among the tools.
    """
    if choice is None or choice == "auto":
        return tools, None
    if choice == "none":
        return [], None
    if isinstance(choice, str):
        if choice != "required":
            supported = "'none', 'auto', and 'required'"
            raise invalid(f"Invalid value: '{choice[:64]}'. Supported values are: {supported}.", param)
        return tools, required(tools, param)
    if choice.type in _NAMING:
        name = _chosen(choice, param, tools, param)
        return only({name}, tools), ForcedChoice(frozenset([name]), is_named=True)
    if choice.type == "allowed_tools":
        return _allowed(choice.allowed_tools, tools, param)
    if not choice.type:
        raise missing(f"{param}.type")
    supported = "'function', 'custom', and 'allowed_tools'"
    raise invalid(f"Invalid value: '{choice.type[:64]}'. Supported values are: {supported}.", f"{param}.type")


def _allowed(
    allowed: AllowedTools | None, tools: list[native.Tool], param: str
) -> tuple[list[native.Tool], ForcedChoice | None]:
    path = f"{param}.allowed_tools"
    if allowed is None:
        raise missing(path)
    if allowed.mode not in ("auto", "required"):
        if not allowed.mode:
            raise missing(f"{path}.mode")
        text = f"Invalid value: '{allowed.mode[:64]}'. Supported values are: 'auto' and 'required'."
        raise invalid(text, f"{path}.mode")
    if not allowed.tools:
        raise missing(f"{path}.tools")
    names = set()
    for i, tool in enumerate(allowed.tools):
        if tool.type and tool.type not in _NAMING:
            text = f"Invalid value: '{tool.type[:64]}'. Supported values are: 'function' and 'custom'."
            raise invalid(text, f"{path}.tools[{i}].type")
        names.add(_chosen(tool, f"{path}.tools[{i}]", tools, param))
    remaining = only(names, tools)
    return remaining, required(remaining, param) if allowed.mode == "required" else None


def _chosen(chosen: ToolChoice | AllowedTool, path: str, tools: list[native.Tool], param: str) -> str:
    """Return the name of the tool that a choice names, in either form."""
    has_custom = not chosen.type and chosen.custom not in _EMPTY
    kind = "custom" if chosen.type == "custom" or has_custom else "function"
    named = chosen.custom if kind == "custom" else chosen.function
    if chosen.name and named in _EMPTY:
        return _name(NamedFunction(chosen.name), f"{path}.name", tools, param)
    return _name(named, f"{path}.{kind}.name", tools, param)


def _name(function: NamedFunction | None, path: str, tools: list[native.Tool], param: str) -> str:
    """Return the name of a function, which must be one of *tools*."""
    name = function.name if function is not None else None
    if not name:
        raise missing(path)
    if name not in {tool.function.name for tool in tools}:
        raise invalid(f"Invalid value for '{param}': there is no tool '{name[:64]}' among the tools.", path)
    return name


def only(names: set[str], tools: list[native.Tool]) -> list[native.Tool]:
    """Return the tools with these names."""
    return [tool for tool in tools if tool.function.name in names]


def required(tools: list[native.Tool], param: str) -> ForcedChoice:
    """Return the requirement to call any one of *tools*.

    :raises APIError: 400 without tools.
    """
    if not tools:
        raise invalid(f"Invalid value for '{param}': a tool call is required, but there are no tools.", param)
    return ForcedChoice(frozenset(tool.function.name for tool in tools), is_named=False)
