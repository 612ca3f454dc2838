"""``POST /v1/completions``: the request, the answer, and here what leads from one to the other.

Source: ollama ``middleware/openai.go`` ``CompletionsMiddleware`` (at fb3076099).
"""

from __future__ import annotations

from contextlib import closing

from openai_compat.endpoints.completions.answer import Choice, Completion, Form, Writing, joined, to_chunks
from openai_compat.endpoints.completions.request import Asked, decode, from_completion_request
from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply
from openai_compat.errors import answer_too_long
from openai_compat.native import messages as native
from openai_compat.native.backend import Backend
from openai_compat.native.together import Streams, streams
from openai_compat.translate import reasoning
from openai_compat.translate.fields import Ignored
from openai_compat.translate.logprobs import mean_logprob
from openai_compat.translate.sampling import seeded
from openai_compat.translate.usage import to_usage


def create(call: Call, backend: Backend) -> Reply:
    """Complete texts, as one answer or as a stream of chunks.

    :raises APIError: 400 naming what is wrong with the request; the native side's failures.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    asked = from_completion_request(request, call, ignored)
    form = Form(call.new_id("cmpl-"), asked.model, call.now, asked.has_logprobs)
    openers = [
        reasoning.opener(backend.generate, seeded(sent, i), asked.model, asked.think_field, backend, ignored)
        for sent in asked.sent
        for i in range(asked.best_of)
    ]
    writings = [Writing(form, echo, is_silent=asked.is_silent) for echo in asked.echoes for _ in range(asked.best_of)]
    source = streams(openers, threads=call.settings.max_n if backend.is_remote else 1)
    if asked.stream:
        chunks = to_chunks(form, source, writings, include_usage=asked.include_usage)
        return EventStream(chunks, source, ignored.headers())
    with closing(source):
        completion = _collect(call, asked, form, source, writings, ignored)
    return Answer(completion, ignored.headers())


def _collect(
    call: Call,
    asked: Asked,
    form: Form,
    source: Streams[native.GenerateResponse],
    writings: list[Writing],
    ignored: Ignored,
) -> Completion:
    """All texts, prompt by prompt."""
    parts: list[list[Choice]] = [[] for _ in writings]
    ends: list[native.GenerateResponse] = []
    created = None
    for index, response in source:
        if created is None:
            created = native.unix_time(response.created_at, call.now)
        choice = writings[index].feed(index, response)
        if choice is not None:
            parts[index].append(choice)
        if source.size > call.settings.max_answer:
            raise answer_too_long()
        if response.done:
            ends.append(response)
            if len(ends) == len(writings):
                break
    chosen = [
        index for first in range(0, len(writings), asked.best_of) for index in _best(asked, writings, first, ignored)
    ]
    return Completion(
        id=form.id,
        created=call.now if created is None else created,
        model=form.model,
        choices=[joined(parts[index], i) for i, index in enumerate(chosen)],
        usage=to_usage(ends),
    )


def _best(asked: Asked, writings: list[Writing], first: int, ignored: Ignored) -> list[int]:
    """The ``n`` texts of one prompt with the highest mean log-probability, the best one first."""
    indexes = range(first, first + asked.best_of)
    if asked.best_of == asked.n:
        return list(indexes)
    means = {index: mean_logprob(writings[index].logprobs) for index in indexes}
    if all(mean is None for mean in means.values()):
        ignored.add("best_of", "The backend gives no log-probabilities.")
    known = {index: float("-inf") if mean is None else mean for index, mean in means.items()}
    return sorted(indexes, key=lambda index: -known[index])[: asked.n]
