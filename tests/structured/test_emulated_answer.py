"""Answers of models without tools: the first key decides, and text leaves as it streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_compat.structured.content_reader import CutCall, JSONReader, Read, TextReader, joined
from openai_compat.structured.emulated_answer import EmulatedReader
from openai_compat.wire import json as wire

CUTS = [1, 2, 7, 4096]


def read(text: str, cut: int, *, is_text: bool = True, stops: tuple[str, ...] = (), is_cut: bool = False) -> Read:
    reader = EmulatedReader(TextReader(), is_text=is_text, stops=stops)
    parts = [reader.feed(text[i : i + cut]) for i in range(0, len(text), cut)]
    return joined([*parts, reader.end(is_cut=is_cut)])


def calls(read: Read) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(wire.text_of(call.function.arguments))) for call in read.calls]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("key", ["parameters", "arguments"])
def test_calls_leave_as_calls(cut: int, key: str) -> None:
    made = [{"name": "f", key: {"a": '}]\\"', "b": [1, {}]}}, {"name": "g", key: {}}]
    for text in (
        json.dumps({"calls": made}),
        json.dumps({"calls": made}, indent=2),
        '{"calls":[' + ",".join(map(json.dumps, made)) + "]}",
    ):
        found = read(text, cut)
        assert calls(found) == [("f", made[0][key]), ("g", {})]
        assert (found.text, found.thinking, found.cut_call) == ("", "", None)


@pytest.mark.parametrize("cut", CUTS)
def test_one_call_needs_no_array(cut: int) -> None:
    call = {"name": "f", "parameters": {"a": 1}}
    for value in ({"calls": call}, call):
        assert calls(read(json.dumps(value), cut)) == [("f", {"a": 1})]


def test_arguments_leave_as_they_are_written() -> None:
    written = '{ "b" : 1.50, "a":"\\u00e9" }'
    found = read('{"calls": [{"name": "f", "parameters": ' + written + "}]}", 5)
    assert wire.text_of(found.calls[0].function.arguments).decode() == written


def test_a_call_leaves_when_it_is_complete() -> None:
    reader = EmulatedReader(TextReader(), is_text=True)
    assert reader.feed('{"calls": [{"name": "f", "parameters": {"a": 1}') == Read()
    assert calls(reader.feed("}")) == [("f", {"a": 1})]


@given(st.text(), st.booleans(), st.sampled_from(CUTS))
def test_an_answer_is_text(text: str, ascii: bool, cut: int) -> None:
    found = read(json.dumps({"answer": text}, ensure_ascii=ascii), cut)
    assert (found.text, found.calls) == (text, [])


def test_an_answer_leaves_as_it_streams() -> None:
    reader = EmulatedReader(TextReader(), is_text=True)
    parts = ['{"ans', 'wer": "Hel', "lo\\", "nworld\\ud83d", "\\ude00!", '"}']
    assert [reader.feed(part).text for part in parts] == ["", "Hel", "lo", "\nworld", "\U0001f600!", ""]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("value", ['{"a": "x}", "b": [1, 2]}', '[1, {"a": 2}]', '"te\\"xt"', "12.50", "true", "null"])
def test_an_answer_with_a_schema_is_its_bytes(cut: int, value: str) -> None:
    assert read('{"answer": ' + value + " }", cut, is_text=False).text == value


@pytest.mark.parametrize("cut", CUTS)
def test_an_answer_that_is_no_string_is_its_bytes_too(cut: int) -> None:
    assert read('{"answer": {"a": 1}}', cut).text == '{"a": 1}'


@pytest.mark.parametrize("cut", CUTS)
def test_the_first_key_decides(cut: int) -> None:
    assert read('{"answer": "a", "calls": [{"name": "f", "parameters": {}}]}', cut) == Read(text="a", calls=[])
    both = read('{"calls": [{"name": "f", "parameters": {}}], "answer": "a"}', cut)
    assert (calls(both), both.text) == ([("f", {})], "")


@pytest.mark.parametrize("cut", CUTS)
def test_what_stands_around_the_json_is_removed(cut: int) -> None:
    found = read('<think>hm</think>\n```json\n{"answer": "a"}\n```', cut)
    assert (found.thinking, found.text) == ("hm", "a")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "text", ["Hello, world.", '{"city": "Oslo"}', '{"a', "[1, 2]", "{" + " " * 300, '{"callsign": 1}']
)
def test_text_that_is_no_such_answer_is_text(cut: int, text: str) -> None:
    found = read(text, cut)
    assert (found.text, found.calls) == (text, [])


def test_no_more_is_held_than_the_first_key_takes() -> None:
    reader = EmulatedReader(TextReader(), is_text=True)
    held = ["{", " " * 200]
    assert [reader.feed(part).text for part in held] == ["", ""]
    assert reader.feed(" " * 100).text == "{" + " " * 300


@pytest.mark.parametrize("cut", CUTS)
def test_stop_sequences_are_applied_to_the_decoded_text(cut: int) -> None:
    text = json.dumps({"answer": "one\ntwo \u00e9nd three"})
    assert read(text, cut, stops=("\n",)).text == "one"
    assert read(text, cut, stops=("\u00e9nd", "answer")).text == "one\ntwo "
    assert read(text, cut, stops=("threes",)).text == "one\ntwo \u00e9nd three"
    assert calls(read('{"calls": [{"name": "f", "parameters": {"city": 1}}]}', cut, stops=("city",))) == [
        ("f", {"city": 1})
    ]


@pytest.mark.parametrize("cut", CUTS)
def test_what_was_cut_leaves_as_far_as_it_came(cut: int) -> None:
    assert read('{"answer": "abc\\u00', cut, is_cut=True).text == "abc"
    assert read('{"answer": {"a": "b', cut, is_text=False, is_cut=True).text == '{"a": "b'
    found = read('{"calls": [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {"a": "b', cut, is_cut=True)
    assert (calls(found), found.cut_call) == ([("f", {})], CutCall("g", '{"a": "b'))
    assert read('{"calls": [{"name": "g', cut, is_cut=True) == Read(calls=[])


@pytest.mark.parametrize("cut", CUTS)
def test_calls_without_an_end_that_were_not_cut_are_text(cut: int) -> None:
    assert read('{"calls": [{"name": "g", "parameters": {"a"', cut).text == '{"name": "g", "parameters": {"a"'
    assert read('{"calls": [{"city": 1}]}', cut).text == '{"city": 1}'


@pytest.mark.parametrize("cut", CUTS)
def test_lone_surrogates_are_mended(cut: int) -> None:
    assert read('{"answer": {"a": "\\ud83d"}}', cut, is_text=False).text == '{"a": "\\ufffd"}'
    found = read('{"calls": [{"name": "f", "parameters": {"a": "\\ud83d"}}]}', cut)
    assert calls(found) == [("f", {"a": "\ufffd"})]


def test_json_without_calls_is_unwrapped() -> None:
    reader = JSONReader()
    assert [reader.feed("```json\n{}").text, reader.feed("\n```").text, reader.end(is_cut=False).text] == ["{}", "", ""]
