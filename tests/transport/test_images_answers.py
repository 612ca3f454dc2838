"""Images by URL: what a hostile server can send, and how long it can take (9.2, F70)."""

from __future__ import annotations

import gzip
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from openai_compat.errors import APIError
from openai_compat.transport import images
from openai_compat.transport.images import FILE, Fetcher, is_public
from tests.chaos import CLOSE, FIN, RST, SIZED, WAIT, Chaos, Step, answer, head
from tests.servers import command
from tests.transport.images import (
    DRIPS,
    ELSEWHERE,
    ENDED,
    HERE,
    IMAGES,
    PATH,
    PNG,
    RECORD,
    SHORT,
    SILENCE,
    Names,
    Refused,
    Secure,
    after,
    at,
    dripping,
    fetcher,
    framings,
    image,
    moved,
    within,
)

pytestmark = pytest.mark.server

# -- what a server sends ----------------------------------------------------------------------


@framings
@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("content_type", ["image/png", "text/html"])
def test_the_bytes_say_what_it_is(server: Chaos, framing: str, kind: str, content_type: str) -> None:
    server.script(*answer(IMAGES[kind], framing=framing, content_type=content_type))
    assert fetcher()(at(server), PATH) == IMAGES[kind]


@framings
@pytest.mark.parametrize(
    "body",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"<!DOCTYPE html><img src='data:image/png;base64,iVBORw0KGgo='>",
        b"\xef\xbb\xbf<html>",
        b" " + PNG,
        PNG[:7],
        b"\xff\xd8",
        b"GIF88a" + bytes(9),
        b"RIFF\x0a\x00\x00\x00WAVEfmt ",
        b"RIFF\x0a\x00\x00\x00WEB",
        b"BM" + bytes(60),
        b"II*\x00" + bytes(60),
        b"\x00\x00\x01\x00" + bytes(60),
        b"\x00\x00\x00\x1cftypavif",
        b"%PDF-1.7",
        gzip.compress(PNG),
        b'{"key": "secret"}',
    ],
)
def test_f70_what_is_no_image(server: Chaos, refused: Refused, framing: str, body: bytes) -> None:
    server.script(*image(body, framing=framing))
    assert refused(fetcher(), at(server)).endswith("it is not a png, jpeg, gif or webp image")


@framings
def test_nothing_is_no_image(server: Chaos, refused: Refused, framing: str) -> None:
    server.script(*image(b"", framing=framing))
    assert refused(fetcher(), at(server)).endswith("it is incomplete")


def test_f70_what_is_no_image_is_not_read_to_its_end(server: Chaos, refused: Refused) -> None:
    server.script(*image(b"<html>" + bytes(100_000), framing=SIZED, length=1_000_000))
    with within(WAIT):
        assert "it is not a png" in refused(fetcher(timeout=SILENCE), at(server))
    assert server.gone.get(timeout=WAIT) == 1


@framings
def test_f70_the_largest_image(server: Chaos, refused: Refused, framing: str) -> None:
    limit = 200_000
    for size in (limit, limit + 1):
        body = PNG + bytes(size - len(PNG))
        server.script(*image(body[:70_000], body[70_000:], framing=framing))
        if size == limit:
            assert fetcher(max_bytes=limit)(at(server), PATH) == body
        else:
            assert refused(fetcher(max_bytes=limit), at(server)).endswith("it is too large")


@framings
@pytest.mark.parametrize("said", [10_000_000_000, 300_000])
def test_f70_too_much_is_not_waited_for(server: Chaos, refused: Refused, framing: str, said: int) -> None:
    """10 GB said, or more sent than may be, and then silence."""
    pieces = [PNG] if framing == SIZED else [PNG, bytes(200_000)]
    steps = image(*pieces, framing=framing, length=said)
    server.script(*[step for step in steps if step not in (b"0\r\n\r\n", FIN)])
    with within(WAIT):
        assert refused(fetcher(max_bytes=200_000, timeout=SILENCE), at(server)).endswith("it is too large")
    assert server.gone.get(timeout=WAIT) == 1


@pytest.mark.parametrize("length", ["-1", "x", "1, 2", ""])
def test_a_length_that_is_none_bounds_nothing(server: Chaos, refused: Refused, length: str) -> None:
    server.script(head(headers=[("Content-Length", length)]), PNG, bytes(1000), FIN)
    assert refused(fetcher(max_bytes=1000), at(server)).endswith("it is too large")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x-gzip", "identity, gzip", "GZIP", "aes"])
def test_f70_what_is_compressed(server: Chaos, refused: Refused, coding: str) -> None:
    server.script(*image(gzip.compress(PNG), headers=[("Content-Encoding", coding)]))
    assert "it is compressed" in refused(fetcher(), at(server))


