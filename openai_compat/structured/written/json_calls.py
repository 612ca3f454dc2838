"""Calls that are JSON: objects with a name and arguments, and arrays of them.

How much counts depends on where it stands. A tag says that a call follows: other keys do not matter, the last bracket
may be missing, and so may the arguments of a tool that needs none. A bare object may be any JSON answer: only the keys
of a call, and the name comes before the arguments, so that the answer leaves as soon as it differs. In a fence the
order is free.
"""

from __future__ import annotations

from dataclasses import dataclass

from openai_compat.structured.written.json_value import read_string, read_value
from openai_compat.structured.written.reading import Literals, NoCall, Reader, Source
from openai_compat.wire import json, surrogates

_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_IDS = ("id", "tool_call_id", "call_id")
_TYPES = ("type", "index")
#: it holds the call, or only its name
_FUNCTION = ("function", "function_call")
_LIST = ("tool_calls",)

_KEYS = Literals(f'"{key}"' for key in _NAMES + _ARGUMENTS + _IDS + _TYPES + _FUNCTION + _LIST)
_LATE_KEYS = frozenset(_ARGUMENTS)
_ANY_TYPE = ('"function"', '"function_call"', '"tool_call"', '"tool_use"')


@dataclass
class _Members:
    """What was read of an object."""

    name: str = ""
    arguments: str = ""
    id: str = ""
    #: the object is itself in a list of calls
    is_listed: bool = False
    #: it has a list of calls; an object of its own that holds the call: neither is nested further
    has_list: bool = False
    has_function: bool = False


def read_array(source: Source) -> Reader[None]:
    """Read an array of calls, after its bracket."""
    while True:
        yield from source.blanks()
        yield from read_object(source, is_listed=True)
        character = yield from source.blanks()
        if character == "]":
            source.skip()
            return
        if not character and source.setting == "tag":
            return
        if character != ",":
            raise NoCall
        source.skip()


def read_object(source: Source, *, is_listed: bool = False) -> Reader[None]:
    """Read an object that is a call, or that has a list of calls.

    :param is_listed: it stands in a list itself.
    """
    members = _Members(is_listed=is_listed)
    yield from _read_members(source, members)
    if members.has_list:
        return
    if members.name and not members.arguments and source.setting == "tag" and source.tools.needs_nothing(members.name):
        members.arguments = "{}"
    if not members.name or not members.arguments:
        raise NoCall
    source.add_call(members.name, members.arguments, members.id)


def read_arguments(source: Source) -> Reader[str]:
    """Read arguments, which are an object, and return them as they are written."""
    if (yield from source.blanks()) != "{":
        raise NoCall
    return (yield from read_value(source))


def _read_members(source: Source, members: _Members) -> Reader[None]:
    if (yield from source.peek()) != "{":
        raise NoCall
    source.skip()
    while True:
        yield from source.blanks()
        key = yield from _read_key(source)
        if (yield from source.blanks()) != ":":
            raise NoCall
        source.skip()
        yield from source.blanks()
        yield from _read_member(source, key, members)
        character = yield from source.blanks()
        if character == "}":
            source.skip()
            return
        if character in ("", "<") and source.setting == "tag":
            return
        if character != ",":
            raise NoCall
        source.skip()


def _read_key(source: Source) -> Reader[str]:
    if source.setting == "tag":
        key = _text((yield from read_string(source)))
        if key == "description":  # of a tool, not of a call
            raise NoCall
        return key
    key = (yield from source.expect(_KEYS)).strip('"')
    if source.setting == "bare" and key in _LATE_KEYS and not source.is_opened:
        raise NoCall
    return key


def _read_member(source: Source, key: str, members: _Members) -> Reader[None]:
    character = yield from source.peek()
    if key in _FUNCTION and character == "{" and not members.has_function:
        members.has_function = True
        yield from _read_members(source, members)
    elif key in _NAMES + _FUNCTION:
        if members.name:
            raise NoCall
        members.name = source.tool(_text((yield from read_string(source))))
    elif key in _ARGUMENTS:
        if members.arguments:
            raise NoCall
        source.is_opened = True
        members.arguments = yield from _read_arguments(source, character)
    elif key in _IDS:
        members.id = _text((yield from read_value(source)))
    elif key in _LIST:
        if character != "[" or members.is_listed or members.has_list:
            raise NoCall
        source.skip()
        yield from read_array(source)
        members.has_list = True
    else:
        value = yield from read_value(source)
        if key in _TYPES and value[0] == '"' and value not in _ANY_TYPE:
            raise NoCall


def _read_arguments(source: Source, character: str) -> Reader[str]:
    """Read an object, or a string that holds one; Glaive has apostrophes around it."""
    if character == "'" and source.setting == "tag":
        source.skip()
        arguments = yield from read_arguments(source)
        if (yield from source.blanks()) != "'":
            raise NoCall
        source.skip()
        return arguments
    if character != '"':
        return (yield from read_arguments(source))
    return _text((yield from read_string(source))).strip()


def _text(written: str) -> str:
    """Return the text of a JSON string; ``""`` for another value."""
    return json.string(surrogates.mended(written.encode("utf-8", "replace"))) or ""
