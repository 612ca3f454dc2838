"""The images that a request names by URL.

The rule: a URL is a stranger's, and may only reach a public server. One parser reads it, and only what that parser
found is used. Every address of its host is checked, the connection goes to a checked address and never to a name,
and a redirect begins anew. Nothing of this machine goes along: no proxy, cookie, password or Referer. Whatever goes
wrong, the client reads one and the same text, or it could search a network by it; the log says why.
"""

from __future__ import annotations

import logging
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

from openai_compat.errors import APIError, invalid
from openai_compat.settings import MEBIBYTE

log = logging.getLogger("openai_compat")

#: host and port → the IP addresses of the host
Resolve = Callable[[str, int], list[str]]

#: seconds that connecting may take, with all that is tried
CONNECT_TIMEOUT = 3.0
MAX_REDIRECTS = 3
#: characters of a URL
MAX_URL = 8192
_MAX_TRIED = 4  # addresses of a host: a stranger's long list is no reason to knock at a thousand doors
_BLOCK = 65536  # bytes that are read at once

_TEXT = "The image could not be fetched. Expected a public URL of a png, jpeg, gif or webp image of moderate size."
_IMAGE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.S)
_HEADERS = {
    "User-Agent": "openai-compat",
    "Accept": "image/png, image/jpeg, image/gif, image/webp",
    "Accept-Encoding": "identity",
    "Connection": "close",
}

_GLOBAL_6 = ip_network("2000::/3")
#: IETF protocols, relays (IPv4); IETF protocols with Teredo, documentation, 6to4, documentation (IPv6)
_SPECIAL = "192.0.0.0/24 192.88.99.0/24 2001::/23 2001:db8::/32 2002::/16 3fff::/20"
_NOT_PUBLIC = tuple(map(ip_network, _SPECIAL.split()))

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\@]")
# Whoever reads a URL in another way must not find another host in it: no user, no percent sign before the path.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.I | re.A,
)
#: the last label of a host that some take for an IPv4 address, each in its own way
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class _Refused(Exception):
    """It is not fetched; the text is for the log."""


class _NotPublic(_Refused):
    """It led to what may not be public."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open network. A mapped IPv4 address is judged as that IPv4 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None and ip not in _GLOBAL_6:
            return False
        ip = ip.ipv4_mapped or ip
    # is_global alone lets multicast and relays through, and more in older versions.
    special = ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    special = special or ip.is_private or any(ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not special and "%" not in address


def _getaddrinfo(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class _Place(NamedTuple):
    """All of a URL that is used: by the check, by the connection and by the request."""

    scheme: str
    #: in lower case; an IPv6 address without its brackets
    host: str
    port: int
    #: scheme and authority
    origin: str
    #: path and query
    target: str


def _place(url: str) -> _Place:
    """Read a URL: the one parser. A host that looks like an IP address, and is none, is a ValueError."""
    found = _URL.fullmatch(url)
    if found is None:
        raise _Refused("it is no plain http or https URL")
    scheme, host = found["scheme"].lower(), found["host"].lower()
    port = int(found["port"] or _PORTS[scheme])
    if not 0 < port < 65536 or len(host) > 253:
        raise _Refused("its host or its port cannot be")
    if host.startswith("["):
        host = str(IPv6Address(host[1:-1]))
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        host = str(IPv4Address(host))
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    origin += f":{port}" if port != _PORTS[scheme] else ""
    return _Place(scheme, host, port, origin, (found["path"] or "/") + (found["query"] or ""))


def _quoted(url: str, encoding: str = "utf-8") -> str:
    """A URL in ASCII. What is not is percent-encoded, and so refused in a host."""
    if len(url) > MAX_URL or _FORBIDDEN.search(url):  # readers of URLs disagree on these characters
        raise _Refused("it is too long, or has a space, a backslash or a control character")
    return quote(url, safe=_PRINTABLE, encoding=encoding)


def _left(deadline: float) -> float:
    """The seconds that are left; a TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


