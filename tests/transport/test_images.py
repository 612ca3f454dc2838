"""Images by URL: which addresses are public, which URLs are read, which names are resolved (9.2, F70)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from openai_compat.transport import images
from openai_compat.transport.images import Fetcher, is_public
from tests.chaos import WAIT, Chaos, answer
from tests.transport.images import (
    DANGEROUS,
    ELSEWHERE,
    ENDED,
    HERE,
    PATH,
    PNG,
    PUBLIC,
    SHORT,
    SILENCE,
    SPELLINGS,
    Names,
    Refused,
    after,
    at,
    fetcher,
    full,
    image,
    moved,
    within,
)

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
    assert (names.lookups, server.connections) == ([], 0)


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
    assert names.lookups == []


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
    assert names.lookups == [(host, port)]


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
    assert names.lookups == [("images.example", server.port)]
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
    """Rebinding: what is public when it is checked is private when it is resolved again."""
    names = Names([HERE], [ELSEWHERE])
    server.script(*image())
    assert fetcher(names)(at(server), PATH) == PNG
    assert names.lookups == [("images.example", server.port)]
    assert forbidden()


def test_f70_a_redirect_looks_the_name_up_again(server: Chaos, forbidden: Callable[[], bool], refused: Refused) -> None:
    names = Names([HERE], [ELSEWHERE])
    server.script(*moved("/other.png"))
    assert "not public" in refused(fetcher(names), at(server))
    assert len(names.lookups) == 2
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


@pytest.mark.slow
def test_the_time_to_connect_is_not_the_time_to_answer(server: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CONNECT_TIMEOUT", SHORT)
    server.script(after(2 * SHORT), *image())
    assert fetcher()(at(server), PATH) == PNG


@pytest.mark.slow
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
    assert names.lookups == [("images.example", server.port), ("other.example", server.port)]
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
    assert (len(names.lookups), server.connections) == (1, 1)
    assert server.gone.get(timeout=WAIT) == 1


@pytest.mark.parametrize("host", [ELSEWHERE, "private.example"])
@pytest.mark.parametrize("text", ["http://{host}:{port}/", "//{host}:{port}/"])
def test_f70_a_redirect_to_a_private_address(
    server: Chaos, forbidden: Callable[[], bool], refused: Refused, host: str, text: str
) -> None:
    names = Names([HERE], [ELSEWHERE])
    server.script(*moved(text.format(host=host, port=server.port)))
    assert refused(fetcher(names), at(server)).startswith(f"http://{host}:{server.port}: its host has no address, or")
    assert [host_name for host_name, _ in names.lookups] == ["images.example", host]
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
    assert refused(fetcher(), at(server)).endswith("it redirects without a Location")
    assert server.connections == 1


@pytest.mark.slow
def test_f70_the_time_is_of_all_redirects_together(server: Chaos, refused: Refused) -> None:
    for _ in range(4):
        server.script(after(0.7 * SHORT), *moved("/next"))
    assert refused(fetcher(timeout=2 * SHORT), at(server)).endswith(ENDED)
    assert server.connections > 1


@pytest.mark.parametrize(("length", "lookups"), [(8192, 1), (8193, 0)])
def test_f70_a_url_has_8192_characters_at_most(length: int, lookups: int, refused: Refused) -> None:
    names = Names([])
    refused(fetcher(names), "http://images.example/".ljust(length, "a"))
    assert len(names.lookups) == lookups
