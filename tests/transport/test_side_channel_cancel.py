"""Cancelling a native call through applications between the middleware and an upstream."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from openai_compat import OpenAICompat
from openai_compat.errors import APIError
from openai_compat.testing import say
from openai_compat.transport.cancel import Cancel
from tests.chaos import CHUNKED, CLOSE, FIN, SIZED, WAIT, Chaos, answer
from tests.generation.streams import beside
from tests.transport.gateways import streamed, upstream
from tests.transport.wrappers import (
    BUFFERING,
    REQUEST,
    STREAMING,
    App,
    Closes,
    Wrapper,
    all_wrappers,
    attempts,
    backend,
    each,
    is_lazy,
    response,
)

# -- cancelling through applications ----------------------------------------------------------


def ended(app: App, cancel: Cancel, when: Callable[[], object]) -> APIError:
    """Cancel a chat when *when* has returned; the error that it ends with, soon."""
    future = beside(lambda: list(backend(app, cancel).chat(REQUEST)))
    when()
    cancel.set()
    with pytest.raises(APIError) as raised:
        future.result(timeout=WAIT / 2)
    return raised.value


@all_wrappers
def test_f41_cancelling_ends_a_wait_for_the_head(server: Chaos, wrapper: Wrapper) -> None:
    server.script(b"")
    remote = upstream(server, timeout=2 * WAIT)
    assert ended(wrapper(remote), Cancel(), lambda: server.heads.get(timeout=WAIT)).status == 502
    assert server.gone.get(timeout=WAIT)


@pytest.mark.parametrize(
    ("wrapper", "framing"),
    [*[(wrapper, CHUNKED) for wrapper in STREAMING + BUFFERING], *[(is_lazy, framing) for framing in (SIZED, CLOSE)]],
)
def test_f41_cancelling_ends_a_silence_in_the_middle(server: Chaos, wrapper: Wrapper, framing: str) -> None:
    server.script(*answer(say("Hel"), FIN, framing=framing, length=1000)[:-1])
    remote = upstream(server, timeout=2 * WAIT)
    error = ended(wrapper(remote), Cancel(), lambda: server.heads.get(timeout=WAIT))
    assert (error.status, error.code) == (502, "upstream_error")
    assert server.gone.get(timeout=WAIT)


@each(STREAMING)
def test_f41_a_client_that_leaves_ends_the_call(server: Chaos, wrapper: Wrapper) -> None:
    server.script(*answer(say("Hel"), FIN)[:-1])
    app = OpenAICompat(outer := Closes(wrapper(upstream(server, timeout=2 * WAIT))))
    with streamed(app) as body:
        assert b"Hel" in next(body)
    assert server.gone.get(timeout=WAIT)
    assert outer.counts == [1]


def test_f41_a_cancelled_call_is_not_attempted_again(server: Chaos) -> None:
    server.script(b"")
    remote = upstream(server, timeout=2 * WAIT)
    ended(attempts(remote, remote, remote), Cancel(), lambda: server.heads.get(timeout=WAIT))
    assert server.gone.get(timeout=WAIT)
    assert (server.connections, server.heads.empty()) == (1, True)


@pytest.mark.parametrize("when", ["closed late", "dropped"])
def test_f41_the_end_of_a_first_response_does_not_protect_a_second_from_cancelling(server: Chaos, when: str) -> None:
    """A connection that is closed after another one was opened is not the one that the call waits for."""

    def fails_over(environ: Any, start_response: Any) -> Any:
        data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        bodies = []
        for _ in range(2):
            found, body = response(remote, {**environ, "wsgi.input": io.BytesIO(data)})
            if when == "closed late":
                bodies.append(body)
        for other in bodies[:-1]:
            other.close()
        start_response(*found)
        return body

    remote = upstream(server, timeout=(WAIT, WAIT, 0.2))
    server.script(*answer({"error": "busy"}, status=503))
    server.script(*answer(say("Hel"), FIN)[:-1])
    cancel = Cancel()
    with closing(backend(fails_over, cancel).chat(REQUEST)) as stream:
        next(stream)
        cancel.set()
        with pytest.raises(APIError, match="The connection to the backend broke"):
            next(stream)  # of a connection that is still open, it would be a time-out
