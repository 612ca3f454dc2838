"""Fixtures of the tests of images by URL."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from openai_compat.errors import APIError
from openai_compat.transport.images import Fetcher
from tests.chaos import Chaos
from tests.transport.images import ELSEWHERE, PATH, TEXT, Refused


@pytest.fixture
def forbidden(server: Chaos) -> Iterator[Callable[[], bool]]:
    """Tells whether nobody came to the port of *server* at the address that may not be reached."""

    def untouched() -> bool:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return True
        return False

    with socket.create_server((ELSEWHERE, server.port)) as listener:
        listener.setblocking(False)
        yield untouched


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture) -> Refused:
    """Fetch what is not fetched, see the one error that there is, and give what the log says."""
    caplog.set_level(logging.DEBUG)

    def fetch(fetch: Fetcher, url: str) -> str:
        caplog.clear()
        with pytest.raises(APIError) as caught:
            fetch(url, PATH)
        assert (caught.value.status, caught.value.headers, caught.value.retry) == (400, (), None)
        kind = {"type": "invalid_request_error", "param": PATH, "code": "invalid_image_url"}
        assert caught.value.body() == {"error": {"message": TEXT, **kind}}
        [record] = caplog.records
        where, _, reason = record.getMessage().partition(": no image from ")
        assert (record.name, where) == ("openai_compat", PATH)
        attack = "not public" in reason or "another address" in reason
        assert record.levelno == (logging.WARNING if attack else logging.INFO)
        return reason

    return fetch
