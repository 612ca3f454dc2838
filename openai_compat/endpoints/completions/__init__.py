"""``POST /v1/completions``: the endpoint function. Requests and responses have modules of their own.

Source: ollama ``middleware/openai.go`` ``CompletionsMiddleware`` (at fb3076099).
"""

from __future__ import annotations

from openai_compat.endpoints.completions.answer import ResponseEnvelope, to_chunks, to_completion
from openai_compat.endpoints.completions.request import CompletionPlan, decode, from_completion_request
from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply
from openai_compat.generation.built import built
from openai_compat.generation.choice import TextChoiceBuilder
from openai_compat.generation.collected import CollectedChoice
from openai_compat.generation.parallel import streams
from openai_compat.generation.run import Run
from openai_compat.generation.thinking import start_call
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.translate.fields import Ignored
from openai_compat.translate.logprobs import mean_logprob
from openai_compat.translate.sampling import seeded


def create(call: Call, backend: Backend) -> Reply:
    """Complete texts, as one response or as a stream of chunks.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode(call.body)
    ignored = Ignored(call.settings, unknown)
    plan = from_completion_request(request, call, ignored)
    envelope = ResponseEnvelope(call.new_id("cmpl-"), plan.model, plan.has_logprobs)
    run = _start(plan, call, backend, ignored)
    if plan.stream:
        chunks = to_chunks(envelope, run, include_usage=plan.include_usage)
        return EventStream(chunks, run.streams, ignored.headers())
    choices = run.finish()
    chosen = [
        choice
        for first in range(0, len(choices), plan.best_of)
        for choice in _best(plan, choices[first : first + plan.best_of], ignored)
    ]
    return Answer(to_completion(envelope, run, chosen), ignored.headers())


def _start(plan: CompletionPlan, call: Call, backend: Backend, ignored: Ignored) -> Run[native.GenerateResponse]:
    """Start a native call for each choice of each prompt; the choices of a prompt are consecutive."""
    starts = [
        built(
            start_call(backend.generate, seeded(request, index), plan.model, plan.think_field, backend.limits, ignored),
            TextChoiceBuilder(echo, max_tokens_is_zero=plan.max_tokens_is_zero),
        )
        for request, echo in zip(plan.native_requests, plan.echoes, strict=True)
        for index in range(plan.best_of)
    ]
    source = streams(starts, threads=call.settings.max_n if backend.is_remote else 1, cancel=backend.cancel)
    return Run(source, len(starts), now=call.now, collect=not plan.stream, max_answer=call.settings.max_answer)


def _best(plan: CompletionPlan, choices: list[CollectedChoice], ignored: Ignored) -> list[CollectedChoice]:
    """Return the ``n`` choices of a prompt with the highest mean log-probability, the best first."""
    if plan.best_of == plan.n:
        return choices
    means = [mean_logprob(choice.logprobs) for choice in choices]
    if all(mean is None for mean in means):
        ignored.add("best_of", "The backend returned no log-probabilities.")
    ranks = [float("-inf") if mean is None else mean for mean in means]
    order = sorted(range(len(choices)), key=lambda index: -ranks[index])
    return [choices[index] for index in order[: plan.n]]
