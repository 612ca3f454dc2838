"""``tool_choice``: a call that the answer must be. Ollama has no such switch, so it is emulated.

Only the allowed tools go up; with them a ``format`` that admits one call of one of them and nothing else, thinking
off (with it, Ollama does not apply the format), and a line that says so to the model. The answer is that call, as
JSON text or as a native tool call, which some templates make of it. Both are taken, name and arguments are
checked, and what is no call is an error, never plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.errors import APIError, failed, invalid, missing
from openai_compat.native import messages as native
from openai_compat.translate.calls import calls_schema
from openai_compat.translate.fields import Ignored
from openai_compat.translate.purejson import Brackets, PureJSON
from openai_compat.translate.tools import FunctionCallDelta, ToolCallDelta, to_tool_calls
from openai_compat.translate.turn import Piece
from openai_compat.wire import json

# -- the request ------------------------------------------------------------------------------


class NamedFunction(Struct):
    name: str | None = None


class AllowedTool(Struct):
    type: str | None = None
    function: NamedFunction | None = None


class AllowedTools(Struct):
    #: ``auto`` or ``required``
    mode: str | None = None
    tools: list[AllowedTool] | None = None


class ToolChoice(Struct):
    """Source: OpenAI's ``ChatCompletionToolChoiceOption``, its objects in one."""

    type: str | None = None
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


@dataclass(frozen=True)
class Forced:
    """A call that the answer must be."""

    names: frozenset[str]
    #: one function, by its name: OpenAI's ``finish_reason`` is then ``stop``
    is_named: bool


def choose(
    choice: str | ToolChoice | None, tools: list[native.Tool], param: str = "tool_choice"
) -> tuple[list[native.Tool], Forced | None]:
    """The tools that a choice leaves, and the call that it forces, if it does.

    :raises APIError: 400 for a choice that is none, or of a tool that is not there.
    """
    if choice is None or choice == "auto":
        return tools, None
    if choice == "none":
        return [], None
    if isinstance(choice, str):
        if choice != "required":
            supported = "'none', 'auto', and 'required'"
            raise invalid(f"Invalid value: '{choice[:64]}'. Supported values are: {supported}.", param)
        return tools, _forced(tools, param)
    if choice.type == "function":
        name = _name(choice.function, f"{param}.function.name", tools, param)
        return _only({name}, tools), Forced(frozenset([name]), is_named=True)
    if choice.type == "allowed_tools":
        return _allowed(choice.allowed_tools, tools, param)
    if choice.type is None:
        raise missing(f"{param}.type")
    supported = "'function' and 'allowed_tools'"
    raise invalid(f"Invalid value: '{choice.type[:64]}'. Supported values are: {supported}.", f"{param}.type")


def _allowed(
    allowed: AllowedTools | None, tools: list[native.Tool], param: str
) -> tuple[list[native.Tool], Forced | None]:
    path = f"{param}.allowed_tools"
    if allowed is None:
        raise missing(path)
    if allowed.mode not in ("auto", "required"):
        if allowed.mode is None:
            raise missing(f"{path}.mode")
        text = f"Invalid value: '{allowed.mode[:64]}'. Supported values are: 'auto' and 'required'."
        raise invalid(text, f"{path}.mode")
    if not allowed.tools:
        raise missing(f"{path}.tools")
    names = set()
    for i, tool in enumerate(allowed.tools):
        if tool.type not in ("function", None):
            raise invalid(
                f"Invalid value: '{tool.type[:64]}'. Supported values are: 'function'.", f"{path}.tools[{i}].type"
            )
        names.add(_name(tool.function, f"{path}.tools[{i}].function.name", tools, param))
    left = _only(names, tools)
    return left, _forced(left, param) if allowed.mode == "required" else None


def _name(function: NamedFunction | None, path: str, tools: list[native.Tool], param: str) -> str:
    name = function.name if function is not None else None
    if not name:
        raise missing(path)
    if name not in {tool.function.name for tool in tools}:
        raise invalid(f"Invalid value for '{param}': there is no tool '{name[:64]}' among the tools.", path)
    return name


def _only(names: set[str], tools: list[native.Tool]) -> list[native.Tool]:
    return [tool for tool in tools if tool.function.name in names]


def _forced(tools: list[native.Tool], param: str) -> Forced:
    if not tools:
        raise invalid(f"Invalid value for '{param}': a call needs tools, and there are none.", param)
    return Forced(frozenset(tool.function.name for tool in tools), is_named=False)


# -- OpenAI → native --------------------------------------------------------------------------

_GPT_OSS = re.compile(r"(^|/)gpt-oss([:.-]|$)", re.I)


def force(sent: native.ChatRequest, forced: Forced, ignored: Ignored, param: str = "tool_choice") -> None:
    """Make the native request, which has its tools already, admit nothing but a call."""
    tools = sent.tools or []
    if _GPT_OSS.search(sent.model):
        # It cannot be held to a format beside tools (it then answers nothing), nor be kept from thinking.
        ignored.add(param)
        sent.format = UNSET
    else:
        schema = calls_schema([(tool.function.name, json.text_of(tool.function.parameters)) for tool in tools])
        sent.format = Raw(json.encode(schema))
        sent.think = False
    _tell(sent, _line(forced, is_held=sent.format is not UNSET))


