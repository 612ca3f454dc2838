"""A remote Ollama that fails in every way there is, and what the client is told (F1–F35)."""

from __future__ import annotations

import gzip
import inspect
import json
import socket
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat, Settings, Upstream
from openai_compat.testing import done, say
from tests.chaos import CHUNKED, CLOSE, FIN, RST, SIZED, WAIT, Chaos, Step, answer, head, refusing
from tests.contract import frames
from tests.transport.gateways import (
    HELLO,
    ask,
    both,
    broken_off,
    failed,
    framings,
    gateway,
    line,
    streamed,
    text_of,
    texts,
    upstream,
)

pytestmark = pytest.mark.server

# -- it answers -------------------------------------------------------------------------------


@both
@framings
def test_an_answer_in_any_framing(server: Chaos, stream: bool, framing: str) -> None:
    server.script(*answer(*HELLO, framing=framing))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


def test_a_url_with_a_path(server: Chaos) -> None:
    server.script(*answer(*HELLO))
    assert text_of(ask(OpenAICompat(server.url + "/below/"))) == "Hello"
    assert server.requests[0].target == "/below/api/chat"


@both
@framings
def test_f26_a_last_line_without_newline_is_delivered(server: Chaos, stream: bool, framing: str) -> None:
    server.script(*answer(say("Hello"), line(done()).rstrip(), framing=framing))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


def test_f9_a_close_after_the_done_line_is_a_good_end(server: Chaos) -> None:
    server.script(*answer(*HELLO, FIN))  # the last chunk of the framing never comes
    response = ask(gateway(server), stream=True)
    assert text_of(response) == "Hello"
    assert response.data.endswith(b"data: [DONE]\n\n")


def test_f18_a_100_continue_is_passed_over(server: Chaos) -> None:
    server.script(b"HTTP/1.1 100 Continue\r\n\r\n", *answer(*HELLO))
    assert text_of(ask(gateway(server))) == "Hello"


# -- it cannot be reached, or is silent -------------------------------------------------------


@both
def test_f1_connection_refused(stream: bool) -> None:
    with refusing() as nowhere:
        response = ask(OpenAICompat(f"http://user:s3cret@{nowhere}"), stream=stream)
    assert failed(response, 502, "upstream_unreachable")["message"] == "The backend could not be reached."
    assert not any(part in response.get_data(as_text=True) for part in ("127.0.0.1", nowhere, "http", "s3cret"))


def test_f1_dns_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *rest: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}: Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no name server is asked
    response = ask(OpenAICompat("http://nothing.invalid:11434"))
    failed(response, 502, "upstream_unreachable")
    assert b"nothing.invalid" not in response.data


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue of connections drops new ones on Linux only")
def test_f2_a_connect_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        app = OpenAICompat(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.3)
        response = ask(app)
        for sock in waiting:
            sock.close()
    failed(response, 504, "upstream_timeout")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.slow
@both
def test_f3_silence_before_the_head(server: Chaos, stream: bool) -> None:
    server.script(b"")
    response = ask(gateway(server, head_timeout=0.3), stream=stream)
    failed(response, 504, "upstream_timeout")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.slow
@both
def test_f3_silence_before_the_first_line(server: Chaos, stream: bool) -> None:
    server.script(head(headers=[("Transfer-Encoding", "chunked")]))
    failed(ask(gateway(server, idle_timeout=0.3), stream=stream), 504, "upstream_timeout")


@pytest.mark.slow
@framings
def test_f6_silence_after_a_line(server: Chaos, framing: str) -> None:
    first, *lines = answer(*HELLO, framing=framing)
    server.script(first, lines[0])
    response = ask(gateway(server, idle_timeout=0.3), stream=True)
    assert response.status_code == 200
    assert broken_off(response.data, "upstream_timeout") == ["Hel"]


def test_f6_silence_after_a_line_of_a_collected_answer(server: Chaos) -> None:
    server.script(*answer(*HELLO)[:2])
    failed(ask(gateway(server, idle_timeout=0.3)), 504, "upstream_timeout")


def test_f6_a_silent_upstream_is_left(server: Chaos) -> None:
    server.script(*answer(*HELLO)[:2])
    assert broken_off(ask(gateway(server, idle_timeout=0.3), stream=True).data, "upstream_timeout") == ["Hel"]
    assert server.gone.get(timeout=WAIT) == 1


# -- it breaks off ----------------------------------------------------------------------------


