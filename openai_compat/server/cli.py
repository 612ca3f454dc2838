"""The command line: ``openai-compat serve`` and ``openai-compat check``.

Every scalar setting has a flag and an environment variable, derived from ``Settings``. No module-level import may load
``requests`` or a server: gevent must be able to patch first.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field
from typing import Any
from urllib.parse import urlsplit

from openai_compat import __version__
from openai_compat.server.config import SAMPLINGS, from_toml
from openai_compat.server.serve import DEFAULTS
from openai_compat.settings import Settings, environment_name, scalars
from openai_compat.transport.headers import checked_headers
from openai_compat.transport.urls import from_ollama_host, redacted

WORKER_CLASSES = ("gthread", "gevent")
_CHOICES: dict[str, tuple[str, ...]] = {"overflow": ("error", "truncate"), "unsupported": ("warn", "error")}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a command and return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 2
    try:
        if given.command == "serve":
            if _worker_class(given, environ) == "gevent":
                _patch(parser)
            return _serve(given, environ)
        address = from_ollama_host(given.url or environ.get("OLLAMA_HOST") or "")
        headers, verify = _headers(given, environ), _verify(given, environ)
        from openai_compat.server.check import check

        return check(address, model=given.model, headers=headers, verify=verify)
    except ValueError as error:
        parser.exit(2, f"openai-compat: {error}\n")


def _serve(given: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if given.demo and given.upstream:
        raise ValueError("--demo is a backend of its own: it does not go with --upstream")
    is_demo = not given.upstream and _flag(given, "demo", environ)
    threads = _number(given, "threads", environ)
    # A thread that waits for a connection serves no request: the pool is as large as the server.
    configured = from_toml(path) if (path := _value(given, "config", environ)) else {}
    values = {**({"pool_size": threads} if threads else {}), **configured, **_settings(given, environ)}
    try:
        settings = Settings(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
    _check_configured(settings, workers=_number(given, "workers", environ))
    upstream, bind = None if is_demo else _upstream(given, environ), _bind(given, environ)
    if upstream and _is_same_place(upstream, bind or DEFAULTS["bind"]):
        raise ValueError(f"{redacted(upstream)} is where this server is to listen itself: name another upstream")
    from openai_compat.server.serve import ServerConfig, serve

    return serve(
        ServerConfig(
            upstream=upstream,
            headers=_headers(given, environ),
            verify=_verify(given, environ),
            settings=settings,
            server={
                "bind": bind,
                "workers": _number(given, "workers", environ),
                "threads": threads,
                "worker_class": _worker_class(given, environ),
            },
        )
    )


def _check_configured(settings: Settings, *, workers: int | None) -> None:
    """Find errors here that would otherwise stop every worker at its start.

    :raises ValueError: the settings name a store that cannot be used.
    """
    from openai_compat.middleware.app import opened_store

    _check_directory(settings.store or "")
    if opened_store(settings) is not None and settings.store in _IN_MEMORY and (workers or 1) > 1:
        sys.stderr.write("openai-compat: each worker has a store of its own in memory; use a file or a server\n")


def _check_directory(store: str) -> None:
    """Check that the directory of a SQLite file exists and is writable.

    :raises ValueError: it is not.
    """
    _, separator, path = store.partition("sqlite:///")
    directory = os.path.dirname(os.path.abspath(path))
    if separator and path != ":memory:" and not os.access(directory, os.W_OK):
        raise ValueError(f"--store: {directory!r} is no directory that can be written to")


#: stores that are seen by one process only
_IN_MEMORY = ("sqlite://", "sqlite:///:memory:")


def _patch(parser: argparse.ArgumentParser) -> None:
    try:
        import packaging  # noqa: F401  (gunicorn's gevent worker needs it, and does not say so)
        from gevent import monkey
    except ImportError:
        parser.exit(2, "openai-compat: gevent workers need the extra 'gevent': in a clone: pip install '.[gevent]'\n")
    monkey.patch_all()


def _upstream(given: argparse.Namespace, environ: Mapping[str, str]) -> str:
    text = _value(given, "upstream", environ) or environ.get("OLLAMA_HOST") or ""
    return from_ollama_host(text)


def _headers(given: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the flags, else of the variable, one a line: arguments are visible in process lists."""
    lines = given.upstream_header or environ.get(environment_name("upstream_header"), "").splitlines()
    pairs = [header.partition(":") for header in lines]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError("an upstream header is written 'Name: value'")
    return checked_headers({name.strip(): value.strip() for name, _, value in pairs})


def _verify(given: argparse.Namespace, environ: Mapping[str, str]) -> bool | str:
    path: str = _value(given, "ca_bundle", environ) or ""
    if path and not os.path.exists(path):
        raise ValueError(f"--ca-bundle: there is no {path!r}")
    return path or True


