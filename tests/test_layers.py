"""Floors: a module imports only from lower floors, and endpoints never import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "openai_compat"

FLOORS = {
    "settings": 0,
    "errors": 0,
    "wire": 1,
    "native": 2,
    "database": 2,
    "images": 2,
    "store": 3,
    "translate": 3,
    "endpoints": 4,
    "body": 5,
    "routes": 5,
    "middleware": 5,
    "config": 6,
    "serve": 6,
    "check": 6,
    "gunicorn_app": 6,
    "cli": 6,
}
#: outside the floors: nothing above may need them but the command line
OUTSIDE = {"__init__", "__main__", "demo", "testing"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inner = {module.removeprefix("openai_compat.") for module in found if module.startswith("openai_compat.")}
    known = {name(module) for module in MODULES}
    return {".".join(parts[:i]) for module in inner for parts in [module.split(".")] for i in (1, 2)} & known


def external(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_floor() -> None:
    rooms = {room(name(path)) for path in MODULES}
    assert rooms == {*FLOORS, *OUTSIDE}


@pytest.mark.parametrize("path", [path for path in MODULES if room(name(path)) in FLOORS], ids=name)
def test_no_import_goes_up(path: Path) -> None:
    own = room(name(path))
    for imported in imports(path):
        other = room(imported)
        if other in OUTSIDE:
            assert FLOORS[own] == 6, f"{name(path)} imports {imported}"
        else:
            assert FLOORS[other] < FLOORS[own] or other == own or FLOORS[own] >= 5, f"{name(path)} imports {imported}"
            assert FLOORS[other] <= FLOORS[own]


@pytest.mark.parametrize("path", sorted((PACKAGE / "endpoints").glob("*.py")), ids=name)
def test_endpoints_do_not_import_each_other(path: Path) -> None:
    assert {module for module in imports(path) if module.startswith("endpoints.")} <= {"endpoints.contract"}


def test_the_import_graph_has_no_cycle() -> None:
    graph = {name(path): imports(path) - {name(path)} for path in MODULES if room(name(path)) not in OUTSIDE}
    while graph:
        free = {module for module, needs in graph.items() if not needs & set(graph)}
        assert free, f"a cycle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in free}


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("requests", {"native.upstream", "native.connection"}),
        ("urllib3", {"native.upstream", "native.connection", "images"}),
        ("sqlalchemy", {"store", "database"}),
        ("jsonschema", {"translate.evaluation"}),
        ("referencing", {"translate.evaluation"}),
        ("gunicorn", {"gunicorn_app"}),
        ("gevent", {"cli"}),
        ("flask", set()),
        ("django", set()),
    ],
)
def test_who_knows_which_package(package: str, rooms: set[str]) -> None:
    assert {name(path) for path in MODULES if package in external(path)} == rooms


def test_only_the_edge_and_native_see_an_environ() -> None:
    seers = {room(name(path)) for path in MODULES if '"REQUEST_METHOD"' in path.read_text()}
    assert seers <= {"middleware", "body", "native", "demo", "testing"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{name(path)}.{node.name}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_opens_with_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
