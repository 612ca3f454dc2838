"""A native model for the frameworks, and what they ask it for.

What the model says follows from the request that arrived: JSON that the ``format`` allows, or the schema that the
prompt tells, and calls of the tools that are there. A schema that was mangled on its way gives an answer that the
framework refuses.
"""

from __future__ import annotations

import enum
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import pytest

from openai_compat.testing import FakeOllama, Recorded, Step, done, say
from openai_compat.testing.demo import encode
from openai_compat.testing.demo_text import instance

pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")

Json = dict[str, Any]


# -- what is asked for ------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int


class Stop(pydantic.BaseModel):
    city: City
    nights: int = pydantic.Field(description="nights in this city")
    note: str | None = None


class Journey(pydantic.BaseModel):
    """A journey: models in models, lists, an enumeration, constants, and what may be absent."""

    title: str
    color: Color
    by: Literal["train", "boat"]
    stops: list[Stop]
    home: City | None
    tags: list[str]
    weight: float
    settled: bool


class Area(pydantic.BaseModel):
    """An area, in a larger one."""

    name: str
    part_of: Area | None


FORMS = pytest.mark.parametrize("form", [City, Journey])


def expected(form: Any) -> Any:
    """What the model says of a form, if its schema arrives whole."""
    return form.model_validate(instance(form.model_json_schema()))


# -- the model --------------------------------------------------------------------------------

#: as JSON text, or as a call, which some templates make of that text
WAYS = pytest.mark.parametrize("way", ["text", "native"])

#: the model; others are those of the demo
NAME = "llama3.2"
SAID = "You said: "
TOLD = "The tool said: "


class Model:
    """The application: an Ollama with one model.

    A word of the last message that is the name of a tool makes the model call it, else it calls the first one. It
    thinks before it speaks, unless it must not.

    :param way: ``text`` or ``native``, how it makes a forced call; with ``talk`` it only talks.
    """

    def __init__(self, way: str = "text") -> None:
        self._way = way
        self._fakes: list[FakeOllama] = []
        #: what becomes of the JSON of the next answers, in order
        self.edits: deque[Callable[[Any], Any]] = deque()

    @property
    def requests(self) -> list[Recorded]:
        return [request for fake in self._fakes for request in fake.requests]

    @property
    def chats(self) -> list[Json]:
        """The bodies of the chats, in order."""
        return [request.json for request in self.requests if request.path == "/api/chat"]

    @property
    def is_closed(self) -> bool:
        """Every answer was closed."""
        return all(fake.opened == fake.closed for fake in self._fakes)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        fake = FakeOllama()
        if environ["PATH_INFO"] == "/api/chat":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ = {**environ, "wsgi.input": io.BytesIO(body)}
            request = json.loads(body)
            if request["model"] == NAME:
                self._script(fake, request)
        self._fakes.append(fake)
        return fake(environ, start_response)

    def _script(self, fake: FakeOllama, request: Json) -> None:
        wrong = _wrong(request.get("format"))
        if wrong:
            fake.script("/api/chat", encode({"error": wrong}), status="400 Bad Request")
            return
        pieces = list(self._pieces(request))
        limit = request.get("options", {}).get("num_predict", len(pieces))
        reason = "stop" if limit >= len(pieces) else "length"
        fake.script("/api/chat", *pieces[:limit], done(reason, prompt=7, made=min(limit, len(pieces))))

    def _pieces(self, request: Json) -> Iterator[Step]:
        form, tools, last = request.get("format"), request.get("tools", []), request["messages"][-1]
        schema = _schema_in(request["messages"])
        if request.get("think") is not False:
            yield say(thinking="Well.")
        if self._way == "talk":
            yield from _tokens("I would rather talk.")
        elif isinstance(form, dict):
            value = instance(_chosen(form, last["content"]))
            if not tools or set(value) != {"name", "parameters"}:
                yield from _tokens(json.dumps(self._edited(value)))
                return
            value["parameters"] = self._edited(value["parameters"])
            if self._way == "native":
                yield _call(value["name"], value["parameters"])
            else:
                yield from _tokens(json.dumps(value))
        elif form == "json":
            yield from _tokens(json.dumps(self._edited(instance(schema))))
        elif tools and last["role"] != "tool":
            functions = [tool["function"] for tool in tools]
            for function in [one for one in functions if one["name"] in last["content"]] or functions[:1]:
                yield _call(function["name"], self._edited(instance(function["parameters"])))
        elif schema is not None:
            text = json.dumps(self._edited(instance(schema)), indent=1)
            yield from _tokens(f"Here it is:\n```json\n{text}\n```\nAnything else?")
        else:
            yield from _tokens((TOLD if last["role"] == "tool" else SAID) + last["content"])

    def _edited(self, value: Any) -> Any:
        return self.edits.popleft()(value) if self.edits else value


def _tokens(text: str) -> Iterator[Step]:
    return (say(text[i : i + 3]) for i in range(0, len(text), 3))


def _call(name: str, arguments: Json) -> Step:
    return say(tool_calls=[{"function": {"name": name, "arguments": arguments}}])


def _chosen(form: Json, text: str) -> Json:
    """The alternative that the text names, else the first."""
    calls = [call for call in form.get("anyOf", []) if call.get("properties", {}).get("name", {}).get("const")]
    named = [call for call in calls if call["properties"]["name"]["const"] in text]
    return {**form, "anyOf": named} if named else form


def _wrong(form: Any) -> str | None:
    """Why Ollama would refuse a ``format``: it finds definitions at the root only, and knows no boolean schemas."""
    if not isinstance(form, dict):
        return None
    pending, known = [form], {f"#/$defs/{name}" for name in form.get("$defs", {})}
    for part in pending:  # which grows
        if not isinstance(part, dict) or ("$ref" in part and part["$ref"] not in known):
            return f"failed to load model vocabulary required for format: {part}"
        pending += [*part.get("properties", {}).values(), *part.get("$defs", {}).values()]
        pending += [*part.get("anyOf", []), *part.get("allOf", []), *([part["items"]] if "items" in part else [])]
    return None


def _schema_in(messages: list[Json]) -> Json | None:
    """The last JSON Schema that the messages tell."""
    found, read = None, json.JSONDecoder().raw_decode
    for message in messages:
        text = message["content"]
        start = text.find("{")
        while start >= 0:
            try:
                value, end = read(text, start)
            except ValueError:
                value, end = None, start + 1
            if isinstance(value, dict) and ("properties" in value or "$ref" in value):
                found = value
            start = text.find("{", end)
    return found
