"""The plan of a chat: the native request and how to treat its responses, independent of the endpoint.

An endpoint maps its request to a plan; :class:`openai_compat.generation.run.ChatRun` carries it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openai_compat.native import types as native
from openai_compat.structured.schema_checker import Checker
from openai_compat.structured.tool_choice import ForcedChoice


@dataclass(frozen=True)
class ChatPlan:
    """A native chat request, and how to make choices from its responses."""

    native_request: native.ChatRequest
    #: the client's name for the model
    model: str
    #: the request field that enabled thinking; None if a setting did, or thinking is not enabled
    think_field: str | None = None
    #: number of choices; each is a native call
    n: int = 1
    #: the tool call that the model must make
    forced: ForcedChoice | None = None
    #: functions that may be called, if the tool choice excludes some of the request's functions
    allowed: frozenset[str] | None = None
    #: returns the name of the tool that a model means by a name, which it may spell in other ways
    tool_name: Callable[[str], str] = str
    #: drop all tool calls but the first
    single_tool_call: bool = False
    #: close a native stream after its first tool call; possible only where usage, which its end has, is not needed
    closes_after_call: bool = False
    #: generate no text
    max_tokens_is_zero: bool = False
    #: the content is JSON: remove text that a model writes around it
    is_json: bool = False
    #: checks the content of each choice that finished with ``stop``
    checker: Checker | None = None
    #: the request field that has the schema, and the one that wants the check
    format_field: str = "response_format"
    strict_field: str = "response_format.json_schema.strict"
