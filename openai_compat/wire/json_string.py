r"""The text of a JSON string that arrives in parts: escapes and surrogate pairs may be cut anywhere.

Each character is looked at once, and at most an unfinished escape is held. Nothing else of JSON belongs here.
"""

from __future__ import annotations

import re

_MARK = re.compile(r'["\\]')
_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = frozenset("0123456789abcdefABCDEF")
_REPLACEMENT = "\ufffd"


class StringDecoder:
    """Decodes a JSON string, whose parts follow its opening quote.

    What is no valid escape is passed on as it is written: the text comes from a model. A lone surrogate is U+FFFD.
    """

    def __init__(self) -> None:
        #: the closing quote was read
        self.ended = False
        #: what followed the closing quote in the part that had it
        self.rest = ""
        #: the escape that is being read, from its backslash
        self._escape = ""
        #: the first half of a character that was escaped as a pair
        self._high = ""

    def feed(self, text: str) -> str:
        """Return what the next part of the string adds to the decoded text; nothing after its end."""
        found: list[str] = []
        position = 0
        while position < len(text) and not self.ended:
            if self._escape:
                position = self._read_escape(text, position, found)
                continue
            mark = _MARK.search(text, position)
            end = len(text) if mark is None else mark.start()
            if end > position:
                self._release(found)
                found.append(text[position:end])
            position = end
            if mark is None:
                break
            position += 1
            if mark[0] == '"':
                self.ended = True
            else:
                self._escape = "\\"
        if self.ended:
            self.rest = text[position:]
            self._release(found)
        return "".join(found)

    def end(self) -> str:
        """Return what is held of a string that was cut: U+FFFD for a first half, nothing for an unfinished escape."""
        found: list[str] = []
        self._release(found)
        self._escape = ""
        return "".join(found)

    def _read_escape(self, text: str, position: int, found: list[str]) -> int:
        """Read a character of an escape; return the position of the next."""
        character = text[position]
        if len(self._escape) == 1:
            if character == "u":
                self._escape = "\\u"
            else:
                self._release(found)
                found.append(_SIMPLE.get(character, "\\" + character))
                self._escape = ""
            return position + 1
        if character not in _HEX:
            self._release(found)
            found.append(self._escape)
            self._escape = ""
            return position  # it may be a quote or a backslash
        self._escape += character
        if len(self._escape) == 6:
            self._add(int(self._escape[2:], 16), found)
            self._escape = ""
        return position + 1

    def _add(self, code: int, found: list[str]) -> None:
        """Add the character of a complete ``\\u`` escape; the first half of a pair waits for its second."""
        if self._high and 0xDC00 <= code < 0xE000:
            found.append((self._high + chr(code)).encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
            self._high = ""
            return
        self._release(found)
        if 0xD800 <= code < 0xDC00:
            self._high = chr(code)
        else:
            found.append(_REPLACEMENT if 0xDC00 <= code < 0xE000 else chr(code))

    def _release(self, found: list[str]) -> None:
        """Replace a first half whose second did not follow."""
        if self._high:
            found.append(_REPLACEMENT)
            self._high = ""
