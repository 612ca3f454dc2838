"""The tables of the README, made from the code. ``python -m tests.docs`` writes them anew; a test compares them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from openai_compat.endpoints.chat import ChatCompletionRequest
from openai_compat.middleware import ROUTES
from openai_compat.settings import environment_name, scalars
from openai_compat.translate.fields import Field, rows

README = Path(__file__).parents[1] / "README.rst"


def table(widths: str, head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [head, *body]:
        for i, cell in enumerate(row):
            lines.append(f"   {'* -' if i == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)


def routes() -> str:
    found = [(f"``{method}``", _route(path), _doc(function)) for method, path, function in ROUTES]
    return table("10 35 55", ("method", "route", "what it does"), found)


def _route(path: str) -> str:
    return "``/v1" + re.sub("<path:(.*)>", "{\\1}", path) + "``"


def _doc(function: object) -> str:
    return (function.__doc__ or "").strip().split("\n")[0]


def parameters() -> str:
    found = [(f"``{name}``", _status(row), _what(row)) for name, row in rows(ChatCompletionRequest).items()]
    return table("30 12 58", ("parameter", "", "what becomes of it"), sorted(found))


def _status(row: Field) -> str:
    return row.status


def _what(row: Field) -> str:
    return row.native if "``" in row.native or " " in row.native else f"``{row.native}``"


def settings() -> str:
    found = []
    for row in scalars():
        default = "" if row.default is None else f"``{row.default!r}``"
        found.append((f"``{row.name}``", default, f"``{environment_name(row.name)}``", row.metadata["help"]))
    return table("20 15 30 35", ("keyword", "default", "environment", "what it sets"), found)


TABLES = {"routes": routes, "parameters": parameters, "settings": settings}


def written(text: str) -> str:
    """The README with its tables made anew."""
    for name, make in TABLES.items():
        begin, end = f".. begin {name}\n", f".. end {name}\n"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"the README has no place for {name}"
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
