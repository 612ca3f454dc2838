"""Native calls with thinking, for models that may not support it.

Ollama rejects ``think`` for a model without this capability, but some clients send a reasoning effort with every
request. The call is then retried without ``think``, and the model is remembered for a while. Older servers, and some
models, know thinking but no levels of it, or not all: the call is then retried with ``think: true``. No other retry
belongs here.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec import UNSET, structs

from openai_compat.errors import APIError
from openai_compat.native import types as native
from openai_compat.native.capabilities import KnownLimits
from openai_compat.native.client import StartCall
from openai_compat.native.stream import NativeStream
from openai_compat.translate.fields import Ignored
from openai_compat.transport.cancel import Cancel

R_contra = TypeVar("R_contra", native.ChatRequest, native.GenerateRequest, contravariant=True)
R = TypeVar("R", native.ChatRequest, native.GenerateRequest)
L = TypeVar("L", bound="native.StreamLine")


class Send(Protocol[R_contra, L]):
    """A method that sends a native request: ``Backend.chat`` or ``Backend.generate``."""

    def __call__(
        self, request: R_contra, /, *, model: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[L]:
        """Send a request and return its stream, whose first message has been read."""


def start_call(
    send: Send[R, L], request: R, model: str, think_field: str | None, limits: KnownLimits, ignored: Ignored
) -> StartCall[L]:
    """Return a function that starts a native call, without thinking if the model does not support it.

    *request* is not changed; a retry sends a copy. The returned function raises :class:`APIError`: the native errors,
    and 400 under ``unsupported="error"`` if *think_field* has no effect.

    :param model: the client's name for the model.
    :param think_field: the field of the client's request that enabled thinking, listed as ignored if it has no effect;
        None if a setting did.
    """

    def start(cancel: Cancel) -> NativeStream[L]:
        send_request = partial(send, model=model, cancel=cancel)
        sent = request
        think, why = _supported(sent, limits)
        while True:  # less each time: a level, then true, then nothing
            if think != sent.think:
                sent = structs.replace(sent, think=think)
                if think_field is not None:
                    ignored.unsupported(think_field, why)
            if sent.think is UNSET or sent.think is False:
                return send_request(sent)
            try:
                return send_request(sent)
            except APIError as error:
                learnt = _learn(error, sent, limits)
                if learnt is None:
                    raise
                think, why = learnt

    return start


_NO_THINKING = "The model does not support thinking."
_NO_LEVELS = "The model or the server does not support this level of thinking."

#: texts of servers that know no levels, or not this one; some are errors of a template, with the status 500
_LEVEL_REFUSED = re.compile(
    r"think value .*is not supported|invalid think value|unsupported .*reasoning[ _]effort|"
    r"reasoning[ _]effort .*not supported",
    re.I | re.S,
)


def _supported(request: native.ChatRequest | native.GenerateRequest, limits: KnownLimits) -> tuple[Any, str]:
    """Return the ``think`` that a model is known to support, and why it differs from the request's."""
    if request.think is UNSET or request.think is False:
        return request.think, ""
    if request.model in limits.cannot_think:
        return UNSET, _NO_THINKING
    if isinstance(request.think, str) and f"{request.model} {request.think}" in limits.refused_levels:
        return True, _NO_LEVELS
    return request.think, ""


def _learn(
    error: APIError, request: native.ChatRequest | native.GenerateRequest, limits: KnownLimits
) -> tuple[Any, str] | None:
    """Remember what an error says about a model's thinking; return the ``think`` to send instead, and why.

    :returns: None if the error says nothing about it.
    """
    if error.status == 400 and "does not support thinking" in error.message:
        limits.cannot_think.add(request.model)
        return UNSET, _NO_THINKING
    if isinstance(request.think, str) and error.status in (400, 422, 502) and _LEVEL_REFUSED.search(error.message):
        limits.refused_levels.add(f"{request.model} {request.think}")
        return True, _NO_LEVELS
    return None
