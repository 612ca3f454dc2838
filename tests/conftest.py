"""Fixtures that tests of several rooms share; those of one room stand in the room's own conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import Chaos


@pytest.fixture
def server() -> Iterator[Chaos]:
    """A server on a raw socket: it sends byte for byte what a test scripts."""
    with Chaos() as chaos:
        yield chaos
