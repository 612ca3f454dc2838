"""Tools of the Responses API: functions, custom tools, and namespaces of both, as functions of Ollama.

A custom tool is a function with one argument, a text. The tools of a namespace are functions whose name begins with the
namespace's; :class:`ToolNames` remembers which, for the calls of the answer and of the history. Built-in tools, which
OpenAI runs itself, are not supported.

A search that the client runs itself is a function, too.

Source: ollama ``openai/responses.go`` ``FromResponsesRequest`` (at fb3076099). Differs: tools of other types are
not sent as functions without a name; custom tools exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from msgspec import UNSET, Raw, UnsetType

from openai_compat.errors import invalid, missing, too_long
from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.translate.custom_tools import CustomFormat, from_custom
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.tool_definitions import FunctionDefinition, from_parameters
from openai_compat.wire import json


class FunctionTool(RequestObject):
    """Source: OpenAI's ``FunctionTool``; ``function`` is chat's form of it."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    #: a JSON Schema, passed on verbatim, but for what Ollama cannot decode
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None
    function: FunctionDefinition | None = None


class CustomTool(RequestObject):
    """Source: OpenAI's ``CustomToolParam``."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    format: CustomFormat | None = None


class NamespaceTool(RequestObject):
    """Source: OpenAI's ``NamespaceToolParam``."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    tools: list[Raw] | None = None


class SearchTool(RequestObject):
    """Source: OpenAI's ``ToolSearchToolParam``."""

    type: str | None = None
    #: ``client`` or ``server``
    execution: str | None = None
    description: str | None = None
    parameters: Raw | UnsetType = UNSET


#: the name that the model sees for a search of the client, which has none of its own
SEARCH = "tool_search"

ToolKind = Literal["function", "custom", "tool_search"]


class KnownTool(NamedTuple):
    """A tool as the client knows it."""

    kind: ToolKind
    name: str
    namespace: str | None
    #: path of its schema in the request, for errors
    path: str
    #: the arguments of its calls are checked
    is_strict: bool = False


class ToolNames:
    """The tools of a request by the names that the model sees, each of which is one tool's."""

    def __init__(self) -> None:
        #: by the name that the model sees
        self._tools: dict[str, KnownTool] = {}
        #: the name that the model sees, by namespace and name
        self._native: dict[tuple[str | None, str], str] = {}
        #: the names that the model sees, by other spellings: those of clients, and of models
        self._spellings: dict[str, list[str]] = {}

    def add(self, tool: KnownTool) -> str:
        """Add a tool, and return the name that the model sees."""
        key = tool.namespace, tool.name
        name = self._native.get(key)
        if name is None:
            name = full = joined(tool.namespace, tool.name)
            number = 1
            while name in self._tools:
                number += 1
                name = f"{full}_{number}"
            self._native[key] = name
            for spelling in _spellings(tool):
                self._spellings.setdefault(spelling, []).append(name)
        self._tools[name] = tool
        return name

    def of(self, native_name: str) -> KnownTool:
        """Return the tool of a call that the model made; a function of this name if there is none.

        A model may leave the namespace out, or join it otherwise: the tool is found where no other has the name.
        """
        known = self._tools.get(self.of_model(native_name))
        return KnownTool("function", native_name, None, native_name) if known is None else known

    def of_model(self, name: str) -> str:
        """Return the name that the model was given for the tool that it means by *name*; the same if it means none."""
        return name if name in self._tools else self._spelled(name) or name

    def native_name(self, namespace: str | None, name: str) -> str | None:
        """Return the name that the model sees for a name of the client; None if there is no such tool.

        Codex sends a tool of a namespace with the namespace beside its name, or joined to it, or both.
        """
        found = self._native.get((namespace or None, name))
        if found is None and namespace:
            for separator in _SEPARATORS:
                found = found or self._native.get((namespace, name.removeprefix(namespace + separator)))
            return found
        return found or self._spelled(name)

    def of_namespace(self, namespace: str) -> set[str]:
        """Return the names that the model sees for the tools of a namespace, and of those in it."""
        inner = f"{namespace}."
        return {
            name
            for name, tool in self._tools.items()
            if tool.namespace is not None and (tool.namespace == namespace or tool.namespace.startswith(inner))
        }

    def _spelled(self, name: str) -> str | None:
        found = self._spellings.get(name, ())
        return found[0] if len(found) == 1 else None

    def paths(self) -> dict[str, str]:
        """Return the paths of the schemas in the request by the names that the model sees."""
        return {name: tool.path for name, tool in self._tools.items()}

    def strict(self) -> dict[str, str]:
        """Return the field that wants arguments to be checked, by the names that the model sees."""
        return {name: "tools[].strict" for name, tool in self._tools.items() if tool.is_strict}