def cut_in_second_line(framing: str, end: Step) -> list[Step]:
    """A whole line, and the next one up to its middle."""
    first, one, two, *_ = answer(*HELLO, framing=framing)
    assert isinstance(two, bytes)
    return [first, one, two[: len(two) // 2], end]


@pytest.mark.parametrize("end", [FIN, RST])
@framings
def test_f7_f8_f10_f27_only_whole_lines_are_delivered(server: Chaos, framing: str, end: Step) -> None:
    gate = Event()
    steps = cut_in_second_line(framing, end)
    server.script(*steps[:-2], gate, *steps[-2:])  # a reset may overtake what was not read yet
    with streamed(gateway(server)) as items:
        before = next(items)
        gate.set()
        assert broken_off(before + b"".join(items)) == ["Hel"]


@pytest.mark.parametrize("end", [FIN, RST])
@framings
def test_f7_f8_f10_f27_a_collected_answer_is_refused(server: Chaos, framing: str, end: Step) -> None:
    server.script(*cut_in_second_line(framing, end))
    failed(ask(gateway(server)))


@both
def test_f8_a_close_delimited_body_without_done(server: Chaos, stream: bool) -> None:
    server.script(*answer(say("Hel"), say("lo"), framing=CLOSE))
    response = ask(gateway(server), stream=stream)
    if stream:
        assert broken_off(response.data) == ["Hel", "lo"]
    else:
        failed(response)
        assert response.headers["x-should-retry"] == "false"  # tokens were made


@pytest.mark.parametrize("framing", [CHUNKED, SIZED])
def test_f8_a_sound_end_without_done(server: Chaos, framing: str) -> None:
    server.script(*answer(say("Hel"), framing=framing))
    assert broken_off(ask(gateway(server), stream=True).data) == ["Hel"]


@both
@pytest.mark.parametrize("end", [FIN, RST])
def test_f7_f10_an_end_before_the_first_line(server: Chaos, stream: bool, end: Step) -> None:
    server.script(head(headers=[("Transfer-Encoding", "chunked")]), end)
    failed(ask(gateway(server), stream=stream))


def whole_lines(sent: bytes, framing: str) -> list[dict[str, Any]]:
    """The native lines that are whole in what was sent of a body."""
    *lines, rest = sent.split(b"\n")
    if framing == CLOSE and rest.count(b"{") == rest.count(b"}"):
        lines.append(rest)  # where the framing tells no end, a whole line needs no newline (F26)
    return [json.loads(text) for text in lines if text.startswith(b"{")]


@framings
def test_f7_f8_cut_at_any_byte(server: Chaos, framing: str) -> None:
    pieces = [step for step in answer(*HELLO, framing=framing) if isinstance(step, bytes)]
    sent, app = b"".join(pieces), gateway(server)
    for size in range(0, len(sent), 7):
        server.script(sent[:size], FIN)
        response = ask(app, stream=True)
        lines = whole_lines(sent[len(pieces[0]) : size], framing)
        if not lines:
            failed(response)
        elif not lines[-1]["done"]:
            assert broken_off(response.data) == [text["message"]["content"] for text in lines]
        else:
            assert text_of(response) == "Hello"


@both
def test_f22_a_content_length_out_of_all_proportion(server: Chaos, stream: bool) -> None:
    server.script(*answer(say("Hel"), FIN, framing=SIZED, length=10**12))
    app = gateway(server)
    tracemalloc.start()
    response = ask(app, stream=stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert broken_off(response.data) == ["Hel"] if stream else failed(response)


# -- it answers with another status -----------------------------------------------------------

NOT_FOUND = "The model `demo` does not exist or you do not have access to it. model 'demo' not found"


@both
@pytest.mark.parametrize(
    ("native", "text", "status", "code", "message"),
    [
        (400, "invalid options", 400, None, "invalid options"),
        (404, "model 'demo' not found", 404, "model_not_found", NOT_FOUND),
        (429, "too many", 429, "rate_limit_exceeded", "too many"),
        (500, "runner died", 502, "upstream_error", "runner died"),
        (502, "bad gateway", 502, "upstream_error", "bad gateway"),
        (503, "server busy", 503, "overloaded", "server busy"),
        (504, "timed out", 504, "upstream_timeout", "timed out"),
    ],
)
def test_f12_f13_a_native_error(
    server: Chaos, stream: bool, native: int, text: str, status: int, code: str | None, message: str
) -> None:
    server.script(*answer({"error": text}, status=native, content_type="application/json"))
    response = ask(gateway(server), stream=stream)
    assert response.status_code == status
    error = response.get_json()["error"]
    assert (error["message"], error["code"]) == (message, code)


@pytest.mark.parametrize(
    ("native", "name", "value"),
    [
        (503, "Retry-After", "2"),
        (503, "x-should-retry", None),
        (500, "x-should-retry", "false"),
        (504, "x-should-retry", "false"),
        (502, "x-should-retry", None),
    ],
)
def test_f12_f13_retry_advice(server: Chaos, native: int, name: str, value: str | None) -> None:
    server.script(*answer({"error": "x"}, status=native))
    assert ask(gateway(server)).headers.get(name) == value


def test_f12_an_error_body_that_breaks_off(server: Chaos) -> None:
    server.script(*answer({"error": "x"}, status=404, framing=SIZED, length=100)[:2], FIN)
    failed(ask(gateway(server)))


@both
@pytest.mark.parametrize("status", [401, 403])
def test_f14_refused_credentials_are_the_operator_s_matter(server: Chaos, stream: bool, status: int) -> None:
    challenge = [("WWW-Authenticate", 'Basic realm="inside"')]
    server.script(*answer({"error": "sign in at inside"}, status=status, headers=challenge))
    response = ask(gateway(server), stream=stream)
    failed(response, 502, "upstream_auth")
    assert "WWW-Authenticate" not in response.headers
    assert b"inside" not in response.data
    assert response.headers["x-should-retry"] == "false"


@both
@pytest.mark.parametrize("status", [200, 502, 500, 400, 503])
def test_f15_no_byte_of_a_page_is_shown(server: Chaos, stream: bool, status: int) -> None:
    page = b"<!DOCTYPE html>\n<title>Proxy</title>\n<h1>quux at inside</h1>\n"
    server.script(*answer(page, status=status, content_type="text/html"))
    response = ask(gateway(server), stream=stream)
    expected = {503: (503, "overloaded"), 400: (400, "upstream_refused")}.get(status, (502, "upstream_error"))
    failed(response, *expected)
    assert not any(word in response.data for word in (b"<", b"DOCTYPE", b"Proxy", b"quux", b"inside"))


@pytest.mark.parametrize("status", [200, 502])
def test_f15_200_characters_of_a_page_are_logged(server: Chaos, caplog: pytest.LogCaptureFixture, status: int) -> None:
    server.script(*answer(b"<" + b"x" * 998 + b">", status=status, content_type="text/html"))
    failed(ask(gateway(server)))
    assert "<" + "x" * 199 in caplog.text
    assert "x" * 200 not in caplog.text


@both
def test_f15_a_404_that_is_no_json_is_no_ollama(server: Chaos, stream: bool) -> None:
    server.script(*answer(b"404 page not found", status=404, content_type="text/plain"))
    failed(ask(gateway(server), stream=stream), 502, "backend_not_ollama")


@both
@pytest.mark.parametrize("content_type", ["text/html", "application/json", "application/x-ndjson"])
def test_f16_an_answer_is_judged_by_its_content(server: Chaos, stream: bool, content_type: str) -> None:
    server.script(*answer(*HELLO, content_type=content_type))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


@both
@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_f16_one_object_over_many_lines(server: Chaos, stream: bool, content_type: str) -> None:
    body = json.dumps({**done(), "message": {"role": "assistant", "content": "Hello"}}, indent=2).encode()
    server.script(*answer(body[:40], body[40:], content_type=content_type))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


@both
@pytest.mark.parametrize("body", [b"", b"\n\n", b"{}", b"[]", b"null", b"7", b'{"models": []}', b'"done"', b"{}{}"])
def test_f16_json_that_is_no_answer(server: Chaos, stream: bool, body: bytes) -> None:
    server.script(*answer(body, framing=SIZED, content_type="application/json"))
    failed(ask(gateway(server), stream=stream))


@both
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_f17_a_redirect_is_not_followed(server: Chaos, stream: bool, status: int) -> None:
    with Chaos() as spy:
        server.script(*answer(b"moved", status=status, headers=[("Location", spy.url + "/api/chat")]))
        response = ask(gateway(server), stream=stream)
        assert spy.connections == 0
    failed(response, 502, "upstream_redirect")
    assert response.headers["x-should-retry"] == "false"
    assert "Location" not in response.headers
    assert len(server.requests) == 1


@both
@pytest.mark.parametrize("status", [102, 103, 201, 204, 206, 304])
def test_f18_a_status_that_makes_no_sense_here(server: Chaos, stream: bool, status: int) -> None:
    server.script(b"HTTP/1.1 %d Odd\r\n\r\n" % status, FIN)
    response = ask(gateway(server), stream=stream)
    failed(response, 502, "upstream_redirect" if status == 304 else "upstream_error")


def test_f18_what_follows_an_early_hint_answers_nobody_else(server: Chaos) -> None:
    late = Event()
    server.script(b"HTTP/1.1 103 Early Hints\r\n\r\n", late, *answer(say("for the first"), done()))
    server.script(*answer(say("for the second"), done()))
    app = gateway(server)
    failed(ask(app))
    late.set()
    assert text_of(ask(app)) == "for the second"


# -- its head is odd --------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "headers",
    [
        [(f"X-{number}", "1") for number in range(101)],
        [("X-Long", "x" * 65536)],
        [("Content-Length", "1")],
    ],
    ids=["101 headers", "64 KiB", "two lengths"],
)
def test_f20_too_much_of_a_head(server: Chaos, stream: bool, headers: list[tuple[str, str]]) -> None:
    server.script(*answer(*HELLO, framing=SIZED, headers=headers))
    failed(ask(gateway(server), stream=stream))


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 65537,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ],
    ids=["no HTTP", "low status", "no status", "no size", "negative size", "long size", "negative length", "no colon"],
)
def test_f20_garbage(server: Chaos, sent: bytes) -> None:
    server.script(sent, FIN)
    failed(ask(gateway(server)))


