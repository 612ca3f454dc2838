"""Calls that begin with a name: in Python, with JSON after the name, of Mistral, GLM, Gemma, and lists of them."""

from __future__ import annotations

import re

from openai_compat.structured.json_text import Pieces
from openai_compat.structured.written.json_calls import read_arguments
from openai_compat.structured.written.literals import read_literal
from openai_compat.structured.written.reading import Literals, NoCall, Reader, Source
from openai_compat.structured.written.tags import read_keys_and_values
from openai_compat.wire import json

_MISTRAL = Literals(("[ARGS]", "[CALL_ID]"))
_ARGS = Literals(("[ARGS]",))
_GLM = Literals(("<arg_key>", "</tool_call>"))
_REACT = Literals(("Action Input:",))
_IDENTIFIER = re.compile(r"\w*")
_CALL_ID = re.compile(r"[\w-]*")


def read_named(source: Source) -> Reader[None]:
    """Read a call that begins with its name."""
    written = yield from source.name()
    character = yield from source.peek()
    if written == "call:" or (written.startswith("call:") and character == "{"):
        yield from _read_gemma(source, written.removeprefix("call:"))
        return
    if written == "print" and character == "(" and source.tools.name(written) is None:
        yield from _read_printed(source)
        return
    name = source.tool(written)
    if character == "(":
        source.add_call(name, (yield from _read_keywords(source)))
        return
    character = yield from source.blanks()
    id = ""
    if character == "[":
        if (yield from source.expect(_MISTRAL)) == "[CALL_ID]":
            id = yield from source.run(_CALL_ID)
            yield from source.expect(_ARGS)
    elif character == "<":
        if (yield from source.expect(_GLM)) == "<arg_key>":
            yield from read_keys_and_values(source, name)
        elif source.tools.needs_nothing(name):
            source.add_call(name, "{}")
        else:
            raise NoCall
        return
    elif character == "A":
        yield from source.expect(_REACT)
    source.add_call(name, (yield from read_arguments(source)), id)


def read_list(source: Source) -> Reader[None]:
    """Read a list of calls in Python, after its bracket."""
    while True:
        yield from source.blanks()
        name = source.tool((yield from source.name()))
        source.add_call(name, (yield from _read_keywords(source)))
        character = yield from source.blanks()
        if character == ",":
            source.skip()
            character = yield from source.blanks()
        if character == "]":
            source.skip()
            return
        if not character and source.setting == "tag":
            return


def _read_printed(source: Source) -> Reader[None]:
    """Read ``print(name(…))``, as Gemma writes it in a block of code, after ``print``."""
    source.skip()
    yield from source.blanks()
    name = source.tool((yield from source.name()))
    source.add_call(name, (yield from _read_keywords(source)))
    if (yield from source.blanks()) != ")":
        raise NoCall
    source.skip()


def _read_keywords(source: Source) -> Reader[str]:
    """Read arguments in parentheses, all with their names, and return them as JSON."""
    if (yield from source.peek()) != "(":
        raise NoCall
    source.skip()
    taken, separator, names = Pieces(), "{", set[str]()
    while (yield from source.blanks()) != ")":
        name = yield from source.run(_IDENTIFIER)
        if not name or name in names or (yield from source.blanks()) != "=":
            raise NoCall
        names.add(name)
        source.skip()
        taken.add(separator + json.encode(name).decode() + ": ")
        yield from read_literal(source, "python", taken)
        separator = ", "
        character = yield from source.blanks()
        if character == ",":
            source.skip()
        elif character != ")":
            raise NoCall
    source.skip()
    taken.add("{}" if separator == "{" else "}")
    return taken.take()


def _read_gemma(source: Source, written: str) -> Reader[None]:
    """Read ``call:name{…}``, after the name."""
    if not written:
        yield from source.blanks()
        written = yield from source.name()
    name = source.tool(written)
    if (yield from source.blanks()) != "{":
        raise NoCall
    taken = Pieces()
    yield from read_literal(source, "gemma", taken)
    source.add_call(name, taken.take())
