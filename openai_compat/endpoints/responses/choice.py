"""``tool_choice`` of the Responses API: OpenAI's forms, mapped to the tools that may be called, and the call required.

Source: OpenAI's ``ToolChoiceParam``; Ollama's own middleware ignores it.
"""

from __future__ import annotations

from msgspec import Raw

from openai_compat.errors import invalid, missing
from openai_compat.native import types as native
from openai_compat.structured.tool_choice import WORDS, ForcedChoice, NamedFunction, choose, only, required
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.response_tools import BUILT_IN, ToolNames
from openai_compat.wire import json


class ChosenTool(RequestObject, omit_defaults=True):
    """A tool in ``allowed_tools``; ``function`` is chat's form of it."""

    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    function: NamedFunction | None = None


class AllowedChoice(RequestObject, omit_defaults=True):
    """Chat's form of ``allowed_tools``."""

    #: ``auto`` or ``required``
    mode: str | None = None
    tools: list[ChosenTool] | None = None


class ResponseToolChoice(ChosenTool):
    """Source: OpenAI's ``ToolChoiceFunction``, ``ToolChoiceCustom``, ``ToolChoiceAllowed``, ``ToolChoiceTypes``."""

    #: of ``allowed_tools``: ``auto`` or ``required``
    mode: str | None = None
    tools: list[ChosenTool] | None = None
    #: chat's form of both
    allowed_tools: AllowedChoice | None = None


#: types of tools that a client runs
_OWN = ("function", "custom")

#: types of OpenAI's own tools that its schema of a choice has
_CHOOSABLE = {
    *("apply_patch", "code_interpreter", "computer", "computer_use", "computer_use_preview", "file_search"),
    *("image_generation", "mcp", "programmatic_tool_calling", "shell"),
    *("web_search_preview", "web_search_preview_2025_03_11"),
}

_NOT_RUN = "It names a tool of OpenAI's own."


