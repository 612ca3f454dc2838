"""A framework's asynchronous client of OpenAI over a served application with a store, as its tests run it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openai_compat import OpenAICompat, Settings
from openai_compat.testing import FakeOllama
from tests.frameworks.backend import Model
from tests.servers import live

openai = pytest.importorskip("openai")

#: runs a function of a client to its end
Run = Callable[[Callable[[Any], Awaitable[Any]]], Any]


@contextmanager
def served(model: Model | FakeOllama, ignored: list[str | None]) -> Iterator[Run]:
    """Run what is to be done with a client in an event loop of its own.

    :param ignored: what each answer says it ignored of its request is added to it.
    """

    async def note(response: Any) -> None:
        ignored.append(response.headers.get("openai-compat-ignored"))

    with live(OpenAICompat(model, settings=Settings(store="sqlite://"))) as url:

        def run(scenario: Callable[[Any], Awaitable[Any]]) -> Any:
            async def main() -> Any:
                http = openai.DefaultAsyncHttpxClient(trust_env=False, event_hooks={"response": [note]})
                async with openai.AsyncOpenAI(
                    base_url=f"{url}/v1", api_key="x", http_client=http, max_retries=0
                ) as client:
                    return await scenario(client)

            return asyncio.run(main())

        yield run
