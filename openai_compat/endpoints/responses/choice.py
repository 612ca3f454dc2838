"""``tool_choice`` of the Responses API: OpenAI's forms, mapped to the tools that may be called, and the call required.

Source: OpenAI's ``ToolChoiceParam``; Ollama's own middleware ignores it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, structs

from openai_compat.errors import invalid, missing
from openai_compat.native import types as native
from openai_compat.structured.tool_choice import ForcedChoice, NamedFunction, choose, only, required
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.response_tools import ToolNames
from openai_compat.wire import json


class ChosenTool(RequestObject, omit_defaults=True):
    """A tool in ``allowed_tools``; ``function`` is chat's form of it."""

    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    function: NamedFunction | None = None


class ResponseToolChoice(ChosenTool):
    """Source: OpenAI's ``ToolChoiceFunction``, ``ToolChoiceCustom``, ``ToolChoiceAllowed``, ``ToolChoiceTypes``."""

    #: of ``allowed_tools``: ``auto`` or ``required``
    mode: str | None = None
    tools: list[ChosenTool] | None = None


#: types of tools that a client runs
_OWN = ("function", "custom")


def choose_tools(
    choice: str | ResponseToolChoice | None,
    tools: list[native.Tool],
    names: ToolNames,
    ignored: Ignored,
    *,
    has_others: bool,
) -> tuple[list[native.Tool], ForcedChoice | None]:
    """Return the tools that a choice allows, and the call that it requires, if it does.

    :param has_others: the request has tools that are not supported.

    :raises APIError: 400 for a choice that is not valid, or names a tool that is not among the tools.
    """
    if choice == "required":
        return tools, _required(tools, ignored, has_others=has_others)
    if choice is None or isinstance(choice, str):
        return choose(choice or None, tools)
    if choice == ResponseToolChoice():
        return tools, None
    if choice.type == "allowed_tools":
        return _allowed(choice, tools, names, ignored)
    if choice.type in _OWN or (choice.type is None and choice.name):
        name = _native_name(choice, "tool_choice", names)
        return only({name}, tools), ForcedChoice(frozenset([name]), is_named=True)
    if not choice.type:
        raise missing("tool_choice.type")
    ignored.unsupported("tool_choice", "It names a tool that OpenAI runs itself.")
    return tools, None


def _allowed(
    choice: ResponseToolChoice, tools: list[native.Tool], names: ToolNames, ignored: Ignored
) -> tuple[list[native.Tool], ForcedChoice | None]:
    if choice.mode not in ("auto", "required", None):
        text = f"Invalid value: '{choice.mode[:64]}'. Supported values are: 'auto' and 'required'."
        raise invalid(text, "tool_choice.mode")
    if not choice.tools:
        raise missing("tool_choice.tools")
    found = set()
    has_others = False
    for i, tool in enumerate(choice.tools):
        if tool.type in (*_OWN, None):
            found.add(_native_name(tool, f"tool_choice.tools[{i}]", names))
        elif tool.type == "namespace":
            found |= _native_names(tool, f"tool_choice.tools[{i}]", names)
        else:
            has_others = True
            ignored.unsupported("tool_choice.tools", "It names a tool that OpenAI runs itself.")
    remaining = only(found, tools)
    return remaining, _required(remaining, ignored, has_others=has_others) if choice.mode == "required" else None


def _required(tools: list[native.Tool], ignored: Ignored, *, has_others: bool) -> ForcedChoice | None:
    """Return the requirement to call any one of *tools*; None, and listed, if only tools of OpenAI's could be called.

    :raises APIError: 400 without any tools.
    """
    if not tools and has_others:
        ignored.unsupported("tool_choice", "All tools are those that OpenAI runs itself.")
        return None
    return required(tools, "tool_choice")


def _native_name(tool: ChosenTool, path: str, names: ToolNames) -> str:
    """Return the name that the model sees for a chosen tool.

    :raises APIError: 400 for one that is not among the tools.
    """
    name = tool.name or (tool.function.name if tool.function is not None else None)
    if not name:
        raise missing(f"{path}.name")
    native_name = names.native_name(tool.namespace, name)
    if native_name is None:
        text = f"Invalid value for 'tool_choice': there is no tool '{name[:64]}' among the tools."
        raise invalid(text, f"{path}.name")
    return native_name


def _native_names(namespace: ChosenTool, path: str, names: ToolNames) -> set[str]:
    """Return the names that the model sees for all tools of a chosen namespace.

    :raises APIError: 400 for one that is not among the tools.
    """
    if not namespace.name:
        raise missing(f"{path}.name")
    found = names.of_namespace(namespace.name)
    if not found:
        text = f"Invalid value for 'tool_choice': there is no namespace '{namespace.name[:64]}' among the tools."
        raise invalid(text, f"{path}.name")
    return found


def shown(choice: str | ResponseToolChoice | None) -> Raw:
    """Return a choice as the response has it: as it was given, in the form of this API where it came in chat's."""
    if choice in (None, "", ResponseToolChoice()):
        return Raw(b'"auto"')
    if isinstance(choice, ResponseToolChoice):
        choice = structs.replace(choice, **_shown(choice))
        if choice.type == "allowed_tools":
            tools = [structs.replace(tool, **_shown(tool)) for tool in choice.tools or ()]
            choice = structs.replace(choice, mode=choice.mode or "auto", tools=tools)
    return Raw(json.encode(choice))


def _shown(tool: ChosenTool) -> dict[str, Any]:
    name = tool.name or (tool.function.name if tool.function is not None else None)
    return {"type": tool.type or "function", "name": name, "function": None}
