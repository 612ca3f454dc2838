"""Schemas as the native side can read them: exactly what it cannot read is rewritten, in the text."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.translate.native_schema import format_schema, tool_parameters

Rewrite = Callable[[bytes, str], bytes]

NESTED = b'{"type":"object","properties":{"p":%s}}'


def error(rewrite: Rewrite, schema: bytes) -> APIError:
    with pytest.raises(APIError) as raised:
        rewrite(schema, "tools[0].function.parameters")
    return raised.value


# -- tools ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (b'{"properties":{"x":true}}', b'{"properties":{"x":{}}}'),
        (b'{"properties":{"x":false}}', b'{"properties":{}}'),
        (b'{"properties":{"x": false ,"y":1e5}}', None),
        (b'{"properties":{"a":{}, "x": false , "b":{}}}', b'{"properties":{"a":{} , "b":{}}}'),
        (b'{"properties":{ "x":false , "y":false, "b":{ } }}', b'{"properties":{ "b":{ } }}'),
        (b'{"properties":{"b":{},"x":false,"y":false}}', b'{"properties":{"b":{}}}'),
        (b'{"properties": [ ] }', b'{"properties": {} }'),
        (b'{"type":["object","null"],"x":1.0}', b'{"type":"object","x":1.0}'),
        (b'{"type": ["null"]}', b'{"type": "object"}'),
        (b'{"type":[]}', b'{"type":"object"}'),
        (b'{"PROPERTIES":{"x":true},"Type":[]}', b'{"PROPERTIES":{"x":{}},"Type":"object"}'),
        ('{"propertieſ":{"x":true}}'.encode(), '{"propertieſ":{"x":{}}}'.encode()),
        (b'{"p\\u0072operties":{"x":true}}', b'{"p\\u0072operties":{"x":{}}}'),
        (b'{"properties":{"x":true},"properties":{"x":{}}}', b'{"properties":{"x":{}},"properties":{"x":{}}}'),
        (b" [ ] ", b" {} "),
    ],
)
def test_what_ollama_cannot_decode_in_parameters_is_rewritten(given: bytes, written: bytes | None) -> None:
    if written is None:
        assert error(tool_parameters, given).status == 400
    else:
        assert tool_parameters(given, "p") == written


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (b'{"anyOf":[true,{"type":"null"}]}', b'{"anyOf":[{},{"type":"null"}]}'),
        (b'{"anyOf":[false , {"type":"null"} ,false]}', b'{"anyOf":[{"type":"null"} ]}'),
        (b'{"AnyOf":[false]}', b'{"AnyOf":[]}'),
        (b'{"properties":{"x":true,"y":false}}', b'{"properties":{"x":{}}}'),
        (b'{"properties":[]}', b'{"properties":{}}'),
        (b'{"anyOf":[{"anyOf":[{"properties":{"x":true}}]}]}', b'{"anyOf":[{"anyOf":[{"properties":{"x":{}}}]}]}'),
    ],
)
def test_so_it_is_within_properties_and_any_of(given: bytes, written: bytes) -> None:
    assert tool_parameters(NESTED % given, "p") == NESTED % written


#: keywords whose values Ollama does not decode, or decodes as any value
UNREAD = ["items", "oneOf", "allOf", "not", "if", "$defs", "additionalProperties", "default", "const", "examples"]


@pytest.mark.parametrize("value", [b"true", b"false", b'{"properties":{"x":true}}', b"[true,false]", b"null"])
@pytest.mark.parametrize("keyword", UNREAD)
def test_what_ollama_does_not_read_stays_byte_for_byte(keyword: str, value: bytes) -> None:
    for schema in (b'{"%s": %s}' % (keyword.encode(), value), NESTED % (b'{"%s" :%s}' % (keyword.encode(), value))):
        assert tool_parameters(schema, "p") is schema


@pytest.mark.parametrize(
    "schema",
    [
        b"{}",
        b'{"type":null,"required":null,"properties":null}',
        b'{"anyOf":[true],"enum":"a","description":5}',
        b'{"properties":{"x":null}}',
        b'{"properties":{"x":{"type":null,"required":null,"enum":null,"properties":null,"anyOf":null}}}',
        b'{"properties":{"x":{"type":["string","null"],"enum":[],"required":[]}}}',
        b'{"properties":{"a":{"default":1.0,"x":1e5,"y":12345678901234567890123,"z":"\\u2028\\/"}}, "b" : [ ] }',
        b'{"properties":{"properties":{"type":"string"},"anyOf":{},"true":{},"$ref":{},"\\"}":{}}}',
        b' {"type" : "object"} ',
    ],
)
def test_parameters_that_ollama_decodes_stay_byte_for_byte(schema: bytes) -> None:
    assert tool_parameters(schema, "p") is schema


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (b"true", ""),
        (b"false", ""),
        (b'["object"]', ""),
        (b'"object"', ""),
        (b"5", ""),
        (b'{"required":{}}', ".required"),
        (b'{"required":true}', ".required"),
        (b'{"required":["a",1]}', ".required[1]"),
        (b'{"type":5}', ".type"),
        (b'{"type":["object",{}]}', ".type[1]"),
        (b'{"properties":["a"]}', ".properties"),
        (b'{"properties":"a"}', ".properties"),
        (b'{"properties":{"x":"string"}}', ".properties.x"),
        (b'{"properties":{"x":[]}}', ".properties.x"),
        (b'{"properties":{"x":{"description":5}}}', ".properties.x.description"),
        (b'{"properties":{"x":{"description":["a"]}}}', ".properties.x.description"),
        (b'{"properties":{"x":{"enum":"a"}}}', ".properties.x.enum"),
        (b'{"properties":{"x":{"enum":{}}}}', ".properties.x.enum"),
        (b'{"properties":{"x":{"required":true}}}', ".properties.x.required"),
        (b'{"properties":{"x":{"type":{}}}}', ".properties.x.type"),
        (b'{"properties":{"x":{"anyOf":{}}}}', ".properties.x.anyOf"),
        (b'{"properties":{"x":{"anyOf":[true,false,5]}}}', ".properties.x.anyOf[2]"),
        (b'{"properties":{"x":{"properties":{"y\\u00e4":1}}}}', ".properties.x.properties.y\u00e4"),
        (b'{"properties":{"%s":1}}' % (b"x" * 100), ".properties." + "x" * 64),
    ],
)
@pytest.mark.parametrize("rewrite", [tool_parameters, format_schema])
def test_what_is_no_schema_is_refused_with_its_path(rewrite: Rewrite, schema: bytes, path: str) -> None:
    found = error(rewrite, schema)
    assert (found.status, found.param, found.code) == (400, f"tools[0].function.parameters{path}", "invalid_type")


# -- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (b'{"properties":{"x":true,"y":false,"z":null}}', b'{"properties":{"x":{},"z":{}}}'),
        (b'{"items":true}', b'{"items":{}}'),
        (b'{"type":"array", "items":false}', b'{"type":"array"}'),
        (b'{"prefixItems":[true,false],"items":false}', b'{"prefixItems":[{},{}]}'),
        (b'{"items":[true,{"type":"null"},false]}', b'{"items":[{},{"type":"null"},{}]}'),
        (b'{"anyOf":[true,false]}', b'{"anyOf":[{}]}'),
        (b'{"oneOf":[false,{"type":"null"}]}', b'{"oneOf":[{"type":"null"}]}'),
        (b'{"anyOf":[false],"type":"null"}', b'{"type":"null"}'),
        (b'{"allOf":[true,{"items":true}]}', b'{"allOf":[{"items":{}}]}'),
        (b'{"$defs":{"A":true,"B":false}}', b'{"$defs":{"A":{},"B":{}}}'),
        (b'{"definitions":{"A":{"items":true}}}', b'{"definitions":{"A":{"items":{}}}}'),
        (b'{"additionalProperties":{"properties":{"x":true}}}', b'{"additionalProperties":{"properties":{"x":{}}}}'),
        (b'{"enum": null ,"type":"null"}', b'{"type":"null"}'),
        (b'{"type":"null","enum":[]}', b'{"type":"null"}'),
        (b'{"type":"null","anyOf":[]}', b'{"type":"null"}'),
        (b'{"type":"string","pattern":null,"format":null,"minLength":null}', b'{"type":"string"}'),
        (b'{"properties":[]}', b'{"properties":{}}'),
        (b'{"properties":null,"type":"object"}', b'{"type":"object"}'),
        (b'{"\\u0065num":null}', b"{}"),
    ],
)
def test_what_no_grammar_can_be_made_of_is_rewritten(given: bytes, written: bytes) -> None:
    assert format_schema(given, "p") == written
    assert format_schema(NESTED % given, "p") == NESTED % written


@pytest.mark.parametrize(
    "schema",
    [
        b'{"type":["object","null"]}',
        b'{"type":"object","additionalProperties":true}',
        b'{"type":"object","additionalProperties":false}',
        b'{"not":true,"if":false,"contains":true,"propertyNames":true,"unevaluatedItems":false}',
        b'{"const":null,"default":null,"examples":[true],"enum":[true,null]}',
        b'{"Properties":{"x":true},"ENUM":null}',
        b'{"properties":{"enum":{},"$ref":{"type":"string"}},"x":1.0,"y":1e5,"z":12345678901234567890123}',
        b'{"$ref":"#/$defs/A","$defs":{"A":{"type":"object"}}}',
        b'{"exclusiveMinimum":true,"minimum":1}',
    ],
)
def test_a_format_that_a_grammar_can_be_made_of_stays_byte_for_byte(schema: bytes) -> None:
    assert format_schema(schema, "p") is schema


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (b'{"$defs":{"A":5}}', ".$defs.A"),
        (b'{"$defs":[1]}', ".$defs"),
        (b'{"items":"string"}', ".items"),
        (b'{"items":[1]}', ".items[0]"),
        (b'{"oneOf":{}}', ".oneOf"),
        (b'{"allOf":[1]}', ".allOf[0]"),
        (b'{"additionalProperties":[]}', ".additionalProperties"),
        (b'{"pattern":5}', ".pattern"),
        (b'{"$ref":{}}', ".$ref"),
        (b'{"enum":"a"}', ".enum"),
        (b'{"description":5}', ".description"),
    ],
)
def test_a_format_that_is_no_schema_is_refused_with_its_path(schema: bytes, path: str) -> None:
    assert error(format_schema, schema).param == f"tools[0].function.parameters{path}"


# -- models of the native side ----------------------------------------------------------------


class Pairs(list[tuple[str, Any]]):
    """An object with all its members, also two of one name."""


def is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def are_texts(value: Any) -> bool:
    return value is None or (is_list(value) and all(map(is_text, value)))


def is_list(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs)


def decodes(value: Any, *, root: bool = False) -> bool:
    """Whether Go decodes a value into ``ToolProperty``, or into ``ToolFunctionParameters``."""
    if value is None:
        return True
    if not isinstance(value, Pairs):
        return False
    fields: dict[str, Callable[[Any], bool]] = {
        "type": is_text if root else lambda value: isinstance(value, str) or are_texts(value),
        "required": are_texts,
        "properties": lambda value: (
            value is None or (isinstance(value, Pairs) and all(decodes(part) for _, part in value))
        ),
    }
    if not root:
        fields["description"] = is_text
        fields["enum"] = lambda value: value is None or is_list(value)
        fields["anyof"] = lambda value: value is None or (is_list(value) and all(map(decodes, value)))
    return all(fields[name.lower()](item) for name, item in value if name.lower() in fields)


def makes_a_grammar(schema: Any) -> bool:
    """Whether llama.cpp makes a grammar of a schema, whose keywords have no other faults than ours have."""
    if not isinstance(schema, dict):
        return False
    parts: list[Any] = []
    for keyword in ("anyOf", "oneOf", "allOf", "enum"):
        if keyword in schema:
            if not isinstance(schema[keyword], list) or not schema[keyword]:
                return False
            parts += schema[keyword] if keyword != "enum" else ()
    for keyword in ("properties", "$defs"):
        if keyword in schema:
            if not isinstance(schema[keyword], dict):
                return False
            parts += schema[keyword].values()
    if "items" in schema:
        parts += schema["items"] if isinstance(schema["items"], list) else [schema["items"]]
    if not isinstance(schema.get("additionalProperties", True), bool):
        parts.append(schema["additionalProperties"])
    return all(map(makes_a_grammar, parts))


LITERALS = ["true", "false", "null", "1.0", "1e5", '"s"', '"a\\"]\\\\"', "[]", "{}", '["a"]', "[null]"]
KEYWORDS = ["type", "Type", "properties", "PROPERTIES", "anyOf", "ANYOF", "enum", "description", "required", "items"]
KEYWORDS += ["$defs", "oneOf", "allOf", "not", "additionalProperties", "default", "x"]


def drawn(random: random.Random, depth: int, *, faults: bool) -> str:
    """The text of an object that is nearly a schema."""

    def space() -> str:
        return random.choice(["", "", " ", "\n"])

    def part() -> str:
        return random.choice(LITERALS[:3]) if random.random() < 0.3 or not depth else inner()

    def inner() -> str:
        return drawn(random, depth - 1, faults=faults) if depth else "{}"

    def listed(make: Callable[[], str]) -> str:
        return ",".join(space() + make() + space() for _ in range(random.randrange(4)))

    def value(keyword: str) -> str:
        if faults and random.random() < 0.1:
            return random.choice(LITERALS)
        match keyword.lower():
            case "properties" | "$defs":
                return "{" + listed(lambda: f'"{random.choice("abc")}"{space()}:{space()}{part()}') + "}"
            case "anyof" | "oneof" | "allof":
                return f"[{listed(part)}]"
            case "items" | "additionalproperties" | "not":
                return part()
            case "type":
                return random.choice(['"object"', '["object","null"]', '"string"', "null"])
            case "enum":
                return random.choice(['[1,{"properties":{"x":true}}]', "[]", "null"])
            case "required":
                return '["a"]'
            case "description":
                return '"a } , b"'
        return random.choice(LITERALS)

    return "{" + listed(lambda: f'"{(word := random.choice(KEYWORDS))}"{space()}:{space()}{value(word)}') + "}"


def test_tools_are_rewritten_if_and_only_if_ollama_cannot_decode_them() -> None:
    source = random.Random(5)
    for _ in range(3000):
        schema = drawn(source, 4, faults=True).encode()
        could = decodes(json.loads(schema, object_pairs_hook=Pairs), root=True)
        try:
            written = tool_parameters(schema, "p")
        except APIError:
            assert not could, schema
            continue
        assert (written is schema) == could, schema
        assert decodes(json.loads(written, object_pairs_hook=Pairs), root=True), schema


def test_a_grammar_can_be_made_of_every_format() -> None:
    source, rewritten = random.Random(6), 0
    for _ in range(3000):
        schema = drawn(source, 4, faults=False).encode()
        written = format_schema(schema, "p")
        assert makes_a_grammar(json.loads(written)), schema
        rewritten += written is not schema
    assert 500 < rewritten < 2900


# -- hostile schemas --------------------------------------------------------------------------

HOSTILE = {
    "properties": lambda n: b'{"properties":{%s}}' % b",".join(b'"p%d":{}' % i for i in range(n)),
    "true": lambda n: b'{"properties":{%s}}' % b",".join(b'"p%d":true' % i for i in range(n)),
    "false": lambda n: b'{"properties":{"p":{"anyOf":[%s]}}}' % b",".join([b"false"] * n),
    "some of each": lambda n: (
        b'{"properties":{"p":{"anyOf":[%s]}}}' % b",".join([b'{"properties":{"x":true,"y":false}},false'] * n)
    ),
    "escapes": lambda n: b'{"properties":{"p":{"default":"%s"}}}' % (b"\\\\" * n),
    "quotes": lambda n: b'{"x":"%s"}' % (b'\\"' * n),
    "brackets": lambda n: b'{"default":[%s]}' % b",".join([b"[[]]"] * n),
    "blanks": lambda n: b'{"properties":%s{%s}}' % (b" " * n, b"\n" * n),
    "digits": lambda n: b'{"default":%s}' % (b"1" * n),
    "a long key": lambda n: b'{"%s":1}' % (b"k" * n),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("rewrite", [tool_parameters, format_schema])
def test_time_grows_with_the_schema_and_memory_stays_small(rewrite: Rewrite, name: str) -> None:
    def seconds(schema: bytes) -> float:
        def once() -> float:
            began = time.process_time()
            rewrite(schema, "p")
            return time.process_time() - began

        return min(once() for _ in range(2))

    small, large = HOSTILE[name](6000), HOSTILE[name](30_000)  # neither is short enough to be remembered
    assert seconds(large) < 20 * max(seconds(small), 0.001)
    tracemalloc.start()
    try:
        rewrite(large, "p")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(large) + 65536
    finally:
        tracemalloc.stop()


def test_a_schema_as_deep_as_a_request_may_be_is_rewritten() -> None:
    depth = 31
    schema = b'{"properties":{"p":' * depth + b"true" + b"}}" * depth
    assert tool_parameters(schema, "p") == schema.replace(b"true", b"{}")
    assert format_schema(schema, "p") == schema.replace(b"true", b"{}")


def test_an_error_names_the_request_s_own_path() -> None:
    """Results are remembered, errors of another request's path are not."""
    for index in range(2):
        with pytest.raises(APIError) as raised:
            tool_parameters(b'{"required":true}', f"tools[{index}].function.parameters")
        assert raised.value.param == f"tools[{index}].function.parameters.required"