#: what joins the names of a namespace and a tool
_SEPARATORS = (".", "__")


def _spellings(tool: KnownTool) -> set[str]:
    """Return the spellings of a tool's name without its namespace beside it."""
    if tool.namespace is None:
        return {tool.name}
    return {tool.name, *(f"{tool.namespace}{separator}{tool.name}" for separator in _SEPARATORS)}


def joined(namespace: str | None, name: str) -> str:
    """Return the name that the model sees for a tool of a namespace.

    Source: ollama ``openai/responses.go``.
    """
    if not namespace or name.startswith(f"{namespace}."):
        return name
    return f"{namespace}.{name}"


#: types of tools that OpenAI defines and mostly runs itself → the members that they must have
BUILT_IN: dict[str, set[str]] = {
    **dict.fromkeys(("web_search", "web_search_2025_08_26"), {"type"}),
    **dict.fromkeys(("web_search_preview", "web_search_preview_2025_03_11"), {"type"}),
    **dict.fromkeys(("image_generation", "programmatic_tool_calling", "tool_search"), {"type"}),
    **dict.fromkeys(("apply_patch", "computer", "local_shell", "shell"), {"type"}),
    "code_interpreter": {"type", "container"},
    "computer_use_preview": {"type", "environment", "display_width", "display_height"},
    "file_search": {"type", "vector_store_ids"},
    "mcp": {"type", "server_label"},
}

#: levels of namespaces in namespaces; OpenAI has one
MAX_NESTED = 4
#: characters of a namespace's name, which each of its tools repeats; OpenAI allows 64
_MAX_NAMESPACE = 256

_decode_function = json.part_decoder(FunctionTool)
_decode_custom = json.part_decoder(CustomTool)
_decode_search = json.part_decoder(SearchTool)
_decode_namespace = json.part_decoder(NamespaceTool)


def from_response_tools(
    tools: list[Raw], settings: Settings, ignored: Ignored, of_items: Iterable[tuple[str, list[Raw]]] = ()
) -> tuple[list[native.Tool], ToolNames]:
    """Map the tools of a request, and return them with their names. Of two with the same name the last one counts.

    :param of_items: tools that come with items, and their paths.
    :raises APIError: 400, naming the field, for a tool that is not valid, and for too many.
    """
    names = ToolNames()
    sent: dict[str, native.Tool] = {}
    for number, tool in enumerate(_from_tools(tools, "tools", None, names, ignored, MAX_NESTED), 1):
        if number > settings.max_tools:
            raise too_long("tools", settings.max_tools, number)
        if tool is not None:
            if tool.function.name in sent:
                ignored.add("tools[].name", "Of two tools with this name, the last one counts.")
            sent[tool.function.name] = tool
    for path, more in of_items:
        for tool in _from_tools(more, path, None, names, ignored, MAX_NESTED):
            if tool is not None:
                sent[tool.function.name] = tool
            if len(sent) > settings.max_tools:
                raise too_long(path, settings.max_tools, len(sent))
    return list(sent.values()), names


