"""Fixtures that tests of several rooms share; those of one room stand in the room's own conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import Chaos

#: fixtures that start a server: a test with one of them has the marker ``server``
SERVERS = frozenset(("certificate", "demo", "demo_url", "ollama", "postgresql_server", "secure", "server", "stage"))


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        if not SERVERS.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.server)


@pytest.fixture
def server() -> Iterator[Chaos]:
    """A server on a raw socket: it sends byte for byte what a test scripts."""
    with Chaos() as chaos:
        yield chaos
