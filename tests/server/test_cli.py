"""The command line: flags, variables, and what becomes of them. No server is started here."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pytest

from openai_compat import Sampling, Settings, __version__
from openai_compat.server.cli import main
from openai_compat.server.serve import ServerConfig
from openai_compat.settings import environment_name, scalars
from tests.servers import command

Planned = Callable[..., ServerConfig]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Run ``serve``, up to the point where a server would be started: what it would serve."""

    def planned(*arguments: str, environ: Mapping[str, str] | None = None) -> ServerConfig:
        plans: list[ServerConfig] = []
        monkeypatch.setattr("openai_compat.server.serve.serve", lambda plan: plans.append(plan) or 0)
        assert main(["serve", *arguments], environ or {}) == 0
        [plan] = plans
        return plan

    return planned


@dataclass(frozen=True)
class Failed:
    status: int
    said: str


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Failed]:
    """Run a command that must exit before a server is started: its status, and what it said on stderr."""

    def fails(*arguments: str, environ: Mapping[str, str] | None = None) -> Failed:
        monkeypatch.setattr("openai_compat.server.serve.serve", lambda plan: 0)
        with pytest.raises(SystemExit) as caught:
            main(arguments, environ or {})
        assert isinstance(caught.value.code, int)
        return Failed(caught.value.code, capsys.readouterr().err)

    return fails


# -- the command itself -----------------------------------------------------------------------


def test_without_a_command_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    shown = capsys.readouterr().out
    assert "serve" in shown
    assert "check" in shown


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"openai-compat {__version__}\n"


