"""Applications between the middleware and an upstream that lose the side channel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat import OpenAICompat, Upstream
from tests.chaos import FIN, WAIT, Chaos, answer, refusing
from tests.transport.gateways import upstream
from tests.transport.wrappers import (
    AUTH,
    BROKEN,
    CASES,
    KINDS,
    REDIRECT,
    TIMEOUT,
    UNREACHABLE,
    App,
    Closes,
    Reply,
    Wrapper,
    broken,
    each,
    is_lazy,
    script,
)

# -- applications that lose the side channel --------------------------------------------------

#: of PEP 3333, with the headers that a native call has
STANDARD = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")


def makes_an_environ(app: App) -> App:
    def wrapper(environ: Any, start_response: Any) -> Any:
        new = {
            key: value
            for key, value in environ.items()
            if key in STANDARD or key.startswith(("SERVER_", "wsgi.", "HTTP_"))
        }
        return app(new, start_response)

    return wrapper


def is_lazy_and_makes_an_environ(app: App) -> App:
    return is_lazy(makes_an_environ(app))


losing = each([makes_an_environ, is_lazy_and_makes_an_environ])


def lost(reply: Reply) -> tuple[int, str]:
    """Status and message of a failure whose code may be the general one."""
    return reply.failure[0], reply.failure[2]


@losing
def test_without_a_side_channel_a_good_answer_arrives(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(outer := Closes(wrapper(upstream(server))))
    for case in CASES.values():
        script(server, case)
        reply = case.send(app)
        assert (reply.status, reply.error) == (200, None)
        assert case.expected in json.dumps(reply.events)
    assert outer.counts == [1] * len(server.requests)


@losing
def test_f1_without_a_side_channel_an_upstream_that_is_down(wrapper: Wrapper) -> None:
    with refusing() as nowhere:
        app = OpenAICompat(wrapper(Upstream(f"http://{nowhere}")))
        found = {name: case.send(app) for name, case in CASES.items()}
    assert {name: lost(reply) for name, reply in found.items()} == dict.fromkeys(CASES, UNREACHABLE[::2])
    assert {reply.failure[1] for reply in found.values()} <= {"upstream_error", "upstream_unreachable"}


@losing
def test_f3_without_a_side_channel_an_upstream_that_is_silent(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server, timeout=(WAIT, 0.01, WAIT))))
    for case in KINDS:
        server.script(b"")
        assert case.send(app).failure == TIMEOUT


@losing
@pytest.mark.parametrize(("status", "expected"), [(401, AUTH), (403, AUTH), (302, REDIRECT)])
def test_f14_f17_without_a_side_channel_what_the_operator_must_correct(
    server: Chaos, wrapper: Wrapper, status: int, expected: tuple[int, str, str]
) -> None:
    """A 401 would tell the client that its own key is wrong."""
    app = OpenAICompat(wrapper(upstream(server)))
    headers = [("Location", "/login"), ("WWW-Authenticate", "Basic")]
    for case in CASES.values():
        server.script(*answer({"error": "secret"}, status=status, headers=headers))
        reply = case.send(app)
        assert reply.status == expected[0]
        assert reply.failure[1] in (expected[1], "upstream_error")
        assert "secret" not in reply.failure[2]


@losing
def test_without_a_side_channel_a_model_that_does_not_exist(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in [case for case in CASES.values() if case.path != "/v1/models"]:
        server.script(*answer({"error": "model 'demo' not found"}, status=404))
        assert case.send(app).failure[:2] == (404, "model_not_found")


@losing
def test_f7_without_a_side_channel_a_break_in_the_middle(server: Chaos, wrapper: Wrapper) -> None:
    app = OpenAICompat(wrapper(upstream(server)))
    for case in CASES.values():
        server.script(*broken(case, FIN))
        reply = case.send(app)
        assert (reply.late_failure if case.is_stream else reply.failure[1:]) == BROKEN[1:]
