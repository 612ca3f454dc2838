"""The README against the code; ``__all__``; the version."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

import openai_compat
from openai_compat import testing
from openai_compat.endpoints.chat import ChatCompletionRequest
from openai_compat.translate.fields import rows
from tests.docs import README, written

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_readme_are_made_of_the_code() -> None:
    assert written(README.read_text()) == README.read_text(), "run: python -m tests.docs"


def test_every_field_of_a_request_has_its_row() -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(ChatCompletionRequest)]
    assert sorted(rows(ChatCompletionRequest)) == sorted(fields)
    text = README.read_text()
    assert [name for name in fields if f"* - ``{name}``" not in text] == []


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
