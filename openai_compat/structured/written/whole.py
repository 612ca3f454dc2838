"""Texts that are nothing but calls, or their arguments: the name of a native call, and the text of a native error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from openai_compat.native import types as native
from openai_compat.structured import schema_checker
from openai_compat.structured.written.json_calls import read_arguments
from openai_compat.structured.written.known_tools import KnownTools
from openai_compat.structured.written.reading import MAX_SIZE, NoCall, Reader, Source
from openai_compat.structured.written.sequence import Sequence as Calls
from openai_compat.wire import json

#: returns the calls that the name of a native call is; None for a name, nothing for what cannot be read
ReadName = Callable[[str], Sequence[native.ToolCall] | None]

_RAW, _END_OF_RAW = "raw='", re.compile(r"', err[:=]")
#: what may stand around arguments that a parser has taken out of a call
_SPECIAL = r"(?:<[|｜][\w▁/]{1,40}[|｜]>|\s)*"
_BEFORE, _AFTER = re.compile(_SPECIAL + r"(?:json)?"), re.compile(_SPECIAL + r"\Z")


def read_calls(text: str, tools: Sequence[native.Tool], tool_name: Callable[[str], str] = str) -> list[native.ToolCall]:
    """Return the calls of a text that is nothing but calls, in any form; none of any other text.

    :param tools: of the request; a call names one of them.
    :param tool_name: returns the tool's own name for another spelling of it, and otherwise the same text.
    """
    if not tools or len(text) > MAX_SIZE:
        return []
    source = Source(KnownTools(tools, tool_name))
    return source.calls if _reads_all(source, Calls(source).read(), text) else []


def named_calls(calls: Sequence[native.ToolCall], read_name: ReadName | None) -> list[native.ToolCall]:
    """Return what native calls stand for: Ollama may put a call that it cannot read in the name of another."""
    if read_name is None:
        return list(calls)
    read = [(call, read_name(call.function.name)) for call in calls]
    return [each for call, found in read for each in ((call,) if found is None else found)]


def read_raw(text: str, tools: Sequence[native.Tool], tool_name: Callable[[str], str] = str) -> list[native.ToolCall]:
    """Return the calls in the text of a native error, which quotes what a parser could not read.

    What is quoted is a call in any form, or, as ``raw``, its arguments only: they count if one tool only can have them.

    :param text: such as ``error parsing tool call: raw='{"city": "Oslo"}<|call|>', err=invalid character '<'``, or
        ``incomplete GLM tool call: tool "{\\"name\\": …}" is not declared``.
    :param tools: as in :func:`read_calls`.
    :param tool_name: as in :func:`read_calls`.
    """
    _, found, quoted = text.partition(_RAW)
    ends = [match.start() for match in _END_OF_RAW.finditer(quoted)]
    if not found or not ends:
        return _from_quoted(text, tools, tool_name)
    raw = quoted[: ends[-1]]
    return read_calls(raw, tools, tool_name) or _from_arguments(raw, tools)


#: a text as Go quotes it
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)


def _from_quoted(
    text: str, tools: Sequence[native.Tool], tool_name: Callable[[str], str] = str
) -> list[native.ToolCall]:
    """Return the calls in the first quoted text that is nothing else."""
    for match in _QUOTED.finditer(text[:MAX_SIZE]):
        calls = read_calls(json.string(match[0].encode("utf-8", "replace")) or "", tools, tool_name)
        if calls:
            return calls
    return []


def _from_arguments(raw: str, tools: Sequence[native.Tool]) -> list[native.ToolCall]:
    if len(raw) > MAX_SIZE:
        return []
    known = KnownTools(tools)
    source = Source(known)
    begin = _BEFORE.match(raw)
    arguments: list[str] = []
    if begin is None or not _reads_all(source, _read_bare_arguments(source, arguments), raw[begin.end() :]):
        return []
    names = [tool.function.name for tool in tools]
    fitting = names if len(names) == 1 else _fitting(tools, arguments[0])
    call = known.call(fitting[0], arguments[0]) if len(fitting) == 1 else None
    return [] if call is None else [call]


def _read_bare_arguments(source: Source, found: list[str]) -> Reader[None]:
    found.append((yield from read_arguments(source)))
    if not _AFTER.match(source.rest):
        raise NoCall


def _reads_all(source: Source, reader: Reader[None], text: str) -> bool:
    source.add(text)
    source.has_ended = True
    try:
        return next(reader, True) is True
    except NoCall:
        return False


def _fitting(tools: Sequence[native.Tool], arguments: str) -> list[str]:
    """Return the tools whose schema admits arguments; if there are several, those that name all parameters."""
    fitting = [tool.function for tool in tools if _fits(tool.function, arguments)]
    if len(fitting) > 1:
        given = set(json.members(arguments.encode("utf-8", "replace")))
        known = KnownTools(tools)
        fitting = [function for function in fitting if given <= known.parameters(function.name)]
    return [function.name for function in fitting]


def _fits(function: native.ToolFunction, arguments: str) -> bool:
    try:
        checker = schema_checker.checker(json.text_of(function.parameters) or b"{}")
        return checker.mismatch(arguments) is None
    except schema_checker.Uncheckable:
        return False
