"""What the models of the demo say: text, tool calls, and instances of schemas. Everything follows from the request."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

Json = dict[str, Any]

THOUGHT = "The demo pretends to think about it."

#: values of an instance of a schema, levels of it, and items of an array: more than the schemas of examples and tests
#: need, so that others do not take long
_MAX_VALUES = 1000
_MAX_PATH = 64
_MAX_ITEMS = 16


# -- text -------------------------------------------------------------------------------------


def text_for(last: Json, format: Any = None) -> str:
    """Return the text that a model of the demo generates.

    :param last: the message that it answers.
    :param format: ``json``, or a schema; anything else asks for nothing.
    """
    if isinstance(format, dict):
        return json.dumps(_instance_for(format, last), ensure_ascii=False)
    return '{"backend": "openai-compat demo"}' if format == "json" else _spoken(last)


def _spoken(last: Json) -> str:
    if last.get("role") == "tool":
        return _told(last)
    images = f" You sent {len(last['images'])} image(s)." if last.get("images") else ""
    return f"This is the openai-compat demo, not a model. You said: {last.get('content', '')}{images}"


def _told(last: Json) -> str:
    return f"This is the openai-compat demo, not a model. The tool said: {last.get('content', '')}"


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text: its words, with the blanks before them."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def limited(tokens: list[str], options: Json) -> tuple[list[str], str]:
    """Return the tokens up to a stop sequence or ``num_predict``, and the reason for the end."""
    text, reason = "".join(tokens), "stop"
    ends = [text.find(stop) for stop in options.get("stop") or [] if stop and stop in text]
    if ends:
        tokens = tokens_of(text[: min(ends)])
    limit = options.get("num_predict") or -1
    if 0 < limit < len(tokens):
        tokens, reason = tokens[:limit], "length"
    return tokens, reason


# -- tool calls -------------------------------------------------------------------------------


def tool_calls(tools: list[Json], text: str) -> list[Json]:
    """Return one call, of the first tool whose name is in the text, or of the first tool; none without tools."""
    functions = [tool.get("function", {}) for tool in tools]
    if not functions:
        return []
    chosen = next((function for function in functions if function.get("name", "") in text), functions[0])
    value = instance(chosen.get("parameters") or {"type": "object"})
    arguments = value if isinstance(value, dict) else {}
    call = json.dumps([chosen.get("name"), arguments, text], ensure_ascii=False)
    digest = hashlib.sha256(call.encode("utf-8", "replace")).hexdigest()
    return [{"id": f"call_{digest[:8]}", "function": {"index": 0, "name": chosen.get("name"), "arguments": arguments}}]


def written(calls: list[Json]) -> str:
    """Return calls as the text that models were trained to write, where their server does not parse it."""
    return "\n".join(f"<tool_call>\n{_as_text(call['function'])}\n</tool_call>" for call in calls)


def _as_text(function: Json) -> str:
    return json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)


def brings_result(last: Json) -> bool:
    """Return whether a message has the result of a call, which the demo answers without another call.

    For a model without tools it is a message of the user that says so.
    """
    return last.get("role") == "tool" or "result" in str(last.get("content", "")).lower()


# -- instances of schemas ---------------------------------------------------------------------


def instance(schema: Any, last: Json | None = None) -> Any:
    """Return a small value that a common JSON Schema admits.

    A circular reference becomes null, as does every value beyond the bounds.

    :param last: the message that is answered, by which the demo chooses among alternatives.
    """
    return _Instance(schema, last or {}).of(schema, ())


def _instance_for(schema: Json, last: Json) -> Any:
    """Return an instance as the answer to a message; a text that is called ``answer`` says something."""
    value = instance(schema, last)
    if brings_result(last) and isinstance(value, dict) and value.get("answer") == _TEXT:
        value["answer"] = _told(last)
    return value


_TEXT = "demo"


class _Instance:
    """An instance of one schema."""

    def __init__(self, root: Any, last: Json) -> None:
        self._root = root
        self._last = last
        #: values that may still be made
        self._left = _MAX_VALUES

    def of(self, schema: Any, path: tuple[str, ...]) -> Any:
        """Return a value for a part of the schema.

        :param path: keywords and references on the way from the root, by which circular references are found.
        """
        self._left -= 1
        if not isinstance(schema, dict) or len(path) > _MAX_PATH or self._left < 0:
            return None
        if "$ref" in schema:
            name = str(schema["$ref"])
            return None if name in path else self.of(self._referred(schema), (*path, name))
        for keyword in ("anyOf", "oneOf", "allOf"):
            if schema.get(keyword):
                return self.of(self._branch(schema[keyword], is_root=not path), (*path, keyword))
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            properties = (schema.get("properties") or {}).items()
            return {key: self.of(value, (*path, "properties")) for key, value in properties}
        if kind == "array":
            count = min(max(1, schema.get("minItems", 1)), _MAX_ITEMS)
            items = schema.get("items") or {}
            return [self.of(items, (*path, "items")) for _ in range(count)]  # each counts against the limit
        return {"integer": 1, "number": 1.5, "boolean": True, "null": None}.get(kind, _TEXT)

    def _branch(self, branches: list[Any], *, is_root: bool) -> Any:
        """Return the alternative that the demo takes, which is the first one mostly.

        Of alternatives at the root that have different members, such as calls and an answer, it takes the last one
        after the result of a call. Of calls it takes that of the function that the message names.
        """
        members = [self._properties(branch) for branch in branches]
        if is_root and brings_result(self._last) and len({frozenset(names) for names in members}) > 1:
            return branches[-1]
        text = str(self._last.get("content", ""))
        for branch, properties in zip(branches, members, strict=True):
            name = properties.get("name")
            called = name.get("const") if isinstance(name, dict) else None
            if isinstance(called, str) and called in text:
                return branch
        return branches[0]

    def _properties(self, schema: Any) -> Json:
        if isinstance(schema, dict) and "$ref" in schema:
            schema = self._referred(schema)
        found = schema.get("properties") if isinstance(schema, dict) else None
        return found if isinstance(found, dict) else {}

    def _referred(self, schema: Json) -> Any:
        return (self._root.get("$defs") or {}).get(str(schema["$ref"]).rsplit("/", 1)[-1])