def _bind(given: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    bind: str | None = _value(given, "bind", environ)
    port = re.search(r":([0-9]+)$", bind or "")
    if port and int(port[1]) > 65535:
        raise ValueError(f"--bind: {bind!r} has no usable port")
    return bind


def _is_same_place(upstream: str, bind: str) -> bool:
    url, (host, _, port) = urlsplit(upstream), bind.rpartition(":")
    here = {"", "0.0.0.0", "127.0.0.1", "localhost", "[::]", "[::1]"}
    url_port = url.port or {"http": 80, "https": 443}[url.scheme]
    named = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return port == str(url_port) and (named == host or (named in here and host in here))


def _worker_class(given: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    name: str | None = _value(given, "worker_class", environ)
    if name not in (None, *WORKER_CLASSES):
        variable = environment_name("worker_class")
        raise ValueError(f"{variable} must be one of {', '.join(WORKER_CLASSES)}, not {name!r}")
    return name


# -- flags and the environment ----------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openai-compat", description="OpenAI's HTTP API for an Ollama.")
    parser.add_argument("--version", action="version", version=f"openai-compat {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    server = commands.add_parser("serve", help="serve the API under gunicorn", formatter_class=_Help)
    server.add_argument(
        "--upstream",
        metavar="URL",
        help=_help("upstream", "the Ollama to serve; else OLLAMA_HOST, else port 11434 here"),
    )
    server.add_argument(
        "--demo", action="store_true", default=None, help=_help("demo", "serve the built-in demo backend")
    )
    server.add_argument("--bind", metavar="HOST:PORT", help=_help("bind", "where to listen", DEFAULTS["bind"]))
    server.add_argument(
        "--threads", type=int, metavar="N", help=_help("threads", "requests at a time in a worker", DEFAULTS["threads"])
    )
    server.add_argument("--workers", type=int, metavar="N", help=_help("workers", "processes", DEFAULTS["workers"]))
    server.add_argument(
        "--worker-class",
        choices=WORKER_CLASSES,
        help=_help("worker_class", "threads, or greenlets", DEFAULTS["worker_class"]),
    )
    server.add_argument(
        "--config", metavar="FILE", help=_help("config", "a TOML file of settings; flags and variables win over it")
    )
    _add_upstream_flags(server)
    settings = server.add_argument_group("settings of the middleware")
    for row in scalars():
        _add_flag(settings, row)
    settings.add_argument("--sampling", choices=tuple(SAMPLINGS), help=_help("sampling", "how sampling parameters map"))
    tester = commands.add_parser("check", help="ask a backend what works", formatter_class=_Help)
    tester.add_argument(
        "url", metavar="URL", nargs="?", help="the Ollama to ask; else OLLAMA_HOST, else port 11434 here"
    )
    tester.add_argument("--model", help="the model to chat with; else a loaded one, else the first that can chat")
    _add_upstream_flags(tester)
    return parser


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)


def _add_upstream_flags(parser: argparse.ArgumentParser) -> None:
    text = "sent with every native request, as 'Name: value'; may be repeated (in the variable: a line each)"
    parser.add_argument("--upstream-header", action="append", metavar="HEADER", help=_help("upstream_header", text))
    text = "certificates to trust instead of the usual ones"
    parser.add_argument("--ca-bundle", metavar="FILE", help=_help("ca_bundle", text))


def _add_flag(parser: argparse._ArgumentGroup, row: Field[Any]) -> None:
    flag, text = "--" + row.name.replace("_", "-"), _help(row.name, row.metadata["help"].replace("``", ""), row.default)
    if row.type == "bool":
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        kind = {"int": int, "float": float}.get(str(row.type), str)
        metavar = None if row.name in _CHOICES else {"int": "N", "float": "SECONDS"}.get(str(row.type), "TEXT")
        parser.add_argument(flag, type=kind, choices=_CHOICES.get(row.name), metavar=metavar, help=text)


def _help(name: str, text: str, default: object = None) -> str:
    return f"{text} [{environment_name(name)}" + ("]" if default is None else f", default {default}]")


def _settings(given: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that are given by a flag or a variable."""
    found: dict[str, Any] = {}
    for row in scalars():
        value = getattr(given, row.name)
        text = environ.get(environment_name(row.name))
        # An empty variable is an unset one, as compose files write it; only a prefix may be empty.
        if value is None and (text or (text == "" and row.name == "prefix")):
            value = _parsed(row, text)
        if value is not None:
            found[row.name] = value
    sampling = _value(given, "sampling", environ)
    if sampling is not None:
        if sampling not in SAMPLINGS:
            raise ValueError(f"{environment_name('sampling')} must be one of {', '.join(SAMPLINGS)}, not {sampling!r}")
        found["sampling"] = SAMPLINGS[sampling]
    return found


def _parsed(row: Field[Any], text: str) -> Any:
    name = environment_name(row.name)
    if row.type == "bool":
        return _boolean(name, text)
    try:
        return {"int": int, "float": float}.get(str(row.type), str)(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"{name} must be true or false, not {text!r}")
    return text.lower() in _TRUE


def _value(given: argparse.Namespace, name: str, environ: Mapping[str, str]) -> Any:
    """Return the value of a flag, else of its variable, else None."""
    value = getattr(given, name)
    return environ.get(environment_name(name)) or None if value is None else value


def _number(given: argparse.Namespace, name: str, environ: Mapping[str, str]) -> int | None:
    value = _value(given, name, environ)
    try:
        number = value if value is None else int(value)
    except ValueError:
        raise ValueError(f"{environment_name(name)} must be a number, not {value!r}") from None
    if number is not None and number < 1:
        raise ValueError(f"--{name} must be at least 1")
    return number


def _flag(given: argparse.Namespace, name: str, environ: Mapping[str, str]) -> bool:
    value = _value(given, name, environ)
    return bool(value) if value is None or isinstance(value, bool) else _boolean(environment_name(name), value)
