"""Tools in one schema: what a call of one of them looks like."""

from __future__ import annotations

import itertools
import json
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openai_compat.structured.call_schema import calls_schema, memory
from openai_compat.wire.json import encode


def embedded(*parameters: Any) -> dict[str, Any]:
    """The whole, for tools named ``f0``, ``f1``, …; text is taken as it is."""
    texts = [given if isinstance(given, bytes) else json.dumps(given).encode() for given in parameters]
    return calls_schema([(f"f{i}", text) for i, text in enumerate(texts)])


ANYTHING = ["object", "array", "string", "number", "boolean", "null"]


def plain(schema: Any) -> Any:
    """A schema without the types that say no more than "anything"."""
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in schema.items() if (key, value) != ("type", ANYTHING)}
    return [plain(value) for value in schema] if isinstance(schema, list) else schema


def of(parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of the only tool, and the definitions."""
    schema = plain(embedded(parameters))
    return schema["anyOf"][0]["properties"]["parameters"], schema.get("$defs", {})


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ({}, {"type": ANYTHING}),
        (True, {"type": ANYTHING}),
        ({"title": "X"}, {"type": ANYTHING, "title": "X"}),
        ({"$ref": "https://example.com/x"}, {"type": ANYTHING}),
        ({"enum": [1]}, {"enum": [1]}),
        ({"type": "string"}, {"type": "string"}),
        ({"anyOf": [{}, {"const": 1}]}, {"anyOf": [{"type": ANYTHING}, {"const": 1}]}),
        ({"items": {}}, {"items": {"type": ANYTHING}}),
    ],
)
def test_what_may_be_anything_says_so(part: Any, written: Any) -> None:
    """What makes a grammar takes ``{}`` for an object, and refuses a schema that says neither type nor values."""
    schema = embedded({"type": "object", "properties": {"p": part}})
    assert schema["anyOf"][0]["properties"]["parameters"]["properties"]["p"] == written


def inside(part: Any) -> Any:
    """What becomes of a part within an object, where nothing is referred to."""
    parameters, definitions = of({"type": "object", "properties": {"p": part}})
    assert definitions == {}
    return parameters["properties"].get("p", "absent")


def references(schema: Any) -> Iterator[str]:
    """Every ``$ref``, wherever it stands: whoever makes a grammar of it looks everywhere."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_a_call_of_one_of_the_tools() -> None:
    text = encode(calls_schema([("a", b'{"type":"object","properties":{"x":{"type":"integer"}}}'), ("b", b"")]))
    assert text == (
        b'{"anyOf":['
        b'{"type":"object","properties":{"name":{"const":"a"},'
        b'"parameters":{"type":"object","properties":{"x":{"type":"integer"}}}},'
        b'"required":["name","parameters"],"additionalProperties":false},'
        b'{"type":"object","properties":{"name":{"const":"b"},"parameters":{"type":"object"}},'
        b'"required":["name","parameters"],"additionalProperties":false}'
        b"]}"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"true",
        b'"x"',
        b"{",
        b"{} {}",
        b"\xff",
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"type":"object","maxProperties":1e400}',
        b'{"type":"object","maxProperties":1' + b"0" * 290 + b"e50}",
        b"{}",
        b'{"foo":"bar"}',
        b'{"description":"nothing"}',
        b'{"type":"string"}',
        b'{"type":["string","null"]}',
        b'{"type":5,"properties":{}}',
        b'{"enum":[1]}',
        b'{"$ref":"https://a.example/b"}',
        b'{"$ref":"#"}',
        b'{"$ref":"#/$defs/a","$defs":{"a":true}}',
        b'{"$ref":"#/$defs/a","$defs":{"a":false}}',
        b'{"anyOf":[false]}',
        b'{"type":"object"}',
        b'{"type":"object","$schema":"https://json-schema.org/draft/2020-12/schema","$id":"x:y","$defs":{}}',
    ],
)
def test_parameters_that_say_nothing(text: bytes) -> None:
    assert of(text) == ({"type": "object"}, {})


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (b'{"properties":{"a":{"type":"null"}}}', b'{"type":"object","properties":{"a":{"type":"null"}}}'),
        (b'{"type":null,"required":["a"]}', b'{"type":"object","required":["a"]}'),
        (b'{"a":1,"type":["null","object"],"b":2}', b'{"a":1,"type":"object","b":2}'),
        (b'{"oneOf":[{"type":"object"}],"title":"T"}', b'{"oneOf":[{"type":"object"}],"title":"T"}'),
        (
            b'{"b":1.0,"type":"object","a":1e2,"c":123456789012345678901234567890}',
            b'{"b":1.0,"type":"object","a":100.0,"c":123456789012345678901234567890}',
        ),
    ],
)
def test_parameters_become_the_schema_of_an_object(given: bytes, written: bytes) -> None:
    parameters, definitions = of(given)
    assert encode(parameters) == written
    assert definitions == {}


