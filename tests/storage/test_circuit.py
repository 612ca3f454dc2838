"""The pause after a failure of the store."""

from __future__ import annotations

import threading

import pytest

from openai_compat.storage.circuit import Circuit, StoreFailed
from tests.storage.databases import TIMEOUT, Clock, together

PAUSE = 5.0


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(PAUSE, clock)


def passes(circuit: Circuit) -> bool:
    try:
        with circuit.operation():
            return True
    except StoreFailed:
        return False


def test_everything_passes_until_a_failure(circuit: Circuit) -> None:
    with circuit.operation(), circuit.operation():
        assert passes(circuit)


def test_a_failure_begins_a_pause_that_names_it(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("the disk is away")
    for moment in (0, PAUSE / 2, PAUSE / 2 - 0.001):
        clock.now += moment
        with pytest.raises(StoreFailed, match=r"not asked for 5 s after a failure: the disk is away\."):
            circuit.check()
        assert not passes(circuit)


def test_after_the_pause_one_operation_passes_at_a_time(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("x")
    clock.now += PAUSE
    with circuit.operation():
        circuit.check()  # of the same operation
        assert together(4, lambda i: passes(circuit)) == [False] * 4
    assert passes(circuit), "an operation that says nothing about the store leaves its place to the next"


def test_a_success_ends_the_pause(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("x")
    clock.now += PAUSE
    with circuit.operation():
        circuit.answered()
        assert together(4, lambda i: passes(circuit)) == [True] * 4


def test_another_failure_begins_another_pause(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("x")
    clock.now += PAUSE
    with circuit.operation():
        circuit.failed("y")
    assert not passes(circuit)
    clock.now += PAUSE - 0.001
    assert not passes(circuit)
    clock.now += 0.001
    assert passes(circuit)


def test_an_operation_that_raises_leaves_its_place(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("x")
    clock.now += PAUSE
    with pytest.raises(KeyboardInterrupt), circuit.operation():
        raise KeyboardInterrupt
    assert passes(circuit)


def test_an_operation_that_waited_for_one_that_failed_ends(circuit: Circuit) -> None:
    with circuit.operation():
        circuit.failed("x")
        with pytest.raises(StoreFailed):
            circuit.check()


def test_one_of_many_threads_passes_after_the_pause(circuit: Circuit, clock: Clock) -> None:
    circuit.failed("x")
    clock.now += PAUSE
    refused = threading.Semaphore(0)

    def attempt(i: int) -> bool:
        try:
            with circuit.operation():
                for _ in range(7):
                    assert refused.acquire(timeout=TIMEOUT)
                return True
        except StoreFailed:
            refused.release()
            return False

    assert sorted(together(8, attempt)) == [False] * 7 + [True]
