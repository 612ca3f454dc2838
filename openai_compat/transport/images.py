"""Fetching of images, and of files, that a request refers to by URL.

Clients choose the URL, so a request must never reach a server that is not public. One parser reads the URL, and only
its result is used. Every address of the host is checked; the connection is made to a checked address, not to the host
name; a redirect repeats all of this. No proxy, cookie, password or Referer is sent. Every failure has the same error
text, so that a client cannot explore a private network by it; the log has the reason.
"""

from __future__ import annotations

import logging
import math
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
from openai_compat.log import log
from openai_compat.settings import Settings

#: a function that resolves a host: host and port → IP addresses
Resolve = Callable[[str, int], list[str]]

#: seconds for connecting, with all addresses: long enough for one lost SYN, which is sent again after a second
CONNECT_TIMEOUT = 3.0
#: such as from http to https, to another host, and to a signed URL
MAX_REDIRECTS = 3
#: the bytes and the time of all images of a request, in those of one: of the default size, two fit into a request body
#: as data URIs, too
TOTAL = 2
#: characters of a URL; common web servers refuse longer request lines
MAX_URL = 8192
#: addresses of a host that are tried: enough for IPv4 and IPv6 with a spare each; a host controlled by a client may
#: have thousands
_MAX_ADDRESSES = 4
#: bytes of one read; the first shows whether it is an image
_BLOCK = 65536


class Kind(NamedTuple):
    """What is fetched: an image, or a file."""

    noun: str
    #: types that a server may choose from
    accept: str
    #: the client's error, and its code
    failed: str
    code: str
    #: what it begins with; None: anything
    signature: re.Pattern[bytes] | None

    def headers(self, host: str) -> dict[str, str]:
        """Return the headers of its request, all of them."""
        return {
            "Host": host,
            "User-Agent": "openai-compat",
            "Accept": self.accept,
            "Accept-Encoding": "identity",
            "Connection": "close",
        }


IMAGE = Kind(
    "image",
    "image/png, image/jpeg, image/gif, image/webp",
    "The image could not be fetched. Expected a public URL of a png, jpeg, gif or webp image of moderate size.",
    "invalid_image_url",
    re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.S),
)
FILE = Kind(
    "file",
    "application/pdf, text/*, */*",
    "The file could not be fetched. Expected a public URL of a file of moderate size.",
    "invalid_value",
    None,
)


_IPV6_GLOBAL_UNICAST = ip_network("2000::/3")
#: IPv4: IETF protocols, 6to4 relays; IPv6: IETF protocols with Teredo, documentation, 6to4, documentation
_SPECIAL = "192.0.0.0/24 192.88.99.0/24 2001::/23 2001:db8::/32 2002::/16 3fff::/20"
_NOT_PUBLIC = tuple(map(ip_network, _SPECIAL.split()))

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\@]")
# Stricter than the standard, so that no other parser can read another host in the URL: no user, no percent sign before
# the path.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.I | re.A,
)
#: the last label of a host that some resolvers read as an IPv4 address, such as 127.1 and 0x7f000001
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


class _Refused(Exception):
    """It is not fetched; the message is for the log."""


class _NotPublic(_Refused):
    """The URL leads to an address that is not public."""


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet. An IPv4-mapped address counts as its IPv4 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None and ip not in _IPV6_GLOBAL_UNICAST:
            return False
        ip = ip.ipv4_mapped or ip
    # is_global alone is true of multicast and relays, and of more networks in older versions of Python.
    special = ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    special = special or ip.is_private or any(ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not special and "%" not in address


def _getaddrinfo(host: str, port: int) -> list[str]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))


class _ParsedURL(NamedTuple):
    """The parts of a URL that the address check, the connection and the request use."""

    scheme: str
    #: in lower case; an IPv6 address without brackets
    host: str
    port: int
    #: scheme and authority
    origin: str
    #: path and query
    target: str


