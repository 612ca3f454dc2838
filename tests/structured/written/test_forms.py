"""Every form, in whatever pieces it comes: what is a call is taken for one, everything else stays."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.structured.written import forms
from tests.structured.written.tools import CUTS, ROWS, pieces, plain, scanned

IDS = [row["name"] for row in ROWS]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_form(row: dict[str, Any], cut: int | None) -> None:
    left, found = scanned(pieces(row["text"], cut))
    assert plain(found.calls) == row["calls"]
    if row["calls"]:
        assert left == row.get("left", "")
        assert found.thinking == row.get("thinking", "")
        assert found.text == row.get("held", "")
    else:
        assert left + found.text == row["text"]
        assert not found.thinking


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_form_that_is_shown_in_an_answer_stays_text(row: dict[str, Any], cut: int | None) -> None:
    text = f"It is written so:\n\n{row['text']}\n\nand not otherwise."
    left, found = scanned(pieces(text, cut))
    assert left + found.text == text
    assert not found.calls
    assert not found.thinking


ALONE = {"pythonic alone"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["calls"] and row["name"] not in ALONE], ids=lambda r: r["name"]
)
def test_a_form_that_ends_an_answer(row: dict[str, Any], cut: int | None) -> None:
    end = "" if "cut" in row["name"] else "\n"
    left, found = scanned(pieces(f"One moment.\n{row['text']}{end}", cut))
    assert plain(found.calls) == row["calls"]
    assert left == "One moment.\n" + row.get("left", "")


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_without_the_tool_it_is_text(row: dict[str, Any]) -> None:
    left, found = scanned([row["text"]], tools=[])
    assert (left, found) == (row["text"], ("", "", []))


def test_no_literal_begins_with_another() -> None:
    for literals in (forms.ANYWHERE, forms.AT_LINE, forms.TOKENS):
        texts = literals.texts
        assert len(set(texts)) == len(texts)
        assert not [(one, other) for one in texts for other in texts if one != other and other.startswith(one)]


def test_every_form_has_a_name_a_source_and_a_text() -> None:
    assert len({form.name for form in forms.FORMS}) == len(forms.FORMS)
    calls = [row["text"] for row in ROWS if row["calls"]]
    for form in forms.FORMS:
        assert form.source
        assert any(opener in text for opener in form.openers for text in calls), form.name
