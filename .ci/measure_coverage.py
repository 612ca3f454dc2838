"""A pytest plugin that measures the branch coverage of the package, from before anything of it is imported."""

from __future__ import annotations

import coverage

# Tests start further runs of pytest, in other directories: each has data of its own, and no setup.cfg.
_coverage = coverage.Coverage(branch=True, source=["openai_compat"], data_suffix=True)
_coverage.start()


def pytest_unconfigure() -> None:
    _coverage.stop()
    _coverage.save()
