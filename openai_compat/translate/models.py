"""Names of models: what a client calls one, what the native side calls it, and what it is asked with.

An exact name beats a pattern, and a longer pattern a shorter one. Names are looked up once: an alias of an alias
is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from openai_compat.errors import invalid
from openai_compat.settings import ModelSettings, Settings

V = TypeVar("V")

_LATEST = ":latest"


def given(model: str | None) -> str:
    """The name that a client asks for.

    :raises APIError: 400 for none.
    """
    if not model:
        raise invalid("you must provide a model parameter", "model", "missing_required_parameter")
    return model


def native_name(asked: str, settings: Settings) -> str:
    """The model behind the name that a client asks for; the name itself if it is no alias."""
    return (_found(asked, settings.aliases) if settings.aliases else None) or asked


def defaults(asked: str, settings: Settings) -> ModelSettings:
    """What the settings say of a model, under the client's name for it and under its own; the former wins."""
    if not settings.models:
        return _NOTHING
    mine = _found(asked, settings.models) or _NOTHING
    own = _found(native_name(asked, settings), settings.models) or _NOTHING
    return ModelSettings(
        options={**own.options, **mine.options},
        keep_alive=own.keep_alive if mine.keep_alive is None else mine.keep_alive,
        think=own.think if mine.think is None else mine.think,
    )


_NOTHING = ModelSettings()


def aliases(settings: Settings) -> list[tuple[str, str]]:
    """The aliases that are names, and can be listed; with the model behind each."""
    return [(name, model) for name, model in settings.aliases.items() if not set(name) & set("*?[")]


def _found(name: str, table: Mapping[str, V]) -> V | None:
    for exact in (name, name.removesuffix(_LATEST), name + _LATEST):
        if exact in table:
            return table[exact]
    matching = [pattern for pattern in table if fnmatchcase(name, pattern)]
    return table[max(matching, key=len)] if matching else None