def _parse(url: str) -> _ParsedURL:
    """Parse a URL.

    :raises ValueError: the host looks like an IP address, but is not a valid one.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise _Refused("it is not a valid http or https URL")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536 or len(host) > 253:
        raise _Refused("its host or port is not valid")
    if host.startswith("["):
        host = str(IPv6Address(host[1:-1]))
    elif _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        host = str(IPv4Address(host))
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    origin += f":{port}" if port != _PORTS[scheme] else ""
    return _ParsedURL(scheme, host, port, origin, (match["path"] or "/") + (match["query"] or ""))


def _quoted(url: str, encoding: str = "utf-8") -> str:
    """Percent-encode the non-ASCII characters of a URL. The parser refuses a host that has any."""
    if len(url) > MAX_URL or _FORBIDDEN.search(url):  # parsers of URLs disagree on these characters
        raise _Refused("it is too long, or has a space, a backslash or a control character")
    return quote(url, safe=_PRINTABLE, encoding=encoding)


def _remaining(deadline: float) -> float:
    """Return the seconds until *deadline*.

    :raises TimeoutError: it has passed.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("it took too long")
    return seconds


@contextmanager
def _shut_down_at(deadline: float, sock: socket.socket) -> Iterator[None]:
    """Shut the connection down at *deadline*, even in the middle of a read.

    A socket's time-out restarts with every read, so a head, a chunk size or (under gevent) a TLS record that arrives
    byte by byte never exceeds it.

    :raises TimeoutError: the deadline passed, even if the response seems complete.
    """
    reached = threading.Event()

    def shut_down() -> None:
        reached.set()
        with suppress(OSError):  # the server may have closed the connection already
            duplicate.shutdown(socket.SHUT_RDWR)

    with sock.dup() as duplicate:  # wrapping the socket in TLS detaches it
        timer = threading.Timer(_remaining(deadline), shut_down)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if reached.is_set():
                raise TimeoutError("it took too long")


def _addresses(resolve: Resolve, url: _ParsedURL, deadline: float) -> list[str]:
    """Resolve the host. A resolver cannot be interrupted, so it runs in a thread that may outlive this call."""
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(resolve(url.host, url.port))
        except Exception as error:  # raised below, in the caller's thread
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=_remaining(deadline))
    except queue.Empty:
        raise TimeoutError("its host was not found in time") from None
    if isinstance(result, Exception):
        raise result
    return [str(ip_address(address)) for address in result]


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that accepts, with an equal share of the time for each."""
    try:
        return socket.create_connection((addresses[0], port), _remaining(deadline) / len(addresses))
    except OSError:
        if not addresses[1:]:
            raise
    return _connect(addresses[1:], port, deadline)


def _http_connection(sock: socket.socket, address: str, url: _ParsedURL) -> Any:
    """Return urllib3's connection over an open socket. It uses the host name for TLS only, and cannot resolve it."""
    from urllib3 import connection as urllib3  # not at the top: gevent must be able to patch first

    connection: Any = urllib3.HTTPConnection(address, url.port)
    if url.scheme == "https":  # without assert_hostname OpenSSL itself checks the name in the certificate
        connection = urllib3.HTTPSConnection(address, url.port, server_hostname=url.host, cert_reqs="CERT_REQUIRED")
    connection._new_conn = lambda: sock
    return connection


