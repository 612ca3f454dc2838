"""Native calls with thinking, for models that may not support it.

Ollama rejects ``think`` for a model without this capability, but some clients send a reasoning effort with every
request. The call is then retried without ``think``, and the model is remembered for a while. No other retry belongs
here.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, TypeVar

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
        if request.think is UNSET or request.think is False:
            return send_request(request)
        if request.model not in limits.cannot_think:
            try:
                return send_request(request)
            except APIError as error:
                if error.status != 400 or "does not support thinking" not in error.message:
                    raise
                limits.cannot_think.add(request.model)
        if think_field is not None:
            ignored.unsupported(think_field, "The model does not support thinking.")
        return send_request(structs.replace(request, think=UNSET))

    return start
