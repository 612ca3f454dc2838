"""The messages of a native stream: re-framed, checked, and ended by ``done`` only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.stream import NativeStream
from openai_compat.transport.wsgi_call import WSGICall
from openai_compat.wire.json import native_decoder

decode = native_decoder(native.ChatResponse)
END = {"done": True}


def line(content: str) -> dict[str, Any]:
    return {"message": {"content": content}, "done": False}


def encoded(*steps: Any) -> list[bytes]:
    return [step if isinstance(step, bytes) else json.dumps(step).encode() + b"\n" for step in steps]


def stream(items: list[bytes], content_type: str = "application/x-ndjson", limit: int = 1000) -> NativeStream[Any]:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", content_type)])
        return items

    return NativeStream(WSGICall(app, {}), decode, max_line=limit).open()


def contents(found: Any) -> list[str | None]:
    return [message.message.content if message.message else None for message in found]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_messages_at_every_cut(size: int) -> None:
    data = b"".join(encoded(line("a"), b"\r\n\n", line("é🦜"), END))
    items = [data[i : i + size] for i in range(0, len(data), size)]
    found = stream(items)
    assert contents(found) == ["a", "é🦜", None]
    assert found.done
    assert found.size == len(data)


def test_f26_a_last_line_without_an_end_is_delivered() -> None:
    assert contents(stream(encoded(line("a"), json.dumps(END).encode()))) == ["a", None]


def test_nothing_is_read_after_done() -> None:
    def items() -> Any:
        yield from encoded(line("a"), END)
        raise AssertionError("read on")

    assert contents(stream(items())) == ["a", None]  # type: ignore[arg-type]


def test_pending_tells_what_is_in_hand() -> None:
    data = encoded(line("a"), line("b"))
    found = stream([b"".join(data), *encoded(line("c"), END)])
    next(found)
    assert found.pending
    next(found)
    assert not found.pending
    next(found)
    assert not found.pending
    next(found)
    assert found.pending  # the end is in hand


@pytest.mark.parametrize("rest", [[], [b'{"message":{"con'], [b"\n\n"]])
def test_f8_f27_an_end_before_done_is_a_failure(rest: list[bytes]) -> None:
    found = stream([*encoded(line("a")), *rest])
    next(found)
    with pytest.raises(APIError) as raised:
        next(found)
    assert (raised.value.status, raised.value.code, raised.value.retry) == (502, "upstream_error", False)


@pytest.mark.parametrize("bad", [b"garbage\n", b"[]\n", b"1\n", b"null\n", b"{}{}\n", b"{}\n", b'{"message":null}\n'])
def test_f30_f31_f37_what_is_no_message_is_a_failure(bad: bytes) -> None:
    found = stream([*encoded(line("a")), bad, *encoded(END)])
    next(found)
    with pytest.raises(APIError) as raised:
        next(found)
    assert raised.value.code == "upstream_error"
    assert "garbage" not in raised.value.message


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("x" * 600, "x" * 500),
        ({"message": "m"}, "m"),
        ('{"error":{"message":"inner","code":500}}', "inner"),
        (7, "The backend failed and did not say why."),
        (None, "The backend failed and did not say why."),
        ("", "The backend failed and did not say why."),
    ],
)
def test_f33_f34_an_error_line_is_a_failure_with_its_text(error: Any, text: str) -> None:
    with pytest.raises(APIError) as raised:
        stream(encoded({"error": error}))
    assert (raised.value.status, raised.value.message) == (502, text)


def test_an_error_of_null_beside_an_answer_is_none() -> None:
    assert contents(stream(encoded({**line("a"), "error": None}, END))) == ["a", None]


def test_f29_a_line_over_the_limit_is_a_failure() -> None:
    with pytest.raises(APIError, match="too long"):
        stream(encoded(line("x" * 1000)))


@pytest.mark.parametrize("content_type", ["application/json", "text/html", ""])
def test_f16_one_document_over_several_lines_is_an_answer(content_type: str) -> None:
    text = json.dumps({**line("a"), **END}, indent=2).encode()
    assert contents(stream([text[:20], text[20:]], content_type)) == ["a"]


def test_f15_html_is_a_failure_that_shows_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(APIError) as raised:
        stream([b"<html>\n<b>secret</b>\n</html>" + b"x" * 300], "text/html")
    assert raised.value.status == 502
    assert "html" not in raised.value.message
    assert len(caplog.messages[0]) < 300


def test_one_document_is_bounded_too() -> None:
    with pytest.raises(APIError, match="too long"):
        stream([b"{\n", *[b'"a":1,\n'] * 1000], "application/json")


def test_a_failure_of_the_first_message_closes_the_native_side() -> None:
    closed = []

    class Items(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    with pytest.raises(APIError):
        stream(Items([b'{"error":"x"}\n']))
    assert closed == [True]


def test_blank_lines_without_end_are_a_failure() -> None:
    def items() -> Any:
        yield from encoded(line("a"))
        while True:
            yield b"\n" * 100

    found = stream(items())
    next(found)
    with pytest.raises(APIError, match="blank lines"):
        next(found)


def test_an_empty_error_beside_an_answer_is_none() -> None:
    assert contents(stream(encoded({**line("a"), "error": ""}, END))) == ["a", None]
