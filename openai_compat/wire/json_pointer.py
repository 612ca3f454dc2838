"""References within one JSON document: a ``#`` and a JSON pointer, as ``$ref`` of a schema has it.

Nothing outside the document is ever followed.

Source: RFC 6901, its URI fragment form.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote


def resolve(document: Any, reference: Any) -> Any:
    """Resolve a reference to the part of *document* that it names.

    :param reference: ``#`` alone, or ``#/`` and a JSON pointer, percent-encoded as in a URI.
    :raises ValueError: *reference* is not a string of this form, such as a URL of another document.
    :raises LookupError: the document has no such part.
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