@pytest.mark.server
def test_the_package_is_the_command() -> None:
    ended = command("--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"openai-compat {__version__}\n", "")


def test_the_package_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["openai-compat", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("openai_compat", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"openai-compat {__version__}\n"


def test_importing_the_package_s_main_module_runs_nothing() -> None:
    assert runpy.run_module("openai_compat.__main__", run_name="something else")["main"] is main


def test_an_unknown_command(fails: Callable[..., Failed]) -> None:
    failed = fails("sreve")
    assert failed.status == 2
    assert "sreve" in failed.said


def test_an_unknown_flag(fails: Callable[..., Failed]) -> None:
    failed = fails("serve", "--bogus")
    assert failed.status == 2
    assert "--bogus" in failed.said


@pytest.mark.parametrize("row", [*scalars(), *(f for f in dataclasses.fields(Settings) if f.name == "sampling")])
def test_help_names_every_setting_s_flag_and_variable(
    row: dataclasses.Field[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"], {})
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert flag_of(row) in shown
    assert environment_name(row.name) in shown


def helped(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """The help of a command, in one line."""
    with pytest.raises(SystemExit):
        main([command, "--help"], {})
    return " ".join(capsys.readouterr().out.split())


def test_help_says_what_an_address_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = "--bind ADDRESS address to listen at: HOST:PORT, PORT or unix:PATH"
    assert f"{text}; else the port in the variable PORT, at all addresses [OPENAI_COMPAT_BIND" in helped(
        capsys, "serve"
    )
    assert f"{text} [OPENAI_COMPAT_BIND" in helped(capsys, "record")


def test_help_says_what_a_time_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert "--receive-timeout SECONDS seconds in which the head of a request" in helped(capsys, "serve")


# -- settings ---------------------------------------------------------------------------------


def flag_of(row: dataclasses.Field[Any]) -> str:
    return "--" + row.name.replace("_", "-")


CHOICES = {
    "overflow": ("truncate", "error"),
    "unsupported": ("error", "warn"),
    "prefix": ("/a", "/b"),
    "store": ("sqlite:///a", "sqlite:///b"),
    "store_failure": ("refuse", "answer"),
    "tools_with_format": ("format", "two_calls"),
    "reasoning_field": ("reasoning", "none"),
    "allowed_hosts": ("local", "box,*.example"),
    "allowed_origins": ("*", "https://a.example,https://b.example"),
}


def two_values(row: dataclasses.Field[Any]) -> tuple[str, str]:
    """Two values of a setting, as text, neither of them its default where there are more than two."""
    if row.type == "bool":
        return str(not row.default).lower(), str(row.default).lower()
    return CHOICES.get(row.name) or (str(row.default + 1), str(row.default + 2))


def value_of(row: dataclasses.Field[Any], text: str) -> Any:
    if row.name.startswith("allowed_"):
        return tuple(text.split(","))
    kinds: dict[Any, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda text: text == "true"}
    return kinds.get(row.type, str)(text)


def flags_for(row: dataclasses.Field[Any], text: str) -> list[str]:
    if row.type == "bool":
        return [flag_of(row) if text == "true" else flag_of(row).replace("--", "--no-", 1)]
    return [flag_of(row), text]


each_scalar = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in scalars()])


def test_what_is_no_scalar() -> None:
    names = {field.name for field in dataclasses.fields(Settings)}
    assert names - {row.name for row in scalars()} == {"sampling", "aliases", "models", "authenticate"}


@each_scalar
def test_a_setting_has_a_flag(planned: Planned, row: dataclasses.Field[Any]) -> None:
    for text in two_values(row):
        plan = planned("--demo", *flags_for(row, text))
        assert getattr(plan.settings, row.name) == value_of(row, text)


@each_scalar
def test_a_setting_has_a_variable(planned: Planned, row: dataclasses.Field[Any]) -> None:
    for text in two_values(row):
        plan = planned("--demo", environ={environment_name(row.name): text})
        assert getattr(plan.settings, row.name) == value_of(row, text)


@each_scalar
def test_the_flag_wins_over_the_variable(planned: Planned, row: dataclasses.Field[Any]) -> None:
    first, second = two_values(row)
    plan = planned("--demo", *flags_for(row, second), environ={environment_name(row.name): first})
    assert getattr(plan.settings, row.name) == value_of(row, second)


def test_without_either_there_are_the_defaults(planned: Planned) -> None:
    assert planned("--demo").settings == Settings()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("On", True), ("0", False), ("false", False), ("No", False)],
)
def test_booleans_of_a_variable(planned: Planned, text: str, value: bool) -> None:
    assert planned("--demo", environ={"OPENAI_COMPAT_NATIVE_ADMIN": text}).settings.native_admin is value


@pytest.mark.parametrize(
    ("name", "expected"),
    [("default", Sampling()), ("model", Sampling.model()), ("v0_1_24", Sampling.v0_1_24())],
)
def test_sampling_is_chosen_by_name(planned: Planned, name: str, expected: Sampling) -> None:
    assert planned("--demo", "--sampling", name).settings.sampling == expected
    assert planned("--demo", environ={"OPENAI_COMPAT_SAMPLING": name}).settings.sampling == expected


BAD_VALUES = {
    "an integer": ("OPENAI_COMPAT_MAX_BODY", "many"),
    "a fraction": ("OPENAI_COMPAT_MAX_BODY", "1.5"),
    "a number": ("OPENAI_COMPAT_IDLE_TIMEOUT", "long"),
    "a boolean": ("OPENAI_COMPAT_NATIVE_ADMIN", "maybe"),
    "demo": ("OPENAI_COMPAT_DEMO", "maybe"),
    "sampling": ("OPENAI_COMPAT_SAMPLING", "none"),
    "threads": ("OPENAI_COMPAT_THREADS", "many"),
    "workers": ("OPENAI_COMPAT_WORKERS", "many"),
}


@pytest.mark.parametrize(("name", "text"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_of_a_variable_names_it(fails: Callable[..., Failed], name: str, text: str) -> None:
    failed = fails("serve", environ={name: text})
    assert failed.status == 2
    assert name in failed.said
    assert repr(text) in failed.said


OUT_OF_RANGE = {
    "zero": ("max_body", "0"),
    "negative": ("idle_timeout", "-1"),
    "no number": ("head_timeout", "nan"),
    "no slash": ("prefix", "v1"),
    "a slash too many": ("prefix", "/v1/"),
    "no such policy": ("unsupported", "ignore"),
    "no such overflow": ("overflow", "shift"),
}


@pytest.mark.parametrize(("name", "text"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_a_value_out_of_range_names_its_setting(fails: Callable[..., Failed], name: str, text: str) -> None:
    failed = fails("serve", environ={environment_name(name): text})
    assert failed.status == 2
    assert name in failed.said.lower()


@pytest.mark.parametrize(("name", "text"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_a_flag_out_of_range_names_it(fails: Callable[..., Failed], name: str, text: str) -> None:
    failed = fails("serve", f"--{name.replace('_', '-')}={text}")
    assert failed.status == 2
    assert name.replace("_", "-") in failed.said.lower().replace("_", "-")


@pytest.mark.parametrize("name", ["threads", "workers"])
@pytest.mark.parametrize("text", ["0", "-1"])
def test_less_than_one_thread_or_worker(fails: Callable[..., Failed], name: str, text: str) -> None:
    failed = fails("serve", f"--{name}={text}")
    assert failed.status == 2
    assert f"--{name}" in failed.said


# -- the server's own flags -------------------------------------------------------------------


def test_what_is_not_given_is_left_to_the_server(planned: Planned) -> None:
    server = planned("--demo").server
    assert (server["bind"], server["workers"], server["worker_class"]) == (None, None, None)


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (("--bind", "[::1]:9", "--workers", "3", "--threads", "5", "--worker-class", "gthread"), {}),
        (
            (),
            {
                "OPENAI_COMPAT_BIND": "[::1]:9",
                "OPENAI_COMPAT_WORKERS": "3",
                "OPENAI_COMPAT_THREADS": "5",
                "OPENAI_COMPAT_WORKER_CLASS": "gthread",
            },
        ),
    ],
    ids=["flags", "variables"],
)
def test_the_server_s_values(planned: Planned, flags: tuple[str, ...], environ: dict[str, str]) -> None:
    server = planned("--demo", *flags, environ=environ).server
    values = {"bind": "[::1]:9", "workers": 3, "threads": 5, "worker_class": "gthread", "worker_tmp_dir": None}
    assert dict(server) == values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", "127.0.0.1:8000"),
        ("0", "127.0.0.1:0"),
        (":8000", ":8000"),
        ("0.0.0.0:8000", "0.0.0.0:8000"),
        ("localhost:8000", "localhost:8000"),
        ("tcp://box:8000", "box:8000"),
        ("box", "box"),
        ("[::1]:8000", "[::1]:8000"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("fd://3", "fd://3"),
        ("127.0.0.1:1, [::1]:2,3", "127.0.0.1:1,[::1]:2,127.0.0.1:3"),
    ],
)
def test_forms_of_an_address_to_listen_at(planned: Planned, text: str, address: str) -> None:
    assert planned("--demo", "--bind", text).server["bind"] == address
    assert planned("--demo", environ={"OPENAI_COMPAT_BIND": text}).server["bind"] == address


@pytest.mark.parametrize(
    "text", ["host:abc", "host:", "::1", "[::1", "a:1:2", "65536", "-1", "http://box:80", "unix:", ","]
)
def test_what_is_no_address_to_listen_at(fails: Callable[..., Failed], text: str) -> None:
    for failed in (fails("serve", f"--bind={text}"), fails("serve", environ={"OPENAI_COMPAT_BIND": text})):
        assert failed.status == 2
        assert failed.said.startswith("openai-compat: --bind: ")
        assert failed.said.count("\n") == 1


def test_a_platform_s_port_is_one_of_all_addresses(planned: Planned) -> None:
    plan = planned("--demo", environ={"PORT": "8080", "WEB_CONCURRENCY": "3"})
    assert (plan.server["bind"], plan.server["workers"]) == (None, None)
    assert plan.platform == {"bind": "0.0.0.0:8080", "workers": 3}


@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "variable"])
def test_what_is_given_to_us_comes_before_the_platform_s(planned: Planned, by_flag: bool) -> None:
    """A variable of the platform that is not used may have any value."""
    environ = {"PORT": "any", "WEB_CONCURRENCY": "auto"}
    ours = {"OPENAI_COMPAT_BIND": "[::1]:9", "OPENAI_COMPAT_WORKERS": "2"}
    flags = ("--bind", "[::1]:9", "--workers", "2") if by_flag else ()
    plan = planned("--demo", *flags, environ=environ if by_flag else environ | ours)
    assert (plan.server["bind"], plan.server["workers"], plan.platform) == ("[::1]:9", 2, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "٣"),
        ("WEB_CONCURRENCY", "auto"),
        ("WEB_CONCURRENCY", ""),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "2.5"),
    ],
)
def test_a_bad_value_of_a_platform_s_variable_is_one_line(fails: Callable[..., Failed], name: str, text: str) -> None:
    failed = fails("serve", "--demo", environ={name: text})
    assert failed.status == 2
    assert failed.said.startswith(f"openai-compat: {name} must be ")
    assert failed.said.endswith(f", not {text!r}\n")
    assert failed.said.count("\n") == 1


