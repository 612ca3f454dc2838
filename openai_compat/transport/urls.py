"""URLs of Ollama servers, and values of ``OLLAMA_HOST``. Only text is handled here; nothing is resolved or called."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

DEFAULT_PORT = 11434

_NOT_IN_BASE_URL = re.compile(r"[\x00-\x20\x7f?#\\]")


#: a scheme with one slash, which would be read as a host
_TYPED_WRONG = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:/", re.A)

#: ends of a URL that belong to a route, not to a server's base URL → the name of the API
_ROUTES = (
    (re.compile(r"/v1(/(chat/completions|completions|embeddings|models|responses))?$"), "an OpenAI API"),
    (re.compile(r"/api(/(chat|generate|embed|embeddings|tags|show|ps|version))?$"), "a route of Ollama's API"),
)


def checked_url(url: str) -> str:
    """Check the base URL of an Ollama server, and return it without a trailing slash.

    :param url: an http or https URL, ``unix:///path/to.sock``, or a form of ``OLLAMA_HOST`` without a scheme.
    :raises ValueError: it is not valid, or it is the URL of an API (it ends in ``/v1`` or ``/api``), not of a server.
    """
    if url.startswith("unix:"):
        return _checked_unix(url)
    if "://" not in url:
        return from_ollama_host(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{redacted(url)!r} is not a valid URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or _NOT_IN_BASE_URL.search(url):
        raise ValueError(f"{redacted(url)!r} is not a valid http or https URL of a server")
    url = url.rstrip("/")
    for route, name in _ROUTES:
        if found := route.search(url):
            base = redacted(url[: found.start()].rstrip("/"))
            raise ValueError(f"{redacted(url)!r} is {name}; the native API of the same server is {base!r}")
    return url


def _checked_unix(url: str) -> str:
    """Return the URL of a Unix socket, as ``unix:///path``.

    :raises ValueError: its path is not absolute, or has characters that a URL cannot have.
    """
    path = re.sub(r"^unix:(//(?=/))?", "", url)
    if not re.match("/[^/]", path) or path.endswith("/") or _NOT_IN_BASE_URL.search(path):
        raise ValueError(f"{url!r} is not a valid URL of a Unix socket (unix:///path/to.sock)")
    return f"unix://{path}"


def unix_path(url: str) -> str | None:
    """Return the path of a checked URL of a Unix socket; None for another URL."""
    return url.removeprefix("unix://") if url.startswith("unix://") else None


def without_query(url: str) -> str:
    """Return a URL without its query and fragment, which may hold secrets."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def redacted(url: str) -> str:
    """Return a URL with user and password replaced by ``***``; *url* need not be valid."""
    # Up to the last @: a password that is not percent-encoded may contain "@", "/" or "#".
    return re.sub(r"^(\s*[A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.S)


def redacted_text(text: str) -> str:
    """Return a text, such as an exception's message, with user and password of every URL in it replaced."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


def from_ollama_host(text: str) -> str:
    """Return the URL at which a client reaches the server of an ``OLLAMA_HOST``.

    :param text: ``host``, ``host:port``, ``:port`` or ``[::1]:port``, each with or without a scheme and a path. The
        default port is the scheme's, or 11434 without a scheme; an empty or unspecified host (``0.0.0.0``, ``::``) is
        this machine. ``unix:///path/to.sock`` is a Unix socket.
    :raises ValueError: the port or the URL is not valid.

    Source: ollama ``envconfig/config.go`` ``Host``, ``ConnectableHost``. Differs: Unix sockets.
    """
    text = text.strip().strip("\"'")
    if text.startswith("unix:"):
        return _checked_unix(text)
    if "://" not in text and _TYPED_WRONG.match(text):
        raise ValueError(f"{redacted(text)!r} is not a valid http or https URL of a server")
    scheme, separator, rest = text.rpartition("://")
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    authority, slash, path = rest.partition("/")
    if slash and not authority:
        raise ValueError(f"{redacted(text)!r} is not a valid http or https URL of a server")
    user, at, authority = authority.rpartition("@")
    host, port = _split(authority)
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError(f"{redacted(text)!r} does not have a valid port")
    return checked_url(f"{scheme or 'http'}://{user}{at}{_connectable(host)}:{port or default}{slash}{path}")


def _split(authority: str) -> tuple[str, str]:
    if _is_ipv6(authority.strip("[]")):
        return authority.strip("[]"), ""
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    return host.strip("[]"), port


def _connectable(host: str) -> str:
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
