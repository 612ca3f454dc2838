"""The calls of a history, and the results that answer them: by id, or by order where a client sends no ids.

Some servers number the calls of every turn anew, so that the latest call of an id counts. Each call is looked at a few
times at most, however many there are.
"""

from __future__ import annotations

from collections import deque

from openai_compat.native import types as native


class _Past:
    """A call, and whether a result has answered it."""

    def __init__(self, call: native.ToolCall) -> None:
        self.call = call
        self.is_answered = False


class PastCalls:
    """The calls so far. A result without an id answers one of the last turn with calls, the first without a result."""

    def __init__(self) -> None:
        #: of all turns
        self._latest: dict[str, _Past] = {}
        #: of the last turn with calls, in order: all, and by name and by id
        self._turn: deque[_Past] = deque()
        self._by_name: dict[str, deque[_Past]] = {}
        self._by_id: dict[str, deque[_Past]] = {}
        self._has_ended = False

    def add(self, call: native.ToolCall) -> None:
        """Add a call of the assistant."""
        if self._has_ended:
            self._has_ended = False
            self._turn, self._by_name, self._by_id = deque(), {}, {}
        past = _Past(call)
        self._turn.append(past)
        self._by_name.setdefault(call.function.name, deque()).append(past)
        if call.id:
            self._latest[call.id] = past
            self._by_id.setdefault(call.id, deque()).append(past)

    def end_turn(self) -> None:
        """Note a message of another role: the next call belongs to another turn."""
        self._has_ended = True

    def answered(self, id: str | None, name: str | None = None) -> native.ToolCall | None:
        """Return the call that a result answers, if there is one.

        :param name: the function that a result without an id names.
        """
        self.end_turn()
        if id:
            found = _first_unanswered(self._by_id.get(id)) or self._latest.get(id)
        else:
            found = _first_unanswered(self._by_name.get(name) if name else self._turn)
        if found is None:
            return None
        found.is_answered = True
        return found.call


def _first_unanswered(calls: deque[_Past] | None) -> _Past | None:
    while calls and calls[0].is_answered:
        calls.popleft()
    return calls[0] if calls else None
