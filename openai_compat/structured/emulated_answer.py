"""The answer of a model without tools: ``{"calls": […]}`` or ``{"answer": …}``, of which the first key decides.

Calls leave one by one, each when it is complete; an answer leaves as it streams: the text of a JSON string, or the
bytes of the client's own JSON. Text that begins otherwise, of a model that no format constrains, is read as the text of
any model. The request is made in ``emulation.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from openai_compat.native import types as native
from openai_compat.structured.call_head import CallHead
from openai_compat.structured.content_reader import NOTHING, ContentReader, CutCall, Read, joined
from openai_compat.structured.json_text import Brackets, JSONUnwrapper, Pieces
from openai_compat.structured.stop_text import StopFilter
from openai_compat.wire import json, surrogates
from openai_compat.wire.json_string import StringDecoder

#: characters in which the first key stands: a longer beginning, of blanks, is not read as one
_MAX_HEAD = 256
_HEAD = re.compile(r'\{\s*"(calls|answer|name)"\s*:\s*(?=\S)')
_BEGINNINGS = ('{"calls":', '{"answer":', '{"name":')

_NOT_BLANK = re.compile(r"[^ \t\n\r,]")
_END_OF_SCALAR = re.compile(r"[ \t\n\r,}\]]")


class _Call(Struct):
    """A call as JSON text; models write its arguments under either key."""

    name: str
    parameters: Raw | UnsetType = UNSET
    arguments: Raw | UnsetType = UNSET


_decode = json.native_decoder(_Call)
_decode_name = json.native_decoder(str)


class EmulatedReader:
    """A reader of an emulated answer.

    :param is_text: an answer is text; otherwise it is JSON, and its bytes are passed on.
    :param stops: stop sequences, applied to the text.
    :param other: reads text that is no such answer.
    """

    def __init__(self, other: ContentReader, *, is_text: bool, stops: Sequence[str] = ()) -> None:
        self._unwrapper = JSONUnwrapper()
        self._other = other
        self._is_text = is_text
        self._stop = StopFilter(stops)
        self._head = ""
        self._read: Callable[[str], Read] = self._read_head
        self._calls = _Calls()
        self._value: _Value | None = None

    @property
    def holding(self) -> bool:
        """Return whether text is held that may leave later."""
        return self._other.holding

    @property
    def stopped(self) -> bool:
        """Return whether a stop sequence was read: what follows is dropped."""
        return self._stop.stopped

    def feed(self, text: str) -> Read:
        """Take the next part."""
        thinking, content = self._unwrapper.feed(text)
        read = self._read(content) if content else NOTHING
        return self._applied(read._replace(thinking=thinking + read.thinking))

    def release(self) -> str:
        """Return nothing: a native call beside the JSON, which the template parsed as well, changes nothing of it."""
        return ""

    def interrupt(self) -> str:
        """Return what is held of text that is no such answer."""
        return self._stop.feed(self._other.interrupt())

    def end(self, *, is_cut: bool) -> Read:
        """Return what is held: text that was no answer, or the beginning of a call that was cut.

        The beginning of the JSON that was cut before its value is neither.
        """
        thinking, content = self._unwrapper.end()
        parts = [Read(thinking), self._read(content) if content else NOTHING]
        if self._head and not is_cut:
            parts.append(self._as_text())
        parts.append(self._rest(is_cut=is_cut))
        read = self._applied(joined(parts))
        return read._replace(text=read.text + self._stop.end())

    def _rest(self, *, is_cut: bool) -> Read:
        if self._read == self._other.feed:
            return self._other.end(is_cut=is_cut)
        if self._value is not None:
            return Read(text=self._value.end())
        return self._calls.end(is_cut=is_cut)

    def _applied(self, read: Read) -> Read:
        """Return what was read, with the text up to a stop sequence."""
        return read._replace(text=self._stop.feed(read.text)) if read.text else read

    # -- what the text is, one state a method -------------------------------------------------

    def _read_head(self, text: str) -> Read:
        """Hold the text until its first key is known."""
        head = self._head = (self._head + text).lstrip()
        found = _HEAD.match(head)
        if found is None:
            begun = "".join(head[:_MAX_HEAD].split())
            is_possible = any(each.startswith(begun[: len(each)]) for each in _BEGINNINGS)
            return NOTHING if is_possible and len(head) < _MAX_HEAD else self._as_text()
        self._head = ""
        key, rest = found[1], head[found.end() :]
        if key == "answer":
            is_string = self._is_text and rest.startswith('"')
            self._value = _Text() if is_string else _Bytes(rest[0])
            self._read = self._read_answer
            return self._read(rest[1:] if is_string else rest)
        self._calls.is_bare = key == "name"
        self._read = self._calls.feed
        return self._read(rest if key == "calls" else head)

    def _as_text(self) -> Read:
        """Read the text so far, and what follows, as the text of any model."""
        head, self._head = self._head, ""
        self._read = self._other.feed
        return self._other.feed(head)

    def _read_answer(self, text: str) -> Read:
        assert self._value is not None
        return Read(text=self._value.feed(text))


class _Value:
    """The value of an answer, which is passed on as it arrives."""

    def feed(self, text: str) -> str:
        """Return what the next part adds; nothing after the end of the value."""
        raise NotImplementedError

    def end(self) -> str:
        """Return what is held."""
        return ""


class _Text(_Value):
    """The text of a JSON string."""

    def __init__(self) -> None:
        self._decoder = StringDecoder()

    def feed(self, text: str) -> str:
        """Return the text that the next part adds."""
        return self._decoder.feed(text)

    def end(self) -> str:
        """Return what is held of a string that was cut."""
        return self._decoder.end()


class _Bytes(_Value):
    """JSON of any type, as it is written.

    :param first: its first character.
    """

    def __init__(self, first: str) -> None:
        self._mender = surrogates.Mender()
        self._brackets = Brackets() if first in "{[" else None
        self._string = StringDecoder() if first == '"' else None
        self._has_begun = False
        self._has_ended = False

    def feed(self, text: str) -> str:
        """Return the bytes of the value in the next part, with lone surrogates mended."""
        if self._has_ended:
            return ""
        end = self._end_in(text)
        return self._mender.feed(text[:end].encode("utf-8", "replace")).decode()

    def end(self) -> str:
        """Return what is held of an escape."""
        return self._mender.end().decode()

    def _end_in(self, text: str) -> int:
        """Return where the value ends in a part."""
        if self._brackets is not None:
            end = self._brackets.feed(text)
            self._has_ended = self._brackets.closed
            return end
        if self._string is not None:
            opening = 0 if self._has_begun else 1
            self._has_begun = True
            self._string.feed(text[opening:])
            self._has_ended = self._string.ended
            return len(text) - len(self._string.rest)
        found = _END_OF_SCALAR.search(text)
        self._has_ended = found is not None
        return len(text) if found is None else found.start()


class _Calls:
    """Calls in JSON: an array of them, or one alone."""

    def __init__(self) -> None:
        self._brackets: Brackets | None = None
        self._pieces = Pieces()
        #: there is one alone, and no key says that it is one
        self.is_bare = False
        self._is_array: bool | None = None
        self._has_ended = False

    def feed(self, text: str) -> Read:
        """Return the calls that the next part completes; an object that is none is text."""
        found: list[native.ToolCall] = []
        unread: list[str] = []
        position = 0
        while position < len(text) and not self._has_ended:
            if self._brackets is None:
                begin = _NOT_BLANK.search(text, position)
                if begin is None:
                    break
                position = begin.start()
                self._begin(text[position])
                position += self._brackets is None
                continue
            end = self._brackets.feed(text, position)
            self._pieces.add(text[position:end])
            position = end
            if self._brackets.closed:
                self._brackets = None
                self._has_ended = not self._is_array
                written = self._pieces.take()
                call = _call_of(written, needs_arguments=self.is_bare)
                if call is None:
                    unread.append(written)
                else:
                    found.append(call)
        return Read(text="".join(unread), calls=found) if found or unread else NOTHING

    def _begin(self, character: str) -> None:
        if character == "{":
            self._brackets = Brackets()
            self._is_array = bool(self._is_array)
        elif character == "[" and self._is_array is None:
            self._is_array = True
        else:
            self._has_ended = True

    def end(self, *, is_cut: bool) -> Read:
        """Return a call that has no end: as far as it came, or as text where it was not cut."""
        text = self._pieces.take()
        if not text:
            return NOTHING
        if not is_cut:
            return Read(text=text)
        head = CallHead()
        begin = head.feed(text)
        if begin is None:
            return NOTHING
        try:
            name = _decode_name(head.name.encode("utf-8", "replace"))
        except json.Malformed:
            return NOTHING
        arguments = surrogates.mended(text[begin:].encode("utf-8", "replace")).decode()
        return Read(cut_call=CutCall(name, arguments))


def _call_of(text: str, *, needs_arguments: bool) -> native.ToolCall | None:
    """Return the call that a JSON object is; None if it is none."""
    try:
        call = _decode(text.encode("utf-8", "replace"))
    except json.Malformed:
        return None
    if needs_arguments and call.parameters is UNSET and call.arguments is UNSET:
        return None
    arguments = surrogates.mended(json.text_of(call.parameters) or json.text_of(call.arguments) or b"{}")
    if not call.name or not json.is_native_object(arguments):
        return None
    return native.ToolCall(native.ToolCallFunction(call.name, Raw(arguments)))
