"""JSON encoding and decoding. The only module that uses msgspec's codecs.

Clients are not trusted: a request body is checked before it is decoded, for strict UTF-8, NUL bytes, the depth of
nesting, the number of values and numbers out of range. Native JSON is repaired where that loses nothing: see
:func:`native_decoder`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from openai_compat.errors import APIError, invalid

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

#: arrays and objects in a request; commas and colons may be four times as many. Decoded, such a body takes about 40 MB;
#: 10,000 messages (the default limit) of several content parts each are still within it.
MAX_VALUES = 100_000

#: levels of arrays and objects, in a request and in JSON text inside it. Decoders recurse once a level, and a thread
#: with a small stack ends in a segmentation fault; no schema in use comes near 64.
MAX_DEPTH = 64

_NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)

# Before 0.21 msgspec's DecodeError is not a ValueError; its conversions to int and float always raise ValueError.
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)

_encode = msgspec.json.Encoder().encode
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_floats = msgspec.json.Decoder(list[float])


def encode(value: object) -> bytes:
    """Encode a struct or plain values as one line of JSON.

    U+2028, U+2029 and U+0085 are escaped, because some clients split lines at them (F38).
    """
    data = _encode(value)
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    return data


# -- requests ---------------------------------------------------------------------------------


def request_decoder(type: type[S]) -> Callable[[bytes], tuple[S, list[str]]]:
    """Return a decoder of request bodies.

    The decoder returns the struct and the names of top-level fields that the struct does not have; a field that is
    null counts as absent. It raises :exc:`APIError`, a 400 with the path of the invalid field in ``param``.
    """
    decode = msgspec.json.Decoder(type).decode
    known = {field.encode_name for field in msgspec.structs.fields(type)}

    def decoder(body: bytes) -> tuple[S, list[str]]:
        _check(body)
        try:
            value = decode(body)
            unknown = [key for key, raw in _top_level.decode(body).items() if key not in known and text_of(raw)]
        except msgspec.ValidationError as error:
            raise _wrong_type(str(error)) from error
        except _DECODE_ERRORS as error:
            raise invalid(_NOT_JSON, code=None) from error
        return value, unknown

    return decoder


def is_object(text: bytes) -> bool:
    """Return whether *text* is one JSON object within the limits of a request body."""
    try:
        _check(text)
        _top_level.decode(text)
    except (APIError, *_DECODE_ERRORS):
        return False
    return True


def text_of(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    """Return the text of a value that was not decoded; ``b""`` if it is absent or null, which means the same."""
    text = b"" if raw is msgspec.UNSET else bytes(raw).strip()
    return b"" if text == b"null" else text


def decode_raw(raw: msgspec.Raw) -> Any:
    """Decode to plain values a part of a request body that has passed the checks of the body.

    :raises ValueError: it has a number that is out of range.
    """
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def members(text: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of an object that :func:`encode` wrote, their values not decoded."""
    return _top_level.decode(text)


def floats(raw: msgspec.Raw) -> list[float]:
    """Decode a native array of numbers.

    :raises Malformed: it is not an array of numbers.
    """
    try:
        return _floats.decode(raw)
    except _DECODE_ERRORS as error:
        raise Malformed("not an array of numbers") from error


