"""The text of a custom tool's call: the one argument of the function that stands for the tool.

Text that was cut is read as far as it came, in linear time and a small multiple of its memory.
"""

from __future__ import annotations

import re

from msgspec import UNSET, Raw

from openai_compat.wire import json, surrogates
from openai_compat.wire.json_string import StringDecoder


def custom_input(arguments: str) -> str:
    """Return the text of a custom tool's call from its arguments; all of them if they are something else.

    Arguments without a value have an empty text; those that were cut have the beginning of the text.
    """
    members = _members(arguments)
    if members is None:
        text = _begun(arguments)
    else:
        text = json.string(json.text_of(members.get("input", UNSET)))
        if text is None and all(map(json.is_blank, members.values())):
            text = ""
    return arguments if text is None else text


def _members(arguments: str) -> dict[str, Raw] | None:
    """Return the members of arguments; None for those that were cut."""
    data = arguments.encode("utf-8", "replace")
    return json.members(data) if json.is_native_object(data) else None


_BEGIN = re.compile(r'\s*\{\s*"input"\s*:\s*"')
#: an escape that was cut
_CUT = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
#: characters of the longest of these
_LONGEST_CUT = 5


def _begun(arguments: str) -> str | None:
    """Return the text as far as it came in arguments that were cut; None if they are something else.

    The end of the text is found by replacing what is escaped, in C: a search for all escapes takes a hundred times the
    memory of the text.
    """
    begin = _BEGIN.match(arguments)
    if begin is None:
        return "" if _ends_before_text(arguments) else None
    start = begin.end()
    bare = arguments.replace("\\\\", "\0\0").replace('\\"', "\0\0")
    end = bare.find('"', start)
    if end < 0:
        cut = _CUT.search(bare, max(start, len(bare) - _LONGEST_CUT))
        end = cut.start() if cut else len(bare)
    return json.string(surrogates.mended(f'"{arguments[start:end]}"'.encode("utf-8", "replace")))


def _ends_before_text(arguments: str) -> bool:
    """Return whether arguments end before the text begins."""
    rest = arguments
    for token in ("{", '"input"', ":", "null"):
        rest = rest.lstrip()
        if token.startswith(rest):
            return True
        if not rest.startswith(token):
            return False
        rest = rest[len(token) :]
    return not rest.strip()


#: characters in which the text begins, with more blanks than a model writes
_MAX_BEGIN = 256


class InputReader:
    """Reads the text of a custom tool's call from arguments that arrive in parts, as they arrive.

    Together it is what :func:`custom_input` says of all the arguments. Those that do not begin with the text are held
    to their end. Where ``input`` comes twice the first one counts, and an escape that JSON does not have stays.
    """

    def __init__(self) -> None:
        #: arguments in which the text did not begin yet
        self._held: list[str] = []
        self._size = 0
        self._decoder: StringDecoder | None = None
        self._is_whole = False

    def feed(self, arguments: str) -> str:
        """Return what the next part of the arguments adds to the text."""
        if self._decoder is not None:
            return self._decoder.feed(arguments)
        before, self._size = self._size, self._size + len(arguments)
        if not before and _members(arguments) is not None:
            self._is_whole = True
            return custom_input(arguments)
        self._held.append(arguments)
        if before > _MAX_BEGIN:
            return ""
        begun = "".join(self._held)
        begin = _BEGIN.match(begun)
        if begin is None:
            return ""
        self._held, self._decoder = [], StringDecoder()
        return self._decoder.feed(begun[begin.end() :])

    def end(self) -> str:
        """Return what the text still lacks when the arguments end."""
        if self._decoder is not None:
            return self._decoder.end()
        return "" if self._is_whole else custom_input("".join(self._held))
