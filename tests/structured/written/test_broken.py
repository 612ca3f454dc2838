"""What is nearly a call is text, byte for byte, in whatever pieces it comes."""

from __future__ import annotations

import pytest

from openai_compat.structured.written.scanner import CallScanner
from tests.structured.written.tools import TOOLS, pieces, scanned

CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'

BROKEN = {
    "JSON": [
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}}</tool_call>',
        '<tool_call>{"name" "get_weather"}</tool_call>',
        '<tool_call>{"name": "get_weather" "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "name": "get_weather", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {}, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": "Oslo"}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": "[]"}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": 1}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": null}</tool_call>',
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud83d", "arguments": {}}</tool_call>',
        '<tool_call>{"type": "tool", "name": "get_weather", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": \'{} }</tool_call>',
        '<tool_call>{"function": {"function": {"name": "get_weather", "arguments": {}}}}</tool_call>',
        '<tool_call>{"tool_calls": {}}</tool_call>',
        '<tool_call>{"tool_calls": []}</tool_call>',
        f'<tool_call>{{"tool_calls": [{{"tool_calls": [{CALL}]}}]}}</tool_call>',
        f'<tool_call>{{"tool_calls": [{CALL}], "tool_calls": [{CALL}]}}</tool_call>',
        f"<tool_call>[{CALL}; {CALL}]</tool_call>",
        f"<tool_call>[{CALL}, ]</tool_call>",
        "<tool_call>[1]</tool_call>",
        f"[{CALL}",
        f"[{CALL},",
        '{"name": "get_weather", "arguments": {"city": "Oslo"}',
        '{"arguments": {"city": "Oslo"}, "name": "get_weather"}',
        '{"name": "get_weather", "arguments": {"city": "Oslo"}, "note": 1}',
        f"```json\n{CALL}\n```\n```",
        "```json\n```",
        "```json\n[get_weather()]\n```",
        f"{CALL};;{CALL}x",
        f"<tool_call>{CALL}</tool_call>{CALL}",
        f"{CALL}\n```\n{CALL}\n```",
        f"Action: ```json\n{CALL}\n``` {CALL}",
    ],
    "values": [
        f'{{"name": "get_weather", "arguments": {value}}}'
        for value in (
            '{"a"}',
            '{"a":}',
            '{"a":1,}',
            '{"a":1 "b":2}',
            "{1:2}",
            '{,"a":1}',
            '{"a":[1,]}',
            '{"a":[,1]}',
            '{"a":[1}}',
            '{"a":1]}',
            '{"a":01}',
            '{"a":+1}',
            '{"a":1.}',
            '{"a":True}',
            '{"a":nul}',
            '{"a":"\\x"}',
            '{"a":"\\u12g4"}',
            '{"a":"\n"}',
            "{'a':1}",
            '{"a":' + "[" * 64 + "]" * 64 + "}",
            '{"a":' + "1" * 1025 + "}",
            '{"a":"\\u12',
            '{"a":"\\',
        )
    ],
    "tags": [
        "<function=>{}</function>",
        '<function="get_weather>{}</function>',
        "<function=get_weather {}</function>",
        "<function=get_weather></function>",
        "<function=get_weather><parameter=city>Oslo",
        "<function=get_weather><parameter=city\n>Oslo</parameter></function>",
        "<function=get_weather><other>x</other></function>",
        '<invoke name=""></invoke>',
        '<invoke name="get_weather',
        '<invoke name="get_weather" <parameter name="city">Oslo</parameter></invoke>',
        '<invoke name="get_weather"><parameter name="city>Oslo</parameter></invoke>',
        "<function=get_time>",
        "<tool_call>get_weather</tool_call>",
        "<tool_call>get_weather<arg_key>city</arg_key>Oslo</tool_call>",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</tool_call>",
        "<tool_call>get_weather<other></tool_call>",
        "<tool_call>get_weather\ncity</tool_call>",
        f"<tool_call>{'x' * 129}</tool_call>",
        "<tool_call>(x)</tool_call>",
        "<tool_call></tool_call>",
    ],
    "names": [
        f"[get_weather({arguments})]"
        for arguments in (
            '"Oslo"',
            'city"Oslo"',
            'city="Oslo" days=1',
            'city="a", city="b"',
            "city=Oslo",
            "city=f(1)",
            "city=01",
            "city='Oslo\n'",
            "city='Oslo",
            "city='\\x4'",
            "city='\\u12",
            "city='''Oslo''",
            "city={'a' 1}",
            "city={a: 1}",
            "city={'a': 1 'b': 2}",
            "city={1: 1}",
            "city=[1 2]",
            "city=(1, 2)",
            "city=<escape>x<escape>",
            "city=" + "[" * 70 + "]" * 70,
        )
    ]
    + [
        "[get_weather]",
        '[get_weather(city="Oslo")',
        '[get_weather(city="Oslo"), other()]',
        "[other()]",
        '<tool_code>print(get_weather(city="Oslo")</tool_code>',
        "<tool_code>print(1)</tool_code>",
        '<|tool_call>call:get_weather(city="Oslo")<tool_call|>',
        "<|tool_call>call: get_weather city<tool_call|>",
        "<|tool_call>call:get_weather{:1}<tool_call|>",
        "<|tool_call>call:get_weather{city:Oslo}<tool_call|>",
        '<|tool_call>call:get_weather{city:<|"|>Oslo}<tool_call|>',
        "<|tool_call>call:get_weather{city:<b>Oslo}<tool_call|>",
        "<|tool_call>call:get_weather{city:'Oslo'}<tool_call|>",
        "[TOOL_CALLS]get_weather[CALL_ID]abc{}",
        "[TOOL_CALLS]get_weather[x]",
    ],
    "tokens": [
        "<|tool_call_begin|>functions.get_weather:0{}",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>other\n```json\n{}\n```",
        "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>```json\n{}\n``<｜tool▁call▁end｜>",
        "<|channel|>analysis<|message|>hmm<|end|>",
        "<|channel|>analysis<|message|>hmm<|end|><|end|>",
        "<|channel|>analysis<|message|>hmm<|end|> so",
        "<|channel|>analysis<|message|>hmm<|end|><|start|>assistant<|message|>Hello",
        "<|channel|>commentary to=functions.get_weather Oslo",
        "<|channel|>commentary to=functions.get_weather <|message|>",
        "<|start|>assistant<|message|>Hello",
        "<|channel|>analysis",
    ],
}
TEXTS = [text for texts in BROKEN.values() for text in texts]


@pytest.mark.parametrize("cut", [None, 1, 7])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_it_stays_text(text: str, cut: int | None) -> None:
    left, found = scanned(pieces(text, cut))
    assert left + found.text == text
    assert not found.calls
    assert not found.thinking


@pytest.mark.parametrize(
    ("opener", "piece"),
    [
        ("<tool_call>", '{"function": '),
        ("<tool_call>", '{"tool_calls": ['),
        ("<tool_call>", '{"a": '),
        ("<tool_call>", '{"a": [{"b": '),
        ("<tool_call>", "["),
        ("<tool_call>", "<function=get_weather>{"),
        ("[get_weather(city=", "["),
        ("[get_weather(city=", "{'a': "),
        ("<|tool_call>call:get_weather", "{a:"),
    ],
)
def test_deep_nesting_is_refused_early(opener: str, piece: str) -> None:
    scanner = CallScanner(TOOLS)
    text = opener + piece * 5_000
    left = scanner.feed(text)
    assert len(left) > len(text) - 1000
    assert left + scanner.end().text == text
