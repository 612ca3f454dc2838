"""Settings from a TOML file, for the command line. It may have every setting, also one without a flag.

Values are checked where settings are made; here are only the file's format and the names of sampling policies.

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

#: name in a file, a flag or a variable → sampling policy
SAMPLINGS = {"default": Sampling(), "model": Sampling.model(), "v0_1_24": Sampling.v0_1_24()}


def from_toml(path: str) -> dict[str, Any]:
    """Return the settings in a file, as keywords of :class:`Settings`.

    :raises ValueError: the file cannot be read, is not valid TOML, or has an unknown setting or sampling policy.
    """
    try:
        import tomllib
    except ModuleNotFoundError:
        tomllib = _tomli()
    try:
        with open(path, "rb") as file:
            values: dict[str, Any] = tomllib.load(file)
    except (OSError, ValueError) as error:  # invalid TOML and invalid UTF-8 are ValueErrors
        raise ValueError(f"{path}: {error}") from error
    unknown = set(values) - {setting.name for setting in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"{path}: unknown setting {', '.join(sorted(unknown))}")
    if "sampling" in values:
        values["sampling"] = _sampling(values["sampling"], path)
    return values


def _tomli() -> Any:
    """Return the module that replaces ``tomllib`` on Python 3.10."""
    try:
        import tomli  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise ValueError(
            "on Python 3.10 a configuration file needs the extra 'server'; in a clone: pip install '.[server]'"
        ) from error
    return tomli


def _sampling(value: Any, path: str) -> Sampling:
    """Return the policy that a name or a table of fields describes.

    :raises ValueError: the name, a field or a value is not valid.
    """
    if isinstance(value, str) and value in SAMPLINGS:
        return SAMPLINGS[value]
    known = {attribute.name for attribute in dataclasses.fields(Sampling)}
    if not isinstance(value, dict) or set(value) - known:
        names = ", ".join([*SAMPLINGS, *sorted(known)])
        raise ValueError(f"{path}: sampling must be the name of a policy, or a table of its fields ({names})")
    try:
        return Sampling(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
