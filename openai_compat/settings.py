"""What can be set, once.

Every option of the middleware is a field of :class:`Settings`: the keywords of ``OpenAICompat``,
the command line and the table in the README are read off it, so none of them can drift.
Only plain values live here; what a setting means is code elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypedDict

Overflow = Literal["error", "truncate"]
Unsupported = Literal["warn", "error"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Sampling:
    """How OpenAI's sampling parameters become Ollama's options.

    The default is Ollama's mapping of today: an unset temperature or top_p is sent as 1.0, as OpenAI
    documents it, and values are sent as they are.

    Source: ollama ``openai/openai.go`` ``FromChatRequest`` (at fb3076099).
    """

    #: sent when the request gives none; ``None`` leaves it to the model
    temperature: float | None = 1.0
    #: sent when the request gives none; ``None`` leaves it to the model
    top_p: float | None = 1.0
    #: a given temperature is multiplied by this
    temperature_scale: float = 1.0
    #: both given penalties are multiplied by this
    penalty_scale: float = 1.0
    #: a given seed forces temperature 0
    seed_means_greedy: bool = False
    #: the misspelt key ``presence_penalty_penalty`` is read where ``presence_penalty`` is absent
    misspelt_presence_penalty: bool = False
    #: what ``overflow=None`` means
    overflow: Overflow = "error"

    def __post_init__(self) -> None:
        for row in dataclasses.fields(self):
            value = getattr(self, row.name)
            if "bool" in str(row.type) and not isinstance(value, bool):
                raise TypeError(f"sampling: {row.name} must be a bool, not {value!r}")
            if "float" in str(row.type) and value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise TypeError(f"sampling: {row.name} must be a number, not {value!r}")
                if not (math.isfinite(value) and value >= 0):
                    raise ValueError(f"sampling: {row.name} must be 0 or above and finite, not {value!r}")
        if self.overflow not in ("error", "truncate"):
            raise ValueError(f"sampling: overflow must be 'error' or 'truncate', not {self.overflow!r}")

    @classmethod
    def model(cls) -> Sampling:
        """Leave what the request does not set to the model's own Modelfile."""
        return cls(temperature=None, top_p=None)

    @classmethod
    def v0_1_24(cls) -> Sampling:
        """Map as the first published middleware did.

        Source: ollama v0.1.24 ``openai/openai.go`` ``fromRequest``.
        """
        return cls(
            temperature_scale=2.0,
            penalty_scale=2.0,
            seed_means_greedy=True,
            misspelt_presence_penalty=True,
            overflow="truncate",
        )


#: Ollama's options and the Go type of each. Source: ``Options``, ``Runner``; option names that are not here are newer.
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
    "num_thread": "int",
    "draft_num_predict": "int",
}

#: the levels of ``think``, beside on and off
THINK_LEVELS = ("low", "medium", "high", "max")


def is_option_value(kind: str, value: object) -> bool:
    """Return whether a JSON value has one of the Go types of :data:`OPTION_TYPES`."""
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
    """Return whether Ollama knows this value of ``think``."""
    return isinstance(value, bool) or value in THINK_LEVELS


@dataclass(frozen=True)
class ModelSettings:
    """What a model's requests have where the client sets nothing.

    :raises TypeError: the options are no mapping of names.
    :raises ValueError: a value that no native request could have.
    """

    #: Ollama's options, as ``num_ctx``
    options: Mapping[str, Any] = field(default_factory=dict)
    #: seconds, or a Go duration
    keep_alive: str | float | None = None
    #: on, off, or one of low, medium, high, max
    think: bool | str | None = None

    def __post_init__(self) -> None:
        options: Any = self.options
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise TypeError(f"options must map names to values, not {options!r}")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        for name, value in self.options.items():
            if name in OPTION_TYPES and not is_option_value(OPTION_TYPES[name], value):
                raise ValueError(f"option {name!r} must be of type {OPTION_TYPES[name]}, not {value!r}")
        if self.options.get("num_predict") == 0:
            raise ValueError("num_predict of 0 would leave no text to any request")
        if type(self.keep_alive) not in (str, int, float, type(None)):
            raise ValueError(f"keep_alive must be seconds or a duration, not {self.keep_alive!r}")
        if isinstance(self.keep_alive, float) and not math.isfinite(self.keep_alive):
            raise ValueError("keep_alive must be finite")
        if self.think is not None and not is_think_value(self.think):
            raise ValueError(f"think must be on, off or one of {', '.join(THINK_LEVELS)}, not {self.think!r}")


def _env(help: str, default: Any) -> Any:
    """A scalar setting, which the command line and the environment can give too."""
    return field(default=default, metadata={"help": help})


def _keyword(help: str, **default: Any) -> Any:
    """A setting that is no single value: it comes as a keyword, or from a TOML file."""
    return field(metadata={"help": help, "keyword_only": True}, **default)


_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


def _check(row: dataclasses.Field[Any], value: Any) -> None:
    """
    :raises TypeError: a scalar of another type.
    :raises ValueError: a number that is not above 0 and finite.
    """
    wanted = _KINDS.get(str(row.type))
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
        raise TypeError(f"{row.name} must be {row.type}, not {value!r}")
    if wanted and int in wanted and not 0 < value < math.inf:
        raise ValueError(f"{row.name} must be above 0 and finite, not {value!r}")