@contextmanager
def _cut_at(deadline: float, sock: socket.socket) -> Iterator[None]:
    """End a connection when its time is up, whatever it is doing.

    The time-out of a socket begins anew with each read: a head, a line of the framing or (under gevent) a TLS record
    that drips byte by byte would never meet it. It ends in a TimeoutError, though what came may seem whole.
    """
    reached = threading.Event()

    def cut() -> None:
        reached.set()
        with suppress(OSError):  # its other side was first
            twin.shutdown(socket.SHUT_RDWR)

    with sock.dup() as twin:  # TLS takes the socket itself away
        timer = threading.Timer(_left(deadline), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if reached.is_set():
                raise TimeoutError("it took too long")


def _resolved(resolve: Resolve, place: _Place, deadline: float) -> list[str]:
    """The addresses of a host, in time. Asking cannot be stopped: its thread may outlive this call."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(place.host, place.port))
        except Exception as error:  # raised below, where somebody waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError("its host was not found in time") from None
    if isinstance(answer, Exception):
        raise answer
    return [str(ip_address(address)) for address in answer]


def _connected(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes one, each within its share of the time."""
    try:
        return socket.create_connection((addresses[0], port), _left(deadline) / len(addresses))
    except OSError:
        if not addresses[1:]:
            raise
    return _connected(addresses[1:], port, deadline)


def _over(sock: socket.socket, address: str, place: _Place) -> Any:
    """urllib3's connection over a socket. It has the name for TLS only, and no way to look it up."""
    from urllib3 import connection as urllib3  # not above: gevent must be able to patch first

    connection: Any = urllib3.HTTPConnection(address, place.port)
    if place.scheme == "https":  # without assert_hostname OpenSSL itself compares the names
        connection = urllib3.HTTPSConnection(address, place.port, server_hostname=place.host, cert_reqs="CERT_REQUIRED")
    connection._new_conn = lambda: sock
    return connection


class Fetcher:
    """Fetches the images of one request.

    :param max_bytes: of an image, as sent; nothing is inflated.
    :param timeout: seconds that an image may take in all, from its name to its last byte.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 10 * MEBIBYTE,
        timeout: float = 10.0,
        max_images: int = 16,
        resolve: Resolve = _getaddrinfo,
        allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._max_bytes, self._timeout, self._left = max_bytes, timeout, max_images
        self._resolve, self._allowed = resolve, allowed

    def __call__(self, url: str, path: str) -> bytes:
        """The bytes of a png, jpeg, gif or webp image.

        :param path: the field of the request that names it, for the error.
        :raises APIError: 400 with one text for whatever went wrong.
        """
        deadline, place = time.monotonic() + self._timeout, None
        try:
            self._left -= 1
            if self._left < 0:
                raise _Refused("the request names too many images")
            place = _place(_quoted(url))
            for _ in range(1 + MAX_REDIRECTS):
                found = self._asked(place, deadline)
                if isinstance(found, bytes):
                    return found
                place = found
            raise _Refused("it redirects too often")
        except (_Refused, OSError, ValueError, HTTPException) as error:
            raise _failure(error, place, path) from None

    def _asked(self, place: _Place, deadline: float) -> bytes | _Place:
        """The image, or where else it is said to be."""
        addresses = _resolved(self._resolve, place, deadline)
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise _NotPublic("its host has no address, or one that is not public")
        connected = min(deadline, time.monotonic() + CONNECT_TIMEOUT)
        with _connected(addresses[:_MAX_TRIED], place.port, connected) as sock, _cut_at(deadline, sock):
            address = str(ip_address(sock.getpeername()[0]))
            if address not in addresses:
                raise _NotPublic("the connection leads to another address than was checked")
            sock.settimeout(_left(deadline))
            with closing(_over(sock, address, place)) as connection:
                host = place.origin.partition("://")[2]
                connection.request("GET", place.target, headers={"Host": host, **_HEADERS})
                # Not urllib3's own: of a head with a fault it would log the URL, secrets and all.
                with HTTPConnection.getresponse(connection) as response:
                    return self._answered(place, response)

    def _answered(self, place: _Place, response: HTTPResponse) -> bytes | _Place:
        if response.status in (301, 302, 303, 307, 308):
            location = response.getheader("Location")
            if not location:
                raise _Refused("it redirects to nowhere")
            # Joining only writes a text: who is asked next is what the one parser reads in it. Headers are latin-1.
            return _place(urljoin(place.origin + place.target, _quoted(location, "latin-1")))
        if response.status != 200:
            raise _Refused(f"status {response.status}")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise _Refused("it is compressed, though asked for as it is")
        size, body = response.length, bytearray()
        if size is not None and size > self._max_bytes:
            raise _Refused("it is too large")
        while block := response.read(min(_BLOCK, self._max_bytes + 1 - len(body))):
            body += block
            if len(body) > self._max_bytes:
                raise _Refused("it is too large")
            if not _IMAGE.match(body):
                raise _Refused("it is no png, jpeg, gif or webp image")
        if not body or (size is not None and len(body) < size):
            raise _Refused("it broke off")
        return bytes(body)


def _failure(error: Exception, place: _Place | None, path: str) -> APIError:
    """Log why an image is not fetched, without what a URL may hide and a server may have written."""
    reason = str(error) if isinstance(error, _Refused | OSError) else type(error).__name__
    level = logging.WARNING if isinstance(error, _NotPublic) else logging.INFO
    log.log(level, "%s: no image from %s: %s", path, place.origin if place else "its URL", reason)
    return invalid(_TEXT, path, "invalid_image_url")
