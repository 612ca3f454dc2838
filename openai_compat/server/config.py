"""Settings from a TOML file, for the command line: all of them, including those that are not scalars.

.. code-block:: toml

    unsupported = "error"
    sampling = "model"

    [aliases]
    "gpt-4o" = "llama3.2"
    "gpt-*" = "llama3.2"

    [models."llama3.2"]
    options = { num_ctx = 8192 }
    keep_alive = "1h"
    think = false
"""

from __future__ import annotations

import dataclasses
from typing import Any

from openai_compat.settings import Sampling, Settings

SAMPLINGS = {"default": Sampling(), "model": Sampling.model(), "v0_1_24": Sampling.v0_1_24()}


def from_toml(path: str) -> dict[str, Any]:
    """Return the settings of a file, as keywords of :class:`Settings`.

    :raises ValueError: the file cannot be read, is not valid TOML, or has an unknown setting.
    """
    try:
        import tomllib
    except ModuleNotFoundError:
        tomllib = _tomli()
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = tomllib.load(file)
    except (OSError, ValueError) as error:  # invalid TOML and invalid UTF-8 are ValueErrors
        raise ValueError(f"{path}: {error}") from error
    unknown = set(found) - {row.name for row in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"{path}: there is no setting {', '.join(sorted(unknown))}")
    if "sampling" in found:
        found["sampling"] = _sampling(found["sampling"], path)
    return found


def _tomli() -> Any:
    """Return the module that Python 3.10 needs instead of its own."""
    try:
        import tomli  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise ValueError("a configuration file needs the package tomli on Python 3.10 (extra 'server')") from error
    return tomli


def _sampling(value: Any, path: str) -> Sampling:
    """Return a policy by its name, or made of its fields."""
    if isinstance(value, str) and value in SAMPLINGS:
        return SAMPLINGS[value]
    known = {row.name for row in dataclasses.fields(Sampling)}
    if not isinstance(value, dict) or set(value) - known:
        names = ", ".join([*SAMPLINGS, *sorted(known)])
        raise ValueError(f"{path}: sampling must be a policy's name, or a table of its fields ({names})")
    try:
        return Sampling(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