def _from_tools(
    tools: list[Raw], path: str, namespace: str | None, names: ToolNames, ignored: Ignored, depth: int
) -> Iterator[native.Tool | None]:
    """Yield the tools, those of namespaces too; None for one that is not supported."""
    for i, raw in enumerate(tools):
        where = f"{path}[{i}]"
        text = bytes(raw)
        kind = json.string(json.text_of(json.members_of(text, where).get("type", UNSET))) or "function"
        if kind == "function":
            tool, unknown = _decode_function(text, where)
            yield _from_function(tool, where, namespace, names, ignored)
        elif kind == "custom":
            custom, unknown = _decode_custom(text, where)
            yield _from_custom(custom, where, namespace, names, ignored)
        elif kind == SEARCH and (search := _client_search(text, where)) is not None:
            tool_search, unknown = search
            yield _from_search(tool_search, where, names)
        elif kind == "namespace":
            nested, unknown = _decode_namespace(text, where)
            name = nested.name or ""
            if not name:
                raise missing(f"{where}.name")
            if len(name) > _MAX_NAMESPACE:
                reason = f"Invalid '{where}.name': string too long. Its maximum length is {_MAX_NAMESPACE}."
                raise invalid(reason, f"{where}.name", "string_above_max_length")
            if not depth:
                raise invalid(f"Invalid '{where}': namespaces are nested too deep.", where)
            if nested.description:
                ignored.add("tools[].description")
            inner = joined(namespace, name)
            yield from _from_tools(nested.tools or [], f"{where}.tools", inner, names, ignored, depth - 1)
        else:
            why = "It is a tool of OpenAI's own." if kind in BUILT_IN else "OpenAI has no tools of this type."
            ignored.unsupported(f"tools[].{kind[:64]}", why, f"{where}.type")
            yield None
            continue
        for field in unknown:
            ignored.add(field)


def _from_function(
    tool: FunctionTool, path: str, namespace: str | None, names: ToolNames, ignored: Ignored
) -> native.Tool:
    given: FunctionTool | FunctionDefinition = tool
    if tool.function is not None and not tool.name:
        given, path = tool.function, f"{path}.function"
        for name in _flat_members(tool):
            ignored.add(f"tools[].{name}")
    elif tool.function not in (None, FunctionDefinition()):
        ignored.add("tools[].function")
    if not given.name:
        raise missing(f"{path}.name")
    known = KnownTool("function", given.name, namespace, f"{path}.parameters", bool(given.strict))
    sent = native.ToolFunction(names.add(known))
    if given.description is not None:
        sent.description = given.description
    sent.parameters = from_parameters(given.parameters, known.path)
    return native.Tool(sent)


def _client_search(text: bytes, path: str) -> tuple[SearchTool, list[str]] | None:
    """Return a search tool, decoded; None for one that OpenAI runs itself."""
    found = _decode_search(text, path)
    return found if found[0].execution == "client" else None


def _from_search(tool: SearchTool, path: str, names: ToolNames) -> native.Tool:
    known = KnownTool("tool_search", SEARCH, None, f"{path}.parameters")
    sent = native.ToolFunction(names.add(known))
    if tool.description:
        sent.description = tool.description
    sent.parameters = from_parameters(tool.parameters, known.path)
    return native.Tool(sent)


def _flat_members(tool: FunctionTool) -> list[str]:
    """Return the members that have no effect beside chat's ``function``."""
    names = [name for name in ("description", "strict") if getattr(tool, name)]
    return names if json.is_blank(tool.parameters) else [*names, "parameters"]


def _from_custom(tool: CustomTool, path: str, namespace: str | None, names: ToolNames, ignored: Ignored) -> native.Tool:
    if not tool.name:
        raise missing(f"{path}.name")
    native_name = names.add(KnownTool("custom", tool.name, namespace, path))
    return from_custom(native_name, tool.description, tool.format, ignored, "tools[].format", f"{path}.format")
