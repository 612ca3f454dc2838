"""Names of models: the client's name, the native name behind it, and the settings of a model.

An exact name wins over a pattern, and a longer pattern over a shorter one. A name is looked up once: the target of an
alias is not an alias itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from openai_compat.errors import invalid
from openai_compat.settings import ModelSettings, Settings

V = TypeVar("V")

#: Ollama's default tag: a name with it and one without are the same model
_LATEST = ":latest"


def given(model: str | None) -> str:
    """Return the model name of a request.

    :raises APIError: 400 if it is missing or empty.
    """
    if not model:
        raise invalid("you must provide a model parameter", "model", "missing_required_parameter")
    return model


def native_name(name: str, settings: Settings) -> str:
    """Return the native name behind the client's name for a model: the alias's target, or the name itself."""
    return (_look_up(name, settings.aliases) if settings.aliases else None) or name


def defaults(name: str, settings: Settings) -> ModelSettings:
    """Return the settings of a model: those under the client's name win over those under the native name."""
    if not settings.models:
        return _NO_SETTINGS
    client_settings = _look_up(name, settings.models) or _NO_SETTINGS
    native_settings = _look_up(native_name(name, settings), settings.models) or _NO_SETTINGS
    return ModelSettings(
        options={**native_settings.options, **client_settings.options},
        keep_alive=native_settings.keep_alive if client_settings.keep_alive is None else client_settings.keep_alive,
        think=native_settings.think if client_settings.think is None else client_settings.think,
        pinned=(*native_settings.pinned, *client_settings.pinned),
    )


_NO_SETTINGS = ModelSettings()


def aliases(settings: Settings) -> list[tuple[str, str]]:
    """Return the aliases that are names, not patterns, with the model behind each."""
    return [(name, model) for name, model in settings.aliases.items() if not set(name) & set("*?[")]


def _look_up(name: str, table: Mapping[str, V]) -> V | None:
    """Return the entry of a name, or of the longest pattern that matches it; None without one."""
    for exact in (name, name.removesuffix(_LATEST), name + _LATEST):
        if exact in table:
            return table[exact]
    matching = [pattern for pattern in table if fnmatchcase(name, pattern)]
    return table[max(matching, key=len)] if matching else None
