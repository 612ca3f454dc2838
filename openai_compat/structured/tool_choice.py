"""``tool_choice``: which tools may be called, and whether one must be.

Ollama has no such parameter, so a required call is emulated: only the allowed tools are sent, with a ``format`` that
admits one call of one of them, thinking off (Ollama does not apply a format to a thinking model), and an instruction in
the system message. ``forced_choice.py`` reads the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msgspec import UNSET, Raw

from openai_compat.errors import invalid, missing
from openai_compat.native import types as native
from openai_compat.structured.call_schema import calls_schema, memory
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.native_schema import format_schema
from openai_compat.wire import json

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


# -- OpenAI → native --------------------------------------------------------------------------

_GPT_OSS = re.compile(r"(^|/)gpt-oss([:.-]|$)", re.I)


def force_call(
    sent: native.ChatRequest,
    forced: ForcedChoice,
    ignored: Ignored,
    param: str = "tool_choice",
    paths: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make a native request, whose tools are set already, admit only a tool call.

    For gpt-oss, which can only be instructed, *param* is listed as ignored.

    :param paths: the paths of the functions' parameters by the functions' names, for errors.

    :raises APIError: 400 for tools whose schemas take too much memory.
    """
    tools = sent.tools or []
    if _GPT_OSS.search(sent.model):
        # With a format beside tools it answers nothing, and its thinking cannot be turned off.
        ignored.add(param)
        sent.format = UNSET
    else:
        _check_memory(tools, "functions" if param == "function_call" else "tools")
        schemas = ((tool.function.name, _format_of(tool, paths)) for tool in tools)
        sent.format = Raw(json.encode(calls_schema(schemas)))
        sent.think = False
    _add_to_system_message(sent, _instruction(forced, has_format=sent.format is not UNSET))


def _format_of(tool: native.Tool, paths: Mapping[str, str]) -> bytes:
    """Return the schema of a tool's parameters as llama.cpp can read it; empty for none."""
    name, text = tool.function.name, json.text_of(tool.function.parameters)
    return format_schema(text, paths.get(name, name)) if text else text


#: bytes that the schema of a call may take: so many for each byte of the tools' schemas, and in addition
_MAX_MEMORY = (12, 8 * 1024 * 1024)


def _check_memory(tools: list[native.Tool], param: str) -> None:
    """Check that a schema of a call can be made of the tools' schemas within a request's memory.

    :raises APIError: 400.
    """
    size = needed = 0
    for tool in tools:
        text = json.text_of(tool.function.parameters)
        size, needed = size + len(text), needed + memory(text)
    factor, constant = _MAX_MEMORY
    if needed > factor * size + constant:
        reason = "their schemas hold too many values for a tool call that is required."
        raise invalid(f"Invalid '{param}': {reason}", param, "object_above_max_properties")


def _instruction(forced: ForcedChoice, *, has_format: bool) -> str:
    names = sorted(forced.names)
    which = (
        f'the function "{names[0]}"'
        if len(names) == 1
        else "one of the functions " + ", ".join(f'"{name}"' for name in names)
    )
    format_text = ' Answer with the call alone, as JSON: {"name": …, "parameters": {…}}.' if has_format else ""
    return f"You must call {which} now.{format_text}"


def _add_to_system_message(sent: native.ChatRequest, text: str) -> None:
    """Append to the system message: many templates read only one, at the beginning."""
    first = sent.messages[0]
    if first.role == "system":
        sent.messages = [native.Message("system", f"{first.content}\n\n{text}"), *sent.messages[1:]]
    else:
        sent.messages = [native.Message("system", text), *sent.messages]