@both
def test_f21_no_header_of_the_upstream_reaches_the_client(server: Chaos, stream: bool) -> None:
    theirs = ["Set-Cookie", "Server", "X-Powered-By", "Via", "Alt-Svc", "Date", "X-Request-Id", "ETag"]
    server.script(*answer(*HELLO, headers=[(name, "theirs") for name in theirs]))
    response = ask(gateway(server), stream=stream)
    assert text_of(response) == "Hello"
    assert "theirs" not in response.headers.values()
    ours = {"content-type", "x-request-id", "openai-processing-ms", "openai-version"}
    ours |= {"cache-control", "x-accel-buffering"} if stream else {"content-length"}
    assert {name.lower() for name in response.headers.keys()} == ours  # noqa: SIM118 - no mapping


# -- it compresses unasked --------------------------------------------------------------------


@both
@framings
def test_f19_gzip_is_decoded(server: Chaos, stream: bool, framing: str) -> None:
    body = gzip.compress(b"".join(map(line, HELLO)))
    server.script(*answer(body, framing=framing, headers=[("Content-Encoding", "gzip")]))
    assert text_of(ask(gateway(server), stream=stream)) == "Hello"


def test_f19_gzip_is_decoded_as_it_comes(server: Chaos) -> None:
    squeeze, gate = zlib.compressobj(wbits=31), Event()
    one = squeeze.compress(line(say("Hel"))) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    two = squeeze.compress(line(done())) + squeeze.flush()
    server.script(*answer(one, gate, two, headers=[("Content-Encoding", "gzip")]))
    with streamed(gateway(server)) as items:
        assert b'"content":"Hel"' in next(items)
        assert not gate.is_set()
        gate.set()
        assert b"".join(items).endswith(b"data: [DONE]\n\n")


