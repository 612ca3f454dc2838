"""Transcriptions: a form with a recording in, what is said in it out."""

from __future__ import annotations

import base64
import struct
import sys
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say
from tests.contract import check, frames
from tests.harness import call, compat
from tests.servers import live

RECORDING = b"RIFF\x24\x00\x00\x00WAVEfmt \r\n--\x00\xff" * 9
HEARD = [say(" Hello"), say(" world.\n"), done(prompt=30, made=4)]


def part(disposition: str, data: bytes, *more: str) -> bytes:
    """A part of a form; the boundary is ``B``."""
    head = "\r\n".join([f"Content-Disposition: form-data{disposition}", *more])
    return b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


MODEL = part('; name="model"', b"demo")
FILE = part('; name="file"; filename="speech.wav"', RECORDING, "Content-Type: audio/wav")
#: more than what a form's parser keeps in memory
LARGE = part('; name="file"; filename="speech.wav"', b"R" * 600_000)
END = b"--B--\r\n"
MULTIPART = "multipart/form-data; boundary=B"


def post(
    fake: FakeOllama, settings: dict[str, Any] | None = None, *, file: bytes | None = RECORDING, **fields: Any
) -> TestResponse:
    form = {key: value for key, value in {"model": "demo", **fields}.items() if value is not None}
    parts = [part(f'; name="{key}"', value.encode()) for key, value in form.items()]
    if file is not None:
        parts.append(part('; name="file"; filename="speech.wav"', file))
    client = Client(OpenAICompat(fake, **(settings or {})))
    return client.post("/v1/audio/transcriptions", data=b"".join([*parts, END]), content_type=MULTIPART)


