"""Ollama's own requests and responses. Used qualified, as ``native.ChatRequest``.

Names are Ollama's. ``UNSET`` is Go's ``omitempty``: the key is left out. Whatever a response may lack has a default,
so that a line of an older server, or of another implementation, still decodes. Fields in ``INCIDENTAL`` are absent too
if their value has another type: nothing depends on them.

Source: ollama ``api/types.go`` (at fb3076099).
"""

from __future__ import annotations

import re
from calendar import timegm
from typing import Any, ClassVar

from msgspec import UNSET, Raw, Struct, UnsetType

# -- requests ---------------------------------------------------------------------------------


class ToolCallFunction(Struct):
    """Source: ``ToolCallFunction``."""

    name: str = ""
    #: a JSON object, its keys in their order
    arguments: Raw | UnsetType = UNSET
    index: int | None = 0

    INCIDENTAL: ClassVar = frozenset({"index"})


class ToolCall(Struct):
    """Source: ``ToolCall``. Servers before v0.12.10 give no id."""

    function: ToolCallFunction
    id: str | UnsetType | None = UNSET

    INCIDENTAL: ClassVar = frozenset({"id"})


class Message(Struct):
    """Source: ``Message``."""

    role: str
    content: str = ""
    thinking: str | UnsetType = UNSET
    #: base64 without a data-URI prefix; audio clips travel here too
    images: list[str] | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    tool_name: str | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


class ToolFunction(Struct):
    """Source: ``ToolFunction``. ``parameters`` goes verbatim; Ollama drops what it does not know."""

    name: str
    description: str | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET


class Tool(Struct):
    """Source: ``Tool``."""

    function: ToolFunction
    type: str = "function"


class ChatRequest(Struct):
    """The request of ``POST /api/chat``. Source: ``ChatRequest``."""

    model: str
    messages: list[Message]
    options: dict[str, Any]
    #: always true, whatever the client requests, so that a response can be bounded and cancelled
    stream: bool = True
    #: ``"json"`` or a schema
    format: str | Raw | UnsetType = UNSET
    #: seconds, or a Go duration
    keep_alive: str | float | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    #: on, off, or one of low, medium, high, max
    think: bool | str | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    shift: bool | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    #: 0..20
    top_logprobs: int | UnsetType = UNSET


class GenerateRequest(Struct):
    """The request of ``POST /api/generate``. Source: ``GenerateRequest``."""

    model: str
    prompt: str
    options: dict[str, Any]
    suffix: str | UnsetType = UNSET
    #: always true, as in chat
    stream: bool = True
    #: send the prompt without the model's template
    raw: bool | UnsetType = UNSET
    format: str | Raw | UnsetType = UNSET
    keep_alive: str | float | UnsetType = UNSET
    think: bool | str | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    shift: bool | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    #: 0..20
    top_logprobs: int | UnsetType = UNSET


class EmbedRequest(Struct):
    """The request of ``POST /api/embed``. Source: ``EmbedRequest``."""

    model: str
    input: str | list[str]
    options: dict[str, Any] | UnsetType = UNSET
    keep_alive: str | float | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    dimensions: int | UnsetType = UNSET


class DeleteRequest(Struct):
    """The request of ``DELETE /api/delete``. Source: ``DeleteRequest``; older servers read ``name`` only."""

    model: str
    name: str


class ShowRequest(Struct):
    """The request of ``POST /api/show``, with one of both keys; older servers read ``name`` only.

    Source: ``ShowRequest``.
    """

    name: str | UnsetType = UNSET
    model: str | UnsetType = UNSET


# -- responses --------------------------------------------------------------------------------


class TokenLogprob(Struct):
    """Source: ``TokenLogprob``."""

    token: str
    logprob: float | None = None
    #: the token's UTF-8 bytes; absent before v0.12.12
    bytes: list[int] | None = None

    INCIDENTAL: ClassVar = frozenset({"logprob", "bytes", "top_logprobs"})


class Logprob(TokenLogprob):
    """Source: ``Logprob``."""

    top_logprobs: list[TokenLogprob] | None = None


