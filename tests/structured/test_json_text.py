"""What stands around JSON goes, in whatever pieces it comes; everything else stays."""

from __future__ import annotations

import time

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


def test_text_that_is_no_thinking_leaves_when_it_becomes_too_much() -> None:
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


# -- hostile text -----------------------------------------------------------------------------


def test_what_follows_a_closing_fence_leaves_at_once() -> None:
    pure = JSONUnwrapper()
    assert pure.feed('```json\n{"a":1}\n```\n') == ("", '{"a":1}')
    assert pure.feed(" and") == ("", "\n```\n and")
    assert pure.feed(" more\n```") == ("", " more\n```")
    assert pure.feed("  ") == ("", "  ")
    assert pure.end() == ("", "")


@pytest.mark.parametrize("text", ["`x", "``x", "````json\n{", "```json x", "```a b", "```\n{}"[:3] + "\n42"])
@pytest.mark.parametrize("cut", CUTS)
def test_what_is_no_fence_leaves_at_the_first_character_that_says_so(text: str, cut: int | None) -> None:
    pure = JSONUnwrapper()
    size = cut or len(text)
    assert "".join(pure.feed(text[i : i + size])[1] for i in range(0, len(text), size)) == text
    assert pure.feed(" ") == ("", " ")


@pytest.mark.parametrize("begin", ["```", "```json", "```json\n", "Okay", "x</think"])
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_what_waits_is_bounded(begin: str, size: int) -> None:
    """It is not lost either: it leaves when it becomes too much."""
    pure = JSONUnwrapper()
    left = pure.feed(begin)[1]
    for count in range(1, 100_000 // size + 1):
        left += pure.feed(" " * size)[1]
        assert len(begin) + count * size - len(left) <= 32 * 1024 + size
    assert (left + pure.end()[1]) == begin + " " * 100_000


@pytest.mark.slow
@pytest.mark.parametrize("text", ["```\n{}%s```", "```\n{}```%s", "```\n{}%s", "```\n{}%s```%s"])
@pytest.mark.parametrize("cut", [1, 1000, None])
def test_a_closing_fence_goes_whatever_the_number_of_blanks(text: str, cut: int | None) -> None:
    assert purified(text.replace("%s", " \n" * 50_000), cut) == ("", "{}")


HOSTILE = {
    "a fence and blanks": lambda n: "```" + " " * n + "!",
    "a fence, a language and blanks": lambda n: "```json" + " \n" * (n // 2) + "!",
    "a fence of letters": lambda n: "```" + "a" * n + " x",
    "blanks before a closing fence": lambda n: "```\n{}" + " " * n + "```",
    "blanks after a closing fence": lambda n: "```\n{}```" + " " * n + "x",
    "closing fences": lambda n: "```\n{}" + "\n``` x" * (n // 6),
    "blanks": lambda n: " " * n + "{",
    "tags": lambda n: "<think></think>" * (n // 15),
    "half tags": lambda n: "<think>" + "</thin" * (n // 6),
    "untagged": lambda n: "x</think>" * (n // 9),
    "text without a tag": lambda n: "x " * (n // 2),
    "backslashes": lambda n: '```\n{"a":"' + "\\" * n,
    "brackets": lambda n: "```\n" + "[" * n,
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, None])
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text(name: str, cut: int | None) -> None:
    def seconds(text: str) -> float:
        def once() -> float:
            began = time.process_time()
            purified(text, cut)
            return time.process_time() - began

        return min(once() for _ in range(3))

    small, large = seconds(HOSTILE[name](3000)), seconds(HOSTILE[name](30_000))
    assert large < 40 * max(small, 0.0002)
