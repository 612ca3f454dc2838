"""Event streams at the edge: names of events, the end of a stream, and its own way of failing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from werkzeug.test import create_environ

from openai_compat.endpoints.contract import FLUSH, EventStream, NamedEvent
from openai_compat.errors import APIError
from openai_compat.middleware.responder import RequestOutcome, Responder
from openai_compat.native.usage import NativeUsage
from openai_compat.transport.cancel import Cancel


class Source:
    """What a stream is made from; *pending* says whether more is in hand after each step."""

    def __init__(self, pending: bool = False) -> None:
        self.pending = pending
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def items(stream: EventStream) -> list[bytes]:
    """The items of a stream as a server takes them."""
    outcomes: list[RequestOutcome] = []
    responder = Responder(create_environ("/"), lambda *head: lambda data: None, outcomes.append)
    body: Any = responder.stream(stream)
    found = list(body)
    assert outcomes == []
    body.close()
    assert len(outcomes) == 1
    return found


def steps(*steps: Sequence[object] | Exception) -> Iterator[Sequence[object]]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        yield step


def response_failed(error: APIError) -> Sequence[object]:
    return [NamedEvent("error", {"n": 1}), NamedEvent("response.failed", {"code": error.code})]


def test_an_event_may_have_a_name() -> None:
    stream = EventStream(steps([NamedEvent("response.created", {"a": 1}), {"b": 2}]), Source())
    assert items(stream) == [b'event: response.created\ndata: {"a":1}\n\ndata: {"b":2}\n\n', b"data: [DONE]\n\n"]


def test_a_stream_may_end_without_done() -> None:
    assert items(EventStream(steps([{"a": 1}]), Source(), ends_with_done=False)) == [b'data: {"a":1}\n\n']


@pytest.mark.parametrize(
    ("failure", "code"),
    [(APIError(502, "x", code="upstream_error"), "upstream_error"), (KeyError("x"), "internal_error")],
    ids=["an error", "a defect"],
)
def test_an_endpoint_says_how_its_stream_fails(failure: Exception, code: str, caplog: pytest.LogCaptureFixture) -> None:
    stream = EventStream(steps([{"a": 1}], failure), Source(), failure_events=response_failed)
    assert items(stream) == [
        b'data: {"a":1}\n\n',
        b'event: error\ndata: {"n":1}\n\nevent: response.failed\ndata: {"code":"' + code.encode() + b'"}\n\n',
    ]
    assert caplog.records


def test_by_default_the_last_event_of_a_failure_is_openai_s_error_object() -> None:
    [last] = items(EventStream(steps(APIError(502, "x", code="c")), Source()))
    assert last == b'data: {"error":{"message":"x","type":"server_error","param":null,"code":"c"}}\n\n'


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_is_closed_early_sets_its_cancel_and_closes_its_source(read: int) -> None:

    source, cancel = Source(), Cancel()
    responder = Responder(create_environ("/"), lambda *head: lambda data: None)
    responder.attach("/x", NativeUsage(), cancel)
    body: Any = responder.stream(EventStream(steps([{"a": 1}], [{"b": 2}]), source))
    for _ in range(read):
        next(body)
    body.close()
    body.close()
    assert (cancel.is_set, source.closed) == (True, 1)


def test_a_stream_that_ended_leaves_its_cancel_alone() -> None:

    cancel = Cancel()
    responder = Responder(create_environ("/"), lambda *head: lambda data: None)
    responder.attach("/x", NativeUsage(), cancel)
    body: Any = responder.stream(EventStream(steps([{"a": 1}]), Source()))
    assert len(list(body)) == 2
    body.close()
    assert not cancel.is_set


def test_a_server_that_refuses_the_head_leaves_nothing_open() -> None:
    def refuse(*head: Any) -> Callable[[bytes], object]:
        raise OSError("gone")

    source = Source()
    with pytest.raises(OSError, match="gone"):
        Responder(create_environ("/"), refuse).stream(EventStream(steps([{"a": 1}]), source))
    assert source.closed == 1


def test_f40_frames_that_leave_together_are_256_at_most() -> None:
    events = steps(*([{"n": n}] for n in range(1000)))
    found = items(EventStream(events, Source(pending=True)))
    assert [item.count(b"data: ") for item in found] == [256, 256, 256, 233]


def test_frames_of_one_step_leave_together() -> None:
    [item, last] = items(EventStream(steps([{"n": n} for n in range(300)]), Source(pending=True)))
    assert (item.count(b"data: "), last) == (300, b"data: [DONE]\n\n")


def test_events_before_a_flush_leave_before_the_next_item_is_taken() -> None:
    """Although more is in hand: that takes time, such as storing what was sent."""
    taken: list[str] = []

    def slow() -> Iterator[Sequence[object]]:
        yield [{"a": 1}]
        yield FLUSH
        taken.append("stored")
        yield [{"b": 2}]

    stream = EventStream(slow(), Source(pending=True))
    body: Any = Responder(create_environ("/"), lambda *head: lambda data: None).stream(stream)
    assert next(body) == b'data: {"a":1}\n\n'
    assert taken == []
    assert b"".join(body) == b'data: {"b":2}\n\ndata: [DONE]\n\n'
    assert taken == ["stored"]
    body.close()
