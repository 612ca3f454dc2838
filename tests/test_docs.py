"""The README against the code; ``__all__``; the version."""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

import openai_compat
from openai_compat import OpenAICompat, Settings, testing
from openai_compat.middleware.routes import ROUTES
from openai_compat.server.cli import main
from openai_compat.server.config import from_toml
from openai_compat.testing import FakeOllama
from openai_compat.testing.demo import Demo
from openai_compat.translate.fields import rows
from openai_compat.translate.listing import PageQuery
from tests.contract import DATA
from tests.docs import README, REQUESTS, TABLES, parameters, written
from tests.harness import call

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_readme_are_made_of_the_code() -> None:
    assert written(README.read_text()) == README.read_text(), "run: python -m tests.docs"


@pytest.mark.parametrize("name", REQUESTS)
def test_every_field_of_a_request_has_its_row(name: str) -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(REQUESTS[name])]
    assert sorted(rows(REQUESTS[name])) == sorted(fields)
    table = parameters(REQUESTS[name])
    assert [field for field in fields if f"* - ``{field}``" not in table] == []
    assert table in README.read_text()


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("chat parameters", "CreateChatCompletionRequest"),
        ("responses parameters", "CreateResponse"),
        ("compact parameters", "CompactResponseMethodPublicBody"),
        ("completions parameters", "CreateCompletionRequest"),
        ("embeddings parameters", "CreateEmbeddingRequest"),
        ("audio parameters", "CreateTranscriptionRequest"),
    ],
)
def test_every_parameter_that_openai_has_is_told(name: str, schema: str) -> None:
    root = json.loads((DATA / f"{schema}.json").read_text())
    known = properties(root, root)
    assert len(known) >= 5
    assert known <= set(rows(REQUESTS[name]))


@pytest.mark.parametrize(
    ("name", "module", "params"),
    [
        ("responses parameters", "response_create_params", "ResponseCreateParamsBase"),
        ("compact parameters", "response_compact_params", "ResponseCompactParams"),
        ("retrieve parameters", "response_retrieve_params", "ResponseRetrieveParamsBase"),
    ],
)
def test_every_parameter_that_openai_s_client_has_is_told(name: str, module: str, params: str) -> None:
    """The client is ahead of the schemas."""
    found = pytest.importorskip(f"openai.types.responses.{module}", reason="the package openai is not installed")
    known = set(getattr(found, params).__annotations__)
    assert len(known) >= 3
    assert known <= set(rows(REQUESTS[name]))


def properties(schema: dict[str, Any], root: dict[str, Any]) -> set[str]:
    """The properties of an object that its schema tells, in whichever part."""
    found = set(schema.get("properties", ()))
    if "$ref" in schema:
        target = root
        for token in schema["$ref"].removeprefix("#/").split("/"):
            target = target[token]
        found |= properties(target, root)
    for part in [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word, ())]:
        found |= properties(part, root)
    return found


def test_every_request_has_its_table() -> None:
    structs = {struct for *_, struct in ROUTES if struct is not None}
    assert structs - {PageQuery} == set(REQUESTS.values())
    assert set(rows(PageQuery)) < set(rows(REQUESTS["list parameters"]))


