"""Text that is no call leaves as it came, in its order, and no later than it is known."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_compat.structured.written import forms, known_tools
from openai_compat.structured.written.reading import LONGEST_OPENER, MAX_SIZE
from openai_compat.structured.written.scanner import CallScanner
from tests.structured.written.tools import ROWS, TOOLS, pieces, plain, scanned

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
EXPECTED = [{"name": "get_weather", "arguments": '{"city": "Oslo"}'}]

# -- what leaves when -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world.",
        "a < b and c[0] is `x`.",
        "- [x] done",
        "[1] a reference",
        "[link](http://x)",
        '{"city": ',
        '{\n  "names": ',
        '{"name": "Stanley"',
        '{"name": 1',
        '[{"city": ',
        "[[1",
        '["a"',
        "get_weather is a tool",
        "get_weather(",  # in a later line
        "def get_weather(city):",
        "```python\nprint",
        '```json\n{"city"',
        '```json\n["a"',
        "``` and",
        "<div>",
        "<function=other>",
        '<invoke name="other">',
        "<tool_call> as text",
        "<tool_call>other\n",
        "[TOOL_CALLS] as text",
        "<|channel|>final<|message|>",
        "<|python_tag|>import x",
        "functools.reduce",
        "Action: go home",
        '<tool_call>{"name": "get_weather", "arguments": {"a": [1}',
        "get_weather, get_time",
    ],
)
def test_text_leaves_as_soon_as_it_can_be_no_call(text: str) -> None:
    scanner = CallScanner(TOOLS)
    before = "First.\n"
    assert "".join(scanner.feed(character) for character in before + text) == before + text
    assert not scanner.holding


@pytest.mark.parametrize(
    "text",
    ["<tool", "<|", "[TOOL_", "``", '{"na', '{"name": "get_', '[{"name": "get_weather"', "get_wea", "[get_w", "Act"],
)
def test_what_may_become_an_opener_is_held(text: str) -> None:
    scanner = CallScanner(TOOLS)
    assert scanner.feed(f"\n{text}") == "\n"
    assert scanner.holding
    assert scanner.end() == ("", text, [])


def test_text_before_a_call_leaves_at_once() -> None:
    scanner = CallScanner(TOOLS)
    assert scanner.feed("Let me look. <tool") == "Let me look. "
    assert not scanner.feed(CALL[5:])
    assert scanner.holding
    assert plain(scanner.end().calls) == EXPECTED
    assert not scanner.holding


def test_without_tools_nothing_is_held() -> None:
    scanner = CallScanner([])
    assert scanner.feed("<tool_call>") == "<tool_call>"
    assert scanner.end() == ("", "", [])


@pytest.mark.parametrize("held", ["<tool", CALL, '{"name": "get_'])
def test_a_scanner_that_gives_up(held: str) -> None:
    scanner = CallScanner(TOOLS)
    assert scanner.feed(held) == ""
    assert scanner.release() == held
    assert not scanner.holding
    assert scanner.feed(CALL) == CALL
    assert scanner.end() == ("", "", [])


def test_the_search_goes_on_behind_what_is_no_call() -> None:
    text = f'{CALL} so.\n{{"name": "other"}} [TOOL_CALLS]<tool_call>[{CALL}'
    for cut in (None, 1, 5):
        left, found = scanned(pieces(text, cut))
        assert left == text[: -len(CALL)]
        assert plain(found.calls) == EXPECTED


def test_a_line_begins_behind_what_is_no_call() -> None:
    json_call = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    left, found = scanned([f"<tool_call>\n  {json_call}x\n{json_call}"])
    assert left == f"<tool_call>\n  {json_call}x\n"
    assert plain(found.calls) == EXPECTED
    left, found = scanned([f"<tool_call> x{json_call}"])
    assert left + found.text == f"<tool_call> x{json_call}"
    left, found = scanned([f"<|channel|>\n  {json_call}"])
    assert left == "<|channel|>\n  "
    assert plain(found.calls) == EXPECTED


def test_the_answer_has_begun_behind_what_is_no_call() -> None:
    text = '<function=other>\nget_weather(city="Oslo")'
    left, found = scanned([text])
    assert left + found.text == text


# -- names ------------------------------------------------------------------------------------


def own_name(name: str) -> str:
    return "get_weather" if name.lower().replace("-", "_") == "get_weather" else name


@pytest.mark.parametrize("name", ["get-weather", "Get_Weather", "functions.get_weather", "functions.Get-Weather:3"])
def test_another_spelling_of_a_name(name: str) -> None:
    _, found = scanned([CALL.replace("get_weather", name)], tool_name=own_name)
    assert plain(found.calls) == EXPECTED


def test_a_spelling_that_is_no_tool() -> None:
    left, found = scanned([CALL.replace("get_weather", "get-weather")])
    assert left + found.text == CALL.replace("get_weather", "get-weather")


def test_a_tool_whose_name_is_the_beginning_of_another() -> None:
    tools = [tool for tool in TOOLS if tool.function.name == "get_weather"]
    tools.append(type(tools[0])(type(tools[0].function)("get")))
    for cut in (None, 1):
        _, found = scanned(pieces('get_weather(city="Oslo")', cut), tools=tools)
        assert plain(found.calls) == EXPECTED


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, 1, 100])
def test_an_opener_that_is_too_long_is_text(cut: int | None) -> None:
    call = '{%s"name": "get_weather", "arguments": {"city": "Oslo"}}'
    fits = call % (" " * (LONGEST_OPENER - len('{"name": "get_weather"')))
    assert plain(scanned(pieces(fits, cut))[1].calls) == EXPECTED
    text = fits.replace("{ ", "{  ", 1)
    left, found = scanned(pieces(text, cut))
    assert (left, found) == (text, ("", "", []))


@pytest.mark.parametrize("cut", [None, 4096, 100_000])
def test_a_call_that_is_too_long_is_text(cut: int | None) -> None:
    padding = MAX_SIZE - len(CALL)
    fits = CALL.replace("Oslo", "Oslo" + "x" * padding)
    assert len(scanned(pieces(fits, cut))[1].calls) == 1
    left, found = scanned(pieces(fits + "\n", cut))
    assert left + found.text == fits + "\n"
    assert not found.calls


def test_a_deep_call_is_text() -> None:
    text = CALL.replace('"Oslo"', "[" * 64 + "]" * 64)
    left, found = scanned([text])
    assert left + found.text == text
    assert len(scanned([CALL.replace('"Oslo"', "[" * 63 + "]" * 63)])[1].calls) == 1


# -- properties -------------------------------------------------------------------------------

OPENERS = [*forms.OPENERS, *forms.LINE_OPENERS, '{"name": "get_weather"', "[get_weather(", "get_weather(", '{"name": "']
INCOMPLETE = [opener[:size] for opener in OPENERS for size in range(1, len(opener))]
PROSE = ["Hello", " ", "\n", "\n\n", "a", "0", "é", "｜", "<", "[", "{", "`", '"', "'", ")", "]}", "f(x)", "\n- "]
PARTS = [*PROSE, *OPENERS, *forms.CLOSERS, *(row["text"] for row in ROWS), '{"city": "Oslo"}', "<parameter=city>", ";"]


def cut_at(text: str, sizes: list[int]) -> Iterator[str]:
    for size in sizes:
        yield text[:size]
        text = text[size:]
    yield text


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=12), st.lists(st.integers(0, 40)))
def test_the_cuts_change_nothing(parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    left, found = scanned(cut_at(text, sizes))
    whole_left, whole = scanned([text])
    assert left == whole_left
    assert (found.thinking, found.text, plain(found.calls)) == (whole.thinking, whole.text, plain(whole.calls))
    assert text.startswith(left)
    if not found.calls:
        assert left + found.text == text
        assert not found.thinking


@given(st.lists(st.sampled_from(PROSE + INCOMPLETE), max_size=30))
def test_what_has_no_opener_leaves_within_its_length(parts: list[str]) -> None:
    text = "Text: " + "x".join(parts)
    if any(opener in text for opener in OPENERS):
        return
    scanner, left = CallScanner(TOOLS), 0
    for fed, character in enumerate(text, 1):
        left += len(scanner.feed(character))
        assert fed - left <= max(map(len, OPENERS)) + len("get_weather")
    assert len(scanner.end().text) == len(text) - left


@given(st.lists(st.sampled_from(PARTS), max_size=8))
def test_prose_behind_it_releases_everything(parts: list[str]) -> None:
    text = "".join(parts) + '</parameter></arg_value><|"|><escape>\'\'\'"""<|end|>\nThat is it,\nand no more.'
    scanner = CallScanner(TOOLS)
    left = scanner.feed(text)
    assert left + scanner.end().text == text


