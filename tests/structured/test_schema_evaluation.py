"""The evaluation of a schema: each keyword, what is certain, what it may cost, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
from typing import Any

import pytest

from openai_compat.structured import schema_evaluation as evaluation
from openai_compat.structured.schema_checker import MAX_NESTING, MAX_TEXT, Checker, Uncheckable, checker

jsonschema = pytest.importorskip("jsonschema")


def check(schema: Any) -> Checker:
    return checker(json.dumps(schema).encode())


def mismatch(schema: Any, answer: Any) -> str | None:
    return check(schema).mismatch(json.dumps(answer))


# -- keywords: the library's own verdict ------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "answer", "line"),
    [
        (True, 1, None),
        ({}, 1, None),
        (False, 1, "$: no value is allowed here"),
        ({"properties": {"a": False}}, {"a": [1]}, "$.a: no value is allowed here"),
        ({"type": "integer"}, 1.0, None),
        ({"type": "integer"}, True, "$: true is not of type 'integer'"),
        ({"type": ["string", "null"]}, 1, "$: 1 is not of type 'string', 'null'"),
        ({"const": 1}, True, "$: true is not one of 1"),
        ({"const": 1.0}, 1, None),
        ({"const": {"a": [1, None]}}, {"a": [1.0, None]}, None),
        ({"enum": [{"a": 1, "b": 2}]}, {"b": 2, "a": 1}, None),
        ({"enum": []}, 1, "$: 1 is not one of "),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], None),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2.0, "a": 1}], "$: an array has items that are equal"),
        ({"uniqueItems": False}, [1, 1], None),
        ({"multipleOf": 2}, 3, "$: 3 is not a multiple of 2"),
        ({"multipleOf": 2}, "3", None),
        ({"additionalProperties": {"type": "null"}, "properties": {"a": True}}, {"a": 1, "b": 1}, "$.b: 1 is not of"),
        ({"additionalProperties": {"type": "null"}}, [], None),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "$: 'b' is a dependency of 'a'"),
        ({"dependentRequired": {"a": ["b"]}}, {"b": 1}, None),
        ({"dependentRequired": {"a": ["b"]}}, [], None),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, "$: 'b' is a required property"),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, "$: 'ab' is too long"),
        ({"contains": {"type": "null"}}, [1], "$: an array has too few items that match 'contains'"),
        ({"contains": {"type": "null"}, "minContains": 0}, [1], None),
        ({"contains": True, "maxContains": 1}, [1, 2], "$: an array has too many items that match 'contains'"),
        ({"contains": True}, {}, None),
        ({"prefixItems": [True], "items": False}, [1, 2], "$[1]: no value is allowed here"),
        ({"not": {"type": "null"}}, None, "$: null matches what 'not' excludes"),
        ({"not": {"type": "null"}}, 1, None),
        ({"if": {"type": "null"}, "then": False}, None, "$: no value is allowed here"),
        ({"if": {"type": "null"}, "then": False}, 1, None),
        ({"if": {"type": "null"}, "else": {"minimum": 5}}, 1, "$: 1 is less than the minimum of 5"),
        ({"oneOf": [True, {"type": "null"}]}, None, "$: null matches more than one alternative of 'oneOf'"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, 3, "$: 3 is not one of 1; 3 is not one of 2"),
        ({"anyOf": [{"const": i} for i in range(5)]}, 9, "$: 9 is not one of 0; 9 is not one of 1; 9 is not one of 2"),
        ({"allOf": [{"minimum": 1}, {"maximum": 1}]}, 2, "$: 2 is greater than the maximum of 1"),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "$: 'a' is a required property"),
        ({"$ref": "#/$defs/a~1b~0c%25", "$defs": {"a/b~c%": {"type": "null"}}}, 1, "$: 1 is not of type 'null'"),
        ({"$ref": "#/$defs/a~01", "$defs": {"a~1": {"type": "null"}}}, 1, "$: 1 is not of type 'null'"),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"type": "null"}}}, 1, "$: 1 is not of type 'null'"),
        ({"$ref": "#/$defs/a/anyOf/1", "$defs": {"a": {"anyOf": [1, {"type": "null"}]}}}, 1, "$: 1 is not of type"),
        ({"properties": {"$ref": {"type": "null"}}}, {"$ref": 1}, "$['$ref']: 1 is not of type 'null'"),
        ({"$defs": {"a": 5, "b": {"$ref": "x:y"}}, "title": 5}, 1, None),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "exclusiveMinimum": 1},
            1,
            "$: 1 is less than or equal",
        ),
        ({"items": {"$schema": "http://json-schema.org/draft-04/schema#", "const": 1}}, [2], "$[0]: 2 is not one of 1"),
        ({"$schema": "x:unknown", "$id": "http://a.example/b", "$ref": "#/$defs/a", "$defs": {"a": True}}, 1, None),
        ({"$schema": 5, "$id": 5, "$anchor": 5, "type": "null"}, 1, "$: 1 is not of type 'null'"),
    ],
)
def test_a_keyword_is_evaluated_and_its_mismatch_named(schema: Any, answer: Any, line: str | None) -> None:
    found = mismatch(schema, answer)
    assert found is None if line is None else (found or "").startswith(line)


def test_multiples_are_of_the_numbers_as_written() -> None:
    assert mismatch({"multipleOf": 0.1}, 0.3) is None  # the library counts 2.9999999999999996
    assert mismatch({"multipleOf": 0.01}, 19.99) is None
    assert mismatch({"multipleOf": 1e-300}, 10**300) is None
    assert mismatch({"multipleOf": 0.01}, 19.999) == "$: 19.999 is not a multiple of 0.01"


def made_schema(random: random.Random, depth: int) -> Any:
    """A schema of a few words; deep ones refer back."""
    if depth == 0:
        return random.choice([True, {}, {"type": random.choice(["integer", "string", "array"])}, {"$ref": "#/$defs/d"}])
    inner = [made_schema(random, depth - 1) for _ in range(3)]
    words = {
        "type": random.choice(["object", "array", "integer", "null", ["string", "number"]]),
        "properties": {"a": inner[0], "b": inner[1]},
        "required": random.choice([["a"], ["a", "b"], []]),
        "additionalProperties": random.choice([False, inner[2]]),
        "items": inner[0],
        "prefixItems": inner[1:],
        "anyOf": inner[:2],
        "oneOf": inner[1:],
        "allOf": inner,
        "not": inner[2],
        "if": inner[0],
        "then": inner[1],
        "else": inner[2],
        "contains": inner[0],
        "maxContains": 1,
        "enum": [1, "a", [1], {"a": 1}, None],
        "minimum": 1,
        "maxLength": 1,
        "minItems": 1,
        "uniqueItems": True,
        "propertyNames": {"enum": ["a"]},
        "dependentSchemas": {"a": inner[1]},
        "dependentRequired": {"a": ["b"]},
    }
    return {word: words[word] for word in random.sample(sorted(words), random.randint(1, 3))}


def made_value(random: random.Random, depth: int) -> Any:
    if depth == 0:
        return random.choice([1, 0, 2.5, "a", "ab", True, None])
    if random.random() < 0.5:
        return [made_value(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {name: made_value(random, depth - 1) for name in random.sample("abc", random.randint(0, 3))}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_library_agrees(seed: int) -> None:
    made = random.Random(seed)
    verdicts = []
    for _ in range(30):
        schema = {"$defs": {"d": made_schema(made, 1)}, "allOf": [made_schema(made, 3)]}
        answers = [made_value(made, made.randint(0, 3)) for _ in range(5)]
        for answer in answers:
            try:
                verdict = mismatch(schema, answer) is None
            except Uncheckable:
                continue  # a definition may refer to itself
            verdicts.append(verdict)
            assert verdict == jsonschema.Draft202012Validator(schema).is_valid(answer), (schema, answer)
    assert len(verdicts) > 100
    assert set(verdicts) == {True, False}


# -- what is not looked at --------------------------------------------------------------------

UNSEEN = {"pattern": "(a+)+$"}


@pytest.mark.parametrize(
    "schema",
    [
        {"not": UNSEEN},
        {"not": {"not": {"not": UNSEEN}}},
        {"not": {"anyOf": [{"type": "null"}, UNSEEN]}},
        {"oneOf": [UNSEEN, {"type": "string"}]},
        {"oneOf": [UNSEEN, {"pattern": "b"}]},
        {"if": UNSEEN, "then": False},
        {"if": UNSEEN, "then": True, "else": False},
        {"not": {"if": UNSEEN, "then": True, "else": True}},
        {"not": {"oneOf": [UNSEEN, {"type": "null"}]}},
        {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": UNSEEN}},
        {"not": {"format": "date"}},
    ],
)
def test_a_match_is_not_certain_where_something_is_not_looked_at(schema: Any) -> None:
    assert mismatch(schema, "x") is None
    assert mismatch({"items": schema, "$defs": schema.get("$defs", {})}, ["x"]) is None


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"not": UNSEEN}, 1),  # it is for strings
        ({"not": {"anyOf": [UNSEEN, True]}}, 1),
        ({"oneOf": [UNSEEN, {"type": "string"}, {"maxLength": 5}]}, "x"),
        ({"not": {"allOf": [{"not": {"type": "null", **UNSEEN}}]}}, "x"),
        ({"if": {"type": "null", **UNSEEN}, "else": False}, "x"),
        ({"contains": {"type": "null", **UNSEEN}}, ["x"]),
        ({"anyOf": [{"type": "null", **UNSEEN}]}, "x"),
    ],
)
def test_a_mismatch_is_certain_all_the_same(schema: Any, answer: Any) -> None:
    assert mismatch(schema, answer)


def test_items_that_may_match() -> None:
    schema = {"contains": UNSEEN, "minContains": 2, "maxContains": 2}
    assert mismatch(schema, ["x"]) == "$: an array has too few items that match 'contains'"
    assert mismatch(schema, ["x", "y", "z"]) is None
    assert mismatch(schema, [1, 2, 3, "x"]) == "$: an array has too many items that match 'contains'"


# -- the budget -------------------------------------------------------------------------------


def doubling(word: str, length: int = 25) -> dict[str, Any]:
    """Each definition asks for the next one twice."""
    definitions: dict[str, Any] = {f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(length)}
    return {"$defs": {**definitions, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def many(part: Any, count: int) -> dict[str, Any]:
    return {"$defs": {"d": part}, "allOf": [{"$ref": "#/$defs/d"}] * count}


NAMES = [str(i) for i in range(20_000)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        pytest.param(doubling("allOf"), "x", id="allOf"),
        pytest.param(doubling("anyOf"), 1, id="anyOf"),
        pytest.param(doubling("oneOf"), "x", id="oneOf"),
        pytest.param({"not": doubling("anyOf")["$defs"]["d0"], **doubling("anyOf")}, 1, id="not"),
        pytest.param({"items": {"enum": [1]}}, [1] * 190_000, id="items"),
        pytest.param({"contains": True, "allOf": [{"contains": True}]}, [1] * 110_000, id="contains"),
        pytest.param(many({"required": NAMES}, 3000), dict.fromkeys(NAMES, 1), id="required"),
        pytest.param(many({"dependentRequired": {"0": ["0"] * 20_000}}, 3000), {"0": 1}, id="dependentRequired"),
        pytest.param(many({"const": [1] * 50_000}, 3000), [1] * 50_000, id="const"),
        pytest.param(many({"enum": ["x" * 150_000]}, 3000), "x" * 150_000, id="enum of a long text"),
        pytest.param(many({"uniqueItems": True}, 3000), [[i] for i in range(20_000)], id="uniqueItems of many"),
        pytest.param(many({"uniqueItems": True}, 3000), [[1] * 20_000], id="uniqueItems of large ones"),
        pytest.param({"anyOf": [{"maxItems": 0}] * 13_000}, [1] * 300_000, id="failures of a large array"),
        pytest.param({"anyOf": [{"items": False}] * 13_000}, [1] * 300_000, id="items of a large array"),
    ],
)
def test_the_steps_run_out(schema: Any, answer: Any) -> None:
    checks = check(schema)
    with pytest.raises(Uncheckable, match="too many steps"):
        checks.mismatch(json.dumps(answer))


@pytest.mark.slow
def test_what_was_found_before_the_steps_ran_out_is_certain() -> None:
    assert mismatch({"type": "null", **doubling("allOf")}, "x") == "$: 'x' is not of type 'null'"


@pytest.mark.slow
def test_a_checker_starts_anew_each_time_and_in_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_STEPS", 2000)
    checks = check({"items": {"type": "integer"}})
    with pytest.raises(Uncheckable):
        checks.mismatch(json.dumps([1] * 2000))
    found: list[Any] = []
    text = json.dumps([1] * 1500)
    threads = [threading.Thread(target=lambda: found.extend(checks.mismatch(text) for _ in range(9))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 36


def test_the_checks_of_a_request_share_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a schema that takes all steps would take them once for each of the choices."""
    monkeypatch.setattr(evaluation, "MAX_STEPS", 2000)
    checks = check({"items": {"type": "integer"}}).shared()
    text = json.dumps([1] * 500)
    assert [checks.mismatch(text) for _ in range(3)] == [None] * 3
    for _ in range(2):
        with pytest.raises(Uncheckable, match="too many steps"):
            checks.mismatch(text)
    assert check({"items": {"type": "integer"}}).shared().mismatch(text) is None


