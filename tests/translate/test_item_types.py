"""The type of an item, told or guessed by its members."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.errors import APIError
from openai_compat.translate.item_types import item_type
from openai_compat.wire import json as wire


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"type": "x", "role": "user"}, "x"),
        ({"role": "user"}, "message"),
        ({"type": None, "role": "user"}, "message"),
        ({"id": "msg_1"}, "item_reference"),
        ({"id": "msg_1", "type": None}, "item_reference"),
    ],
    ids=json.dumps,
)
def test_the_type_of_an_item(item: Any, kind: str) -> None:
    assert item_type(wire.members(json.dumps(item).encode()), "input[0]") == kind


@pytest.mark.parametrize("item", [{}, {"id": None}, {"id": "x", "content": "x"}, {"content": "x"}], ids=json.dumps)
def test_an_item_without_what_tells_its_type(item: Any) -> None:
    with pytest.raises(APIError) as raised:
        item_type(wire.members(json.dumps(item).encode()), "input[3]")
    assert raised.value.param == "input[3].type"
