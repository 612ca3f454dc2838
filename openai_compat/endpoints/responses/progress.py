"""A response in progress: from its first event to its last, streamed or whole. It knows no store and no clock.

Source: ollama ``middleware/openai.go`` ``ResponsesWriter`` (at fb3076099). Differs: there is a terminal event always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from openai_compat.endpoints.contract import NamedEvent
from openai_compat.endpoints.responses import events
from openai_compat.endpoints.responses.answer import Response, to_response_usage
from openai_compat.endpoints.responses.errors import of_response
from openai_compat.endpoints.responses.output import Output
from openai_compat.errors import APIError, answer_too_long
from openai_compat.generation.run import Run
from openai_compat.native import types as native
from openai_compat.translate.response_tools import ToolNames

#: the codes of a failed response that OpenAI's clients know, besides ``server_error``. OpenAI's list does not have the
#: second, but Codex reads it.
_CODES = ("rate_limit_exceeded", "context_length_exceeded")

_LAST = {"completed": events.Completed, "incomplete": events.Incomplete}


class Progress:
    """A response, and its events so far.

    :param response: as it is before anything was generated; it is changed as it grows.
    :param names: the request's tools.
    :param new_id: returns a new id with the given prefix.
    :param compacts: the output is one compaction.
    """

    def __init__(
        self, response: Response, names: ToolNames, new_id: Callable[[str], str], *, compacts: bool = False
    ) -> None:
        self.response = response
        self._output = Output(names, new_id, compacts=compacts)
        self._has_begun = False
        self._is_queued = False

    def begin(self, created_at: int) -> list[events.Event]:
        """Begin the response, and return its first events.

        :param created_at: Unix seconds.
        """
        if self._has_begun:
            return []
        self._has_begun = True
        response, number = self.response, self._output.number
        response.status = "in_progress"
        found: list[events.Event] = []
        if not self._is_queued:
            response.created_at = created_at
            found.append(events.Created(sequence_number=number(), response=self._snapshot()))
        found.append(events.InProgress(sequence_number=number(), response=self._snapshot()))
        return found

    def queue(self) -> list[events.Event]:
        """Return the first events of a response that waits to be generated in the background."""
        self._is_queued = True
        number, response = self._output.number, self._snapshot()
        created = events.Created(sequence_number=number(), response=response)
        return [created, events.Queued(sequence_number=number(), response=response)]

    def stream(self, run: Run[native.ChatResponse], max_answer: int) -> Iterator[list[events.Event]]:
        """Yield the events of a run, those of one native message an item, without the terminal event.

        The end of the response is an item of its own.

        :param max_answer: bytes of the native response, above which the response fails: the last events have all of it.
        :raises APIError: the native errors.
        """
        for _, _, delta in run:
            if delta.finish_reason is None and run.streams.size > max_answer:
                raise answer_too_long()  # before the delta's events are numbered
            found = self.begin(run.created)
            found += self._output.feed(delta)
            if delta.finish_reason is not None:
                yield found  # they are numbered, and the end may fail
                found = self._end(delta.finish_reason, run)
            yield found

    def collect(self, run: Run[native.ChatResponse]) -> Response:
        """Return the response of a run that has ended, with its one choice collected."""
        self.response.created_at = run.created
        [choice] = run.choices
        for delta in choice.deltas:
            for _ in self._output.feed(delta):
                pass
        self._end(choice.finish_reason, run)
        return self.response

    def _end(self, finish_reason: str, run: Run[native.ChatResponse]) -> list[events.Event]:
        """Complete the last item, and the response."""
        response = self.response
        response.status = "incomplete" if finish_reason == "length" else "completed"
        found = list(self._output.end(response.status))
        if response.status == "incomplete":
            response.incomplete_details = {"reason": "max_output_tokens"}
        response.output = self._output.items
        response.usage = to_response_usage(run.final_messages)
        if response.status == "completed":
            ends = [native.unix_time(final.created_at, response.created_at) for final in run.final_messages]
            response.completed_at = max(response.created_at, *ends)
        return found

    def last(self) -> events.Event:
        """Return the terminal event of a response that has ended."""
        return _LAST[self.response.status](sequence_number=self._output.number(), response=self._snapshot())

    def fail(self, error: APIError) -> list[events.Event]:
        """Return the last events of a response that fails; also its first, if there are none so far."""
        error = of_response(error)
        found = self.begin(self.response.created_at)
        response = self.response
        response.status = "failed"
        response.completed_at, response.incomplete_details = None, None
        response.error = error_of(error)
        response.output = self._output.items
        number = self._output.number
        found.append(error_event(error, number()))
        found.append(events.Failed(sequence_number=number(), response=self._snapshot()))
        return found

    def _snapshot(self) -> Response:
        """Return the response as it is now: an event is encoded after the response may have changed."""
        return structs.replace(self.response, output=list(self.response.output))


def error_of(error: APIError) -> dict[str, str]:
    """Return ``error`` of a response that failed."""
    return {"code": error.code if error.code in _CODES and error.code else "server_error", "message": error.message}


def error_event(error: APIError, number: int) -> events.Event:
    """Return the event of an error, which a terminal event follows."""
    nested = error.body()["error"]
    return events.Error(sequence_number=number, code=error.code, message=error.message, param=error.param, error=nested)


def named(found: Sequence[events.Event]) -> list[NamedEvent]:
    """Return events with their names, as they are sent."""
    return [NamedEvent(str(type(event).__struct_config__.tag), event) for event in found]
