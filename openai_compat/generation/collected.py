"""One choice of a response that is sent, checked or stored whole."""

from __future__ import annotations

from openai_compat.native import types as native
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import ToolCallOut, add_deltas


class CollectedChoice:
    """The sum of the deltas of one choice."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.thinking: list[str] = []
        self.calls: list[ToolCallOut] = []
        self.logprobs: list[native.Logprob] = []
        self.finish_reason = "stop"

    def add(self, delta: ChoiceDelta) -> None:
        """Add the next delta."""
        self.content.append(delta.content)
        self.thinking.append(delta.thinking)
        self.logprobs += delta.logprobs
        if delta.calls:
            add_deltas(self.calls, delta.calls)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason

    @property
    def text(self) -> str:
        """Return the whole content."""
        return "".join(self.content)
