"""Several native streams as one: either way, and one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.stream import NativeStream
from openai_compat.testing import Gate, done, say
from openai_compat.transport.cancel import Cancel
from tests.generation.streams import (
    Ended,
    StartChat,
    both_ways,
    counts,
    good,
    of,
    refusing,
    saying,
    start_chat,
    start_chats,
    streams,
    text,
    texts,
)
from tests.transport.gateways import line

# -- either way -------------------------------------------------------------------------------


@both_ways
def test_every_message_comes_in_order_and_every_stream_is_closed_once(threads: int) -> None:
    fakes = [good("a", "b"), good("c"), good("d", "e", "f")]
    with closing(streams(start_chats(*fakes), threads=threads)) as source:
        found = texts(source)
    assert [of(i, found) for i in range(3)] == [["a", "b", ""], ["c", ""], ["d", "e", "f", ""]]
    assert counts(*fakes) == [(1, 1)] * 3


@both_ways
def test_there_may_be_none(threads: int) -> None:
    with closing(streams(list[StartChat](), threads=threads)) as source:
        assert (list(source), source.size, source.pending) == ([], 0, False)


@pytest.mark.parametrize(("count", "threads"), [(3, 1), (1, 8)])
def test_one_at_a_time_is_asked_in_the_thread_of_the_request(count: int, threads: int) -> None:
    seen: list[int] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(threading.get_ident())
        return good("a")(environ, start_response)

    with closing(streams(start_chats(*[app] * count), threads=threads)) as source:
        assert len(list(source)) == 2 * count
    assert seen == [threading.get_ident()] * count


@both_ways
def test_the_size_is_that_of_all_answers(threads: int) -> None:
    fakes = [good("a", "b"), good("c"), good("d")]
    sizes = [len(b"".join(map(line, lines))) for lines in ([say("a"), say("b"), done()], [say("c"), done()])]
    with closing(streams(start_chats(*fakes), threads=threads)) as source:
        list(source)
        assert source.size == sizes[0] + 2 * sizes[1]
    assert source.size == sizes[0] + 2 * sizes[1]


@both_ways
def test_w2_it_may_be_closed_before_its_first_message_and_again(threads: int) -> None:
    fakes = [good("a"), good("b")]
    source = streams(start_chats(*fakes), threads=threads)
    for _ in range(3):
        source.close()
    assert list(source) == []
    assert all(opened == closed for opened, closed in counts(*fakes))
    assert counts(fakes[0]) == [(1, 1)]


@both_ways
def test_w2_it_may_be_closed_in_the_middle(threads: int) -> None:
    fakes = [good("a", "b"), good("c", "d"), good("e")]
    source = streams(start_chats(*fakes), threads=threads)
    assert next(iter(source))
    source.close()
    assert list(source) == []
    assert all(opened == closed for opened, closed in counts(*fakes))


@both_ways
def test_a_failure_in_the_middle_is_raised_after_what_came_before(threads: int) -> None:
    gate = Gate()
    fakes = [saying(say("a"), say("b"), gate, line({"error": "boom"})), good("c")]
    source = streams(start_chats(*fakes), threads=threads)
    gate.open()
    found: list[tuple[int, str]] = []
    with pytest.raises(APIError, match="boom"):
        found.extend((index, text(message)) for index, message in source)
    source.close()
    assert of(0, found) == ["a", "b"]
    assert all(opened == closed for opened, closed in counts(*fakes))


@both_ways
def test_another_exception_in_the_middle_is_raised_too(threads: int) -> None:
    gate = Gate()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield line(say("a"))
        gate.wait()
        raise Ended

    with closing(streams(start_chats(app, good("b")), threads=threads)) as source:
        gate.open()
        with pytest.raises(Ended):
            list(source)


@both_ways
def test_another_exception_of_an_opener_is_raised_too(threads: int) -> None:
    def defect(cancel: Cancel) -> NativeStream[native.ChatResponse]:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        streams([defect, start_chat(good("a"))], threads=threads)


@pytest.mark.parametrize("threads", [1, 2], ids=["in turn", "side by side"])
def test_a_stream_that_is_stopped_before_its_turn_is_not_opened(threads: int) -> None:
    gate = Gate()
    fakes = [saying(say("a"), gate, done()), saying(say("b"), gate, done()), good("c"), good("d")]
    with closing(streams(start_chats(*fakes), threads=threads)) as source:
        source.stop(2)
        gate.open()
        found = texts(source)
    assert [of(i, found) for i in range(4)] == [["a", ""], ["b", ""], [], ["d", ""]]
    assert counts(*fakes) == [(1, 1), (1, 1), (0, 0), (1, 1)]


# -- in turn ----------------------------------------------------------------------------------


def test_in_turn_the_next_is_opened_when_the_one_before_has_ended() -> None:
    fakes = [good("a", "b"), good("c"), good("d")]
    source = streams(start_chats(*fakes), threads=1)
    seen = [(index, text(message), counts(*fakes)) for index, message in source]
    before, first, second = (0, 0), (1, 0), (1, 1)
    assert seen == [
        (0, "a", [first, before, before]),
        (0, "b", [first, before, before]),
        (0, "", [first, before, before]),
        (1, "c", [second, first, before]),
        (1, "", [second, first, before]),
        (2, "d", [second, second, first]),
        (2, "", [second, second, first]),
    ]
    source.close()
    assert counts(*fakes) == [second] * 3


def test_in_turn_only_the_first_is_opened_at_once() -> None:
    fakes = [good("a"), good("b")]
    source = streams(start_chats(*fakes), threads=1)
    assert counts(*fakes) == [(1, 0), (0, 0)]
    source.close()
    assert counts(*fakes) == [(1, 1), (0, 0)]


def test_in_turn_the_size_grows() -> None:
    source = streams(start_chats(good("a"), good("b")), threads=1)
    sizes = [source.size for _ in source]
    one, end = len(line(say("a"))), len(line(done()))
    assert sizes == [one, one + end, 2 * one + end, 2 * one + 2 * end]
    source.close()


def test_in_turn_what_came_together_is_in_hand() -> None:
    source = streams(start_chats(saying(say("a"), say("b"), done(), cut=0)), threads=1)
    assert [source.pending for _ in source] == [True, True, True]  # at last its end
    source.close()


def test_in_turn_what_has_not_come_is_not_in_hand() -> None:
    source = streams(start_chats(good("a", "b")), threads=1)
    assert [source.pending for _ in source] == [False, False, True]
    assert source.pending is False
    source.close()


def test_in_turn_the_opening_of_the_next_is_not_in_hand() -> None:
    source = streams(start_chats(saying(say("a"), done(), cut=0), saying(say("b"), done(), cut=0)), threads=1)
    assert [source.pending for _ in source] == [True, False, True, True]
    source.close()


def test_in_turn_a_stopped_stream_is_closed_and_the_next_one_opened() -> None:
    fakes = [good("a", "b", "c"), good("d")]
    source = streams(start_chats(*fakes), threads=1)
    found = []
    for index, message in source:
        found.append((index, text(message)))
        if text(message) == "b":
            source.stop(index)
            assert counts(*fakes) == [(1, 1), (0, 0)]
            source.stop(index)
    assert found == [(0, "a"), (0, "b"), (1, "d"), (1, "")]
    source.close()
    assert counts(*fakes) == [(1, 1), (1, 1)]


def test_in_turn_the_size_of_a_stopped_stream_counts() -> None:
    source = streams(start_chats(good("a", "b"), good("c")), threads=1)
    next(iter(source))
    source.stop(0)
    assert source.size == len(line(say("a")))
    assert source.pending is False
    source.close()


def test_in_turn_stopping_one_that_has_ended_touches_no_other() -> None:
    fakes = [good("a"), good("b")]
    source = streams(start_chats(*fakes), threads=1)
    found = []
    for index, message in source:
        found.append((index, text(message)))
        if index == 1:
            source.stop(0)
    assert found == [(0, "a"), (0, ""), (1, "b"), (1, "")]
    source.close()


def test_in_turn_a_failure_of_the_first_is_raised_at_once() -> None:
    fakes = [refusing(), good("b")]
    with pytest.raises(APIError, match="busy") as raised:
        streams(start_chats(*fakes), threads=1)
    assert raised.value.status == 503
    assert counts(*fakes) == [(1, 1), (0, 0)]


def test_in_turn_a_failure_of_a_later_one_is_raised_when_it_is_its_turn() -> None:
    fakes = [good("a"), refusing(), good("c")]
    source = streams(start_chats(*fakes), threads=1)
    messages = iter(source)
    assert [text(message) for _, message in islice(messages, 2)] == ["a", ""]
    with pytest.raises(APIError, match="busy") as raised:
        next(messages)
    assert raised.value.retry is False  # tokens were made
    source.close()
    assert counts(*fakes) == [(1, 1), (1, 1), (0, 0)]
