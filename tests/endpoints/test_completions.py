"""Text completions: the request and what becomes of it, the texts, their log-probabilities and their chunks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from werkzeug.test import Client

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama
from openai_compat.testing.demo import encode
from tests.contract import check, check_text_stream, frames
from tests.endpoints.requests import Completions, Remote, Watched, end, generated, merged_choices, token, write
from tests.harness import call, compat

COMPLETIONS = Completions("/v1/completions", "/api/generate", {"model": "demo", "prompt": "Hello"}, end())
answered, streamed = COMPLETIONS.answered, COMPLETIONS.streamed


def texts(found: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(choice["index"], choice["text"], choice["finish_reason"]) for choice in found["choices"]]


# -- the request ------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    assert COMPLETIONS.sent() == {
        "model": "demo",
        "prompt": "Hello",
        "options": {"temperature": 1.0, "top_p": 1.0},
        "stream": True,
        "truncate": False,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 2}, {"temperature": 2}),
        ({"top_p": 0}, {"top_p": 0}),
        ({"seed": 7.0}, {"seed": 7}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"presence_penalty": -0.5}, {"presence_penalty": -0.5}),
        ({"top_k": 3, "options": {"top_k": 4, "num_gpu": 1}}, {"top_k": 3, "num_gpu": 1}),
        ({"num_ctx": 4096}, {"num_ctx": 4096}),
        ({"min_p": 0.1, "typical_p": 0.2}, {"min_p": 0.1, "typical_p": 0.2}),
        ({"repeat_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_tokens": 5.0, "options": {"num_predict": 9}}, {"num_predict": 5}),
        ({"max_tokens": -1}, {"num_predict": -1}),
        ({"max_tokens": 0}, {"num_predict": 1}),
        ({"seed": None, "stop": None, "max_tokens": None}, {}),
    ],
)
def test_parameters_become_options(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert COMPLETIONS.sent(**fields)["options"] == {"temperature": 1.0, "top_p": 1.0, **expected}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"suffix": "return 1"}, {"suffix": "return 1"}),
        ({"suffix": ""}, {}),
        ({"raw": True}, {"raw": True}),
        ({"format": "json"}, {"format": "json"}),
        ({"format": {"type": "object"}}, {"format": {"type": "object"}}),
        ({"keep_alive": 0}, {"keep_alive": 0}),
        ({"shift": False, "truncate": True}, {"shift": False, "truncate": True}),
        ({"logprobs": None}, {}),
        ({"logprobs": 0}, {"logprobs": True}),
        ({"logprobs": 0, "echo": True}, {}),
        ({"logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ({"logprobs": 20}, {"logprobs": True, "top_logprobs": 20}),
        ({"think": False}, {"think": False}),
        ({"think": "high"}, {"think": "high"}),
        ({"reasoning_effort": "none"}, {"think": False}),
        ({"reasoning_effort": "minimal"}, {"think": "low"}),
        ({"reasoning": {"effort": "medium"}, "reasoning_effort": "low"}, {"think": "medium"}),
        ({"think": True, "reasoning_effort": "low"}, {"think": True}),
        ({"best_of": None, "n": 1, "user": None, "echo": False}, {}),
    ],
)
def test_what_stands_beside_the_options(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert COMPLETIONS.sent(**fields) == {**COMPLETIONS.sent(), **expected}


def test_the_settings_of_a_model_and_its_alias_reach_the_request() -> None:
    models = {"demo": {"options": {"num_ctx": 99, "seed": 1}, "keep_alive": "1h", "think": False}}
    settings = {"aliases": {"gpt-3.5-*": "demo"}, "models": models, "overflow": "truncate"}
    found = COMPLETIONS.sent(settings, model="gpt-3.5-turbo-instruct", seed=2)
    assert found.pop("options") == {"num_ctx": 99, "seed": 2, "temperature": 1.0, "top_p": 1.0}
    assert found == {"model": "demo", "prompt": "Hello", "stream": True, "keep_alive": "1h", "think": False}


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_names_the_model_as_the_client_does(stream: bool) -> None:
    settings = {"aliases": {"davinci": "demo"}}
    ask = streamed if stream else answered
    assert b'"model":"davinci"' in encode(ask([write("x"), end()], settings=settings, model="davinci"))


def test_a_404_names_what_the_client_asked_for() -> None:
    response = COMPLETIONS.post(FakeOllama(), {"aliases": {"davinci": "nobody"}}, model="davinci", stream=True)
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
    assert "`davinci`" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": {"a": 1}}, "prompt", "invalid_type"),
        ({"prompt": [None]}, "prompt[0]", "invalid_type"),
        ({"prompt": ["a", True]}, "prompt[1]", "invalid_type"),
        ({"prompt": ["a", {}]}, "prompt[1]", "invalid_type"),
        ({"suffix": 1}, "suffix", "invalid_type"),
        ({"max_tokens": -2}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"best_of": -1}, "best_of", "integer_below_min_value"),
        ({"best_of": 9}, "best_of", "integer_above_max_value"),
        ({"best_of": 1, "n": 2}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ({"best_of": 2, "n": 2, "stream": True}, "best_of", "invalid_value"),
        ({"echo": 1}, "echo", "invalid_type"),
        ({"raw": "yes"}, "raw", "invalid_type"),
        ({"logprobs": 21}, "logprobs", "integer_above_max_value"),
        ({"logprobs": -1}, "logprobs", "integer_below_min_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"logprobs": 1, "echo": True}, "logprobs", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "decimal_above_max_value"),
        ({"presence_penalty": -2.1}, "presence_penalty", "decimal_below_min_value"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"stop": list(map(str, range(129)))}, "stop", "array_above_max_length"),
        ({"stop": [1]}, "stop[0]", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "invalid_type"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value"),
        ({"think": "extreme"}, "think", "invalid_value"),
        ({"options": {"num_ctx": "x"}}, "options.num_ctx", "invalid_type"),
        ({"prompt": ["x"] * 129}, "prompt", "array_above_max_length"),
        ({"prompt": ["x"] * 17, "n": 8}, "prompt", "array_above_max_length"),
    ],
)
def test_f59_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = COMPLETIONS.refused(**fields)
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]], ["a", 1], ["a", [1]], [[]]])
def test_token_ids_are_refused_and_the_client_is_told_why(prompt: list[Any]) -> None:
    error = COMPLETIONS.refused(prompt=prompt)
    assert (error["param"], error["code"]) == ("prompt", "invalid_type")
    assert "Token ids" in error["message"]
    assert "Ollama takes text only" in error["message"]


def test_f60_limits_are_settings() -> None:
    assert COMPLETIONS.refused({"max_n": 2}, n=3)["param"] == "n"
    assert COMPLETIONS.refused({"max_n": 2}, best_of=3)["param"] == "best_of"
    assert COMPLETIONS.refused({"max_calls": 3}, prompt=["a", "b"], best_of=2)["param"] == "prompt"
    assert len(answered(*[[end()]] * 4, settings={"max_calls": 4}, prompt=["a", "b"], n=2)["choices"]) == 4


# -- what has no effect -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"best_of": 0}, set()),
        ({"best_of": 1}, set()),
        ({"logprobs": 0, "echo": True}, {"logprobs"}),
        ({"user": "u"}, {"user"}),
        ({"logit_bias": {"50256": -100}}, {"logit_bias"}),
        ({"stream_options": {"include_obfuscation": True}}, {"stream_options.include_obfuscation"}),
        ({"stream_options": {"include_obfuscation": False, "include_usage": True}}, set()),
        ({"response_format": {"type": "json_object"}, "foo": 1, "bar": None}, {"response_format", "foo"}),
        ({"reasoning": {"effort": "none", "summary": "auto"}}, {"reasoning.summary"}),
    ],
)
def test_rule_1_what_has_no_effect_is_listed(fields: dict[str, Any], expected: set[str]) -> None:
    assert COMPLETIONS.ignored(**fields) == expected
    assert COMPLETIONS.ignored(stream=True, **fields) == expected


def test_what_ollama_can_never_honour_is_refused_by_the_other_policy() -> None:
    error = COMPLETIONS.refused({"unsupported": "error"}, logit_bias={"50256": -100})
    assert (error["param"], error["code"]) == ("logit_bias", "unsupported_parameter")


# -- thinking ---------------------------------------------------------------------------------


def test_a_model_that_cannot_think_is_asked_again_without_and_remembered() -> None:
    fake = FakeOllama()
    app = OpenAICompat(fake)
    for _ in range(2):
        body = {"model": "demo", "prompt": ["a", "b"], "think": "high"}
        response = Client(app).post("/v1/completions", json=body)
        assert response.status_code == 200
        assert response.headers["openai-compat-ignored"] == "think"
    assert [request.json.get("think") for request in fake.requests] == ["high", *[None] * 4]
    assert fake.opened == fake.closed == 5


def test_thinking_that_cannot_be_had_is_refused_by_the_other_policy() -> None:
    response = COMPLETIONS.post(FakeOllama(), {"unsupported": "error"}, reasoning_effort="high")
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "reasoning_effort")


def test_thinking_that_only_a_setting_asks_for_is_dropped_in_silence() -> None:
    assert COMPLETIONS.ignored({"models": {"demo": {"think": True}}, "unsupported": "error"}) == set()


THINKING = [write(), write(thinking="Let me"), write(thinking=" see"), write("It"), write(" is."), end()]


def test_thinking_is_never_text() -> None:
    assert texts(answered(THINKING)) == [(0, "It is.", "stop")]
    assert [chunk["choices"][0]["text"] for chunk in streamed(THINKING)] == ["It", " is.", ""]


def test_an_answer_that_only_thinks_is_an_empty_text() -> None:
    steps = [write(thinking="Let me"), end("length")]
    assert texts(answered(steps)) == [(0, "", "length")]
    assert merged_choices(streamed(steps)) == answered(steps)["choices"]


# -- the answer -------------------------------------------------------------------------------


def test_an_answer_has_every_field() -> None:
    found = answered([write("Hel"), write("lo"), end(prompt=3, made=2, prompt_eval_cached_count=1)])
    assert found.pop("id").startswith("cmpl-")
    usage = found.pop("usage")
    assert found == {
        "object": "text_completion",
        "created": 1767225600,
        "model": "demo",
        "choices": [{"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "system_fingerprint": "fp_ollama",
    }
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 2, 5)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 1


@pytest.mark.parametrize(("reason", "expected"), [("stop", "stop"), ("length", "length"), ("load", "stop")])
def test_a_native_reason_becomes_a_finish_reason(reason: str, expected: str) -> None:
    assert texts(answered([write("x"), end(reason)])) == [(0, "x", expected)]


@pytest.mark.parametrize("fields", [{"prompt": ""}, {"prompt": None}, {"prompt": [""]}])
def test_an_empty_prompt_answers(fields: dict[str, Any]) -> None:
    """Ollama only loads the model then, and says so as JSON even in a stream, and without counts."""
    loaded = encode({**write(), "done": True, "done_reason": "load"})
    for stream in (False, True):
        fake = FakeOllama()
        fake.script("/api/generate", loaded, content_type="application/json; charset=utf-8")
        response = COMPLETIONS.post(fake, stream=stream, **fields)
        choices = merged_choices(check_text_stream(response.data)) if stream else response.get_json()["choices"]
        assert choices == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]
        assert fake.requests[0].json["prompt"] == ""


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_0_gives_no_text_and_counts_the_prompt(stream: bool) -> None:
    steps = [write("x", logprobs=[token("x")]), end("length", prompt=42, response="y")]
    fields: dict[str, Any] = {"max_tokens": 0, "logprobs": 1, "stream_options": {"include_usage": True}}
    found = streamed(steps, **fields) if stream else [answered(steps, **fields)]
    nothing: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    assert merged_choices(found) == [{"text": "", "index": 0, "logprobs": nothing, "finish_reason": "length"}]
    assert (found[-1]["usage"]["prompt_tokens"], found[-1]["usage"]["completion_tokens"]) == (42, 0)


def test_f36_absurd_counters_are_0() -> None:
    line = b'{"response":"x","done":true,"eval_count":1e400,"prompt_eval_count":' + b"9" * 400 + b"}\n"
    assert answered([line])["usage"]["total_tokens"] == 0


# -- several prompts and choices --------------------------------------------------------------


def test_choices_are_numbered_prompt_by_prompt() -> None:
    fake = generated(*[[write(text), end(prompt=2, made=i)] for i, text in enumerate("pqrstu")])
    response = COMPLETIONS.post(fake, prompt=["a", "b", "c"], n=2, seed=5)
    check("CreateCompletionResponse", response.get_json())
    assert texts(response.get_json()) == [(i, text, "stop") for i, text in enumerate("pqrstu")]
    assert [request.json["prompt"] for request in fake.requests] == ["a", "a", "b", "b", "c", "c"]
    assert [request.json["options"]["seed"] for request in fake.requests] == [5, 6] * 3
    usage = response.get_json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 15)


def test_seeds_only_where_one_is_given_and_never_beyond_what_ollama_reads() -> None:
    fake = generated(*[[end()]] * 4)
    COMPLETIONS.post(fake, n=2)
    COMPLETIONS.post(fake, n=2, seed=2**63 - 1)
    seeds = [request.json["options"].get("seed") for request in fake.requests]
    assert seeds == [None, None, 2**63 - 1, 2**63 - 1]
    assert not any("logprobs" in request.json for request in fake.requests)


@pytest.mark.parametrize("stream", [False, True])
def test_in_process_one_call_follows_the_other_and_each_is_closed_once(stream: bool) -> None:
    watched = Watched()
    app, inner = compat(watched)
    body = {"model": "demo", "prompt": ["a", "b", "c"], "stream": stream}
    found = call(app, "POST", "/v1/completions", body=json.dumps(body).encode())
    choices = merged_choices(check_text_stream(found.body)) if stream else json.loads(found.body)["choices"]
    assert [choice["text"] for choice in choices] == ["A", "B", "C"]
    assert watched.log == [f"{prompt} {what}" for prompt in "abc" for what in ("begins", "is closed")]
    assert inner.calls == inner.closes == 3


def test_a_client_that_leaves_ends_what_runs_and_begins_nothing_more() -> None:
    watched = Watched()
    app, inner = compat(watched)
    body = {"model": "demo", "prompt": ["a", "b", "c"], "stream": True}
    with Client(app).post("/v1/completions", json=body) as response:
        assert b'"text":"A"' in next(response.iter_encoded())
    assert watched.log == ["a begins", "a is closed"]
    assert inner.calls == inner.closes == 1


@pytest.mark.parametrize("stream", [False, True])
def test_behind_a_url_prompts_are_asked_side_by_side(stream: bool) -> None:
    remote = Remote(3)
    body = {"model": "demo", "prompt": ["a", "b", "c"], "stream": stream}
    with Client(OpenAICompat(remote)).post("/v1/completions", json=body) as response:
        choices = merged_choices(check_text_stream(response.data)) if stream else response.get_json()["choices"]
    assert [choice["text"] for choice in choices] == ["A", "B", "C"]
    assert sorted(remote.log) == sorted(f"{prompt} {what}" for prompt in "abc" for what in ("begins", "is closed"))


# -- the best of several ----------------------------------------------------------------------


def weighed(text: str, *logprobs: float) -> list[Any]:
    """A text, a character a token."""
    lines = [write(one, logprobs=[token(one, value)]) for one, value in zip(text, logprobs, strict=True)]
    return [*lines, end(made=len(text))]


# The means are -2, -1 and -1.5; the sums would say: cde, ab, fghi last of all.
CANDIDATES = [weighed("ab", -1, -3), weighed("cde", -1, -1, -1), weighed("fghi", -1, -2, -1, -2)]


@pytest.mark.parametrize(("n", "expected"), [(1, ["cde"]), (2, ["cde", "fghi"]), (3, ["ab", "cde", "fghi"])])
def test_the_best_by_mean_log_probability_come_first(n: int, expected: list[str]) -> None:
    found = answered(*CANDIDATES, best_of=3, n=n)
    assert texts(found) == [(i, text, "stop") for i, text in enumerate(expected)]
    assert all(choice["logprobs"] is None for choice in found["choices"])
    assert found["usage"]["completion_tokens"] == 9


def test_the_best_are_chosen_for_each_prompt() -> None:
    found = answered(
        weighed("a", -2), weighed("b", -1), weighed("c", -1), weighed("d", -2), prompt=["x", "y"], best_of=2, logprobs=0
    )
    assert texts(found) == [(0, "b", "stop"), (1, "c", "stop")]
    assert [choice["logprobs"]["tokens"] for choice in found["choices"]] == [["b"], ["c"]]


def test_to_choose_log_probabilities_and_seeds_are_asked_for() -> None:
    fake = generated(*CANDIDATES)
    COMPLETIONS.post(fake, best_of=3, seed=1)
    assert [request.json["options"]["seed"] for request in fake.requests] == [1, 2, 3]
    assert [request.json["logprobs"] for request in fake.requests] == [True] * 3
    assert all("top_logprobs" not in request.json for request in fake.requests)


def test_without_log_probabilities_there_is_no_best_and_the_client_is_told() -> None:
    fake = generated([write("a"), end()], [write("b"), end()])
    response = COMPLETIONS.post(fake, {"unsupported": "error"}, best_of=2)
    assert texts(response.get_json()) == [(0, "a", "stop")]
    assert response.headers["openai-compat-ignored"] == "best_of"


def test_a_text_of_which_nothing_is_known_is_the_last_choice() -> None:
    assert texts(answered([write("a"), end()], weighed("b", -9), best_of=2)) == [(0, "b", "stop")]


# -- echo and suffix --------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [0, None])
def test_echo_stands_before_every_text_of_its_prompt(max_tokens: int | None) -> None:
    scripts = [[write(text), end("length")] for text in "wxyz"]
    fields: dict[str, Any] = {"prompt": ["a\n", "b\u2028"], "n": 2, "echo": True, "max_tokens": max_tokens}
    expected = ["a\n", "a\n", "b\u2028", "b\u2028"]
    if max_tokens is None:
        expected = [prompt + text for prompt, text in zip(expected, "wxyz", strict=True)]
    found = answered(*scripts, **fields)
    assert texts(found) == [(i, text, "length") for i, text in enumerate(expected)]
    assert merged_choices(streamed(*scripts, **fields)) == found["choices"]


def test_echo_does_not_wait_for_the_end_of_thinking() -> None:
    first, *rest = [chunk["choices"][0]["text"] for chunk in streamed(THINKING, echo=True)]
    assert (first, rest) == ("Hello", ["It", " is.", ""])


def test_a_model_that_cannot_insert_is_a_mistake_in_suffix() -> None:
    response = COMPLETIONS.post(FakeOllama(), suffix="return 1")
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "suffix")
    assert "does not support insert" in response.get_json()["error"]["message"]


# -- log-probabilities ------------------------------------------------------------------------


def test_log_probabilities_have_the_legacy_form() -> None:
    top = [token("He"), token("Ha", -2.5)]
    steps = [write("He", logprobs=[token("He", top_logprobs=top)]), write("y", logprobs=[token("y", None)]), end()]
    [choice] = answered(steps, logprobs=2)["choices"]
    assert choice["logprobs"] == {
        "tokens": ["He", "y"],
        "token_logprobs": [-1.0, -9999.0],
        "top_logprobs": [{"He": -1.0, "Ha": -2.5}, {}],
        "text_offset": [0, 2],
    }


# A parrot of two tokens; its first half comes with no text. An accent of one; a family of five characters.
FAMILY = "👨\u200d👩\u200d👧"
PARTS = [
    write("é", logprobs=[token("é")]),
    write("", logprobs=[token("\ufffd", data=[0xF0, 0x9F])]),
    write("🦜", logprobs=[token("\ufffd", data=[0xA6, 0x9C])]),
    write(FAMILY + "海", logprobs=[token(FAMILY), token("海")]),
    write(" x", logprobs=[{"token": " x", "logprob": -1.0}]),
    end(),
]


@pytest.mark.parametrize("cut", [None, 1, 7, 4096])
@pytest.mark.parametrize("stream", [False, True])
def test_offsets_are_exact_in_characters(stream: bool, cut: int | None) -> None:
    fake = FakeOllama()
    fake.script("/api/generate", *PARTS, cut=cut)
    response = COMPLETIONS.post(fake, stream=stream, logprobs=0)
    [choice] = merged_choices(check_text_stream(response.data)) if stream else response.get_json()["choices"]
    assert choice["text"] == "é🦜" + FAMILY + "海 x"
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == [0, 1, 2, 2, 7, 8]
    slices = [choice["text"][a:b] for a, b in zip(offsets, [*offsets[1:], None], strict=True)]
    assert slices == ["é", "🦜", "", FAMILY, "海", " x"]


def test_offsets_begin_anew_in_every_choice() -> None:
    scripts = [weighed("ab", -1, -1), weighed("cd", -1, -1)]
    found = answered(*scripts, n=2, logprobs=1)
    assert [choice["logprobs"]["text_offset"] for choice in found["choices"]] == [[0, 1], [0, 1]]
    assert merged_choices(streamed(*scripts, n=2, logprobs=1)) == found["choices"]


def test_log_probabilities_of_thinking_belong_to_no_text() -> None:
    lines = [
        write(thinking="hm", logprobs=[token("hm")]),
        write("so", logprobs=[token("</t>"), token("so")]),
        end(),
    ]
    [choice] = answered(lines, logprobs=0)["choices"]
    assert (choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]) == (["so"], [0])


def test_log_probabilities_of_the_last_line_are_not_lost() -> None:
    steps = [write("a", logprobs=[token("a")]), end(logprobs=[token("<end>")])]
    chunks = streamed(steps, logprobs=0)
    assert merged_choices(chunks) == answered(steps, logprobs=0)["choices"]
    assert merged_choices(chunks)[0]["logprobs"]["tokens"] == ["a", "<end>"]


# -- chunks -----------------------------------------------------------------------------------


def test_a_stream_of_text() -> None:
    chunks = streamed([write("Hel"), write("lo"), end()])
    assert all(chunk["id"].startswith("cmpl-") and "usage" not in chunk for chunk in chunks)
    assert chunks[0]["created"] == 1767225600
    assert [chunk["choices"] for chunk in chunks] == [
        [{"text": "Hel", "index": 0, "logprobs": None, "finish_reason": None}],
        [{"text": "lo", "index": 0, "logprobs": None, "finish_reason": None}],
        [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    ]


def test_the_reason_stands_on_the_last_text() -> None:
    [chunk] = streamed([{**end("length"), "response": "all at once"}])
    assert texts(chunk) == [(0, "all at once", "length")]


def test_usage_is_null_on_all_chunks_and_then_in_one_of_its_own() -> None:
    scripts = [[write("x"), end(prompt=3, made=4)], [write("y"), end(prompt=5, made=6)]]
    *chunks, last = streamed(*scripts, n=2, stream_options={"include_usage": True})
    assert [(len(chunk["choices"]), chunk["usage"]) for chunk in chunks] == [(1, None)] * 4
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (8, 10)


def test_stream_and_answer_say_the_same() -> None:
    scripts = [[*THINKING[:-1], end("length", prompt=5, made=6)], weighed("ab", -1, -2), [end()], PARTS]
    fields: dict[str, Any] = {"prompt": ["a", "b"], "n": 2, "logprobs": 1, "stream_options": {"include_usage": True}}
    chunks, found = streamed(*scripts, **fields), answered(*scripts, **fields)
    assert merged_choices(chunks) == found["choices"]
    assert chunks[-1]["usage"] == found["usage"]


TRICKY = "a\n\ndata: [DONE]\n\nevent: x\r\u2028\u2029\u0085\x00é🦜</b>&"


@pytest.mark.parametrize("cut", [None, 1, 7, 4096])
def test_f38_text_is_one_event_and_arrives_as_it_was(cut: int | None) -> None:
    fake = FakeOllama()
    fake.script("/api/generate", write(TRICKY), end(), cut=cut)
    response = COMPLETIONS.post(fake, stream=True)
    assert merged_choices(check_text_stream(response.data))[0]["text"] == TRICKY
    assert len(response.data.decode().splitlines()) == 6


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [[{"error": "boom"}], []], ids=["an error line", "no end"])
@pytest.mark.parametrize("before", [[], [[write("a"), end()]]], ids=["the only call", "the second call"])
def test_a_failure_in_mid_stream_is_the_last_event(before: list[Any], last: list[Any]) -> None:
    fake = generated(*before, [write("b"), *last])
    response = COMPLETIONS.post(fake, stream=True, n=len(before) + 1)
    *chunks, failure = frames(response.data)
    response.close()
    check("ErrorResponse", failure)
    assert failure["error"]["code"] == "upstream_error"
    assert ("boom" in failure["error"]["message"]) is bool(last)
    assert merged_choices(chunks)[-1]["text"] == "b"
    assert merged_choices(chunks)[-1]["finish_reason"] is None
    assert fake.opened == fake.closed == len(before) + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "expected"), [("400 X", 400), ("404 X", 404), ("429 X", 429), ("500 X", 502), ("503 X", 503)]
)
def test_a_failure_of_the_first_call_has_its_status(status: str, expected: int, stream: bool) -> None:
    fake = FakeOllama()
    fake.script("/api/generate", {"error": "model 'x' not found"}, status=status)
    response = COMPLETIONS.post(fake, stream=stream, prompt=["a", "b"])
    assert (response.status_code, response.content_type) == (expected, "application/json")
    check("ErrorResponse", response.get_json())
    assert fake.opened == fake.closed == 1


@pytest.mark.parametrize("status", ["200 OK", "429 X", "503 X"])
@pytest.mark.parametrize("before", [[write("a")], [write("a"), end()]], ids=["the only call", "the second call"])
def test_a_failure_after_tokens_is_not_worth_repeating(before: list[Any], status: str) -> None:
    fake = generated(before)
    fake.script("/api/generate", {"error": "boom"}, status=status)
    response = COMPLETIONS.post(fake, n=2)
    assert response.status_code >= 429
    assert response.headers["x-should-retry"] == "false"
    assert fake.opened == fake.closed == len(before)


def test_f40_collected_answers_are_bounded_together() -> None:
    fake = generated(*[[write("x" * 600), end()]] * 3)
    response = COMPLETIONS.post(fake, {"max_answer": 2000}, n=3)
    assert response.status_code == 502
    assert fake.opened == fake.closed == 3


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_without_output_reason_or_counts_is_no_answer(stream: bool) -> None:
    response = COMPLETIONS.post(generated([{"response": "", "done": True}]), stream=stream)
    if stream:
        [failure] = frames(response.data)
        assert "answered nothing" in failure["error"]["message"]
    else:
        assert response.status_code == 502


def test_too_long_a_prompt_is_openai_s_400_and_names_the_prompt() -> None:
    response = COMPLETIONS.post(FakeOllama(), prompt="word " * 5000)
    assert response.status_code == 400
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "maximum context length is 4096 tokens" in error["message"]
    assert COMPLETIONS.post(FakeOllama(), {"overflow": "truncate"}, prompt="word " * 5000).status_code == 200


def test_behind_a_url_no_more_prompts_are_asked_at_once_than_a_request_may_have_choices() -> None:
    remote = Third()
    body = {"model": "demo", "prompt": ["a", "b", "c", "d"]}
    with Client(OpenAICompat(remote, max_n=2)).post("/v1/completions", json=body) as response:
        assert [choice["text"] for choice in response.get_json()["choices"]] == ["A", "B", "C", "D"]
    assert not remote.came


class Third(Watched):
    """As a URL: the first calls wait a little for a third one that runs beside them."""

    is_remote = True

    def __init__(self) -> None:
        super().__init__()
        self._three = threading.Barrier(3, timeout=0.3)
        self.came = False

    def _lines(self, prompt: str) -> Iterator[bytes]:
        with suppress(threading.BrokenBarrierError):
            self._three.wait()
            self.came = True
        yield from super()._lines(prompt)
