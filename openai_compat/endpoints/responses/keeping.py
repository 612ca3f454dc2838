"""Storing of responses: the response without its output, and the items of its input and output in order.

Source: OpenAI's ``store``; Ollama stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import Raw, structs

from openai_compat.endpoints.contract import CONVERSATION, RESPONSE, Call
from openai_compat.endpoints.responses.answer import Response
from openai_compat.endpoints.responses.state import State
from openai_compat.errors import APIError
from openai_compat.log import log
from openai_compat.storage.store import Item, StoredObject, StoreFailed, UnknownParent
from openai_compat.translate.store_errors import store_failed
from openai_compat.translate.stored_items import to_stored_item
from openai_compat.wire import json


@dataclass(frozen=True)
class Keeper:
    """What is stored of a response, and where.

    :param inputs: items of the input, as they are stored.
    :param stores: the response is stored, not only added to its conversation.
    """

    call: Call
    state: State
    inputs: list[Item]
    stores: bool

    @property
    def keeps(self) -> bool:
        """Return whether anything is stored."""
        return self.call.store is not None and (self.stores or self.state.conversation is not None)

    def check(self) -> None:
        """Check that the store can be written to, where a response must not be generated without being stored.

        :raises APIError: 503 for a store that fails.
        """
        if self.keeps and self.call.settings.store_failure == "refuse":
            assert self.call.store is not None
            try:
                self.call.store.ping()
            except StoreFailed as error:
                raise store_failed(error) from error

    def keep(self, response: Response) -> bool:
        """Store a response that has ended; return False if that failed, and note in it whether it is stored.

        One that could not be added to its conversation has none.

        :raises APIError: 503 for a store that fails, if the settings want that.
        """
        response.store = self.stores and self.call.store is not None
        if not self.keeps:
            return True
        try:
            self._write(response)
        except (StoreFailed, UnknownParent, ValueError) as error:
            log.error("a response could not be stored: %s", error)
            if self.call.settings.store_failure == "refuse":
                raise APIError(503, "The response could not be stored.", code="store_failed", retry=False) from error
            response.store, response.conversation = False, None
            return False
        return True

    def queue(self, response: Response) -> None:
        """Store a response that is not generated yet.

        :raises APIError: 503 for a store that fails; 400 for one that cannot be stored.
        """
        try:
            # Its items are added to the conversation once it is completed, if it is.
            self._add(response, [], inherit=self.state.extends)
        except StoreFailed as error:
            raise store_failed(error) from error
        except ValueError as error:
            raise unstorable() from error

    def _write(self, response: Response) -> None:
        outputs = output_items(response)
        if self.stores:
            self._add(response, outputs, extend=self.state.extends)
        elif self.state.conversation is not None:
            assert self.call.store is not None
            items = [*self.inputs, *outputs]
            if not self.call.store.append(CONVERSATION, self.call.owner, self.state.conversation, items):
                raise UnknownParent("the conversation was deleted")

    def _add(
        self,
        response: Response,
        outputs: Sequence[Item],
        *,
        extend: tuple[str, str] | None = None,
        inherit: tuple[str, str] | None = None,
    ) -> None:
        """Store a response. If the one that it goes on from was deleted meanwhile, its items are stored anew."""
        assert self.call.store is not None
        stored = StoredObject(
            response.id, response.created_at, response.model, response.metadata, stored_body(response)
        )
        add = partial(self.call.store.add, RESPONSE, self.call.owner, stored, outputs=outputs)
        try:
            add(items=self.inputs, parent=self.state.parent, extend=extend, inherit=inherit, end=self.state.end)
        except UnknownParent:
            if self.state.parent is None:
                raise
            add(items=[*self.state.inherited, *self.inputs])


def unstorable() -> APIError:
    """Return the error for a response in the background that cannot be stored as it is queued."""
    return APIError(400, "The response could not be stored.", param="background", code="store_failed")


def input_to_store(items: Sequence[Raw], call: Call) -> list[Item]:
    """Return the items of an input as they are stored."""
    return [to_stored_item(raw, f"input[{i}]", call.new_id) for i, raw in enumerate(items)]


def stored_body(response: Response) -> bytes:
    """Return a response as it is stored: its output is stored as items."""
    return json.encode(structs.replace(response, output=[]))


def output_items(response: Response) -> list[Item]:
    """Return the items of a response's output as they are stored."""
    items: list[Item] = []
    for item in response.output:
        assert not isinstance(item, Raw)
        items.append(Item(item.id, json.encode(item)))
    return items