@pytest.mark.slow
def test_eight_choices_take_no_longer_than_one() -> None:
    text = json.dumps("x")

    def steps(choices: int) -> int:
        checks, count = check(doubling("oneOf")).shared(), 0

        def spend(self: Any, steps: int, spend: Any = evaluation._Run.spend) -> None:
            nonlocal count
            count += 1
            spend(self, steps)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation._Run, "spend", spend)
            for _ in range(choices):
                with pytest.raises(Uncheckable):
                    checks.mismatch(text)
        return count

    assert steps(8) < 1.01 * steps(1)


def test_a_large_enum_costs_no_more_than_a_small_one() -> None:
    assert mismatch({"items": {"enum": NAMES}}, NAMES) is None


@pytest.mark.slow
def test_integers_whose_hashes_are_equal_are_no_trouble() -> None:
    # Were they told apart by their hashes, this would be 5 * 10^9 comparisons.
    assert mismatch({"uniqueItems": True}, [i * (2**61 - 1) for i in range(99_999)]) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"oneOf": [{"$ref": "#/oneOf/0"}]},
        {"not": {"$ref": "#"}},
        {"if": {"$ref": "#"}},
        {"then": {"$ref": "#"}, "if": True},
        {"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5000)} | {"5000": True}},
    ],
)
def test_references_in_a_circle_end(schema: Any) -> None:
    checks = check(schema)
    with pytest.raises(Uncheckable, match="nested too deep"):
        checks.mismatch("{}")


