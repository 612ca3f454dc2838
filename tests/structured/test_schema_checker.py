"""Answers against a client's schema: right about ordinary ones, and unharmed by any other."""

from __future__ import annotations

import json
import random
import socket
import sys
from typing import Any

import pytest
from msgspec import Raw

from openai_compat.structured import schema_checker as schemas
from openai_compat.structured import schema_evaluation as evaluation
from openai_compat.structured.schema_checker import MAX_SIZE, Checker, Uncheckable, checker

jsonschema = pytest.importorskip("jsonschema")


def check(schema: Any) -> Checker:
    return checker(json.dumps(schema).encode())


def mismatch(schema: Any, answer: Any) -> str | None:
    return check(schema).mismatch(json.dumps(answer))


# -- ordinary schemas: the library's own verdict ----------------------------------------------

#: as pydantic writes them
ORDER = {
    "$defs": {
        "Address": {
            "additionalProperties": False,
            "properties": {
                "street": {"title": "Street", "type": "string", "minLength": 1},
                "country": {"$ref": "#/$defs/Country"},
                "unit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "title": "Unit"},
            },
            "required": ["street", "country"],
            "title": "Address",
            "type": "object",
        },
        "Country": {"enum": ["de", "fr", "jp"], "title": "Country", "type": "string"},
        "Card": {
            "properties": {"kind": {"const": "card"}, "number": {"type": "string"}},
            "required": ["kind", "number"],
        },
        "Cash": {"properties": {"kind": {"const": "cash"}, "change": {"type": "number"}}, "required": ["kind"]},
        "Item": {
            "properties": {
                "name": {"type": "string"},
                "count": {"type": "integer", "exclusiveMinimum": 0, "maximum": 99},
                "parts": {"items": {"$ref": "#/$defs/Item"}, "type": "array", "default": []},
            },
            "required": ["name", "count"],
            "type": "object",
        },
    },
    "properties": {
        "items": {"items": {"$ref": "#/$defs/Item"}, "maxItems": 3, "minItems": 1, "type": "array"},
        "to": {"$ref": "#/$defs/Address", "description": "Where it goes."},
        "bill": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
        "pay": {
            "discriminator": {"mapping": {"card": "#/$defs/Card", "cash": "#/$defs/Cash"}, "propertyName": "kind"},
            "oneOf": [{"$ref": "#/$defs/Card"}, {"$ref": "#/$defs/Cash"}],
        },
        "size": {
            "maxItems": 2,
            "minItems": 2,
            "prefixItems": [{"type": "number"}, {"type": "number"}],
            "type": "array",
        },
        "notes": {"additionalProperties": {"type": "string"}, "type": "object"},
        "tags": {"items": {"type": "string"}, "type": "array", "uniqueItems": True},
    },
    "required": ["items", "to", "pay"],
    "title": "Order",
    "type": "object",
}
HOME = {"street": "a", "country": "de"}
GOOD: dict[str, Any] = {"items": [{"name": "a", "count": 1}], "to": HOME, "pay": {"kind": "cash"}}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, None),
        ({"bill": HOME, "size": [1, 2.5], "notes": {"a": "b"}, "tags": ["a", "b"], "more": 1}, None),
        ({"items": [{"name": "a", "count": 1, "parts": [{"name": "b", "count": 2, "parts": []}]}]}, None),
        ({"bill": None}, None),
        ({"pay": {"kind": "card", "number": "1"}}, None),
        ({"items": []}, "$.items: an array should be non-empty"),
        ({"items": [{"name": "a", "count": 1}] * 4}, "$.items: an array is too long"),
        ({"items": [{"name": "a"}]}, "$.items[0]: 'count' is a required property"),
        ({"items": [{"name": "a", "count": 0}]}, "$.items[0].count: 0 is less than or equal to the minimum of 0"),
        ({"items": [{"name": "a", "count": 1.5}]}, "$.items[0].count: 1.5 is not of type 'integer'"),
        (
            {"items": [{"name": "a", "count": 1, "parts": [{"name": None, "count": 1}]}]},
            "$.items[0].parts[0].name: null is not of type 'string'",
        ),
        ({"to": {**HOME, "x y": 1}}, "$.to: additional properties are not allowed: 'x y'"),
        ({"to": {**HOME, "country": "uk"}}, '$.to.country: \'uk\' is not one of "de", "fr", "jp"'),
        ({"to": {**HOME, "unit": "1"}}, "$.to.unit: '1' is not of type 'integer'; '1' is not of type 'null'"),
        ({"bill": {"street": "a"}}, "$.bill: 'country' is a required property"),
        ({"bill": True}, "$.bill: true is not of type 'object'; true is not of type 'null'"),
        ({"pay": {"kind": "card"}}, "$.pay: 'number' is a required property"),
        ({"pay": {"kind": "cash", "change": "1"}}, "$.pay.change: '1' is not of type 'number'"),
        ({"pay": {"kind": "card", "number": 1}}, "$.pay.number: 1 is not of type 'string'"),
        ({"size": [1, "2"]}, "$.size[1]: '2' is not of type 'number'"),
        ({"notes": {"a b": 1}}, "$.notes['a b']: 1 is not of type 'string'"),
        ({"tags": ["a", "a"]}, "$.tags: an array has items that are equal"),
    ],
)
def test_a_schema_of_pydantic(change: dict[str, Any], line: str | None) -> None:
    answer = {**GOOD, **change}
    assert mismatch(ORDER, answer) == line
    assert jsonschema.Draft202012Validator(ORDER).is_valid(answer) == (line is None)