@pytest.mark.parametrize("coding", ["identity", "Identity"])
def test_what_is_said_to_be_as_it_is(server: Chaos, coding: str) -> None:
    server.script(*image(headers=[("Content-Encoding", coding)]))
    assert fetcher()(at(server), PATH) == PNG


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 305, 400, 401, 403, 404, 407, 429, 500, 503])
def test_another_status(server: Chaos, refused: Refused, status: int) -> None:
    server.script(*image(status=status, headers=[("Location", "/other"), ("WWW-Authenticate", "Basic")]))
    assert refused(fetcher(), at(server)) == f"http://images.example:{server.port}: status {status}"
    assert server.connections == 1


@pytest.mark.parametrize(
    "steps",
    [
        (FIN,),
        (RST,),
        (b"HTTP/1.1 200", FIN),
        (b"HTTP/1.1 200 OK\r\nContent-", FIN),
        (b"HTTP/1.1 two hundred\r\n\r\n", FIN),
        (b"SSH-2.0-OpenSSH_9.2\r\n", FIN),
        (b"\x1b[31mred\r\n\r\n", FIN),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", PNG, FIN),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", PNG, FIN),
        (*image(framing=SIZED, length=len(PNG) + 1), FIN),
        (*image(framing=SIZED, length=len(PNG) + 1), RST),
        (*image()[:1], FIN),
        (*image()[:2], FIN),
        (*image()[:2], b"zz\r\n", FIN),
        (*image()[:2], b"10\r\nshort", FIN),
        (*image(framing=CLOSE)[:1], FIN),
        (*image(framing=CLOSE)[:2], RST),
    ],
)
def test_an_answer_that_breaks_off(server: Chaos, refused: Refused, steps: Sequence[Step]) -> None:
    server.script(*steps)
    reason = refused(fetcher(), at(server))
    assert reason.startswith(f"http://images.example:{server.port}: ")
    assert not any(word in reason for word in ("SSH", "red", "two hundred"))


def test_nobody_listens(server: Chaos, refused: Refused) -> None:
    names = Names([ELSEWHERE])
    assert "refused" in refused(fetcher(names, ELSEWHERE), at(server))


def test_a_100_continue_is_passed_over(server: Chaos) -> None:
    server.script(b"HTTP/1.1 100 Continue\r\n\r\n", *image())
    assert fetcher()(at(server), PATH) == PNG


@framings
def test_a_whole_answer_is_not_waited_beyond(server: Chaos, framing: str) -> None:
    """The server of a length or of chunks may keep its connection; ours is closed."""
    server.script(*image(framing=framing))
    with within(WAIT):
        assert fetcher(timeout=SILENCE)(at(server), PATH) == PNG
    server.join(1)


def test_no_thread_and_no_connection_is_left(server: Chaos, refused: Refused) -> None:
    before = threading.enumerate()
    for steps in (image(), moved("ftp://x"), image(status=404), [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", RST]):
        server.script(*steps)
        with suppress(APIError):
            fetcher(timeout=SILENCE)(at(server), PATH)
        assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        server.join(server.connections)
    for thread in set(threading.enumerate()) - set(before):
        thread.join(WAIT)
        assert not thread.is_alive()


# -- time -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("drip", DRIPS)
def test_f70_a_slow_drip(refused: Refused, drip: str) -> None:
    with dripping(*DRIPS[drip]) as port, within(10 * SHORT):
        reason = refused(fetcher(timeout=SHORT), f"http://images.example:{port}/cat.png")
    assert reason == f"http://images.example:{port}: it took too long"


def test_f70_a_slow_drip_of_tls(refused: Refused) -> None:
    with dripping(RECORD, b"\x00") as port, within(10 * SHORT):
        refused(fetcher(timeout=SHORT), f"https://images.example:{port}/cat.png")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), (head(),), (head() + PNG,), image(framing=SIZED, length=10_000)])
def test_f70_a_silent_server(server: Chaos, refused: Refused, steps: Sequence[Step]) -> None:
    over = threading.Event()
    server.script(*steps, over)
    with within(10 * SHORT):
        reason = refused(fetcher(timeout=SHORT), at(server))
    over.set()
    assert reason.endswith(ENDED)
    assert server.gone.get(timeout=WAIT) == 1


def test_f70_no_time_at_all(server: Chaos, refused: Refused) -> None:
    assert refused(fetcher(timeout=1e-9), at(server)).endswith("it took too long")
    assert server.connections == 0


