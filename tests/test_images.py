"""Images by URL: which addresses are public, which URLs are read, and what a hostile server can do (9.2, F70)."""

from __future__ import annotations

import gzip
import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from openai_compat import images
from openai_compat.errors import APIError
from openai_compat.images import Fetcher, is_public
from tests.chaos import CLOSE, FIN, FRAMINGS, RST, SIZED, WAIT, Chaos, Step, answer, head
from tests.images import (
    DANGEROUS,
    DRIPS,
    ELSEWHERE,
    HERE,
    IMAGES,
    PNG,
    PUBLIC,
    RECORD,
    SHORT,
    SILENCE,
    SPELLINGS,
    Names,
    Secure,
    after,
    at,
    dripping,
    fetcher,
    full,
    image,
    moved,
    within,
)
from tests.servers import command

#: the field of the request, for the error
PATH = "messages[0].content[1].image_url.url"

TEXT = "The image could not be fetched. Expected a public URL of a png, jpeg, gif or webp image of moderate size."

#: where a server is silent the time-out of the socket and the end of the time come together
ENDED = ("it took too long", "timed out")

framings = pytest.mark.parametrize("framing", FRAMINGS)


@pytest.fixture
def server() -> Iterator[Chaos]:
    with Chaos() as chaos:
        yield chaos


@pytest.fixture
def forbidden(server: Chaos) -> Iterator[Callable[[], bool]]:
    """Tells whether nobody came to the port of *server* at the address that may not be reached."""

    def untouched() -> bool:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return True
        return False

    with socket.create_server((ELSEWHERE, server.port)) as listener:
        listener.setblocking(False)
        yield untouched


Refused = Callable[..., str]


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture) -> Refused:
    """Fetch what is not fetched, see the one error that there is, and give what the log says."""
    caplog.set_level(logging.DEBUG)

    def fetch(fetch: Fetcher, url: str) -> str:
        caplog.clear()
        with pytest.raises(APIError) as caught:
            fetch(url, PATH)
        assert (caught.value.status, caught.value.headers, caught.value.retry) == (400, (), None)
        kind = {"type": "invalid_request_error", "param": PATH, "code": "invalid_image_url"}
        assert caught.value.body() == {"error": {"message": TEXT, **kind}}
        [record] = caplog.records
        where, _, reason = record.getMessage().partition(": no image from ")
        assert (record.name, where) == ("openai_compat", PATH)
        attack = "not public" in reason or "another address" in reason
        assert record.levelno == (logging.WARNING if attack else logging.INFO)
        return reason

    return fetch


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("address", DANGEROUS.split())
def test_f70_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text", ["", "localhost", "8.8.8", "8.8.8.8.", "08.8.8.8", "8.8.8.8/32", " 8.8.8.8", "[2003::1]", "8.8.8.8%lo"]
)
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("host", SPELLINGS)
def test_f70_what_the_system_makes_of_a_spelling_is_not_public(host: str) -> None:
    with suppress(socket.gaierror):  # it knows fewer of them elsewhere
        assert not any(is_public(str(found[4][0])) for found in socket.getaddrinfo(host, 80))