class Fetcher:
    """A function that fetches the images of one request, or its files, one after another.

    An image costs a client one line of text. Therefore the images of a request have a limit of bytes and of time in
    total, :data:`TOTAL` times those of one image.

    :param max_bytes: bytes of one image; compressed responses are refused.
    :param timeout: seconds for one image, from resolving its host to its last byte.
    :param max_number: images of the request, including those that fail.
    :param resolve: resolves a host name; the system's resolver by default.
    :param allowed: returns whether an IP address may be connected to.
    """

    def __init__(
        self,
        kind: Kind = IMAGE,
        *,
        max_bytes: int = Settings.max_image,
        timeout: float = Settings.image_timeout,
        max_number: int = Settings.max_images,
        resolve: Resolve = _getaddrinfo,
        allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._kind, self._max_bytes, self._timeout = kind, max_bytes, timeout
        self._remaining_number, self._remaining_bytes = max_number, TOTAL * max_bytes
        self._end: float | None = None
        self._resolve, self._allowed = resolve, allowed

    def __call__(self, url: str, path: str, seconds: float = math.inf) -> bytes:
        """Return the bytes of a png, jpeg, gif or webp image, or of any file.

        :param path: path of the request field with the URL, for the error.
        :param seconds: that are left for it.
        :raises APIError: 400, with the same text for every failure.
        """
        now = time.monotonic()
        self._end = self._end or now + TOTAL * self._timeout
        deadline = min(now + self._timeout, self._end, now + seconds)
        parsed = None
        try:
            self._remaining_number -= 1
            if self._remaining_number < 0:
                raise _Refused(f"the request has too many {self._kind.noun}s")
            parsed = _parse(_quoted(url))
            for _ in range(1 + MAX_REDIRECTS):
                result = self._request(parsed, deadline)
                if isinstance(result, bytes):
                    return result
                parsed = result
            raise _Refused("it redirects too often")
        except (_Refused, OSError, ValueError, HTTPException) as error:
            raise _failure(error, parsed, path, self._kind) from None

    def _request(self, url: _ParsedURL, deadline: float) -> bytes | _ParsedURL:
        """Return the image, or the URL that the server redirects to."""
        addresses = _addresses(self._resolve, url, deadline)
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise _NotPublic("its host has no address, or one that is not public")
        connect_deadline = min(deadline, time.monotonic() + CONNECT_TIMEOUT)
        tried = addresses[:_MAX_ADDRESSES]
        with _connect(tried, url.port, connect_deadline) as sock, _shut_down_at(deadline, sock):
            address = str(ip_address(sock.getpeername()[0]))
            if address not in addresses:
                raise _NotPublic("the connection leads to another address than was checked")
            sock.settimeout(_remaining(deadline))
            with closing(_http_connection(sock, address, url)) as connection:
                host = url.origin.partition("://")[2]
                connection.request("GET", url.target, headers=self._kind.headers(host))
                # Not urllib3's method: it logs the URL, which may contain secrets, if the head is not valid.
                with HTTPConnection.getresponse(connection) as response:
                    return self._read(url, response)

    def _read(self, url: _ParsedURL, response: HTTPResponse) -> bytes | _ParsedURL:
        if response.status in (301, 302, 303, 307, 308):
            location = response.getheader("Location")
            if not location:
                raise _Refused("it redirects without a Location")
            # urljoin only makes text: the host to connect to is the one that _parse finds. Headers are latin-1.
            return _parse(urljoin(url.origin + url.target, _quoted(location, "latin-1")))
        if response.status != 200:
            raise _Refused(f"status {response.status}")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise _Refused("it is compressed, although the request does not allow that")
        size, body = response.length, bytearray()
        limit = max(0, min(self._max_bytes, self._remaining_bytes))
        all_of_them = f"the {self._kind.noun}s of the request are too large"
        too_large = "it is too large" if limit == self._max_bytes else all_of_them
        if size is not None and size > limit:
            raise _Refused(too_large)
        while block := response.read(min(_BLOCK, limit + 1 - len(body))):
            body += block
            self._remaining_bytes -= len(block)
            if len(body) > limit:
                raise _Refused(too_large)
            if self._kind.signature is not None and not self._kind.signature.match(body):
                raise _Refused("it is not a png, jpeg, gif or webp image")
        if not body or (size is not None and len(body) < size):
            raise _Refused("it is incomplete")
        return bytes(body)


def _failure(error: Exception, url: _ParsedURL | None, path: str, kind: Kind) -> APIError:
    """Log why it was not fetched, without the URL's path and the server's text, and return the client's error."""
    reason = str(error) if isinstance(error, _Refused | OSError) else type(error).__name__
    level = logging.WARNING if isinstance(error, _NotPublic) else logging.INFO
    log.log(level, "%s: no %s from %s: %s", path, kind.noun, url.origin if url else "its URL", reason)
    return invalid(kind.failed, path, kind.code)
