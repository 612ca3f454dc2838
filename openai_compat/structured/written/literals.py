"""Values as they are written in Python, and in the calls of Gemma: read as they arrive, returned as JSON.

Both are JSON but for their strings and words: Python has other quotes and ``True``, ``False``, ``None``; Gemma has
tokens as quotes, and keys without any.
"""

from __future__ import annotations

import re
from typing import Literal

from openai_compat.structured.json_text import Pieces
from openai_compat.structured.written.json_value import read_string
from openai_compat.structured.written.reading import Literals, NoCall, Reader, Source
from openai_compat.wire import json
from openai_compat.wire.json_limits import MAX_DEPTH

Language = Literal["python", "gemma"]

_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_SCALAR_CHARACTERS = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_KEY = re.compile(r"[\w.-]*")

_TOKENS = ('<|"|>', "<escape>")
_TOKEN_QUOTES = Literals(_TOKENS)
_SAME_TOKEN = {token: Literals((token,)) for token in _TOKENS}

#: up to a quote or a backslash; of a string in one quote also up to the end of its line
_UNTIL_MARK = {
    (quote, quotes): re.compile(f"[^{quote}\\\\{more}]*") for quote in "\"'" for quotes, more in ((1, r"\n"), (3, ""))
}
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|[^xuU0-7])", re.S)
_UNFINISHED_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7}|[0-7]{0,2})?\Z")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": ""}
_UNCHANGED = "\\'\""


def read_literal(source: Source, language: Language, taken: Pieces, depth: int = 0) -> Reader[None]:
    """Read a value, and add it to *taken* as JSON."""
    if depth > MAX_DEPTH:
        raise NoCall
    character = yield from source.blanks()
    if character == "{":
        yield from _read_object(source, language, taken, depth)
    elif character == "[":
        yield from _read_array(source, language, taken, depth)
    elif character in ('"', "'", "<"):
        taken.add((yield from _read_text(source, language)))
    else:
        scalar = yield from source.run(_SCALAR_CHARACTERS, 1024)
        if scalar not in _WORDS and not _NUMBER.fullmatch(scalar):
            raise NoCall
        taken.add(_WORDS.get(scalar, scalar))


def _read_object(source: Source, language: Language, taken: Pieces, depth: int) -> Reader[None]:
    source.skip()
    separator = "{"
    while (character := (yield from source.blanks())) != "}":
        taken.add(separator)
        if language == "gemma" and character not in ('"', "<"):
            key = yield from source.run(_KEY)
            taken.add(json.encode(key).decode())
            if not key:
                raise NoCall
        else:
            taken.add((yield from _read_text(source, language)))
        if (yield from source.blanks()) != ":":
            raise NoCall
        source.skip()
        taken.add(": ")
        yield from read_literal(source, language, taken, depth + 1)
        yield from _read_separator(source, "}")
        separator = ", "
    source.skip()
    taken.add("{}" if separator == "{" else "}")


def _read_array(source: Source, language: Language, taken: Pieces, depth: int) -> Reader[None]:
    source.skip()
    separator = "["
    while (yield from source.blanks()) != "]":
        taken.add(separator)
        yield from read_literal(source, language, taken, depth + 1)
        yield from _read_separator(source, "]")
        separator = ", "
    source.skip()
    taken.add("[]" if separator == "[" else "]")


def _read_separator(source: Source, closing: str) -> Reader[None]:
    """Read a comma; before the closing bracket it may be missing."""
    character = yield from source.blanks()
    if character == ",":
        source.skip()
    elif character != closing:
        raise NoCall


def _read_text(source: Source, language: Language) -> Reader[str]:
    """Read a string, and return it as JSON."""
    if language == "python":
        return json.encode((yield from _read_python_string(source))).decode()
    if (yield from source.peek()) == '"':
        return (yield from read_string(source))
    quote = yield from source.expect(_TOKEN_QUOTES)
    text, _ = yield from source.until(_SAME_TOKEN[quote])
    return json.encode(text).decode()


def _read_python_string(source: Source) -> Reader[str]:
    quote = yield from source.peek()
    if quote not in ('"', "'"):
        raise NoCall
    source.skip()
    if (yield from source.peek()) == quote:  # an empty string, or the second of three quotes
        source.skip()
        if (yield from source.peek()) != quote:
            return ""
        source.skip()
        return (yield from _read_characters(source, quote, 3))
    return (yield from _read_characters(source, quote, 1))


def _read_characters(source: Source, quote: str, quotes: int) -> Reader[str]:
    """Read the characters of a string up to its closing quotes, one or three."""
    taken, found = Pieces(), 0
    while found < quotes:
        text = source.take(_UNTIL_MARK[quote, quotes])
        if text:
            taken.add(quote * found + text)
            found = 0
        character = yield from source.peek()
        if character == quote:
            source.skip()
            found += 1
        elif character == "\\":
            taken.add(quote * found + (yield from _read_escape(source)))
            found = 0
        elif not character or (character == "\n" and quotes == 1):
            raise NoCall
    return taken.take()


def _read_escape(source: Source) -> Reader[str]:
    while True:
        is_unfinished = source.begins(_UNFINISHED_ESCAPE) and not source.has_ended
        escape = "" if is_unfinished else source.take(_ESCAPE)
        if escape:
            return _unescaped(escape[1:])
        if not is_unfinished:
            raise NoCall
        yield


def _unescaped(escape: str) -> str:
    """Return what an escape stands for, without its backslash; Python keeps the backslash of an unknown one."""
    if escape in _UNCHANGED:
        return escape
    if escape[0] in "xuU01234567":
        code = int(escape[1:], 16) if escape[0] in "xuU" else int(escape, 8)
        return "\ufffd" if 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)
    return _ESCAPED.get(escape, "\\" + escape)
