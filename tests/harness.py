"""A strict WSGI harness: the public linters on both sides, and what they do not see.

``wsgiref.validate`` and ``webtest.lint`` pass over hop-by-hop headers, a second start_response, an iterable that is
never closed, a changed environ, a read past the body's end, a body on HEAD and an empty first item. So does
nobody here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

from webtest.lint import middleware as lint
from werkzeug.test import EnvironBuilder

from openai_compat import OpenAICompat

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
}


class Input(io.BytesIO):
    """A request body that must be read by size, and not past its end by more than one empty read."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0, "read() without a size"
        assert size <= len(self.getvalue()), "read past CONTENT_LENGTH"
        return super().read(size)


class Inner:
    """The wrapped application, linted: counts its calls and that every answer is closed exactly once."""

    def __init__(self, app: Any) -> None:
        self._app = lint(validator(app))
        self.calls = 0
        self.closes = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        # The environ of a native call is a new one; a linted application may be given it only once.
        return Counted(self._app(dict(environ), start_response), self)


class Counted:
    def __init__(self, iterable: Any, owner: Inner) -> None:
        self._iterator = iter(iterable)
        self._iterable = iterable
        self._owner = owner

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        self._owner.closes += 1
        self._iterable.close()


class Answered:
    """One answer: status, headers, and the items as the server got them."""

    def __init__(self, status: str, headers: list[tuple[str, str]], items: list[bytes]) -> None:
        self.status = int(status[:3])
        self.headers = headers
        self.items = items
        self.body = b"".join(items)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def call(app: Any, method: str = "GET", path: str = "/", *, body: bytes | None = None, **environ: Any) -> Answered:
    """Call an application as a strict server would, and check all that a server cannot forgive."""
    builder = EnvironBuilder(method=method, path="/", content_type="application/json" if body is not None else None)
    given = builder.get_environ()
    builder.close()
    given.update({"PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": Input(body or b""), **environ})
    if body is not None:
        given["CONTENT_LENGTH"] = str(len(body))
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    def watched(environ: Any, start_response: Any) -> Iterable[bytes]:  # innermost: the linters change it themselves
        after.update(environ)
        before.update(environ)
        found = app(environ, start_response)
        after.clear()
        after.update(environ)
        return found  # type: ignore[no-any-return]

    heads: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert not heads or exc_info, "start_response was called twice"
        heads.append((status, headers))
        return lambda data: None

    iterable = lint(validator(watched))(given, start_response)
    try:
        items = []
        for item in iterable:
            assert heads, "an item before the head"
            assert item, "an empty item"
            items.append(item)
    finally:
        iterable.close()
    assert heads
    assert after == before, "the caller's environ was changed"
    status, headers = heads[-1]
    assert not {name.lower() for name, _ in headers} & HOP_BY_HOP
    if method == "HEAD" or status[:3] in ("204", "304"):
        assert items == []
    length = next((value for name, value in headers if name.lower() == "content-length"), None)
    if length is not None and method != "HEAD":
        assert int(length) == sum(map(len, items))
    return Answered(status, headers, items)


def compat(app: Any, **options: Any) -> tuple[OpenAICompat, Inner]:
    """The middleware around a linted application, and that application."""
    inner = Inner(app)
    return OpenAICompat(inner, **options), inner
