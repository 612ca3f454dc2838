"""The check of strict calls: compiled when a function is called, and listed where it cannot be made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import pytest
from msgspec import UNSET, Raw

from openai_compat.native import types as native
from openai_compat.settings import Settings
from openai_compat.structured import strict_calls
from openai_compat.structured.schema_checker import Checker, checker
from openai_compat.structured.strict_calls import StrictCalls
from openai_compat.translate.fields import Ignored

SCHEMA = b'{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'


def tools(**schemas: bytes | None) -> list[native.Tool]:
    return [
        native.Tool(native.ToolFunction(name, parameters=UNSET if text is None else Raw(text)))
        for name, text in schemas.items()
    ]


def strict(*names: str, **schemas: bytes | None) -> tuple[StrictCalls, Ignored]:
    ignored = Ignored(Settings(), [])
    return StrictCalls(tools(**schemas), {name: f"{name}.strict" for name in names}, ignored), ignored


def listed(ignored: Ignored) -> str:
    return dict(ignored.headers()).get("openai-compat-ignored", "")


def test_arguments_are_checked() -> None:
    calls, ignored = strict("f", f=SCHEMA, g=SCHEMA)
    assert calls
    assert calls.mismatch("f", '{"a": 1}') is None
    assert "'a'" in (calls.mismatch("f", "{}") or "")
    assert calls.mismatch("g", "{}") is None  # it is not strict
    assert calls.mismatch("h", "{}") is None  # it is no tool
    assert listed(ignored) == ""
    calls.note("f", "no a")
    assert listed(ignored) == "f.strict"


def test_a_schema_is_compiled_once_and_only_if_its_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bytes] = []
    original = strict_calls.checker
    monkeypatch.setattr(strict_calls, "checker", lambda schema: compiled.append(schema) or original(schema))
    calls, _ = strict("f", "g", f=SCHEMA, g=SCHEMA)
    assert compiled == []
    for _ in range(2):
        calls.mismatch("f", "{}")
    assert compiled == [SCHEMA]


@pytest.mark.parametrize("schema", [b'{"type": 1}', b"[" * 300_000])
def test_what_cannot_be_checked_is_listed_and_counts_as_a_match(schema: bytes) -> None:
    calls, ignored = strict("f", f=schema)
    assert [calls.mismatch("f", "{}") for _ in range(2)] == [None, None]
    assert listed(ignored) == "f.strict"


def test_without_strict_functions_there_is_nothing() -> None:
    assert not strict(f=SCHEMA)[0]
    assert not strict("f", f=None)[0]


def test_without_the_extra_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("jsonschema")

    monkeypatch.setattr(strict_calls, "library", missing)
    calls, ignored = strict("f", f=SCHEMA)
    assert not calls
    assert listed(ignored) == "f.strict"


def test_a_thread_waits_for_the_schema_that_another_one_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    begins, ends = threading.Event(), threading.Event()

    def slow(schema: bytes) -> Checker:
        begins.set()
        ends.wait(10)
        return checker(schema)

    monkeypatch.setattr(strict_calls, "checker", slow)
    calls, _ = strict("f", f=SCHEMA)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(calls.mismatch, "f", "{}")
        assert begins.wait(10)
        second = pool.submit(calls.mismatch, "f", "{}")
        with pytest.raises(NotYet):
            second.result(0.05)
        ends.set()
        assert first.result(10)
        assert second.result(10)


def test_keywords_that_are_not_evaluated_are_listed() -> None:
    calls, ignored = strict("f", f=b'{"type":"object","properties":{"a":{"pattern":"^a$"}}}')
    assert not listed(ignored)
    for _ in range(2):
        assert calls.mismatch("f", '{"a": "b"}') is None
    assert listed(ignored) == "f.parameters.pattern"
