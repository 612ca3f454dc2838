"""The state of a response: the history that it goes on from, and where its items are kept.

The history comes from the store, by a previous response or by a conversation; references to single items are resolved
there too. What is asked of a store that is not configured is an error: nothing is answered without its history.

Source: OpenAI's ``previous_response_id``, ``conversation``, ``ItemReferenceParam``; Ollama has no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from msgspec import UNSET, Raw, UnsetType

from openai_compat.endpoints.contract import CONVERSATION, RESPONSE, Call
from openai_compat.endpoints.responses.answer import is_final
from openai_compat.endpoints.responses.request import ConversationRef, input_items
from openai_compat.errors import APIError, invalid, too_long
from openai_compat.storage.store import Context, Damaged, Item, Store, StoredObject, TooLarge
from openai_compat.translate.items import Past
from openai_compat.translate.references import resolved
from openai_compat.translate.store_errors import ask, existing, is_sound, needs_store, store_failed
from openai_compat.wire import json


@dataclass(frozen=True)
class State:
    """Where a response stands."""

    #: items before the input
    history: list[Raw] = field(default_factory=list)
    #: id of the previous response
    parent: str | None = None
    #: id of the conversation
    conversation: str | None = None
    #: :attr:`Context.end` of the history
    end: int | None = None
    #: items of the previous response, as they are stored
    inherited: list[Item] = field(default_factory=list)

    @property
    def extends(self) -> tuple[str, str] | None:
        """Return the kind and id of the object that has the history, and to which the items of the response are added.

        It is None for a previous response, which does not change.
        """
        return None if self.conversation is None else (CONVERSATION, self.conversation)


class Input(NamedTuple):
    """The items that a request is made of."""

    state: State
    #: of the request itself, without references
    given: list[Raw]

    @property
    def items(self) -> list[Raw]:
        """Return the items of the history and of the request."""
        return [*self.state.history, *self.given]

    def past(self, call: Call) -> Past:
        """Return of which of the items the history is."""
        field = "previous_response_id" if self.state.conversation is None else "conversation"
        return Past(len(self.state.history), field, call.past_files, call.past_fetch)


class HasInput(Protocol):
    """A request with items, and where it goes on."""

    @property
    def input(self) -> Raw | UnsetType:
        """Return a string or items, not decoded."""

    @property
    def previous_response_id(self) -> str | None:
        """Return the id of the response that it goes on from."""

    @property
    def conversation(self) -> str | ConversationRef | None:
        """Return the conversation that it belongs to."""


def read_input(request: HasInput, call: Call) -> Input:
    """Return the items of a request, and of the history that it goes on from.

    :raises APIError: 400 for items that are not valid, and as :func:`read_state`.
    """
    limit = call.settings.max_messages
    given = input_items(request.input, limit)
    state = read_state(request.previous_response_id, request.conversation, call)
    if len(given) + len(state.history) > limit:
        raise too_long("input", limit, len(given) + len(state.history))
    return Input(state, resolved(given, "input", call.store, call.owner, call.settings.max_body))


def read_state(previous: str | None, conversation: str | ConversationRef | None, call: Call) -> State:
    """Read the history of a request.

    :param previous: ``previous_response_id``.
    :raises APIError: 400 without a store, for both fields together, for a previous response that does not exist or is
        not finished, and for a history that is too long; 404 for a conversation that does not exist; 503 for a store
        that fails.
    """
    id = conversation.id if isinstance(conversation, ConversationRef) else conversation
    if previous and id:
        text = "Mutually exclusive parameters: 'previous_response_id' and 'conversation' cannot be given together."
        raise invalid(text, "previous_response_id", "mutually_exclusive_parameters")
    if previous:
        if call.store is None:
            raise needs_store("previous_response_id")
        found = _history_of_response(previous, call.store, call)
        return State(_raws(found), parent=previous, inherited=found.items)
    if id:
        if call.store is None:
            raise needs_store("conversation")
        found = existing(_context(call.store, CONVERSATION, id, call), "Conversation", id)
        return State(_raws(found), conversation=id, end=found.end)
    return State()


def _history_of_response(id: str, store: Store, call: Call) -> Context:
    stored = read_response(id, call)
    found = None if stored is None else _context(store, RESPONSE, id, call)
    if stored is None or found is None:
        text = f"Previous response with id '{id[:128]}' not found."
        raise invalid(text, "previous_response_id", "previous_response_not_found")
    if not is_final(status_of(stored)):
        text = f"Previous response with id '{id[:128]}' is not finished."
        raise invalid(text, "previous_response_id", "previous_response_not_finished")
    return found


def read_response(id: str, call: Call) -> StoredObject | None:
    """Return a stored response; one whose process has died is failed before.

    :raises APIError: 503 for a store that fails.
    """

    def read(store: Store) -> StoredObject | None:
        stored = store.get(RESPONSE, call.owner, id, is_sound)
        if stored is None or is_final(status_of(stored)) or call.background is None:
            return stored
        call.background.fail_if_stale(call.owner, id, stored.created)
        return store.get(RESPONSE, call.owner, id, is_sound)

    return ask(call.store, read)


def response_body(stored: StoredObject, call: Call) -> bytes:
    """Return the JSON of a stored response, with the items of its output.

    :raises APIError: 404 for one that was deleted meanwhile; 503 for a store that fails.
    """
    items = ask(
        call.store,
        lambda store: store.outputs(RESPONSE, call.owner, stored.id, is_valid=is_sound),
    )
    output = [Raw(item.body) for item in existing(items, "Response", stored.id)]
    return json.encode({**json.members(stored.body), "output": output})


def status_of(stored: StoredObject) -> str:
    """Return the status of a stored response."""
    return json.string(json.text_of(json.members(stored.body).get("status", UNSET))) or ""


def failure_of(stored: StoredObject) -> APIError:
    """Return the error of a stored response that has failed.

    :raises APIError: 503 for one without an error, which is damaged.
    """
    text = json.text_of(json.members(stored.body).get("error", UNSET))
    message = json.text_of(json.members(text).get("message", UNSET)) if is_sound(text) else b""
    found = json.string(message)
    if found is None:
        raise store_failed(Damaged("A stored response is damaged: error."))
    return APIError(500, found)


def _context(store: Store, kind: str, id: str, call: Call) -> Context | None:
    limit = call.settings.max_messages

    def read(store: Store) -> Context | None:
        max_bytes = call.settings.max_body
        return store.context(kind, call.owner, id, limit=limit, max_bytes=max_bytes, is_valid=is_sound)

    try:
        return ask(store, read)
    except TooLarge as error:
        text = f"Invalid 'input': the history is too long: {error}."
        raise invalid(text, "input", "array_above_max_length") from None


def _raws(context: Context) -> list[Raw]:
    return [Raw(item.body) for item in context.items]
