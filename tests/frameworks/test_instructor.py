"""instructor over OpenAI's API; the versions are those of ``instructor.txt``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import pytest

from openai_compat import OpenAICompat
from tests.frameworks.backend import FORMS, NAME, SAID, Area, City, Journey, Model, Stop, expected, pydantic
from tests.servers import live

instructor = pytest.importorskip("instructor", reason="the package instructor is not installed")
core = pytest.importorskip("instructor.core")
openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2", reason="this openai does not ride on httpx2")

Mode = instructor.Mode
TELL = [{"role": "user", "content": "Tell me."}]

# It says so once in a process, so no test can expect it.
pytestmark = pytest.mark.filterwarnings(r"ignore:Mode\.TOOLS_STRICT is deprecated:DeprecationWarning:instructor")

#: a call is made in two ways, JSON in one
MODES = pytest.mark.parametrize(
    ("mode", "way"),
    [
        (Mode.TOOLS, "text"),
        (Mode.TOOLS, "native"),
        (Mode.TOOLS_STRICT, "text"),
        (Mode.JSON, "text"),
        (Mode.JSON_SCHEMA, "text"),
        (Mode.MD_JSON, "text"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)

Ask = Callable[[Any], Any]


class Adult(pydantic.BaseModel):
    """Whoever is of age, which no schema says."""

    name: str
    age: int

    @pydantic.field_validator("age")
    @classmethod
    def _check_age(cls, age: int) -> int:
        if age < 18:
            raise ValueError("nobody under 18")
        return age


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the client would read from the environment."""
    for name in os.environ:
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@pytest.fixture
def way() -> str:
    return "text"


@pytest.fixture
def model(way: str) -> Iterator[Model]:
    model = Model(way)
    yield model
    assert model.is_closed


@pytest.fixture
def ask(model: Model) -> Iterator[Ask]:
    """Makes instructor's client, in process; nothing that it sends may be ignored."""
    transport, ignored = httpx2.WSGITransport(app=OpenAICompat(model)), []
    hooks = {"response": [lambda response: ignored.append(response.headers.get("openai-compat-ignored"))]}
    with (
        openai.DefaultHttpxClient(transport=transport, trust_env=False, event_hooks=hooks) as http,
        openai.OpenAI(base_url="http://testserver/v1", api_key="x", http_client=http) as client,
    ):
        yield lambda mode: instructor.from_openai(client, mode=mode, model=NAME)
    assert set(ignored) == {None}


def same(found: Any, wanted: Any) -> bool:
    """Equal but for what instructor hides in its answers."""
    return isinstance(found, type(wanted)) and bool(found.model_dump() == wanted.model_dump())


def check_sent(sent: Any, mode: Any, name: str) -> None:
    """What arrived of a request for one answer of this name."""
    if mode in (Mode.TOOLS, Mode.TOOLS_STRICT):
        [tool] = sent["tools"]
        [call] = sent["format"]["anyOf"]
        assert tool["function"]["name"] == call["properties"]["name"]["const"] == name
        assert sent["think"] is False
        return
    assert "tools" not in sent
    if mode is Mode.JSON_SCHEMA:
        assert sent["format"]["title"] == name
    else:
        assert sent.get("format") == ("json" if mode is Mode.JSON else None)
        assert f'"title": "{name}"' in sent["messages"][0]["content"]


# -- one answer -------------------------------------------------------------------------------


@MODES
@FORMS
def test_create(ask: Ask, model: Model, mode: Any, form: Any) -> None:
    found, completion = ask(mode).create_with_completion(response_model=form, messages=TELL)
    assert same(found, expected(form))
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens == 7
    [sent] = model.chats
    check_sent(sent, mode, form.__name__)


@MODES
def test_a_model_within_itself(ask: Ask, mode: Any) -> None:
    found = ask(mode).create(response_model=Area, messages=TELL)
    assert found.part_of.part_of is None


@MODES
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (int, 1),
        (Literal["left", "right"], "left"),
        (list[City], [expected(City)]),
        (instructor.Maybe(City), None),
    ],
    ids=["int", "Literal", "list", "Maybe"],
)
def test_what_is_no_model(ask: Ask, mode: Any, wanted: Any, found: Any) -> None:
    answer = ask(mode).create(response_model=wanted, messages=TELL)
    assert (answer if found is not None else answer.result) == (found or expected(City))


