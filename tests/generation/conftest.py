"""No test of native calls in threads leaves a thread behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.generation.streams import others, ours


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    others.update(ours())
    yield
    assert ours() == []
