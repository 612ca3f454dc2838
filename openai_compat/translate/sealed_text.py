"""Text that a client keeps and sends back without reading it: ``encrypted_content`` of reasoning and of compaction.

It is encoded, not encrypted or signed: a client may send any reasoning in chat too, and a key would have to be shared
by all workers and outlive restarts. The encoding has a version, and a kind, so that one is not taken for another.

Source: OpenAI's ``ReasoningItem``, ``CompactionBody``. Ollama's own ``encrypted_content`` is the plain text.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Literal

Kind = Literal["reasoning", "compaction"]

_PREFIXES: dict[Kind, str] = {"reasoning": "openai-compat.1.r.", "compaction": "openai-compat.1.c."}

#: characters of an encoded text: more than a model writes in its longest context
MAX_SEALED = 8 * 1024 * 1024


def seal(text: str, kind: Kind) -> str | None:
    """Encode a text; None for one that is too long to be taken back."""
    sealed = _PREFIXES[kind] + base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    return sealed if len(sealed) <= MAX_SEALED else None


def unseal(sealed: str, kind: Kind) -> str | None:
    """Decode what :func:`seal` encoded; None for text of another server.

    Reasoning with blanks is taken as it is: so Ollama's own middleware sends it, and no encryption has blanks.
    """
    if len(sealed) > MAX_SEALED:
        return None
    prefix = _PREFIXES[kind]
    if not sealed.startswith(prefix):
        return sealed if kind == "reasoning" and re.search(r"\s", sealed.strip()) else None
    try:
        return base64.b64decode(sealed[len(prefix) :], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
