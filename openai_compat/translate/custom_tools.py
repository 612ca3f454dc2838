"""Custom tools, which take a text: to Ollama they are functions with one argument. Chat and responses share them.

The calls of such functions are read in ``custom_input.py``.

Source: OpenAI's *custom tools*; Ollama has none.
"""

from __future__ import annotations

from msgspec import Raw

from openai_compat.native import types as native
from openai_compat.translate.fields import Ignored, RequestObject


class Grammar(RequestObject):
    """Source: OpenAI's ``CustomToolChatCompletions.custom.format.grammar``."""

    #: ``lark`` or ``regex``
    syntax: str | None = None
    definition: str | None = None


class CustomFormat(RequestObject):
    """Source: OpenAI's ``CustomGrammarFormatParam``, ``CustomTextFormatParam``; ``grammar`` is chat's form."""

    type: str | None = None
    syntax: str | None = None
    definition: str | None = None
    grammar: Grammar | None = None


class CustomDefinition(RequestObject):
    """Source: OpenAI's ``CustomToolChatCompletions.custom``."""

    name: str | None = None
    description: str | None = None
    format: CustomFormat | None = None


#: the argument ``input`` is the text of the call
_SCHEMA = Raw(b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}')


def from_custom(
    name: str, description: str | None, format: CustomFormat | None, ignored: Ignored, listed: str, path: str
) -> native.Tool:
    """Return the function that stands for a custom tool.

    A grammar cannot be enforced, since Ollama has none: the model is told of it.

    :param name: the name that the model sees.
    :param listed: the name under which the format is listed as ignored.
    :param path: of the format in the request, for errors.
    :raises APIError: 400 for a grammar under ``unsupported="error"``.
    """
    sent = native.ToolFunction(name, parameters=_SCHEMA)
    text, grammar = description or "", _grammar(format)
    if grammar.definition:
        ignored.unsupported(listed, "Ollama does not support grammars; the model is told of it.", path)
        syntax = f"{grammar.syntax} " if grammar.syntax else ""
        text += f"\n\nThe input must match this {syntax}grammar:\n{grammar.definition}"
    if text:
        sent.description = text.strip()
    return native.Tool(sent)


def _grammar(format: CustomFormat | None) -> Grammar:
    """Return the grammar of a format, in either form; an empty one for none."""
    if format is None:
        return Grammar()
    nested = format.grammar
    return nested if nested is not None and nested.definition else Grammar(format.syntax, format.definition)
