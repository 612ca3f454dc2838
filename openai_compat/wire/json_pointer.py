"""Resolution of JSON pointers in URI fragments, the values of ``$ref`` in a JSON schema.

Only references into the same document are resolved; nothing is fetched.

Source: RFC 6901, section 6.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote


def resolve(document: Any, reference: Any) -> Any:
    """Return the value in *document* that *reference* points to.

    :param reference: ``#``, or ``#/`` and a percent-encoded JSON pointer.
    :raises ValueError: *reference* is anything else, such as the URL of another document.
    :raises LookupError: the document has no such value.
    """
    if not isinstance(reference, str) or reference[:2] not in ("#", "#/"):
        raise ValueError(f"not a JSON pointer into this document: {reference!r}")
    for token in unquote(reference).split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(document):
            document = document[int(name)]
        else:
            raise LookupError(f"the document has no {reference!r}")
    return document
