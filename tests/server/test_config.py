"""Settings from a TOML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from openai_compat import Sampling, Settings
from openai_compat.server.cli import main
from openai_compat.server.config import from_toml
from openai_compat.settings import ModelSettings
from tests.servers import command, serving

TOML = """
unsupported = "error"
max_n = 4
sampling = "model"

[aliases]
"gpt-4o" = "demo"
"gpt-*" = "demo"

[models.demo]
options = { num_ctx = 8192, stop = ["x"] }
keep_alive = "1h"
think = false
"""


def written(path: Path, text: str) -> str:
    file = path / "settings.toml"
    file.write_text(text)
    return str(file)


def test_a_file_holds_every_kind_of_setting(tmp_path: Path) -> None:
    settings = Settings(**from_toml(written(tmp_path, TOML)))
    assert (settings.unsupported, settings.max_n, settings.sampling) == ("error", 4, Sampling.model())
    assert settings.aliases == {"gpt-4o": "demo", "gpt-*": "demo"}
    assert settings.models == {"demo": ModelSettings({"num_ctx": 8192, "stop": ["x"]}, "1h", False)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [('sampling = "v0_1_24"', Sampling.v0_1_24()), ("[sampling]\ntemperature = 0.5", Sampling(temperature=0.5))],
)
def test_a_policy_has_a_name_or_fields(tmp_path: Path, text: str, expected: Sampling) -> None:
    assert from_toml(written(tmp_path, text))["sampling"] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_n =", "settings.toml"),
        ("colour = 1", "colour"),
        ('sampling = "hot"', "sampling"),
        ("[sampling]\ncolour = 1", "sampling"),
        ("[sampling]\ntemperature = nan", "sampling"),
        ('[sampling]\ntop_p = "x"', "sampling"),
        ("\xff", "settings.toml"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=says):
        from_toml(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.toml"):
        from_toml(str(tmp_path / "nothing.toml"))


# -- at the command line ----------------------------------------------------------------------


def test_a_store_whose_directory_is_not_there_stops_the_start(tmp_path: Path) -> None:
    ran = command("serve", "--demo", "--store", f"sqlite:///{tmp_path}/nothing/kept.db")
    assert ran.returncode == 2
    assert "nothing" in ran.stderr


@pytest.mark.server
@pytest.mark.parametrize("text", ["max_n = 0", "max_n = true", "[models.m]\nthink = 7", "[aliases]\na = 1", "x = 1"])
def test_a_file_that_is_wrong_stops_the_start(tmp_path: Path, text: str) -> None:
    ran = command("serve", "--demo", "--config", written(tmp_path, text))
    assert ran.returncode == 2
    assert ran.stderr.startswith("openai-compat: ")
    assert "Traceback" not in ran.stderr


#: values of every type of TOML, most of which a setting cannot have
VALUES = (
    *("1", "-1", "1.5", "nan", "true", '"x"', '""', "[]", '["a"]', "{}", "{a = 1}", "{a = {}}", "{a = []}"),
    *("{a = {options = 1}}", "{a = {options = {stop = 1}}}", "{a = {think = []}}", "{a = {keep_alive = []}}"),
    *("1979-05-27", "1979-05-27T07:32:00Z", "9" * 25, '"sqlite:////no/such/x.db"', '"mysql://x"'),
)


@pytest.mark.parametrize("name", [setting.name for setting in dataclasses.fields(Settings)])
def test_a_value_of_any_type_is_taken_or_one_line_that_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr("openai_compat.server.serve.serve", lambda plan: 0)
    refused = 0
    for value in VALUES:
        path = written(tmp_path, f"{name} = {value}")
        try:
            status: Any = main(["serve", "--demo", "--config", path], {})
        except SystemExit as ended:
            status = ended.code
        told = capsys.readouterr().err
        assert (status, told.count("\n")) in ((0, 0), (2, 1)), value
        assert status == 0 or name in told.replace("-", "_"), value
        refused += status == 2
    assert refused >= len(VALUES) // 2


def test_a_directory_is_no_file_of_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        from_toml(str(tmp_path))


@pytest.mark.server
def test_a_server_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    import requests

    path = written(tmp_path, TOML)
    environ: dict[str, Any] = {"OPENAI_COMPAT_CONFIG": path, "OPENAI_COMPAT_MAX_N": "2"}
    with serving("--demo", "--unsupported", "warn", environ=environ) as server:
        ids = [model["id"] for model in requests.get(f"{server.base_url}/models", timeout=10).json()["data"]]
        assert "gpt-4o" in ids
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "logit_bias": {"1": 1}}
        answer = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
        assert (answer.status_code, answer.json()["model"]) == (200, "gpt-4o")
        assert answer.headers["openai-compat-ignored"] == "logit_bias"
        refused = requests.post(f"{server.base_url}/chat/completions", json={**body, "n": 3}, timeout=10)
        assert refused.json()["error"]["param"] == "n"
