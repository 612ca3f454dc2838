"""The tables of the README, generated from the code. ``python -m tests.docs`` writes them; a test compares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from msgspec import Struct

from openai_compat.endpoints.audio import TranscriptionRequest
from openai_compat.endpoints.chat.request import ChatCompletionRequest
from openai_compat.endpoints.completions.request import CompletionRequest
from openai_compat.endpoints.conversations import ConversationRequest, ConversationUpdate, ItemsRequest
from openai_compat.endpoints.embeddings import EmbeddingRequest
from openai_compat.endpoints.responses.compaction import CompactRequest
from openai_compat.endpoints.responses.request import ResponseRequest
from openai_compat.endpoints.responses.stored import RetrieveQuery
from openai_compat.endpoints.stored import UpdateRequest
from openai_compat.generation.reasons import REASONS
from openai_compat.middleware.routes import NOT_OFFERED, ROUTES, shown, summary
from openai_compat.settings import environment_name, scalars
from openai_compat.structured.written.forms import FORMS
from openai_compat.translate.fields import Field, rows
from openai_compat.translate.listing import ItemsQuery, ListQuery

README = Path(__file__).parents[1] / "README.rst"


def table(widths: str, head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [head, *body]:
        for i, cell in enumerate(row):
            lines.append(f"   {'* -' if i == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)


def routes() -> str:
    found = [(f"``{method}``", f"``/v1{shown(path)}``", summary(function)) for method, path, function, _ in ROUTES]
    return table("10 40 50", ("method", "route", "description"), found)


def not_offered() -> str:
    return ", ".join(f"``{path}``" for path in NOT_OFFERED) + "."


def parameters(struct: type[Struct]) -> str:
    found = [(f"``{name}``", row.status, _what(row)) for name, row in rows(struct).items()]
    return table("30 12 58", ("parameter", "support", "native field; notes"), sorted(found))


def _what(row: Field) -> str:
    return "; ".join(filter(None, (row.native and f"``{row.native}``", row.note)))


def settings() -> str:
    found = []
    for row in scalars():
        default = "" if row.default is None else f"``{row.default!r}``"
        found.append((f"``{row.name}``", default, f"``{environment_name(row.name)}``", row.metadata["help"]))
    return table("20 15 30 35", ("keyword", "default", "environment variable", "description"), found)


def forms() -> str:
    openers = ((form, [opener for opener in form.openers if len(opener) > 1]) for form in FORMS)
    found = [(form.name, ", ".join(f"``{opener}``" for opener in found), form.source) for form, found in openers]
    return table("20 40 40", ("form", "openers", "described or tested in"), found)


def second_attempts() -> str:
    found = [(reason.when, reason.how, reason.setting and f"``{reason.setting}``") for reason in REASONS]
    return table("50 30 20", ("a choice is generated once more if", "how", "setting"), found)


#: name of a table → the request struct that it describes
REQUESTS: dict[str, type[Struct]] = {
    "chat parameters": ChatCompletionRequest,
    "responses parameters": ResponseRequest,
    "retrieve parameters": RetrieveQuery,
    "items parameters": ItemsQuery,
    "compact parameters": CompactRequest,
    "conversation parameters": ConversationRequest,
    "conversation update parameters": ConversationUpdate,
    "conversation items parameters": ItemsRequest,
    "completions parameters": CompletionRequest,
    "embeddings parameters": EmbeddingRequest,
    "audio parameters": TranscriptionRequest,
    "list parameters": ListQuery,
    "update parameters": UpdateRequest,
}

TABLES: dict[str, Callable[[], str]] = {
    "routes": routes,
    "not offered": not_offered,
    "settings": settings,
    "second attempts": second_attempts,
    "written calls": forms,
    **{name: partial(parameters, struct) for name, struct in REQUESTS.items()},
}


def written(text: str) -> str:
    """Return the README with its tables generated again."""
    for name, make in TABLES.items():
        begin, end = f".. begin {name}\n", f".. end {name}\n"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"the README has no place for {name}"
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
