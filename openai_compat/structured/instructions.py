"""Text for the model that a request does not have: it joins the system message, of which many templates read only one.

What each text says belongs to who needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from openai_compat.native import types as native


def instructed(messages: Sequence[native.Message], text: str) -> list[native.Message]:
    """Return messages whose first is a system message that ends with a text."""
    first = messages[0]
    if first.role == "system":
        return [native.Message("system", f"{first.content}\n\n{text}".lstrip()), *messages[1:]]
    return [native.Message("system", text), *messages]
