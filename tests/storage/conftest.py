"""Fixtures of the tests of the store: each database, and stores in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.storage.store import Store
from tests.storage.databases import KINDS, TIMEOUT, Clock, Make, Postgres, audit, postgresql, sqlite_file


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[Postgres]:
    with postgresql() as running:
        yield running


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        with request.getfixturevalue("postgresql_server").schema() as url:
            yield url
    else:
        yield "sqlite://" if request.param == "memory" else sqlite_file(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(url: str, clock: Clock) -> Iterator[Make]:
    """Open a store; at the end its books are checked, and it is closed."""
    made = []

    def open(**options: Any) -> Store:
        limits = {"ttl": 100.0, "max_objects": 10_000, "max_bytes": 10**9, "timeout": TIMEOUT}
        store = Store(url, **{**limits, "clock": clock, **options})
        made.append(store)
        return store

    yield open
    for store in made:
        try:
            audit(store)
        finally:
            store.close()


@pytest.fixture
def store(make: Make) -> Store:
    return make()