# -- growth -----------------------------------------------------------------------------------

REPEATED = [
    "x",
    "\n",
    "<",
    "[",
    "```",
    "```json\n",
    "\n{",
    "\n[",
    '\n{"',
    '{"name": "',
    '{"name": "get_weather", ',
    '{"name": "get_weather", "arguments": {"a": ',
    "<tool_call>",
    "<tool_call>{",
    "\n<tool_call> ",
    '<tool_call>{"a": "\\u1234',
    "<tool_call>\n```json\n",
    "<tool_call>get_weather",
    CALL,
    "<function=",
    "<function=get_weather>",
    "<function=get_weather><parameter=city>",
    "<arg_key>",
    "get_weather\n",
    "[get_weather(city='",
    "[get_weather(city='\\",
    "[get_weather(city=[",
    '<|tool_call>call:get_weather{a:<|"|>',
    "<|channel|>",
    "<|channel|>analysis<|message|>x<|end|>",
    "<｜tool▁calls▁begin｜>",
]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, None])
@pytest.mark.parametrize("piece", REPEATED)
def test_the_time_grows_with_the_text(piece: str, cut: int | None) -> None:
    def measured(size: int) -> float:
        parts = pieces((piece * (size // len(piece) + 1))[:size], cut)
        began = time.process_time()
        scanned(parts)
        return time.process_time() - began

    gc.collect()
    small = min(measured(6_000) for _ in range(3))
    assert measured(60_000) < 30 * max(small, 0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    "opened",
    [
        '<tool_call>{"name": "get_weather", "arguments": {"city": "',
        "<function=get_weather><parameter=city>",
        '<function=get_weather>{"city": [',
        "[get_weather(city='",
        '<|tool_call>call:get_weather{city:<|"|>',
        "<|channel|>analysis<|message|>",
        "<tool_call>get_weather<arg_key>",
        f"{CALL}",
    ],
)
@pytest.mark.parametrize("piece", ["x", " ", "<", "\\\\", "[", "</"])
def test_the_time_grows_with_what_is_held(opened: str, piece: str) -> None:
    def measured(size: int) -> float:
        parts = pieces(opened + piece * (size // len(piece)), 1)
        began = time.process_time()
        scanned(parts)
        return time.process_time() - began

    small = min(measured(5_000) for _ in range(3))
    assert measured(50_000) < 30 * max(small, 0.001)


def test_a_tool_s_schema_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[object] = []
    types = known_tools._types

    def counted(schema: object, depth: int = 8) -> frozenset[str]:
        searched.append(schema)
        return types(schema, depth)

    monkeypatch.setattr(known_tools, "_types", counted)
    parameter = "<function=get_weather><parameter=city>Oslo</parameter></function>"
    _, found = scanned([parameter * 50])
    assert len(found.calls) == 50
    assert len(searched) == 1

    def decoded(function: object) -> dict[str, object]:
        searched.append(function)
        return {}

    monkeypatch.setattr(known_tools, "_schema", decoded)
    _, found = scanned(['<tool_call>{"name": "get_time"}</tool_call>' * 50])
    assert len(found.calls) == 50
    assert len(searched) == 2


@pytest.mark.parametrize("cut", [None, 1, 7])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_string_without_an_end_hides_no_call_in_the_next_line(quote: str, cut: int | None) -> None:
    broken = f"get_weather(city={quote}Oslo)\n"
    left, found = scanned(pieces(broken + CALL, cut))
    assert (left, plain(found.calls)) == (broken, EXPECTED)
