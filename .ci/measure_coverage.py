"""A pytest plugin that measures the branch coverage of the package, from before anything of it is imported.

Slow tests are left out, but for those of the stores, where all are slow: they go over lines that others cover, in a
time and a memory that tracing would multiply.
"""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest

# Tests start further runs of pytest, in other directories: each has data of its own, and no setup.cfg. One that only
# hands tests out to processes imports nothing of the package.
_coverage = coverage.Coverage(branch=True, source=["openai_compat"], data_suffix=True)
_coverage.set_option("run:disable_warnings", ["no-data-collected", "module-not-imported"])
_coverage.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("slow") is None or item.path.parent.name == "storage":
        return (yield)
    _coverage.stop()
    try:
        return (yield)
    finally:
        _coverage.start()


def pytest_unconfigure() -> None:
    _coverage.stop()
    _coverage.save()
