"""Sampling parameters → options."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.settings import ModelSettings, Sampling, Settings
from openai_compat.translate.fields import Ignored, check_ranges
from openai_compat.translate.sampling import (
    SamplingFields,
    clear_final_message,
    from_keep_alive,
    from_sampling,
)
from openai_compat.wire.json import encode, request_decoder

decode = request_decoder(SamplingFields)


def request(**fields: Any) -> SamplingFields:
    found = decode(encode(fields))[0]
    check_ranges(found)
    return found


def options(max_tokens: int | None = None, settings: Settings | None = None, **fields: Any) -> dict[str, Any]:
    settings = settings or Settings(sampling=Sampling.model())
    found = from_sampling(request(**fields), max_tokens, settings, Ignored(settings, [])).options
    import json

    return json.loads(encode(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1.5, "top_p": 0.5}, {"temperature": 1.5, "top_p": 0.5}),
        ({"seed": -9007199254740991}, {"seed": -9007199254740991}),
        ({"stop": "\n"}, {"stop": ["\n"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"stop": ""}, {}),
        ({"stop": [""]}, {}),
        ({"stop": ["", "Ocean"]}, {"stop": ["Ocean"]}),
        ({"stop": ["a", "b", "a", "", "b"]}, {"stop": ["a", "b"]}),
        ({"options": {"stop": ["", "x", "x"]}}, {"stop": ["x"]}),
        ({"options": {"stop": "x"}}, {"stop": ["x"]}),
        *[({"options": {"stop": empty, "top_k": 1}}, {"top_k": 1}) for empty in ("", [""], [], {}, None)],
        *[({"options": empty}, {}) for empty in ("", [], {}, None)],
        *[({"options": {"num_predict": empty, "new": empty}}, {}) for empty in ("", [], {}, None)],
        ({"options": {"num_predict": " ", "use_mmap": " ", "new": " "}}, {"new": " "}),
        ({"options": {"stop": "\n"}}, {"stop": ["\n"]}),
        ({"options": {"stop": [" "]}, "stop": ""}, {"stop": [" "]}),
        ({"options": {"num_ctx": "4096", "min_p": " 0.1 ", "seed": "-1"}}, {"num_ctx": 4096, "min_p": 0.1, "seed": -1}),
        ({"num_ctx": "4096", "top_k": "40", "min_p": "0.1"}, {"num_ctx": 4096, "top_k": 40, "min_p": 0.1}),
        ({"typical_p": ".9", "repeat_penalty": "1.1"}, {"typical_p": 0.9, "repeat_penalty": 1.1}),
        ({"repetition_penalty": "1e0"}, {"repeat_penalty": 1.0}),
        *[({"num_ctx": empty, "min_p": empty, "seed": empty}, {}) for empty in ("", " ", [], {}, None)],
        ({"stop": None, "seed": None, "temperature": None}, {}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2, "presence_penalty": 2}),
        ({"num_ctx": 8192, "top_k": 5, "min_p": 0.1}, {"num_ctx": 8192, "top_k": 5, "min_p": 0.1}),
        ({"typical_p": 0.9, "repeat_penalty": 1.1}, {"typical_p": 0.9, "repeat_penalty": 1.1}),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"repetition_penalty": 1.2, "repeat_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"options": {"top_k": 1, "mirostat": 2}}, {"top_k": 1, "mirostat": 2}),
        ({"options": {"top_k": 1}, "top_k": 2}, {"top_k": 2}),
        ({"options": {"temperature": 0.1, "stop": ["x"]}, "temperature": 0.2}, {"temperature": 0.2, "stop": ["x"]}),
        ({"options": {"seed": None, "new": None}}, {}),
        ({"options": {"seed": 3.0, "use_mmap": True}}, {"seed": 3, "use_mmap": True}),
        ({"options": {"newer": {"a": [1]}}}, {"newer": {"a": [1]}}),
        ({"presence_penalty_penalty": 1}, {}),
    ],
)
def test_what_becomes_of_the_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert options(**fields) == expected


@pytest.mark.parametrize(
    ("max_tokens", "fields", "sent"),
    [
        (5, {}, 5),
        (-1, {}, -1),
        (0, {}, 1),
        (None, {"options": {"num_predict": 7}}, 7),
        (None, {"options": {"num_predict": 0}}, 1),
        (None, {"options": {"num_predict": -2}}, -2),
        (9, {"options": {"num_predict": 7}}, 9),
    ],
)
def test_num_predict_is_never_0(max_tokens: int | None, fields: dict[str, Any], sent: int) -> None:
    assert options(max_tokens, **fields) == {"num_predict": sent}


@pytest.mark.parametrize(
    ("max_tokens", "fields", "expected"),
    [
        (0, {}, True),
        (1, {"options": {"num_predict": 0}}, False),
        (None, {"options": {"num_predict": 0}}, True),
        (None, {}, False),
        (-1, {}, False),
    ],
)
def test_no_text_is_asked_for_with_0(max_tokens: int | None, fields: dict[str, Any], expected: bool) -> None:
    sampled = from_sampling(request(**fields), max_tokens, Settings(), Ignored(Settings(), []))
    assert sampled.max_tokens_is_zero is expected


def test_the_end_of_a_silent_answer_says_that_nothing_was_said() -> None:
    last = native.ChatResponse(done=True, done_reason="stop", eval_count=1, prompt_eval_count=5, logprobs=[])
    clear_final_message(last)
    assert (last.done_reason, last.eval_count, last.prompt_eval_count, last.logprobs) == ("length", 0, 5, None)


# -- policies ---------------------------------------------------------------------------------


def test_by_default_unset_means_1_as_openai_documents_it() -> None:
    assert options(settings=Settings()) == {"temperature": 1.0, "top_p": 1.0}
    assert options(settings=Settings(), temperature=0, top_p=0) == {"temperature": 0, "top_p": 0}


def test_options_suppress_the_default() -> None:
    given = {"temperature": 0.3, "top_p": 0.4}
    assert options(settings=Settings(), options=given) == given


def test_model_leaves_unset_values_to_the_modelfile() -> None:
    assert options(settings=Settings(sampling=Sampling.model())) == {}


V0 = Settings(sampling=Sampling.v0_1_24())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"temperature": 1.0, "top_p": 1.0}),
        ({"temperature": 0.7}, {"temperature": 1.4, "top_p": 1.0}),
        ({"temperature": 0.7, "seed": 1}, {"temperature": 0.0, "top_p": 1.0, "seed": 1}),
        ({"seed": 0}, {"temperature": 0.0, "top_p": 1.0, "seed": 0}),
        (
            {"frequency_penalty": 0.5, "presence_penalty": 0.25, "top_p": 0.5},
            {"frequency_penalty": 1.0, "presence_penalty": 0.5, "temperature": 1.0, "top_p": 0.5},
        ),
        ({"presence_penalty_penalty": 0.5}, {"presence_penalty": 1.0, "temperature": 1.0, "top_p": 1.0}),
        (
            {"presence_penalty_penalty": 0.5, "presence_penalty": 1},
            {"presence_penalty": 2.0, "temperature": 1.0, "top_p": 1.0},
        ),
    ],
)
def test_v0_1_24_is_the_first_published_mapping(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert options(settings=V0, **fields) == expected


def test_the_misspelt_key_is_listed_where_it_has_no_effect() -> None:
    ignored = Ignored(Settings(), [])
    from_sampling(request(presence_penalty_penalty=1), None, Settings(), ignored)
    assert dict(ignored.headers()) == {"openai-compat-ignored": "presence_penalty_penalty"}


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"temperature": "warm"}, "float32"),
        ({"temperature": True}, "float32"),
        ({"top_p": 1e300}, "float32"),
        ({"num_ctx": "8k"}, "int"),
        ({"seed": False}, "int"),
        ({"num_gpu": "1,000"}, "int"),
        ({"stop": [1]}, "[]string"),
        ({"use_mmap": 1}, "bool"),
        ({"num_predict": [1]}, "int"),
        ({"use_mmap": "yes"}, "bool"),
        ({"numa": 1}, "bool"),
    ],
)
def test_a_wrong_type_inside_options_is_a_400(given: dict[str, Any], kind: str) -> None:
    [name] = given
    with pytest.raises(APIError) as raised:
        options(options=given)
    assert (raised.value.status, raised.value.param) == (400, f"options.{name}")
    assert raised.value.message == f'option "{name}" must be of type {kind}'


@pytest.mark.parametrize("value", [1.5, 2**63])
def test_an_integer_option_is_checked_as_one(value: float) -> None:
    with pytest.raises(APIError) as raised:
        options(options={"seed": value})
    assert raised.value.param == "options.seed"


MANY = [str(i) for i in range(129)]


@pytest.mark.parametrize("fields", [{"stop": MANY}, {"options": {"stop": MANY}}])
def test_f59_too_many_stop_sequences(fields: dict[str, Any]) -> None:
    with pytest.raises(APIError) as raised:
        options(**fields)
    assert raised.value.code == "array_above_max_length"
    assert options(stop=MANY[1:] * 2) == {"stop": MANY[1:]}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("num_ctx", 1, 16777216),
        ("num_keep", -1, 16777216),
        ("num_batch", 1, 65536),
        ("num_gpu", -1, 1000),
        ("main_gpu", 0, 255),
        ("num_thread", 0, 1024),
    ],
)
def test_options_that_move_the_machine_have_sane_ranges(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert options(options={name: value}) == {name: value}
    for value in (low - 1, high + 1, str(high + 1)):
        with pytest.raises(APIError) as raised:
            options(options={name: value})
        assert (raised.value.status, raised.value.param) == (400, f"options.{name}")
    with pytest.raises(ValueError, match=name):
        ModelSettings(options={name: high + 1})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"num_ctx": 100_000}, "num_ctx"),
        ({"options": {"num_ctx": 100_000}}, "options.num_ctx"),
        ({"temperature": 0.1}, "temperature"),
        ({"options": {"temperature": 0.1}}, "options.temperature"),
        ({"stop": "x"}, "stop"),
    ],
)
def test_a_pinned_option_is_the_model_s_and_the_client_s_is_listed(given: dict[str, Any], field: str) -> None:
    pinned = ("num_ctx", "temperature", "stop")
    defaults = ModelSettings(options={"num_ctx": 4096, "temperature": 0.5}, pinned=pinned)
    ignored = Ignored(Settings(), [])
    sampled = from_sampling(request(**given), None, Settings(sampling=Sampling.model()), ignored, defaults)
    assert sampled.options == {"num_ctx": 4096, "temperature": 0.5}
    assert dict(ignored.headers()) == {"openai-compat-ignored": field}


# -- beside options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fields", "expected"),
    [
        (Settings(), {}, {"truncate": False}),
        (Settings(overflow="truncate"), {}, {}),
        (V0, {}, {}),
        (Settings(sampling=Sampling.v0_1_24(), overflow="error"), {}, {"truncate": False}),
        (Settings(), {"truncate": True}, {"truncate": True}),
        (Settings(overflow="truncate"), {"truncate": False}, {"truncate": False}),
        (V0, {"keep_alive": "5m", "shift": False}, {"keep_alive": "5m", "shift": False}),
        (V0, {"keep_alive": -1}, {"keep_alive": -1}),
        (V0, {"keep_alive": 0}, {"keep_alive": 0}),
        (V0, {"keep_alive": "-1"}, {"keep_alive": -1}),
        (V0, {"keep_alive": "300"}, {"keep_alive": 300}),
        (V0, {"keep_alive": " 5m "}, {"keep_alive": "5m"}),
        (V0, {"keep_alive": "1.5"}, {"keep_alive": 1.5}),
        (V0, {"keep_alive": ".5"}, {"keep_alive": 0.5}),
        (V0, {"keep_alive": "1e3"}, {"keep_alive": 1000.0}),
        *[(V0, {"keep_alive": empty}, {}) for empty in ("", " ", [], {})],
        (V0, {"truncate": "END"}, {"truncate": True}),
        (V0, {"truncate": "none"}, {"truncate": False}),
        (V0, {"truncate": "START"}, {}),
        (V0, {"truncate": ""}, {}),
    ],
)
def test_overflow_keep_alive_and_shift(settings: Settings, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    import json

    sent = native.ChatRequest(model="m", messages=[], options={})
    from_keep_alive(request(**fields), sent, settings, Ignored(settings, []))
    found = json.loads(encode(sent))
    assert {key: found[key] for key in found if key in ("truncate", "keep_alive", "shift")} == expected


@pytest.mark.parametrize("name", ["min_p", "typical_p", "repeat_penalty", "repetition_penalty", "keep_alive"])
@pytest.mark.parametrize("value", ["1e999", "-1e300"])
def test_a_number_out_of_range_is_a_400_as_text_too(name: str, value: str) -> None:
    def mapped() -> None:
        target = native.ChatRequest(model="m", messages=[], options={})
        from_keep_alive(request(**{name: value}), target, V0, Ignored(V0, []))

    with pytest.raises(APIError) as raised:
        mapped()
    assert raised.value.param == name


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        ({"temperature": 0.1, "options": {"temperature": 0.2}}, "options.temperature"),
        ({"temperature": 0.1, "options": {"temperature": 0.1}}, None),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repetition_penalty"),
        ({"stop": "a", "options": {"stop": ["b"]}}, "options.stop"),
    ],
)
def test_a_value_that_another_field_replaces_is_listed(fields: dict[str, Any], listed: str | None) -> None:
    ignored = Ignored(Settings(), [])
    from_sampling(request(**fields), None, Settings(), ignored)
    assert dict(ignored.headers()).get("openai-compat-ignored") == listed
