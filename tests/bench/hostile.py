"""How time grows with hostile input: each case at a size and at ten times that size; linear is a ratio of about 10.

The cases are request bodies, schemas and texts of models. A line has the times in milliseconds, their ratio, and the
peak of the memory that the larger input takes, as a multiple of its size.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Raw

from openai_compat.endpoints.chat.request import decode as decode_chat
from openai_compat.endpoints.responses.output import Output
from openai_compat.endpoints.responses.request import decode as decode_response
from openai_compat.endpoints.responses.request import input_items
from openai_compat.errors import APIError
from openai_compat.native.types import AnswerMessage, ChatResponse, ToolCall, ToolCallFunction
from openai_compat.settings import Settings
from openai_compat.structured.call_schema import calls_schema
from openai_compat.structured.forced_choice import ForcedChoiceBuilder
from openai_compat.structured.json_text import JSONUnwrapper
from openai_compat.structured.schema_checker import Uncheckable, checker
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.fields import Ignored
from openai_compat.translate.files import Files
from openai_compat.translate.items import from_items
from openai_compat.translate.messages import read_messages
from openai_compat.translate.native_schema import format_schema, tool_parameters
from openai_compat.translate.response_tools import from_response_tools
from openai_compat.translate.tools import CallIds, to_deltas
from openai_compat.wire import json

SIZE = 30_000
ROUNDS = 3


def unwrap(text: str, cut: int) -> None:
    unwrapper = JSONUnwrapper()
    for start in range(0, len(text), cut):
        unwrapper.feed(text[start : start + cut])
    unwrapper.end()


def force(text: str, cut: int) -> None:
    builder = ForcedChoiceBuilder(ForcedChoice(frozenset(["f"]), is_named=True), CallIds(lambda prefix: prefix))
    for start in range(0, len(text), cut):
        builder.feed(ChatResponse(message=AnswerMessage(text[start : start + cut])))


def properties(count: int, schema: str) -> bytes:
    return b'{"type":"object","properties":{%s}}' % ",".join(f'"p{i}":{schema}' for i in range(count)).encode()


def alternatives(levels: int) -> bytes:
    """A schema of 2 ** *levels* alternatives."""
    parts = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return json.encode({"$ref": "#/$defs/d0", "$defs": {**parts, f"d{levels}": {"type": "null"}}})


def check(choices: int) -> None:
    checks = checker(alternatives(20)).shared()
    for _ in range(choices):
        with suppress(Uncheckable):
            checks.mismatch("1")


TEXTS: dict[str, Callable[[int], str]] = {
    "a fence and blanks": lambda n: "```" + " " * n + "!",
    "blanks before a closing fence": lambda n: "```\n{}" + " " * n + "```",
    "text after a closing fence": lambda n: "```\n{}```" + " x" * (n // 2),
    "thinking without a start": lambda n: "x</think>" * (n // 9),
}
CALLS: dict[str, Callable[[int], str]] = {
    "blanks in the head": lambda n: "{" + " " * n,
    "a long name": lambda n: '{"name":"' + "f{" * (n // 2),
    "keys in another order": lambda n: '{"parameters":{"a":"' + "x" * n,
    "arguments": lambda n: '{"name":"f","parameters":{"a":"' + '\\"' * (n // 2),
}
BODIES: dict[str, Callable[[int], bytes]] = {
    "digits in a string": lambda n: b'{"a":"' + b"1" * 299 * (n // 299) + b'a"}',
    "runs of digits": lambda n: b'{"a":"' + (b"1" * 299 + b"a") * (n // 300) + b'"}',
    "numbers": lambda n: b"[" + b"1234567.5," * (n // 10) + b"1]",
    "brackets": lambda n: b"[" * (n // 2) + b"]" * (n // 2),
    "pairs of brackets": lambda n: b"[]" * (n // 2),
    "quotes": lambda n: b'"' * n,
    "escaped quotes": lambda n: b'"' + b'\\"' * (n // 2),
    "backslashes": lambda n: b"\\" * n,
    "lone surrogates": lambda n: b'{"a":"' + b"\\ud83d" * (n // 6) + b'"}',
    "characters beyond ASCII": lambda n: b'{"a":"' + "\u00e9".encode() * (n // 2) + b'"}',
    "unknown keys": lambda n: b"{" + b",".join(b'"k%d":1' % i for i in range(n // 10)) + b"}",
    "parts of messages": lambda n: b'{"model":"m","messages":[' + (_MESSAGE + b",") * (n // len(_MESSAGE)) + b"{}]}",
}
ITEMS: dict[str, Callable[[int], str]] = {
    "messages": lambda n: '{"role":"user","content":"x"},' * (n // 30),
    "calls": lambda n: '{"type":"function_call","call_id":"c","name":"f"},' * (n // 50),
    "thinking and calls": lambda n: _THOUGHT * (n // len(_THOUGHT)),
    "calls, text and results": lambda n: _TURN * (n // len(_TURN)),
    "texts between a call and its result": lambda n: _CALLED + _SAID * (n // len(_SAID)) + _GIVEN,
    "arguments": lambda n: '{"type":"function_call","name":"f","arguments":"{\\"a\\":\\"%s\\"}"},' % ("x" * n),
    "arguments that do not end": lambda n: '{"type":"function_call","name":"f","arguments":"%s"},' % ("{" * n),
    "a list of lists": lambda n: '{"type":"function_call_output","output":[%s[]]},' % ("[]," * (n // 3)),
    "a list of parts": lambda n: '{"type":"function_call_output","output":[%s{}]},' % ('{"type":"text"},' * (n // 16)),
    "other items": lambda n: "".join(f'{{"type":"x{i}"}},' for i in range(n // 15)),
}
_THOUGHT = '{"type":"reasoning","encrypted_content":"a b"},{"type":"function_call","name":"f"},'
_CALLED = '{"type":"function_call","call_id":"c","name":"f"},'
_SAID = '{"role":"assistant","content":"x"},'
_GIVEN = '{"type":"function_call_output","call_id":"c","output":"x"},'
_TURN = _CALLED + _SAID + _GIVEN

_MESSAGE = b'{"role":"user","content":[{"type":"text","text":""},{"type":"text","text":""}]}'

SCHEMAS: dict[str, Callable[[int], bytes]] = {
    "properties": lambda n: properties(n // 10, '{"type":"string"}'),
    "true properties": lambda n: properties(n // 10, "true"),
    "false properties": lambda n: properties(n // 10, "false"),
    "escapes": lambda n: properties(1, f'{{"default":"{chr(92) * 2 * n}"}}'),
}


def required_call(schema: bytes) -> None:
    json.encode(calls_schema([("f", schema)]))


def decode(body: bytes) -> None:
    request, unknown = decode_chat(body)
    list(read_messages(request.messages, Ignored(Settings(), unknown), 1_000_000))


def _input(items: Callable[[int], str], size: int) -> bytes:
    return f'{{"model":"m","input":[{items(size)}{{"role":"user"}}]}}'.encode()


def read_items(body: bytes) -> None:
    request, unknown = decode_response(body)
    ignored = Ignored(Settings(), unknown)
    _, names = from_response_tools(request.tools or [], Settings(max_tools=1_000_000), ignored)
    json.encode(from_items(input_items(request.input, 1_000_000), names, ignored, Files()))


def answer(lines: list[AnswerMessage]) -> None:
    """The items and events of a response with such messages, encoded."""
    names = from_response_tools([Raw(b'{"type":"custom","name":"c"}')], Settings(), Ignored(Settings(), []))[1]
    output, ids = Output(names, lambda prefix: prefix), CallIds(lambda prefix: prefix)
    for line in lines:
        calls = to_deltas(line.tool_calls or [], ids, start=0)
        for event in output.feed(ChoiceDelta(line.thinking or "", line.content, [], calls)):
            json.encode(event)
    json.encode([list(output.end("completed")), output.items])


def _calls(name: str, count: int) -> list[ToolCall]:
    return [ToolCall(ToolCallFunction(name, Raw(b'{"input":"x"}')))] * count


ANSWERS: dict[str, Callable[[int], list[AnswerMessage]]] = {
    "deltas": lambda n: [AnswerMessage("x")] * n,
    "thinking and text in turn": lambda n: [AnswerMessage("x", thinking="t")] * (n // 16),
    "calls": lambda n: [AnswerMessage("", tool_calls=_calls("f", 1))] * (n // 4),
    "calls in one line": lambda n: [AnswerMessage("", tool_calls=_calls("c", n // 4))],
}


def cases() -> Iterator[tuple[str, Callable[[Any], object], Callable[[int], Any]]]:
    """A name, what is measured, and what makes its input."""
    for part, cut in (("by character", 1), ("at once", 100_000_000)):
        for name, make in TEXTS.items():
            yield f"JSON text, {part}: {name}", partial(unwrap, cut=cut), make
        for name, make in CALLS.items():
            yield f"call, {part}: {name}", partial(force, cut=cut), make
    for name, body in BODIES.items():
        yield f"request body: {name}", decode, body
    for name, item in ITEMS.items():
        yield f"items: {name}", read_items, partial(_input, item)
    for name, lines in ANSWERS.items():
        yield f"response: {name}", answer, lines
    for name, schema in SCHEMAS.items():
        yield f"tool: {name}", partial(tool_parameters, param="p"), schema
        yield f"format: {name}", partial(format_schema, param="p"), schema
        yield f"required call: {name}", required_call, schema


def seconds(run: Callable[[Any], object], value: Any) -> float:
    """The shortest of some rounds, in CPU time."""

    def once() -> float:
        began = time.process_time()
        with suppress(APIError):
            run(value)
        return time.process_time() - began

    return min(once() for _ in range(ROUNDS))


def peak(run: Callable[[Any], object], value: Any) -> int:
    tracemalloc.start()
    try:
        with suppress(APIError):
            run(value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def hostile() -> None:
    print(f"inputs of size {SIZE} and {10 * SIZE}, CPU ms, best of {ROUNDS}; the ratio; memory / length of the input")
    for name, run, make in cases():
        small, large = seconds(run, make(SIZE)), seconds(run, make(10 * SIZE))
        memory = peak(run, make(10 * SIZE)) / len(make(10 * SIZE))
        print(f"  {name:54} {small * 1e3:8.2f} {large * 1e3:8.2f}   x{large / max(small, 1e-5):5.1f}   {memory:5.1f}")
    one, eight = seconds(check, 1), seconds(check, 8)
    name = "2^20 alternatives: 1 choice, 8 choices"
    print(f"  {name:54} {one * 1e3:8.2f} {eight * 1e3:8.2f}   x{eight / one:5.1f}")
