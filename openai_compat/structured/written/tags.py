"""Calls whose arguments are parameters in tags, or JSON in a tag that has the name: Qwen, Llama, MiniMax, DeepSeek.

A value is plain text, from tag to tag, without the line ends beside the tags; the tool's schema says what it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from openai_compat.structured.written.json_calls import read_arguments
from openai_compat.structured.written.known_tools import json_value
from openai_compat.structured.written.reading import Literals, NoCall, Reader, Source
from openai_compat.wire import json

_IN_QUOTES = re.compile(r'[^"<>\n]*')
_UNQUOTED = re.compile(r"[^\"'<>{(\s]*")
_ATTRIBUTES = re.compile(r"[^<>\n]*")


_PARAMETER, _FUNCTION = ("parameter", "param"), ("function", "invoke")


class Dialect(NamedTuple):
    """How the tags of one family are written."""

    parameters: Literals
    #: of a value
    closers: Literals
    #: the name is in quotes, and attributes may follow it
    is_quoted: bool


def dialect(*prefixes: str, is_quoted: bool = True) -> Dialect:
    """Return the dialect in which tags have one of these prefixes, after ``<`` and ``</``."""
    end = ' name="' if is_quoted else "="
    beginnings = [f"<{prefix}{word}{end}" for prefix in prefixes for word in _PARAMETER]
    closers = [f"</{prefix}{word}>" for prefix in prefixes for word in (*_PARAMETER, *_FUNCTION)]
    return Dialect(Literals(beginnings), Literals(closers), is_quoted)


def read_function(source: Source, tags: Dialect) -> Reader[None]:
    """Read a call, after the beginning of its tag: the name, and parameters or JSON up to the closing tag."""
    name = source.tool((yield from _read_name(source, tags)))
    character = yield from source.blanks()
    if character == "{":
        source.add_call(name, (yield from read_arguments(source)))
        return
    arguments: dict[str, object] = {}
    while (yield from source.blanks()) == "<":
        if not (yield from source.match(tags.parameters)):
            break
        parameter, attributes = yield from _read_parameter(source, tags)
        text, closer = yield from source.until(tags.closers)
        arguments[parameter] = _value(source, name, parameter, attributes, text)
        if not closer.rstrip(">").endswith(_PARAMETER):  # the value's own tag is missing
            source.add_call(name, json.encode(arguments).decode())
            return
    if not arguments and not (source.tools.needs_nothing(name) and (yield from source.match(_END_OF_FUNCTION))):
        raise NoCall
    source.add_call(name, json.encode(arguments).decode())


_END_OF_FUNCTION = Literals(("</function>", "</invoke>", "</｜DSML｜invoke>", "</|DSML|invoke>", "</atem:invoke>"))


def _read_name(source: Source, tags: Dialect) -> Reader[str]:
    """Read the name of a function and the end of its tag, which may be missing before JSON."""
    if tags.is_quoted:
        name, _ = yield from _read_quoted(source)
        return name
    quote = yield from source.peek()
    if quote in ('"', "'"):
        source.skip()
    name = yield from source.run(_UNQUOTED)
    if quote in ('"', "'"):
        if (yield from source.peek()) != quote:
            raise NoCall
        source.skip()
    character = yield from source.peek()
    if character == ">":
        source.skip()
    elif character != "{":
        raise NoCall
    return name


def _read_parameter(source: Source, tags: Dialect) -> Reader[tuple[str, str]]:
    """Read the name of a parameter and the end of its tag; return the name and the attributes."""
    if tags.is_quoted:
        return (yield from _read_quoted(source))
    name = (yield from source.run(_ATTRIBUTES)).strip("\"' ")
    if (yield from source.peek()) != ">":
        raise NoCall
    source.skip()
    return name, ""


def _read_quoted(source: Source) -> Reader[tuple[str, str]]:
    """Read a name up to its quote, and the rest of the tag; return the name and the attributes."""
    name = yield from source.run(_IN_QUOTES)
    if (yield from source.peek()) != '"':
        raise NoCall
    source.skip()
    attributes = yield from source.run(_ATTRIBUTES)
    if (yield from source.peek()) != ">":
        raise NoCall
    source.skip()
    return name, attributes


def _value(source: Source, tool: str, parameter: str, attributes: str, text: str) -> object:
    text = text.removeprefix("\n").removesuffix("\n")
    if 'string="true"' in attributes:
        return text
    if 'string="false"' in attributes:
        return json_value(text)
    return source.tools.value(tool, parameter, text)


_KEY, _END_OF_KEY = Literals(("<arg_key>",)), Literals(("</arg_key>",))
_VALUE, _END_OF_VALUE = Literals(("<arg_value>",)), Literals(("</arg_value>",))


def read_keys_and_values(source: Source, name: str) -> Reader[None]:
    """Read the arguments of GLM, after the first ``<arg_key>``.

    :param name: of the tool.
    """
    arguments: dict[str, object] = {}
    while True:
        key, _ = yield from source.until(_END_OF_KEY)
        yield from source.blanks()
        yield from source.expect(_VALUE)
        text, _ = yield from source.until(_END_OF_VALUE)
        arguments[key.strip()] = source.tools.value(name, key.strip(), text.removeprefix("\n").removesuffix("\n"))
        yield from source.blanks()
        if not (yield from source.match(_KEY)):
            break
    source.add_call(name, json.encode(arguments).decode())
