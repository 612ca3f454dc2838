"""The reasons for which a choice is generated a second time, in the order in which they count; the README shows them.

A choice is generated twice at most, so that the first reason that holds is the only one.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """Why and how a choice is generated once more."""

    when: str
    how: str
    #: of the middleware; without it the first attempt stands
    setting: str = ""


UNPARSABLE = Reason(
    "Ollama could not parse what the model wrote, and the error quotes no call that can be read",
    "with emulated tools",
    "emulate_tools",
)
SILENT = Reason(
    "the model answered nothing under a format of this middleware (a forced call, emulated tools) without thinking",
    "with the least of thinking, ``low``; remembered for the model",
)
STRICT_CALL = Reason(
    "the arguments of a call do not match the schema of a strict function",
    "with the error in the messages",
    "retry_strict",
)
LOST = Reason("with tools, neither text nor a call came", "with emulated tools", "emulate_tools")
NOT_THE_FORMAT = Reason(
    "beside an output format no call came, and the text is not what the format wants",
    "with the format, without tools",
    "tools_with_format",
)
STRICT_ANSWER = Reason(
    "a response that is not streamed does not match its strict schema",
    "with the error in the messages",
    "retry_strict",
)

REASONS = (UNPARSABLE, SILENT, STRICT_CALL, LOST, NOT_THE_FORMAT, STRICT_ANSWER)
