"""Every setting of the middleware, with its type, unit, default and checks.

The keywords of ``OpenAICompat``, the flags of the command line and the table in the README are derived from
:class:`Settings`. Only values and their checks belong here; the modules that apply a setting implement its meaning.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypedDict

Overflow = Literal["error", "truncate"]
Unsupported = Literal["warn", "error"]
StoreFailure = Literal["answer", "refuse"]
#: returns the name of the caller of a request, by its environ; None for a caller without a login
Authenticate = Callable[[dict[str, Any]], str | int | None]
ReasoningField = Literal["both", "reasoning", "reasoning_content", "none"]
ToolsWithFormat = Literal["two_calls", "format"]

MEBIBYTE = 1024 * 1024

#: values of ``store`` that are the memory of one process
IN_MEMORY = ("sqlite://", "sqlite:///:memory:")

#: in ``allowed_hosts`` and ``allowed_origins``: those that Ollama allows
LOCAL = "local"


@dataclass(frozen=True)
class Sampling:
    """How OpenAI's sampling parameters are mapped to Ollama's options.

    The default is Ollama's current mapping: an unset temperature or top_p is sent as 1.0, which is OpenAI's documented
    default, and values are sent unchanged.

    :raises TypeError: a field has a value of another type.
    :raises ValueError: a number is negative or not finite, or *overflow* is unknown.

    Source: ollama ``openai/openai.go`` ``FromChatRequest`` (at fb3076099).
    """

    #: sent when the request has none; ``None``: the model's own default
    temperature: float | None = 1.0
    #: sent when the request has none; ``None``: the model's own default
    top_p: float | None = 1.0
    #: factor of a temperature in the request
    temperature_scale: float = 1.0
    #: factor of either penalty in the request
    penalty_scale: float = 1.0
    #: a seed in the request sets the temperature to 0
    seed_means_greedy: bool = False
    #: read the misspelt key ``presence_penalty_penalty`` if ``presence_penalty`` is absent
    misspelt_presence_penalty: bool = False
    #: the value of ``Settings.overflow`` where that is unset
    overflow: Overflow = "error"

    def __post_init__(self) -> None:
        for attribute in dataclasses.fields(self):
            name, value = attribute.name, getattr(self, attribute.name)
            if "bool" in str(attribute.type) and not isinstance(value, bool):
                raise TypeError(f"sampling: {name} must be a bool, not {value!r}")
            if "float" in str(attribute.type) and value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise TypeError(f"sampling: {name} must be a number, not {value!r}")
                if not (math.isfinite(value) and value >= 0):
                    raise ValueError(f"sampling: {name} must be 0 or above and finite, not {value!r}")
        if self.overflow not in ("error", "truncate"):
            raise ValueError(f"sampling: overflow must be 'error' or 'truncate', not {self.overflow!r}")

    @classmethod
    def model(cls) -> Sampling:
        """Return a mapping that sends no temperature or top_p of its own, so that the Modelfile's values apply."""
        return cls(temperature=None, top_p=None)

    @classmethod
    def v0_1_24(cls) -> Sampling:
        """Return the mapping of Ollama's first published middleware.

        Source: ollama v0.1.24 ``openai/openai.go`` ``fromRequest``.
        """
        return cls(
            temperature_scale=2.0,
            penalty_scale=2.0,
            seed_means_greedy=True,
            misspelt_presence_penalty=True,
            overflow="truncate",
        )


#: Ollama's options → their Go types. An option of a newer Ollama is missing here and passes unchecked.
#: Source: ollama ``api/types.go`` ``Options``, ``Runner``.
OPTION_TYPES: dict[str, str] = {
    "num_keep": "int",
    "seed": "int",
    "num_predict": "int",
    "top_k": "int",
    "top_p": "float32",
    "min_p": "float32",
    "typical_p": "float32",
    "repeat_last_n": "int",
    "temperature": "float32",
    "repeat_penalty": "float32",
    "presence_penalty": "float32",
    "frequency_penalty": "float32",
    "stop": "[]string",
    "num_ctx": "int",
    "num_batch": "int",
    "num_gpu": "int",
    "main_gpu": "int",
    "use_mmap": "bool",
    "numa": "bool",
    "num_thread": "int",
    "draft_num_predict": "int",
}

