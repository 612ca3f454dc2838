"""Errors of a response. In native ones the prompt is in ``input``, where chat has ``messages``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openai_compat.errors import APIError, invalid_output


@contextmanager
def of_input() -> Iterator[None]:
    """Name ``input`` in errors that name ``messages``.

    OpenAI's text of a prompt that is too long says "messages" in both APIs, and clients search for it.
    """
    try:
        yield
    except APIError as error:
        if error.param == "messages":
            error.param = "input"
        raise


def no_summary() -> APIError:
    """Return the error for a compaction of which the model wrote nothing."""
    return invalid_output("The model wrote no summary.", "compaction_failed")