def test_the_schemas_of_pydantic_s_models_are_checked() -> None:
    pydantic = pytest.importorskip("pydantic")
    leaf: Any = pydantic.create_model("Leaf", x=(int | None, None), y=(list[str], ...))
    one_or_other: Any = leaf | str | None
    model = pydantic.create_model("Tree", left=(leaf, ...), right=(one_or_other, None), by=(dict[str, leaf], {}))
    checks = check(model.model_json_schema())
    assert checks.unevaluated == ()
    assert checks.mismatch('{"left": {"y": []}, "right": {"x": 1, "y": ["a"]}, "by": {"k": {"y": ["b"]}}}') is None
    assert checks.mismatch('{"left": {"y": [1]}}') == "$.left.y[0]: 1 is not of type 'string'"
    assert checks.mismatch('{"left": {"y": []}, "right": 1}') == (
        "$.right: 1 is not of type 'object'; 1 is not of type 'string'; 1 is not of type 'null'"
    )


# -- the copy ---------------------------------------------------------------------------------

UNSEEN = {"pattern": "(a+)+$"}
EVIL = "a" * 64 + "!"  # what that pattern never ends with


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "string", "pattern": "(a+)+$", "format": "regex"}, ("format", "pattern")),
        ({"patternProperties": {"(a+)+$": {}}}, ("patternProperties",)),
        (
            {"patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
            ("additionalProperties", "patternProperties"),
        ),
        ({"unevaluatedProperties": False, "unevaluatedItems": False}, ("unevaluatedItems", "unevaluatedProperties")),
        (
            {"allOf": [{"patternProperties": {"(": {}}}], "unevaluatedProperties": False},
            ("patternProperties", "unevaluatedProperties"),
        ),
        ({"dependencies": {"a": ["b"]}}, ("dependencies",)),
        ({"pattern": 5, "format": 5, "patternProperties": 5}, ("format", "pattern", "patternProperties")),
        ({"$defs": {"a": UNSEEN}, "properties": {"pattern": {"default": UNSEEN}}}, ()),
    ],
)
def test_patterns_are_listed_and_not_compiled(schema: Any, names: tuple[str, ...]) -> None:
    checks = check(schema)
    assert checks.unevaluated == names
    assert checks.mismatch(json.dumps(EVIL)) is None
    assert (checks.mismatch(json.dumps({EVIL: 1, "a": 1})) is None) == ("type" not in schema)