def test_plain_chat(ask: Ask) -> None:
    completion = ask(Mode.TOOLS).create(response_model=None, messages=TELL)
    assert completion.choices[0].message.content == SAID + "Tell me."


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON, Mode.JSON_SCHEMA, Mode.MD_JSON])
def test_an_answer_that_is_cut_off(ask: Ask, mode: Any) -> None:
    with pytest.raises(core.IncompleteOutputException):
        ask(mode).create(response_model=Journey, messages=TELL, max_tokens=20)


def test_async() -> None:
    model = Model()

    async def run(url: str) -> tuple[Any, list[Any]]:
        async with (
            openai.DefaultAsyncHttpxClient(trust_env=False) as http,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", http_client=http) as client,
        ):
            asking = instructor.from_openai(client, mode=Mode.TOOLS, model=NAME)
            partial = asking.create_partial(response_model=Journey, messages=TELL, strict=False)
            return await asking.create(response_model=Journey, messages=TELL), [part async for part in partial]

    with live(OpenAICompat(model)) as url:
        whole, parts = asyncio.run(run(url))
    assert same(whole, expected(Journey))
    assert same(parts[-1], expected(Journey))


# -- streamed answers -------------------------------------------------------------------------


@MODES
@FORMS
def test_partial(ask: Ask, model: Model, mode: Any, way: str, form: Any) -> None:
    # A complete answer is validated as Python's values, so that strictly no string is an enumeration's member.
    parts = list(ask(mode).create_partial(response_model=form, messages=TELL, strict=False))
    assert same(parts[-1], expected(form))
    assert len(parts) > 3 or way == "native"
    names = [getattr(part, next(iter(form.model_fields))) for part in parts]
    assert names == sorted(names, key=lambda name: len(name or ""))  # it grows
    check_sent(model.chats[0], mode, f"Partial{form.__name__}")


@MODES
def test_iterable(ask: Ask, model: Model, mode: Any) -> None:
    model.edits.append(lambda value: {"tasks": [{**value["tasks"][0], "people": count} for count in (1, 2, 3)]})
    found = list(ask(mode).create_iterable(response_model=City, messages=TELL))
    assert found == [City(name="demo", people=count) for count in (1, 2, 3)]
    check_sent(model.chats[0], mode, "IterableCity")


# -- another try ------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("form", "edit", "complaint"),
    [
        (City, {"people": "many"}, "valid integer"),
        (Adult, {"age": 17}, "nobody under 18"),
    ],
    ids=["schema", "validator"],
)
def test_an_answer_that_is_not_valid(ask: Ask, model: Model, mode: Any, form: Any, edit: Any, complaint: str) -> None:
    model.edits += [lambda value: {**value, **edit}, lambda value: {**value, "name": "second", next(iter(edit)): 20}]
    found, completion = ask(mode).create_with_completion(response_model=form, messages=TELL, max_retries=1)
    assert found.name == "second"
    assert completion.usage.prompt_tokens == 14
    [first, second] = model.chats
    check_sent(second, mode, form.__name__)
    *_, said, told = second["messages"]
    assert complaint in told["content"]
    if "tools" in second:
        [call] = said["tool_calls"]
        assert edit.items() <= call["function"]["arguments"].items()
        assert (told["role"], told["tool_name"], told["tool_call_id"]) == ("tool", form.__name__, call["id"])
    else:
        assert (told["role"], said["role"]) == ("user", "assistant")
        assert str(next(iter(edit.values()))) in said["content"]


@MODES
def test_no_valid_answer(ask: Ask, model: Model, mode: Any) -> None:
    model.edits += [lambda value: {**value, "people": "many"}] * 3
    with pytest.raises(core.InstructorRetryException, match="valid integer") as caught:
        ask(mode).create(response_model=City, messages=TELL, max_retries=2)
    assert caught.value.n_attempts == len(model.chats) == 3


@pytest.mark.parametrize("way", ["talk"])
def test_an_answer_that_is_no_call(ask: Ask, model: Model) -> None:
    with pytest.raises(core.InstructorRetryException, match="tool_choice_failed"):
        ask(Mode.TOOLS).create(response_model=City, messages=TELL)
    assert len(model.chats) == 1


# -- calls of several tools -------------------------------------------------------------------


def test_parallel_calls(ask: Ask, model: Model) -> None:
    both = [{"role": "user", "content": "a City, a Stop"}]
    found = list(ask(Mode.PARALLEL_TOOLS).create(response_model=Iterable[City | Stop], messages=both))
    assert found == [expected(City), expected(Stop)]
    [sent] = model.chats
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["City", "Stop"]
    assert "format" not in sent
