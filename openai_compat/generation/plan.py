"""What a chat request asks of the native side, whichever endpoint received it."""

from __future__ import annotations

from dataclasses import dataclass

from openai_compat.native import types as native
from openai_compat.structured.schema_checker import Checker
from openai_compat.structured.tool_choice import ForcedChoice


@dataclass(frozen=True)
class ChatPlan:
    """The native request of a chat, and how its answer is to be treated."""

    native_request: native.ChatRequest
    #: the client's name for the model
    model: str
    #: the request's field that turned thinking on; None if a setting did, or nothing
    think_field: str | None = None
    #: choices, a native call each
    n: int = 1
    #: the call that the answer must be
    forced: ForcedChoice | None = None
    #: the functions that may be called, where the request leaves some of its own out
    allowed: frozenset[str] | None = None
    #: pass on the first tool call only
    single_tool_call: bool = False
    #: close a native call after its first tool call: its usage is not sent to the client
    closes_after_call: bool = False
    max_tokens_is_zero: bool = False
    #: the answer is JSON text: what a model writes around it is taken off
    is_json: bool = False
    #: checks the text of each choice that ended by itself
    checker: Checker | None = None