def test_a_tree_may_be_deep() -> None:
    schema = {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}
    levels = MAX_NESTING // 3 - 1
    assert check(schema).mismatch('{"next":' * levels + "null" + "}" * levels) is None
    assert "next.next" in (check(schema).mismatch('{"next":' * levels + "{}" + "}" * levels) or "")
    with pytest.raises(Uncheckable, match="nested too deep"):
        check(schema).mismatch('{"next":' * (levels + 3) + "null" + "}" * (levels + 3))


@pytest.mark.parametrize("word", ["allOf", "anyOf", "not", "if", "contains", "items", "properties"])
def test_a_thread_with_a_small_stack_survives(word: str) -> None:
    part: Any = {"$ref": "#"}
    schema = {word: [part] if word in ("allOf", "anyOf") else {"a": part} if word == "properties" else part}
    answers = ["[" * 64 + "]" * 64, '{"a":' * 64 + "1" + "}" * 64, "[" * 100_000, '{"a":' * 100_000]
    check(schema)  # so that the library is there
    done = []

    def run() -> None:
        checks = check({**schema, "x": json.loads("[" * 62 + "]" * 62)})
        for answer in answers:
            try:
                done.append(checks.mismatch(answer))
            except Uncheckable as error:
                done.append(str(error))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(done) == len(answers)