def test_an_empty_port_is_an_unset_one(planned: Planned) -> None:
    assert planned("--demo", environ={"PORT": ""}).platform == {}


@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "variable"])
def test_more_flags_of_the_server(planned: Planned, by_flag: bool) -> None:
    flags = ("--worker-tmp-dir", "/dev/shm", "--proxy", "proxy:3128", "--insecure", "--receive-timeout", "2.5")
    environ = {
        "OPENAI_COMPAT_WORKER_TMP_DIR": "/dev/shm",
        "OPENAI_COMPAT_PROXY": "http://proxy:3128",
        "OPENAI_COMPAT_INSECURE": "1",
        "OPENAI_COMPAT_RECEIVE_TIMEOUT": "2.5",
    }
    plan = planned(*flags) if by_flag else planned(environ=environ)
    assert plan.server["worker_tmp_dir"] == "/dev/shm"
    assert plan.proxies == {"http": "http://proxy:3128", "https": "http://proxy:3128"}
    assert (plan.verify, plan.receive_timeout) == (False, 2.5)


def test_without_them_there_are_the_defaults(planned: Planned) -> None:
    plan = planned()
    assert (plan.proxies, plan.verify, plan.receive_timeout) == ({}, True, 60.0)


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--proxy", "socks5://box:1"), "--proxy: 'socks5://box:1'"),
        (("--proxy", "http://me:secret@box:port"), "--proxy: 'http://***@box:port'"),
        (("--proxy", "http://"), "--proxy: 'http://'"),
        (("--proxy", "http://[::1"), "--proxy: 'http://[::1'"),
        (("--insecure", "--ca-bundle", "/dev/null"), "--insecure"),
        (("--ca-bundle", "/dev/null"), "--ca-bundle: '/dev/null'"),
        (("--ca-bundle", __file__), "--ca-bundle: "),
    ],
)
def test_a_bad_way_to_the_upstream_is_one_line(
    fails: Callable[..., Failed], command: str, flags: tuple[str, ...], named: str
) -> None:
    failed = fails(command, *flags)
    assert failed.status == 2
    assert failed.said.startswith("openai-compat: ")
    assert named in failed.said
    assert failed.said.count("\n") == 1
    assert "secret" not in failed.said


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_time_to_receive_in_that_is_none(fails: Callable[..., Failed], text: str) -> None:
    for failed in (
        fails("serve", f"--receive-timeout={text}"),
        fails("serve", environ={"OPENAI_COMPAT_RECEIVE_TIMEOUT": text}),
    ):
        assert failed.said.startswith("openai-compat: --receive-timeout must be above 0 and finite")
    assert "OPENAI_COMPAT_RECEIVE_TIMEOUT" in fails("serve", environ={"OPENAI_COMPAT_RECEIVE_TIMEOUT": "x"}).said