@pytest.mark.slow
def test_a_schema_that_says_nothing_costs_nothing() -> None:
    for words in ({}, {"title": 5}, {"then": False, "else": 5, "minContains": 0}):
        assert schemas._Copy(words).schema is True
    assert mismatch({"items": {"description": "anything"}}, [1] * 300_000) is None


# -- hostile schemas --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (b"", "the schema is not JSON"),
        (b"{", "the schema is not JSON"),
        (b"\xff", "the schema is not JSON"),
        (b'{"minimum": NaN}', "the schema is not JSON"),
        (b'{"minimum": 1e400}', "the schema is not JSON"),
        (b'{"minimum": 1' + b"0" * 5000 + b"}", "the schema is not JSON"),
        (b'{"title": "' + b"x" * MAX_SIZE + b'"}', "the schema is too large"),
        (b'{"items":' * 64 + b"{}" + b"}" * 64, "the schema is nested too deep"),
        (b"[" * 100_000, "the schema is nested too deep"),
        (b"null", "neither an object nor a boolean"),
        (b'"x"', "neither an object nor a boolean"),
        (b'{"items": [{}]}', "neither an object nor a boolean"),
        (b'{"items": 5}', "neither an object nor a boolean"),
        (b'{"allOf": [5]}', "neither an object nor a boolean"),
        (b'{"properties": {"a": 5}}', "neither an object nor a boolean"),
    ],
)
def test_what_is_no_schema(schema: bytes, reason: str) -> None:
    with pytest.raises(Uncheckable, match=reason):
        checker(schema)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("type", 5),
        ("type", "x"),
        ("type", []),
        ("type", [5]),
        ("type", ["string"] * 20_000),
        ("type", {"a": 1}),
        ("properties", []),
        ("dependentSchemas", 5),
        ("minimum", "x"),
        ("exclusiveMinimum", True),
        ("maxLength", -1),
        ("minItems", 1.5),
        ("minProperties", True),
        ("multipleOf", 0),
        ("required", True),
        ("required", [5]),
        ("dependentRequired", {"a": "b"}),
        ("enum", {}),
        ("uniqueItems", 1),
        ("anyOf", []),
        ("allOf", {}),
        ("oneOf", None),
        ("prefixItems", []),
    ],
)
def test_a_value_that_a_keyword_cannot_have(keyword: str, value: Any) -> None:
    for schema in ({keyword: value}, {"properties": {"a": {"$ref": "#/x"}}, "x": {keyword: value}}):
        with pytest.raises(Uncheckable, match=f"^'{keyword}' has a value in the schema that is not valid$"):
            check(schema)


