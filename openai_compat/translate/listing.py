"""Lists that are read page by page: the query parameters, and a page in OpenAI's format.

Source: OpenAI's ``after``, ``limit`` and ``order`` of every list; ``ChatCompletionList``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Raw, Struct

from openai_compat.errors import invalid
from openai_compat.translate.fields import Ignored, accepted, check_integer, emulated

Order = Literal["asc", "desc"]

#: items of a page, as of OpenAI's lists
DEFAULT_LIMIT, MAX_LIMIT = 20, 100


class PageQuery(Struct, kw_only=True):
    """The query parameters of a page of any list."""

    after: Annotated[str | None, emulated("the id after which the page begins")] = None
    limit: Annotated[int, emulated("items of the page, up to 100; 20 if not given or 0")] = DEFAULT_LIMIT
    order: Annotated[Order, emulated("``asc`` or ``desc``, by time; ``asc`` if not given")] = "asc"


class ListQuery(PageQuery, kw_only=True):
    """The query parameters of a page of stored objects."""

    model: Annotated[str | None, emulated("only those of this model")] = None
    metadata: Annotated[dict[str, str], emulated("``metadata[key]=value``: only those with this pair")] = {}


class ItemsQuery(PageQuery, kw_only=True):
    """The query parameters of a page of a response's or a conversation's items, of which the newest come first."""

    order: Annotated[Order, emulated("``asc`` or ``desc``; ``desc`` if not given")] = "desc"
    before: Annotated[str | None, emulated("the id before which the page ends")] = None
    include: Annotated[str | None, accepted("what is there is always included")] = None


class ListPage(Struct, kw_only=True):
    """A page of a list. Source: OpenAI's ``ChatCompletionList``, ``ChatCompletionMessageList``."""

    object: str = "list"
    data: list[Raw]
    first_id: str
    last_id: str
    has_more: bool


Q = TypeVar("Q", bound=Struct)

_METADATA = re.compile(r"metadata\[(.+)\]", re.S)


def from_query(query: Sequence[tuple[str, str]], kind: type[Q], ignored: Ignored) -> Q:
    """Decode query parameters; the last of several with one name counts.

    :param kind: the struct to decode into; parameters that it does not have are listed as ignored.
    :raises APIError: 400 for a value that is not valid.
    """
    values: dict[str, Any] = {}
    for name, value in query:
        pair = _METADATA.fullmatch(name)
        field = "metadata" if pair else name.removesuffix("[]")
        if field not in kind.__struct_fields__ or (field == "metadata" and not pair):
            ignored.add(name)
        elif pair:
            values.setdefault("metadata", {})[pair[1]] = value
        elif value:
            values[field] = _READERS.get(field, str)(value)
    return kind(**values)


def _order(value: str) -> str:
    if value not in ("asc", "desc"):
        raise invalid(f"Invalid value: '{value[:64]}'. Supported values are: 'asc' and 'desc'.", "order")
    return value


def _limit(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", value):
        raise invalid("Invalid type for 'limit': expected an integer.", "limit", "invalid_type")
    limit = check_integer("limit", int(value), low=0)
    return min(limit or DEFAULT_LIMIT, MAX_LIMIT)


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise invalid("Invalid type for 'stream': expected a boolean.", "stream", "invalid_type")
    return value.lower() in ("true", "1")


def _number(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise invalid("Invalid type for 'starting_after': expected an integer.", "starting_after", "invalid_type")
    return int(value)


_READERS: dict[str, Callable[[str], object]] = {
    "limit": _limit,
    "order": _order,
    "stream": _flag,
    "starting_after": _number,
}


def to_page(rows: Mapping[str, bytes], *, has_more: bool) -> ListPage:
    """Return a page of objects, each JSON text by its id, in order."""
    ids = list(rows)
    return ListPage(
        data=[Raw(body) for body in rows.values()],
        first_id=ids[0] if ids else "",
        last_id=ids[-1] if ids else "",
        has_more=has_more,
    )