def test_definitions_of_one_name_in_two_tools() -> None:
    def tool(value: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"const": value}}}

    schema = embedded(tool("x"), tool("y"))
    assert [call["properties"]["parameters"]["properties"] for call in schema["anyOf"]] == [
        {"a": {"$ref": "#/$defs/tool-0-0"}},
        {"a": {"$ref": "#/$defs/tool-1-0"}},
    ]
    assert schema["$defs"] == {"tool-0-0": {"const": "x"}, "tool-1-0": {"const": "y"}}


def test_names_cannot_collide() -> None:
    """Nor once every character but letters, digits and hyphens has become a hyphen, as in names of rules."""
    names = ["tool-0-0", "tool-1-0", "a b", "a-b", "a.b", "string", "root"]
    part = {
        "properties": {name: {"$ref": f"#/$defs/{name}"} for name in names},
        "$defs": {n: {"const": n} for n in names},
    }
    schema = embedded(*[part] * 12)
    assert len(schema["$defs"]) == 12 * len(names)
    for call in schema["anyOf"]:
        for name, reference in call["properties"]["parameters"]["properties"].items():
            assert schema["$defs"][reference["$ref"].removeprefix("#/$defs/")] == {"const": name}


@pytest.mark.parametrize(
    "pointer",
    [
        "#/$defs/a",
        "#/definitions/a",
        "#/%24defs/a",
        "#/$defs/%61",
        "#/$defs/x~1y~0z%25",
        "#/$defs/x%2Fy",
        "#/$defs/~01",
        "#/$defs/deep/properties/y",
        "#/$defs/deep/anyOf/1",
        "#/properties/in/$defs/a",
        "#/properties/in/items",
        "#/components/schemas/a",
    ],
)
def test_a_pointer_of_any_kind(pointer: str) -> None:
    it = {"const": "it"}
    tool = {
        "type": "object",
        "properties": {
            "p": {"$ref": pointer, "description": "d"},
            "in": {"type": "array", "$defs": {"a": it}, "items": it},
        },
        "$defs": {
            "a": it,
            "x/y~z%": it,
            "~1": it,
            "deep": {"properties": {"y": it}, "anyOf": [{}, it]},
            "x": {"y": it},
        },
        "definitions": {"a": it},
        "components": {"schemas": {"a": it}},
    }
    parameters, definitions = of(tool)
    assert parameters["properties"]["p"] == {"$ref": "#/$defs/tool-0-0", "description": "d"}
    assert definitions == {"tool-0-0": it}
    assert "$defs" not in parameters
    assert "definitions" not in parameters
    assert "$defs" not in parameters["properties"]["in"]


def test_the_root_as_a_definition() -> None:
    tool = {"properties": {"kids": {"items": {"$ref": "#"}}, "a": {"const": 1}, "b": {"$ref": "#/properties/a"}}}
    assert of(tool) == (
        {"$ref": "#/$defs/tool-0-1"},
        {
            "tool-0-1": {
                "type": "object",
                "properties": {
                    "kids": {"items": {"$ref": "#/$defs/tool-0-1"}},
                    "a": {"$ref": "#/$defs/tool-0-0"},
                    "b": {"$ref": "#/$defs/tool-0-0"},
                },
            },
            "tool-0-0": {"const": 1},
        },
    )


