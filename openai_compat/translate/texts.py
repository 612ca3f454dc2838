"""Lists of texts: prompts of completions, inputs of embeddings. OpenAI accepts token ids too, Ollama text only."""

from __future__ import annotations

from typing import Any

from openai_compat.errors import invalid


def is_token_id(item: Any) -> bool:
    """Return whether an item of a list is a token id."""
    return isinstance(item, int) and not isinstance(item, bool)


def check_texts(given: list[Any], param: str, token_ids_message: str, other_type_message: str) -> list[str]:
    """Return the list if every item is a string.

    :param token_ids_message: error text for token ids.
    :param other_type_message: error text for anything else, with ``{path}`` for the item's path.
    :raises APIError: 400 naming *param*, or the item's path.
    """
    for index, item in enumerate(given):
        if is_token_id(item) or (isinstance(item, list) and all(map(is_token_id, item))):
            raise invalid(token_ids_message, param, "invalid_type")
        if not isinstance(item, str):
            path = f"{param}[{index}]"
            raise invalid(other_type_message.format(path=path), path, "invalid_type")
    return given
