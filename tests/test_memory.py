"""A request takes a bounded multiple of the memory of its body, whatever shape the body has."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
from typing import Any

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from openai_compat.translate.custom_input import custom_input

pytestmark = pytest.mark.slow

MEBIBYTE = 1024 * 1024
CHATS, TEXTS, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"


def joined(item: str, count: int) -> str:
    return ",".join([item] * count)


def numbered(item: str, count: int) -> str:
    return ",".join(item % i for i in range(count))


def chat(messages: str = '{"role":"user","content":"Hi"}', more: str = "") -> str:
    return f'{{"model":"demo","messages":[{messages}]{more}}}'


def response(items: str = '{"role":"user","content":"Hi"}', more: str = "") -> str:
    return f'{{"model":"demo","input":[{items}]{more}}}'


PART = '{"type":"text","text":""}'
CALL = '{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
TOOL = '{"type":"function","function":{"name":"f%d"}}'
PROPERTIES = '{"type":"object","properties":{' + numbered('"p%d":{"type":"string"}', 40_000) + "}}"

SHAPES: dict[str, tuple[str, str]] = {
    "parts of messages": (CHATS, chat(joined('{"role":"user","content":[' + joined(PART, 8) + "]}", 9_999))),
    "parts of one message": (CHATS, chat('{"role":"user","content":[' + joined(PART, 99_000) + "]}")),
    "empty messages": (CHATS, chat(joined("{}", 99_000))),
    "short messages": (CHATS, chat(joined('{"role":"user","content":""}', 9_999))),
    "calls of one message": (CHATS, chat('{"role":"assistant","tool_calls":[' + joined(CALL, 49_000) + "]}")),
    "calls of messages": (CHATS, chat(joined('{"role":"assistant","tool_calls":[' + joined(CALL, 4) + "]}", 9_999))),
    "tools": (CHATS, chat(more=f',"tools":[{numbered(TOOL, 49_000)}]')),
    "empty tools": (CHATS, chat(more=f',"tools":[{joined("{}", 99_000)}]')),
    "properties of a tool": (
        CHATS,
        chat(more=f',"tools":[{{"type":"function","function":{{"name":"f","parameters":{PROPERTIES}}}}}]'),
    ),
    "properties of a forced tool": (
        CHATS,
        chat(
            more=f',"tool_choice":"required","tools":[{{"type":"function","function":{{"name":"f","parameters":{PROPERTIES}}}}}]'
        ),
    ),
    "properties of a strict schema": (
        CHATS,
        chat(
            more=f',"response_format":{{"type":"json_schema","json_schema":{{"name":"n","strict":true,"schema":{PROPERTIES}}}}}'
        ),
    ),
    "stop": (CHATS, chat(more=f',"stop":[{numbered(chr(34) + "%d" + chr(34), 300_000)}]')),
    "equal stops": (CHATS, chat(more=f',"stop":[{joined(chr(34) + "ab" + chr(34), 300_000)}]')),
    "logit_bias": (CHATS, chat(more=',"logit_bias":{' + numbered('"%d":1', 190_000) + "}")),
    "metadata": (CHATS, chat(more=',"metadata":{' + numbered('"%d":""', 190_000) + "}")),
    "options": (CHATS, chat(more=',"options":{' + numbered('"%d":1', 190_000) + "}")),
    "template arguments": (CHATS, chat(more=',"chat_template_kwargs":{' + numbered('"%d":1', 190_000) + "}")),
    "unknown fields": (CHATS, chat(more="," + numbered('"x%d":1', 190_000))),
    "unknown fields of messages": (CHATS, chat(joined('{"role":"user","content":"","x":1,"y":{}}', 9_999))),
    "an unknown object": (CHATS, chat(more=',"x":{' + numbered('"%d":1', 190_000) + "}")),
    "an unknown array": (CHATS, chat(more=f',"x":[{joined("[]", 99_000)}]')),
    "user": (CHATS, chat(more=f',"user":[{joined("{}", 99_000)}]')),
    "modalities": (CHATS, chat(more=f',"modalities":[{joined(chr(34) + "ab" + chr(34), 190_000)}]')),
    "text": (CHATS, chat('{"role":"user","content":"' + "x" * 4 * MEBIBYTE + '"}')),
    "text beyond ASCII": (CHATS, chat('{"role":"user","content":"' + "\U0001f99c" * MEBIBYTE + '"}')),
    "escapes": (CHATS, chat('{"role":"user","content":"' + "\\n" * MEBIBYTE + '"}')),
    "lone surrogates": (CHATS, chat('{"role":"user","content":"' + "\\ud83d" * (MEBIBYTE // 2) + '"}')),
    "an image": (
        CHATS,
        chat('{"role":"user","content":[{"type":"image_url","image_url":"' + "QUJD" * MEBIBYTE + '"}]}'),
    ),
    "prompts": (TEXTS, '{"model":"demo","prompt":[' + joined('"ab"', 300_000) + "]}"),
    "token ids": (TEXTS, '{"model":"demo","prompt":[' + joined("1234", 300_000) + "]}"),
    "inputs": (VECTORS, '{"model":"demo-embed","input":[' + joined('"ab"', 300_000) + "]}"),
    "inputs that are arrays": (VECTORS, '{"model":"demo-embed","input":[' + joined("[]", 99_000) + "]}"),
    "options of embeddings": (
        VECTORS,
        '{"model":"demo-embed","input":"x","options":{' + numbered('"%d":1', 140_000) + "}}",
    ),
}


ITEMS = {
    "messages": '{"role":"user","content":""}',
    "parts of messages": '{"role":"user","content":[' + joined('{"type":"input_text","text":""}', 8) + "]}",
    "calls": '{"type":"function_call","name":"f","arguments":"{}"}',
    "custom calls": '{"type":"custom_tool_call","name":"f","input":""}',
    "results": '{"type":"function_call_output","call_id":"c","output":""}',
    "lists of results": '{"type":"function_call_output","call_id":"c","output":[' + joined(PART, 8) + "]}",
    "reasoning": '{"type":"reasoning","summary":[],"encrypted_content":"openai-compat.1.r.dA=="}',
    "thinking and calls": '{"type":"reasoning","encrypted_content":"a b"},{"type":"function_call","name":"f"}',
    "other items": '{"type":"web_search_call","id":"ws_1","action":{"type":"search","query":"x"}}',
    "unknown fields": '{"role":"user","content":"","x":1,"y":{}}',
}
SHAPES |= {
    f"{name} of a response": (RESPONSES, response('{"role":"user","content":"Hi"},' + joined(item, 4_999)))
    for name, item in ITEMS.items()
}
NESTED = '{"type":"namespace","name":"a%d","tools":[{"type":"function","name":"f"}]}'
SHAPES |= {
    "arguments of a response": (
        RESPONSES,
        response('{"type":"function_call","name":"f","arguments":"{\\"a\\":\\"' + "x" * 4 * MEBIBYTE + '\\"}"}'),
    ),
    "a string as input": (RESPONSES, f'{{"model":"demo","input":"{"x" * 4 * MEBIBYTE}"}}'),
    "a list as a result": (
        RESPONSES,
        response('{"type":"function_call_output","call_id":"c","output":[' + joined("[]", 99_000) + "]}"),
    ),
    "tools of a response": (RESPONSES, response(more=f',"tools":[{numbered(NESTED, 128)}]')),
    "empty tools of a response": (RESPONSES, response(more=f',"tools":[{joined("{}", 99_000)}]')),
    "properties of a tool of a response": (
        RESPONSES,
        response(more=f',"tools":[{{"type":"function","name":"f","parameters":{PROPERTIES}}}]'),
    ),
    "include": (RESPONSES, response(more=f',"include":[{numbered(chr(34) + "%d" + chr(34), 190_000)}]')),
}


def peak(path: str, body: bytes) -> int:
    """Bytes that a request takes at its peak, beside its body."""
    fake = FakeOllama()
    fake.script("/api/chat", say('{"name":"f","parameters":{}}'), done())
    environ = create_environ(path, method="POST", content_type="application/json")
    environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    app: Any = OpenAICompat(fake)
    gc.collect()
    tracemalloc.start()
    try:
        items, status, _ = run_wsgi_app(app, environ)
        list(items)
        assert status[:3] in ("200", "400", "502"), status
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_memory_of_a_request_is_below_12_times_its_body_and_8_mebibytes(shape: str) -> None:
    path, text = SHAPES[shape]
    body = text.encode()
    # The fake keeps the native request, and decodes nothing.
    assert peak(path, body) < 12 * len(body) + 8 * MEBIBYTE
    assert json.loads(body)


@pytest.mark.parametrize("text", ["x", "\\n", '\\"', "\\\\", "\\u00e9", "\U0001f99c"], ids=ascii)
@pytest.mark.parametrize("end", ["", "\\u00", '"', "\\x"], ids=ascii)
def test_the_memory_of_a_custom_call_that_was_cut_is_below_8_times_its_text(text: str, end: str) -> None:
    arguments = '{"input":"' + text * (MEBIBYTE // len(text.encode())) + end
    tracemalloc.start()
    try:
        assert custom_input(arguments)
        # Of characters beyond Latin-1 a string takes 4 bytes each; they are 4 bytes of UTF-8 too.
        assert tracemalloc.get_traced_memory()[1] < 8 * len(arguments.encode())
    finally:
        tracemalloc.stop()
