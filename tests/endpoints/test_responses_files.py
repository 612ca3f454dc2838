"""Files and images in the items of a response, in the same forms as in a chat, wherever an item has content."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check
from tests.translate.pdfs import pages

PDF = base64.b64encode(pages("Dummy PDF file")).decode()
PNG = "iVBORw0KGgo="
SHOWN = '\n<file name="a.txt">\nnotes\n</file>\n'


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def output(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    return [call, {"type": "function_call_output", "call_id": "c", "output": list(parts)}]


def custom_output(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    call = {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}
    return [call, {"type": "custom_tool_call_output", "call_id": "c", "output": list(parts)}]


PLACES = pytest.mark.parametrize("items", [user, output, custom_output])
STREAM = pytest.mark.parametrize("stream", [False, True])


def post(fake: FakeOllama, items: list[dict[str, Any]], *, stream: bool, **settings: Any) -> TestResponse:
    fake.script("/api/chat", say("ok"), done())
    body = {"model": "demo", "input": items, "stream": stream}
    return Client(OpenAICompat(fake, **settings)).post("/v1/responses", json=body)


def sent(items: list[dict[str, Any]], *, stream: bool) -> dict[str, Any]:
    fake = FakeOllama()
    response = post(fake, items, stream=stream)
    assert response.status_code == 200, response.data
    assert response.data
    return fake.requests[0].json["messages"][-1]  # type: ignore[no-any-return]


@STREAM
@PLACES
@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"filename": "a.txt", "file_data": "data:text/plain;base64,bm90ZXM="}, SHOWN),
        ({"filename": "a.txt", "file_data": "bm90ZXM="}, SHOWN),
        ({"filename": "a.csv", "file_data": "data:text/csv,a%2Cb"}, '\n<file name="a.csv">\na,b\n</file>\n'),
    ],
)
def test_a_text_is_put_into_the_prompt(items: Any, part: dict[str, Any], shown: str, stream: bool) -> None:
    parts = ({"type": "input_text", "text": "See:"}, {"type": "input_file", **part})
    assert sent(items(*parts), stream=stream)["content"] == "See:" + shown


@STREAM
@PLACES
def test_a_pdf_is_read(items: Any, stream: bool) -> None:
    pytest.importorskip("pypdf", reason="the extra pdf is not installed")
    for data in (PDF, f"data:application/pdf;base64,{PDF}"):
        part = {"type": "input_file", "filename": "a.pdf", "file_data": data}
        assert "Dummy PDF file" in sent(items(part), stream=stream)["content"]


@STREAM
@PLACES
def test_images_go_beside_the_text(items: Any, stream: bool) -> None:
    parts = (
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": {"url": PNG}},
        {"type": "input_file", "filename": "a.png", "file_data": f"data:image/png;base64,{PNG}"},
    )
    message = sent(items(*parts), stream=stream)
    assert (message["content"], message["images"]) == ("See", [PNG] * 3)


@STREAM
@PLACES
@pytest.mark.parametrize(
    ("part", "field", "code"),
    [
        ({"type": "input_file", "file_id": "file-1"}, "file_id", "unsupported_parameter"),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "file_url", "unsupported_parameter"),
        ({"type": "input_file", "file_data": "data:application/zip;base64,UEsDBA=="}, "file_data", "invalid_value"),
        ({"type": "input_image", "file_id": "file-1"}, "file_id", "unsupported_parameter"),
        ({"type": "input_image", "image_url": "https://example.com/a.png"}, "image_url", "invalid_image_url"),
        ({"type": "input_image", "image_url": "data:image/png;base64,!"}, "image_url", "invalid_image_url"),
    ],
)
def test_what_cannot_be_read_is_a_400(items: Any, part: dict[str, Any], field: str, code: str, stream: bool) -> None:
    fake = FakeOllama()
    response = post(fake, items(part), stream=stream)
    assert response.status_code == 400, response.data
    check("ErrorResponse", response.get_json())
    error = response.get_json()["error"]
    path = "input[0].content[0]" if items is user else "input[1].output[0]"
    assert (error["param"], error["code"]) == (f"{path}.{field}", code)
    assert fake.requests == []


@STREAM
@pytest.mark.parametrize(
    ("part", "field"),
    [({"type": "input_file", "filename": "a.txt"}, "file_data"), ({"type": "input_image"}, "image_url")],
)
def test_a_part_without_a_value_is_a_400_of_the_user_and_a_value_of_a_tool(
    part: dict[str, Any], field: str, stream: bool
) -> None:
    error = post(FakeOllama(), user(part), stream=stream).get_json()["error"]
    assert (error["param"], error["code"]) == (f"input[0].content[0].{field}", "missing_required_parameter")
    for items in (output(part), custom_output(part)):
        assert sent(items, stream=stream)["content"] == json.dumps([part])


@STREAM
def test_what_has_no_effect_is_listed(stream: bool) -> None:
    parts = (
        {"type": "input_file", "filename": "a.txt", "file_data": "data:,x", "detail": "high", "file_id": "file-1"},
        {"type": "input_image", "image_url": PNG, "detail": "high", "file_id": "file-2"},
        {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
    )
    response = post(FakeOllama(), user(*parts), stream=stream)
    assert response.headers["openai-compat-ignored"].split(", ") == [
        "input[].content[].detail",
        "input[].content[].file_id",
        "input[].content[].prompt_cache_breakpoint",
    ]
