"""Log-probabilities, and which text they belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.native.types import AnswerMessage, ChatResponse, Logprob, TokenLogprob, ToolCall, ToolCallFunction
from openai_compat.translate.logprobs import ContentLogprobs, to_logprobs
from openai_compat.wire.json import encode


def test_bytes_and_top_logprobs_are_always_there() -> None:
    found = json.loads(
        encode(to_logprobs([Logprob("é", -0.5, None, [TokenLogprob("e", -1.0, [1])]), Logprob("x", None)]))
    )
    assert found == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": [1]}],
            },
            {"token": "x", "logprob": -9999.0, "bytes": [120], "top_logprobs": []},
        ],
        "refusal": None,
    }


def line(token: str = "", **fields: Any) -> ChatResponse:
    done = fields.pop("done", False)
    return ChatResponse(message=AnswerMessage(**fields), done=done, logprobs=[Logprob(token, -1.0)] if token else None)


def reported(content_logprobs: ContentLogprobs, one: ChatResponse) -> list[Logprob]:
    message = one.message or AnswerMessage()
    return content_logprobs.of(one, message.content or "", message.thinking or "", calls=bool(message.tool_calls))


CALL = [ToolCall(ToolCallFunction("f"))]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line("a", content="a"), line("b", content="b")], ["a", "b"]),
        ([line("\xf0"), line("\x9f", content="🦜")], ["", "\xf0\x9f"]),
        ([line("<t>"), line("a", thinking="a"), line("</t>"), line("b", content="b")], ["", "", "", "b"]),
        ([line("a", thinking="a"), line("</t>"), line("x"), line("y", content="xy")], ["", "", "", "xy"]),
        ([line("a", thinking="a"), line("b", content="b"), line("c"), line("d", content="d")], ["", "b", "", "cd"]),
        ([line("<t>"), line("a", thinking="a"), line("", done=True)], ["", "", ""]),
        ([line("a", content="a"), line("", done=True)], ["a", ""]),
        ([line("a", content="a"), line("end"), line("", done=True)], ["a", "", "end"]),
        ([line("a", content="a"), line("{"), line("}", tool_calls=CALL), line("", done=True)], ["a", "", "", ""]),
        ([line("a"), line("b", tool_calls=CALL), line("c", done=True)], ["", "", ""]),
    ],
)
def test_what_belongs_to_no_content_is_not_told(lines: list[ChatResponse], expected: list[str]) -> None:
    content_logprobs = ContentLogprobs()
    assert ["".join(entry.token for entry in reported(content_logprobs, one)) for one in lines] == expected


def test_all_that_one_line_brings_is_told() -> None:
    whole = ChatResponse(message=AnswerMessage("x" * 1500), done=True, logprobs=[Logprob("x", -1.0)] * 1500)
    assert len(reported(ContentLogprobs(), whole)) == 1500


def test_f40_what_waits_for_text_is_bounded() -> None:
    content_logprobs = ContentLogprobs()
    for _ in range(3000):
        assert reported(content_logprobs, line("x")) == []
    assert len(reported(content_logprobs, line("y", content="y"))) == 1001
