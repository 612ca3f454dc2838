"""Floors: a module imports only from lower floors or from its own room, and endpoints never import each other.

Every module counts, by its full dotted name and at any depth, and every import in it, wherever it stands. Only the face
of the package, what ``import openai_compat`` and ``python -m openai_compat`` run, is outside the floors.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1] / "openai_compat"

FLOORS = {
    "settings": 0,
    "log": 0,
    "errors": 0,
    "wire": 1,
    "storage": 2,
    "transport": 2,
    "native": 3,
    "translate": 4,
    "structured": 5,
    "generation": 6,
    "endpoints": 7,
    "middleware": 8,
    "testing": 8,
    "server": 9,
}
FACE = {"", "__main__"}

Modules = dict[str, Path]


# -- reading a package ------------------------------------------------------------------------


def modules(root: Path) -> Modules:
    """The modules below a package, by their dotted names without the package's own; a package is itself a module."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path, known: Modules, name: str) -> set[str]:
    """The modules of the package that one of them imports, at its top or anywhere else."""
    prefix = root.name + "."
    found: set[str] = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        dotted: list[str] = []
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import"
            # What is imported may be a module itself, or a name of the module that it comes from.
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        for imported in dotted:
            if (imported + ".").startswith(prefix):
                inner = imported.removeprefix(root.name).lstrip(".")
                found.add(inner if inner in known else inner.rpartition(".")[0])
    return found & set(known)


def room(name: str) -> str:
    return name.split(".")[0]


def endpoint(name: str) -> str:
    """The endpoint that a module belongs to: a module or a package of the room."""
    return ".".join(name.split(".")[:2])


def violations(root: Path) -> list[str]:
    """Every import that goes up, or sideways out of its room or its endpoint."""
    known = modules(root)
    return sorted(
        f"{name} imports {imported}"
        for name in known
        if name not in FACE
        for imported in imports(root, known, name)
        if not allowed(name, imported)
    )


def allowed(name: str, imported: str) -> bool:
    if imported == "":  # the face: for the version, and for what a server runs
        return FLOORS[room(name)] == max(FLOORS.values())
    if room(name) != room(imported):
        return FLOORS[room(imported)] < FLOORS[room(name)]
    is_shared = room(name) != "endpoints" or imported in ("endpoints", "endpoints.contract")
    return is_shared or endpoint(name) == endpoint(imported)


def cycle(root: Path) -> list[str]:
    """Modules that import each other in a circle, and those above them."""
    known = modules(root)
    graph = {name: imports(root, known, name) - {name} for name in known if name not in FACE}
    while graph:
        free = [name for name, needs in graph.items() if not needs & set(graph)]
        if not free:
            break
        for name in free:
            del graph[name]
    return sorted(graph)


# -- the package ------------------------------------------------------------------------------

MODULES = modules(PACKAGE)


def test_every_module_has_a_floor() -> None:
    assert {room(name) for name in MODULES if name not in FACE} == set(FLOORS)


def test_no_import_goes_up_or_sideways() -> None:
    assert violations(PACKAGE) == []


def test_the_import_graph_has_no_cycle() -> None:
    assert cycle(PACKAGE) == []


@functools.cache
def external(path: Path) -> list[str]:
    """The dotted names of all that a file imports: of ``from a import b`` both ``a`` and ``a.b``."""
    return list(_external(path))


def _external(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("requests", {"transport.http_client", "transport.connection"}),
        ("urllib3", {"transport.upstream", "transport.http_client", "transport.connection"}),
        (
            "sqlalchemy",
            {
                f"storage.{name}"
                for name in ("database", "items", "lists", "owned", "pages", "runs", "schema", "store", "usage")
            },
        ),
        ("jsonschema", {"structured.schema_evaluation"}),
        ("referencing", {"structured.schema_evaluation"}),
        ("pypdf", {"translate.pdf"}),
        ("gunicorn", {"server.buffering_worker", "server.gunicorn_app"}),
        ("gevent", {"server.cli"}),
        ("flask", set()),
        ("django", set()),
    ],
)
def test_who_knows_which_package(package: str, expected: set[str]) -> None:
    users = {name for name, path in MODULES.items() if package in {found.split(".")[0] for found in external(path)}}
    assert users - {"transport.images"} == expected
    assert "transport.images" not in users or package == "urllib3"


