"""A task for agents with two tools and an output schema, and models of all kinds that do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openai_compat.testing import FakeOllama, done, say

pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")

PROMPT = "Ask for people, and report."


class Report(pydantic.BaseModel):
    """What is known of a city."""

    city: str
    people: int
    note: str | None


#: model → native chats: *scripted* calls twice, tells, and is asked once more with the format; the demo calls the tool
#: that is named. *demo-plain* is refused once for its tools, and answers in the format at once.
CHATS = {"scripted": 4, "demo-tools": 3, "demo-plain": 3, "demo-text": 3}

MODELS = pytest.mark.parametrize("name", CHATS)


class Task:
    """The task for one model.

    :param name: of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: the application: an Ollama that records the requests
        self.native = FakeOllama()
        #: name and arguments of each call of a tool
        self.called: list[tuple[str, dict[str, Any]]] = []
        if name == "scripted":
            self._script()

    def _script(self) -> None:
        for function, arguments in (("weather", {"city": "Oslo"}), ("people", {"city": "Oslo", "year": 1990})):
            call = {"function": {"name": function, "arguments": arguments}}
            self.native.script("/api/chat", say(thinking="Well."), say(tool_calls=[call]), done())
        self.native.script("/api/chat", say(thinking="Well."), say("Some 5 live "), say("there."), done())
        self.native.script("/api/chat", say('{"city": "Oslo", '), say('"people": 5, "note": null}'), done())

    @property
    def functions(self) -> list[Callable[..., str]]:
        """The tools, each of which notes its calls."""

        def weather(city: str) -> str:
            """Tell the weather of a city."""
            self.called.append(("weather", {"city": city}))
            return f"rain in {city}"

        def people(city: str, year: int) -> str:
            """Count the people of a city."""
            self.called.append(("people", {"city": city, "year": year}))
            return f"5 live in {city}"

        return [weather, people]

    def check(self, answer: object) -> None:
        """Check that the tools were called, what the answer is, and the native chats."""
        scripted = self.name == "scripted"
        wanted = [("people", {"city": "demo", "year": 1})]
        if scripted:
            wanted = [("weather", {"city": "Oslo"}), ("people", {"city": "Oslo", "year": 1990})]
        assert self.called == wanted
        report = Report(city="Oslo", people=5, note=None) if scripted else Report(city="demo", people=1, note="demo")
        assert answer == report
        chats = [request.json for request in self.native.requests if request.path == "/api/chat"]
        assert len(chats) == CHATS[self.name]
        if self.name != "demo-plain":
            first, last = chats[-2:]
            assert ("format" in first, len(first["tools"])) == (False, 2)
            assert (last["format"]["properties"].keys(), "tools" in last) == (Report.model_fields.keys(), False)
        assert self.native.opened == self.native.closed
        self.native.assert_all_used()
