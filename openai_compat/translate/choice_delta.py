"""What one native message adds to a choice, in OpenAI's terms but in no endpoint's format.

A whole response collects deltas, a stream sends them on.
"""

from __future__ import annotations

from msgspec import Struct

from openai_compat.native import types as native
from openai_compat.translate.tools import ToolCallDelta


class ChoiceDelta(Struct):
    """What one native message adds to a choice; empty where it adds nothing."""

    thinking: str = ""
    content: str = ""
    logprobs: list[native.Logprob] = []
    calls: list[ToolCallDelta] = []
    #: in the last delta only
    finish_reason: str | None = None
    #: the choice is generated once more, and what came so far is no part of it
    restarts: bool = False
