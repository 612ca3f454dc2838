"""The public API as a type checker sees it. Checked by mypy only, never run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from openai_compat import APIError, OpenAICompat, Sampling, Settings, Upstream
from openai_compat.testing import FakeOllama, Gate, done, say

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def native(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


wrapped: WSGIApplication = OpenAICompat(native)
by_url: WSGIApplication = OpenAICompat("http://127.0.0.1:11434", overflow="truncate", max_body=1024)
beside: WSGIApplication = OpenAICompat(native, upstream=Upstream("http://127.0.0.1:11434", timeout=(1, 2, 3)))
nested: WSGIApplication = OpenAICompat(wrapped, settings=Settings(sampling=Sampling.model()))
OpenAICompat(native, overflow="cut")  # type: ignore[arg-type]
OpenAICompat(native, colour="blue")  # type: ignore[call-arg]
OpenAICompat(native, max_body="1")  # type: ignore[arg-type]

error: APIError = APIError(400, "x", param="y")
fake = FakeOllama()
fake.script("/api/chat", say("x"), Gate(), b"raw", ValueError(), done(), cut=7)
application: WSGIApplication = fake
