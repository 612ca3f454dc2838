"""A run of native calls: what it yields, collects, checks, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from werkzeug.test import create_environ

from openai_compat.errors import APIError
from openai_compat.generation.built import built
from openai_compat.generation.choice import ChoiceBuilder
from openai_compat.generation.plan import ChatPlan, FieldNames
from openai_compat.generation.run import ChatRun, Run
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import Backend
from openai_compat.settings import Settings
from openai_compat.structured.schema_checker import checker
from openai_compat.testing import FakeOllama, Gate, done, say
from openai_compat.translate.choice_delta import ChoiceDelta
from openai_compat.translate.fields import Ignored
from openai_compat.translate.tools import CallIds
from openai_compat.transport.cancel import Cancel
from openai_compat.wire import json as wire
from tests.generation.streams import both_ways, counts, good, saying, start_chats, streams
from tests.transport.gateways import line

NOW = 1_000
#: of every message of a fake
CREATED = 1_767_225_600
CALL = {"function": {"name": "f", "arguments": {"a": 1}}}
MESSAGES = [native.Message("user", "Hi")]
REQUEST = native.ChatRequest(model="demo", messages=MESSAGES, options={})

ChatDeltas = list[tuple[int, native.ChatResponse, ChoiceDelta]]


def new_id(prefix: str) -> str:
    return prefix + "1"


def run_of(
    *apps: Any,
    threads: int = 1,
    collect: bool = False,
    max_answer: int = 1_000_000,
    cancel: Cancel | None = None,
    **options: Any,
) -> Run[native.ChatResponse]:
    """A run with a native call of each application; *options* are those of the builders."""
    starts = [built(start, ChoiceBuilder(CallIds(new_id), **options)) for start in start_chats(*apps)]
    source = streams(starts, threads=threads, cancel=cancel)
    return Run(source, len(starts), now=NOW, collect=collect, max_answer=max_answer)


def read(run: Run[Any]) -> ChatDeltas:
    with closing(run.streams):
        return list(run)


def contents(deltas: ChatDeltas, index: int = 0) -> list[str]:
    return [delta.content for found, _, delta in deltas if found == index]


# -- what it yields ---------------------------------------------------------------------------


@both_ways
def test_each_native_message_gives_a_delta_of_its_choice(threads: int) -> None:
    deltas = read(run_of(good("a", "b"), good("c"), threads=threads))
    assert [contents(deltas, index) for index in range(2)] == [["a", "b", ""], ["c", ""]]
    assert [delta.finish_reason for index, _, delta in deltas if index == 0] == [None, None, "stop"]
    assert all((message.message.content or "") == delta.content for _, message, delta in deltas if message.message)


def test_created_is_the_time_of_the_first_message() -> None:
    later = {**done(), "created_at": "2026-01-01T00:00:09Z"}
    run = run_of(saying(say("a"), later))
    assert run.created == NOW
    assert {run.created for _ in run} == {CREATED}
    run.streams.close()


@pytest.mark.parametrize("created_at", [None, "", "yesterday", "0001-01-01T00:00:00Z"])
def test_created_is_the_given_time_where_the_first_message_has_none(created_at: str | None) -> None:
    run = run_of(saying({**say("a"), "created_at": created_at}, done()))
    read(run)
    assert run.created == NOW


@both_ways
def test_it_is_complete_with_the_last_delta_of_the_last_choice(threads: int) -> None:
    gate = Gate()
    run = run_of(saying(say("a"), done()), saying(say("b"), gate, done()), threads=threads)
    seen: list[bool] = []
    with closing(run.streams):
        for _, message, _ in run:
            seen.append(run.is_complete)
            if message.done:
                gate.open()  # the second choice ends after the first
    assert seen == [False, False, False, True]


def test_it_ends_with_the_last_choice_and_leaves_the_rest_of_the_body() -> None:
    gate = Gate(timeout=0)
    fake = saying(say("a"), done(), gate)
    with closing((run := run_of(fake)).streams):
        assert len(list(run)) == 2  # nothing waited at the gate
        assert not gate.reached.is_set()


@both_ways
def test_a_stream_that_breaks_off_is_raised_after_what_came(threads: int) -> None:
    gate = Gate()
    fakes = [good("a"), saying(say("b"), gate)]
    run = run_of(*fakes, threads=threads, collect=True)
    gate.open()
    found: ChatDeltas = []
    with closing(run.streams), pytest.raises(APIError, match="ended before it was complete"):
        found.extend(run)
    assert run.is_complete is False
    assert contents(found, 1) == ["b"]
    assert run.choices[1].text == "b"
    assert all(opened == closed for opened, closed in counts(*fakes))


def test_a_run_whose_second_call_is_cancelled_is_not_complete() -> None:
    cancel = Cancel()
    fakes = [good("a"), good("b")]
    run = run_of(*fakes, cancel=cancel)
    messages = iter(run)
    with closing(run.streams):
        assert [next(messages)[0] for _ in range(2)] == [0, 0]
        cancel.set()
        with pytest.raises(APIError, match="cancelled") as raised:
            next(messages)
    assert (raised.value.status, run.is_complete) == (502, False)
    assert counts(*fakes) == [(1, 1), (0, 0)]


def test_a_run_whose_calls_are_all_cancelled_in_threads_is_not_complete() -> None:
    gate, cancel = Gate(), Cancel()
    run = run_of(*[saying(say("a"), gate, done()) for _ in range(2)], threads=2, cancel=cancel)
    cancel.set()
    gate.open()
    with closing(run.streams), pytest.raises(APIError, match="cancelled") as raised:
        list(run)
    assert (raised.value.status, run.is_complete) == (502, False)


# -- usage ------------------------------------------------------------------------------------


@both_ways
def test_the_final_message_of_each_call_is_there_for_the_usage(threads: int) -> None:
    run = run_of(saying(say("a"), done(made=1)), saying(say("b"), say("c"), done(made=2)), threads=threads)
    read(run)
    assert sorted(message.eval_count or 0 for message in run.final_messages) == [1, 2]


def test_a_final_message_is_there_when_its_delta_is() -> None:
    run = run_of(good("a"), good("b"))
    with closing(run.streams):
        seen = [len(run.final_messages) for _ in run]
    assert seen == [0, 1, 1, 2]


def test_a_single_message_is_a_final_one() -> None:
    run = run_of(saying({**done(), "message": {"role": "assistant", "content": "a"}}), collect=True)
    deltas = read(run)
    assert (contents(deltas), run.is_complete, len(run.final_messages)) == (["a"], True, 1)
    assert run.choices[0].text == "a"


# -- choices that end before their streams ----------------------------------------------------


@both_ways
def test_a_choice_that_ends_early_closes_its_stream_and_has_no_usage(threads: int) -> None:
    fakes = [saying(say("a", tool_calls=[CALL]), *[say("x")] * 500, done(made=500)), saying(say("b"), done(made=7))]
    run = run_of(*fakes, threads=threads, collect=True, closes_after_call=True)
    deltas = read(run)
    assert [delta.finish_reason for index, _, delta in deltas if index == 0] == ["tool_calls"]
    assert [message.eval_count for message in run.final_messages] == [7]
    assert run.is_complete
    assert [(choice.text, len(choice.calls), choice.finish_reason) for choice in run.choices] == [
        ("a", 1, "tool_calls"),
        ("b", 0, "stop"),
    ]
    assert counts(*fakes) == [(1, 1), (1, 1)]


def test_a_stream_is_closed_before_the_last_delta_of_its_choice_is_yielded() -> None:
    fakes = [saying(say("", tool_calls=[CALL]), say("x"), done()), good("b")]
    run = run_of(*fakes, closes_after_call=True)
    with closing(run.streams):
        assert next(iter(run))[2].finish_reason == "tool_calls"
        assert counts(*fakes) == [(1, 1), (0, 0)]


def test_a_call_in_the_final_message_has_usage() -> None:
    last = {**done(made=3), "message": {"role": "assistant", "content": "", "tool_calls": [CALL]}}
    run = run_of(saying(last), closes_after_call=True)
    [(_, _, delta)] = read(run)
    assert (delta.finish_reason, len(run.final_messages)) == ("tool_calls", 1)


def test_w2_who_stops_reading_closes_the_streams() -> None:
    fakes = [good("a", "b"), good("c")]
    run = run_of(*fakes, collect=True)
    messages = iter(run)
    next(messages)
    messages.close()  # type: ignore[attr-defined]
    assert counts(*fakes) == [(1, 0), (0, 0)]  # the streams belong to the owner of the run
    run.streams.close()
    assert counts(*fakes) == [(1, 1), (0, 0)]
    assert run.choices[0].text == "a"


# -- collecting -------------------------------------------------------------------------------


@both_ways
def test_the_choices_are_the_sums_of_their_deltas(threads: int) -> None:
    logprob = {"token": "a", "logprob": -1.0}
    fakes = [
        saying(say("", thinking="h"), say("", thinking="m"), {**say("a"), "logprobs": [logprob]}, say("b"), done()),
        saying(say("", tool_calls=[CALL]), say("", tool_calls=[CALL]), done()),
        saying(say("c"), done("length")),
    ]
    run = run_of(*fakes, threads=threads, collect=True)
    assert run.finish() is run.choices
    first, second, third = run.choices
    assert (first.text, first.thinking, first.finish_reason) == ("ab", "hm", "stop")
    assert [entry.token for entry in first.logprobs] == ["a"]
    assert ([call.function.name for call in second.calls], second.finish_reason) == (["f", "f"], "tool_calls")
    assert (third.text, third.finish_reason) == ("c", "length")
    assert counts(*fakes) == [(1, 1)] * 3


def test_without_collecting_there_are_no_choices() -> None:
    run = run_of(good("a"))
    read(run)
    assert run.choices == []


@both_ways
def test_a_run_that_fails_closes_its_streams(threads: int) -> None:
    gate = Gate()
    fakes = [saying(say("a"), gate, line({"error": "boom"})), good("b")]
    run = run_of(*fakes, threads=threads, collect=True)
    gate.open()
    with pytest.raises(APIError, match="boom"):
        run.finish()
    assert all(opened == closed for opened, closed in counts(*fakes))


def size(*messages: dict[str, Any]) -> int:
    return len(b"".join(map(line, messages)))


@both_ways
@pytest.mark.parametrize("spare", [0, -1])
def test_f29_the_responses_together_may_have_so_many_bytes(threads: int, spare: int) -> None:
    total = 2 * size(say("a"), say("b"), done())
    run = run_of(good("a", "b"), good("a", "b"), threads=threads, collect=True, max_answer=total + spare)
    if spare == 0:
        assert [choice.text for choice in run.finish()] == ["ab", "ab"]
    else:
        with pytest.raises(APIError, match="too long") as raised:
            run.finish()
        assert (raised.value.status, raised.value.code, raised.value.retry) == (502, "upstream_error", False)


def test_f29_a_response_that_is_too_long_is_not_read_on() -> None:
    fake = saying(*[say("a")] * 100, done())
    run = run_of(fake, collect=True, max_answer=size(*[say("a")] * 10))
    found: ChatDeltas = []
    with closing(run.streams), pytest.raises(APIError, match="too long"):
        found.extend(run)
    assert len(found) == 10
    assert counts(fake) == [(1, 1)]


def test_a_stream_that_is_not_collected_may_have_any_number_of_bytes() -> None:
    assert len(read(run_of(saying(*[say("a")] * 100, done()), max_answer=1))) == 101


# -- chats ------------------------------------------------------------------------------------

SCHEMA = b'{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'


class Called(NamedTuple):
    """What a run needs of a request."""

    settings: Settings
    now: int = NOW
    new_id: Callable[[str], str] = new_id


def chat_run(
    fake: FakeOllama, *, strict: bool = False, retry: bool = False, request: native.ChatRequest = REQUEST, **plan: Any
) -> tuple[ChatRun, Ignored]:
    settings = Settings(retry_strict=retry)
    ignored = Ignored(settings, [])
    checks = checker(SCHEMA) if strict else None
    backend = Backend(fake, create_environ(), settings, KnownLimits())
    made = ChatPlan(request, "gpt", checker=checks, **plan)
    return ChatRun(made, backend, ignored, Called(settings)), ignored


def answers(*texts: str, reason: str = "stop") -> FakeOllama:
    fake = FakeOllama()
    for number, text in enumerate(texts, 1):
        fake.script("/api/chat", say(text), done(reason, made=number))
    return fake


def sent(fake: FakeOllama) -> list[Any]:
    return [request.json for request in fake.requests]


@pytest.mark.parametrize("seed", [None, 5, -1])
def test_each_choice_is_a_native_call_with_a_seed_of_its_own(seed: int | None) -> None:
    fake = answers("a", "b", "c")
    request = native.ChatRequest(model="demo", messages=MESSAGES, options={} if seed is None else {"seed": seed})
    before = wire.encode(request)
    chat, _ = chat_run(fake, n=3, request=request)
    run = chat.finish()
    assert [choice.text for choice in run.choices] == ["a", "b", "c"]
    assert [body.get("options", {}).get("seed") for body in sent(fake)] == ([5, 6, 7] if seed == 5 else [seed] * 3)
    assert wire.encode(request) == before
    assert counts(fake) == [(3, 3)]


def test_a_streamed_chat_collects_only_where_it_is_told_to() -> None:
    for collect, found in ((False, []), (True, ["a"])):
        chat, _ = chat_run(answers("a"))
        run = chat.start(collect=collect)
        read(run)
        assert [choice.text for choice in run.choices] == found


def test_a_streamed_choice_that_does_not_match_its_schema_has_no_last_delta() -> None:
    fake = answers('{"a": "x"}')
    chat, _ = chat_run(fake, strict=True)
    run = chat.start()
    found: ChatDeltas = []
    with closing(run.streams), pytest.raises(APIError, match="does not match the schema") as raised:
        found.extend(run)
    assert (raised.value.status, raised.value.code, raised.value.retry) == (502, "response_format_failed", False)
    assert [delta.finish_reason for _, _, delta in found] == [None]
    assert counts(fake) == [(1, 1)]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_choice_that_was_cut_is_not_checked(streamed: bool) -> None:
    chat, _ = chat_run(answers('{"a"', reason="length"), strict=True, retry=True)
    run = chat.start(collect=True) if streamed else chat.finish()
    if streamed:
        read(run)
    assert [choice.finish_reason for choice in run.choices] == ["length"]


def test_a_choice_that_does_not_match_is_an_error_of_its_own_kind() -> None:
    fake = answers("no")
    chat, _ = chat_run(fake, strict=True)
    with pytest.raises(APIError) as raised:
        chat.finish()
    assert (raised.value.status, raised.value.code) == (502, "response_format_failed")
    assert len(fake.requests) == 1


def test_a_choice_that_does_not_match_is_generated_again_with_the_reason() -> None:
    fake = answers('{"a": 1}', "no", '{"a": 2}')
    request = native.ChatRequest(model="demo", messages=MESSAGES, options={"seed": 5})
    before = wire.encode(request)
    chat, ignored = chat_run(fake, strict=True, retry=True, n=2, request=request)
    run = chat.finish()
    assert [choice.text for choice in run.choices] == ['{"a": 1}', '{"a": 2}']
    assert [message.eval_count for message in run.final_messages] == [1, 2, 3]
    assert wire.encode(request) == before
    first, second, again = sent(fake)
    assert first["messages"] == second["messages"] == [{"role": "user", "content": "Hi"}]
    assert again["options"] == second["options"] == {"seed": 6}
    assert [message["role"] for message in again["messages"]] == ["user", "assistant", "user"]
    assert again["messages"][1]["content"] == "no"
    assert "JSON Schema" in again["messages"][2]["content"]
    assert ignored.headers() == []
    assert counts(fake) == [(3, 3)]


def test_a_choice_is_generated_again_only_once() -> None:
    fake = answers("no", "nor")
    chat, _ = chat_run(fake, strict=True, retry=True)
    with pytest.raises(APIError) as raised:
        chat.finish()
    assert raised.value.code == "response_format_failed"
    assert counts(fake) == [(2, 2)]


def test_a_fence_around_json_is_removed_before_the_check() -> None:
    fake = answers('```json\n{"a": 1}\n```')
    chat, _ = chat_run(fake, strict=True, answer_format="json")
    assert json.loads(chat.finish().choices[0].text) == {"a": 1}


def test_a_chat_without_tokens_has_usage_and_no_text() -> None:
    chat, _ = chat_run(answers("a"), max_tokens_is_zero=True)
    run = chat.finish()
    assert [(choice.text, choice.finish_reason) for choice in run.choices] == [("", "length")]
    assert len(run.final_messages) == 1


def test_a_model_that_cannot_think_is_remembered_for_the_next_choice() -> None:
    fake = FakeOllama()
    fake.script("/api/chat", {"error": '"demo" does not support thinking'}, status="400 Bad Request")
    for text in ("a", "b"):
        fake.script("/api/chat", say(text), done())
    request = native.ChatRequest(model="demo", messages=MESSAGES, options={}, think=True)
    chat, ignored = chat_run(fake, n=2, request=request, fields=FieldNames(think="reasoning_effort"))
    run = chat.finish()
    assert [choice.text for choice in run.choices] == ["a", "b"]
    assert ["think" in body for body in sent(fake)] == [True, False, False]
    assert ignored.headers() == [("openai-compat-ignored", "reasoning_effort")]
    assert request.think is True


def test_a_run_that_is_cancelled_before_a_second_attempt_has_no_answer() -> None:
    """Not what the first one left: it is the end of the request that ends the second."""
    fake = FakeOllama()
    fake.script("/api/chat", say(""), done())
    tools = [native.Tool(native.ToolFunction("f"))]
    chat, _ = chat_run(fake, request=native.ChatRequest(model="demo", messages=MESSAGES, options={}, tools=tools))
    run = chat.start()
    messages = iter(run)
    with closing(run.streams):
        while not next(messages)[1].done:
            pass
        chat.backend.cancel.set()
        with pytest.raises(APIError, match="cancelled"):
            list(messages)
    assert len(fake.requests) == 1
