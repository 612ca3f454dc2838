"""Files in chats: in the prompt under their names, refused by the name of their field, fetched where it is allowed."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import partial
from threading import Event
from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say
from openai_compat.transport.images import Fetcher
from tests.chaos import WAIT
from tests.contract import check_stream
from tests.endpoints.requests import post, refused, sent
from tests.servers import live
from tests.translate.pdfs import pages

PDF = "data:application/pdf;base64," + base64.b64encode(pages("Dummy PDF file")).decode()
FIELD = "messages[0].content[1].file"


def file_message(**file: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "file", "file": file}]}]


def notes(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"notes"]


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the rule that the server of a test, which is on loopback, is not reached."""
    monkeypatch.setattr("openai_compat.transport.images.Fetcher", partial(Fetcher, allowed=lambda address: True))


@pytest.mark.parametrize("stream", [False, True])
def test_a_pdf_is_read_whether_the_answer_is_streamed_or_not(stream: bool) -> None:
    pytest.importorskip("pypdf", reason="the extra pdf is not installed")
    fake = FakeOllama()
    fake.script("/api/chat", say("A dummy."), done())
    response = post(fake, messages=file_message(file_data=PDF, filename="filename.pdf"), stream=stream)
    assert response.status_code == 200
    if stream:
        check_stream(response.data)
    [message] = fake.requests[0].json["messages"]
    assert message["content"] == 'What is it?\n<file name="filename.pdf">\nDummy PDF file\n</file>\n'


def test_what_a_file_has_beside_its_data_is_listed() -> None:
    fake = FakeOllama()
    messages = file_message(file_data="data:,x", filename="a.txt", file_id="file-1", format="text/plain")
    response = post(fake, messages=messages)
    names = {"messages[].content[].file.file_id", "messages[].content[].file.format"}
    assert set(response.headers["openai-compat-ignored"].split(", ")) == names


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("file", "param", "code"),
    [
        ({}, "file_data", "missing_required_parameter"),
        ({"file_id": "file-1"}, "file_id", "unsupported_parameter"),
        ({"file_url": "https://files.example/a.pdf"}, "file_url", "unsupported_parameter"),
        ({"file_data": "data:application/zip;base64,UEs="}, "file_data", "invalid_value"),
        ({"file_data": 1}, "file_data", "invalid_type"),
    ],
)
def test_a_file_that_cannot_be_read(file: dict[str, Any], param: str, code: str, stream: bool) -> None:
    error = refused(messages=file_message(**file), stream=stream)
    assert (error["param"], error["code"]) == (f"{FIELD}.{param}", code)


def test_an_unknown_type_of_part_names_those_that_are_known() -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "video_url"}]}])
    assert "'input_audio' and 'file'" in error["message"]


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"max_file": 4}, {"file_data": "data:,12345"}),
        ({"max_file_text": 4}, {"file_data": "data:,12345"}),
    ],
)
def test_the_limits_are_settings(settings: dict[str, Any], file: dict[str, Any]) -> None:
    error = refused(settings, messages=file_message(**file))
    [name] = settings
    assert name in error["message"]


def test_the_limits_are_of_a_request() -> None:
    text = {"type": "file", "file": {"file_data": "data:,12345"}}
    both = [{"role": "user", "content": [text]}, {"role": "user", "content": [text]}]
    assert refused({"max_files": 1}, messages=both)["param"] == "messages[1].content[0].file.file_data"
    assert sent(settings={"max_files": 2, "max_file_text": 10}, messages=both)


def test_pages_and_time_are_settings() -> None:
    pytest.importorskip("pypdf", reason="the extra pdf is not installed")
    two = "data:application/pdf;base64," + base64.b64encode(pages("a", "b")).decode()
    assert "max_pages" in refused({"max_pages": 1}, messages=file_message(file_data=two))["message"]
    assert "file_timeout" in refused({"file_timeout": 1e-9}, messages=file_message(file_data=two))["message"]


# -- by URL -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("anywhere")
def test_where_it_is_allowed_a_file_is_fetched() -> None:
    with live(notes) as url:
        message = sent(settings={"fetch_files": True}, messages=file_message(file_url=f"{url}/a.txt"))["messages"][0]
    assert message["content"] == 'What is it?\n<file name="a.txt">\nnotes\n</file>\n'


@pytest.mark.usefixtures("anywhere")
def test_files_are_not_fetched_where_only_images_are() -> None:
    with live(notes) as url:
        error = refused({"fetch_images": True}, messages=file_message(file_url=f"{url}/a.txt"))
    assert (error["param"], error["code"]) == (f"{FIELD}.file_url", "unsupported_parameter")
    assert "fetch_files" in error["message"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a", "http://localhost:1/a", "http://169.254.169.254/x", "http://[::1]:1/", "file:///etc"],
)
def test_a_private_address_is_not_asked(url: str) -> None:
    error = refused({"fetch_files": True}, messages=file_message(file_url=url))
    assert (error["param"], error["code"]) == (f"{FIELD}.file_url", "invalid_value")
    assert error["message"].startswith("The file could not be fetched.")


@pytest.mark.usefixtures("anywhere")
def test_a_fetched_file_has_the_limit_of_bytes() -> None:
    with live(notes) as url:
        settings = {"fetch_files": True, "max_file": 4}
        assert refused(settings, messages=file_message(file_url=f"{url}/a"))["code"] == "invalid_value"


@pytest.mark.usefixtures("anywhere")
def test_a_fetched_file_has_the_limit_of_time() -> None:
    refusal = Event()

    def late(environ: Any, start_response: Any) -> Iterable[bytes]:
        refusal.wait(WAIT)  # after which it is a file all the same
        return notes(environ, start_response)

    with live(late) as url:
        settings = {"fetch_files": True, "file_timeout": 0.2}
        assert refused(settings, messages=file_message(file_url=f"{url}/a"))["code"] == "invalid_value"
        refusal.set()
