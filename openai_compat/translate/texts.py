"""Lists of texts: prompts of completions, inputs of embeddings. OpenAI accepts token ids too, Ollama text only."""

from __future__ import annotations

from typing import Any

from openai_compat.errors import invalid


def check_texts(given: list[Any], param: str, token_ids_message: str, other_type_message: str) -> list[str]:
    """Return the list if every item is a string.

    :param token_ids_message: error text for token ids.
    :param other_type_message: error text for anything else, with ``{path}`` for the item's path.
    :raises APIError: 400 naming *param*, or the item's path.
    """
    for index, item in enumerate(given):
        if isinstance(item, int | list) and not isinstance(item, bool):
            raise invalid(token_ids_message, param, "invalid_type")
        if not isinstance(item, str):
            path = f"{param}[{index}]"
            raise invalid(other_type_message.format(path=path), path, "invalid_type")
    return given
