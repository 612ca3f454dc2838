"""Native calls of models that may not support thinking.

Ollama refuses a request with ``think`` for such a model. Clients that send an effort with every request must still be
able to use it: the call is made again without thinking, and the model is remembered for a while.
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
    """Sends a native request: ``Backend.chat`` or ``Backend.generate``."""

    def __call__(
        self, request: R_contra, /, *, model: str | None = None, cancel: Cancel | None = None
    ) -> NativeStream[L]: ...


def start_call(
    send: Send[R, L], request: R, model: str, think_field: str | None, limits: KnownLimits, ignored: Ignored
) -> StartCall[L]:
    """Make the function that starts a native call, without thinking if the model does not support it.

    *request* is never changed: the second call has a copy.

    :param model: the client's name for the model.
    :param think_field: the field of the client's request that turned thinking on, which is then listed as ignored;
        None if a setting did.
    :raises APIError: (the function) 400 under ``unsupported="error"``; the native errors.
    """

    def start(cancel: Cancel) -> NativeStream[L]:
        call = partial(send, model=model, cancel=cancel)
        if request.think is UNSET or request.think is False:
            return call(request)
        if request.model not in limits.cannot_think:
            try:
                return call(request)
            except APIError as error:
                if error.status != 400 or "does not support thinking" not in error.message:
                    raise
                limits.cannot_think.add(request.model)
        if think_field is not None:
            ignored.unsupported(think_field, "The model does not support thinking.")
        return call(structs.replace(request, think=UNSET))

    return start