@pytest.mark.parametrize(
    "host", [HERE, ELSEWHERE, "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "localhost"]
)
def test_f70_by_itself_it_does_not_reach_this_machine(server: Chaos, refused: Refused, host: str) -> None:
    assert refused(Fetcher(), at(server, host=host)).endswith("or one that is not public")
    assert server.connections == 0


@pytest.mark.parametrize("host", SPELLINGS)
def test_f70_a_spelling_of_an_address_is_not_even_looked_up(server: Chaos, refused: Refused, host: str) -> None:
    names = Names()
    assert refused(fetcher(names), at(server, host=host)) == "its URL: AddressValueError"
    assert (names.asked, server.connections) == ([], 0)


# -- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cat.png",
        "//images.example/cat.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://images.example/cat.png",
        "gopher://images.example:70/_cat",
        "dict://images.example/",
        "data:text/html;base64,PGh0bWw+",
        "data:image/png;base64,iVBORw0KGgo=",
        "http:",
        "http:/images.example/",
        "http:images.example",
        "http://",
        "http:///cat.png",
        "http://:80/",
        "http://?",
        "http://user@images.example/",
        "http://user:secret@images.example/",
        "http://@images.example/",
        "http://images.example@127.0.0.1/",
        "http://images.example/@127.0.0.1:81/",
        "http://images.example?@127.0.0.1/",
        "http://images.example#@127.0.0.1/",
        "http://images.example/icon@2x.png",
        "http://127.0.0.1:80\\@example.com/",
        "http://images.example\\@127.0.0.1/",
        "http:\\\\images.example\\",
        "http://images.example/\\cat",
        "http://images.example /",
        " http://images.example/",
        "http://images.example/ cat",
        "http://images.example/\tcat",
        "http://images.example/\r\nHost: 127.0.0.1",
        "http://images.example/\x00",
        "http://images.example/\x7f",
        "http://exa\nmple.com/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://exämple.com/",
        "http://images.example\uff0f@127.0.0.1/",
        "http://\u212aelvin.example/",
        "http://images.example/\ud800",
        "http://127.0.0.1%2f@example.com/",
        "http://%31%32%37.0.0.1/",
        "http://images.example%00/",
        "http://images.example:/",
        "http://images.example:0/",
        "http://images.example:65536/",
        "http://images.example:-1/",
        "http://images.example:+80/",
        "http://images.example:80a/",
        "http://images.example:8_0/",
        "http://images.example:\u0661/",
        "http://images.example:000080/",
        "http://images.example:80:81/",
        "http://.images.example/",
        "http://images..example/",
        "http://images.example../",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
        "http://[::1/",
        "http://::1/",
        "http://[]/",
        "http://[::1]x/",
        "http://[fe80::1%25lo]/",
        "http://[v1.a]/",
        "http://[127.0.0.1]/",
        "http://[1:2:3]/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://example.0x7f/",
        "http://example.1/",
        "http://a,b/",
        "http://images.example;127.0.0.1/",
        f"http://images.example/{'a' * images.MAX_URL}",
    ],
)
def test_f70_a_url_that_is_not_read(url: str, refused: Refused) -> None:
    names = Names()
    assert refused(fetcher(names), url).startswith("its URL: ")
    assert names.asked == []


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://images.example", "images.example", 80),
        ("https://images.example", "images.example", 443),
        ("HTTPS://Images.EXAMPLE:8443/", "images.example", 8443),
        ("http://images.example.:80/", "images.example.", 80),
        ("http://xn--exmple-cua.com?a%40b", "xn--exmple-cua.com", 80),
        ("http://a_b-c.example#%40127.0.0.1/", "a_b-c.example", 80),
        ("http://images.example?%40127.0.0.1/", "images.example", 80),
        ("http://images.example/%40127.0.0.1:81/", "images.example", 80),
        ("http://8.8.8.8/", "8.8.8.8", 80),
        ("http://[2606:4700:4700:0:0:0:0:1111]:65535/", "2606:4700:4700::1111", 65535),
        (f"http://{'a' * 63}.example/", f"{'a' * 63}.example", 80),
    ],
)
def test_who_is_looked_up(url: str, host: str, port: int, refused: Refused) -> None:
    names = Names([])
    assert "no address" in refused(fetcher(names), url)
    assert names.asked == [(host, port)]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("", "/"),
        ("/", "/"),
        ("?q", "/?q"),
        ("#top", "/"),
        ("/a/../b//c;d?e=f&g=/?#h?i", "/a/../b//c;d?e=f&g=/?"),
        ("//other.example/x", "//other.example/x"),
        ("/icon%402x.png?at=a%40b:c", "/icon%402x.png?at=a%40b:c"),
        ("/%2e%2F%zz?sig=a%2bb%2Bc", "/%2e%2F%zz?sig=a%2bb%2Bc"),
        ("/Größe/猫.png", "/Gr%C3%B6%C3%9Fe/%E7%8C%AB.png"),
        ("/a\u2028b\x85", "/a%E2%80%A8b%C2%85"),
        ("/a|b\"<>^`{}'[]", "/a|b\"<>^`{}'[]"),
    ],
)
def test_what_is_asked_for_is_sent_as_it_is_written(server: Chaos, written: str, sent: str) -> None:
    server.script(*image())
    assert fetcher()(at(server, written), PATH) == PNG
    assert server.requests[0].target == sent


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("Images.example", "images.example"),
        ("[::1]", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
        ("a.example.", "a.example."),
    ],
)
def test_nothing_goes_along(server: Chaos, host: str, sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:1")
    server.script(*image())
    assert fetcher()(at(server, host=host), PATH) == PNG
    [request] = server.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.headers == [
        ("Host", f"{sent}:{server.port}"),
        ("User-Agent", "openai-compat"),
        ("Accept", "image/png, image/jpeg, image/gif, image/webp"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]


# -- names and connections --------------------------------------------------------------------


def test_only_the_resolver_is_asked_for_names(server: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    system, looked_up = socket.getaddrinfo, []

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        looked_up.append(host)
        return system(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.script(*image())
    names = Names()
    assert fetcher(names)(at(server), PATH) == PNG
    assert names.asked == [("images.example", server.port)]
    assert set(looked_up) <= {HERE}


def test_by_itself_it_asks_the_system(server: Chaos) -> None:
    server.script(*image())
    assert Fetcher(allowed=lambda address: address in (HERE, "::1"))(at(server, host="localhost"), PATH) == PNG


@pytest.mark.parametrize(
    "addresses",
    [[], ["10.0.0.1"], [HERE, "10.0.0.1"], ["10.0.0.1", HERE], [HERE, ELSEWHERE], [*[HERE] * 9, ELSEWHERE]],
    ids=" ".join,
)
def test_f70_every_address_must_be_public(
    server: Chaos, forbidden: Callable[[], bool], refused: Refused, addresses: list[str]
) -> None:
    names = Names(addresses)
    why = "its host has no address, or one that is not public"
    assert refused(fetcher(names), at(server)) == f"http://images.example:{server.port}: {why}"
    assert server.connections == 0
    assert forbidden()


def test_f70_a_name_is_looked_up_once(server: Chaos, forbidden: Callable[[], bool]) -> None:
    """Rebinding: what is public when it is checked is private when it is asked again."""
    names = Names([HERE], [ELSEWHERE])
    server.script(*image())
    assert fetcher(names)(at(server), PATH) == PNG
    assert names.asked == [("images.example", server.port)]
    assert forbidden()


def test_f70_a_redirect_looks_the_name_up_again(server: Chaos, forbidden: Callable[[], bool], refused: Refused) -> None:
    names = Names([HERE], [ELSEWHERE])
    server.script(*moved("/other.png"))
    assert "not public" in refused(fetcher(names), at(server))
    assert len(names.asked) == 2
    assert server.connections == 1
    assert forbidden()


def test_f70_a_connection_that_leads_elsewhere(server: Chaos, refused: Refused) -> None:
    names = Names(["0.0.0.0"])  # which is this machine, by 127.0.0.1
    assert "another address than was checked" in refused(fetcher(names, "0.0.0.0"), at(server))
    assert server.requests == []
    assert server.gone.get(timeout=WAIT) == 1


def test_the_next_address_is_tried(server: Chaos) -> None:
    server.script(*image())
    names = Names([ELSEWHERE, HERE])
    assert fetcher(names, ELSEWHERE)(at(server), PATH) == PNG
    assert server.requests[0].all("host") == [f"images.example:{server.port}"]


def test_not_all_of_a_long_list_is_tried(server: Chaos, refused: Refused) -> None:
    others = [f"127.0.0.{last}" for last in range(2, 6)]
    names = Names([*others, HERE])
    assert "refused" in refused(fetcher(names, *others), at(server))
    assert server.connections == 0


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    server: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CONNECT_TIMEOUT", 2 * SHORT)
    server.script(*image())
    names = Names([ELSEWHERE, HERE])
    with full(ELSEWHERE, server.port), within(WAIT):
        assert fetcher(names, ELSEWHERE, timeout=SILENCE)(at(server), PATH) == PNG


def test_the_time_to_connect_is_not_the_time_to_answer(server: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CONNECT_TIMEOUT", SHORT)
    server.script(after(2 * SHORT), *image())
    assert fetcher()(at(server), PATH) == PNG


@pytest.mark.parametrize("connect", [SHORT, SILENCE], ids=["to connect", "in all"])
def test_f70_a_place_that_does_not_answer(
    server: Chaos, refused: Refused, monkeypatch: pytest.MonkeyPatch, connect: float
) -> None:
    monkeypatch.setattr(images, "CONNECT_TIMEOUT", connect)
    names = Names([ELSEWHERE])
    whole = SHORT if connect == SILENCE else SILENCE
    with full(ELSEWHERE, server.port), within(10 * SHORT):
        assert refused(fetcher(names, ELSEWHERE, timeout=whole), at(server)).endswith("timed out")


def test_f70_a_name_that_nobody_answers_for(server: Chaos, refused: Refused) -> None:
    answered = threading.Event()

    def silent(host: str, port: int) -> list[str]:
        answered.wait(SILENCE)
        return [HERE]

    try:
        with within(10 * SHORT):
            assert "not found in time" in refused(fetcher(silent, timeout=SHORT), at(server))
    finally:
        answered.set()
    assert server.connections == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "[Errno -2] Name or service not known"),
        (UnicodeError("label too long"), "UnicodeError"),
    ],
    ids=["gaierror", "UnicodeError"],
)
def test_a_name_that_is_not_found(refused: Refused, error: Exception, said: str) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise error

    assert refused(fetcher(unknown), "http://images.example/") == f"http://images.example: {said}"


def test_a_resolver_that_gives_names_is_not_followed(server: Chaos, refused: Refused) -> None:
    names = Names(["localhost"])
    assert refused(fetcher(names, "localhost"), at(server)).endswith("ValueError")
    assert server.connections == 0


def test_a_mistake_of_a_resolver_is_not_swallowed() -> None:
    def broken(host: str, port: int) -> list[str]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fetcher(broken)("http://images.example/", PATH)


# -- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: Chaos, status: int) -> None:
    server.script(*moved(at(server, "/b.png", "other.example"), status))
    server.script(*image())
    names = Names()
    assert fetcher(names)(at(server), PATH) == PNG
    assert names.asked == [("images.example", server.port), ("other.example", server.port)]
    first, second = server.requests
    assert second.headers == [("Host", f"other.example:{server.port}"), *first.headers[1:]]
    assert (second.method, second.target) == ("GET", "/b.png")


def test_a_redirect_carries_no_cookie(server: Chaos) -> None:
    server.script(*answer(b"", status=302, headers=[("Location", "/b"), ("Set-Cookie", "a=b; Path=/")]))
    server.script(*image())
    assert fetcher()(at(server), PATH) == PNG
    assert server.requests[1].names == {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.png", "/b.png"),
        ("b.png", "/x/b.png"),
        ("./b.png?c#d", "/x/b.png?c"),
        ("../b.png", "/b.png"),
        ("../../../b.png", "/b.png"),
        ("?c=d", "/x/a.png?c=d"),
        ("//images.example:{port}/b.png", "/b.png"),
        ("HTTP://other.example:{port}", "/"),
        ("/b:c/d%40e", "/b:c/d%40e"),
        ("b.png?u=http://127.0.0.1/", "/x/b.png?u=http://127.0.0.1/"),
        ("/Gr\u00f6\u00dfe", "/Gr%F6%DFe"),
        ("/Größe".encode().decode("latin-1"), "/Gr%C3%B6%C3%9Fe"),
    ],
)
def test_where_a_redirect_leads(server: Chaos, location: str, target: str) -> None:
    server.script(*moved(location.replace("{port}", str(server.port))))
    server.script(*image())
    assert fetcher()(at(server, "/x/a.png?q=/y/z"), PATH) == PNG
    assert server.requests[1].target == target


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://images.example/",
        "gopher://127.0.0.1:70/_x",
        "data:image/png;base64,iVBORw0KGgo=",
        "http://user@images.example/",
        "http://127.0.0.1:80\\@example.com/",
        "/\\127.0.0.2/",
        "\\\\127.0.0.2\\",
        "//127.0.0.2\\@images.example/",
        "http://2130706434/",
        "http://[::1/",
        "http://images.example:0/",
        "http://exämple.com/",
        "/a b",
        "/a\tb",
        "/a\r\n b",
        f"/{'a' * images.MAX_URL}",
    ],
)
def test_f70_a_redirect_that_is_not_read(server: Chaos, refused: Refused, location: str) -> None:
    names = Names()
    server.script(*moved(location))
    reason = refused(fetcher(names), at(server))
    assert reason.startswith(f"http://images.example:{server.port}: ")
    assert (len(names.asked), server.connections) == (1, 1)
    assert server.gone.get(timeout=WAIT) == 1