def test_a_full_stack_is_no_error() -> None:
    checks = check({"properties": {"a": {"anyOf": [{"items": {"items": {"const": 1}}}]}}})
    deep, shallow = '{"a": [[1]]}', '{"a": [[2]]}'
    outcomes = set()

    def descend() -> None:
        """Check at every depth, to the last frame."""
        with contextlib.suppress(RecursionError):
            descend()
        for text in (deep, shallow):
            try:
                outcomes.add(checks.mismatch(text))
            except Uncheckable as error:
                outcomes.add(str(error))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        descend()
    finally:
        sys.setrecursionlimit(limit)
    assert outcomes == {None, "$.a[0][0]: 2 is not one of 1", "the stack is full", "the check failed"}


# -- what is said -----------------------------------------------------------------------------

LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "null"}, LONG),
        ({"type": "null"}, [LONG] * 9),
        ({"enum": [LONG, [LONG], *range(999)]}, {LONG: LONG}),
        ({"const": "\x00\u2028\x85\ud800" * 99}, "\x00\u2028\x85\ud800" * 99 + "x"),
        ({"required": [LONG]}, {}),
        ({"additionalProperties": False}, {f"{i}{LONG}": 1 for i in range(20)}),
        ({"additionalProperties": {"type": "null"}}, {LONG: 1}),
        ({"dependentRequired": {"a": [LONG]}}, {"a": 1}),
        ({"items": {"anyOf": [{"maxLength": 1}, {"type": "null"}]}}, [LONG]),
        ({"items": {"oneOf": [True, True]}}, [LONG]),
        ({"items": False}, ["\n" * 50] * 9999),
        ({"minimum": 10**300}, 10**299),
    ],
)
def test_the_line_is_short_and_one(schema: Any, answer: Any) -> None:
    line = mismatch(schema, answer) or ""
    assert line.startswith("$")
    assert len(line) <= MAX_TEXT
    assert line.isprintable()
    assert line.encode()


