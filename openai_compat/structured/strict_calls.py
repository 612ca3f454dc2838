"""The check of calls of strict functions: their arguments against the schemas of the request.

A schema is compiled when its function is called first; agents send dozens of strict functions and call one or two.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from openai_compat.native import types as native
from openai_compat.structured.schema_checker import Checker, Uncheckable, checker
from openai_compat.structured.schema_evaluation import library
from openai_compat.translate.fields import Ignored
from openai_compat.wire import json


class StrictCalls:
    """The strict functions of a request.

    :param tools: the functions, also those that are not strict.
    :param fields: the request's fields that want the check, by the names of the strict functions; a field is listed
        where there can be no check.
    """

    def __init__(self, tools: Iterable[native.Tool], fields: Mapping[str, str], ignored: Ignored) -> None:
        self._fields = fields
        self._ignored = ignored
        self._checkers: dict[str, Checker | None] = {}
        #: choices may be generated in several threads
        self._lock = threading.Lock()
        self._schemas: dict[str, bytes] = {}
        if not fields:
            return
        try:
            library()
        except ImportError:
            for field in fields.values():
                ignored.add(field, "the extra 'schema' is not installed")
            return
        schemas = {tool.function.name: json.text_of(tool.function.parameters) for tool in tools}
        self._schemas = {name: schemas[name] for name in fields if schemas.get(name)}

    def __bool__(self) -> bool:
        return bool(self._schemas)

    def mismatch(self, name: str, arguments: str) -> str | None:
        """Return why the arguments of a call do not match the function's schema, in one line; None if they do.

        What cannot be checked is listed, and counts as a match.
        """
        try:
            found = self._checker(name)
            return None if found is None else found.mismatch(arguments)
        except Uncheckable as error:
            self._ignored.add(self._fields[name], str(error))
            return None

    def _checker(self, name: str) -> Checker | None:
        if name not in self._schemas:
            return None
        with self._lock:
            if name not in self._checkers:
                self._checkers[name] = None  # one that cannot be compiled is not tried again
                self._checkers[name] = self._compiled(name)
            return self._checkers[name]

    def _compiled(self, name: str) -> Checker:
        """Compile a schema, and list its keywords that are not evaluated."""
        found = checker(self._schemas[name])
        for keyword in found.unevaluated:
            self._ignored.add(f"{self._fields[name].removesuffix('.strict')}.parameters.{keyword}")
        return found.shared()  # all calls have one budget

    def note(self, name: str, mismatch: str) -> None:
        """List the field of a function whose call does not match and is passed on."""
        self._ignored.add(self._fields[name], f"The arguments of a call do not match: {mismatch}")
