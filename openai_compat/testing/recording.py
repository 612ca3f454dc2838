"""Recordings: files with one exchange with an Ollama a line, as JSON.

.. code-block:: text

    {"name": "native/1", "native": {"method": "POST", "path": "/api/chat", "request": {…},
     "status": 200, "content_type": "application/x-ndjson", "transfer_encoding": "chunked", "body": "…",
     "chunks": [97, 95], "complete": true}}

``request`` is the decoded JSON, with ``"***"`` in place of secrets; for a body that is not JSON its length alone, as
``"(5 bytes)"``; null without a body. ``body`` is the raw response. ``chunks``, the lengths in bytes of the parts in
which it arrived, and ``complete``, whether it came to its end, may be absent. An exchange with OpenAI's routes stands
under ``openai`` in the place of ``native``, or beside the native one that it led to. An exchange may also be the whole
line, beside ``name``.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from dataclasses import dataclass, field
from http.client import responses
from typing import Any
from urllib.parse import unquote

#: top-level keys of a native request that say what the answer is about
_SUBJECT = ("model", "name", "messages", "prompt", "suffix", "input", "format", "tools")


@dataclass
class Exchange:
    """A recorded request, and its response."""

    name: str
    method: str
    path: str
    #: as :func:`decoded` returns it
    request: Any
    status: int
    content_type: str
    body: bytes
    #: lengths of the parts of the body; none if they are not known
    chunks: list[int] = field(default_factory=list)
    #: whether the body came to its end
    is_complete: bool = True
    #: whether it was replayed
    is_used: bool = False

    @property
    def status_line(self) -> str:
        """Return the status with its reason, as WSGI wants it."""
        return f"{self.status} {responses.get(self.status, 'Unknown')}"

    def items(self) -> list[bytes]:
        """Return the body in the parts in which it arrived."""
        found, start = [], 0
        for length in self.chunks:
            found.append(self.body[start : start + length])
            start += length
        return list(filter(None, [*found, self.body[start:]]))

    def likeness(self, request: Any) -> tuple[bool, bool, int]:
        """Return how much another request is like the recorded one; greater is more.

        Whether a response is streamed counts least: a native call of the middleware always streams.
        """
        ours, theirs = _streaming(self.request), _streaming(request)
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            return ours == theirs, ours == theirs, 0
        equal = {key for key in ours.keys() | theirs.keys() if key in ours and ours[key] == theirs.get(key)}
        other = (ours.keys() | theirs.keys()) - equal
        return other <= {"stream"}, not other & set(_SUBJECT), len(equal)


def _streaming(request: Any) -> Any:
    return {"stream": True, **request} if isinstance(request, dict) else request


def decoded(body: bytes) -> Any:
    """Return a request body as a recording has it: decoded JSON without secrets, otherwise its length as a text.

    None if it is empty.
    """
    if not body:
        return None
    try:
        found = json.loads(body)
        json.dumps(found, allow_nan=False)  # not every text that Python reads is JSON
        # A text alone is no request, and nothing names what it is.
        return _length(body) if isinstance(found, str) else without_secrets(found)
    except (ValueError, RecursionError):
        return _length(body)


def _length(body: bytes) -> str:
    return f"({len(body)} bytes)"


_LENGTH = re.compile(r"\([0-9]+ bytes\)")


def read_recording(path: str | os.PathLike[str]) -> list[Exchange]:
    """Return the exchanges of a file: the native one of a line that has it.

    :raises ValueError: a line is not a recorded exchange.
    :raises OSError: the file cannot be read.
    """
    found = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                try:
                    found.append(_exchange(json.loads(line.decode())))
                except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                    raise ValueError(f"{os.fspath(path)}, line {number}: no recorded exchange ({error!r})") from error
    return found


def _exchange(row: dict[str, Any]) -> Exchange:
    """Return the exchange of a line.

    :raises AttributeError, KeyError, TypeError, ValueError: it has none, or a value is not valid.
    """
    side = row.get("native") or row.get("openai") or row
    request, status, chunks = side.get("request"), side["status"], side.get("chunks") or []
    if not all(isinstance(side[name], str) for name in ("method", "path", "body")):
        raise TypeError("method, path and body must be texts")
    if not isinstance(side.get("content_type"), str | None):
        raise TypeError("content_type must be a text or null")
    if type(status) is not int or not 200 <= status <= 999:
        raise ValueError("status must be a number from 200 to 999")
    if not isinstance(chunks, list) or not all(type(size) is int and size >= 0 for size in chunks):
        raise ValueError("chunks must be a list of lengths")
    if not isinstance(side.get("complete", True), bool):
        raise TypeError("complete must be true or false")
    if isinstance(request, str) and not _LENGTH.fullmatch(request):
        request = _length(request.encode("utf-8", "surrogatepass"))  # other programs may record the body
    return Exchange(
        name=str(row.get("name") or side["path"]),
        method=side["method"],
        path=side["path"],
        request=without_secrets(request),
        status=status,
        content_type=side.get("content_type") or "application/json",
        body=side["body"].encode("utf-8", "surrogatepass"),
        chunks=chunks,
        is_complete=side.get("complete", True),
    )


class Recording:
    """The exchanges of a file, from which responses are chosen. The caller provides for its threads."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges

    def choose(self, method: str, path: str, request: Any) -> Exchange | None:
        """Return the exchange of this path whose request is most like this one, and mark it as used.

        :param path: without percent escapes, its bytes as characters, as WSGI has it. A recorded path may have them.
        :param request: as :func:`decoded` returns it.

        Of several that are alike it is the first that was not used yet. None if none has the path.
        """
        verb = "GET" if method == "HEAD" else method
        paths = {path, path.encode("latin-1", "replace").decode("utf-8", "replace")}
        chosen: Exchange | None = None
        best: tuple[Any, ...] = ()
        for exchange in self.exchanges:
            if (exchange.path in paths or unquote(exchange.path) in paths) and exchange.method in (method, verb):
                score = (*exchange.likeness(request), not exchange.is_used)
                if chosen is None or score > best:
                    chosen, best = exchange, score
        if chosen is not None:
            chosen.is_used = True
        return chosen