def test_a_root_that_is_a_reference() -> None:
    tool = {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}}}
    assert of(tool) == (
        {"$ref": "#/$defs/tool-0-0"},
        {"tool-0-0": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tool-0-0"}}}},
    )


def test_a_definition_that_nothing_refers_to_is_left_out() -> None:
    used = {"properties": {"b": {"$ref": "#/$defs/B"}}}
    tool = {
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"Z": {"$ref": "#/$defs/Y"}, "A": used, "B": {"const": 1}},
    }
    assert of(tool)[1] == {
        "tool-0-0": {"properties": {"b": {"$ref": "#/$defs/tool-0-1"}}},
        "tool-0-1": {"const": 1},
    }


@pytest.mark.parametrize(
    "reference",
    [
        "https://a.example/b",
        "http://127.0.0.1/#/$defs/a",
        "file:///etc/passwd",
        "#name",
        "a",
        "",
        "#/$defs/none",
        "#/type/a",
        "#/required/1",
        "#/required/x",
        "#/required/" + "9" * 5000,
        "#/required/0",
        "#/properties/p",
        5,
        None,
        ["#"],
    ],
)
def test_a_reference_that_leads_nowhere_allows_anything(reference: Any) -> None:
    tool = {"type": "object", "properties": {"p": {"$ref": reference, "title": "T"}}, "required": ["p"]}
    assert of(tool)[0]["properties"] == {"p": {}}


def test_references_in_a_circle_allow_anything() -> None:
    circle = {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}
    assert of({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": circle})[0]["properties"] == {"a": {}}


def test_a_chain_of_references() -> None:
    tool = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "null"}}}
    assert of(tool) == (
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/tool-0-0"}}},
        {"tool-0-0": {"$ref": "#/$defs/tool-0-1"}, "tool-0-1": {"type": "null"}},
    )


REFERENCE = {"$ref": "#/$defs/A"}


@pytest.mark.parametrize("word", ["const", "default", "x-of-somebody", "title"])
def test_a_reference_in_data_is_data(word: str) -> None:
    part = {"type": "object", word: {"$ref": "#/$defs/A", "a": [REFERENCE, True]}}
    assert inside(part) == part


@pytest.mark.parametrize("word", ["enum", "examples", "required"])
def test_a_reference_in_a_list_of_data_is_data(word: str) -> None:
    part = {word: [REFERENCE, True]}
    assert inside(part) == part


def test_a_property_may_be_named_like_a_keyword() -> None:
    names = ["$ref", "$defs", "definitions", "enum", "default", "anyOf", "properties", "$id", "$schema"]
    part = {"properties": {name: {"type": "null"} for name in names}}
    assert inside(part) == part


