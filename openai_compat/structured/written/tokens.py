"""Calls between the tokens of DeepSeek and Kimi: a name, a separator, JSON."""

from __future__ import annotations

import itertools
import re

from openai_compat.structured.written.json_calls import read_arguments
from openai_compat.structured.written.reading import Literals, Reader, Source

_LANGUAGE = re.compile(r"[\w+-]*")
_FENCE = Literals(("```",))


def variants(words: str) -> tuple[str, ...]:
    """Return the ways in which a token is written: ``tool call begin`` is ``<｜tool▁call▁begin｜>`` and others."""
    return tuple(f"<{bar}{words.replace(' ', joint)}{bar}>" for bar, joint in itertools.product("｜|", "▁_"))


_SEPARATORS = Literals((*variants("tool sep"), "<|tool_call_argument_begin|>"))


def read_between_tokens(source: Source) -> Reader[None]:
    """Read a call, after the token that begins it."""
    yield from source.blanks()
    written = yield from source.name()
    yield from source.blanks()
    yield from source.expect(_SEPARATORS)
    if written == "function" and source.tools.name(written) is None:
        yield from source.blanks()
        written = yield from source.name()
    name = source.tool(written)
    is_fenced = (yield from source.blanks()) == "`"
    if is_fenced:
        yield from source.expect(_FENCE)
        yield from source.run(_LANGUAGE)
    source.add_call(name, (yield from read_arguments(source)))
    if is_fenced and (yield from source.blanks()) == "`":
        yield from source.expect(_FENCE)