#: options that decide about the machine → the least and the greatest value that is passed on. Ollama accepts any, and a
#: runner ends for some: 100,000 threads cannot be started. The largest context of a model has 10 million tokens; a
#: value of −1 or 0 lets Ollama choose.
OPTION_RANGES: dict[str, tuple[int, int]] = {
    "num_ctx": (1, 16 * 1024 * 1024),
    "num_keep": (-1, 16 * 1024 * 1024),
    "num_batch": (1, 65_536),
    "num_gpu": (-1, 1_000),
    "main_gpu": (0, 255),
    "num_thread": (0, 1_024),
}

#: the values of ``think`` besides true and false
THINK_LEVELS = ("low", "medium", "high", "max")


def is_option_value(kind: str, value: object) -> bool:
    """Return whether Go would decode a JSON value as *kind*, a type in :data:`OPTION_TYPES`."""
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "[]string":
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "int":
        return -(2**63) <= value < 2**63 and value == int(value)
    return abs(value) < 3.4e38  # float32


def is_think_value(value: object) -> bool:
    """Return whether a value of ``think`` is valid for Ollama."""
    return isinstance(value, bool) or value in THINK_LEVELS


@dataclass(frozen=True)
class ModelSettings:
    """Defaults of one model, for native requests whose client does not set the value.

    :raises TypeError: *options* is not a mapping of names to values.
    :raises ValueError: a value is not valid in a native request.
    """

    #: Ollama's options, such as ``num_ctx``
    options: Mapping[str, Any] = field(default_factory=dict)
    #: seconds, or a Go duration such as ``5m``
    keep_alive: str | float | None = None
    #: a flag, or one of :data:`THINK_LEVELS`
    think: bool | str | None = None
    #: names of options that a request cannot set: its values are listed as ignored
    pinned: Sequence[str] = ()

    def __post_init__(self) -> None:
        options: Any = self.options
        pinned: Any = self.pinned
        if not isinstance(pinned, list | tuple | frozenset | set) or not all(isinstance(name, str) for name in pinned):
            raise TypeError(f"pinned must be a list of names of options, not {pinned!r}")
        object.__setattr__(self, "pinned", tuple(pinned))
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise TypeError(f"options must map names to values, not {options!r}")
        stop = self.options.get("stop")
        if isinstance(stop, list | tuple) and all(isinstance(text, str) for text in stop):
            # Empty ones ask for nothing, and an empty list would replace the stop sequences of the Modelfile.
            options = {**self.options, "stop": list(dict.fromkeys(filter(None, stop)))}
            options = {name: value for name, value in options.items() if name != "stop" or value}
        object.__setattr__(self, "options", MappingProxyType(dict(options)))
        try:
            json.dumps(dict(options), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"options must have JSON values, not {options!r}") from error
        for name, value in self.options.items():
            if name in OPTION_TYPES and not is_option_value(OPTION_TYPES[name], value):
                raise ValueError(f"option {name!r} must be of type {OPTION_TYPES[name]}, not {value!r}")
            low, high = OPTION_RANGES.get(name, (None, None))
            if low is not None and high is not None and not low <= value <= high:
                raise ValueError(f"option {name!r} must be from {low} to {high}, not {value!r}")
        if self.options.get("num_predict") == 0:
            raise ValueError("num_predict must not be 0: every answer would be empty")
        if type(self.keep_alive) not in (str, int, float, type(None)):
            raise ValueError(f"keep_alive must be seconds or a duration, not {self.keep_alive!r}")
        if isinstance(self.keep_alive, float) and not math.isfinite(self.keep_alive):
            raise ValueError("keep_alive must be finite")
        if self.think is not None and not is_think_value(self.think):
            raise ValueError(f"think must be true, false or one of {', '.join(THINK_LEVELS)}, not {self.think!r}")


def _env(help: str, default: Any) -> Any:
    """Declare a scalar setting, which has a command-line flag and an environment variable."""
    return field(default=default, metadata={"help": help})


def _keyword(help: str, **default: Any) -> Any:
    """Declare a setting that is not a scalar: it can be set by a keyword or a TOML file only."""
    return field(metadata={"help": help, "keyword_only": True}, **default)


_SCALAR_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