class AnswerMessage(Struct):
    """The message of a chat response. Source: ``Message``."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None


class Metrics(Struct):
    """What a native call used: counts are tokens, durations nanoseconds. Source: ``Metrics``."""

    prompt_eval_count: int | float | None = None
    #: how much of prompt_eval_count came from the cache; newer servers only
    prompt_eval_cached_count: int | float | None = None
    eval_count: int | float | None = None
    total_duration: int | float | None = None
    load_duration: int | float | None = None
    prompt_eval_duration: int | float | None = None
    eval_duration: int | float | None = None

    INCIDENTAL: ClassVar = frozenset(
        (
            "prompt_eval_count",
            "prompt_eval_cached_count",
            "eval_count",
            "total_duration",
            "load_duration",
            "prompt_eval_duration",
            "eval_duration",
        )
    )


class StreamLine(Metrics):
    """What every line of a native stream may have: an end, its usage, or an error."""

    done: bool | None = None
    created_at: str | None = None
    done_reason: str | None = None
    logprobs: list[Logprob] | None = None
    #: a string; a JSON text in a string; with proxies also an object
    error: Any = UNSET

    INCIDENTAL: ClassVar = Metrics.INCIDENTAL | {"created_at", "done_reason", "logprobs"}

    def is_answer(self) -> bool:
        """Return whether this is a message at all, and not other JSON."""
        return self.done is not None

    @property
    def is_bare_end(self) -> bool:
        """Return whether this is a final message without a reason and without counts."""
        return bool(self.done) and not self.done_reason and self.eval_count is None and self.prompt_eval_count is None


class ChatResponse(StreamLine):
    """One line of a chat response, or a whole one. Source: ``ChatResponse``."""

    message: AnswerMessage | None = None

    def is_answer(self) -> bool:
        """Return whether this is a message at all, and not other JSON."""
        return self.message is not None or self.done is not None


class GenerateResponse(StreamLine):
    """One line of a generated text, or a whole one. Source: ``GenerateResponse``."""

    response: str | None = None
    thinking: str | None = None

    def is_answer(self) -> bool:
        """Return whether this is a message at all, and not other JSON."""
        return self.response is not None or self.done is not None


class EmbedResponse(Metrics, kw_only=True):
    """The response of ``POST /api/embed``. Source: ``EmbedResponse``."""

    #: each an array of float32, as bytes: whether it is decoded depends on the format of the response
    embeddings: list[Raw] | None


class ModelDetails(Struct):
    """Source: ``ModelDetails``."""

    family: str | None = None
    families: list[str] | None = None

    INCIDENTAL: ClassVar = frozenset({"family", "families"})


class ListedModel(Struct):
    """Source: ``ListModelResponse``."""

    name: str | None = None
    model: str | None = None
    modified_at: str | None = None
    #: newer servers only
    capabilities: list[str] | None = None
    #: of loaded models only: the context length in force, in tokens
    context_length: int | float | None = None
    #: of the model's content: another digest is another model
    digest: str | None = None
    details: ModelDetails | None = None

    INCIDENTAL: ClassVar = frozenset(
        {"details", "name", "model", "modified_at", "capabilities", "context_length", "digest"}
    )

    @property
    def request_name(self) -> str:
        """Return the name of the model in a request: servers fill in ``model``, ``name`` or both."""
        return self.model or self.name or ""

    @property
    def can_chat(self) -> bool:
        """Return whether the model can chat; true where the server does not say what it is."""
        return not self._is_embedder and (self.capabilities is None or "completion" in self.capabilities)

    @property
    def _is_embedder(self) -> bool:
        """Return whether the model's family makes embeddings only: lists say ``completion`` of those too."""
        details = self.details or ModelDetails()
        return any("bert" in family.lower() for family in (details.family or "", *(details.families or ())))


class ListResponse(Struct):
    """The response of ``GET /api/tags`` and ``GET /api/ps``. Source: ``ListResponse``."""

    #: null if empty, as Go writes it
    models: list[ListedModel] | None


class ShowResponse(Struct):
    """The response of ``POST /api/show``. Source: ``ShowResponse``."""

    modified_at: str | None = None
    #: the Modelfile's parameters: one a line, a name, blanks and a value
    parameters: str | None = None
    capabilities: list[str] | None = None

    INCIDENTAL: ClassVar = frozenset({"modified_at", "parameters", "capabilities"})

    @property
    def num_ctx(self) -> int | None:
        """Return the context length that the Modelfile sets, in tokens."""
        found = re.search(r"^num_ctx\s+(\d{1,9})\s*$", self.parameters or "", re.M | re.A)
        return int(found[1]) if found else None


class VersionResponse(Struct):
    """The response of ``GET /api/version``."""

    version: str = ""


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII
)


def unix_time(timestamp: str | None, default: int) -> int:
    """Return the Unix seconds of an RFC 3339 timestamp with any number of digits and any offset.

    :param default: returned for Go's zero time, and for a timestamp that is absent or not valid.
    """
    match = _RFC3339.fullmatch(timestamp or "")
    if not match:
        return default
    sign, hours, minutes = match[7], int(match[8] or 0), int(match[9] or 0)
    try:
        seconds = timegm(tuple(map(int, match.group(1, 2, 3, 4, 5, 6))))
    except ValueError:
        return default
    seconds -= (hours * 3600 + minutes * 60) * (-1 if sign == "-" else 1)
    return seconds if seconds > 0 else default
