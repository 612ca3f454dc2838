"""The text of a custom tool's call, whole and cut anywhere."""

from __future__ import annotations

import pytest

from openai_compat.translate.custom_input import custom_input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
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
    ],
)
def test_the_text_of_a_custom_call(arguments: str, text: str) -> None:
    assert custom_input(arguments) == text