def _check(setting: dataclasses.Field[Any], value: Any) -> None:
    """Raise if the value of a scalar setting is not valid.

    :raises TypeError: it has another type.
    :raises ValueError: it is a number that is not above 0 and finite.
    """
    types = _SCALAR_TYPES.get(str(setting.type))
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        raise TypeError(f"{setting.name} must be {setting.type}, not {value!r}")
    if types and int in types and not 0 < value < math.inf:
        raise ValueError(f"{setting.name} must be above 0 and finite, not {value!r}")


@dataclass(frozen=True)
class Settings:
    """All settings of the middleware. Sizes are bytes, times are seconds.

    :raises TypeError: a setting has a value of another type.
    :raises ValueError: a value is not valid.
    """

    prefix: str = _env("path prefix of OpenAI's routes", "/v1")
    sampling: Sampling = _keyword("how sampling parameters are mapped", default=Sampling())
    aliases: Mapping[str, str] = _keyword(
        "model name in requests (``gpt-4o``, or a pattern: ``gpt-*``) → name of the model that answers",
        default_factory=dict,
    )
    models: Mapping[str, ModelSettings] = _keyword(
        "name or pattern of a model → its default ``options``, ``keep_alive`` and ``think``, and ``pinned``: the "
        "options that a request cannot set",
        default_factory=dict,
    )
    overflow: Overflow | None = _env(
        "what happens to a prompt longer than the context: ``error`` answers 400, ``truncate`` lets Ollama cut it; "
        "unset: the value of ``sampling``",
        None,
    )
    unsupported: Unsupported = _env(
        "what happens to a parameter that Ollama cannot honour: ``warn`` ignores it and lists it in the response "
        "header ``openai-compat-ignored``, ``error`` answers 400",
        "warn",
    )
    reasoning_field: ReasoningField = _env(
        "the response field of reasoning: ``reasoning`` (Ollama's, OpenRouter's), ``reasoning_content`` (DeepSeek's, "
        "vLLM's), ``both`` or ``none``",
        "both",
    )
    native_admin: bool = _env("pass pull, push, create, copy, delete and blobs through to a URL backend", False)
    # A model may take minutes to load, and Ollama sends no head before the first token.
    connect_timeout: float = _env("seconds for connecting to a URL backend", 5.0)
    head_timeout: float = _env("seconds until a URL backend's response begins; includes loading the model", 600.0)
    idle_timeout: float = _env("seconds without a complete line of a URL backend's response", 300.0)
    # One a thread of `openai-compat serve`, which has 64.
    pool_size: int = _env("connections to a URL backend that stay open for reuse", 64)
    # Two images of 10 MiB in base64, and a long chat.
    max_body: int = _env("bytes of a request body, both compressed and decompressed", 32 * MEBIBYTE)
    max_answer: int = _env("bytes of a native response that is not streamed to the client", 64 * MEBIBYTE)
    # A line is one token, or a whole response with log probabilities where a backend does not stream.
    max_line: int = _env("bytes of one line of a native response", 16 * MEBIBYTE)
    max_messages: int = _env("messages in a request", 10_000)
    max_tools: int = _env("tools in a request", 128)  # OpenAI's limit
    max_stop: int = _env("stop sequences in a request", 128)  # OpenAI's is 4; writers' front ends send dozens
    max_n: int = _env("choices of a response (``n``, ``best_of``); with a URL backend each has a thread", 8)
    max_calls: int = _env("native calls of one completions request (prompts × choices)", 128)
    max_inputs: int = _env("inputs of an embeddings request", 2048)  # OpenAI's limit
    embed_batch: int = _env("inputs of one native embed call; a request with more makes several calls", 256)
    retry_strict: bool = _env(
        "generate once more, with the error in the prompt, if the arguments of a call do not match the schema of a "
        "strict function, or a response that is not streamed does not match its strict schema",
        False,
    )
    emulate_tools: bool = _env(
        "give tools to models that have none, and generate once more, in the same way, where Ollama lost a call; off: "
        "Ollama's 400",
        True,
    )
    rescue_tool_calls: bool = _env("take calls that a model wrote as text for calls", True)
    tools_with_format: ToolsWithFormat = _env(
        "how tools and an output format go together: ``two_calls`` generates with the tools first, and a second time "
        "with the format if no call came; ``format`` is Ollama's way, in which no call is possible",
        "two_calls",
    )
    fetch_images: bool = _env("fetch images by their http or https URL, from public addresses only", False)
    max_images: int = _env("images of a request that are fetched", 16)
    max_image: int = _env("bytes of a fetched image; all of a request together have twice as many", 10 * MEBIBYTE)
    image_timeout: float = _env("seconds for fetching an image; all of a request together have twice as long", 10.0)
    fetch_files: bool = _env("fetch files by their http or https URL, from public addresses only", False)
    max_files: int = _env("files of a request", 16)
    max_file: int = _env(
        "bytes of a file; all that are fetched for a request together have twice as many", 16 * MEBIBYTE
    )
    max_pages: int = _env("pages of all PDFs of a request", 200)
    # Half a million tokens: more than the context of most models.
    max_file_text: int = _env("characters of text of all files of a request", 2_000_000)
    file_timeout: float = _env("seconds for fetching and reading all files of a request", 10.0)
    authenticate: Authenticate | None = _keyword(
        "function of the environ that returns the caller's name, or None for a 401; guards OpenAI's routes, and "
        "``/api`` of a URL backend",
        default=None,
    )
    allowed_hosts: str | Sequence[str] | None = _env(
        "values of ``Host`` that are allowed, separated by commas, with ``*`` for any text; ``local``: those that "
        "Ollama allows; unset: all (``serve``: ``local`` at loopback and private addresses)",
        None,
    )
    allowed_origins: str | Sequence[str] | None = _env(
        "values of ``Origin`` that are allowed, and get CORS headers; ``local``, ``*`` and unset as for hosts; with "
        "``authenticate`` unset allows none but the server's own",
        None,
    )
    delete_models: bool = _env("allow ``DELETE /v1/models/{id}`` to delete a model", False)
    store: str | None = _env(
        "database of stored responses, conversations and completions: ``sqlite:///file``, ``sqlite://`` (memory), "
        "``postgresql+psycopg://…``; unset: nothing is stored",
        None,
    )
    store_failure: StoreFailure = _env(
        "what happens to a response or a completion that cannot be stored: ``answer`` sends it and lists ``store`` as "
        "ignored, ``refuse`` answers 503",
        "answer",
    )
    max_background: int = _env("responses that one process generates in the background at once; more wait", 8)
    store_timeout: float = _env("seconds that one operation of the store may take, in total", 2.0)
    store_ttl: float = _env("seconds until a stored object expires that is not used", 30 * 86400.0)  # OpenAI's 30 days
    store_max_objects: int = _env("stored objects of one owner; the least recently used are deleted first", 10_000)
    store_max_bytes: int = _env(
        "stored bytes of one owner; the least recently used objects are deleted first", 1024 * MEBIBYTE
    )

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        if not isinstance(self.sampling, Sampling):
            raise TypeError(f"sampling must be a Sampling, not {self.sampling!r}")
        if not isinstance(self.store, str | None):
            raise TypeError(f"store must be a URL, not a {type(self.store).__name__}")
        if self.authenticate is not None and not callable(self.authenticate):
            raise TypeError(f"authenticate must be a function, not {self.authenticate!r}")
        for name in ("allowed_hosts", "allowed_origins"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        object.__setattr__(self, "aliases", _aliases(self.aliases))
        object.__setattr__(self, "models", _models(self.models))
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/") or "//" in self.prefix):
            raise ValueError(f"prefix must be empty or begin with '/' and not end with it, not {self.prefix!r}")
        if self.overflow not in (None, "error", "truncate"):
            raise ValueError(f"overflow must be 'error' or 'truncate', not {self.overflow!r}")
        for name, model in self.models.items():
            if len(model.options.get("stop") or ()) > self.max_stop:
                raise ValueError(f"models: {name}: more than {self.max_stop} stop sequences (max_stop)")
        if self.unsupported not in ("warn", "error"):
            raise ValueError(f"unsupported must be 'warn' or 'error', not {self.unsupported!r}")
        if self.tools_with_format not in ("two_calls", "format"):
            raise ValueError(f"tools_with_format must be 'two_calls' or 'format', not {self.tools_with_format!r}")
        if self.store_failure not in ("answer", "refuse"):
            raise ValueError(f"store_failure must be 'answer' or 'refuse', not {self.store_failure!r}")
        if self.reasoning_field not in ("both", "reasoning", "reasoning_content", "none"):
            known = "'both', 'reasoning', 'reasoning_content' or 'none'"
            raise ValueError(f"reasoning_field must be {known}, not {self.reasoning_field!r}")

    @property
    def truncates(self) -> bool:
        """Return whether Ollama cuts a prompt that is longer than the context, instead of an error."""
        return (self.overflow or self.sampling.overflow) == "truncate"

    @property
    def timeout(self) -> tuple[float, float, float]:
        """Return the time-outs of a URL backend: (connect, head, idle), in seconds."""
        return (self.connect_timeout, self.head_timeout, self.idle_timeout)


def _names(setting: str, given: Any) -> tuple[str, ...] | None:
    """Return a list of names, which may be given as text with commas; None if it is not given.

    :raises TypeError: it is neither text nor a list of texts.
    :raises ValueError: it is empty.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{setting} must be a list of names, not {given!r}")
    names = tuple(name.strip().rstrip("/") for name in given if name.strip())
    if not names:
        raise ValueError(f"{setting} must name at least one, or be unset")
    return names


def _aliases(given: Any) -> Mapping[str, str]:
    """Check aliases, and return a copy that cannot change.

    :raises TypeError: it is not a mapping of names to names.
    :raises ValueError: a name is empty.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for pair in given.items() for name in pair):
        raise TypeError(f"aliases must map names to names, not {given!r}")
    if not all(name for pair in given.items() for name in pair):
        raise ValueError("aliases cannot have an empty name")
    return MappingProxyType(dict(given))


