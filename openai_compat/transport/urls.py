"""Where an Ollama is: URLs, and the forms of ``OLLAMA_HOST``. Pure text, no network."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

DEFAULT_PORT = 11434

_NO_BASE = re.compile(r"[\x00-\x20\x7f?#\\]")


def checked_url(url: str) -> str:
    """The base URL of an Ollama, without a slash at its end.

    :raises ValueError: no http or https URL of a server, or OpenAI's side of one (it ends in ``/v1``).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{redacted(url)!r} is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or _NO_BASE.search(url):
        raise ValueError(f"{redacted(url)!r} is no http or https URL of a server")
    url = url.rstrip("/")
    if url.endswith("/v1"):
        native_url = redacted(url[:-3].rstrip("/"))
        raise ValueError(f"{redacted(url)!r} is an OpenAI API; the native API of the same server is {native_url!r}")
    return url


def redacted(url: str) -> str:
    """The URL without user and password."""
    # Up to the last @, wherever it is: what is shown is often no URL, and passwords hold all that they must not.
    return re.sub(r"^(\s*[A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.S)


def redacted_text(text: str) -> str:
    """A text, such as an exception's, without the user and password of any URL in it."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


def from_ollama_host(text: str) -> str:
    """The URL that a value of ``OLLAMA_HOST`` means to a client.

    ``host``, ``host:port``, ``:port``, ``[::1]:port``, with or without a scheme and a path. The port is 11434
    without a scheme, else the scheme's own; an address that means "all" is this machine.

    :raises ValueError: the port is none.

    Source: ollama ``envconfig/config.go`` ``Host``, ``ConnectableHost``.
    """
    scheme, separator, rest = text.strip().strip("\"'").rpartition("://")
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    authority, slash, path = rest.partition("/")
    user, at, authority = authority.rpartition("@")
    host, port = _split(authority)
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError(f"{redacted(text)!r} has no usable port")
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