@pytest.mark.parametrize(
    "part",
    [
        {"properties": {"a": REFERENCE}},
        {"patternProperties": {"a": REFERENCE}},
        {"dependentSchemas": {"a": REFERENCE}},
        {"dependencies": {"a": REFERENCE, "b": ["c"]}},
        {"items": REFERENCE},
        {"items": [REFERENCE]},
        {"prefixItems": [{"type": "null"}, REFERENCE]},
        {"additionalProperties": REFERENCE},
        {"additionalItems": REFERENCE},
        {"unevaluatedProperties": REFERENCE},
        {"unevaluatedItems": REFERENCE},
        {"contains": REFERENCE},
        {"propertyNames": REFERENCE},
        {"not": REFERENCE},
        {"if": REFERENCE, "then": REFERENCE, "else": REFERENCE},
        {"anyOf": [REFERENCE, {"type": "null"}]},
        {"oneOf": [REFERENCE]},
        {"allOf": [REFERENCE]},
        {"contentSchema": REFERENCE},
        {"items": {"items": {"anyOf": [{"properties": {"b": REFERENCE}}]}}},
    ],
)
def test_wherever_a_schema_may_stand(part: dict[str, Any]) -> None:
    parameters, definitions = of({"properties": {"p": part}, "$defs": {"A": {"const": 1}}})
    expected = json.dumps(part).replace("#/$defs/A", "#/$defs/tool-0-0")
    assert json.dumps(parameters["properties"]["p"]) == expected
    assert definitions == {"tool-0-0": {"const": 1}}


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (True, {}),
        (False, "absent"),
        ("x", {}),
        (None, {}),
        ({"items": True}, {"items": {}}),
        ({"items": False}, {}),
        ({"items": [True, False, {"type": "null"}]}, {"items": [{}, {}, {"type": "null"}]}),
        ({"prefixItems": []}, {}),
        ({"anyOf": [True, False]}, {"anyOf": [{}]}),
        ({"anyOf": [False, {"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        ({"oneOf": [False], "type": "null"}, {"type": "null"}),
        ({"anyOf": []}, {}),
        ({"allOf": {}}, {}),
        ({"enum": []}, {}),
        ({"properties": []}, {}),
        ({"properties": None, "type": "object"}, {"type": "object"}),
        ({"not": True, "then": False}, {"not": {}}),
        ({"additionalProperties": False, "unevaluatedItems": False}, None),
        ({"additionalProperties": True, "unevaluatedProperties": True}, None),
        ({"additionalProperties": {}}, {"additionalProperties": True}),
        ({"additionalProperties": {"$ref": "x:y"}}, {"additionalProperties": True}),
    ],
)
def test_what_cannot_be_said_allows_more(part: Any, written: Any) -> None:
    assert inside(part) == (part if written is None else written)


def test_a_definition_that_is_false_or_true() -> None:
    tool = {
        "properties": {"a": {"$ref": "#/$defs/no"}, "b": {"$ref": "#/$defs/yes"}, "c": {"$ref": "#/$defs/alias"}},
        "$defs": {"no": False, "yes": True, "alias": {"$ref": "#/$defs/no"}},
    }
    assert of(tool) == (
        {"type": "object", "properties": {"b": {}, "c": {"$ref": "#/$defs/tool-0-0"}}},
        {"tool-0-0": {}},
    )


def test_what_is_given_back_is_the_callers() -> None:
    tools = [b"", {"properties": {"a": True, "b": {"$ref": "#/properties/c"}, "c": {"$ref": "#/no"}, "no": False}}]
    tools.append({"properties": {"a": {"items": [False]}}})
    first = embedded(*tools)
    before = json.dumps(first)
    for part in walk(first):
        part["more"] = 1
    assert json.dumps(embedded(*tools)) == before


def test_a_reference_to_an_object_of_schemas_does_not_change_it() -> None:
    properties = {"$defs": {"type": "null"}, "items": {"items": True}, "enum": {"const": 1}}
    parameters, definitions = of({"properties": {**properties, "x": {"$ref": "#/properties"}}})
    assert parameters["properties"] == {**properties, "items": {"items": {}}, "x": {"$ref": "#/$defs/tool-0-0"}}
    assert "$defs" not in definitions["tool-0-0"]


# -- hostile schemas --------------------------------------------------------------------------

SHAPES: dict[str, Callable[[int], str]] = {
    "properties": lambda i: f'"p{i}":{{}}',
    "properties with a type": lambda i: f'"p{i}":{{"type":"string"}}',
    "true properties": lambda i: f'"p{i}":true',
    "references": lambda i: f'"p{i}":{{"$ref":"#/x{i}"}}',
    "references to the next": lambda i: f'"p{i}":{{"$ref":"#/properties/p{i + 1}"}}',
    "nested": lambda i: f'"p{i}":{{"items":{{}}}}',
    "alternatives": lambda i: f'"p{i}":{{"anyOf":[{{}},{{}},{{}},true,true]}}',
    "enums": lambda i: f'"p{i}":{{"enum":["v{i}",1.5,[],{{"a":1}}]}}',
    "text": lambda i: f'"p{i}":{{"type":"string","description":"{"text, " * 20}"}}',
}


@pytest.mark.slow
@pytest.mark.parametrize("around", ['{"properties":{%s}}', '{"type":"object",%s}', '{"anyOf":[{"properties":{%s}}]}'])
@pytest.mark.parametrize("name", SHAPES)
def test_memory_stays_below_what_is_estimated_from_the_text(name: str, around: str) -> None:
    text = (around % ",".join(map(SHAPES[name], range(5000)))).encode()
    tracemalloc.start()
    try:
        encode(calls_schema([("f", text)]))
        assert tracemalloc.get_traced_memory()[1] < memory(text) + 65536
    finally:
        tracemalloc.stop()


def test_what_is_referred_to_is_written_once() -> None:
    """Or else sixty levels, each referred to, would be sixty times their innermost."""
    part: Any = {"enum": ["x" * 100] * 100}
    pointers = [""]
    for _ in range(28):
        part = {"properties": {"a": part}}
        pointers.append(f"{pointers[-1]}/properties/a")
    tool = {**part, "anyOf": [{"$ref": f"#{pointer}"} for pointer in pointers]}
    assert len(encode(embedded(tool))) < 2 * len(encode(tool))


@pytest.mark.slow
def test_many_references_through_a_long_chain() -> None:
    chain = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(10_000)}
    tool = {"properties": chain, "$defs": {**chain, "10000": {"type": "null"}}}
    parameters, definitions = of(tool)
    assert parameters["properties"]["0"] == {}  # too far to be followed
    assert parameters["properties"]["9999"] == {"$ref": f"#/$defs/{list(definitions)[-1]}"}


def test_a_thread_with_a_small_stack_survives() -> None:
    made: list[Any] = []
    texts = [b'{"items":' * 64 + b"{}" + b"}" * 64, b'{"properties":' * 64 + b"{}" + b"}" * 64, b"[" * 100_000]
    texts.append(b'{"$ref":"#","allOf":[' * 32 + b"{}" + b"]}" * 32)

    def run() -> None:
        for text in texts:
            made.append(encode(embedded(text)))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(made) == len(texts)


@pytest.mark.slow
def test_any_json_can_be_embedded() -> None:
    """Whatever stands where: a schema comes out, and each of its references leads to a definition."""
    made = random.Random(1)
    words = ["$ref", "$ref", "$defs", "definitions", "properties", "items", "anyOf", "allOf", "additionalProperties"]
    words += ["not", "dependencies", "prefixItems", "type", "a"]
    leaves: list[Any] = [True, False, None, 0, "object", "#/a", "x:y", {}, []]
    pointers = ["#", "#/properties/a", "#/$defs/a", "#/items", "#/$defs/a/items", "#/properties/a/anyOf/0"]

    def value(depth: int, word: str = "") -> Any:
        kind = made.randint(0, 9)
        if word == "$ref" and kind:
            return made.choice(pointers)
        if kind < 6 and depth:
            chosen = [made.choice(words) for _ in range(made.randint(0, 4))]
            return {word: value(depth - 1, word) for word in chosen}
        if kind < 8 and depth:
            return [value(depth - 1) for _ in range(made.randint(0, 3))]
        return made.choice(leaves)

    found = 0
    for _ in range(2000):
        tool = {"type": "object", "properties": {"a": value(4)}, "$defs": {"a": value(4)}, "items": value(3)}
        schema = embedded(tool)
        encode(schema)
        for call in schema["anyOf"]:
            assert isinstance(call["properties"]["parameters"], dict)
        for part in walk(schema):
            if isinstance(part.get("$ref"), str):
                assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
                found += 1
    assert found > 500


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas in a schema that was written."""
    assert isinstance(schema, dict)
    yield schema
    for word, value in [*schema.items()]:
        if word in ("properties", "$defs"):
            for part in [*value.values()]:
                yield from walk(part)
        elif word in ("anyOf", "allOf", "prefixItems") or word == "items" and isinstance(value, list):
            assert value
            for part in value:
                yield from walk(part)
        elif word in ("items", "not") or word == "additionalProperties" and not isinstance(value, bool):
            yield from walk(value)


# -- a validator's verdict --------------------------------------------------------------------

TREE = {
    "$defs": {
        "Kind": {"enum": ["leaf", "node"]},
        "Node": {
            "properties": {
                "kind": {"$ref": "#/$defs/Kind"},
                "kids": {"items": {"$ref": "#/$defs/Node"}, "type": "array"},
                "of": {"$ref": "#"},
            },
            "required": ["kind"],
            "additionalProperties": False,
            "type": "object",
        },
    },
    "properties": {
        "top": {"$ref": "#/$defs/Node"},
        "by": {"additionalProperties": {"anyOf": [{"$ref": "#/$defs/Node/properties/kids"}, {"type": "null"}]}},
    },
    "required": ["top"],
    "type": "object",
}
LEAF = {"kind": "leaf"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"top": LEAF},
        {"top": {"kind": "node", "kids": [LEAF, {"kind": "node", "kids": [LEAF], "of": {"top": LEAF}}]}},
        {"top": LEAF, "by": {"a": None, "b": [], "c": [LEAF]}},
        {},
        {"top": {"kind": "x"}},
        {"top": {"kind": "node", "kids": [{"kind": "leaf", "more": 1}]}},
        {"top": {"kind": "node", "of": {}}},
        {"top": LEAF, "by": {"a": 1}},
        {"top": LEAF, "by": {"a": [{"kind": 1}]}},
        [],
    ],
)
def test_a_call_is_valid_if_its_arguments_are(arguments: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = jsonschema.Draft202012Validator(embedded({"type": "object"}, TREE))
    verdict = jsonschema.Draft202012Validator(TREE).is_valid(arguments)
    assert whole.is_valid({"name": "f1", "parameters": arguments}) == verdict
    assert not whole.is_valid({"name": "f2", "parameters": arguments})
    assert not whole.is_valid({"name": "f1", "parameters": arguments, "more": 1})


def test_the_schemas_of_pydantic_s_models_keep_their_meaning() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pydantic = pytest.importorskip("pydantic")
    leaf: Any = pydantic.create_model("Leaf", x=(int, ...))
    for first, second in itertools.permutations(["Leaf", "Other"], 2):
        tools = []
        for title, kind in ((first, str), (second, int)):
            inner: Any = pydantic.create_model("Leaf", x=(kind, ...))
            tools.append(pydantic.create_model(title, a=(inner, ...), b=(list[inner], []), c=(leaf | None, None)))
        schema = embedded(*[tool.model_json_schema() for tool in tools])
        assert set(references(schema)) == {f"#/$defs/{name}" for name in schema["$defs"]}
        whole = jsonschema.Draft202012Validator(schema)
        assert whole.is_valid({"name": "f0", "parameters": {"a": {"x": "s"}, "b": [{"x": "t"}], "c": {"x": 1}}})
        assert not whole.is_valid({"name": "f0", "parameters": {"a": {"x": 1}}})
        assert whole.is_valid({"name": "f1", "parameters": {"a": {"x": 1}, "c": None}})
        assert not whole.is_valid({"name": "f1", "parameters": {"a": {"x": "s"}}})


@pytest.mark.parametrize(("hops", "is_followed"), [(31, True), (32, False), (1000, False)])
def test_a_chain_of_references_is_followed_for_32_hops(hops: int, is_followed: bool) -> None:
    chain: dict[str, Any] = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(hops)}
    tool = {"properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": {**chain, str(hops): {"type": "null"}}}
    parameters, _ = of(tool)
    assert bool(parameters["properties"]["a"]) is is_followed
