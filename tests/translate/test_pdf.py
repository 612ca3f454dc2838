"""The text of PDFs: of pages, of files that are none, and of those that would take all of the machine."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import random
import sys
import time
import tracemalloc
from typing import Any

import pytest

from openai_compat.translate import pdf
from openai_compat.translate.pdf import Allowance, Unreadable, pdf_text
from tests.contract import shared
from tests.translate.pdfs import encrypted, pages, pdf_of, shown, stream, written

pypdf = pytest.importorskip("pypdf", reason="the extra pdf is not installed")

FOREVER = float("inf")


def allowance(pages: int = 200, characters: int = 1_000_000, seconds: float = FOREVER) -> Allowance:
    return Allowance(pages, characters, time.monotonic() + seconds)


def refusal(data: bytes, allowed: Allowance | None = None) -> str:
    with pytest.raises(Unreadable) as raised:
        pdf_text(data, allowed or allowance())
    return str(raised.value)


# -- what is read -----------------------------------------------------------------------------


def test_the_text_of_the_pages() -> None:
    assert pdf_text(pages("First page", "Second page"), allowance()) == "First page\n\nSecond page"


def test_a_page_without_text_leaves_no_gap() -> None:
    assert pdf_text(pages("a", "", "b"), allowance()) == "a\n\nb"


def test_content_in_parts_and_in_a_form() -> None:
    form = stream(shown("in a form"), more=b" /Type /XObject /Subtype /Form /Resources << /Font << /F 3 0 R >> >>")
    parts = {1000: stream(shown("in a part"), compressed=True), 1001: stream(b"/X Do"), 1002: form}
    found = pdf_of(
        b"[1000 0 R 1001 0 R 9999 0 R]", resources=b"/Font << /F 3 0 R >> /XObject << /X 1002 0 R >>", more=parts
    )
    assert pdf_text(found, allowance()).split("\n") == ["in a part", "in a form"]


def test_pages_are_counted_over_files() -> None:
    allowed = allowance(pages=3)
    pdf_text(pages("a", "b"), allowed)
    assert allowed.pages == 1
    assert "max_pages" in refusal(pages("a", "b"), allowed)


def test_bytes_before_and_after_the_file() -> None:
    assert pdf_text(b"\r\n junk \n" + pages("a") + b"\0" * 100, allowance()) == "a"


# -- what is not ------------------------------------------------------------------------------


def test_without_pypdf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert "the extra 'pdf'" in refusal(pages("a"))


def test_a_password_that_is_empty_is_tried() -> None:
    assert pdf_text(encrypted(""), allowance()) == "Secret words"


def test_a_password_that_is_not_known() -> None:
    assert "encrypted" in refusal(encrypted("secret"))


def test_aes_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise pypdf.errors.DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(pypdf, "PdfReader", fails)
    assert "cryptography" in refusal(b"")


@pytest.mark.parametrize("content", [b"", b"q 1 0 0 1 0 0 cm Q", shown(""), shown("  ")])
def test_a_scanned_page_has_no_text(content: bytes) -> None:
    found = refusal(pdf_of(content))
    assert "no text" in found
    assert "Images of its pages" in found


def test_a_file_without_pages_has_no_text() -> None:
    assert "no text" in refusal(pdf_of())


GOOD = pages("Hello", "world")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-",
        b"%PDF-1.7\n%%EOF",
        b"%PDF-1.7\nstartxref\n0\n%%EOF",
        GOOD[: len(GOOD) // 3],
        b"%PDF-1.7\n" + b"x" * 10_000,
        written({1: b"<< /Type /Catalog >>"}),
        written({1: b"<< /Type /Catalog /Pages 1 0 R >>"}),
        written({1: b"<< /Type /Catalog /Pages 2 0 R >>", 2: b"<< /Type /Pages /Kids [2 0 R] >>"}),
    ],
)
def test_a_damaged_file(data: bytes) -> None:
    assert refusal(data) in (pdf._DAMAGED, pdf._NO_TEXT)


@pytest.mark.parametrize(
    "error", [KeyError(1), RecursionError(), AssertionError(), UnicodeDecodeError("a", b"", 0, 1, ""), MemoryError()]
)
def test_no_exception_leaves(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pypdf.PageObject, "extract_text", fails)
    assert refusal(GOOD) == pdf._DAMAGED


@pytest.mark.slow
def test_random_damage_is_text_or_a_refusal() -> None:
    made = random.Random(1)
    for _ in range(300):
        data = bytearray(GOOD)
        for _ in range(made.randint(1, 20)):
            place = made.randrange(len(data))
            data[place : place + made.randint(0, 3)] = made.randbytes(made.randint(0, 3))
        with contextlib.suppress(Unreadable):
            pdf_text(bytes(data), allowance(seconds=5))


def test_pypdf_s_notes_are_not_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("pypdf"), "level", logging.NOTSET)
    with caplog.at_level(logging.INFO):
        pdf_text(b"junk" + pages("a"), allowance())
        refusal(b"%PDF-1.7\nx")
    assert {record.name for record in caplog.records} == {"openai_compat"}


def test_a_level_that_the_application_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("pypdf"), "level", logging.INFO)
    pdf_text(pages("a"), allowance())
    assert logging.getLogger("pypdf").level == logging.INFO


def test_pypdf_s_limits_are_as_before() -> None:
    before = pypdf.get_configuration()
    pdf_text(GOOD, allowance())
    assert pypdf.get_configuration() == before


# -- limits -----------------------------------------------------------------------------------


def table(*lines: bytes) -> bytes:
    """What maps a font's codes to text."""
    return b"1 begincodespacerange <00> <FF> endcodespacerange\n" + b"\n".join(lines)


