"""Values that a JSON Schema allows, drawn by hypothesis: of the schemas in ``data/``, and what they use."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.contract import DATA

#: values of any kind, where a schema does not say more
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)

#: properties that no schema knows
UNKNOWN = st.dictionaries(st.sampled_from(["foo", "Model", "api_base", "bar baz", ""]), ANYTHING, max_size=1)

_MAX_DEPTH = 40


def requests(name: str) -> st.SearchStrategy[Any]:
    """Requests of the schema in ``data/NAME.json``."""
    root = json.loads((DATA / f"{name}.json").read_text())
    return _Drawn(root).of(root, 0)


class _Drawn:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def of(self, schema: Any, depth: int) -> st.SearchStrategy[Any]:
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return st.none() if depth > _MAX_DEPTH else ANYTHING
        if "$ref" in schema:
            target = self._root
            for token in schema["$ref"].removeprefix("#/").split("/"):
                target = target[token]
            return st.deferred(lambda: self.of(target, depth + 1))
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "const" in schema:
            return st.just(schema["const"])
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return st.one_of([self.of(part, depth + 1) for part in schema[word]])
        if "allOf" in schema:
            parts = [self.of(part, depth + 1) for part in schema["allOf"]]
            own = {key: value for key, value in schema.items() if key != "allOf"}
            parts += [self.of(own, depth + 1)] if "properties" in own else []
            return st.tuples(*parts).map(_merged)
        return self._of_type(schema, depth)

    def _of_type(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            return st.one_of([self.of({**schema, "type": one}, depth) for one in kind])
        if kind == "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 64))
        if kind == "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31))
        if kind == "number":
            return st.floats(schema.get("minimum", -1e6), schema.get("maximum", 1e6), allow_nan=False)
        if kind == "array":
            low, high = schema.get("minItems", 0), schema.get("maxItems", 3)
            return st.lists(self.of(schema.get("items", {}), depth + 1), min_size=low, max_size=max(low, min(high, 3)))
        if kind == "object":
            return self._object(schema, depth)
        return {"boolean": st.booleans(), "null": st.none()}.get(kind or "", ANYTHING)

    def _object(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        parts = {name: self.of(part, depth + 1) for name, part in schema.get("properties", {}).items()}
        required = set(schema.get("required", ()))
        fixed = st.fixed_dictionaries(
            {name: part for name, part in parts.items() if name in required},
            optional={name: part for name, part in parts.items() if name not in required},
        )
        more = schema.get("additionalProperties", not parts)
        if not more:
            return fixed
        inner = ANYTHING if more is True else self.of(more, depth + 1)
        return st.tuples(fixed, st.dictionaries(st.text(max_size=8), inner, max_size=2)).map(
            lambda pair: {**pair[1], **pair[0]}
        )


def _merged(parts: tuple[Any, ...]) -> Any:
    merged: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, dict):
            merged |= part
    return merged
