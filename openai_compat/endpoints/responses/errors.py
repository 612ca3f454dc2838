"""Errors of a response. Native ones name fields of chat: the prompt is in ``input``, where chat has ``messages``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openai_compat.errors import APIError, invalid_output

#: fields of chat, which native errors name → those of a response
_FIELDS = {"messages": "input", "response_format": "text.format"}


def of_response(error: APIError) -> APIError:
    """Return an error with its field named as a response names it.

    OpenAI's text of a prompt that is too long says "messages" in both APIs, and clients search for it.
    """
    if error.param in _FIELDS:
        error.param = _FIELDS[error.param]
    return error


@contextmanager
def of_input() -> Iterator[None]:
    """Name the fields of a response in errors that name those of chat; in a stream :meth:`Progress.fail` does."""
    try:
        yield
    except APIError as error:
        of_response(error)
        raise


def no_summary() -> APIError:
    """Return the error for a compaction of which the model wrote nothing."""
    return invalid_output("The model wrote no summary.", "compaction_failed")


def cut_summary() -> APIError:
    """Return the error for a compaction of which the model wrote only a part: it would replace the whole."""
    return invalid_output("The model's summary was cut before its end.", "compaction_failed")
