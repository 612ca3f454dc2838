"""JSON encoding and decoding. The only module that uses msgspec's codecs.

Clients are not trusted: a request body is checked before it is decoded, for strict UTF-8, NUL bytes, the depth of
nesting, the number of values and numbers out of range. Native JSON is repaired where that loses nothing: see
:func:`native_decoder`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from openai_compat.errors import APIError, invalid
from openai_compat.wire import json_limits, json_repair, surrogates

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)

# Before 0.21 msgspec's DecodeError is not a ValueError; its conversions to int and float always raise ValueError.
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)

_encode = msgspec.json.Encoder().encode
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_floats = msgspec.json.Decoder(list[float])


def encode(value: object) -> bytes:
    """Encode a struct or plain values as one line of JSON.

    U+2028, U+2029 and U+0085 are escaped, because some clients split lines at them (F38). Line ends between the tokens
    of a :class:`msgspec.Raw` value become blanks: JSON has none within strings.
    """
    data = _encode(value)
    if b"\n" in data or b"\r" in data:
        data = data.translate(_LINE_ENDS)
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    return data


_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


# -- requests ---------------------------------------------------------------------------------


def request_decoder(type: type[S]) -> Callable[[bytes], tuple[S, list[str]]]:
    """Return a decoder of request bodies.

    The struct and the structs in it must forbid unknown fields. The decoder returns the struct and the paths of the
    keys that they do not have, such as ``stream_options.x``; null counts as absent, and so does an empty value
    (``""``, ``[]``, ``{}``) where another kind is expected, which PHP and form builders send. It raises
    :exc:`APIError`, a 400 with the path of the invalid field in ``param``.
    """
    decode_part = part_decoder(type)

    def decoder(body: bytes) -> tuple[S, list[str]]:
        return decode_part(checked_body(body), "")

    return decoder


def part_decoder(type: type[S]) -> Callable[[bytes, str], tuple[S, list[str]]]:
    """Return a decoder of a part of a request body that has passed the checks of the body.

    :func:`request_decoder` describes the result and the errors. The decoder's second argument is the path of the part,
    for errors, such as ``messages[0]``.
    """
    decode = msgspec.json.Decoder(type).decode
    shape = json_repair.shape(type, _new_decoder)

    def decoder(text: bytes, path: str) -> tuple[S, list[str]]:
        try:
            return decode(text), []
        except msgspec.ValidationError:
            pass
        except _DECODE_ERRORS as error:
            raise invalid(_NOT_JSON, code=None) from error
        try:
            repair = json_repair.Repair(_RequestCodec)
            prefix = _INDEX.sub("[]", path) + "." if path else ""
            return decode(repair.of(text, shape, prefix) or text), repair.unknown
        except msgspec.ValidationError as error:
            raise _wrong_type(str(error), path) from error
        except _DECODE_ERRORS as error:
            raise invalid(_NOT_JSON, code=None) from error

    return decoder


_INDEX = re.compile(r"\[[0-9]+\]")


def list_decoder(type: type[S]) -> Callable[[bytes], list[S] | None]:
    """Return a decoder of arrays, for a part of a request body; it returns None for one that is not valid at once."""
    decode = msgspec.json.Decoder(list[type]).decode  # type: ignore[valid-type]

    def decoder(text: bytes) -> list[S] | None:
        try:
            return decode(text)
        except _DECODE_ERRORS:
            return None

    return decoder


class _RequestCodec:
    """The codec for the repair of requests, which refuses objects with very many members."""

    encode = staticmethod(_encode)

    @staticmethod
    def members(text: bytes) -> dict[str, msgspec.Raw]:
        return members_of(text)

    @staticmethod
    def items(text: bytes) -> list[msgspec.Raw]:
        return _items.decode(text)


def string(text: bytes) -> str | None:
    """Return the string that a JSON text holds; None for another value, and for text that is not valid."""
    try:
        return _string.decode(text)
    except _DECODE_ERRORS:
        return None


def members_of(text: bytes, param: str | None = None) -> dict[str, msgspec.Raw]:
    """Return the members of an object in a request, their values not decoded.

    :param param: path of the object, for errors.
    :raises APIError: 400 for too many members, which take much more memory than their text, and for another value.
    """
    if json_limits.has_many_members(text):
        most = json_limits.MAX_MEMBERS
        name = f"'{param}'" if param else "An object of your request"
        raise invalid(f"{name} has more than {most} members.", param, "object_above_max_properties")
    try:
        return _top_level.decode(text)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), param or "") from error


def items_of(raw: msgspec.Raw, param: str) -> list[msgspec.Raw]:
    """Return the items of an array in a request, not decoded.

    :raises APIError: 400 for another value.
    """
    try:
        return _items.decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), param) from error


def _new_decoder(type: Any) -> Callable[[bytes], Any]:
    decode = msgspec.json.Decoder(type).decode

    def decoder(text: bytes) -> Any:
        try:
            return decode(text)
        except _DECODE_ERRORS as error:
            raise ValueError("not a value of this type") from error

    return decoder


def is_object(text: bytes) -> bool:
    """Return whether *text* is one JSON object within the limits of a request body."""
    try:
        _top_level.decode(checked_body(text))
    except (APIError, *_DECODE_ERRORS):
        return False
    return True


def is_native_object(text: bytes) -> bool:
    """Return whether native text is one JSON object, of any size, within the depth of a request body."""
    if json_limits.too_deep(text):
        return False
    try:
        _top_level.decode(text)
    except _DECODE_ERRORS:
        return False
    return True


def text_of(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    """Return the text of a value that was not decoded; ``b""`` if it is absent or null, which means the same."""
    text = b"" if raw is msgspec.UNSET else bytes(raw).strip()
    return b"" if text == b"null" else text


def is_blank(raw: msgspec.Raw | msgspec.UnsetType) -> bool:
    """Return whether a value that was not decoded is absent, null or empty (blank text, ``[]``, ``{}``)."""
    text = text_of(raw)
    return not text or (text[0] in b'["{' and bool(json_repair.EMPTY.fullmatch(text)))


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


def checked_body(body: bytes) -> bytes:
    """Check a request body against the limits of ``json_limits``, and return it without lone surrogates.

    :raises APIError: 400.
    """
    if b"\x00" in body or not json_limits.is_utf8(body):
        raise invalid(_NOT_JSON, code=None)
    try:
        json_limits.check(body)
    except json_limits.Unacceptable as error:
        raise invalid(_UNACCEPTABLE[error.kind], code=None) from None
    return surrogates.mended(body)


_UNACCEPTABLE = {
    "unbalanced": _NOT_JSON,
    "deep": f"The JSON body of your request is nested deeper than {json_limits.MAX_DEPTH} levels.",
    "values": "The JSON body of your request holds too many values.",
    "number": "The JSON body of your request holds a number that is out of range.",
}


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


def _wrong_type(text: str, prefix: str = "") -> APIError:
    """Map a message of msgspec to OpenAI's wording.

    :param text: such as ``Expected `int | null`, got `str` - at `$.n```.
    :param prefix: path of the decoded text in the request.
    """
    path = _PATH.search(text)
    param = ".".join(filter(None, (prefix, path[1].split("[...]")[0] if path else "")))
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

    Invalid UTF-8 and lone surrogates, which models produce, become U+FFFD (F32, F38). Where the text is not valid for
    the type, NaN and infinity become null, and values that nothing depends on are left out: those that a struct names
    in ``INCIDENTAL``, and empty ones of another kind (F36). All other parts stay byte for byte. The decoder raises
    :exc:`Malformed` if the rest is not valid JSON of this type.
    """
    decode = msgspec.json.Decoder(type).decode
    shape = json_repair.shape(type, _new_decoder)

    def decoder(data: bytes) -> T:
        if json_limits.too_deep(data):
            raise Malformed("nested too deep")
        if not data.isascii():  # msgspec does not check the UTF-8 of Raw values
            data = data.decode("utf-8", "replace").encode()
        try:
            return decode(data)
        except _DECODE_ERRORS:
            pass
        try:
            data = _NOT_A_NUMBER.sub(lambda match: match[1] or b"null", surrogates.mended(data))
            return decode(json_repair.Repair(_NativeCodec).of(data, shape) or data)
        except _DECODE_ERRORS as error:
            raise Malformed("not valid JSON of the expected type") from error

    return decoder


#: strings, which are kept, and the numbers that JSON does not have; a string that does not end matches too, so that the
#: search is linear
_NOT_A_NUMBER = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|-?(?:NaN|Infinity)', re.S)


class _NativeCodec:
    """The codec for the repair of native texts."""

    encode = staticmethod(_encode)
    members = staticmethod(_top_level.decode)
    items = staticmethod(_items.decode)