def _models(given: Any) -> Mapping[str, ModelSettings]:
    """Check settings of models, and return a copy that cannot change.

    :raises TypeError: it is not a mapping of names to settings of a model.
    :raises ValueError: a value is not valid.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"models must map names to settings, not {given!r}")
    return MappingProxyType({name: _model(name, value) for name, value in given.items()})


def _model(name: str, given: Any) -> ModelSettings:
    if isinstance(given, ModelSettings):
        return given
    known = [attribute.name for attribute in dataclasses.fields(ModelSettings)]
    if not isinstance(given, Mapping) or set(given) - set(known):
        raise TypeError(f"models: {name}: the settings must be some of {', '.join(known)}, not {given!r}")
    try:
        return ModelSettings(**given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"models: {name}: {error}") from error


class Options(TypedDict, total=False):
    """The keywords of ``OpenAICompat``, for type checkers: the fields of :class:`Settings` (a test compares them)."""

    prefix: str
    sampling: Sampling
    aliases: Mapping[str, str]
    models: Mapping[str, ModelSettings]
    overflow: Overflow | None
    unsupported: Unsupported
    reasoning_field: ReasoningField
    native_admin: bool
    connect_timeout: float
    head_timeout: float
    idle_timeout: float
    pool_size: int
    max_body: int
    max_answer: int
    max_line: int
    max_messages: int
    max_tools: int
    max_stop: int
    max_n: int
    max_calls: int
    max_inputs: int
    embed_batch: int
    retry_strict: bool
    emulate_tools: bool
    rescue_tool_calls: bool
    tools_with_format: ToolsWithFormat
    fetch_images: bool
    max_images: int
    max_image: int
    image_timeout: float
    fetch_files: bool
    max_files: int
    max_file: int
    max_pages: int
    max_file_text: int
    file_timeout: float
    authenticate: Authenticate | None
    allowed_hosts: str | Sequence[str] | None
    allowed_origins: str | Sequence[str] | None
    delete_models: bool
    store: str | None
    store_failure: StoreFailure
    max_background: int
    store_timeout: float
    store_ttl: float
    store_max_objects: int
    store_max_bytes: int


def environment_name(setting: str) -> str:
    """Return the environment variable of a setting: ``max_body`` → ``OPENAI_COMPAT_MAX_BODY``."""
    return "OPENAI_COMPAT_" + setting.upper()


def scalars() -> list[dataclasses.Field[Any]]:
    """Return the scalar settings, which have a command-line flag and an environment variable each."""
    return [setting for setting in dataclasses.fields(Settings) if not setting.metadata.get("keyword_only")]