def test_the_public_names() -> None:
    assert openai_compat.__all__ == ["APIError", "OpenAICompat", "Sampling", "Settings", "Upstream", "__version__"]
    for name in openai_compat.__all__:
        assert getattr(openai_compat, name) is not None
    assert set(openai_compat.__all__) - {"__version__"} <= set(dir(openai_compat)) | {"Upstream"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Upstraem"):
        openai_compat.Upstraem  # noqa: B018


def test_the_names_for_tests() -> None:
    assert all(getattr(testing, name) for name in testing.__all__)


def test_public_names_have_docstrings() -> None:
    for name in set(openai_compat.__all__) - {"__version__"}:
        assert getattr(openai_compat, name).__doc__


def test_the_version_is_the_installed_one() -> None:
    try:
        installed = metadata.version("openai-compat")
    except metadata.PackageNotFoundError:
        pytest.skip("openai-compat is not installed here, only imported")
    assert installed == openai_compat.__version__


def test_the_version_is_told_in_the_changes() -> None:
    assert re.search(rf"^{re.escape(openai_compat.__version__)} ", (ROOT / "CHANGELOG.rst").read_text(), re.M)


def test_typed_is_claimed_and_shipped() -> None:
    assert "Typing :: Typed" in (ROOT / "setup.cfg").read_text()
    assert (ROOT / "openai_compat" / "py.typed").exists()


def test_the_top_level_holds_what_it_should() -> None:
    allowed = {"setup.cfg", "setup.py", "README.rst", "openai_compat", "tests", "examples"}
    allowed |= {"LICENSE", "CHANGELOG.rst", "MANIFEST.in"}
    made = {"build", "dist", "venv", "openai_compat.egg-info", "__pycache__"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - made == allowed


# -- the shape of the README, and its claims --------------------------------------------------


def front() -> str:
    """Return the README up to its reference."""
    text, heading, _ = README.read_text().partition("\nReference\n---------\n")
    assert heading
    return text


def section(title: str) -> str:
    """Return the text of a section of the README, with its line breaks."""
    _, heading, rest = README.read_text().partition(f"\n{title}\n")
    assert heading
    underline, _, text = rest.partition("\n")
    return re.split(rf"\n[^\n]+\n{underline[0]}{{3,}}\n", text)[0]


def blocks(language: str) -> list[str]:
    """Return the code blocks of the README in a language, without their indentation."""
    found = re.findall(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README.read_text())
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def run_block(part: str) -> dict[str, Any]:
    """Run the one Python block of the README that has a part, and return its names."""
    [block] = [block for block in blocks("python") if part in block]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.rst", "exec"), names)
    return names


def test_the_front_of_the_readme_is_short() -> None:
    assert front().count("\n") <= 250


def test_the_readme_begins_with_its_contents() -> None:
    before, directive, after = README.read_text().partition("\n.. contents::\n   :depth: 2\n\n")
    assert directive
    assert before.count("\n") <= 10
    assert "\n---" not in before, "a section before the contents"
    assert re.match(r"Two commands\n-+\n", after)


def test_the_reference_holds_every_generated_table() -> None:
    marks = [f".. {mark} {name}" for name in TABLES for mark in ("begin", "end")]
    assert sorted(re.findall(r"^\.\. (?:begin|end) .*$", README.read_text(), re.MULTILINE)) == sorted(marks)
    assert ".. begin " not in front()


def test_who_can_reach_it_is_said_where_the_wrap_is_shown() -> None:
    intro, *wraps = re.split(r"\n(?=\*[A-Z])", section("Wrap an application"))
    for words in ("no API keys yet", "login, CSRF and permission checks do **not** guard it", "``authenticate`` does"):
        assert words in " ".join(intro.split())
    expected = {
        "authenticate=by_login": "Who is logged in to the site may use the API",
        "# your routes, /api/chat among them": "it does not guard the rest of ``/v1``",
        "Upstream(": "after the same checks",
    }
    assert len(wraps) == len(expected)
    for wrap, (code, words) in zip(wraps, expected.items(), strict=True):
        before, _, after = wrap.partition(".. code-block:: python")
        assert words in " ".join(before.split())
        assert code in after
    assert "behind your login" not in README.read_text()


def test_the_check_that_the_readme_shows_guards_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key = run_block("def by_key(")["by_key"]
    monkeypatch.setenv("API_KEY", "secret")

    def site(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"a page"]

    guarded = OpenAICompat(site, upstream=FakeOllama(), authenticate=by_key)
    assert call(guarded).body == b"a page"
    for wrong in ("", "Bearer wrong", "secret", "Bearer \xe4"):
        refused = call(guarded, path="/v1/models", HTTP_AUTHORIZATION=wrong)
        assert refused.status == 401
        assert json.loads(refused.body)["error"]["code"] == "invalid_api_key"
    assert call(guarded, path="/v1/models").status == 401
    assert call(guarded, path="/v1/models", HTTP_AUTHORIZATION="Bearer secret").status == 200

    gateway = OpenAICompat(Demo(), authenticate=by_key)
    assert call(gateway, path="/api/tags").status == 401
    assert call(gateway, path="/api/tags", HTTP_AUTHORIZATION="Bearer secret").status == 200


def test_the_test_that_the_readme_shows_passes() -> None:
    pytest.importorskip("webtest", reason="webtest is not installed")
    assert run_block("FakeOllama()")["fake"].closed == 1


def test_the_aliases_and_the_file_that_the_readme_shows_are_valid(tmp_path: Path) -> None:
    aliases = dict(run_block("aliases=")["application"].settings.aliases)
    [text] = blocks("toml")
    path = tmp_path / "settings.toml"
    path.write_text(text)
    settings = Settings(**from_toml(str(path)))
    assert settings.aliases.items() <= aliases.items()
    assert settings.unsupported == "error"


def test_every_pip_install_works_in_a_clone() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    commands = re.findall(r"pip install ([^`&\n]+)", README.read_text())
    assert len(commands) >= 5
    for command in commands:
        words = iter(shlex.split(command))
        for word in words:
            if word in ("-c", "-r"):
                assert (ROOT / next(words)).exists(), command
            elif found := re.fullmatch(r"\.\[([a-z,]+)\]", word):
                assert set(found[1].split(",")) <= set(setup["options.extras_require"]), command
            else:
                assert word == "openai", command  # the one package of others; this one is in no index
    for path in ROOT.glob("openai_compat/**/*.py"):
        assert not re.search(r"pip install (?!'\.\[)", path.read_text()), path


def test_every_flag_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "check"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    known |= {"--keep-alive", "--timeout", "--graceful-timeout", "--access-logfile"}  # of gunicorn
    known |= {"--strict"}  # of mypy
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README.read_text())) - known == set()


def test_every_error_code_is_in_the_readme() -> None:
    sources = "".join(path.read_text() for path in ROOT.glob("openai_compat/**/*.py"))
    codes = set(re.findall(r'code="([a-z_]+)"', sources)) - {"invalid_value"}  # one of OpenAI's for invalid fields
    codes |= set(re.findall(r'"([a-z_]+_failed)"', sources))
    cells = re.findall(r"\* - \d{3}\n     - (.*)\n", section("Errors"))
    documented = re.findall("``([a-z_]+)``", "".join(cells))
    assert codes - set(documented) == set()
    assert [code for code in documented if f'"{code}"' not in sources] == []
    assert len(documented) == len(set(documented))


def test_the_python_that_it_needs_is_named() -> None:
    [floor] = re.findall(r"python_requires = >=(.*)", (ROOT / "setup.cfg").read_text())
    assert f"Python {floor} or newer" in " ".join(front().split())


def test_python_blocks_of_the_readme_compile() -> None:
    assert len(blocks("python")) >= 6
    for block in blocks("python"):
        compile(block, "README.rst", "exec")


def test_no_line_of_ours_names_a_machine() -> None:
    for path in [
        *ROOT.glob("*.rst"),
        *ROOT.glob("setup.*"),
        *ROOT.glob("openai_compat/**/*.py"),
        *ROOT.glob("examples/*.py"),
    ]:
        assert not re.search("/(root|home|Users)/", path.read_text())