def test_the_pool_is_as_large_as_the_threads(planned: Planned) -> None:
    assert planned("--demo", "--threads", "7").settings.pool_size == 7


def test_the_pool_may_be_given(planned: Planned) -> None:
    assert planned("--demo", "--threads", "7", "--pool-size", "9").settings.pool_size == 9


@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "variable"])
def test_a_ca_bundle_is_what_certificates_are_checked_with(planned: Planned, by_flag: bool, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    flags = ("--ca-bundle", str(bundle)) if by_flag else ()
    environ = {} if by_flag else {"OPENAI_COMPAT_CA_BUNDLE": str(bundle)}
    assert planned(*flags, environ=environ).verify == str(bundle)
    assert planned().verify is True


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (("serve", "--ca-bundle", "/no/such.pem"), {}, "/no/such.pem"),
        (("check", "http://x", "--ca-bundle", "/no/such.pem"), {}, "/no/such.pem"),
        (("serve",), {"OPENAI_COMPAT_CA_BUNDLE": "/no/such.pem"}, "/no/such.pem"),
        (("check", "http://x"), {"OPENAI_COMPAT_CA_BUNDLE": "/no/such.pem"}, "/no/such.pem"),
        (("serve", "--bind", "127.0.0.1:99999"), {}, "127.0.0.1:99999"),
        (("serve", "--upstream-header", "Bad Name: x"), {}, "Bad Name"),
        (("serve", "--connect-timeout", "inf"), {}, "connect_timeout"),
        (("serve",), {"OPENAI_COMPAT_WORKER_CLASS": "sync"}, "OPENAI_COMPAT_WORKER_CLASS"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    fails: Callable[..., Failed], arguments: tuple[str, ...], environ: dict[str, str], named: str
) -> None:
    failed = fails(*arguments, environ=environ)
    assert failed.status == 2
    assert named in failed.said


@pytest.mark.parametrize("row", [row for row in scalars() if row.name != "prefix"], ids=lambda row: row.name)
def test_an_empty_variable_of_a_setting_is_an_unset_one(planned: Planned, row: dataclasses.Field[Any]) -> None:
    settings = planned(environ={environment_name(row.name): ""}).settings
    assert getattr(settings, row.name) == row.default


def test_an_empty_prefix_is_one(planned: Planned) -> None:
    assert planned(environ={"OPENAI_COMPAT_PREFIX": ""}).settings.prefix == ""


def test_upstream_headers_may_be_repeated(planned: Planned) -> None:
    plan = planned("--upstream-header", "Authorization: Bearer a:b", "--upstream-header", "X-Team:red")
    assert plan.headers == {"Authorization": "Bearer a:b", "X-Team": "red"}


def test_an_upstream_header_without_a_value(fails: Callable[..., Failed]) -> None:
    failed = fails("serve", "--upstream-header", "Authorization")
    assert failed.status == 2
    assert "an upstream header must be written 'Name: value'" in failed.said


# -- the upstream -----------------------------------------------------------------------------

SOURCES = {
    "the flag": (("--upstream", "http://flag:1"), "http://flag:1"),
    "our variable": ((), "http://variable:2"),
}
ENVIRON = {"OPENAI_COMPAT_UPSTREAM": "http://variable:2", "OLLAMA_HOST": "http://ollama:3"}


@pytest.mark.parametrize(("flags", "expected"), SOURCES.values(), ids=SOURCES)
def test_where_the_upstream_comes_from(planned: Planned, flags: tuple[str, ...], expected: str) -> None:
    assert planned(*flags, environ=ENVIRON).upstream == expected


def test_ollama_s_variable_comes_after_ours(planned: Planned) -> None:
    assert planned(environ={"OLLAMA_HOST": "http://ollama:3"}).upstream == "http://ollama:3"


def test_an_empty_variable_is_none(planned: Planned) -> None:
    environ = {"OPENAI_COMPAT_UPSTREAM": "", "OLLAMA_HOST": "http://ollama:3"}
    assert planned(environ=environ).upstream == "http://ollama:3"


def test_without_any_it_is_ollama_s_port_here(planned: Planned) -> None:
    assert planned().upstream == "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("https://box/ollama", "https://box:443/ollama"),
        ("[::]:1234", "http://[::1]:1234"),
    ],
)
def test_an_upstream_may_be_written_as_ollama_s_variable(planned: Planned, text: str, url: str) -> None:
    assert planned("--upstream", text).upstream == url
    assert planned(environ={"OLLAMA_HOST": text}).upstream == url


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (("serve", "--upstream", "http://box:11434/v1"), {}),
        (("serve", "--upstream", "http://box:11434/v1/"), {}),
        (("serve",), {"OPENAI_COMPAT_UPSTREAM": "http://box:11434/v1"}),
        (("serve",), {"OLLAMA_HOST": "http://box:11434/v1"}),
        (("check", "http://box:11434/v1"), {}),
    ],
    ids=["flag", "slash", "our variable", "ollama's variable", "check"],
)
def test_a_url_of_openai_s_side_names_the_base(
    fails: Callable[..., Failed], arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    failed = fails(*arguments, environ=environ)
    assert failed.status == 2
    assert "'http://box:11434'" in failed.said


@pytest.mark.parametrize("url", ["ftp://box", "http://box:0", "http://box:port", "http://box?x=1"])
def test_what_is_no_url(fails: Callable[..., Failed], url: str) -> None:
    failed = fails("serve", "--upstream", url)
    assert failed.status == 2
    assert failed.said.startswith("openai-compat: ")


@pytest.mark.parametrize("text", ["http://box:11434/api", "box:11434/api/", "http://box:11434/api/chat"])
def test_a_url_of_a_native_route_names_the_base(fails: Callable[..., Failed], text: str) -> None:
    for failed in (
        fails("serve", "--upstream", text),
        fails("check", text),
        fails("serve", environ={"OLLAMA_HOST": text}),
    ):
        assert failed.status == 2
        assert "'http://box:11434'" in failed.said
        assert failed.said.count("\n") == 1


def test_a_unix_socket_may_be_the_upstream(planned: Planned, fails: Callable[..., Failed]) -> None:
    assert planned("--upstream", "unix:/run/ollama.sock").upstream == "unix:///run/ollama.sock"
    assert planned(environ={"OLLAMA_HOST": "unix:///run/ollama.sock"}).upstream == "unix:///run/ollama.sock"
    assert "a Unix socket" in fails("serve", "--upstream", "unix:///run/x", "--proxy", "http://box").said


def test_a_bad_url_is_shown_without_its_password(fails: Callable[..., Failed]) -> None:
    failed = fails("serve", "--upstream", "http://me:secret@box:port")
    assert failed.status == 2
    assert "secret" not in failed.said


def test_demo_is_a_backend_of_its_own(planned: Planned) -> None:
    assert planned("--demo", environ=ENVIRON).upstream is None
    assert planned(environ={"OPENAI_COMPAT_DEMO": "1", "OLLAMA_HOST": "http://ollama:3"}).upstream is None


def test_demo_does_not_go_with_upstream(fails: Callable[..., Failed]) -> None:
    failed = fails("serve", "--demo", "--upstream", "http://box")
    assert failed.status == 2
    assert "--demo" in failed.said
    assert "--upstream" in failed.said


def test_the_upstream_s_flag_wins_over_demo_s_variable(planned: Planned) -> None:
    assert planned("--upstream", "http://box:1", environ={"OPENAI_COMPAT_DEMO": "1"}).upstream == "http://box:1"


# -- imports ----------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize(
    "module",
    [
        "openai_compat",
        "openai_compat.server.cli",
        "openai_compat.server.serve",
        "openai_compat.server.incoming_request",
        "openai_compat.testing",
    ],
)
def test_importing_it_imports_neither_requests_nor_a_server(module: str) -> None:
    """gevent must be able to patch first: requests imported before it ends in RecursionError on every https call."""
    code = f"import sys, {module}; print(sorted({{'gevent', 'gunicorn', 'requests', 'urllib3'}} & set(sys.modules)))"
    ended = command(python=("-c", code))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(("flags", "patched"), [(("--worker-class", "gevent"), 1), ((), 0)], ids=["gevent", "gthread"])
