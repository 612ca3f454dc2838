"""OpenAI's own client on the middleware in the same process, without a socket: for tests and notebooks.

The backend is the built-in demo; any WSGI application that speaks Ollama's native API will do. Needs openai::

    python examples/openai_client_without_socket.py
"""

from __future__ import annotations

import httpx2
from openai import OpenAI

from openai_compat import OpenAICompat
from openai_compat.testing.demo import Demo

# httpx2 (not httpx) is what the client sends with. This transport calls the application itself: streams come piece
# by piece, as over a socket, but no time-out is enforced, so a backend that hangs, hangs the caller.
transport = httpx2.WSGITransport(app=OpenAICompat(Demo()))


def main() -> None:
    # The host is never looked up, and the key is never looked at.
    with OpenAI(
        base_url="http://demo.invalid/v1", api_key="unused", http_client=httpx2.Client(transport=transport)
    ) as client:
        answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hello!"}])
        print(answer.choices[0].message.content)

        with client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hello again!"}], stream=True
        ) as stream:
            for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