@pytest.mark.parametrize("host", [ELSEWHERE, "private.example"])
@pytest.mark.parametrize("text", ["http://{host}:{port}/", "//{host}:{port}/"])
def test_f70_a_redirect_to_a_private_address(
    server: Chaos, forbidden: Callable[[], bool], refused: Refused, host: str, text: str
) -> None:
    names = Names([HERE], [ELSEWHERE])
    server.script(*moved(text.format(host=host, port=server.port)))
    assert refused(fetcher(names), at(server)).startswith(f"http://{host}:{server.port}: its host has no address, or")
    assert [asked for asked, _ in names.asked] == ["images.example", host]
    assert server.connections == 1
    assert forbidden()


def test_three_redirects_are_followed_and_no_fourth(server: Chaos, refused: Refused) -> None:
    for hops in (3, 4):
        for hop in range(hops):
            server.script(*moved(f"/{hop}"))
        if hops == 3:
            server.script(*image())
            assert fetcher()(at(server), PATH) == PNG
        else:
            assert refused(fetcher(), at(server)).endswith("it redirects too often")
    assert [request.target for request in server.requests] == ["/cat.png", "/0", "/1", "/2"] * 2


@pytest.mark.parametrize("location", ["/cat.png", "#", "//", "http://images.example:{port}/cat.png"])
def test_f70_a_redirect_in_a_circle(server: Chaos, refused: Refused, location: str) -> None:
    for _ in range(9):
        server.script(*moved(location.replace("{port}", str(server.port))))
    assert refused(fetcher(), at(server)).endswith("it redirects too often")
    assert server.connections == 4