@pytest.mark.slow
def test_a_long_text_is_not_put_into_every_message() -> None:
    # It would be 13,000 times five megabytes.
    line = mismatch({"anyOf": [{"type": "null"}] * 13_000}, "x" * 5_000_000)
    assert line == f"$: '{'x' * 60}...' is not of type 'null'"


def test_a_long_path_is_cut_in_the_middle() -> None:
    schema = {"additionalProperties": {"$ref": "#"}, "type": "object"}
    levels = MAX_NESTING // 2 - 1
    line = check(schema).mismatch('{"a name":' * levels + "1" + "}" * levels) or ""
    assert line.startswith("$['a name']['a name']")
    assert line.endswith("['a name']['a name']: 1 is not of type 'object'")
    assert len(line.partition(":")[0]) == 123


def test_a_line_has_300_characters_at_most() -> None:
    line = mismatch({"properties": {"a" * 50: {"enum": ["x" * 100] + [f"{i}" * 60 for i in range(9)]}}}, {"a" * 50: 1})
    assert line is not None
    assert len(line) == 300
    assert line.endswith("...")


def test_a_line_names_eight_of_the_allowed_values() -> None:
    line = mismatch({"enum": list(range(100, 120))}, 1)
    assert line == "$: 1 is not one of 100, 101, 102, 103, 104, 105, 106, 107"


def test_a_line_says_why_of_three_alternatives() -> None:
    types = ["string", "null", "array", "object", "boolean"]
    line = mismatch({"anyOf": [{"type": name} for name in types]}, 1)
    assert line == "$: 1 is not of type 'string'; 1 is not of type 'null'; 1 is not of type 'array'"


@pytest.mark.slow
def test_errors_that_do_not_count_against_an_answer_are_steps_too() -> None:
    wanted = {"allOf": [{"type": "string"}] * 8}
    assert mismatch({"contains": wanted, "minContains": 0}, [1] * 7_000) is None
    with pytest.raises(Uncheckable, match="too many steps"):
        mismatch({"contains": wanted, "minContains": 0}, [1] * 12_000)