def _check(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid(_NOT_JSON, code=None) from error
    if b"\x00" in body:
        raise invalid(_NOT_JSON, code=None)
    _check_nesting_and_size(body)
    if _MAYBE_INFINITE.search(body) and _has_infinity(body):
        raise invalid("The JSON body of your request holds a number that is out of range.", code=None)


_TOO_DEEP = f"The JSON body of your request is nested deeper than {MAX_DEPTH} levels."


def _check_nesting_and_size(body: bytes) -> None:
    """Raise if decoding would take too much stack or memory: two bytes, ``{}``, become an object of 64 (F54, F60)."""
    nesting = _nesting(body)
    if nesting:
        raise invalid(_NOT_JSON if nesting == "unbalanced" else _TOO_DEEP, code=None)
    if body.count(b"[") + body.count(b"{") > MAX_VALUES or body.count(b",") + body.count(b":") > 4 * MAX_VALUES:
        outside = _without_strings(body)
        containers, separators = outside.count(b"[") + outside.count(b"{"), outside.count(b",") + outside.count(b":")
        if max(containers, separators // 4) > MAX_VALUES:
            raise invalid("The JSON body of your request holds too many values.", code=None)


_STRING = re.compile(rb'"[^"]*"?')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


def _without_strings(body: bytes) -> bytes:
    # Without escaped backslashes and then escaped quotes, every quote begins or ends a string, and the expression
    # cannot backtrack. (One that handles escapes itself needs memory for each escape.)
    return _STRING.sub(b"", body.replace(b"\\\\", b"").replace(b'\\"', b""))


def too_deep(body: bytes) -> bool:
    """Return whether arrays and objects are nested deeper than :data:`MAX_DEPTH`, in linear time, without recursion.

    Brackets that do not match may count as too deep, because a decoder could recurse into them.
    """
    return bool(_nesting(body))


def _nesting(body: bytes) -> str:
    """Return ``deep``, ``unbalanced`` (which may be deep too), or ``""`` if the nesting is within the limit."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return ""
    brackets = _without_strings(body).translate(_BRACES_TO_BRACKETS, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        shorter = brackets.replace(b"[]", b"")  # removes the innermost level everywhere
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    if not brackets:
        return ""
    return "deep" if b"[]" in brackets else "unbalanced"


_MAYBE_INFINITE = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def _has_infinity(body: bytes) -> bool:
    # msgspec checks only the fields that it decodes, and accepts integers of any length.
    return any(math.isinf(float(number)) for number in _NUMBER.findall(_without_strings(body)))


_PATH = re.compile(r" - at `\$\.?(.*)`$")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_TYPE_NAMES = {
    "int": "an integer",
    "float": "a decimal",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def _wrong_type(text: str) -> APIError:
    """Map a message of msgspec to OpenAI's wording.

    :param text: such as ``Expected `int | null`, got `str` - at `$.n```.
    """
    path = _PATH.search(text)
    param = path[1].split("[...]")[0] if path else ""
    types = _EXPECTED.search(text)
    if not types:
        return invalid(_PATH.sub("", text) + ".", param or None, "invalid_type")
    expected = [name for name in types[1].split(" | ") if name != "null"]
    if "int" in expected and "float" in expected:  # the type of an integer that may be written 100.0
        expected.remove("float")
    wanted = " or ".join(_TYPE_NAMES.get(name, name) for name in expected)
    got = _TYPE_NAMES.get(types[2], types[2])
    if not param:
        return invalid(f"The JSON body of your request must be {wanted}, but got {got} instead.", None, "invalid_type")
    return invalid(f"Invalid type for '{param}': expected {wanted}, but got {got} instead.", param, "invalid_type")


# -- the native side --------------------------------------------------------------------------


class Malformed(Exception):
    """Native bytes are not valid JSON, or not of the expected type. The message has no content of them."""


def native_decoder(type: type[T]) -> Callable[[bytes], T]:
    """Return a decoder of native lines and response bodies.

    Invalid UTF-8 and lone surrogates, which models produce, become U+FFFD; NaN, infinity and integers beyond 64 bits
    become null (F32, F36, F38). The decoder raises :exc:`Malformed` if the rest is not valid JSON of this type.
    """
    decode = msgspec.json.Decoder(type).decode

    def decoder(data: bytes) -> T:
        if too_deep(data):
            raise Malformed("nested too deep")
        if not data.isascii():  # msgspec does not check the UTF-8 of Raw values
            data = data.decode("utf-8", "replace").encode()
        try:
            return decode(data)
        except _DECODE_ERRORS:
            pass
        try:
            return decode(_encode(_clean(json.loads(data))))
        except _DECODE_ERRORS as error:
            raise Malformed("not valid JSON of the expected type") from error

    return decoder


_SURROGATE = re.compile("[\ud800-\udfff]")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