FULL_RANGE = table(b"1 beginbfrange", b"<0000> <FFFF> <0000>", b"endbfrange")
MANY_FONTS = b"/Font << %s >>" % b" ".join(b"/F%d 3 0 R" % i for i in range(200))
FORM = b" /Type /XObject /Subtype /Form /Resources << /Font << /F 3 0 R >> /XObject << /X 1001 0 R >> >>"
FORMS = b"/Font << /F 3 0 R >> /XObject << /X 1000 0 R >>"

#: a page → why it is refused
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a decompression bomb": (pdf_of(stream(b" " * 50_000_000, compressed=True)), pdf._TOO_COMPLEX),
    "a large content": (pdf_of(shown("x") + b" " * 5_000_000), pdf._TOO_COMPLEX),
    "many parts": (
        pdf_of(
            b"[%s]" % (b"1000 0 R " * 1_000),
            more={1000: stream(b" " * 4_000_000, compressed=True)},
        ),
        pdf._TOO_COMPLEX,
    ),
    "many operators": (pdf_of(stream(b"q " * 600_000, compressed=True)), pdf._TOO_COMPLEX),
    "an endless array": (pdf_of(stream(b"[" * 2_000_000, compressed=True)), pdf._DAMAGED),
    "many pages of comments": (
        pdf_of(*[stream(b"%" + b"x" * 4_000_000, compressed=True)] * 30),
        pdf._TOO_COMPLEX,
    ),
    "a large form": (
        pdf_of(b"/X Do", resources=FORMS, more={1000: stream(b" " * 5_000_000, more=FORM)}),
        pdf._TOO_COMPLEX,
    ),
    "a long string": (pdf_of(stream(shown("x" * 70_000), compressed=True)), pdf._TOO_COMPLEX),
    "a long name of a glyph": (
        pdf_of(shown("a" * 50_000), font=b"/Encoding << /Differences [97 /%s] >>" % (b"x" * 50_000)),
        pdf._TOO_COMPLEX,
    ),
    "a long text of a code": (
        pdf_of(
            shown("a" * 50_000),
            font=b"/ToUnicode 1000 0 R",
            more={1000: stream(table(b"1 beginbfchar", b"<61> <" + b"0061" * 200 + b">", b"endbfchar"))},
        ),
        pdf._TOO_COMPLEX,
    ),
    "large tables of fonts": (
        pdf_of(shown("a"), resources=MANY_FONTS, font=b"/ToUnicode 1000 0 R", more={1000: stream(FULL_RANGE)}),
        pdf._TOO_COMPLEX,
    ),
    "too many fonts": (
        pdf_of(shown("a"), resources=b"/Font << %s >>" % b" ".join(b"/F%d 3 0 R" % i for i in range(300))),
        pdf._TOO_COMPLEX,
    ),
}


