"""Calls in a row: openers, what they open, closers, up to the end of the answer."""

from __future__ import annotations

import re

from openai_compat.structured.written import forms, json_calls, named
from openai_compat.structured.written.forms import Form
from openai_compat.structured.written.reading import NoCall, Reader, Source

_LANGUAGE = re.compile(r"[\w+-]*")
_NAME_BEGINS = re.compile(r"\w")


class Sequence:
    """The calls that end an answer.

    :param form: what was opened already; None: a body comes first, or the text is a whole one.
    """

    def __init__(self, source: Source, form: Form | None = None) -> None:
        self._source = source
        self._form = form
        #: a body may come: a form is open
        self._is_open = True
        self._is_fenced = False
        #: calls that may come, of a fence that stands alone
        self._most = 1 if form is not None and form.openers[0] == forms.FENCE else None

    def read(self) -> Reader[None]:
        """Read up to the end; what was found is in the source."""
        source = self._source
        if self._form is not None:
            yield from self._enter(self._form)
        elif source.setting == "tag":  # a whole text
            yield from source.blanks()
            if token := (yield from source.match(forms.AT_LINE)):
                yield from self._enter(forms.LINE_OPENERS[token])
        while character := (yield from source.blanks()):
            if character == ";" and source.calls and self._is_open:
                source.skip()
                continue
            token = yield from source.match(forms.TOKENS)
            if token in forms.CLOSERS:
                self._is_open = False
                if not source.calls:
                    raise NoCall
            elif token:
                yield from self._enter(forms.OPENERS[token])
            elif source.calls and self._is_cut_closer():
                return
            elif self._is_open:
                yield from self._read_body(character)
            else:
                raise NoCall
            if self._most is not None and len(source.calls) > self._most:
                raise NoCall
        if not source.calls:
            raise NoCall

    def _is_cut_closer(self) -> bool:
        """Return whether the answer ends within a closer."""
        rest = self._source.rest  # where no token follows, only the end can have cut one
        return forms.ENDS.begin_with(rest) or (self._is_fenced and forms.FENCE.startswith(rest))

    def _enter(self, form: Form) -> Reader[None]:
        source = self._source
        if form.openers[0] == forms.FENCE:
            yield from self._enter_fence()
            return
        self._is_open = True
        source.setting, source.is_opened, source.takes_names = "tag", True, True
        if form.read is not None:
            yield from form.read(source)

    def _enter_fence(self) -> Reader[None]:
        """Read the beginning of a fence, or its end."""
        source = self._source
        if self._is_fenced:
            self._is_fenced = self._is_open = False
            if not source.calls:
                raise NoCall
            return
        if source.calls:
            raise NoCall
        self._is_fenced = self._is_open = True
        language = yield from source.run(_LANGUAGE)
        if self._most is not None:
            source.setting = "fence"
            source.takes_names = source.is_opened = language.startswith("tool")

    def _read_body(self, character: str) -> Reader[None]:
        source = self._source
        if character == "{":
            yield from json_calls.read_object(source)
        elif character == "[":
            source.skip()
            if (yield from source.blanks()) == "{":
                yield from json_calls.read_array(source)
            elif source.takes_names or source.setting == "bare":
                yield from named.read_list(source)
            else:
                raise NoCall
        elif source.takes_names and _NAME_BEGINS.match(character):
            yield from named.read_named(source)
        else:
            raise NoCall
