"""State across servers: a conversation goes on after a crash, workers share it, a stopping one leaves nothing open."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from openai_compat.testing import FakeOllama, Gate, done, say
from tests.chaos import WAIT, Chaos, answer
from tests.servers import TIMEOUT, Server, live, serving

pytest.importorskip("gunicorn", reason="the extra 'server' is not installed")
pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")

pytestmark = pytest.mark.server


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def ask(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"model": "demo", "input": "Hello", **fields}
    response = requests.post(f"{server.base_url}/responses", json=body, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def get(server: Server, path: str) -> dict[str, Any]:
    response = requests.get(f"{server.base_url}{path}", timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)  # another process changes it, and tells nobody


def kill(server: Server) -> None:
    """End all processes of a server as a crash of the machine does."""
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(TIMEOUT)


def test_a_conversation_goes_on_after_a_crash(store: str) -> None:
    with serving("--demo", "--store", store) as server:
        first = ask(server, input="My name is Ann.")
        conversation = requests.post(f"{server.base_url}/conversations", json={}, timeout=TIMEOUT).json()["id"]
        ask(server, input="One", conversation=conversation)
        kill(server)
    with serving("--demo", "--store", store) as server:
        second = ask(server, input="Who am I?", previous_response_id=first["id"])
        items = get(server, f"/responses/{second['id']}/input_items?order=asc")["data"]
        assert [item["content"][0]["text"] for item in items][::2] == ["My name is Ann.", "Who am I?"]
        assert items[1] == first["output"][0]
        ask(server, input="Two", conversation=conversation)
        assert len(get(server, f"/conversations/{conversation}/items")["data"]) == 4


@pytest.fixture
def upstream() -> Iterator[tuple[FakeOllama, Gate, str]]:
    """An Ollama that says a word, and the rest when the gate is opened."""
    fake, gate = FakeOllama(), Gate(TIMEOUT)
    fake.script("/api/chat", say("Hel"), gate, say("lo"), done())
    with live(fake) as url:
        yield fake, gate, url
        gate.open()


def generating(server: Server) -> str:
    """The id of a response that is generated in the background."""
    id: str = ask(server, background=True)["id"]
    until(lambda: get(server, f"/responses/{id}")["status"] == "in_progress")
    return id


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_a_worker_that_stops_leaves_no_response_in_progress(
    store: str, worker: str, upstream: tuple[FakeOllama, Gate, str]
) -> None:
    if worker == "gevent":
        pytest.importorskip("gevent", reason="the extra 'gevent' is not installed")
    _, _, url = upstream
    flags = ("--upstream", url, "--store", store, "--worker-class", worker)
    with serving(*flags) as server:
        id = generating(server)
        assert server.stop() == 0
    with serving(*flags) as server:
        found = get(server, f"/responses/{id}")
    assert (found["status"], "stopped" in found["error"]["message"]) == ("failed", True)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_a_worker_that_stops_does_not_wait_for_who_follows(
    store: str, worker: str, asked: signal.Signals, upstream: tuple[FakeOllama, Gate, str]
) -> None:
    if worker == "gevent":
        pytest.importorskip("gevent", reason="the extra 'gevent' is not installed")
    _, _, url = upstream
    flags = ("--upstream", url, "--store", store, "--worker-class", worker)
    with serving(*flags) as server:
        id = generating(server)
        path = f"{server.base_url}/responses/{id}?stream=true"
        # gunicorn's gevent worker waits for kept connections, too
        with requests.get(path, headers={"Connection": "close"}, stream=True, timeout=TIMEOUT) as response:
            body = response.iter_content(None)
            next(body)
            server.process.send_signal(asked)
            if asked == signal.SIGTERM:
                assert b"".join(body).rpartition(b"event: ")[2].startswith(b"response.failed\n")
        assert server.process.wait(TIMEOUT) == 0  # long before gunicorn's graceful time-out
    with serving(*flags) as server:
        found = get(server, f"/responses/{id}")
    assert (found["status"], "stopped" in found["error"]["message"]) == ("failed", True)


@pytest.mark.slow
def test_any_worker_follows_and_cancels(store: str) -> None:
    with Chaos() as chaos, serving("--upstream", chaos.url, "--store", store, "--workers", "3") as server:
        started = chaos.connections
        chaos.script(*answer(say("Hel"))[:-1])  # a word, and silence
        id = generating(server)
        answers = []
        for _ in range(9):  # a connection each, so that several workers answer
            answers.append(get(server, f"/responses/{id}")["status"])
        assert set(answers) == {"in_progress"}
        assert chaos.connections == started + 1
        cancelled = requests.post(f"{server.base_url}/responses/{id}/cancel", timeout=TIMEOUT).json()
        assert cancelled["status"] == "cancelled"
        while chaos.gone.get(timeout=WAIT) <= started:  # until the worker that generates it noticed, and left
            pass
        assert get(server, f"/responses/{id}")["status"] == "cancelled"


@pytest.mark.slow
def test_workers_append_to_one_conversation(store: str) -> None:
    with serving("--demo", "--store", store, "--workers", "2") as server:
        conversation = requests.post(f"{server.base_url}/conversations", json={}, timeout=TIMEOUT).json()["id"]
        path = f"/conversations/{conversation}/items"

        def add(n: int) -> int:
            items = [{"role": "user", "content": f"{n}.{part}"} for part in range(2)]
            url = f"{server.base_url}{path}"
            return requests.post(url, json={"items": items}, timeout=TIMEOUT).status_code

        with ThreadPoolExecutor(6) as executor:
            assert set(executor.map(add, range(30))) == {200}
        items = get(server, f"{path}?order=asc&limit=100")["data"]
    found = [item["content"][0]["text"] for item in items]
    assert sorted(found[::2]) == sorted(f"{n}.0" for n in range(30))
    assert [text.replace(".0", ".1") for text in found[::2]] == found[1::2]


@pytest.mark.slow
def test_the_memory_of_one_of_several_workers_is_not_for_the_background() -> None:
    with serving("--demo", "--store", "sqlite://", "--workers", "2") as server:
        body = {"model": "demo", "input": "x", "background": True}
        response = requests.post(f"{server.base_url}/responses", json=body, timeout=TIMEOUT)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "background")


def test_the_upstream_s_version_is_told(upstream: tuple[FakeOllama, Gate, str]) -> None:
    fake, _, url = upstream
    fake.script("/api/version", {"version": "0.32.5"})
    with serving("--upstream", url) as server:
        base = server.base_url.removesuffix("/v1")
        found = requests.get(f"{base}/api/version", timeout=TIMEOUT).json()
    assert found == {"version": "0.32.5"}
