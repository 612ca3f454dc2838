"""Parts of a document by reference: what RFC 6901 lists, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.wire import json_pointer

#: the document of RFC 6901, section 5, and one list in a list
DOCUMENT = {
    "foo": ["bar", "baz", [1, 2]],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
    "~1": 9,
    "7": 10,
}


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("#", DOCUMENT),
        ("#/foo", ["bar", "baz", [1, 2]]),
        ("#/foo/0", "bar"),
        ("#/foo/2/1", 2),
        ("#/", 0),
        ("#/a~1b", 1),
        ("#/c%25d", 2),
        ("#/e%5Ef", 3),
        ("#/g%7Ch", 4),
        ("#/i%5Cj", 5),
        ("#/k%22l", 6),
        ("#/%20", 7),
        ("#/m~0n", 8),
        ("#/~01", 9),
        ("#/7", 10),
    ],
)
def test_a_pointer_is_followed(reference: str, part: Any) -> None:
    assert json_pointer.resolve(DOCUMENT, reference) == part


@pytest.mark.parametrize("reference", [None, 1, True, "", "/foo", "foo", "#foo", "other.json#/foo", "http://x/#/foo"])
def test_what_is_no_pointer_into_the_document_is_told(reference: Any) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        json_pointer.resolve(DOCUMENT, reference)


@pytest.mark.parametrize(
    "reference",
    [
        "#/bar",
        "#/foo/3",
        "#/foo/-1",
        "#/foo/-",
        "#/foo/a",
        "#/foo/9999999",
        "#/foo/0/0",
        "#/7/0",
        "#//a",
        "#/foo/\u0661",
    ],
)
def test_what_leads_nowhere_is_told(reference: str) -> None:
    with pytest.raises(LookupError):
        json_pointer.resolve(DOCUMENT, reference)


@pytest.mark.parametrize("index", ["0000000", "0" * 600, "1" * 5000], ids=len)
def test_an_index_of_more_digits_than_any_list_has_items_leads_nowhere(index: str) -> None:
    with pytest.raises(LookupError):
        json_pointer.resolve(["a"], f"#/{index}")