def choose_tools(
    given: str | ResponseToolChoice | None,
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
    choice = _plain(given)
    if isinstance(given, ResponseToolChoice):
        for name in _unused(given):
            ignored.add(f"tool_choice.{name}")
    if choice == "required":
        return tools, _required(tools, ignored, has_others=has_others)
    if choice is None or isinstance(choice, str):
        return choose(choice, tools)
    if choice.type == "allowed_tools":
        return _allowed(_allowed_of(choice), _path_of_allowed(choice), tools, names, ignored)
    if choice.type in _OWN or (not choice.type and choice.name):
        name = _native_name(choice, "tool_choice", names)
        return only({name}, tools), ForcedChoice(frozenset([name]), is_named=True)
    _check_built_in(choice.type, "tool_choice.type", "'function', 'custom', 'allowed_tools'")
    ignored.unsupported("tool_choice", _NOT_RUN)
    return tools, None


def _plain(given: str | ResponseToolChoice | None) -> str | ResponseToolChoice | None:
    """Return a choice with a word as text; None for an empty one, which is as if it were not given."""
    if not isinstance(given, ResponseToolChoice):
        return given or None
    if given.type in WORDS:
        return given.type
    return given if given.type or _members(given) else None


def _check_built_in(kind: str | None, param: str, others: str) -> None:
    """Check that a type is that of a tool of OpenAI's own.

    :param others: the other types that are possible, for the error.
    :raises APIError: 400.
    """
    if not kind:
        raise missing(param)
    if kind not in BUILT_IN and kind not in _CHOOSABLE:
        supported = f"Supported values are: {others}, and the types of OpenAI's own tools."
        raise invalid(f"Invalid value: '{kind[:64]}'. {supported}", param)


# -- members ----------------------------------------------------------------------------------

_EMPTY: tuple[object, ...] = (None, "", [], NamedFunction(), NamedFunction(""), AllowedChoice())


def _members(tool: ChosenTool) -> list[str]:
    """Return the members that ask for something, but for the type."""
    return [name for name in tool.__struct_fields__ if name != "type" and getattr(tool, name) not in _EMPTY]


def _unused(tool: ChosenTool) -> list[str]:
    """Return the members of a choice, or of an allowed tool, that its type does not use.

    Those of a tool that is listed itself are not among them.
    """
    if tool.type in BUILT_IN or tool.type in _CHOOSABLE:
        return []
    used: tuple[str, ...] = ()
    if tool.type == "namespace":
        used = ("name",)
    elif isinstance(tool, ResponseToolChoice) and tool.type == "allowed_tools":
        used = ("allowed_tools",) if _is_nested(tool) else ("mode", "tools")
    elif tool.type not in WORDS:
        used = ("namespace", "name" if tool.name else "function")
    return [name for name in _members(tool) if name not in used]


# -- allowed tools ----------------------------------------------------------------------------


def _is_nested(choice: ResponseToolChoice) -> bool:
    return not choice.tools and choice.allowed_tools not in _EMPTY


def _allowed_of(choice: ResponseToolChoice) -> AllowedChoice:
    """Return what a choice allows, which chat's form has in an object of its own."""
    nested = choice.allowed_tools if _is_nested(choice) else None
    return nested or AllowedChoice(choice.mode, choice.tools)


def _path_of_allowed(choice: ResponseToolChoice) -> str:
    return "tool_choice.allowed_tools" if _is_nested(choice) else "tool_choice"


def _allowed(
    allowed: AllowedChoice, path: str, tools: list[native.Tool], names: ToolNames, ignored: Ignored
) -> tuple[list[native.Tool], ForcedChoice | None]:
    if allowed.mode not in ("auto", "required", "", None):
        text = f"Invalid value: '{allowed.mode[:64]}'. Supported values are: 'auto' and 'required'."
        raise invalid(text, f"{path}.mode")
    if not allowed.tools:
        raise missing(f"{path}.tools")
    found = set()
    has_others = False
    for i, tool in enumerate(allowed.tools):
        where = f"{path}.tools[{i}]"
        for name in _unused(tool):
            ignored.add(f"{path}.tools[].{name}")
        if tool.type in _OWN or not tool.type:
            found.add(_native_name(tool, where, names))
        elif tool.type == "namespace":
            found |= _native_names(tool, where, names)
        else:
            _check_built_in(tool.type, f"{where}.type", "'function', 'custom', 'namespace'")
            has_others = True
            ignored.unsupported(f"{path}.tools", _NOT_RUN, where)
    remaining = only(found, tools)
    return remaining, _required(remaining, ignored, has_others=has_others) if allowed.mode == "required" else None


def _required(tools: list[native.Tool], ignored: Ignored, *, has_others: bool) -> ForcedChoice | None:
    """Return the requirement to call any one of *tools*; None, and listed, if only tools of OpenAI's could be called.

    :raises APIError: 400 without any tools.
    """
    if not tools and has_others:
        ignored.unsupported("tool_choice", "All tools are OpenAI's own.")
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


# -- the response -----------------------------------------------------------------------------


def shown(given: str | ResponseToolChoice | None) -> Raw:
    """Return a choice as the response has it: as it was given, in the form of this API where it came in chat's.

    One that OpenAI's schema has no place for has no effect.
    """
    choice = _plain(given)
    if isinstance(choice, ResponseToolChoice):
        return Raw(json.encode(_shown(choice)))
    return Raw(json.encode(choice if choice in WORDS else "auto"))


def _shown(choice: ResponseToolChoice) -> object:
    if choice.type == "allowed_tools":
        allowed = _allowed_of(choice)
        tools = [_shown_tool(tool) for tool in allowed.tools or ()]
        return {"type": choice.type, "mode": allowed.mode or "auto", "tools": tools}
    if choice.type in _OWN or not choice.type:
        return _shown_tool(choice)
    if choice.type not in _CHOOSABLE or (choice.type == "mcp" and not choice.server_label):
        return "auto"
    label = choice.server_label if choice.type == "mcp" else None
    return ChosenTool(choice.type, choice.name if label else None, server_label=label)


def _shown_tool(tool: ChosenTool) -> ChosenTool:
    name = tool.name or (tool.function.name if tool.function is not None else None)
    return ChosenTool(tool.type or "function", name or None, tool.namespace or None, tool.server_label or None)
