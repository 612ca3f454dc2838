"""Messages: one for one, whatever form the content has."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import pytest

from openai_compat.endpoints.chat.request import ChatCompletionRequest
from openai_compat.errors import APIError
from openai_compat.settings import Settings
from openai_compat.translate.fields import Ignored
from openai_compat.translate.messages import from_messages, read_messages
from openai_compat.wire.json import encode, request_decoder

decode = request_decoder(ChatCompletionRequest)
PNG = base64.b64encode(b"\x89PNG picture").decode()


def mapped(*messages: dict[str, Any], ignored: Ignored | None = None) -> list[dict[str, Any]]:
    request = decode(encode({"messages": messages}))[0]
    ignored = ignored or Ignored(Settings(), [])
    found = from_messages(read_messages(request.messages, ignored, 1000), ignored)
    return json.loads(encode(found))  # type: ignore[no-any-return]


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "system", "content": "s"}, {"role": "system", "content": "s"}),
        ({"role": "developer", "content": "d"}, {"role": "system", "content": "d"}),
        ({"role": "User", "content": "u"}, {"role": "user", "content": "u"}),
        *[
            ({"role": role, "content": "c"}, {"role": role, "content": "c"})
            for role in ("control", "context", "ipython", "Z_-9")
        ],
        ({"role": "user", "content": None}, {"role": "user", "content": ""}),
        ({"role": "assistant"}, {"role": "assistant", "content": ""}),
        ({"role": "assistant", "content": None, "refusal": "no"}, {"role": "assistant", "content": "no"}),
        ({"role": "user", "content": []}, {"role": "user", "content": ""}),
        ({"role": "user", "content": [text("a "), text("b")]}, {"role": "user", "content": "a b"}),
        (
            {"role": "assistant", "content": [text("a"), {"type": "refusal", "refusal": "r"}]},
            {"role": "assistant", "content": "ar"},
        ),
        (
            {"role": "user", "content": [text("a"), image(PNG), text("b"), image({"url": PNG})]},
            {"role": "user", "content": "ab", "images": [PNG, PNG]},
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}]},
            {"role": "user", "content": "", "images": [PNG]},
        ),
        (
            {"role": "assistant", "content": "a", "reasoning": "r"},
            {"role": "assistant", "content": "a", "thinking": "r"},
        ),
        (
            {"role": "assistant", "content": "a", "reasoning_content": "r"},
            {"role": "assistant", "content": "a", "thinking": "r"},
        ),
        ({"role": "assistant", "content": "a", "reasoning": {"x": 1}}, {"role": "assistant", "content": "a"}),
        ({"role": "user", "content": "a", "reasoning": "r"}, {"role": "user", "content": "a"}),
        ({"role": "user", "content": "a", "Label": "", "tool_calls": None}, {"role": "user", "content": "a"}),
        (
            {"role": "user", "content": [{**text("a"), "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": "a"},
        ),
        ({"role": "function", "name": "f", "content": "1"}, {"role": "tool", "content": "1", "tool_name": "f"}),
    ],
)
def test_a_message_becomes_a_native_one(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert mapped(message) == [expected]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"b": 1, "a":2}', {"b": 1, "a": 2}),
        ("", {}),
        (None, {}),
        ({"x": [1]}, {"x": [1]}),
        (" {} ", {}),
        ("null", {}),
        ('""', {}),
        (json.dumps('{"a": 1}'), {"a": 1}),
        (json.dumps(json.dumps('{"a": 1}')), {"arguments": json.dumps(json.dumps('{"a": 1}'))}),
        ('{"city":', {"arguments": '{"city":'}),
        ("{", {"arguments": "{"}),
        ("[]", {"arguments": "[]"}),
        ([], {"arguments": "[]"}),
        ([1], {"arguments": "[1]"}),
        ("[1]", {"arguments": "[1]"}),
        ('{}{"a":1}', {"arguments": '{}{"a":1}'}),
        ("x", {"arguments": "x"}),
        ('"x"', {"arguments": '"x"'}),
        ("1", {"arguments": "1"}),
        (1, {"arguments": "1"}),
        (True, {"arguments": "true"}),
        ('{"a":' * 70 + "1" + "}" * 70, {"arguments": '{"a":' * 70 + "1" + "}" * 70}),
        ('{"a":1e999}', {"arguments": '{"a":1e999}'}),
        ("\x00", {"arguments": "\x00"}),
    ],
)
def test_tool_calls_of_the_history(arguments: Any, expected: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    other = {"function": {"name": "g"}}
    assert mapped({"role": "assistant", "content": "", "tool_calls": [call, other]}) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"index": 0, "name": "f", "arguments": expected}},
                {"function": {"index": 0, "name": "g", "arguments": {}}},
            ],
        }
    ]


def test_arguments_keep_their_order_and_numbers() -> None:
    arguments = '{"z":1,"a":12345678901234567890123,"f":1.0}'
    request = decode(
        encode(
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]}
        )
    )[0]
    ignored = Ignored(Settings(), [])
    sent = encode(from_messages(read_messages(request.messages, ignored, 1), ignored))
    assert arguments.encode() in sent


def test_a_function_call_of_the_old_form() -> None:
    call = {"name": "f", "arguments": '{"a":1}'}
    [message] = mapped({"role": "assistant", "content": None, "function_call": call})
    assert message["tool_calls"] == [{"function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]


def assistant(*calls: tuple[str, str]) -> dict[str, Any]:
    made = [{"id": id, "function": {"name": name, "arguments": ""}} for id, name in calls]
    return {"role": "assistant", "tool_calls": made}


def result(id: str, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "r", **more}


def test_a_result_gets_the_name_that_the_history_has() -> None:
    found = mapped(
        assistant(("c1", "f"), ("c2", "g")), result("c2"), result("c1"), result("c3"), result("c1", name="h")
    )
    assert [(message.get("tool_name"), message["tool_call_id"]) for message in found[1:]] == [
        ("g", "c2"),
        ("f", "c1"),
        (None, "c3"),
        ("h", "c1"),
    ]


def test_an_id_that_is_used_again_means_the_latest_call_before_the_result() -> None:
    found = mapped(assistant(("c", "f")), result("c"), assistant(("c", "g")), result("c"))
    assert [message["tool_name"] for message in found if message["role"] == "tool"] == ["f", "g"]


def references(*messages: dict[str, Any]) -> list[tuple[Any, Any]]:
    """The name and the id of each result."""
    found = [message for message in mapped(*messages) if message["role"] == "tool"]
    return [(message.get("tool_name"), message.get("tool_call_id")) for message in found]


@pytest.mark.parametrize("role", ["tool", "function"])
@pytest.mark.parametrize("id", [{}, {"tool_call_id": None}, {"tool_call_id": ""}], ids=["absent", "null", "empty"])
def test_results_without_an_id_are_in_the_order_of_the_calls(role: str, id: dict[str, Any]) -> None:
    anonymous = {"role": role, "content": "r", **id}
    calls = assistant(("c1", "f"), ("", "g"), ("c3", "f"))
    assert references(calls, *[anonymous] * 4) == [("f", "c1"), ("g", None), ("f", "c3"), (None, None)]
    assert references(calls, result("c1"), anonymous, anonymous) == [("f", "c1"), ("g", None), ("f", "c3")]
    assert references(calls, anonymous, {"role": "user", "content": "x"}, anonymous) == [("f", "c1"), ("g", None)]
    assert references(anonymous) == [(None, None)]


def test_results_without_an_id_belong_to_the_last_turn() -> None:
    anonymous = {"role": "tool", "content": "r"}
    user = {"role": "user", "content": "x"}
    old, new = assistant(("c1", "f"), ("c2", "f")), assistant(("c3", "g"))
    assert references(old, anonymous, new, anonymous, anonymous) == [("f", "c1"), ("g", "c3"), (None, None)]
    assert references(old, user, new, anonymous) == [("g", "c3")]
    assert references(old, new, anonymous, anonymous, anonymous) == [("f", "c1"), ("f", "c2"), ("g", "c3")]


def test_a_result_with_a_name_answers_the_first_call_of_it() -> None:
    calls = assistant(("c1", "f"), ("c2", "g"), ("c3", "g"))
    named = {"role": "tool", "name": "g", "content": "r"}
    assert references(calls, named, named, named, {"role": "tool"}) == [
        ("g", "c2"),
        ("g", "c3"),
        ("g", None),
        ("f", "c1"),
    ]
    assert references(calls, {"role": "tool", "name": "h"}) == [("h", None)]


def test_a_function_of_the_old_form_gets_its_name() -> None:
    call = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    assert references(call, {"role": "function", "content": "r"}) == [("f", None)]


def test_a_result_in_parts_keeps_its_references() -> None:
    [_, message] = mapped(assistant(("c", "f")), result("c", content=[text("a"), text("b")]))
    assert message == {"role": "tool", "content": "ab", "tool_name": "f", "tool_call_id": "c"}


def test_null_text_in_a_result_is_empty() -> None:
    [_, message] = mapped(assistant(("c", "f")), result("c", content=[{"type": "text", "text": None}, text("b")]))
    assert message["content"] == "b"


# -- images and audio -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [f"data:image/{kind};base64,{PNG}" for kind in ("png", "jpeg", "jpg", "webp", "gif", "PNG")]
    + [f"data:;base64,{PNG}", PNG, f"DATA:image/png;BASE64,{PNG}", f"data:image/png;charset=utf-8;base64,{PNG}"]
    + [f"data:image/png;base64,{PNG[:5]}\n {PNG[5:]}"],
)
def test_an_image_is_its_base64(url: str) -> None:
    assert mapped({"role": "user", "content": [image({"url": url})]})[0]["images"] == [PNG]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a.png", "invalid_image_url"),
        ("HTTP://example.com/a.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("ftp://x/y", "invalid_image_url"),
        (f"data:image/svg+xml;base64,{PNG}", "invalid_image_format"),
        (f"data:text/html;base64,{PNG}", "invalid_image_format"),
        ("data:image/png,rawdata", "invalid_image_format"),
        ("data:image/png;base64,", "invalid_image_url"),
        ("data:image/png;base64,@@@@", "invalid_image_url"),
        ("data:image/png;base64,abc", "invalid_image_url"),
        ("", "invalid_image_url"),
        ("é", "invalid_image_url"),
    ],
)
def test_f70_what_is_no_image_is_a_400(url: str, code: str) -> None:
    error = refusal({"role": "user", "content": [text("a"), image({"url": url})]})
    assert (error.param, error.code) == ("messages[0].content[1].image_url.url", code)
    assert "example.com" not in error.message


def test_an_image_to_fetch_is_refused_in_ollama_s_words() -> None:
    error = refusal({"role": "user", "content": [image("https://example.com/image.png")]})
    assert error.param == "messages[0].content[0].image_url"
    assert "image URLs are not currently supported" in error.message


# -- files ------------------------------------------------------------------------------------

NOTE = {"type": "file", "file": {"filename": "note.txt", "file_data": "data:text/plain,Hi%20there"}}
SHOWN = '\n<file name="note.txt">\nHi there\n</file>\n'


@pytest.mark.parametrize(("role", "native"), [("user", "user"), ("system", "system"), ("developer", "system")])
def test_a_file_stands_where_it_was_among_the_parts(role: str, native: str) -> None:
    [message] = mapped({"role": role, "content": [text("a"), NOTE, text("b")]})
    assert message == {"role": native, "content": f"a{SHOWN}b"}


def test_a_file_in_a_result_of_a_tool() -> None:
    [_, message] = mapped(assistant(("c", "f")), result("c", content=[text("a"), NOTE]))
    assert message["content"] == f"a{SHOWN}"


def test_a_file_that_is_an_image_goes_beside_the_text() -> None:
    part = {"type": "file", "file": {"file_data": f"data:image/png;base64,{PNG}"}}
    [message] = mapped({"role": "user", "content": [text("a"), part, image(PNG)]})
    assert message == {"role": "user", "content": "a", "images": [PNG, PNG]}


def test_a_file_in_the_history_of_an_assistant_is_listed() -> None:
    ignored = Ignored(Settings(), [])
    [message] = mapped({"role": "assistant", "content": [text("a"), NOTE]}, ignored=ignored)
    assert message["content"] == "a"
    assert dict(ignored.headers()) == {"openai-compat-ignored": "messages[].content[].file"}


def test_a_file_beside_another_type_of_part_is_listed() -> None:
    ignored = Ignored(Settings(), [])
    mapped({"role": "user", "content": [{**NOTE, "type": "text", "text": "a"}]}, ignored=ignored)
    assert dict(ignored.headers()) == {"openai-compat-ignored": "messages[].content[].file"}


# -- refusals ---------------------------------------------------------------------------------


def refusal(*messages: dict[str, Any]) -> APIError:
    with pytest.raises(APIError) as raised:
        mapped(*messages)
    assert raised.value.status == 400
    return raised.value


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "x"}, "messages[1].role"),
        *[({"role": role, "content": "x"}, "messages[1].role") for role in ("no body", "", "x" * 65, "n\u00f6", "a\n")],
        ({"role": "user", "content": 1}, "messages[1].content"),
        ({"role": "user", "content": {"type": "text"}}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "file"}]}, "messages[1].content[0].file"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[1].content[0].file.file_data"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0].image_url"),
        ({"role": "user", "content": [image({})]}, "messages[1].content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[1].content[0].input_audio.data"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!"}}]},
            "messages[1].content[0].input_audio.data",
        ),
        ({"role": "user", "content": [{"type": "refusal"}]}, "messages[1].content[0].refusal"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[1].tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": {"a": 1}}, "messages[1].tool_calls"),
        ({"role": "assistant", "function_call": {"arguments": "{}"}}, "messages[1].function_call.name"),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]},
            "messages[1].tool_calls[0].custom.name",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "input": "x"}]},
            "messages[1].tool_calls[0].function.name",
        ),
    ],
)
def test_what_is_wrong_is_named(message: dict[str, Any], param: str) -> None:
    assert refusal({"role": "user", "content": "x"}, message).param == param


@pytest.mark.parametrize(
    ("parts", "thinking", "content", "listed"),
    [
        ([{"type": "thinking", "thinking": "hm", "signature": "s"}, text("a")], "hm", "a", ".signature"),
        ([{"type": "reasoning", "text": "hm"}, text("a")], "hm", "a", None),
        ([{"type": "reasoning", "reasoning": "hm"}], "hm", "", None),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}], "hm", "", None),
        ([{"type": "thinking", "thinking": [text("h"), text("m")]}, text("a")], "hm", "a", None),
        ([{"type": "thinking", "thinking": "hm", "image_url": PNG}], "hm", "", ".image_url"),
        ([{"type": "thinking", "thinking": [text("hm"), {"type": "redacted", "data": "x"}]}], "hm", "", ".thinking"),
        ([{"type": "redacted_thinking", "data": "x"}, text("a")], None, "a", ".redacted_thinking"),
        ([{"type": "reasoning.encrypted", "data": "x"}, text("a")], None, "a", ".reasoning.encrypted"),
        ([{"type": "tool_use", "id": "x"}, text("a")], None, "a", ".tool_use"),
        ([{"type": "output_text", "text": "a"}], None, "a", None),
    ],
)
def test_reasoning_in_the_content_of_an_assistant_is_thinking(
    parts: list[Any], thinking: str | None, content: str, listed: str | None
) -> None:
    ignored = Ignored(Settings(), [])
    [found] = mapped({"role": "assistant", "content": parts}, ignored=ignored)
    assert (found.get("thinking"), found["content"]) == (thinking, content)
    names = dict(ignored.headers()).get("openai-compat-ignored", "")
    assert (f"messages[].content[]{listed}" in names) if listed else not names


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "video_url", "output_text"])
@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_such_parts_of_another_message_are_a_400(role: str, kind: str) -> None:
    assert refusal({"role": role, "content": [{"type": kind, "text": "x"}]}).param == "messages[0].content[0]"


def test_what_has_no_effect_is_listed() -> None:
    ignored = Ignored(Settings(), [])
    mapped(
        {"role": "user", "name": "Ann", "content": [image({"url": PNG, "detail": "high"})]},
        {"role": "user", "content": [image({"url": PNG, "detail": "auto"})]},
        ignored=ignored,
    )
    listed = "messages[].content[].image_url.detail, messages[].name"
    assert dict(ignored.headers()) == {"openai-compat-ignored": listed}


def test_a_data_uri_of_many_parameters_costs_no_memory() -> None:
    error = refusal({"role": "user", "content": [image("data:" + ";" * 1_000_000)]})
    assert error.code == "invalid_image_format"


def test_the_head_of_a_data_uri_has_256_characters_at_most() -> None:
    for length, is_taken in ((256, True), (257, False)):
        head = "image/png;x=" + "y" * (length - len("image/png;x=;base64")) + ";base64"
        message = {"role": "user", "content": [image(f"data:{head},{PNG}")]}
        if is_taken:
            assert mapped(message)[0]["images"] == [PNG]
        else:
            with pytest.raises(APIError) as raised:
                mapped(message)
            assert raised.value.code == "invalid_image_format"


def test_a_long_head_of_a_data_uri_is_not_split() -> None:
    """Every semicolon in it would become a parameter of its own."""
    request = decode(encode({"messages": [{"role": "user", "content": [image("data:" + ";" * 2**22)]}]}))[0]
    [message] = read_messages(request.messages, Ignored(Settings(), []), 1)
    tracemalloc.start()
    try:
        with pytest.raises(APIError):
            from_messages([message], Ignored(Settings(), []))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