@pytest.mark.slow
def test_an_image_has_its_time_and_all_together_twice_as_long(server: Chaos, refused: Refused) -> None:
    """Each of them is fast enough by itself."""
    fetch, fetched = fetcher(timeout=SHORT), 0
    with within(2 * SHORT + WAIT / 20):
        while fetched < 16:
            server.script(after(SHORT / 2), *image())
            try:
                assert fetch(at(server), PATH) == PNG
            except APIError:
                break
            fetched += 1
    assert 2 <= fetched <= 4
    connections = server.connections
    assert refused(fetch, at(server)).endswith("it took too long")
    assert server.connections == connections, "after the time nothing is connected"


def test_the_time_begins_with_the_first_image(server: Chaos) -> None:
    fetch = fetcher(timeout=SHORT / 2)
    assert not threading.Event().wait(SHORT)  # the request's other parts are read
    server.script(*image())
    assert fetch(at(server), PATH) == PNG


@framings
@pytest.mark.parametrize("last", [0, 1])
def test_all_images_together_have_twice_the_bytes_of_one(
    server: Chaos, refused: Refused, framing: str, last: int
) -> None:
    fetch = fetcher(max_bytes=200_000)
    for size in (150_000, 200_000, 50_000):
        body = PNG + bytes(size - len(PNG))
        last_bytes = bytes(last) if size == 50_000 else b""
        server.script(*image(body[:20_000], body[20_000:], *filter(None, [last_bytes]), framing=framing))
        if last_bytes:
            assert refused(fetch, at(server)).endswith("the images of the request are too large")
            return
        assert fetch(at(server), PATH) == body
    server.script(*image(framing=framing))
    assert refused(fetch, at(server)).endswith("the images of the request are too large")


@framings
def test_too_much_together_is_not_waited_for(server: Chaos, refused: Refused, framing: str) -> None:
    """More is said, or sent, than is left for the request, and then silence."""
    fetch = fetcher(max_bytes=200_000, timeout=SILENCE)
    for size in (200_000, 150_000):
        server.script(*image(PNG + bytes(size - len(PNG))))
        assert len(fetch(at(server), PATH)) == size
    steps = image(PNG, *([] if framing == SIZED else [bytes(60_000)]), framing=framing, length=60_000)
    server.script(*[step for step in steps if step not in (b"0\r\n\r\n", FIN)])
    with within(WAIT):
        assert refused(fetch, at(server)).endswith("the images of the request are too large")


def test_what_was_sent_of_an_image_that_failed_counts(server: Chaos, refused: Refused) -> None:
    fetch = fetcher(max_bytes=100_000)
    for _ in range(2):
        server.script(*image(PNG + bytes(90_000), framing=SIZED, length=100_000), FIN)
        assert refused(fetch, at(server)).endswith("it is incomplete")
    server.script(*image(PNG + bytes(30_000)))
    assert refused(fetch, at(server)).endswith("the images of the request are too large")


def test_a_request_has_so_many_images(server: Chaos, refused: Refused) -> None:
    names = Names()
    fetch = fetcher(names, max_number=2)
    for _ in range(2):
        server.script(*image())
        assert fetch(at(server), PATH) == PNG
    for _ in range(2):
        assert refused(fetch, at(server)) == "its URL: the request has too many images"
    assert len(names.lookups) == server.connections == 2


def test_an_image_that_failed_counts(server: Chaos, refused: Refused) -> None:
    fetch = fetcher(max_number=1)
    refused(fetch, "ftp://images.example/")
    assert "too many" in refused(fetch, at(server))


def test_the_limits_that_hold_unless_others_are_given() -> None:
    assert (images.CONNECT_TIMEOUT, images.MAX_REDIRECTS, images.TOTAL) == (3.0, 3, 2)
    assert Fetcher.__init__.__kwdefaults__ == {
        "max_bytes": 10 * 1024 * 1024,
        "timeout": 10.0,
        "max_number": 16,
        "resolve": images._getaddrinfo,
        "allowed": is_public,
    }


# -- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh certificate of images.example and 127.0.0.1 that signs itself, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=common.example"]
    names = ["-addext", f"subjectAltName=DNS:images.example,IP:{HERE}"]
    use = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    files = ["-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(["openssl", "req", *made, *names, *use, *files], check=True, capture_output=True, timeout=60)
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Secure]:
    chaos = Secure(certificate)
    with chaos:
        yield chaos


