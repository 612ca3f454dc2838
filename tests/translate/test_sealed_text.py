from __future__ import annotations

import pytest

from openai_compat.translate import sealed_text
from openai_compat.translate.sealed_text import Kind, seal, unseal


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
@pytest.mark.parametrize("text", ["", "t", "a b\nc", "\u00e9\u2028\U0001f99c", "\x00", "x" * 100_000])
def test_what_is_sealed_is_unsealed(text: str, kind: Kind) -> None:
    sealed = seal(text, kind)
    assert sealed is not None
    assert sealed.isascii()
    assert not any(character.isspace() for character in sealed)
    assert unseal(sealed, kind) == text


def test_the_encoding_has_a_version_and_a_kind() -> None:
    assert seal("t", "reasoning") == "openai-compat.1.r.dA=="
    assert seal("t", "compaction") == "openai-compat.1.c.dA=="


def test_one_kind_is_not_taken_for_the_other() -> None:
    assert unseal("openai-compat.1.r.dA==", "compaction") is None
    assert unseal("openai-compat.1.c.dA==", "reasoning") is None


def test_lone_surrogates_are_replaced() -> None:
    sealed = seal("a\ud83d", "reasoning")
    assert sealed is not None
    assert unseal(sealed, "reasoning") == "a?"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gAAAAABo",
        "openai-compat.2.r.dA==",
        "openai-compat.1.r.dA",
        "openai-compat.1.r.d A=",
        "openai-compat.1.r.\u00e9",
        "openai-compat.1.r._w==",
        "openai-compat.1.r.!!!!",
    ],
)
def test_text_of_another_server_is_none(text: str) -> None:
    assert unseal(text, "reasoning") is None


@pytest.mark.parametrize("text", ["Let me think...", "a\nb", " a b "])
def test_ollama_s_own_text_is_taken_as_it_is(text: str) -> None:
    assert unseal(text, "reasoning") == text
    assert unseal(text, "compaction") is None


def test_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_text, "MAX_SEALED", 30)
    sealed = seal("x" * 9, "reasoning")
    assert sealed is not None
    assert len(sealed) == 30
    assert unseal(sealed, "reasoning") == "x" * 9
    assert seal("x" * 10, "reasoning") is None
    assert unseal("a " * 16, "reasoning") is None
