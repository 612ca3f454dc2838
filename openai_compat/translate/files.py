"""The files of a request: the text of each goes into the prompt under its name, an image goes beside it.

A file's type is the one that its data URI says. Where that is missing, or says nothing, the bytes decide: clients send
bare base64, and a fetched file has no type that could be trusted.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import copy
import html
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from openai_compat.errors import invalid, missing, not_supported
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored, RequestObject
from openai_compat.translate.pdf import TOO_MUCH_TEXT, Allowance, Unreadable, pdf_text


class FileInput(RequestObject, omit_defaults=True):
    """Source: OpenAI's ``ChatCompletionRequestMessageContentPartFile.file``, ``InputFileContent``."""

    filename: str | None = None
    #: a data URI, or bare base64
    file_data: str | None = None
    file_id: str | None = None
    #: of ``input_file``
    file_url: str | None = None


class FileContent(NamedTuple):
    """What a file adds to a message."""

    #: for the prompt, on lines of its own
    text: str = ""
    #: base64
    image: str | None = None


#: downloads a file: (URL, path of the field for errors, seconds) -> bytes
FetchFile = Callable[[str, str, float], bytes]

#: types of images that Ollama decodes, by the bytes that they begin with
_IMAGE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.S)
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
_PDF_TYPES = ("application/pdf", "application/x-pdf")
#: types that say nothing
_NO_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/unknown")
_TEXT_TYPES = re.compile(
    r"text/.*|.*\+(json|xml|yaml)|"
    r"application/(x-)?(json|xml|yaml|toml|javascript|ecmascript|typescript|sql|sh|csv|ndjson|jsonl|jsonlines|python|tex|"
    r"latex|httpd-php|graphql|perl|ruby)"
)
#: of names of text files: browsers send such files under other types, as .csv under Excel's and .ts under a video's
_TEXT_NAMES = re.compile(
    r".*\.(txt|text|md|markdown|rst|adoc|tex|csv|tsv|log|json|jsonl|ndjson|geojson|ipynb|xml|xsd|xsl|svg|html?|xhtml|css|"
    r"scss|less|ya?ml|toml|ini|cfg|conf|env|properties|sql|sh|bash|zsh|fish|bat|cmd|ps1|py|pyi|js|mjs|cjs|jsx|tsx?|mts|"
    r"cts|vue|svelte|c|h|cc|cpp|cxx|hpp|cs|java|kt|kts|scala|go|rs|rb|php|pl|pm|lua|r|jl|swift|m|mm|dart|ex|exs|erl|hs|"
    r"clj|lisp|el|f90|vb|asm|proto|graphql|tf|gradle|cmake|dockerfile|makefile|diff|patch|srt|vtt|eml|ics|vcf)",
    re.I | re.S,
)
_SUPPORTED = "Supported are text in any format, PDF, and images (png, jpeg, webp, gif)."

#: characters before the comma of a data URI: a media type and a few parameters, such as the file's name
_MAX_HEAD = 1024
#: bytes in which a PDF begins; readers allow other bytes before it
_PDF_BEGINS = 1024
#: characters of a file's name
_MAX_NAME = 255
#: bytes of percent-encoded text that are decoded at once: each may take the memory of an object
_BLOCK = 65_536
_PERCENTS = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")
#: control characters, but for tabs, ends of lines and pages; of UTF-16 that pypdf read half
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\ud800-\udfff]+")
#: marks at the beginning of a text; that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: other names are of codecs that are no charsets, such as zlib's
_CHARSETS = re.compile(
    r"utf-(8|16|32)(-[lb]e)?|cp[0-9]{3,4}|iso8859-[0-9]+|koi8-[rtu]|mac-roman|shift_jis|euc_(jp|kr)|iso2022_(jp|kr)|gb2312|"
    r"gbk|gb18030|big5|big5hkscs|tis-620"
)
#: what browsers read as cp1252, since that is meant
_LATIN = ("ascii", "iso8859-1")


