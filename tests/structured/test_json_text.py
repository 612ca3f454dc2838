"""What stands around JSON goes, in whatever pieces it comes; everything else stays."""

from __future__ import annotations

import pytest

from openai_compat.structured.json_text import Brackets, JSONUnwrapper

CUTS = [None, 1, 2, 7]


def purified(text: str, cut: int | None = None) -> tuple[str, str]:
    pure = JSONUnwrapper()
    size = cut or len(text) or 1
    pieces = [pure.feed(text[i : i + size]) for i in range(0, len(text), size)] + [pure.end()]
    return "".join(thinking for thinking, _ in pieces), "".join(content for _, content in pieces)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ('{"a":1}', "", '{"a":1}'),
        ('[1, "x"]', "", '[1, "x"]'),
        ('{"a":1}\n', "", '{"a":1}\n'),
        ('```json\n{"a":1}\n```', "", '{"a":1}'),
        ('```\n{"a":1}\n```\n', "", '{"a":1}'),
        ('```JSON5 {"a":1}```', "", '{"a":1}'),
        ('```json\n{"a":"```"}\n```', "", '{"a":"```"}'),
        ('```json\n{"a":"\\"}```"}\n```', "", '{"a":"\\"}```"}'),
        ('```json\n{"a":"\\\\"}\n```', "", '{"a":"\\\\"}'),
        ('```json\n[{"a":[1,{}]}]\n```', "", '[{"a":[1,{}]}]'),
        ('```json\n{"a":1}', "", '{"a":1}'),
        ('```json\n{"a":', "", '{"a":'),
        ('<think>so</think>\n{"a":1}', "so", '{"a":1}'),
        ('<think>so</think>```json\n{"a":1}\n```', "so", '{"a":1}'),
        ("<think>a</think><think>b</think>{}", "ab", "{}"),
        ("<think>no end", "no end", ""),
        ('Okay, so.</think>\n{"a":1}', "Okay, so.", '{"a":1}'),
        ('Okay.</think>```json\n{"a":1}\n```', "Okay.", '{"a":1}'),
        ('{"a":"</think>"}', "", '{"a":"</think>"}'),
        ("Okay, so.", "", "Okay, so."),
        ("<think>half </thi", "half </thi", ""),
        ("<think></think>", "", ""),
        ("<thin>x", "", "<thin>x"),
        ("plain text", "", "plain text"),
        ("``", "", "``"),
        ("```python\nprint()\n```", "", "```python\nprint()\n```"),
        ('```json\n{"a":1}\n``` and more', "", '{"a":1}\n``` and more'),
        ('Here: ```json\n{"a":1}\n```', "", 'Here: ```json\n{"a":1}\n```'),
        ("", "", ""),
        ("42", "", "42"),
        ("null", "", "null"),
    ],
)
def test_only_json_is_left(text: str, thinking: str, content: str, cut: int | None) -> None:
    assert purified(text, cut) == (thinking, content)


def test_json_leaves_at_once() -> None:
    pure = JSONUnwrapper()
    assert pure.feed("{") == ("", "{")
    assert pure.feed('"a"') == ("", '"a"')


def test_thinking_leaves_as_it_comes() -> None:
    pure = JSONUnwrapper()
    assert pure.feed("<think>a long thought") == ("a long ", "")
    assert pure.feed("</think>{") == ("thought", "{")


def test_what_waits_is_bounded() -> None:
    pure = JSONUnwrapper()
    text = "x" * 40_000
    assert pure.feed(text) == ("", text)
    assert pure.feed("y") == ("", "y")


@pytest.mark.parametrize(
    ("text", "end"),
    [("{}x", 2), ('{"a":[1]} ', 9), ('["]"]]', 5), ('{"a":"\\"}"}}', 11), ("{", 1), ('"{}"', 4), ("[[", 2)],
)
def test_brackets_end_where_the_value_does(text: str, end: int) -> None:
    brackets = Brackets()
    assert brackets.feed(text) == end
    assert sum(by_character(text)) == end


def by_character(text: str) -> list[int]:
    brackets, found = Brackets(), []
    for character in text:
        if not brackets.closed:
            found.append(brackets.feed(character))
    return found
