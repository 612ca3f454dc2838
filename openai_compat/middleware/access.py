"""Who may call: the ``Host`` and the ``Origin`` of a request, CORS, and the login of the site.

A web page can let a browser send requests to a server in the same network, also by a name that it lets point there (DNS
rebinding), so a server without a login must look at both headers, as Ollama does. With a login by cookies every page
can send requests in the name of its visitor. Routing never depends on these headers (F64).

Source: ollama ``server/routes.go`` ``allowedHostsMiddleware``, ``allowedHost``; ``envconfig/config.go``
``AllowedOrigins``. Differs: ``[::1]`` and names below ``localhost`` are origins too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.settings import LOCAL, Authenticate, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Headers = list[tuple[str, str]]

#: schemes of applications on the same machine; any page of theirs is an origin that Ollama allows
_LOCAL_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_LOCAL_DOMAINS = (".local", ".internal", ".localhost")
#: as Go's ``netip.Addr.IsPrivate`` knows them
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_PORTS = {"http": 80, "https": 443}

#: response headers that a page may read, beside those that every page may
_EXPOSED = "openai-compat-ignored, openai-processing-ms, retry-after, x-request-id, x-should-retry"
_METHODS = "GET, POST, DELETE, HEAD, OPTIONS"
#: a name of a header in ``Access-Control-Request-Headers``
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
#: seconds for which a browser remembers the answer to a preflight request; Ollama's value
_MAX_AGE = "43200"


class Access:
    """The checks of every request, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins
        self._authenticate = settings.authenticate

    def check_host(self, environ: WSGIEnvironment) -> None:
        """Check the ``Host``.

        :raises APIError: 403 for one that is not allowed.
        """
        if self._hosts is None:
            return
        host = _without_port(environ.get("HTTP_HOST", "")).lower()
        if any(_is_local_host(host) if allowed == LOCAL else _matches(allowed, host) for allowed in self._hosts):
            return
        log.warning("refused a request for the host %r; the setting allowed_hosts names those that are allowed", host)
        raise APIError(403, "This host name is not allowed here.", code="host_not_allowed")

    def cors_headers(self, environ: WSGIEnvironment) -> Headers:
        """Check the ``Origin``, and return the response headers by which a page of it may read the response.

        A page of the server itself needs none.

        :raises APIError: 403 for an origin that is not allowed.
        """
        origin = environ.get("HTTP_ORIGIN", "")
        if not origin or (self._origins is None and self._authenticate is None):
            return []
        if _is_same(origin, environ.get("HTTP_HOST", "")):
            return []
        allowed = self._origins or ()
        named = [pattern for pattern in allowed if pattern != "*" and _admits(pattern, origin)]
        if not named and "*" not in allowed:
            log.warning(
                "refused a request of the origin %r; allowed_origins names those that are allowed", origin[:200]
            )
            raise APIError(403, "This origin is not allowed here.", code="origin_not_allowed")
        headers = [
            ("Access-Control-Allow-Origin", origin if named else "*"),
            ("Access-Control-Expose-Headers", _EXPOSED),
            ("Vary", "Origin"),
        ]
        if self._authenticate is not None and any(map(_names_a_site, named)):
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers

    def owner(self, environ: WSGIEnvironment) -> str | None:
        """Return who the caller is, as a digest; None if the settings require no login.

        :raises APIError: 401 for a caller without a login; the one that the function of the settings raises; 500 for
            any other failure of that function.
        """
        if self._authenticate is None:
            return None
        name = _call(self._authenticate, environ)
        if name is None or name == "":
            raise APIError(401, "You must be signed in.", code="invalid_api_key")
        return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()


def preflight_headers(environ: WSGIEnvironment) -> Headers | None:
    """Return the headers of the response to a preflight request; None for any other request."""
    if environ["REQUEST_METHOD"] != "OPTIONS" or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
        return None
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").split(",")
    names = sorted({name.strip().lower() for name in asked if _NAME.fullmatch(name.strip())})
    return [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", ", ".join(names[:100])),
        ("Access-Control-Max-Age", _MAX_AGE),
    ]


def _call(authenticate: Authenticate, environ: WSGIEnvironment) -> str | None:
    try:
        name: object = authenticate(environ)
    except APIError:
        raise
    except Exception:
        log.exception("authenticate() failed; the request was refused")
    else:
        if name is None or isinstance(name, str):
            return name
        if isinstance(name, int) and not isinstance(name, bool):
            return str(name)
        log.error("authenticate() returned a %s, not a name or None; the request was refused", type(name).__name__)
    raise APIError(500, "The login could not be checked.", code="internal_error", retry=False)


# -- hosts and origins ------------------------------------------------------------------------


def _without_port(host: str) -> str:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?", host)
    return match[1] if match else host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_local_host(host: str) -> bool:
    """Return whether Ollama takes a ``Host`` for one of this machine or its network.

    :param host: in lower case, without the port; ``""`` if there is none.
    """
    address = _address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified or any(address in network for network in _PRIVATE)
    return host in ("", "localhost", socket.gethostname().lower()) or host.endswith(_LOCAL_DOMAINS)


def _is_same(origin: str, host: str) -> bool:
    """Return whether a page of an origin was loaded from this host; the scheme may be that of a proxy."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _PORTS or not host:
        return False
    names = {parts.netloc.lower()}
    if port in (None, _PORTS[parts.scheme]):
        name = _without_port(parts.netloc.lower())
        names |= {name, f"{name}:{_PORTS[parts.scheme]}"}
    return host.lower() in names


def _matches(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern, in which ``*`` stands for any text."""
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.I | re.S))


def _admits(pattern: str, origin: str) -> bool:
    if pattern == LOCAL:
        return _is_local_origin(origin)
    # A "*" in a pattern must not run over the end of a host: https://*.example.com is not https://evil.com/.example.com
    return _matches(pattern, origin) and origin.count("/") == pattern.count("/")


def _names_a_site(pattern: str) -> bool:
    """Return whether a pattern admits the pages of one site only, so that they may send the visitor's cookies."""
    host = re.sub(r":[^:\]]*$", "", pattern.partition("://")[2])
    return bool(host.replace("*", "").strip(".")) and (
        host.count("*") == 0 or bool(re.fullmatch(r"\*\.[^*]+\.[^*]+", host))
    )


def _is_local_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme in _LOCAL_SCHEMES:
        return True
    host = (parts.hostname or "").lower()
    if parts.scheme not in _PORTS or not host or origin.count("/") != 2 or "@" in origin:
        return False
    address = _address(host)
    if address is not None:
        return address.is_loopback or (address.is_unspecified and address.version == 4)
    return host == "localhost" or host.endswith(".localhost")


def is_local_address(bind: str) -> bool:
    """Return whether a server that listens at an address is meant for this machine or its network.

    :param bind: ``host:port`` in gunicorn's syntax; a Unix socket has other guards.
    """
    host = _without_port(bind).lower()
    address = _address(host)
    if address is None:
        return host == "localhost"
    return (address.is_loopback or address.is_private) and not address.is_unspecified
