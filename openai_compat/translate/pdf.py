"""The text of a PDF, page after page, as pypdf extracts it: an extra.

A PDF is a program that its sender wrote, and pypdf runs it. So everything that a file can multiply has a limit here,
and the time is looked at wherever pypdf can be interrupted: when it reads the file, decodes a part of a page, and
performs an operator. One step between two of these takes a few seconds at most. Whatever pypdf raises leaves as
:class:`Unreadable`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from openai_compat.log import log

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

#: bytes of one decoded stream, and of the content of one page: of pages of text the largest have some hundred kB
_MAX_STREAM = 4 * 1024 * 1024
#: bytes of all decoded streams of a PDF but images, which are not decoded: pypdf keeps each until the file is closed
_MAX_DECODED = 64 * 1024 * 1024
#: what the limits of pypdf's own are lowered to, so that a step does not take long; the rest are as pypdf has them
_LIMITS: dict[str, Any] = {
    "array_based_stream_maximum_output_length": _MAX_STREAM,
    "lzw_maximum_output_length": _MAX_STREAM,
    "run_length_maximum_output_length": _MAX_STREAM,
    "zlib_maximum_output_length": _MAX_STREAM,
    "stream_decoding_work_maximum_length": 4 * _MAX_STREAM,
    "stream_parsing_work_maximum_count": 500_000,
    "dictionary_maximum_element_count": 10_000,
    "page_tree_maximum_page_entries": 500_000,
}
#: for one page: its dictionaries of resources, fonts of each, and codes that the fonts map to text, as a font of all
#: Chinese characters has 65,536
_MAX_RESOURCES, _MAX_FONTS, _MAX_CODES = 1_000, 256, 500_000
#: bytes of all tables of a page that map codes to text
_MAX_MAPS = 4 * 1024 * 1024
#: codes that one operator shows: more than a page has
_MAX_SHOWN = 65_536
#: characters that a font makes of one code; its table can name hundreds, and a glyph's name any number
_MAX_GLYPH = 64
_RANGE = re.compile(rb"<\s*([0-9A-Fa-f]{1,8})\s*>\s*<\s*([0-9A-Fa-f]{1,8})\s*>\s*[<\[]")
_LONG_TEXT = re.compile(rb"<[0-9A-Fa-f\s]{%d,}>" % (4 * _MAX_GLYPH + 1))
#: operators that show text
_SHOW = (b"Tj", b"TJ", b"'", b'"')
#: reads of the file after which the time is looked at: pypdf reads single bytes
_READS = 256

_NO_PYPDF = "Reading a PDF needs the extra 'pdf' (pypdf), which this server has not installed."
_NO_AES = "The PDF is encrypted with AES, and this server has no package to decrypt it (cryptography)."
_ENCRYPTED = "The PDF is encrypted, and cannot be read without its password."
_NO_TEXT = "The PDF has no text, such as one of scanned pages. Images of its pages can be sent instead."
_DAMAGED = "The PDF is damaged, or is none."
_TOO_LATE = "Reading the files of the request takes too long (the setting file_timeout)."
_TOO_MANY_PAGES = "The PDFs of the request have too many pages (the setting max_pages)."
TOO_MUCH_TEXT = "The files of the request have too much text (the setting max_file_text)."
_TOO_COMPLEX = "A page of the PDF is too complex to be read."


class Unreadable(Exception):
    """A file has no text that can be read; the message is for the client."""


@dataclass
class Allowance:
    """What may still be read for a request."""

    #: of PDFs
    pages: int
    #: of text
    characters: int
    #: of :func:`time.monotonic`
    end: float

    def check_time(self) -> None:
        """Raise if the time is over.

        :raises Unreadable: it is.
        """
        if time.monotonic() > self.end:
            raise Unreadable(_TOO_LATE)


def pdf_text(data: bytes, allowance: Allowance) -> str:
    """Return the text of a PDF, with a blank line between two pages; what it takes is taken off the allowance's pages.

    :raises Unreadable: pypdf is not installed, or the file is encrypted, damaged, without text or too much.
    """
    try:
        import pypdf
    except ImportError:
        raise Unreadable(_NO_PYPDF) from None
    _silence()
    try:
        with pypdf.apply_configuration(**_LIMITS):
            pages = [page.strip() for page in _pages(pypdf.PdfReader(_File(data, allowance)), allowance)]
    except Unreadable:
        raise
    except Exception as error:  # pypdf raises many of its own, and of Python's for a damaged file
        raise _reason(error, allowance) from None
    if not any(pages):
        raise Unreadable(_NO_TEXT)
    return "\n\n".join(filter(None, pages))


def _silence() -> None:
    """Keep pypdf's notes about damaged files out of the log, unless the application asks for them by a level."""
    logger = logging.getLogger("pypdf")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)


def _reason(error: Exception, allowance: Allowance) -> Unreadable:
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    log.info("a PDF could not be read: %s", type(error).__name__)
    if time.monotonic() > allowance.end:  # pypdf may have taken the end of the time for damage
        return Unreadable(_TOO_LATE)
    if isinstance(error, LimitReachedError):
        return Unreadable(_TOO_COMPLEX)
    if isinstance(error, DependencyError):
        return Unreadable(_NO_AES)
    return Unreadable(_ENCRYPTED if isinstance(error, FileNotDecryptedError) else _DAMAGED)


