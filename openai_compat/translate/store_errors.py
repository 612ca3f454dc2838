"""What the store returns as the client sees it: pages, what is not found, and a store that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from openai_compat.errors import APIError, invalid, overloaded
from openai_compat.log import log
from openai_compat.storage.store import Damaged, Store, StoreFailed, UnknownCursor
from openai_compat.translate.listing import ItemsQuery, ListPage, PageQuery, to_page
from openai_compat.wire import json

T = TypeVar("T")


def ask(store: Store | None, query: Callable[[Store], T]) -> T | None:
    """Return the result of a query of the store; None without a store.

    :raises APIError: 400 for a cursor that does not exist, 503 for a store that fails and for a damaged object.
    """
    if store is None:
        return None
    try:
        return query(store)
    except UnknownCursor as error:
        raise invalid(f"Invalid '{error.name}': it is not the id of a stored object.", error.name) from None
    except StoreFailed as error:
        raise store_failed(error) from error


def store_failed(error: StoreFailed) -> APIError:
    """Log a failure of the store, and return the 503 for it."""
    log.error("%s", error)
    if isinstance(error, Damaged):  # another attempt would fail, too
        return APIError(503, "The stored object is damaged.", code="store_failed", retry=False)
    return overloaded("The store cannot be reached.", "store_failed")


def existing(value: T | None, what: str, id: str) -> T:
    """Return the result of a query.

    :param what: the kind of object, for the error.
    :raises APIError: 404 for None, the result for an id that does not exist.
    """
    if value is None:
        raise APIError(404, f"{what} with id '{id[:128]}' not found.", code="not_found")
    return value


def check_deleted(was_deleted: bool | None, what: str, id: str) -> None:
    """Return if something was deleted, or changed otherwise.

    :raises APIError: 404 for an id that does not exist.
    """
    existing(was_deleted or None, what, id)


def is_sound(body: bytes) -> bool:
    """Return whether a body is the text of a JSON object, as every body was when it was stored."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return json.is_native_object(body)


def page_of_items(
    store: Store | None,
    kind: str,
    owner: str | None,
    id: str,
    query: PageQuery,
    what: str,
    *,
    section: int | None = None,
    max_bytes: int,
) -> ListPage:
    """Return a page of the items of a stored object.

    :param section: only items of this one.
    :param max_bytes: of the page, which ends early where it would have more.
    :raises APIError: 400 for a cursor that does not exist; 404; 503 for a store that fails.
    """
    page = ask(
        store,
        lambda store: store.items(
            kind,
            owner,
            id,
            after=query.after,
            before=query.before if isinstance(query, ItemsQuery) else None,
            limit=query.limit,
            order=query.order,
            is_valid=is_sound,
            section=section,
            max_bytes=max_bytes,
        ),
    )
    page = existing(page, what, id)
    return to_page({item.id: item.body for item in page.rows}, has_more=page.has_more)


def needs_store(param: str) -> APIError:
    """Return the 400 for a parameter that needs a store where none is configured."""
    text = "It needs a store: set 'store' (serve --store, OPENAI_COMPAT_STORE), for example to sqlite:///responses.db."
    return APIError(400, f"Unsupported parameter: '{param}'. {text}", param=param, code="unsupported_parameter")