@pytest.mark.parametrize(
    "reference",
    [
        5,
        None,
        {"a": 1},
        "",
        "a",
        "#a",
        "http://127.0.0.1:1/x",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "urn:x:y",
        "//127.0.0.1/x",
        "#/$defs/none",
        "#/$defs/list/2",
        "#/$defs/list/-1",
        "#/$defs/list/x",
        "#/$defs/list/" + "9" * 5000,
        "#/$defs/list/0/a",
    ],
)
def test_a_reference_to_elsewhere(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(Uncheckable, match=r"a \$ref that"):
        check({"items": {"$ref": reference}, "$defs": {"list": [{}, {}]}})


@pytest.mark.parametrize(
    "part",
    [
        {"$id": "http://a.example/b", "type": "null"},
        {"$id": "file:///etc/passwd", "$ref": "#/a"},
        {"$id": 5},
        {"$dynamicRef": "#a"},
        {"$dynamicRef": "#", "$dynamicAnchor": "a"},
        {"$recursiveRef": "#"},
    ],
)
def test_parts_that_are_found_by_their_names(part: Any) -> None:
    with pytest.raises(Uncheckable, match="is not supported in a schema"):
        check({"items": part})


@pytest.mark.slow
def test_any_json_is_an_answer_or_uncheckable() -> None:
    """Nothing but :class:`Uncheckable` is raised, whatever stands where."""
    made = random.Random(1)
    words = sorted(schemas._KEYWORDS | {"$defs", "$schema", "$anchor", "$dynamicAnchor", "title", "a"})

    def value(depth: int) -> Any:
        kind = made.randint(0, 9)
        if kind < 5 and depth:
            return {made.choice(words): value(depth - 1) for _ in range(made.randint(0, 4))}
        if kind < 7 and depth:
            return [value(depth - 1) for _ in range(made.randint(0, 3))]
        return made.choice([True, False, None, 0, -1, 1.5, "", "string", "#", "#/items", "a", 10**30])

    outcomes = {"refused": 0, "checked": 0}
    for _ in range(3000):
        try:
            checks = check(value(5))
            for _ in range(3):
                assert isinstance(checks.mismatch(json.dumps(value(3))), str | None)
            outcomes["checked"] += 1
        except Uncheckable:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 300


# -- the answer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "$: the answer is not one JSON document: Expecting value (character 0)"),
        ("{} {}", "$: the answer is not one JSON document: Extra data (character 3)"),
        ("```json\n{}\n```", "$: the answer is not one JSON document: Expecting value (character 0)"),
        ('{"a": 1,}', "$: the answer is not one JSON document: "),
        ("{'a': 1}", "$: the answer is not one JSON document: "),
        ('"\n"', "$: the answer is not one JSON document: Invalid control character at (character 1)"),
        ("NaN", "$: the answer holds a number that is not valid or out of range"),
        ("[-Infinity]", "$: the answer holds a number that is not valid or out of range"),
        ("1e400", "$: the answer holds a number that is not valid or out of range"),
        ("-1e400", "$: the answer holds a number that is not valid or out of range"),
        ("1" * 5000, "$: the answer holds a number that is not valid or out of range"),
        ("[" * 65 + "]" * 65, "$: the answer is not one JSON document of at most 64 levels"),
        ("[" * 100_000, "$: the answer is not one JSON document of at most 64 levels"),
        ('{"a":' * 100, "$: the answer is not one JSON document of at most 64 levels"),
    ],
)
def test_what_is_no_answer(text: str, line: str) -> None:
    assert (checker(b"{}").mismatch(text) or "").startswith(line)


@pytest.mark.parametrize("text", ["[" + "{}," * 100_000 + "1]", "[" + "1," * 400_001 + "1]"])
def test_an_answer_of_too_many_values(text: str) -> None:
    with pytest.raises(Uncheckable, match="too many values"):
        checker(b"{}").mismatch(text)


def test_of_two_members_of_one_name_the_last_counts() -> None:
    assert checker(b'{"properties":{"a":{"type":"null"}}}').mismatch('{"a": 1, "a": null}') is None


# -- the checker ------------------------------------------------------------------------------


def test_a_checker_is_shown_without_the_library_s_own_object() -> None:
    assert repr(checker(Raw(b'{"format": "date"}'))) == "Checker(unevaluated=('format',))"


@pytest.mark.parametrize("package", ["jsonschema", "referencing"])
def test_without_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation.library.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Uncheckable, match="the extra 'schema' is not installed"):
        checker(b"{}")
    monkeypatch.undo()
    assert checker(b"{}").mismatch("1") is None


def test_a_schema_may_have_256_kib() -> None:
    text = b'{"title": "' + b"x" * (262_144 - 13) + b'"}'
    assert len(text) == 262_144
    assert checker(text).mismatch("1") is None
    with pytest.raises(Uncheckable, match="the schema is too large"):
        checker(text + b" ")