@dataclass(frozen=True)
class Settings:
    """All options of the middleware. Sizes are bytes, times are seconds."""

    prefix: str = _env("where OpenAI's routes begin", "/v1")
    sampling: Sampling = _keyword("how sampling parameters map", default=Sampling())
    aliases: Mapping[str, str] = _keyword(
        "names that clients ask for (``gpt-4o``, or a pattern: ``gpt-*``) → the model behind each",
        default_factory=dict,
    )
    models: Mapping[str, ModelSettings] = _keyword(
        "name or pattern of a model → its ``options``, ``keep_alive`` and ``think`` where a request gives none",
        default_factory=dict,
    )
    overflow: Overflow | None = _env(
        "a prompt longer than the context: ``error`` refuses it, ``truncate`` lets Ollama cut it; "
        "unset: as ``sampling`` says",
        None,
    )
    unsupported: Unsupported = _env(
        "a parameter that Ollama can never honour: ``warn`` accepts and lists it, ``error`` refuses it", "warn"
    )
    reasoning_content: bool = _env("send reasoning as ``reasoning_content`` too, beside ``reasoning``", True)
    native_admin: bool = _env("let pull, push, create, copy, delete and blobs through to a URL backend", False)
    connect_timeout: float = _env("seconds to reach a URL backend", 5.0)
    head_timeout: float = _env("seconds a URL backend may take to its first line (a model loads)", 600.0)
    idle_timeout: float = _env("seconds a URL backend may be silent between two lines", 300.0)
    pool_size: int = _env("connections to a URL backend that are kept open", 64)
    max_body: int = _env("bytes of a request body, as sent and inflated", 32 * MEBIBYTE)
    max_answer: int = _env("bytes of a native answer that is collected", 64 * MEBIBYTE)
    max_line: int = _env("bytes of one native line", 16 * MEBIBYTE)
    max_messages: int = _env("messages of a request", 10_000)
    max_tools: int = _env("tools of a request", 128)
    max_stop: int = _env("stop sequences of a request", 16)
    max_n: int = _env("choices of an answer (``n``, ``best_of``); behind a URL as many threads", 8)
    max_calls: int = _env("native calls that one completions request may lead to (prompts × choices)", 128)
    max_inputs: int = _env("inputs of an embeddings request", 2048)
    embed_batch: int = _env("inputs that go up in one native call; more are split and joined in order", 256)
    retry_strict: bool = _env(
        "ask once more, with the error, when an answer that is not streamed does not match its strict schema", False
    )
    fetch_images: bool = _env("fetch the images of http(s) URLs; only public addresses are asked", False)
    max_image: int = _env("bytes of an image that is fetched", 10 * MEBIBYTE)
    image_timeout: float = _env("seconds that fetching one image may take in all", 10.0)
    delete_models: bool = _env("let ``DELETE /v1/models/{id}`` delete a model", False)
    store: str | None = _env(
        "where stored completions are kept: ``sqlite:///file``, ``sqlite://`` (memory), ``postgresql+psycopg://…``; "
        "unset: nothing is kept",
        None,
    )
    store_ttl: float = _env("seconds that an object is kept", 30 * 86400.0)
    store_max_objects: int = _env("objects kept for one owner; the oldest go first", 10_000)
    store_max_bytes: int = _env("bytes kept for one owner; the oldest go first", 1024 * MEBIBYTE)

    def __post_init__(self) -> None:
        for row in dataclasses.fields(self):
            _check(row, getattr(self, row.name))
        if not isinstance(self.sampling, Sampling):
            raise TypeError(f"sampling must be a Sampling, not {self.sampling!r}")
        if not isinstance(self.store, str | None):
            raise TypeError(f"store must be a URL, not a {type(self.store).__name__}")
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

    @property
    def truncates(self) -> bool:
        """Whether an overlong prompt is left to Ollama, which cuts it and says nothing."""
        return (self.overflow or self.sampling.overflow) == "truncate"

    @property
    def timeout(self) -> tuple[float, float, float]:
        """(connect, head, idle), in seconds."""
        return (self.connect_timeout, self.head_timeout, self.idle_timeout)


def _aliases(given: Any) -> Mapping[str, str]:
    """
    :raises TypeError: not names to names.
    :raises ValueError: one of them is empty.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for pair in given.items() for name in pair):
        raise TypeError(f"aliases must map names to names, not {given!r}")
    if not all(name for pair in given.items() for name in pair):
        raise ValueError("an alias and its model have a name each")
    return MappingProxyType(dict(given))


def _models(given: Any) -> Mapping[str, ModelSettings]:
    """
    :raises TypeError: not names to settings of a model.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"models must map names to settings, not {given!r}")
    return MappingProxyType({name: _model(name, value) for name, value in given.items()})


def _model(name: str, given: Any) -> ModelSettings:
    if isinstance(given, ModelSettings):
        return given
    known = [row.name for row in dataclasses.fields(ModelSettings)]
    if not isinstance(given, Mapping) or set(given) - set(known):
        raise TypeError(f"the settings of the model {name!r} are {', '.join(known)}, not {given!r}")
    try:
        return ModelSettings(**given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"models: {name}: {error}") from error


class Options(TypedDict, total=False):
    """The keywords of ``OpenAICompat``: the fields of :class:`Settings`, for type checkers (a test compares them)."""

    prefix: str
    sampling: Sampling
    aliases: Mapping[str, str]
    models: Mapping[str, ModelSettings]
    overflow: Overflow | None
    unsupported: Unsupported
    reasoning_content: bool
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
    fetch_images: bool
    max_image: int
    image_timeout: float
    delete_models: bool
    store: str | None
    store_ttl: float
    store_max_objects: int
    store_max_bytes: int


def environment_name(setting: str) -> str:
    """The environment variable of a setting: ``max_body`` → ``OPENAI_COMPAT_MAX_BODY``."""
    return "OPENAI_COMPAT_" + setting.upper()


def scalars() -> list[dataclasses.Field[Any]]:
    """The settings that are single values, and so have a flag and an environment variable."""
    return [row for row in dataclasses.fields(Settings) if not row.metadata.get("keyword_only")]
