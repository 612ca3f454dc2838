"""What endpoints are given and give back."""

from __future__ import annotations

import dataclasses

import pytest

from openai_compat.endpoints.contract import Answer, Call
from openai_compat.settings import Settings


def test_a_call_is_values_only() -> None:
    call = Call(body=b"{}", path={}, settings=Settings(), now=1, new_id=str)
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.now = 2  # type: ignore[misc]


def test_an_answer_has_no_headers_of_its_own() -> None:
    assert tuple(Answer({}).headers) == ()