def test_a_redirect_to_nowhere(server: Chaos, refused: Refused) -> None:
    server.script(*answer(b"", status=302))
    assert refused(fetcher(), at(server)).endswith("it redirects to nowhere")
    assert server.connections == 1


def test_f70_the_time_is_of_all_redirects_together(server: Chaos, refused: Refused) -> None:
    for _ in range(4):
        server.script(after(0.7 * SHORT), *moved("/next"))
    assert refused(fetcher(timeout=2 * SHORT), at(server)).endswith(ENDED)
    assert server.connections > 1


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
    assert refused(fetcher(), at(server)).endswith("it is no png, jpeg, gif or webp image")


@framings
def test_nothing_is_no_image(server: Chaos, refused: Refused, framing: str) -> None:
    server.script(*image(b"", framing=framing))
    assert refused(fetcher(), at(server)).endswith("it broke off")


def test_f70_what_is_no_image_is_not_read_to_its_end(server: Chaos, refused: Refused) -> None:
    server.script(*image(b"<html>" + bytes(100_000), framing=SIZED, length=1_000_000))
    with within(WAIT):
        assert "it is no png" in refused(fetcher(timeout=SILENCE), at(server))
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


@pytest.mark.parametrize("drip", DRIPS)
def test_f70_a_slow_drip(refused: Refused, drip: str) -> None:
    with dripping(*DRIPS[drip]) as port, within(10 * SHORT):
        reason = refused(fetcher(timeout=SHORT), f"http://images.example:{port}/cat.png")
    assert reason == f"http://images.example:{port}: it took too long"