def test_only_one_module_touches_msgspec_s_codecs() -> None:
    users = {name for name, path in MODULES.items() if "msgspec.json" in external(path)}
    users |= {name for name, path in MODULES.items() if "msgspec.json" in path.read_text()}
    assert users == {"wire.json"}


def test_no_module_is_imported_by_a_name_that_is_not_read_here() -> None:
    dynamic = ("importlib", "__import__")
    assert {name for name, path in MODULES.items() if any(word in path.read_text() for word in dynamic)} == set()


def constants(path: Path) -> set[Any]:
    return {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}


def test_who_sees_an_environ() -> None:
    keys = {"REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "wsgi.input"}
    users = {name for name, path in MODULES.items() if keys & constants(path)}
    assert {room(name) for name in users} == {"middleware", "native", "testing", "transport"}
    assert {name for name in users if room(name) == "native"} == {"native.client"}


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name: str) -> None:
    text = MODULES[name].read_text()
    assert text.count("\n") <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{name}.{node.name}"


@pytest.mark.parametrize("name", MODULES)
def test_a_file_opens_with_what_it_is(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


# -- the test itself --------------------------------------------------------------------------


def planted(root: Path, files: dict[str, str]) -> Path:
    """A package like ours, where nothing is wrong but what *files* add."""
    sound = {
        "__init__.py": "from package.middleware.app import App",
        "settings.py": "",
        "errors.py": "",
        "wire/__init__.py": "",
        "wire/json.py": "from package.errors import APIError",
        "storage/store.py": "from package.wire import json",
        "transport/upstream.py": "def f():\n    from package.wire import json",
        "endpoints/__init__.py": "",
        "endpoints/contract.py": "from package.storage.store import Store",
        "endpoints/chat/__init__.py": "from package.endpoints.chat.answer import Answer",
        "endpoints/chat/answer.py": "from package.endpoints.contract import Call",
        "endpoints/models.py": "from package.endpoints.contract import Call",
        "middleware/app.py": "import package.endpoints.chat",
        "testing/fake.py": "",
        "server/cli.py": "from package import __version__\nfrom package.testing.fake import Fake",
    }
    for name, text in {**sound, **files}.items():
        path = root / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "package"


def test_a_sound_package_is_found_sound(tmp_path: Path) -> None:
    root = planted(tmp_path, {})
    assert violations(root) == []
    assert cycle(root) == []


@pytest.mark.parametrize(
    ("file", "text", "finding"),
    [
        (
            "wire/deep/deeper/lines.py",
            "from package.endpoints.chat import answer",
            "wire.deep.deeper.lines imports endpoints.chat.answer",
        ),
        ("errors.py", "import package.settings", "errors imports settings"),
        ("wire/json.py", "def f():\n    import package.server.cli", "wire.json imports server.cli"),
        (
            "endpoints/chat/answer.py",
            "if TYPE_CHECKING:\n    from package.middleware.app import App",
            "endpoints.chat.answer imports middleware.app",
        ),
        ("storage/store.py", "from package import App", "storage.store imports "),
        (
            "endpoints/models.py",
            "from package.endpoints.chat.answer import X",
            "endpoints.models imports endpoints.chat.answer",
        ),
        (
            "endpoints/chat/answer.py",
            "from package.endpoints import models",
            "endpoints.chat.answer imports endpoints.models",
        ),
        ("storage/store.py", "from package.transport.upstream import f", "storage.store imports transport.upstream"),
        ("testing/fake.py", "from package.middleware import app", "testing.fake imports middleware.app"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, text: str, finding: str) -> None:
    assert violations(planted(tmp_path, {file: text})) == [finding]


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    root = planted(tmp_path, {"wire/json.py": "import package.wire.sse", "wire/sse.py": "import package.wire.json"})
    assert {"wire.json", "wire.sse"} <= set(cycle(root))