def sent(settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The native request."""
    fake = FakeOllama()
    fake.script("/api/chat", *HEARD)
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    [request] = fake.requests
    return request.json  # type: ignore[no-any-return]


def answered(*steps: Any, settings: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
    fake = FakeOllama()
    fake.script("/api/chat", *steps)
    response = post(fake, settings, **fields)
    assert response.status_code == 200, response.data
    return response


def refused(**fields: Any) -> dict[str, Any]:
    fake = FakeOllama()
    return assert_refused(post(fake, **fields), fake)


def assert_refused(response: TestResponse, fake: FakeOllama) -> dict[str, Any]:
    assert response.status_code == 400, response.data
    assert fake.requests == []
    check("ErrorResponse", response.get_json())
    return response.get_json()["error"]  # type: ignore[no-any-return]


def ignored(**fields: Any) -> set[str]:
    found = answered(*HEARD, **fields).headers.get("openai-compat-ignored", "")
    return set(filter(None, found.split(", ")))


# -- what is sent -----------------------------------------------------------------------------


def test_the_recording_goes_to_a_model_that_hears() -> None:
    found = sent()
    system, user = found.pop("messages")
    assert found == {"model": "demo", "options": {"temperature": 0}, "stream": True, "truncate": False}
    assert system["role"] == "system"
    assert "word for word" in system["content"]
    assert user["role"] == "user"
    assert [base64.b64decode(image, validate=True) for image in user["images"]] == [RECORDING]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"language": "de"}, "de."), ({"prompt": "Zürich, Käse"}, "Zürich, Käse"), ({"language": ""}, None), ({}, None)],
)
def test_language_and_prompt_are_said_to_the_model(fields: dict[str, Any], expected: str | None) -> None:
    plain, found = (request["messages"][0]["content"] for request in (sent(), sent(**fields)))
    assert found.startswith(plain)
    assert found.endswith(expected or plain)


@pytest.mark.parametrize(("given", "expected"), [(None, 0), ("", 0), ("0", 0), ("0.5", 0.5), ("1", 1)])
def test_the_temperature_is_sent_and_is_0_where_none_is_given(given: str | None, expected: float) -> None:
    assert sent(temperature=given)["options"] == {"temperature": expected}


def test_the_settings_of_a_model_and_its_alias_reach_the_request() -> None:
    models = {"demo": {"options": {"num_ctx": 99, "temperature": 0.7}, "keep_alive": "1h"}}
    found = sent({"aliases": {"whisper-*": "demo"}, "models": models, "overflow": "truncate"}, model="whisper-1")
    assert (found["model"], found["keep_alive"]) == ("demo", "1h")
    assert found["options"] == {"num_ctx": 99, "temperature": 0.7}
    assert "truncate" not in found


# -- what is wrong with a form ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"file": None}, "file", "missing_required_parameter"),
        ({"file": b""}, "file", "invalid_value"),
        ({"response_format": "srt"}, "response_format", "invalid_value"),
        ({"response_format": "vtt"}, "response_format", "invalid_value"),
        ({"response_format": "VTT", "timestamp_granularities[]": "word"}, "response_format", "invalid_value"),
        ({"response_format": "diarized_json", "stream": "true"}, "response_format", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": "nan"}, "temperature", "invalid_type"),
        ({"temperature": "inf"}, "temperature", "invalid_type"),
        ({"temperature": "1.1"}, "temperature", "decimal_above_max_value"),
        ({"temperature": "-0.1"}, "temperature", "decimal_below_min_value"),
        ({"stream": "maybe"}, "stream", "invalid_type"),
        ({"prompt": "a\0b"}, "prompt", "invalid_value"),
        ({"language": "\0"}, "language", "invalid_value"),
    ],
)
def test_f59_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error["param"], error["code"]) == (param, code)


def send(fake: FakeOllama, body: bytes, content_type: str = MULTIPART) -> TestResponse:
    fake.script("/api/chat", *HEARD)
    return Client(OpenAICompat(fake)).post("/v1/audio/transcriptions", data=body, content_type=content_type)


#: bytes that are no text, and more than a field may have
BYTES = bytes(range(256)) * 2000 + b"\r\n--boundary\r\n"


@pytest.mark.parametrize("file", [RECORDING, BYTES], ids=["short", "long"])
@pytest.mark.parametrize("name", ["file", "file[]", "file[0]"])
@pytest.mark.parametrize("filename", ["", '; filename="a.wav"', '; filename=""', "; filename=a.wav; x=y"])
@pytest.mark.parametrize("more", [(), ("Content-Type: text/plain; charset=ascii",)], ids=["untyped", "typed"])
def test_a_file_has_a_filename_or_none(name: str, filename: str, file: bytes, more: tuple[str, ...]) -> None:
    fake = FakeOllama()
    assert send(fake, MODEL + part(f'; name="{name}"{filename}', file, *more) + END).status_code == 200
    [image] = fake.requests[0].json["messages"][1]["images"]
    assert base64.b64decode(image) == file


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_files_the_one_with_a_filename_counts(is_first: bool) -> None:
    fake = FakeOllama()
    parts = [FILE, part('; name="file"', b"other")]
    assert send(fake, MODEL + b"".join(parts if is_first else parts[::-1]) + END).status_code == 200
    [image] = fake.requests[0].json["messages"][1]["images"]
    assert base64.b64decode(image) == RECORDING


def test_an_empty_file_without_a_filename_is_refused() -> None:
    fake = FakeOllama()
    error = assert_refused(send(fake, MODEL + part('; name="file"', b"") + END), fake)
    assert (error["param"], error["message"]) == ("file", "audio file is empty")


def test_other_files_do_not_stand_for_fields() -> None:
    fake = FakeOllama()
    error = assert_refused(send(fake, part('; name="model"; filename="m"', b"demo") + FILE + END), fake)
    assert error["param"] == "model"


@pytest.mark.parametrize("charset", ["iso-8859-1", "ISO-8859-1"])
def test_text_may_have_another_encoding(charset: str) -> None:
    fake = FakeOllama()
    field = part('; name="prompt"', b"caf\xe9", f"Content-Type: text/plain; charset={charset}")
    assert send(fake, MODEL + FILE + field + END).status_code == 200
    assert fake.requests[0].json["messages"][0]["content"].endswith("café")


NULLS = ["null", "None", "NULL", "none", "undefined", " null ", "", " ", "\t"]


@pytest.mark.parametrize("text", [*NULLS, "auto", "AUTO", " Auto "])
def test_empty_means_not_set_a_language_that_is_none(text: str) -> None:
    assert sent(language=text) == sent()
    assert answered(*HEARD, language=text, response_format="verbose_json").get_json()["language"] == "unknown"


@pytest.mark.parametrize("text", NULLS)
@pytest.mark.parametrize(
    "field", ["prompt", "temperature", "response_format", "stream", "include[]", "foo", "keywords"]
)
def test_empty_means_not_set_any_field_of_a_form(field: str, text: str) -> None:
    assert sent(**{field: text}) == sent()
    response = answered(*HEARD, **{field: text})
    assert response.get_json()["text"] == "Hello world."
    assert "openai-compat-ignored" not in response.headers


BLANKS = ["{} ", " {}", "\t{}\r\n", "\n{}"]


@pytest.mark.parametrize("blanks", BLANKS)
def test_blanks_around_a_value_mean_nothing(blanks: str) -> None:
    fields = {"model": "demo", "language": "de", "temperature": "0.2", "stream": "True", "response_format": "json"}
    assert sent(**{name: blanks.format(value) for name, value in fields.items()}) == sent(**fields)
    assert answered(*HEARD, stream=blanks.format("True")).content_type.startswith("text/event-stream")
    assert answered(*HEARD, response_format=blanks.format("text")).content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize("blanks", BLANKS)
def test_blanks_of_a_prompt_and_a_file_stay(blanks: str) -> None:
    found = sent(prompt=blanks.format("Ocean."), file=blanks.format("audio").encode())["messages"]
    assert found[0]["content"].endswith(": " + blanks.format("Ocean."))
    assert base64.b64decode(found[1]["images"][0]) == blanks.format("audio").encode()


def test_a_field_that_is_null_and_given_is_given() -> None:
    fake = FakeOllama()
    fields = part('; name="language"', b"null") + part('; name="language"', b" de ")
    assert send(fake, MODEL + FILE + fields + END).status_code == 200
    assert fake.requests[0].json["messages"][0]["content"].endswith(" de.")


@pytest.mark.parametrize("name", ["none", "null", "auto"])
def test_a_model_may_have_any_name(name: str) -> None:
    assert sent(model=name)["model"] == name


def test_a_long_recording_arrives_whole() -> None:
    file = bytes(range(256)) * 4000 + b"\r\n--boundary\r\n" * 1000
    fake = FakeOllama()
    assert send(fake, MODEL + part('; name="file"; filename="a.wav"', file) + END).status_code == 200
    [image] = fake.requests[0].json["messages"][1]["images"]
    assert base64.b64decode(image) == file


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=B",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="é"',
    ],
)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    fake = FakeOllama()
    error = assert_refused(send(fake, MODEL + FILE + END, content_type), fake)
    assert error["message"].startswith("failed to parse multipart form")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        MODEL,
        MODEL + FILE,
        (MODEL + FILE + END)[:-30],
        MODEL + FILE[:40],
        MODEL + LARGE,
        MODEL + b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END,
        MODEL + b"--B\r\nno header at all\r\n\r\nx\r\n" + END,
        MODEL.replace(b"--B", b"--C") + FILE.replace(b"--B", b"--C") + b"--C--\r\n",
    ],
)
def test_a_broken_form_is_refused(body: bytes) -> None:
    fake = FakeOllama()
    assert_refused(send(fake, body), fake)


@pytest.mark.parametrize(
    ("content_type", "length", "expected"),
    [
        ("multipart/form-data; boundary={}", 70, 200),
        ('multipart/form-data; charset=utf-8; boundary="{}"', 70, 200),
        ("Multipart/Form-Data; Boundary={}", 70, 200),
        ("multipart/form-data; boundary={}", 71, 400),
        ("multipart/form-data; boundary={}", 10_000, 400),
    ],
)
def test_a_boundary_may_have_70_characters(content_type: str, length: int, expected: int) -> None:
    boundary = "B" * length
    body = (MODEL + FILE + END).replace(b"--B", b"--" + boundary.encode())
    assert send(FakeOllama(), body, content_type.format(boundary)).status_code == expected


@pytest.mark.parametrize("file", [FILE, LARGE], ids=["in memory", "on disk"])
def test_f60_parts_are_limited(file: bytes) -> None:
    more = part('; name="more"', b"x")
    assert send(FakeOllama(), MODEL + file + more * 62 + END).status_code == 200
    fake = FakeOllama()
    assert "more than 64 parts" in assert_refused(send(fake, MODEL + file + more * 63 + END), fake)["message"]


@pytest.mark.parametrize("file", [FILE, LARGE], ids=["in memory", "on disk"])
def test_f60_fields_are_limited(file: bytes) -> None:
    most = 256 * 1024
    assert send(FakeOllama(), MODEL + file + part('; name="prompt"', b"x" * most) + END).status_code == 200
    fake = FakeOllama()
    error = assert_refused(send(fake, MODEL + file + part('; name="prompt"', b"x" * (most + 1)) + END), fake)
    assert f"more than {most} bytes" in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        MODEL + LARGE + LARGE + END,
        MODEL + LARGE + LARGE.replace(b'"file"', b'"other"') + END,
        MODEL + LARGE + part('; name="temperature"', b"hot") + END,
        LARGE + END,
    ],
    ids=["twice", "another", "a wrong field", "no model"],
)
def test_files_that_went_to_disk_are_closed_whatever_comes(body: bytes) -> None:
    """A warning would fail the test."""
    assert send(FakeOllama(), body).status_code in (200, 400)


@pytest.mark.parametrize("disposition", ["", '; filename="a.wav"', '; name=""'])
def test_a_part_without_a_name_is_no_defect(disposition: str) -> None:
    assert send(FakeOllama(), MODEL + FILE + part(disposition, b"x") + END).status_code in (200, 400)


@pytest.mark.slow
def test_names_of_brackets_are_soon_read() -> None:
    """In time that grows with the square of their length, this test would not end before its limit."""
    many = b"".join(part(f'; name="{"[" * 150_000}{i}"', b"x") for i in range(20))
    assert send(FakeOllama(), MODEL + FILE + many + END).status_code in (200, 400)


def test_text_that_is_no_utf_8_is_replaced() -> None:
    fake = FakeOllama()
    assert send(fake, MODEL + FILE + part('; name="prompt"', b"caf\xe9") + END).status_code == 200
    assert fake.requests[0].json["messages"][0]["content"].endswith("caf\ufffd")


def test_of_a_field_that_stands_twice_the_first_counts() -> None:
    fake = FakeOllama()
    assert send(fake, MODEL + FILE + part('; name="model"', b"other") + END).status_code == 200
    assert fake.requests[0].json["model"] == "demo"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"foo": "x", "bar": "", "stream": "false"}, {"foo"}),
        ({"include[]": "logprobs", "chunking_strategy": "auto"}, {"include", "chunking_strategy"}),
        ({"timestamp_granularities[]": "word"}, {"timestamp_granularities"}),
        ({"timestamp_granularities": "segment"}, {"timestamp_granularities"}),
        ({"timestamp_granularities[0]": "word", "timestamp_granularities[1]": "x"}, {"timestamp_granularities"}),
        ({"known_speaker_names[]": "Ann"}, {"known_speaker_names"}),
        ({"known_speaker_references[]": "data:audio/wav;base64,"}, {"known_speaker_references"}),
        ({"languages[]": "de", "keywords[]": "x"}, {"languages", "keywords"}),
        ({"stream": "true", "response_format": "text"}, {"response_format"}),
        ({"stream": "true", "response_format": "verbose_json"}, {"response_format"}),
        ({"stream": "true", "response_format": "json"}, set()),
        ({"stream": "true", "response_format": "null"}, set()),
        ({"stream": "true"}, set()),
        ({"stream": "false", "response_format": "text"}, set()),
    ],
)
def test_rule_1_what_has_no_effect_is_listed(fields: dict[str, Any], expected: set[str]) -> None:
    assert ignored(**fields) == expected


def test_another_file_is_listed() -> None:
    response = send(FakeOllama(), MODEL + FILE + FILE.replace(b'"file"', b'"other"') + END)
    assert response.headers["openai-compat-ignored"] == "other"


# -- the answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "", None])
def test_an_answer_in_json(format: str | None) -> None:
    response = answered(*HEARD, response_format=format)
    assert response.content_type == "application/json"
    check("CreateTranscriptionResponseJson", response.get_json())
    assert response.get_json() == {
        "text": "Hello world.",
        "usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 4, "total_tokens": 34},
    }


def test_an_answer_in_text() -> None:
    response = answered(say(" Grüße,\n"), say("Welt. "), done(), response_format="text")
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.data == "Grüße,\nWelt.".encode()


#: 1.5 s of silence, as floats
WAV = b"RIFF" + struct.pack("<I", 36 + 96000) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
WAV += b"data" + struct.pack("<I", 96000) + bytes(96000)


@pytest.mark.parametrize("language", ["de", "german", "pt-BR"])
def test_a_verbose_answer(language: str) -> None:
    response = answered(*HEARD, response_format="verbose_json", file=WAV, language=language)
    assert response.content_type == "application/json"
    check("CreateTranscriptionResponseVerboseJson", response.get_json())
    expected = {"task": "transcribe", "language": language, "duration": 1.5, "text": "Hello world.", "segments": []}
    assert response.get_json() == expected
    assert "openai-compat-ignored" not in response.headers


@pytest.mark.parametrize("granularities", [{}, {"timestamp_granularities[]": "word"}])
@pytest.mark.parametrize("file", [RECORDING, b"no audio", b"\x1aE\xdf\xa3 webm", b"\xff" * 100_000], ids=len)
def test_a_verbose_answer_to_a_file_of_unknown_duration(file: bytes, granularities: dict[str, Any]) -> None:
    response = answered(*HEARD, response_format="verbose_json", file=file, **granularities)
    check("CreateTranscriptionResponseVerboseJson", response.get_json())
    assert b'"duration":0.0' in response.data
    listed = response.headers["openai-compat-ignored"].split(", ")
    assert listed == ["duration", *(["timestamp_granularities"] if granularities else [])]


def test_a_verbose_answer_has_the_duration_that_tinytag_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = struct.pack(">Q", 16000 << 44 | 15 << 36 | 40000)
    flac = b"fLaC\x80\0\0\x22" + bytes(10) + samples + bytes(16)
    response = answered(*HEARD, response_format="verbose_json", file=flac)
    assert response.get_json()["duration"] == 2.5
    assert "openai-compat-ignored" not in response.headers
    monkeypatch.setitem(sys.modules, "tinytag", None)
    response = answered(*HEARD, response_format="verbose_json", file=flac)
    assert response.get_json()["duration"] == 0.0
    assert response.headers["openai-compat-ignored"] == "duration"


@pytest.mark.parametrize("format", ["json", "text", None])
def test_other_answers_have_no_duration_to_list(format: str | None) -> None:
    assert "openai-compat-ignored" not in answered(*HEARD, response_format=format).headers


@pytest.mark.server
def test_a_verbose_answer_to_the_official_client() -> None:
    openai = pytest.importorskip("openai")
    fake = FakeOllama()
    fake.script("/api/chat", *HEARD)
    with live(OpenAICompat(fake)) as url, openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as api:
        found = api.audio.transcriptions.create(
            model="demo",
            file=("a.wav", WAV),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert (found.text, found.duration, found.language, found.segments) == ("Hello world.", 1.5, "unknown", [])
    assert type(found).__name__ == "TranscriptionVerbose"


@pytest.mark.parametrize("format", ["json", "text"])
def test_thinking_is_not_heard(format: str) -> None:
    steps = [say(thinking="Who speaks?"), say("Hello."), done()]
    assert b"Who" not in answered(*steps, response_format=format).data
    assert b"Who" not in answered(*steps, stream="true").data


def test_the_length_of_what_was_said_is_that_of_the_answer() -> None:
    assert answered(say("é" * 1000), done(), response_format="text").headers["Content-Length"] == "2000"


def test_nothing_said_is_an_empty_text() -> None:
    assert answered(done()).get_json()["text"] == ""


# -- events -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["true", "True", "1"])
@pytest.mark.parametrize("cut", [None, 1, 7, 4096])
@pytest.mark.parametrize("format", ["text", "verbose_json"])
def test_a_stream_has_its_text_as_deltas_and_then_whole(stream: str, cut: int | None, format: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say(" "), *HEARD[:1], say(), *HEARD[1:], cut=cut)
    response = post(fake, stream=stream, response_format=format, foo="x")
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert response.headers["openai-compat-ignored"] == "foo, response_format"
    assert list(frames(response.data)) == [
        {"type": "transcript.text.delta", "delta": "Hello"},
        {"type": "transcript.text.delta", "delta": " world.\n"},
        {
            "type": "transcript.text.done",
            "text": "Hello world.",
            "usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 4, "total_tokens": 34},
        },
    ]
    response.close()
    assert fake.opened == fake.closed == 1


def test_what_the_last_line_says_is_heard_too() -> None:
    first, last = frames(answered({**done(), **say("All."), "done": True}, stream="true").data)
    assert (first["delta"], last["text"]) == ("All.", "All.")


@pytest.mark.parametrize("last", [[{"error": "boom"}], []], ids=["an error line", "no end"])
def test_a_failure_in_mid_stream_is_the_last_event(last: list[Any]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("Hello"), *last)
    response = post(fake, stream="true")
    delta, failure = frames(response.data)
    response.close()
    assert delta["delta"] == "Hello"
    check("ErrorResponse", failure)
    assert fake.closed == 1


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [None, "true"])
def test_an_unknown_model_is_404(stream: str | None) -> None:
    response = post(FakeOllama(), {"aliases": {"whisper-1": "nobody"}}, model="whisper-1", stream=stream)
    check("ErrorResponse", response.get_json())
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
    assert "`whisper-1`" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("Multimodal data provided, but model does not support multimodal requests.", "file"),
        ("this model is missing data required for image input", "file"),
        ("request (9000 tokens) exceeds the available context size (512 tokens)", "file"),
        ('"demo-embed" does not support chat', "model"),
    ],
)
def test_a_failure_names_a_field_of_the_form(text: str, param: str) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": text}, status="400 Bad Request")
    response = post(fake)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


def test_a_failure_after_tokens_is_not_worth_repeating() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("x"))
    response = post(fake)
    assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
    assert fake.closed == 1


@pytest.mark.parametrize("stream", [None, "true"])
def test_an_end_without_output_reason_or_counts_is_no_answer(stream: str | None) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"message": {"role": "assistant", "content": ""}, "done": True})
    response = post(fake, stream=stream)
    assert response.status_code == 502 or b"answered nothing" in response.data


def test_f40_a_collected_answer_is_bounded() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", *[say("x" * 100)] * 50, done())
    assert post(fake, {"max_answer": 2000}).status_code == 502
    assert fake.closed == 1


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_native_sides_are_closed_once_by_the_rules_of_wsgi(stream: bytes) -> None:
    app, inner = compat(FakeOllama())
    body = MODEL + FILE + part('; name="stream"', stream) + END
    found = call(app, "POST", "/v1/audio/transcriptions", body=body, CONTENT_TYPE=MULTIPART)
    assert found.status == 200
    assert b"You sent 1 image(s)." in found.body.replace(b'"}\n\ndata: {"type":"transcript.text.delta","delta":"', b"")
    assert inner.calls == inner.closes == 1


def test_a_model_that_cannot_think_is_asked_again_without() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": '"demo" does not support thinking'}, status="400 Bad Request")
    fake.script("/api/chat", say("hi"), done())
    response = post(fake, {"models": {"demo": {"think": True}}})
    assert (response.status_code, response.get_json()["text"]) == (200, "hi")
    assert "openai-compat-ignored" not in response.headers


@pytest.mark.parametrize("temperature", ["0000000001", "0." + "1" * 19, "." + "1" * 19, "1e100", "0" * 5000])
def test_a_temperature_of_many_digits_is_no_number(temperature: str) -> None:
    error = refused(temperature=temperature)
    assert (error["param"], error["code"]) == ("temperature", "invalid_type")
