"""PDFs that tests write: byte by byte, and with pypdf those that it has to encrypt."""

from __future__ import annotations

import zlib
from io import BytesIO

#: of the objects that every file here has
CATALOG, TREE, FONT = 1, 2, 3


def stream(data: bytes, *, compressed: bool = False, more: bytes = b"") -> bytes:
    """An object with data."""
    if compressed:
        data, more = zlib.compress(data), more + b" /Filter /FlateDecode"
    return b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(data), more, data)


def written(objects: dict[int, bytes]) -> bytes:
    """A file of objects, by their numbers."""
    out, offsets = bytearray(b"%PDF-1.7\n"), {}
    for number, body in objects.items():
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%d 1\n%010d 00000 n \n" % item for item in offsets.items())
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, len(out))
    return bytes(out + b"xref\n0 1\n0000000000 65535 f \n" + table + end)


def pdf_of(
    *contents: bytes,
    resources: bytes = b"/Font << /F 3 0 R >>",
    font: bytes = b"",
    more: dict[int, bytes] | None = None,
) -> bytes:
    """A file with a page of each content.

    :param font: more entries of the font.
    :param more: objects from 1000 on.
    """
    numbers = range(10, 10 + 2 * len(contents), 2)
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    objects = {
        CATALOG: b"<< /Type /Catalog /Pages 2 0 R >>",
        TREE: b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 99 99] >>" % (kids, len(contents)),
        FONT: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica %s >>" % font,
    }
    for number, content in zip(numbers, contents, strict=True):
        page = b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R /Resources << %s >> >>" % (number + 1, resources)
        objects[number] = page
        objects[number + 1] = content if content.startswith((b"<<", b"[")) else stream(content)
    return written(objects | (more or {}))


def shown(text: str) -> bytes:
    """The content of a page that shows a text."""
    return b"BT /F 12 Tf (" + text.encode("latin-1") + b") Tj ET"


def pages(*texts: str) -> bytes:
    return pdf_of(*map(shown, texts))


def encrypted(password: str, algorithm: str = "RC4-128") -> bytes:
    """A file that pypdf encrypts."""
    from pypdf import PdfReader, PdfWriter

    writer, out = PdfWriter(clone_from=PdfReader(BytesIO(pages("Secret words")))), BytesIO()
    writer.encrypt(user_password=password, owner_password="owner", algorithm=algorithm)
    writer.write(out)
    return out.getvalue()