# -- secrets ----------------------------------------------------------------------------------

#: stands for a value that was left out
LEFT_OUT = "***"

#: names of secrets, in the form of :func:`_words`
_SECRET = re.compile(
    r"(access|account|api|auth|encryption|licen[cs]e|master|private|secret|signing|ssh|subscription)_?keys?"
    r"|(?<![a-z])keys?_?[0-9]*$|tokens?_?[0-9]*$|(?<![a-z])o?auth(?![a-z])|authori[sz]ation|authentication"
    r"|credential|(?<![a-z])creds?(?![a-z])|cookie|passw|passphrase|passcode|pwd|secret|bearer|jwt|session|csrf|xsrf"
)
#: names that are like those, and mean something else
_NO_SECRET = re.compile(
    r"((max|min|num|number|n|budget|total|stop|bos|eos|pad)_(\w+_)?|max|num)tokens?|prompt_cache_key"
)
#: names of secrets that may be numbers; under the other names they are counts
_SECRET_NUMBER = re.compile(r"passw|passcode|pwd")
_HEADERS = re.compile(r"(\w+_)?headers")
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")

#: fields of a request that may be a JSON schema, or hold one under another of these names
_SCHEMAS = frozenset(
    ("parameters", "schema", "json_schema", "format", "response_format", "input_schema", "output_schema", "guided_json")
)
#: keywords of a schema whose value is an object of names, which mean nothing, and of schemas
_NAMES = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
#: keywords whose value is an object of names and of lists of names
_LISTS = frozenset(("dependentRequired", "dependencies"))
#: keywords whose value is a schema, or a list of them
_PARTS = frozenset(
    ("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains")
    + ("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema")
    + ("anyOf", "allOf", "oneOf", "not", "if", "then", "else")
)
#: keywords whose value describes a property, and is none of its values
_DESCRIBING = frozenset(
    ("type", "title", "description", "format", "pattern", "required", "enum", "contentEncoding", "contentMediaType")
    + ("$ref", "$id", "$schema", "$anchor", "$comment")
)


def without_secrets(value: Any) -> Any:
    """Return a request without the values of fields that are named like secrets, at any depth.

    Numbers and booleans stay, but not those of passwords. In a schema the names of properties are no names of fields:
    they and what describes them stay.
    """
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    title = value.get("name", value.get("key"))
    is_pair = isinstance(title, str) and _names_secret(title)  # {"name": "Authorization", "value": …}
    found: dict[str, Any] = {}
    for name, item in value.items():
        if _names_secret(name) or (is_pair and name == "value"):
            found[name] = _left_out(item, name)
        elif _HEADERS.fullmatch(_words(name)) and isinstance(item, dict | list):
            found[name] = dict.fromkeys(item, LEFT_OUT) if isinstance(item, dict) else _left_out(item, name)
        elif name in _SCHEMAS:
            found[name] = _schema(item, is_secret=False)
        else:
            found[name] = without_secrets(item)
    return found


def _schema(value: Any, *, is_secret: bool) -> Any:
    """Return a schema without secrets.

    :param is_secret: it is the schema of a property that is named like a secret.
    """
    if isinstance(value, list):
        return [_schema(item, is_secret=is_secret) for item in value]
    if not isinstance(value, dict):
        return _left_out(value) if is_secret else value
    found: dict[str, Any] = {}
    for name, item in value.items():
        if name in _NAMES | _LISTS and isinstance(item, dict):
            found[name] = {
                key: part
                if name in _LISTS and isinstance(part, list)
                else _property(part, is_secret=is_secret or _names_secret(key))
                for key, part in item.items()
            }
        elif name in _DESCRIBING:
            found[name] = without_secrets(item)
        elif name in _PARTS or name in _SCHEMAS:
            found[name] = _schema(item, is_secret=is_secret)
        else:
            found[name] = _left_out(item, name) if is_secret or _names_secret(name) else without_secrets(item)
    return found


def _property(value: Any, *, is_secret: bool) -> Any:
    is_schema = isinstance(value, dict) or not is_secret
    return _schema(value, is_secret=is_secret) if is_schema else _left_out(value)


def _left_out(value: Any, name: str = "") -> Any:
    """Return what is recorded of a secret's value."""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return value
    is_number = isinstance(value, int | float) and not _SECRET_NUMBER.search(_words(name))
    return value if value is None or isinstance(value, bool) or is_number else LEFT_OUT


def _names_secret(name: str) -> bool:
    words = _words(name)
    return _SECRET.search(words) is not None and not _NO_SECRET.fullmatch(words)


def _words(name: str) -> str:
    """Return a name in lower case, its words separated by underscores."""
    return _WORD_ENDS.sub("_", name).lower()
