"""The command line: ``openai-compat serve``, ``openai-compat check`` and ``openai-compat record``.

Every scalar setting has a flag and an environment variable, both derived from ``Settings``: a new setting needs no line
here. No import at the top may load ``requests`` or a server, since gevent must patch the standard library before.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from openai_compat import __version__
from openai_compat.server.config import SAMPLINGS, from_toml
from openai_compat.server.incoming_request import RECEIVE_TIMEOUT
from openai_compat.server.serve import DEFAULTS
from openai_compat.settings import IN_MEMORY, LOCAL, Settings, environment_name, scalars
from openai_compat.transport.headers import checked_headers
from openai_compat.transport.urls import from_ollama_host, redacted, unix_path

N = TypeVar("N", int, float)

#: gunicorn's worker classes that serve several requests at once, as streams require
WORKER_CLASSES = ("gthread", "gevent")
#: the values of settings that have a fixed set
_CHOICES: dict[str, tuple[str, ...]] = {
    "overflow": ("error", "truncate"),
    "unsupported": ("warn", "error"),
    "store_failure": ("answer", "refuse"),
    "tools_with_format": ("two_calls", "format"),
    "reasoning_field": ("both", "reasoning", "reasoning_content", "none"),
}
#: texts of a boolean variable, in lower case
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a command and return its exit status; usage errors exit with 2.

    :param arguments: of the command line, without the program's name; by default the process's own.
    :param environ: environment variables.
    """
    parser = _parser()
    flags = parser.parse_args(arguments)
    if flags.command is None:
        parser.print_help()
        return 2
    try:
        status: int = flags.run(flags, environ)
        return status
    except ValueError as error:
        parser.exit(2, f"openai-compat: {error}\n")