@framings
@pytest.mark.parametrize(
    ("host", "name"), [("images.example", "images.example"), ("images.example.", "images.example"), (HERE, None)]
)
def test_https_names_and_checks_the_host(
    secure: Secure, certificate: Path, monkeypatch: pytest.MonkeyPatch, framing: str, host: str, name: str | None
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure.script(*image(framing=framing))
    assert fetcher()(at(secure, host=host, scheme="https"), PATH) == PNG
    assert secure.names == [name]
    assert secure.requests[0].all("host") == [f"{host}:{secure.port}"]


def test_f70_a_certificate_that_nobody_signed(secure: Secure, refused: Refused) -> None:
    assert "self-signed" in refused(fetcher(), at(secure, scheme="https")).replace("self signed", "self-signed")
    assert secure.requests == []


@pytest.mark.parametrize("host", ["other.example", "common.example", "127.0.0.3"])
def test_f70_a_certificate_of_another_host(
    secure: Secure, certificate: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert "certificate is not valid for" in refused(fetcher(), at(secure, host=host, scheme="https"))
    assert secure.requests == []


def test_a_redirect_to_https_and_back(
    server: Chaos, secure: Secure, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.script(*moved(at(secure, scheme="https")))
    secure.script(*moved(at(server, "/b.png")))
    server.script(*image())
    assert fetcher()(at(server), PATH) == PNG
    assert [len(place.requests) for place in (server, secure)] == [2, 1]


# -- secrets, and gevent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        image(),
        image(status=404),
        moved("http://user:secret@images.example/?secret"),
        moved("/secret?secret"),
        [b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 3\r\n\r\n", b"GIF", FIN],
        [b"HTTP/1.1 secret\r\n\r\n", FIN],
    ],
)
@pytest.mark.parametrize("user", ["", "user:secret@"])
def test_the_log_keeps_secrets(
    server: Chaos, caplog: pytest.LogCaptureFixture, steps: Sequence[Step], user: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(*steps)
    with suppress(APIError):
        fetcher()(at(server, "/secret?token=secret#secret", host=f"{user}images.example"), PATH)
    assert "secret" not in caplog.text


def test_the_error_keeps_no_reason(server: Chaos) -> None:
    with pytest.raises(APIError) as caught:
        fetcher()(at(server, host="127.1"), PATH)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_f70_the_limits_hold_under_gevent(server: Chaos) -> None:
    """It may patch after the module is imported; there a time-out of TLS begins anew with every byte."""
    code = (
        "import sys, time\n"
        "from openai_compat.transport.images import Fetcher\n"
        "from openai_compat.errors import APIError\n"
        "from gevent import monkey; monkey.patch_all()\n"
        "def resolve(host, port):\n"
        "    time.sleep(0.01)  # others run meanwhile\n"
        f"    return ['{HERE}']\n"
        f"fetch = Fetcher(resolve=resolve, allowed=bool, timeout={SHORT})\n"
        "for url in sys.argv[1:]:\n"
        "    began = time.monotonic()\n"
        "    try:\n"
        "        print(len(fetch(url, 'path')))\n"
        "    except APIError as error:\n"
        "        print(error.status)\n"
        f"    assert time.monotonic() - began < {10 * SHORT}\n"
        f"sleeping = Fetcher(resolve=lambda host, port: time.sleep({SILENCE}), timeout={SHORT})\n"
        "began = time.monotonic()\n"
        "try:\n"
        "    sleeping('http://images.example', 'path')\n"
        "except APIError as error:\n"
        "    print(error.status)\n"
        f"assert time.monotonic() - began < {10 * SHORT}\n"
    )
    server.script(*image())
    with dripping(*DRIPS["a body without end"]) as plain, dripping(RECORD, b"\x00") as tls:
        urls = [at(server), f"http://images.example:{plain}/", f"https://images.example:{tls}/"]
        ended = command(*urls, python=("-W", "error", "-c", code))
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, [str(len(PNG)), "400", "400", "400"], "")


# -- files ------------------------------------------------------------------------------------


def test_a_file_may_begin_with_anything(server: Chaos) -> None:
    server.script(*answer(b"text", content_type="text/plain"))
    assert fetcher(kind=FILE)(at(server), PATH) == b"text"
    assert dict(server.requests[0].headers)["Accept"].startswith("application/pdf")


def test_a_file_that_is_not_fetched_has_an_error_of_its_own(server: Chaos, caplog: pytest.LogCaptureFixture) -> None:
    server.script(*answer(b"text", status=404))
    caplog.set_level(logging.INFO)
    with pytest.raises(APIError) as raised:
        fetcher(kind=FILE)(at(server), PATH)
    assert (raised.value.param, raised.value.code) == (PATH, "invalid_value")
    assert raised.value.message.startswith("The file could not be fetched.")
    [record] = caplog.records
    assert ": no file from http://images.example" in record.getMessage()


@pytest.mark.usefixtures("caplog")
def test_the_seconds_that_are_left_are_a_limit() -> None:
    with dripping(b"", b"H") as port, within(WAIT), pytest.raises(APIError):
        fetcher(timeout=SILENCE)(f"http://images.example:{port}/", PATH, SHORT)