def test_gevent_patches_if_it_is_wanted(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], patched: int
) -> None:
    calls: list[None] = []
    monkey = SimpleNamespace(patch_all=lambda: calls.append(None))
    monkeypatch.setitem(sys.modules, "gevent", SimpleNamespace(monkey=monkey))
    planned("--demo", *flags)
    assert len(calls) == patched


def test_gevent_that_is_not_there_is_named(fails: Callable[..., Failed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gevent", None)
    failed = fails("serve", "--demo", "--worker-class", "gevent")
    assert (failed.status, failed.said) == (
        2,
        "openai-compat: gevent workers need the extra 'gevent'; in a clone: pip install '.[gevent]'\n",
    )


def test_without_gunicorn_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "openai_compat.server.gunicorn_app", raising=False)
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    monkeypatch.setitem(sys.modules, "gunicorn.app", None)
    monkeypatch.setitem(sys.modules, "gunicorn.app.base", None)
    assert main(["serve", "--demo"], {}) == 2
    assert "pip install '.[server]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("upstream", "bind"),
    [
        ("127.0.0.1:8000", None),
        ("http://localhost:8000", None),
        ("0.0.0.0:9000", "0.0.0.0:9000"),
        ("http://[::1]:9000", "[::]:9000"),
        ("http://box:9000", "box:9000"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.1:9000", "9000"),
        ("127.0.0.1:9000", "9000, box:80"),
        ("unix:///run/x.sock", "unix:/run/../run/x.sock"),
    ],
)
def test_a_server_is_not_its_own_upstream(fails: Callable[..., Failed], upstream: str, bind: str | None) -> None:
    failed = fails("serve", "--upstream", upstream, *(("--bind", bind) if bind else ()))
    assert failed.status == 2
    assert "this server itself" in failed.said


def test_a_server_at_the_platform_s_port_is_not_its_own_upstream(fails: Callable[..., Failed]) -> None:
    assert "this server itself" in fails("serve", "--upstream", "127.0.0.1:9000", environ={"PORT": "9000"}).said


@pytest.mark.parametrize(
    ("upstream", "bind"),
    [
        ("127.0.0.1:8001", None),
        ("http://box:8000", None),
        ("127.0.0.1:8000", "unix:/tmp/x.sock"),
        ("unix:///a", "unix:/b"),
        ("unix:///a", None),
    ],
)
def test_another_place_may_be_upstream(planned: Planned, upstream: str, bind: str | None) -> None:
    assert planned("--upstream", upstream, *(("--bind", bind) if bind else ())).upstream is not None


def test_upstream_headers_of_the_variable_stand_a_line_each(planned: Planned) -> None:
    environ = {"OPENAI_COMPAT_UPSTREAM_HEADER": "Authorization: Bearer KEY\nX-Team: red\n"}
    assert planned(environ=environ).headers == {"Authorization": "Bearer KEY", "X-Team": "red"}
    assert planned("--upstream-header", "X-Team: blue", environ=environ).headers == {"X-Team": "blue"}
