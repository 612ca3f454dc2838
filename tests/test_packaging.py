"""The versions that ``setup.cfg`` allows, and those that the tests run with."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def floors(requirements: str) -> dict[str, str]:
    """The lowest version of each requirement that names one, with its three numbers."""
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])? *>=([\d.]+)", requirements, re.MULTILINE)
    return {name: ".".join([*version.split("."), "0", "0"][:3]) for name, version in found}


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / "tests" / name).read_text().lower(), re.MULTILINE))


def extras() -> dict[str, dict[str, str]]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    install = {"": setup["options"]["install_requires"]}
    return {name: floors(text) for name, text in {**install, **setup["options.extras_require"]}.items()}


def test_the_lowest_versions_are_those_that_setup_cfg_allows() -> None:
    allowed: dict[str, str] = {}
    for extra, lowest in extras().items():
        allowed |= lowest if extra != "test" else {}
    assert pins("lowest.txt") == allowed


def test_an_extra_allows_no_lower_version_than_another() -> None:
    everywhere = extras()
    for lowest in everywhere.values():
        for name, version in lowest.items():
            assert {others[name] for others in everywhere.values() if name in others} == {version}


@pytest.mark.parametrize("name", [*extras()[""], *extras()["test"]])
def test_what_the_tests_need_is_pinned(name: str) -> None:
    assert name in pins("constraints.txt")
