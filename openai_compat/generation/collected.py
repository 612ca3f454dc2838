"""The sum of a choice's deltas, for responses that are not streamed, checked against a schema, or stored.

Only sums belong here: checks and response formats are left to its users.
"""

from __future__ import annotations

from openai_compat.native import types as native
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.tools import ToolCallOut, add_deltas


class CollectedChoice:
    """The sum of one choice's deltas; text is joined when it is read, not at every delta."""

    def __init__(self) -> None:
        #: in order, for responses that keep the order of thinking, text and calls
        self.deltas: list[ChoiceDelta] = []
        self.calls: list[ToolCallOut] = []
        self.logprobs: list[native.Logprob] = []
        self.finish_reason = "stop"

    def add(self, delta: ChoiceDelta) -> None:
        """Append the next delta."""
        if delta.restarts:
            self.deltas, self.calls, self.logprobs = [], [], []
        self.deltas.append(delta)
        self.logprobs += delta.logprobs
        if delta.calls:
            add_deltas(self.calls, delta.calls)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason

    @property
    def text(self) -> str:
        """Return the content so far."""
        return "".join([delta.content for delta in self.deltas])

    @property
    def thinking(self) -> str:
        """Return the thinking so far."""
        return "".join([delta.thinking for delta in self.deltas])