class Files:
    """The files of one request, which have limits together.

    :param max_files: files of the request, including those that fail.
    :param max_bytes: bytes of one file.
    :param max_pages: pages of all PDFs.
    :param max_text: characters of text of all files.
    :param timeout: seconds for fetching and reading all files.
    :param fetch: downloads files by URL; without it they are refused.
    """

    def __init__(
        self,
        *,
        max_files: int = Settings.max_files,
        max_bytes: int = Settings.max_file,
        max_pages: int = Settings.max_pages,
        max_text: int = Settings.max_file_text,
        timeout: float = Settings.file_timeout,
        fetch: FetchFile | None = None,
    ) -> None:
        self._remaining, self._max_bytes, self._timeout = max_files, max_bytes, timeout
        self._allowance = Allowance(max_pages, max_text, float("inf"))
        self._begun = False
        self._fetch = fetch

    def read(self, file: FileInput, path: str, ignored: Ignored) -> FileContent:
        """Return what a file adds to its message; the text is ``<file name="…">``, the file's text and ``</file>``.

        :param path: path of the object in the request.
        :raises APIError: 400 whose ``param`` is the path of the field that is not valid.
        """
        field = _field(file, path, ignored)
        where = f"{path}.{field}"
        self._begin(where)
        if field == "file_data":
            media_type, charset, data = self._decoded(file.file_data or "", where)
        else:
            media_type, charset, data = "", "", self._fetched(file.file_url or "", where)
        name = file.filename or (_name_of_url(file.file_url) if field == "file_url" else "")
        if len(data) > self._max_bytes:
            raise self._too_large(where)
        try:
            return self._content(media_type, charset, name or "", data)
        except Unreadable as error:
            raise invalid(str(error), where) from None

    def unfetched(self) -> Files:
        """Return the files with the same limits; one that is given by its URL is not fetched, and empty."""
        found = copy.copy(self)
        if found._fetch is not None:
            found._fetch = lambda url, path, seconds: b""
        return found

    def _begin(self, where: str) -> None:
        """Count a file; with the first one the time begins."""
        if not self._begun:
            self._begun = True
            self._allowance.end = time.monotonic() + self._timeout
        self._remaining -= 1
        if self._remaining < 0:
            raise invalid("The request has too many files (the setting max_files).", where)

    def _fetched(self, url: str, where: str) -> bytes:
        if self._fetch is None:
            raise not_supported(where, "Files are not fetched by their URL (the setting fetch_files allows it).")
        seconds = self._allowance.end - time.monotonic()
        return self._fetch(url, where, max(0.0, seconds))

    def _decoded(self, text: str, where: str) -> tuple[str, str, bytes]:
        """Return the media type, the charset and the bytes of a data URI, or of bare base64, which has neither."""
        head, is_uri = "", text[:5].lower() == "data:"
        if is_uri:
            comma = text.find(",", 5, 6 + _MAX_HEAD)
            if comma < 0:
                raise invalid("The data URI of the file has no comma after its media type.", where)
            head, text = text[5:comma], text[comma + 1 :]
        media_type, *parameters = [part.strip() for part in head.lower().split(";")]
        is_base64 = not is_uri or "base64" in parameters
        if len(text) > (1.4 if is_base64 else 3) * self._max_bytes + 1024:  # base64 may have line breaks
            raise self._too_large(where)
        data = _from_base64(text) if is_base64 else _from_percents(text)
        if data is None:
            raise invalid("Expected a data URI, or base64, but got a value that is neither.", where)
        found = [part[8:].strip("\"' ") for part in parameters if part.startswith("charset=")]
        return media_type, found[0] if found else "", data

    def _too_large(self, where: str) -> Exception:
        return invalid(f"The file is larger than {self._max_bytes} bytes (the setting max_file).", where)

    def _content(self, media_type: str, charset: str, name: str, data: bytes) -> FileContent:
        """Return the content of a file, by its type.

        :raises Unreadable: the type is not supported, or the bytes are not of it.
        """
        is_untyped = media_type in _NO_TYPES
        if media_type in _PDF_TYPES or (is_untyped and b"%PDF-" in data[:_PDF_BEGINS]):
            return self._text(pdf_text(data, self._allowance), name)
        if media_type in _IMAGE_TYPES or (is_untyped and _IMAGE.match(data)):
            if not data:
                raise Unreadable("The image is empty.")
            return FileContent(image=base64.b64encode(data).decode())
        is_text = bool(_TEXT_TYPES.fullmatch(media_type))
        if not is_text and not is_untyped and not _TEXT_NAMES.fullmatch(name):
            raise Unreadable(f"Files of the type '{media_type[:64]}' cannot be read. {_SUPPORTED}")
        return self._text(_text_of(data, charset, is_text=is_text or bool(_TEXT_NAMES.fullmatch(name))), name)

    def _text(self, text: str, name: str) -> FileContent:
        self._allowance.characters -= len(text)
        if self._allowance.characters < 0:
            raise Unreadable(TOO_MUCH_TEXT)
        text = _CONTROL.sub("", text)
        end = "" if text.endswith("\n") else "\n"
        return FileContent(f'\n<file name="{_shown(name)}">\n{text}{end}</file>\n')


