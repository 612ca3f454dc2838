"""The text of a custom tool's call, whole, cut anywhere, and in parts."""

from __future__ import annotations

import pytest

from openai_compat.translate.custom_input import InputReader, custom_input

ROWS = [
    ('{"input":"a"}', "a"),
    ('{"input":""}', ""),
    ('{"input":"a","x":1}', "a"),
    ('{"input":null}', ""),
    ("{}", ""),
    ('{"input":{},"x":""}', ""),
    ('{"input":1}', '{"input":1}'),
    ('{"input":null,"x":1}', '{"input":null,"x":1}'),
    ('{"x":1}', '{"x":1}'),
    ("", ""),
    ("[1]", "[1]"),
    ("{", ""),
    ('{"inp', ""),
    (' { "input" ', ""),
    ('{"input":', ""),
    ('{"input":nul', ""),
    ('{"input":null', ""),
    ('{"input": null ', ""),
    ('{"input":null,"x":1', '{"input":null,"x":1'),
    ('{"input":tr', '{"input":tr'),
    ('{"x', '{"x'),
    ('{"input":"', ""),
    (' { "input" : "a', "a"),
    ('{"input":"a\\', "a"),
    ('{"input":"a\\\\', "a\\"),
    ('{"input":"a\\u', "a"),
    ('{"input":"a\\u00e', "a"),
    ('{"input":"a\\u00e9', "a\u00e9"),
    ('{"input":"a\\ud83e\\udd9c', "a\U0001f99c"),
    ('{"input":"a\\ud83e', "a\ufffd"),
    ('{"input":"a"', "a"),
    ('{"input":"a\\"b\\\\" ,"x":"c', 'a"b\\'),
    ('{"input":"a\\\\u00e', "a\\u00e"),
    ('{"input":"\\u00e', ""),
    ('{"input":"a\\x', '{"input":"a\\x'),
    ('{"inputs":"a', '{"inputs":"a'),
]


@pytest.mark.parametrize(("arguments", "text"), ROWS)
def test_the_text_of_a_custom_call(arguments: str, text: str) -> None:
    assert custom_input(arguments) == text


def parts_of(arguments: str, size: int) -> list[str]:
    """What a reader makes of arguments in parts of a size; the last one is of their end."""
    reader = InputReader()
    return [*(reader.feed(arguments[i : i + size]) for i in range(0, len(arguments), size)), reader.end()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
@pytest.mark.parametrize(("arguments", "text"), [row for row in ROWS if "\\x" not in row[0]])
def test_the_text_in_parts_is_the_text(arguments: str, text: str, size: int) -> None:
    assert "".join(parts_of(arguments, size)) == text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (' { "input" : "ab\\n"}', [*[""] * 14, "a", "b", "", "\n", "", "", ""]),
        ('{"input":"a\\ud83e', [*[""] * 10, "a", *[""] * 6, "\ufffd"]),
        ('{"x":"a"}', [*[""] * 9, '{"x":"a"}']),
        ("{}", ["", "", ""]),
    ],
)
def test_the_text_comes_as_soon_as_it_is_known(arguments: str, parts: list[str]) -> None:
    assert parts_of(arguments, 1) == parts


@pytest.mark.parametrize("arguments", ['{"input":"ab"}', '{"x":1,"input":"ab"}'])
def test_whole_arguments_are_read_at_once(arguments: str) -> None:
    reader = InputReader()
    assert (reader.feed(""), reader.feed(arguments), reader.end()) == ("", "ab", "")


def test_an_escape_that_json_does_not_have_stays_in_parts() -> None:
    assert "".join(parts_of('{"input":"a\\x"}', 1)) == "a\\x"


def test_many_blanks_before_the_text_are_held_to_the_end() -> None:
    arguments = "{" + " " * 300 + '"input":"ab"}'
    assert parts_of(arguments, 1) == [*[""] * len(arguments), "ab"]