#: refused after they were read for some time
LONG = ("many pages of comments", "many operators")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in HOSTILE])
def test_what_a_page_could_multiply_is_refused(name: str) -> None:
    (data, why), began = HOSTILE[name], time.process_time()
    assert refusal(data, allowance(seconds=120)) == why  # not for its time on a busy machine
    assert time.process_time() - began < 20


@pytest.mark.parametrize("characters", [11, 12])
def test_characters_are_counted_over_pages(characters: int) -> None:
    data = pages("Hello", "world", "!!")
    if characters == 12:
        assert pdf_text(data, allowance(characters=characters))
    else:
        assert "max_file_text" in refusal(data, allowance(characters=characters))


def test_text_of_a_form_is_counted_whenever_it_is_shown() -> None:
    form = {1000: stream(shown("x" * 1_000), more=FORM)}
    data = pdf_of(b"/X Do " * 50, resources=FORMS, more=form)
    assert "max_file_text" in refusal(data, allowance(characters=40_000))


def test_forms_in_forms() -> None:
    """Ten of ten of ten of them."""
    forms = {
        1000: stream(b"/X Do " * 10, more=FORM),
        1001: stream(b"/Y Do " * 10, more=FORM.replace(b"/X 1001", b"/Y 1002")),
        1002: stream(shown("y" * 100), more=FORM.replace(b"/X 1001", b"/Z 1003")),
    }
    data = pdf_of(b"/X Do " * 10, resources=FORMS, more=forms)
    assert "max_file_text" in refusal(data, allowance(characters=50_000))


ENDLESS = pdf_of(*[stream(b"BT /F 1 Tf " + b"(a) Tj 1 0 Td " * 30_000, compressed=True)] * 20)
#: an object after the other, as a damaged file has to be searched for them
OBJECTS = b"%PDF-1.7\n" + b"1 0 obj\n<< /A [1 2 3] >>\nendobj\n" * 50_000


@pytest.mark.parametrize("data", [ENDLESS, OBJECTS])
def test_the_time_ends_within_a_page_and_before_the_first(data: bytes) -> None:
    found = refusal(data, allowance(seconds=0.3))
    assert "file_timeout" in found or (data is OBJECTS and found == pdf._DAMAGED)


def test_the_time_ends_within_a_form() -> None:
    """Where pypdf takes the exception for damage, and goes on."""
    form = {1000: stream(b"BT /F 1 Tf " + b"(a) Tj 1 0 Td " * 10_000, more=FORM, compressed=True)}
    data = pdf_of(b"/X Do " * 200, resources=FORMS, more=form)
    assert "file_timeout" in refusal(data, allowance(seconds=0.3))


@pytest.mark.slow
def test_a_bomb_takes_little_memory() -> None:
    data = HOSTILE["a decompression bomb"][0]
    pdf_text(GOOD, allowance())
    tracemalloc.start()
    try:
        refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


# -- files of others --------------------------------------------------------------------------


def recorded() -> set[str]:
    """The PDFs that recorded clients sent, as data URIs."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(item, str) and item.startswith("data:application/pdf"):
                found.add(item)
            collect(item)

    for line in shared("contract/recorded/requests.jsonl").read_text().splitlines():
        collect(json.loads(line).get("body"))
    return found


def test_pdfs_that_recorded_clients_sent() -> None:
    texts = [pdf_text(base64.b64decode(uri.partition(",")[2]), allowance()) for uri in recorded()]
    assert any("Dummy PDF file" in text for text in texts)