def _field(file: FileInput, path: str, ignored: Ignored) -> str:
    """Return the field that has the file; others are listed as ignored."""
    given = [name for name in ("file_data", "file_url", "file_id") if getattr(file, name)]
    if not given:
        raise missing(f"{path}.file_data")
    if given[0] == "file_id":
        raise not_supported(f"{path}.file_id", "This server does not store files: send the file in 'file_data'.")
    for name in given[1:]:
        ignored.add(re.sub(r"\[[0-9]+\]", "[]", path) + f".{name}")
    return given[0]


def _name_of_url(url: str | None) -> str:
    return re.split(r"[?#]", url or "")[0].rpartition("/")[2]


def _shown(name: str) -> str:
    """Return a name as the value of an attribute; the end of a long one, which says what it is, is kept."""
    name = " ".join(_CONTROL.sub(" ", name[-4 * _MAX_NAME :]).split())[-_MAX_NAME:]
    return html.escape(name) or "unnamed"


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(re.sub(r"[\r\n\t ]+", "", text), validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_percents(text: str) -> bytes:
    """Return the bytes of percent-encoded text, decoded block by block; no block ends within a ``%41``."""
    encoded, data, start = text.encode("utf-8", "replace"), bytearray(), 0
    while start < len(encoded):
        end = start + _BLOCK
        percent = encoded.rfind(b"%", end - 2, end)
        end = end if percent < 0 else percent
        data += _PERCENTS.sub(lambda run: bytes.fromhex(run[0].replace(b"%", b"").decode()), encoded[start:end])
        start = end
    return bytes(data)


def _text_of(data: bytes, charset: str, *, is_text: bool) -> str:
    """Return the text of a file: in the charset that is given, or that its mark says, or in UTF-8.

    :param is_text: the type or the name says that it is text, so that single wrong bytes are replaced.
    :raises Unreadable: the charset is unknown, or the bytes are not text.
    """
    marked = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), None)
    if marked:
        data, charset = data[len(marked[0]) :], marked[1]
    try:
        text = data.decode(_codec(charset), "replace" if is_text or charset else "strict")
    except UnicodeDecodeError:
        raise Unreadable(f"The file has no type, and is not text in UTF-8. {_SUPPORTED}") from None
    if "\0" in text:
        raise Unreadable("The file is not text: it has NUL characters. Text in UTF-16 needs a mark or a charset.")
    return text


def _codec(charset: str) -> str:
    """Return Python's name of a charset.

    :raises Unreadable: it has none.
    """
    try:
        name = codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        name = ""
    if name in _LATIN:
        return "cp1252"
    if not _CHARSETS.fullmatch(name):
        raise Unreadable(f"The charset '{charset[:32]}' of the file is unknown.")
    return name