def _check(flags: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run ``check``.

    :raises ValueError: a flag or a variable is not valid.
    """
    url = from_ollama_host(flags.url or environ.get("OLLAMA_HOST") or "")
    headers, verify, proxies = _headers(flags, environ), _verify(flags, environ), _proxies(flags, environ, url)
    from openai_compat.server.check import check

    return check(url, model=flags.model, headers=headers, verify=verify, proxies=proxies)


def _serve(flags: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run ``serve``: check the whole configuration before gunicorn starts, since a worker cannot report an error.

    :raises ValueError: a flag, a variable or the file is not valid.
    """
    if _worker_class(flags, environ) == "gevent":
        _patch_for_gevent()
    if flags.demo and flags.upstream:
        raise ValueError("--demo cannot be used with --upstream")
    is_demo = not flags.upstream and _boolean_value(flags, "demo", environ)
    threads, workers = _integer_value(flags, "threads", environ), _integer_value(flags, "workers", environ)
    # Each thread uses one upstream connection: with a smaller pool, some would be closed after every request.
    file_values = from_toml(path) if (path := _value(flags, "config", environ)) else {}
    values = {**({"pool_size": threads} if threads else {}), **file_values, **_settings(flags, environ)}
    try:
        settings = Settings(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
    upstream, bind = None if is_demo else _upstream(flags, environ), _bind(flags, environ)
    platform = _platform(environ, has_bind=bind is not None, has_workers=workers is not None)
    _check_store(settings, workers=workers or platform.get("workers"))
    if upstream and _is_own_address(upstream, bind or platform.get("bind") or DEFAULTS["bind"]):
        raise ValueError(f"{redacted(upstream)} is the address of this server itself; set another --upstream")
    from openai_compat.server.serve import ServerConfig, serve

    return serve(
        ServerConfig(
            upstream=upstream,
            headers=_headers(flags, environ),
            verify=_verify(flags, environ),
            proxies=_proxies(flags, environ, upstream),
            settings=settings,
            server={
                "bind": bind,
                "workers": workers,
                "threads": threads,
                "worker_class": _worker_class(flags, environ),
                "worker_tmp_dir": _value(flags, "worker_tmp_dir", environ),
            },
            platform=platform,
            receive_timeout=_seconds(flags, "receive_timeout", environ) or RECEIVE_TIMEOUT,
        )
    )


def _record(flags: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run ``record``.

    :raises ValueError: a flag or a variable is not valid, or the file cannot be written.
    """
    upstream, bind = _upstream(flags, environ), _bind(flags, environ)
    if _is_own_address(upstream, bind or DEFAULTS["bind"]):
        raise ValueError(f"{redacted(upstream)} is the address of this server itself; set another --upstream")
    headers, verify, proxies = _headers(flags, environ), _verify(flags, environ), _proxies(flags, environ, upstream)
    # A page in a browser must not reach the Ollama by way of the recorder.
    names = ("allowed_hosts", "allowed_origins")
    settings = Settings(**{name: environ.get(environment_name(name)) or LOCAL for name in names})  # type: ignore[arg-type]
    from openai_compat.server.record import record

    return record(
        flags.file, upstream=upstream, settings=settings, bind=bind, headers=headers, verify=verify, proxies=proxies
    )


def _check_store(settings: Settings, *, workers: int | None) -> None:
    """Raise if the store cannot be used; without this check every worker would fail at its start, and be restarted.

    :raises ValueError: the URL is not valid, a package is not installed, or the directory of a file is not writable.
    """
    from openai_compat.middleware.app import make_store

    _check_directory(settings.store or "")
    if make_store(settings) is not None and settings.store in IN_MEMORY and (workers or 1) > 1:
        sys.stderr.write("openai-compat: each worker has its own store in memory; a file or a database is shared\n")


def _check_directory(store: str) -> None:
    """Raise if the directory of a SQLite file is not writable.

    :raises ValueError: it is not, or does not exist.
    """
    _, separator, path = store.partition("sqlite:///")
    directory = os.path.dirname(os.path.abspath(path))
    if not separator or path == ":memory:":
        return
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError:
        raise ValueError(f"--store: {directory!r} is not a writable directory") from None
    try:
        with open(path, "rb") as file:
            is_database = file.read(16) in (b"", b"SQLite format 3\x00")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"--store: {path!r}: {error.strerror}") from None
    if not is_database:
        raise ValueError(f"--store: {path!r} is not a SQLite database")


def _patch_for_gevent() -> None:
    """Patch the standard library.

    :raises ValueError: gevent is not installed.
    """
    try:
        import packaging  # noqa: F401  (gunicorn's gevent worker needs it, but gunicorn does not declare it)
        from gevent import monkey
    except ImportError:
        raise ValueError("gevent workers need the extra 'gevent'; in a clone: pip install '.[gevent]'") from None
    monkey.patch_all()


def _upstream(flags: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the URL of the Ollama.

    :raises ValueError: it is not valid.
    """
    text = _value(flags, "upstream", environ) or environ.get("OLLAMA_HOST") or ""
    return from_ollama_host(text)


def _headers(flags: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the flags, otherwise of the variable, one a line.

    The variable is for secrets: arguments are visible in process lists.
    """
    lines = flags.upstream_header or environ.get(environment_name("upstream_header"), "").splitlines()
    pairs = [header.partition(":") for header in lines]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError("an upstream header must be written 'Name: value'")
    return checked_headers({name.strip(): value.strip() for name, _, value in pairs})


def _verify(flags: argparse.Namespace, environ: Mapping[str, str]) -> bool | str:
    """Return the path of the certificates to trust; True for the default ones, False for no check.

    :raises ValueError: the path does not exist, or has no certificate.
    """
    path: str = _value(flags, "ca_bundle", environ) or ""
    if _boolean_value(flags, "insecure", environ):
        if path:
            raise ValueError("--insecure cannot be used with --ca-bundle")
        return False
    if not path:
        return True
    if not os.path.exists(path):
        raise ValueError(f"--ca-bundle: {path!r} does not exist")
    if not os.path.isdir(path):
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            raise ValueError(f"--ca-bundle: {path!r} has no certificates in PEM format") from None
        except OSError as error:
            raise ValueError(f"--ca-bundle: {path!r}: {error.strerror}") from None
    return path


def _proxies(flags: argparse.Namespace, environ: Mapping[str, str], upstream: str | None) -> dict[str, str]:
    """Return the proxy of native requests, by the scheme of the upstream.

    :raises ValueError: it is not a URL of an HTTP proxy, or the upstream is a Unix socket.
    """
    url: str = _value(flags, "proxy", environ) or ""
    if not url:
        return {}
    if upstream is not None and unix_path(upstream):
        raise ValueError("--proxy cannot be used with a Unix socket as the upstream")
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of an IPv6 address
        is_valid = False
    if not is_valid:
        raise ValueError(f"--proxy: {redacted(url)!r} is not a valid http or https URL of a proxy")
    return {"http": url, "https": url}


def _bind(flags: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    """Return the addresses to listen at, in gunicorn's syntax; None for the default.

    :raises ValueError: an address is not valid.
    """
    bind: str | None = _value(flags, "bind", environ)
    return ",".join(_address(part.strip()) for part in bind.split(",")) if bind else None


def _address(text: str) -> str:
    """Return an address to listen at, in gunicorn's syntax; a port alone is one of the default host.

    :raises ValueError: it is not valid.
    """
    if re.match("unix:.|fd://[0-9]", text):
        return text
    text = text.removeprefix("tcp://")
    if re.fullmatch("[0-9]+", text):
        text = f"{DEFAULTS['bind'].partition(':')[0]}:{text}"
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|(?:\w[\w.-]*)?)(?::([0-9]{1,5}))?", text)
    if not text or found is None or int(found[2] or 0) > 65535:
        raise ValueError(f"--bind: {text!r} does not have the form HOST:PORT, [IPV6]:PORT, PORT or unix:PATH")
    return text


def _platform(environ: Mapping[str, str], *, has_bind: bool, has_workers: bool) -> dict[str, Any]:
    """Return the settings that hosting platforms give by ``PORT`` and ``WEB_CONCURRENCY``.

    A platform's router is on another machine, so its port is one of all addresses.

    :param has_bind: a flag or a variable of ours is used instead of ``PORT``.
    :raises ValueError: a variable is not valid. gunicorn fails with a traceback, even where it does not use the value.
    """
    values: dict[str, Any] = {}
    port, workers = environ.get("PORT") or None, environ.get("WEB_CONCURRENCY")
    if port is not None and not has_bind:
        if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError(f"PORT must be a port number, not {port!r}")
        values["bind"] = f"0.0.0.0:{port}"
    if workers is not None and not has_workers:
        if not re.fullmatch("0*[1-9][0-9]{0,5}", workers.strip()):
            raise ValueError(f"WEB_CONCURRENCY must be a number of worker processes, not {workers!r}")
        values["workers"] = int(workers)
    return values


def _is_own_address(upstream: str, bind: str) -> bool:
    """Return whether an upstream URL is an address that the server binds: it would forward requests to itself."""
    if "," in bind:
        return any(_is_own_address(upstream, part) for part in bind.split(","))
    if "," in bind:
        return any(_is_own_address(upstream, part) for part in bind.split(","))
    if path := unix_path(upstream):
        return bind.startswith("unix:") and os.path.abspath(bind[5:]) == path
    url, (host, _, port) = urlsplit(upstream), bind.rpartition(":")
    local = {"", "0.0.0.0", "127.0.0.1", "localhost", "[::]", "[::1]"}
    url_port = url.port or {"http": 80, "https": 443}[url.scheme]
    url_host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return port == str(url_port) and (url_host == host or (url_host in local and host in local))


def _worker_class(flags: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    """Return the worker class; None for the default.

    :raises ValueError: it is not supported.
    """
    name: str | None = _value(flags, "worker_class", environ)
    if name not in (None, *WORKER_CLASSES):
        variable = environment_name("worker_class")
        raise ValueError(f"{variable} must be one of {', '.join(WORKER_CLASSES)}, not {name!r}")
    return name


# -- flags and the environment ----------------------------------------------------------------


#: help of ``--bind``
_BIND = "address to listen at: HOST:PORT, PORT or unix:PATH"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: ``--help`` shows the usage, which has dozens of flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"openai-compat: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="openai-compat", description="Serve OpenAI's HTTP API for an Ollama.")
    parser.add_argument("--version", action="version", version=f"openai-compat {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the API under gunicorn", formatter_class=_Help)
    text = "URL of the Ollama; by default OLLAMA_HOST, or port 11434 of this machine"
    serve.add_argument("--upstream", metavar="URL", help=_help("upstream", text))
    serve.add_argument("--demo", action="store_true", default=None, help=_help("demo", "use the built-in demo backend"))
    text = f"{_BIND}; else the port in the variable PORT, at all addresses"
    serve.add_argument("--bind", metavar="ADDRESS", help=_help("bind", text, DEFAULTS["bind"]))
    text = "requests at once in each worker"
    serve.add_argument("--threads", type=int, metavar="N", help=_help("threads", text, DEFAULTS["threads"]))
    text = "worker processes"
    serve.add_argument("--workers", type=int, metavar="N", help=_help("workers", text, DEFAULTS["workers"]))
    text = _help("worker_class", "threads or greenlets", DEFAULTS["worker_class"])
    serve.add_argument("--worker-class", choices=WORKER_CLASSES, help=text)
    text = "directory of small temporary files; with a read-only file system /dev/shm"
    serve.add_argument("--worker-tmp-dir", metavar="DIR", help=_help("worker_tmp_dir", text))
    text = "seconds in which the head of a request and 1 MiB of its body must arrive (not with gevent)"
    text = _help("receive_timeout", text, RECEIVE_TIMEOUT)
    serve.add_argument("--receive-timeout", type=float, metavar="SECONDS", help=text)
    text = "TOML file of settings; flags and variables override it"
    serve.add_argument("--config", metavar="FILE", help=_help("config", text))
    _add_upstream_flags(serve)
    settings = serve.add_argument_group("settings of the middleware")
    for setting in scalars():
        _add_flag(settings, setting)
    text = "how sampling parameters are mapped"
    settings.add_argument("--sampling", choices=tuple(SAMPLINGS), help=_help("sampling", text))
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="test an Ollama and print what works", formatter_class=_Help)
    text = "the Ollama to test; by default OLLAMA_HOST, or port 11434 of this machine"
    check.add_argument("url", metavar="URL", nargs="?", help=text)
    check.add_argument("--model", help="the model to chat with; by default a loaded one, or the first that can chat")
    _add_upstream_flags(check)
    check.set_defaults(run=_check)
    text = "serve the API and record what the Ollama is asked and answers"
    record = commands.add_parser("record", help=text, formatter_class=_Help)
    record.add_argument("file", metavar="FILE", help="the recording, in JSON lines; one that exists is continued")
    text = "URL of the Ollama; by default OLLAMA_HOST, or port 11434 of this machine"
    record.add_argument("--upstream", metavar="URL", help=_help("upstream", text))
    record.add_argument("--bind", metavar="ADDRESS", help=_help("bind", _BIND, DEFAULTS["bind"]))
    _add_upstream_flags(record)
    record.set_defaults(run=_record)
    return parser


class _Help(argparse.HelpFormatter):
    """The help of a command, with room for its longest flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)


def _add_upstream_flags(parser: argparse.ArgumentParser) -> None:
    text = "header of every native request, 'Name: value'; may be repeated (in the variable: one a line)"
    parser.add_argument("--upstream-header", action="append", metavar="HEADER", help=_help("upstream_header", text))
    text = "file of certificates to trust instead of the default ones"
    parser.add_argument("--ca-bundle", metavar="FILE", help=_help("ca_bundle", text))
    text = "do not check the certificate of the Ollama"
    parser.add_argument("--insecure", action="store_true", default=None, help=_help("insecure", text))
    text = "HTTP proxy of native requests; those of HTTP_PROXY and HTTPS_PROXY are not used"
    parser.add_argument("--proxy", metavar="URL", help=_help("proxy", text))


def _add_flag(parser: argparse._ArgumentGroup, setting: Field[Any]) -> None:
    """Add the flag of a scalar setting."""
    flag = "--" + setting.name.replace("_", "-")
    text = _help(setting.name, setting.metadata["help"].replace("``", ""), setting.default)
    if setting.type == "bool":
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        kind = {"int": int, "float": float}.get(str(setting.type), str)
        metavar = None if setting.name in _CHOICES else {"int": "N", "float": "SECONDS"}.get(str(setting.type), "TEXT")
        parser.add_argument(flag, type=kind, choices=_CHOICES.get(setting.name), metavar=metavar, help=text)


def _help(name: str, text: str, default: object = None) -> str:
    """Return the help text of a flag, with its environment variable and default."""
    return f"{text} [{environment_name(name)}" + ("]" if default is None else f", default {default}]")


def _settings(flags: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that a flag or a variable sets.

    :raises ValueError: the value of a variable is not valid.
    """
    values: dict[str, Any] = {}
    for setting in scalars():
        value = getattr(flags, setting.name)
        text = environ.get(environment_name(setting.name))
        # An empty variable counts as unset, since compose files define all variables; only a prefix can be empty.
        if value is None and (text or (text == "" and setting.name == "prefix")):
            value = _parse(setting, text)
        if value is not None:
            values[setting.name] = value
    sampling = _value(flags, "sampling", environ)
    if sampling is not None:
        if sampling not in SAMPLINGS:
            raise ValueError(f"{environment_name('sampling')} must be one of {', '.join(SAMPLINGS)}, not {sampling!r}")
        values["sampling"] = SAMPLINGS[sampling]
    return values


def _parse(setting: Field[Any], text: str) -> Any:
    """Return the value of a setting's variable.

    :raises ValueError: the text does not have the setting's type.
    """
    name = environment_name(setting.name)
    if setting.type == "bool":
        return _parse_boolean(name, text)
    try:
        return {"int": int, "float": float}.get(str(setting.type), str)(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None


def _parse_boolean(name: str, text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"{name} must be true or false, not {text!r}")
    return text.lower() in _TRUE


def _value(flags: argparse.Namespace, name: str, environ: Mapping[str, str]) -> Any:
    """Return the value of a flag, otherwise the text of its variable, otherwise None."""
    value = getattr(flags, name)
    return environ.get(environment_name(name)) or None if value is None else value


def _integer_value(flags: argparse.Namespace, name: str, environ: Mapping[str, str]) -> int | None:
    number = _number(int, flags, name, environ)
    if number is not None and number < 1:
        raise ValueError(f"--{name} must be at least 1")
    return number


def _seconds(flags: argparse.Namespace, name: str, environ: Mapping[str, str]) -> float | None:
    number = _number(float, flags, name, environ)
    if number is not None and not 0 < number < math.inf:
        value = _value(flags, name, environ)
        raise ValueError(f"--{name.replace('_', '-')} must be above 0 and finite, not {value!r}")
    return number


def _number(kind: Callable[[Any], N], flags: argparse.Namespace, name: str, environ: Mapping[str, str]) -> N | None:
    """Return the number of a flag or a variable; None without both.

    :raises ValueError: it is not a number.
    """
    value = _value(flags, name, environ)
    try:
        return None if value is None else kind(value)
    except ValueError:
        raise ValueError(f"{environment_name(name)} must be a number, not {value!r}") from None


def _boolean_value(flags: argparse.Namespace, name: str, environ: Mapping[str, str]) -> bool:
    value = _value(flags, name, environ)
    return bool(value) if value is None or isinstance(value, bool) else _parse_boolean(environment_name(name), value)
