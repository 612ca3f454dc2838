"""One call of a WSGI application, sound or not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.transport.cancel import Cancel
from openai_compat.transport.side_channel import SIDE_CHANNEL, SideChannel
from openai_compat.transport.wsgi_call import WSGICall

HEADERS = [("Content-Type", "text/plain"), ("X-A", "1")]


class Items:
    """An iterable that counts its closes."""

    def __init__(self, *items: Any) -> None:
        self.iterator = iter(items)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self.iterator)
        if isinstance(item, Exception):
            raise item
        if callable(item):
            return item()
        return item

    def close(self) -> None:
        self.closed += 1


def app(items: Any, *, late: bool = False, write: bytes = b"") -> Any:
    def application(environ: Any, start_response: Any) -> Any:
        if late:
            items.iterator = iter([lambda: start_response("201 Created", HEADERS) and b"late", *items.iterator])
        else:
            writer = start_response("200 OK", HEADERS)
            if write:
                writer(write)
        return items

    return application


def test_head_and_body() -> None:
    items = Items(b"a", b"", b"b")
    call = WSGICall(app(items), {})
    assert (call.status, call.headers) == (200, HEADERS)
    assert call.header("x-a") == "1"
    assert call.header("x-b") == ""
    assert list(call) == [b"a", b"b"]  # empty items say nothing
    call.close()
    call.close()
    assert items.closed == 1


def test_w3_the_head_may_come_with_the_first_item() -> None:
    call = WSGICall(app(Items(b"b"), late=True), {})
    assert call.status == 201
    assert list(call) == [b"late", b"b"]


def test_w4_written_bytes_precede_iterated_ones() -> None:
    assert list(WSGICall(app(Items(b"b"), write=b"a"), {})) == [b"a", b"b"]


def test_w4_bytes_written_in_the_last_step_are_not_lost() -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", HEADERS)
        yield b"a"
        write(b"b")

    assert list(WSGICall(application, {})) == [b"a", b"b"]


def failing(*, began: bool) -> Callable[..., Iterator[bytes]]:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        if began:
            yield b"a"
        try:
            raise KeyError("x")
        except KeyError:
            start_response("500 Oops", [("X-B", "2")], sys.exc_info())
        yield b"b"

    return application


def test_w5_exc_info_before_the_first_item_replaces_the_head() -> None:
    call = WSGICall(failing(began=False), {})
    assert list(call) == [b"b"]
    assert (call.status, call.headers) == (500, [("X-B", "2")])


def test_w5_exc_info_after_the_first_item_is_raised() -> None:
    call = WSGICall(failing(began=True), {})
    with pytest.raises(APIError):
        list(call)


def calls_twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", HEADERS)
    start_response("200 OK", HEADERS)
    return [b"x"]


def raises(environ: Any, start_response: Any) -> Any:
    raise RuntimeError("secret")


def gives_none(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", HEADERS)


@pytest.mark.parametrize(
    "application",
    [
        calls_twice,
        raises,
        gives_none,
        pytest.param(lambda environ, start_response: [], id="never calls start_response"),
        pytest.param(lambda environ, start_response: [b"x"], id="gives a body without a head"),
    ],
)
def test_f76_an_application_that_is_none_is_a_502(application: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(APIError) as raised:
        WSGICall(application, {})
    assert raised.value.status == 502
    assert "secret" not in raised.value.message
    assert caplog.records


@pytest.mark.parametrize("bad", ["text", None, RuntimeError("x")])
def test_f76_an_item_that_is_none_is_a_502(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    items = Items(b"a", bad)
    call = WSGICall(app(items), {})
    assert next(call) == b"a"
    with pytest.raises(APIError) as raised:
        next(call)
    assert (raised.value.status, raised.value.code) == (502, "upstream_error")
    call.close()
    assert items.closed == 1
    assert caplog.records


def test_w2_an_application_that_fails_before_its_head_is_closed() -> None:
    items = Items(RuntimeError("x"))
    items.iterator = iter([RuntimeError("x")])
    with pytest.raises(APIError):
        WSGICall(lambda environ, start_response: items, {})
    assert items.closed == 1


def test_w2_closed_even_when_the_request_is_killed() -> None:
    def killed() -> bytes:
        raise SystemExit

    items = Items(killed)
    with pytest.raises(SystemExit):
        WSGICall(lambda environ, start_response: items, {})
    assert items.closed == 1


def test_our_own_failure_passes_as_it_is() -> None:
    error = APIError(504, "slow")

    def application(environ: Any, start_response: Any) -> Any:
        raise error

    with pytest.raises(APIError) as raised:
        WSGICall(application, {})
    assert raised.value is error


def test_a_close_that_fails_does_not_undo_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Items):
        def close(self) -> None:
            raise RuntimeError("x")

    call = WSGICall(app(Bad(b"a")), {})
    assert list(call) == [b"a"]
    call.close()
    assert "failed in close()" in caplog.text


def test_read_is_bounded() -> None:
    assert WSGICall(app(Items(b"ab", b"cd")), {}).read(4) == b"abcd"
    with pytest.raises(APIError, match="too long"):
        WSGICall(app(Items(b"ab", b"cd")), {}).read(3)


def test_an_application_in_process_is_run_to_its_end() -> None:
    ended = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield b"a"
        ended.append(True)

    call = WSGICall(application, {})
    assert next(call) == b"a"
    call.finish()
    assert ended == [True]


def test_f35_what_comes_after_the_end_is_nobody_s() -> None:
    items = Items(b" \n", b"more", b"still more")
    call = WSGICall(app(items), {})
    call.finish()
    assert items.closed == 1
    assert next(items.iterator) == b"still more"


def test_a_failure_after_the_end_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    items = Items(RuntimeError("x"))
    call = WSGICall(app(items), {})
    call.finish()
    assert items.closed == 1
    assert caplog.records


def test_a_remote_body_is_drained_by_its_own_means() -> None:
    drained: list[str] = []
    items, channel = Items(b"rest"), SideChannel(Cancel())
    call = WSGICall(app(items), {SIDE_CHANNEL: channel})
    channel.drain = lambda: bool(drained.append("once"))  # type: ignore[func-returns-value]
    call.finish()
    assert (drained, items.closed) == (["once"], 1)
    assert next(items.iterator) == b"rest"


def test_blank_items_after_the_end_are_not_waited_for_forever() -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        while True:
            yield b"\n"

    WSGICall(application, {}).finish()


@pytest.mark.parametrize("headers", [[("Content-Type", None)], [1], [("a", "b", "c")]])
def test_f76_headers_that_are_none_are_a_502(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [b"x"]

    with pytest.raises(APIError) as raised:
        WSGICall(application, {})
    assert raised.value.status == 502
    assert caplog.records


def test_64_blank_items_after_the_end_are_read_and_no_more() -> None:
    items = Items(*[b"\n"] * 100)
    WSGICall(app(items), {}).finish()
    assert len(list(items.iterator)) == 36
    assert items.closed == 1
