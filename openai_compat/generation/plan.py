"""The plan of a chat: the native request and how to treat its responses, independent of the endpoint.

An endpoint maps its request to a plan; :class:`openai_compat.generation.run.ChatRun` carries it out, in one attempt or
in two, and what a model lacks decides how an attempt's native request looks (``attempts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import UNSET, Raw, UnsetType

from openai_compat.native import types as native
from openai_compat.structured.schema_checker import Checker
from openai_compat.structured.tool_choice import ForcedChoice


@dataclass(frozen=True)
class FieldNames:
    """The fields of the client's request, for errors and for the list of those without effect."""

    #: has the format of the answer
    format: str = "response_format"
    #: wants the answer to be checked
    strict: str = "response_format.json_schema.strict"
    tools: str = "tools"
    logprobs: str = "logprobs"
    #: enabled thinking; None if a setting did, or thinking is not enabled
    think: str | None = None
    #: the paths of the functions' parameters by the functions' names
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChatPlan:
    """A native chat request, and how to make choices from its responses."""

    #: with the tools that may be called, and without a format
    native_request: native.ChatRequest
    #: the client's name for the model
    model: str
    #: the native ``format`` of an answer without calls
    answer_format: str | Raw | UnsetType = UNSET
    #: number of choices; each is a native call, or two
    n: int = 1
    #: the tool call that the model must make
    forced: ForcedChoice | None = None
    #: functions that may be called, if the tool choice excludes some of the request's functions
    allowed: frozenset[str] | None = None
    #: returns the name of the tool that a model means by a name, which it may spell in other ways
    tool_name: Callable[[str], str] = str
    #: drop all tool calls but the first
    single_tool_call: bool = False
    #: the response has the usage, which the end of a native stream has: it must be read to its end
    needs_usage: bool = True
    #: generate no text
    max_tokens_is_zero: bool = False
    #: checks the content of each choice that finished with ``stop``
    checker: Checker | None = None
    #: the functions whose arguments are checked, and the request's field that wants it
    strict_tools: Mapping[str, str] = field(default_factory=dict)
    fields: FieldNames = field(default_factory=FieldNames)

    @property
    def closes_after_call(self) -> bool:
        """Return whether a native stream is closed after its first tool call."""
        return self.single_tool_call and not self.needs_usage
