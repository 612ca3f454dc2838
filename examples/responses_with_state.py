"""Responses that go on: from the previous one, in a conversation, and in the background. Needs openai::

    python examples/responses_with_state.py

The backend is the built-in demo, and the store is in memory. With
``store="sqlite:///responses.db"`` all of it survives a restart.
"""

from __future__ import annotations

import time

import httpx2
from openai import OpenAI

from openai_compat import OpenAICompat
from openai_compat.testing.demo import Demo

application = OpenAICompat(Demo(), store="sqlite://")
transport = httpx2.WSGITransport(app=application)


def main() -> None:
    with OpenAI(
        base_url="http://demo.invalid/v1", api_key="unused", http_client=httpx2.Client(transport=transport)
    ) as client:
        first = client.responses.create(model="demo", input="My name is Ann.")
        print(first.output_text)
        second = client.responses.create(model="demo", input="What is it?", previous_response_id=first.id)
        history = client.responses.input_items.list(second.id, order="asc")
        print(f"The second one was sent {len(history.data)} items.")

        conversation = client.conversations.create()
        for text in ("One", "Two"):
            client.responses.create(model="demo", input=text, conversation=conversation.id)
        print(f"The conversation has {len(client.conversations.items.list(conversation.id).data)} items.")

        waiting = client.responses.create(model="demo", input="Take your time.", background=True)
        while waiting.status in ("queued", "in_progress"):
            time.sleep(0.1)
            waiting = client.responses.retrieve(waiting.id)
        print(f"{waiting.status}: {waiting.output_text}")


if __name__ == "__main__":
    main()