def test_f70_a_slow_drip_of_tls(refused: Refused) -> None:
    with dripping(RECORD, b"\x00") as port, within(10 * SHORT):
        refused(fetcher(timeout=SHORT), f"https://images.example:{port}/cat.png")


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


def test_the_time_is_of_each_image(server: Chaos) -> None:
    fetch = fetcher(timeout=2 * SHORT)
    for _ in range(5):
        server.script(after(SHORT / 2), *image())
        assert fetch(at(server), PATH) == PNG


def test_a_request_has_so_many_images(server: Chaos, refused: Refused) -> None:
    names = Names()
    fetch = fetcher(names, max_images=2)
    for _ in range(2):
        server.script(*image())
        assert fetch(at(server), PATH) == PNG
    for _ in range(2):
        assert refused(fetch, at(server)) == "its URL: the request names too many images"
    assert len(names.asked) == server.connections == 2


def test_an_image_that_failed_counts(server: Chaos, refused: Refused) -> None:
    fetch = fetcher(max_images=1)
    refused(fetch, "ftp://images.example/")
    assert "too many" in refused(fetch, at(server))


def test_the_limits_that_hold_unless_others_are_given() -> None:
    assert (images.CONNECT_TIMEOUT, images.MAX_REDIRECTS) == (3.0, 3)
    assert Fetcher.__init__.__kwdefaults__ == {
        "max_bytes": 10 * 1024 * 1024,
        "timeout": 10.0,
        "max_images": 16,
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
        "from openai_compat.images import Fetcher\n"
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
