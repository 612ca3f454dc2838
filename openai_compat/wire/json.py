"""JSON: bytes ↔ structs. The only module that touches msgspec's codecs.

What a stranger sends is bounded before it is decoded: strict UTF-8, no NUL, no more than 64 levels
(deeper nesting kills a thread with a small stack, in any decoder), no number that is infinite. What
the native side sends is repaired where that loses nothing: see :func:`native_decoder`.
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

#: arrays and objects in a request, and a quarter of the members in them
MAX_VALUES = 100_000

#: levels of arrays and objects, in requests and in everything nested in them
MAX_DEPTH = 64

_NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)

_encode = msgspec.json.Encoder().encode
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_floats = msgspec.json.Decoder(list[float])


def encode(value: object) -> bytes:
    """Encode structs or plain values as one line of JSON.

    U+2028, U+2029 and U+0085 leave escaped: line readers of some clients cut there (F38).
    """
    data = _encode(value)
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    return data


# -- requests ---------------------------------------------------------------------------------


def request_decoder(type: type[S]) -> Callable[[bytes], tuple[S, list[str]]]:
    """Make a decoder of request bodies.

    It gives the struct and the top-level keys of the body that the struct does not know.

    :raises APIError: (the decoder) 400, with the path of the field in ``param``.
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
        except (ValueError, RecursionError) as error:
            raise invalid(_NOT_JSON, code=None) from error
        return value, unknown

    return decoder


def is_object(text: bytes) -> bool:
    """Whether *text* is one JSON object within the limits of a request."""
    try:
        _check(text)
        _top_level.decode(text)
    except (APIError, ValueError, RecursionError):
        return False
    return True


def text_of(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    """The text of a part that was kept as bytes; empty if it is absent, or null, which is the same."""
    text = b"" if raw is msgspec.UNSET else bytes(raw).strip()
    return b"" if text == b"null" else text


def decode_raw(raw: msgspec.Raw) -> Any:
    """Decode a part of a request that was kept as bytes, and has passed the request's checks, to plain values."""
    return msgspec.json.decode(raw)


def members(text: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object that we wrote ourselves, each as it stands."""
    return _top_level.decode(text)


def floats(raw: msgspec.Raw) -> list[float]:
    """The numbers of a native array.

    :raises Malformed: it is none, or not of numbers.
    """
    try:
        return _floats.decode(raw)
    except ValueError as error:
        raise Malformed("no array of numbers") from error


def _check(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid(_NOT_JSON, code=None) from error
    if b"\x00" in body:
        raise invalid(_NOT_JSON, code=None)
    _check_shape(body)
    if _MAYBE_INFINITE.search(body) and _has_infinity(body):
        raise invalid("The JSON body of your request holds a number that is out of range.", code=None)


_TOO_DEEP = f"The JSON body of your request is nested deeper than {MAX_DEPTH} levels."


def _check_shape(body: bytes) -> None:
    """Bound what decoding may build: an empty object of two bytes becomes a hundred times as much (F54, F60)."""
    nesting = _nesting(body)
    if nesting:
        raise invalid(_NOT_JSON if nesting == "unbalanced" else _TOO_DEEP, code=None)
    if body.count(b"[") + body.count(b"{") > MAX_VALUES or body.count(b",") + body.count(b":") > 4 * MAX_VALUES:
        bare = _without_strings(body)
        containers, members = bare.count(b"[") + bare.count(b"{"), bare.count(b",") + bare.count(b":")
        if max(containers, members // 4) > MAX_VALUES:
            raise invalid("The JSON body of your request holds too many values.", code=None)


_STRING = re.compile(rb'"[^"]*"?')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def _without_strings(body: bytes) -> bytes:
    # Escaped backslashes go first, then escaped quotes: after that a quote is an end of a string, and
    # the expression has nothing to go back to. (A pattern that knows escapes needs memory per escape.)
    return _STRING.sub(b"", body.replace(b"\\\\", b"").replace(b'\\"', b""))


def too_deep(body: bytes) -> bool:
    """Whether arrays and objects are nested deeper than :data:`MAX_DEPTH`, in linear time and without recursion.

    Brackets that do not match count as too deep: no decoder should try them.
    """
    return bool(_nesting(body))


def _nesting(body: bytes) -> str:
    """``deep``, ``unbalanced`` (which may be deep), or nothing where all is well or too short to be deep."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return ""
    brackets = _without_strings(body).translate(_AS_ONE_KIND, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        shorter = brackets.replace(b"[]", b"")  # the innermost level, everywhere at once
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    if not brackets:
        return ""
    return "deep" if b"[]" in brackets else "unbalanced"


_MAYBE_INFINITE = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def _has_infinity(body: bytes) -> bool:
    # msgspec finds these only in fields that it reads, and takes integers of any length.
    return any(math.isinf(float(number)) for number in _NUMBER.findall(_without_strings(body)))


_PATH = re.compile(r" - at `\$\.?(.*)`$")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_NAMES = {
    "int": "an integer",
    "float": "a decimal",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def _wrong_type(text: str) -> APIError:
    """Say in OpenAI's words what msgspec says: ``Expected `int | null`, got `str` - at `$.n```."""
    path = _PATH.search(text)
    param = path[1].split("[...]")[0] if path else ""
    types = _EXPECTED.search(text)
    if not types:
        return invalid(_PATH.sub("", text) + ".", param or None, "invalid_type")
    expected = [name for name in types[1].split(" | ") if name != "null"]
    if "int" in expected and "float" in expected:  # how a struct says: an integer, also written 100.0
        expected.remove("float")
    wanted = " or ".join(_NAMES.get(name, name) for name in expected)
    got = _NAMES.get(types[2], types[2])
    if not param:
        return invalid(f"The JSON body of your request must be {wanted}, but got {got} instead.", None, "invalid_type")
    return invalid(f"Invalid type for '{param}': expected {wanted}, but got {got} instead.", param, "invalid_type")


# -- the native side --------------------------------------------------------------------------


class Malformed(Exception):
    """Native bytes that are no JSON, or JSON of another shape than expected. Holds no content."""


def native_decoder(type: type[T]) -> Callable[[bytes], T]:
    """Make a decoder of native lines and answers.

    Invalid UTF-8 and lone surrogates become U+FFFD, numbers that are none or infinite become null (F32, F36,
    F38): a model may produce the former, and neither is worth the answer. Anything else that is no
    JSON of the right shape is :class:`Malformed`.
    """
    decode = msgspec.json.Decoder(type).decode

    def decoder(data: bytes) -> T:
        if too_deep(data):
            raise Malformed("nested too deep")
        if not data.isascii():  # msgspec does not look into what it keeps as bytes
            data = data.decode("utf-8", "replace").encode()
        try:
            return decode(data)
        except (ValueError, RecursionError):
            pass
        try:
            return decode(_encode(_clean(json.loads(data))))
        except (ValueError, RecursionError) as error:
            raise Malformed("no JSON of the expected shape") from error

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
