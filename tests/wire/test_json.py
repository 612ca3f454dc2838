"""JSON: bounds before decoding, errors with a path, repair of what a model may say."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec
import pytest

from openai_compat.errors import APIError
from openai_compat.wire.json import Malformed, encode, is_object, native_decoder, request_decoder, text_of
from openai_compat.wire.json_limits import MAX_DEPTH, too_deep


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    a: int | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    n: int | float | None = None
    s: str | None = None
    items: list[Inner] | None = None
    table: dict[str, Inner] | None = None
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    either: str | list[str] | None = None
    count: int | float | None = None

    INCIDENTAL: ClassVar[frozenset[str]] = frozenset({"count"})


decode = request_decoder(Outer)
decode_native = native_decoder(Outer)


def refusal(body: bytes) -> APIError:
    with pytest.raises(APIError) as raised:
        decode(body)
    assert raised.value.status == 400
    return raised.value


def test_a_request_gives_its_values_and_what_is_not_known() -> None:
    value, unknown = decode(b'{"n":1,"s":null,"x":1,"items":[{"a":2,"b":3}],"y":{"z":1},"":2,"e":{},"f":""}')
    assert (value.n, value.s, value.items) == (1, None, [Inner(2)])
    assert sorted(unknown) == ['""', "items[].b", "x", "y"]


def test_f57_the_last_of_two_keys_wins() -> None:
    assert decode(b'{"s":"a","s":"b"}')[0].s == "b"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b'{"n":"x"}', "n", "Invalid type for 'n': expected an integer, but got a string instead."),
        (b'{"n":true}', "n", "Invalid type for 'n': expected an integer, but got a boolean instead."),
        (b'{"s":1}', "s", "Invalid type for 's': expected a string, but got an integer instead."),
        (
            b'{"items":[{"a":[1]}]}',
            "items[0].a",
            "Invalid type for 'items[0].a': expected an integer, but got an array",
        ),
        (b'{"items":{"a":1}}', "items", "Invalid type for 'items': expected an array, but got an object instead."),
        (b'{"x":1,"n":"x"}', "n", "Invalid type for 'n': expected an integer, but got a string instead."),
        (b'{"table":{"k":{"a":""}}}', "table", "Invalid type for 'table': expected an integer, but got a string"),
        (b'{"either":1.5}', "either", "Invalid type for 'either': expected a string or an array, but got a decimal"),
        (b"[]", None, "The JSON body of your request must be an object, but got an array instead."),
        (b'"x"', None, "The JSON body of your request must be an object, but got a string instead."),
    ],
)
def test_f59_a_wrong_type_names_the_field(body: bytes, param: str | None, message: str) -> None:
    error = refusal(body)
    assert (error.param, error.code) == (param, "invalid_type")
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"n":}',
        b"{'n':1}",
        b"{}{}",
        b"nul",
        b'{"n":01}',
        b'{"n":NaN}',
        b'{"n":Infinity}',
        b'{"x":-Infinity}',
    ]
    + [b"\xef\xbb\xbf{}", b'{"s":"\xff"}', b'{"x":"\xff"}', '{"s":"x"}'.encode("utf-16"), '{"s":"x"}'.encode("utf-32")]
    + [b'{"s":"a\x00b"}', b'{"n":' + b"1" * 4301 + b"}"],
)
def test_f53_f55_f56_f58_f61_what_is_no_json_is_a_400(body: bytes) -> None:
    assert refusal(body).type == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b'{"n":1e400}', b'{"x":1e400}', b'{"x":[-1E+999]}', b'{"raw":{"a":1e999}}', b'{"x":' + b"9" * 400 + b".5}"]
)
def test_f56_an_infinite_number_is_a_400_wherever_it_stands(body: bytes) -> None:
    assert refusal(body)


@pytest.mark.parametrize("body", [b'{"s":"1e400"}', b'{"x":1e-400}', b'{"x":0e999}', b'{"n":1e300}'])
def test_what_only_looks_infinite_passes(body: bytes) -> None:
    assert decode(body)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"raw":' + opening * (depth - 1) + closing * (depth - 1) + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'[{"a":', b"}]")])
def test_f54_64_levels_are_decoded_and_no_more(opening: bytes, closing: bytes) -> None:
    step = 1 if opening == b"[" else 2
    fits = b'{"raw":' + opening * (63 // step) + b"1" + closing * (63 // step) + b"}"
    assert decode(fits)
    deeper = b'{"raw":' + opening * (65 // step) + b"1" + closing * (65 // step) + b"}"
    assert "nested deeper than 64" in refusal(deeper).message


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, nested(100_000), b"]" * 100_000 + b"[" * 100_000])
def test_f54_a_bottomless_body_is_a_400(body: bytes) -> None:
    assert refusal(body)


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, False),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), True),
        (b"[[],[]]" * 100, False),
        (b'"' + b"[" * 100 + b'"', False),
        (b'"\\"' + b"[" * 100 + b'"', False),
        (b'"\\\\"' + b"[" * 100 + b"]" * 100, True),
        (b'"\\\\\\"' + b"[" * 100 + b'"', False),
        (b'"unterminated ' + b"[" * 100, False),
    ],
)
def test_depth_is_counted_outside_strings(text: bytes, deep: bool) -> None:
    assert too_deep(text) is deep


@pytest.mark.parametrize(
    ("text", "found"),
    [(b"{}", True), (b'{"a": 1}', True), (b"[]", False), (b"1", False), (b"{", False), (b"\xff", False), (b"", False)]
    + [(b'{"a":' * 70 + b"1" + b"}" * 70, False), (b'{"a":1e999}', False)],
)
def test_only_the_text_of_an_object_is_an_object(text: bytes, found: bool) -> None:
    assert is_object(text) is found


@pytest.mark.parametrize(
    ("body", "text"), [(b"{}", b""), (b'{"raw":null}', b""), (b'{"raw": {"a" : 1} }', b'{"a" : 1}')]
)
def test_text_of_a_part_kept_as_bytes(body: bytes, text: bytes) -> None:
    assert text_of(decode(body)[0].raw) == text


@pytest.mark.parametrize(
    "text", ["\u2028", "\u2029", "\u0085", "a\u2028b\u0085c", "\u2019 \u00e9", "\r\n\x00", "\U0001f99c"]
)
def test_f38_separators_leave_escaped_and_mean_the_same(text: str) -> None:
    data = encode({"s": text})
    assert json.loads(data) == {"s": text}
    assert data.decode().splitlines() == [data.decode()]


def test_encoding_keeps_what_is_kept_as_bytes() -> None:
    assert encode({"a": msgspec.Raw(b'{"z": 1, "a":2}')}) == b'{"a":{"z": 1, "a":2}}'


def test_f38_line_ends_of_what_is_kept_as_bytes_become_blanks() -> None:
    data = encode({"a": msgspec.Raw(b'{\r\n\n"z": "\\n\\r"\n}')})
    assert data == b'{"a":{   "z": "\\n\\r" }}'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"s":"caf\xe9"}', Outer(s="caf\ufffd")),
        (b'{"s":"a\\ud800b"}', Outer(s="a\ufffdb")),
        (b'{"s":"\\ud83e\\udd9c"}', Outer(s="\U0001f99c")),
        (b'{"n":NaN,"s":"NaN, \\"-Infinity"}', Outer(s='NaN, "-Infinity')),
        (b'{"count":1e400,"s":"x"}', Outer(s="x")),
        (b'{"n":-Infinity}', Outer()),
        (b'{"count":"many","s":"\\ud800"}', Outer(s="\ufffd")),
        (
            b'{"count":{"a":1},"items":{},"raw":12345678901234567890123}',
            Outer(raw=msgspec.Raw(b"12345678901234567890123")),
        ),
        (b'{"s":"\\ud800","raw":{"a":1.0, "b":1e5}}', Outer(s="\ufffd", raw=msgspec.Raw(b'{"a":1.0, "b":1e5}'))),
        (b'{"raw":{"a":"\xff"}}', Outer(raw=msgspec.Raw('{"a":"\ufffd"}'.encode()))),
        (b'{"s":"\xff","table":{"\xff":{"a":1}}}', Outer(s="\ufffd", table={"\ufffd": Inner(1)})),
    ],
)
def test_f32_f36_f38_native_text_is_repaired_where_that_loses_nothing(data: bytes, expected: Outer) -> None:
    assert decode_native(data) == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"1", b"null", b"{}{}", b'{"s":1}', b"<html>", b'{"raw":' + b"[" * 100 + b"]" * 100 + b"}"]
    + [b"[" * 100_000],
)
def test_f30_f37_other_native_text_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed) as raised:
        decode_native(data)
    assert b"html" not in str(raised.value).encode()


def test_msgspec_codecs_are_touched_here_only() -> None:
    from pathlib import Path

    package = Path(__file__).parents[2] / "openai_compat"
    users = [path.name for path in package.rglob("*.py") if "msgspec.json" in path.read_text()]
    assert users == ["json.py"]


def any_value(value: Any) -> Any:
    return json.loads(encode(value))


def test_encoding_of_plain_values() -> None:
    assert any_value({"a": [1, 2.5, None, True, "x"]}) == {"a": [1, 2.5, None, True, "x"]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[' + b"{}," * 100_001 + b"{}]}",
        b'{"x":[' + b"[]," * 100_001 + b"[]]}",
        b"{" + b",".join(b'"%d":0' % i for i in range(250_000)) + b"}",
    ],
    ids=["objects", "arrays", "keys"],
)
def test_f60_too_many_values_are_refused_before_they_are_built(body: bytes) -> None:
    assert "too many values" in refusal(body).message


def test_f60_what_stands_in_strings_is_not_counted() -> None:
    assert decode(json.dumps({"s": "{[,:]}" * 300_000}).encode())[0].s


@pytest.mark.parametrize("body", [b'{"raw":' + b"[" * 63 + b"1", b'{"raw":' + b"[[]" * 63 + b"]" * 64 + b"}"])
def test_f54_brackets_that_do_not_match_are_no_json(body: bytes) -> None:
    assert "could not parse" in refusal(body).message


def test_a_lone_surrogate_is_a_replacement_character_in_keys_and_values_and_all_else_stays() -> None:
    body = rb'{"s":"\\ud800 \ud800\u00e9","table":{"\udc00":{"a":1}},"raw":{"\ud83d": 1.0, "\ud83e\udd9c":[1e5]}}'
    value = decode(body)[0]
    assert (value.s, value.table) == ("\\ud800 \ufffd\u00e9", {"\ufffd": Inner(1)})
    assert bytes(value.raw) == rb'{"\ufffd": 1.0, "\ud83e\udd9c":[1e5]}'


@pytest.mark.parametrize("text", [b"t", b"n", b"tn", b"r", b"\\\\t", b"f", b"\\u0020x"])
def test_letters_are_no_blanks(text: bytes) -> None:
    assert refusal(b'{"n":"%s"}' % text).param == "n"


@pytest.mark.parametrize("empty", [b"[]", b"{}", b'""', b"[ ]", b'" "', b"{\n}"])
@pytest.mark.parametrize("field", ["n", "s", "items", "table", "either"])
def test_an_empty_value_of_another_kind_is_an_absent_one(field: str, empty: bytes) -> None:
    value, unknown = decode(b'{"%s":%s,"count":1}' % (field.encode(), empty))
    assert not getattr(value, field) or empty == b'" "'
    assert (value.count, unknown) == (1, [])


def test_an_empty_value_of_another_kind_is_absent_inside_objects_too_but_no_item_of_a_list_is() -> None:
    assert decode(b'{"items":[{"a":[]},{"a":""}]}')[0].items == [Inner(), Inner()]
    assert refusal(b'{"items":[[]]}').param == "items[0]"


def test_an_object_with_very_many_unknown_keys_is_refused() -> None:
    body = b"{" + b",".join(b'"%d":0' % i for i in range(2000)) + b"}"
    assert refusal(body).code == "object_above_max_properties"


def test_an_unknown_field_of_null_is_an_absent_one() -> None:
    assert decode(b'{"x":null,"y":1}')[1] == ["y"]
