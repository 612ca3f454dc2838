"""The beginning of a call that arrives as JSON text: its name is known, and its arguments pass on, before its end."""

from __future__ import annotations

import re

#: characters of a name as JSON, with quotes and escapes; a tool's name has at most 64, which may be escaped
_MAX_NAME = 1024

_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_QUOTE_OR_BACKSLASH = re.compile(r'["\\]')


class CallHead:
    """The beginning of a call, up to its arguments: ``{"name": "f", "parameters":``.

    It arrives in parts, and each character is looked at once.
    """

    #: what it consists of, with blanks between; None is the name
    _TOKENS = (("{",), ('"name"',), (":",), None, (",",), ('"parameters"', '"arguments"'), (":",))

    def __init__(self) -> None:
        #: the name as JSON, once it was read
        self.name = ""
        #: the text is something else, or a call whose keys are in another order
        self.failed = False
        self._index = 0
        #: the present token as far as it was read
        self._token = ""
        self._is_escaped = False

    def feed(self, text: str) -> int | None:
        """Return where the arguments begin in *text*; None if they do not, or are no object."""
        position = 0
        while not self.failed:
            if not self._token:
                begin = _NOT_BLANK.search(text, position)
                if begin is None:
                    return None
                position = begin.start()
            if self._index == len(self._TOKENS):
                self.failed = text[position] != "{"
                return None if self.failed else position
            if position == len(text):
                return None
            tokens = self._TOKENS[self._index]
            position = (
                self._read_name(text, position) if tokens is None else self._read(tokens, text[position], position)
            )
        return None

    def _read(self, tokens: tuple[str, ...], character: str, position: int) -> int:
        """Read a character of one of *tokens*."""
        self._token += character
        if self._token in tokens:
            self._next()
        else:
            self.failed = not any(token.startswith(self._token) for token in tokens)
        return position + 1

    def _read_name(self, text: str, position: int) -> int:
        """Read what *text* has of the name."""
        begin = position
        if not self._token:
            self.failed = text[position] != '"'
            position += 1
        is_complete = False
        while position < len(text) and not is_complete:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
                continue
            mark = _QUOTE_OR_BACKSLASH.search(text, position)
            position = len(text) if mark is None else mark.end()
            self._is_escaped = mark is not None and mark[0] == "\\"
            is_complete = mark is not None and not self._is_escaped
        self._token += text[begin:position]
        self.failed = self.failed or len(self._token) > _MAX_NAME
        if is_complete:
            self.name = self._token
            self._next()
        return position

    def _next(self) -> None:
        self._index += 1
        self._token = ""