@both
@pytest.mark.parametrize(
    "body", [b"no gzip at all", gzip.compress(b"".join(map(line, HELLO)))[:-20]], ids=["garbage", "cut"]
)
def test_f19_broken_gzip(server: Chaos, stream: bool, body: bytes) -> None:
    server.script(*answer(body, headers=[("Content-Encoding", "gzip")]))
    response = ask(gateway(server), stream=stream)
    if response.status_code == 200:
        assert stream
        assert set(broken_off(response.data)) <= {"Hel", "lo"}
    else:
        failed(response)


def bomb(piece: bytes, times: int) -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    return b"".join(squeeze.compress(piece) for _ in range(times)) + squeeze.flush()


def peak_of(action: Callable[[], Any]) -> tuple[Any, int]:
    """What the action gives, and the most memory that it took."""
    tracemalloc.start()
    try:
        return action(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@both
def test_f19_a_bomb_without_a_line_end(server: Chaos, stream: bool) -> None:
    packed = bomb(b" " * 2**20, 64)
    assert len(packed) < 2**17
    server.script(*answer(packed, headers=[("Content-Encoding", "gzip")]))
    app = gateway(server, max_line=2**20)
    response, peak = peak_of(lambda: ask(app, stream=stream))
    failed(response)
    assert peak < 16 * 2**20


def test_f19_a_bomb_after_the_first_line(server: Chaos) -> None:
    packed = gzip.compress(line(say("Hel"))) + bomb(b"x" * 2**20, 64)
    server.script(*answer(packed, headers=[("Content-Encoding", "gzip")]))
    app = gateway(server, max_line=2**20)
    response, peak = peak_of(lambda: ask(app, stream=True))
    assert broken_off(response.data) == ["Hel"]
    assert peak < 16 * 2**20


def test_f19_f40_a_bomb_of_lines_is_cut_at_the_longest_answer(server: Chaos) -> None:
    server.script(*answer(bomb(line(say("x" * 60_000)), 1000), headers=[("Content-Encoding", "gzip")]))
    app = gateway(server, max_answer=2**20)
    response, peak = peak_of(lambda: ask(app))
    assert failed(response)["message"] == "The backend's answer is too long."
    assert peak < 16 * 2**20


@pytest.mark.parametrize("status", [200, 500])
def test_f19_a_bomb_where_no_stream_is_expected(server: Chaos, status: int) -> None:
    packed = bomb(b" " * 2**20, 64)
    server.script(*answer(packed, status=status, headers=[("Content-Encoding", "gzip")]))
    app = gateway(server, max_answer=2**20)
    response, peak = peak_of(lambda: Client(app).get("/v1/models", buffered=True))
    failed(response)
    assert peak < 16 * 2**20


# -- its arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://localhost", "http://", "http://localhost:x", "http:/localhost"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="is not a valid (http or https )?URL"):
        Upstream(url)


@pytest.mark.parametrize("make", [Upstream, OpenAICompat, lambda url: OpenAICompat(lambda *_: [], upstream=url)])
def test_openai_s_side_of_a_server(make: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="the native API of the same server is 'http://localhost:11434'"):
        make("http://localhost:11434/v1/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("X Y", "x"),
        ("X:", "x"),
        ("X\r\nY", "x"),
        ("Ü", "x"),
        ("X", "a\nb"),
        ("X", "a\r\nY: 1"),
        ("X", "\x00"),
        ("X", "\x7f"),
    ],
)
def test_a_header_that_is_none(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not a valid header") as caught:
        Upstream("http://localhost", headers={name: value})
    assert f"{name!r} " in str(caught.value)


def test_a_refused_header_s_value_is_not_shown() -> None:
    with pytest.raises(ValueError, match="Authorization") as caught:
        Upstream("http://localhost", headers={"Authorization": "Bearer s3cret\n"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("timeout", "parts"), [(7, (7, 7, 7)), ((1, 2.5, 3), (1, 2.5, 3))])
def test_a_timeout_is_seconds_or_three_of_them(timeout: Any, parts: tuple[float, float, float]) -> None:
    made = Upstream("http://localhost", timeout=timeout)
    assert (made.connect, made.head, made.idle) == parts


def test_arguments_are_not_shared_with_the_caller(server: Chaos) -> None:
    headers = {"X-Team": "a"}
    app = OpenAICompat(upstream(server, headers=headers))
    headers["X-Team"] = "b"
    server.script(*answer(*HELLO))
    assert texts(list(frames(ask(app, stream=True).data))[:-1]) == ["Hel", "lo"]
    assert server.requests[0].all("x-team") == ["a"]


@pytest.mark.parametrize(("hops", "sent"), [("", "1"), ("0", "1"), ("3", "4")])
def test_a_request_says_how_many_gateways_it_has_passed(server: Chaos, hops: str, sent: str) -> None:
    server.script(*answer(*HELLO))
    assert text_of(ask(gateway(server), headers={"openai-compat-hops": hops})) == "Hello"
    assert server.requests[0].all("openai-compat-hops") == [sent]


@pytest.mark.parametrize("hops", ["4", "5", "9", "10", "-1", "x"])
def test_a_request_that_has_passed_four_gateways_goes_round_in_a_ring(server: Chaos, hops: str) -> None:
    failed(ask(gateway(server), headers={"openai-compat-hops": hops}), code="upstream_loop")
    assert server.connections == 0


def test_its_limits_are_those_of_the_settings_where_none_are_given() -> None:
    made = Upstream("http://localhost")
    assert (made.connect, made.head, made.idle) == Settings().timeout
    assert inspect.signature(Upstream).parameters["pool_size"].default == Settings().pool_size
