"""The README against the code; ``__all__``; the version."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

import openai_compat
from openai_compat import testing
from openai_compat.middleware.routes import ROUTES
from openai_compat.translate.fields import rows
from openai_compat.translate.listing import PageQuery
from tests.contract import DATA
from tests.docs import README, REQUESTS, parameters, written

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


def front() -> str:
    """The README up to its reference."""
    text, heading, _ = README.read_text().partition("\nReference\n---------\n")
    assert heading
    return text


def test_the_front_of_the_readme_is_short() -> None:
    assert front().count("\n") <= 250
    assert ".. contents::" in front().partition("\nTwo commands\n")[0]
    assert ".. begin " not in front(), "the tables belong to the reference"


def test_who_can_reach_it_is_said_where_the_wrap_is_shown() -> None:
    wrap = front().partition("\nWrap an application\n")[2].partition("\nTest without a socket\n")[0]
    assert wrap.index("Who can reach it") < wrap.index("from flask import Flask")
    assert "from django.core.wsgi" in wrap


def test_installing_works_in_a_clone() -> None:
    texts = [README.read_text(), *(path.read_text() for path in ROOT.glob("openai_compat/**/*.py"))]
    assert [text for text in texts if re.search(r"pip install [^\n]*openai.compat\[", text)] == []


def test_the_python_that_it_needs_is_named() -> None:
    [floor] = re.findall(r"python_requires = >=(.*)", (ROOT / "setup.cfg").read_text())
    assert f"Python {floor} or newer" in " ".join(front().split())


def test_python_blocks_of_the_readme_compile() -> None:
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", README.read_text())
    assert len(blocks) >= 6
    for block in blocks:
        compile(re.sub(r"^    ", "", block, flags=re.M), "README.rst", "exec")


def test_no_line_of_ours_names_a_machine() -> None:
    for path in [
        *ROOT.glob("*.rst"),
        *ROOT.glob("setup.*"),
        *ROOT.glob("openai_compat/**/*.py"),
        *ROOT.glob("examples/*.py"),
    ]:
        assert not re.search("/(root|home|Users)/", path.read_text())
