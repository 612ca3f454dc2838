"""Logging: what an application configures may raise; no answer is lost by it (F75)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.log import log
from openai_compat.testing import FakeOllama, done, say

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}


class Raising(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter that raises")


class RaisingHandler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("a handler that raises")


@pytest.fixture(params=["filter", "handler", "factory"])
def broken(request: pytest.FixtureRequest) -> Iterator[None]:
    """A configuration of logging that raises at every record."""
    logger = logging.getLogger("openai_compat")
    bad_filter, bad_handler, factory = Raising(), RaisingHandler(), logging.getLogRecordFactory()

    def raising(*args: Any, **kwargs: Any) -> logging.LogRecord:
        raise RuntimeError("a factory that raises")

    level = logger.level
    logger.setLevel(logging.DEBUG)
    if request.param == "filter":
        logger.addFilter(bad_filter)
    elif request.param == "handler":
        logger.addHandler(bad_handler)
    else:
        logging.setLogRecordFactory(raising)
    yield
    logging.setLogRecordFactory(factory)
    logger.removeFilter(bad_filter)
    logger.removeHandler(bad_handler)
    logger.setLevel(level)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("stream", [False, True])
def test_f75_logging_that_raises_never_costs_an_answer(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeOllama()
    fake.script("/api/chat", say("a"), done())
    fake.script("/api/chat", say("a"), {"error": "boom"})
    fake.script("/api/chat", {"error": "boom"}, status="500 X")
    client = Client(OpenAICompat(fake))
    # logit_bias is logged as ignored, and each request at its end
    good, broken_off, failed = (
        client.post("/v1/chat/completions", json={**CHAT, "stream": stream, "logit_bias": {"1": 1}}) for _ in range(3)
    )
    assert good.status_code == 200
    assert good.data.endswith(b"[DONE]\n\n" if stream else b"}")
    assert broken_off.status_code == (200 if stream else 502)
    assert b"boom" in broken_off.data
    assert failed.status_code == 502
    assert client.get("/v1/nothing").status_code == 404
    assert "that raises" in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
def test_a_closed_standard_error_is_no_failure_either(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise ValueError("I/O operation on closed file")

    for stream in (Closed(), None):
        monkeypatch.setattr("sys.stderr", stream)
        log.warning("a text")


def test_a_record_names_the_line_that_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "openai_compat")
    for method in (log.debug, log.info, log.warning, log.error, log.exception):
        method("%s", "x")
    log.log(logging.INFO, "%s", "x")
    assert {record.funcName for record in caplog.records} == {"test_a_record_names_the_line_that_logged"}
    assert len(caplog.records) == 6


def test_no_module_logs_by_itself() -> None:
    from pathlib import Path

    package = Path(__file__).parents[1] / "openai_compat"
    users = {path.name for path in package.rglob("*.py") if 'getLogger("openai_compat")' in path.read_text()}
    assert users == {"log.py", "check.py"}  # which collects warnings for its report