def _line(forced: Forced, *, is_held: bool) -> str:
    names = sorted(forced.names)
    which = (
        f'the function "{names[0]}"'
        if len(names) == 1
        else "one of the functions " + ", ".join(f'"{name}"' for name in names)
    )
    form = ' Answer with the call alone, as JSON: {"name": …, "parameters": {…}}.' if is_held else ""
    return f"You must call {which} now.{form}"


def _tell(sent: native.ChatRequest, line: str) -> None:
    """Say it in the system message: many templates know only one, at the beginning."""
    first = sent.messages[0]
    if first.role == "system":
        sent.messages = [native.Message("system", f"{first.content}\n\n{line}"), *sent.messages[1:]]
    else:
        sent.messages = [native.Message("system", line), *sent.messages]


# -- native → OpenAI --------------------------------------------------------------------------

#: how a call begins: its name, and all before its arguments
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)')
_TAIL = re.compile(r"\s*\}\s*")

#: characters of text that may come before it is a call
_MAX_HELD = 1024 * 1024


class _WrittenCall(Struct):
    name: str
    parameters: Raw | UnsetType = UNSET
    arguments: Raw | UnsetType = UNSET


class ForcedTurn:
    """A choice that is one call, whichever way the model writes it.

    Of JSON text the name is sent on as soon as it is known, and the arguments as they come.

    :param new_id: gives the id of a call that was written as text.
    """

    def __init__(self, forced: Forced, new_id: Callable[[str], str], *, one_call: bool = False) -> None:
        self._forced = forced
        self._new_id = new_id
        self._one_call = one_call
        self._pure = PureJSON()
        self._held = ""
        self._arguments: list[str] = []
        self._brackets: Brackets | None = None
        self.called = 0

    def feed(self, response: native.ChatResponse) -> Piece:
        """Take the next native message.

        :raises APIError: 502 ``tool_choice_failed`` for an answer that is no call.
        """
        piece, message = Piece(), response.message
        if message is not None:
            piece.thinking = message.thinking or ""
            if message.tool_calls:
                piece.calls = self._native(message.tool_calls)
        thinking, text = self._pure.feed(message.content or "" if message is not None else "")
        if response.done:
            more, rest = self._pure.end()
            thinking, text = thinking + more, text + rest
        piece.thinking += thinking
        if self._brackets is not None or not self.called:
            piece.calls += self._written(text)
        if response.done:
            self._finish(piece, response.done_reason)
        return piece

    def _native(self, calls: list[native.ToolCall]) -> list[ToolCallDelta]:
        if self._brackets is not None:
            return []  # the same call, which a template understood after all
        if self._one_call or self._forced.is_named:
            calls = calls[: 1 - self.called]
        found = []
        for call in to_tool_calls(calls, self._new_id):
            self._check_name(call.function.name)
            function = FunctionCallDelta(call.function.name, call.function.arguments)
            found.append(ToolCallDelta(self.called, function, call.id, "function"))
            self.called += 1
        return found

    def _written(self, text: str) -> list[ToolCallDelta]:
        """What text adds to the call."""
        if self._brackets is not None:
            return self._argument(text)
        self._held += text
        if len(self._held) > _MAX_HELD:
            raise _no_call()
        head = _HEAD.match(self._held)
        if head is None:
            return []
        try:
            name = _decode_name(head[1].encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _no_call() from error
        rest, self._held = self._held[head.end() :], ""
        return self._begin(name) + self._argument(rest)

    def _begin(self, name: str) -> list[ToolCallDelta]:
        self._check_name(name)
        self._brackets = Brackets()
        self.called = 1
        return [ToolCallDelta(0, FunctionCallDelta(name, ""), self._new_id("call_"), "function")]

    def _argument(self, text: str) -> list[ToolCallDelta]:
        assert self._brackets is not None
        end = self._brackets.feed(text)
        self._held += text[end:]
        if not end:
            return []
        self._arguments.append(text[:end])
        return [ToolCallDelta(0, FunctionCallDelta(arguments=text[:end]))]

    def _finish(self, piece: Piece, reason: str | None) -> None:
        if reason == "length":
            piece.finish_reason = "length"
            return
        if not self.called:
            piece.calls = self._otherwise_written()
        elif self._brackets is not None and not (
            _TAIL.fullmatch(self._held) and json.is_object("".join(self._arguments).encode())
        ):
            raise _no_call()
        piece.finish_reason = "stop" if self._forced.is_named else "tool_calls"

    def _otherwise_written(self) -> list[ToolCallDelta]:
        """A call whose keys stand in another order, or with more of them."""
        try:
            call = _decode(self._held.encode("utf-8", "replace"))
        except json.Malformed as error:
            raise _no_call() from error
        text = json.text_of(call.parameters) or json.text_of(call.arguments)
        if not json.is_object(text):
            raise _no_call()
        return [*self._begin(call.name), ToolCallDelta(0, FunctionCallDelta(arguments=text.decode()))]

    def _check_name(self, name: str) -> None:
        if name not in self._forced.names:
            raise _no_call()


_decode = json.native_decoder(_WrittenCall)
_decode_name = json.native_decoder(str)


def _no_call() -> APIError:
    return failed("The model did not answer with the tool call that tool_choice asks for.", "tool_choice_failed")