class _File(BytesIO):
    """The bytes of a PDF, which can be read until the time is over."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        super().__init__(data)
        self._allowance = allowance
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads % _READS == 0:
            self._allowance.check_time()
        return super().read(size)


class _Streams:
    """Decodes the streams of one PDF before pypdf does, one by one: pypdf keeps what was decoded."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._sizes: dict[int, int] = {}
        self._total = 0

    def data(self, value: Any) -> bytes:
        """Return the decoded data of a stream; of anything else nothing.

        :raises Unreadable: it is too large, or all of them are, or the time is over.
        """
        self._allowance.check_time()
        stream = _resolved(value)
        data = stream.get_data() if hasattr(stream, "get_data") else b""
        if not isinstance(data, bytes):
            return b""
        self._total += len(data) - self._sizes.get(id(stream), 0)
        self._sizes[id(stream)] = len(data)
        if len(data) > _MAX_STREAM or self._total > _MAX_DECODED:
            raise Unreadable(_TOO_COMPLEX)
        return data


def _pages(reader: PdfReader, allowance: Allowance) -> Iterator[str]:
    """Yield the text of each page."""
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable(_ENCRYPTED)
    allowance.pages -= len(reader.pages)
    if allowance.pages < 0:
        raise Unreadable(_TOO_MANY_PAGES)
    characters, streams = allowance.characters, _Streams(allowance)
    for page in reader.pages:
        allowance.check_time()
        _check_content(page, streams)
        _check_fonts(page, streams)
        text = _page_text(page, Allowance(allowance.pages, characters, allowance.end))
        characters -= len(text)
        if characters < 0:
            raise Unreadable(TOO_MUCH_TEXT)
        yield text


def _page_text(page: PageObject, allowance: Allowance) -> str:
    """Return the text of a page.

    pypdf performs forms in the page too, where it takes any exception for damage and goes on; so the limits are checked
    with every operator, and raise again.
    """
    shown = completed = 0

    def before(operator: Any, operands: Any, *_: Any) -> None:
        nonlocal shown
        allowance.check_time()
        if operator in _SHOW:
            codes = _codes(operands)
            shown += codes
            if codes > _MAX_SHOWN:
                raise Unreadable(_TOO_COMPLEX)
        if max(shown, completed) > allowance.characters:
            raise Unreadable(TOO_MUCH_TEXT)

    def on_text(text: str, *_: Any) -> None:
        nonlocal completed
        completed += len(text)

    found = page.extract_text(visitor_operand_before=before, visitor_text=on_text)
    allowance.check_time()
    if max(shown, completed) > allowance.characters:
        raise Unreadable(TOO_MUCH_TEXT)
    return found


def _codes(operands: Any) -> int:
    """Return how many codes an operator shows: of its strings, and of those in its array."""
    strings = [item for value in operands for item in (value if isinstance(value, list) else [value])]
    return sum(len(item) for item in strings if isinstance(item, str | bytes))


def _check_content(page: PageObject, streams: _Streams) -> None:
    """Check the size of a page's content, which may have many parts."""
    content = _resolved(page.get("/Contents"))
    size = 0
    for part in content if isinstance(content, list) else [content]:
        size += len(streams.data(part))
        if size > _MAX_STREAM:
            raise Unreadable(_TOO_COMPLEX)


def _check_fonts(page: PageObject, streams: _Streams) -> None:
    """Check the fonts of a page and of the forms in it, since pypdf reads all of them whenever one is used."""
    waiting, seen = [_resolved(page.get("/Resources"))], set()
    codes = size = 0
    while waiting:
        resources = waiting.pop()
        if not isinstance(resources, dict) or id(resources) in seen:
            continue
        seen.add(id(resources))
        fonts = _values(resources.get("/Font"))
        if len(seen) > _MAX_RESOURCES or len(fonts) > _MAX_FONTS:
            raise Unreadable(_TOO_COMPLEX)
        for font in fonts:
            table = _font_table(font, streams)
            size += len(table)
            codes += _mapped(table)
            if codes > _MAX_CODES or size > _MAX_MAPS:
                raise Unreadable(_TOO_COMPLEX)
        for form in _values(resources.get("/XObject")):
            if isinstance(form, dict) and form.get("/Subtype") == "/Form":
                streams.data(form)
                waiting.append(_resolved(form.get("/Resources")))


def _font_table(font: Any, streams: _Streams) -> bytes:
    """Return the table with which a font maps codes to text.

    :raises Unreadable: it maps a code to a long text.
    """
    if not isinstance(font, dict):
        return b""
    encoding = _resolved(font.get("/Encoding"))
    differences = _resolved(encoding.get("/Differences")) if isinstance(encoding, dict) else None
    names = differences if isinstance(differences, list) else []
    table = streams.data(font.get("/ToUnicode"))
    if _LONG_TEXT.search(table) or any(len(name) > _MAX_GLYPH for name in names if isinstance(name, str)):
        raise Unreadable(_TOO_COMPLEX)
    return table


def _mapped(table: bytes) -> int:
    """Return how many codes the ranges of a table have together; pypdf makes an entry of each."""
    found = 0
    for match in _RANGE.finditer(table):
        found += min(_MAX_CODES, max(0, int(match[2], 16) - int(match[1], 16)))
        if found > _MAX_CODES:
            break
    return found


def _resolved(value: Any) -> Any:
    """Return the object that a reference leads to."""
    return None if value is None else value.get_object()


def _values(value: Any) -> list[Any]:
    value = _resolved(value)
    return [_resolved(item) for item in value.values()] if isinstance(value, dict) else []
