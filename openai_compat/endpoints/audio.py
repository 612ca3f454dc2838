"""``POST /v1/audio/transcriptions``: a multipart form is mapped to a chat with a model that accepts audio.

Source: ollama ``middleware/openai.go`` ``TranscriptionMiddleware`` (at fb3076099). Differs: ``response_format`` can be
``verbose_json``, those with times are a 400 and not a JSON response, and ``stream`` has an effect.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Annotated, Any

from msgspec import Struct
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from openai_compat.endpoints.contract import Answer, Call, EventStream, Reply, Text
from openai_compat.errors import APIError, invalid, missing
from openai_compat.generation.built import built
from openai_compat.generation.choice import ChoiceBuilder
from openai_compat.generation.parallel import streams
from openai_compat.generation.run import Run
from openai_compat.generation.thinking import start_call
from openai_compat.native import types as native
from openai_compat.native.client import Backend
from openai_compat.native.usage import count
from openai_compat.settings import Settings
from openai_compat.translate import models
from openai_compat.translate.audio_duration import audio_duration
from openai_compat.translate.fields import Ignored, accepted, check_number, emulated, mapped, note_effectless, rows
from openai_compat.translate.sampling import set_beside
from openai_compat.translate.tools import CallIds

_FORMATS = ("json", "text", "verbose_json")
_FORMATS_NOTE = "``json``, ``text`` or ``verbose_json``; others are refused"


class TranscriptionRequest(Struct, kw_only=True):
    """The fields of a form.

    Source: OpenAI's ``CreateTranscriptionRequest``.
    """

    file: Annotated[bytes | None, mapped("messages[].images")] = None
    model: Annotated[str | None, mapped("model", "an alias is replaced by its model")] = None
    response_format: Annotated[str | None, emulated(_FORMATS_NOTE)] = None
    language: Annotated[str | None, emulated("added to the prompt; ``auto`` is as not given")] = None
    prompt: Annotated[str | None, emulated("added to the prompt")] = None
    temperature: Annotated[float | None, mapped("options.temperature", "0 if not given", low=0, high=1)] = None
    stream: Annotated[bool | None, emulated("``transcript.text.delta`` events")] = None
    languages: Annotated[Any, accepted()] = None
    keywords: Annotated[Any, accepted()] = None
    include: Annotated[Any, accepted()] = None
    chunking_strategy: Annotated[Any, accepted()] = None
    timestamp_granularities: Annotated[Any, accepted()] = None
    known_speaker_names: Annotated[Any, accepted()] = None
    known_speaker_references: Annotated[Any, accepted()] = None


class TokenUsage(Struct, kw_only=True):
    """Source: OpenAI's ``TranscriptTextUsageTokens``."""

    type: str = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcription(Struct):
    """Source: OpenAI's ``CreateTranscriptionResponseJson``."""

    text: str
    usage: TokenUsage


class VerboseTranscription(Struct, kw_only=True):
    """Source: OpenAI's ``CreateTranscriptionResponseVerboseJson``, and its ``task`` on the wire."""

    task: str = "transcribe"
    #: as the request has it
    language: str
    #: seconds; 0 if unknown
    duration: float
    text: str
    #: a chat model does not tell times
    segments: list[object] = []


class TextDelta(Struct, kw_only=True):
    """Source: OpenAI's ``TranscriptTextDeltaEvent``."""

    type: str = "transcript.text.delta"
    delta: str


class TextDone(Struct, kw_only=True):
    """Source: OpenAI's ``TranscriptTextDoneEvent``."""

    type: str = "transcript.text.done"
    text: str
    usage: TokenUsage


def transcribe(call: Call, backend: Backend) -> Reply:
    """Transcribe audio.

    :raises APIError: 400 naming the invalid field; the native errors.
    """
    request, unknown = decode_form(call.body, call.content_type)
    ignored = Ignored(call.settings, unknown)
    target = from_transcription_request(request, call.settings, ignored)
    try:
        run = _start(target, request, call, backend, ignored)
    except APIError as error:
        error.param = "file" if error.param == "messages" else error.param
        raise
    if request.stream:
        if request.response_format not in (None, "json"):
            ignored.add("response_format", "a stream has events of one format")
        return EventStream(to_events(run), run.streams, ignored.headers(), ends_with_done=False)
    [choice] = run.finish()
    text = choice.text.strip()
    if request.response_format == "text":
        return Text(text, ignored.headers())
    if request.response_format == "verbose_json":
        return Answer(_verbose(request, text, ignored), ignored.headers())
    return Answer(Transcription(text, _usage(run)), ignored.headers())


#: ``language`` of a verbose response to a request that does not name it: a chat model does not tell it
UNKNOWN_LANGUAGE = "unknown"


def _verbose(request: TranscriptionRequest, text: str, ignored: Ignored) -> VerboseTranscription:
    """Return a verbose response; an unknown duration is listed as ignored."""
    duration = audio_duration(request.file or b"")
    if duration is None:
        ignored.add("duration", "it is unknown for this file, or tinytag is not installed")
    return VerboseTranscription(language=request.language or UNKNOWN_LANGUAGE, duration=duration or 0.0, text=text)


def _start(
    target: native.ChatRequest, request: TranscriptionRequest, call: Call, backend: Backend, ignored: Ignored
) -> Run[native.ChatResponse]:
    start = start_call(backend.chat, target, request.model or "", None, backend.limits, ignored)
    source = streams([built(start, ChoiceBuilder(CallIds(call.new_id)))], threads=1, cancel=backend.cancel)
    return Run(source, 1, now=call.now, collect=not request.stream, max_answer=call.settings.max_answer)


# -- the form ---------------------------------------------------------------------------------

#: characters of a boundary (RFC 2046 allows as many), parts of a form (OpenAI has 14 fields, lists repeat theirs), and
#: bytes of each field but the file (the longest is a prompt)
MAX_BOUNDARY, MAX_PARTS, MAX_FIELDS = 70, 64, 256 * 1024


def decode_form(body: bytes, content_type: str) -> tuple[TranscriptionRequest, list[str]]:
    """Decode a multipart body; return the request, and the names of its unknown fields.

    :raises APIError: 400 for a body that is not a valid form, has too many or too large parts, or a value that is not
        valid.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data" or not 0 < len(options.get("boundary", "")) <= MAX_BOUNDARY:
        raise invalid("failed to parse multipart form: it must be multipart/form-data with a boundary.", None, None)
    try:
        fields, files = _parts(body, options["boundary"].encode("ascii"))
    except RequestEntityTooLarge as error:
        text = (
            f"failed to parse multipart form: more than {MAX_PARTS} parts, or fields of more than {MAX_FIELDS} bytes."
        )
        raise invalid(text, None, None) from error
    except ValueError as error:
        raise invalid("failed to parse multipart form.", None, None) from error
    values: dict[str, Any] = {}
    for name, text in fields:
        text = text if name == "prompt" else text.strip()
        if _is_given(name, text) and name not in values:
            if "\x00" in text:
                raise invalid(f"Invalid '{name}': it cannot contain a NUL character.", name)
            values[name] = _PARSERS.get(name, str)(text)
    known = TranscriptionRequest.__struct_fields__
    unknown = [name for name in values if name not in known] + [name for name in files if name != "file"]
    values = {name: value for name, value in values.items() if name in known}
    return TranscriptionRequest(**values, file=files.get("file")), unknown


def _parts(body: bytes, boundary: bytes) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    """Return the fields of a form, in order, and its files: those with a filename, and ``file`` without one.

    Only the content of ``file`` is kept, the first one's; one with a filename goes first.

    :raises RequestEntityTooLarge: the form exceeds a limit.
    :raises ValueError: the body or a part is not valid.
    """
    decoder = MultipartDecoder(boundary, max_form_memory_size=MAX_FIELDS, max_parts=MAX_PARTS)
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    nameless: bytes | None = None
    part: Field | File | None = None
    content = BytesIO()
    for event in _events(decoder, body):
        if isinstance(event, Field | File):
            part, content = event, BytesIO()
            if part.name is None:
                raise ValueError("a part has no name")
        elif isinstance(event, Data) and part is not None:
            name, is_file = _list_name(part.name), isinstance(part, File)
            if name == "file" or not is_file:
                content.write(event.data)
            if name != "file" and content.tell() > MAX_FIELDS:
                raise RequestEntityTooLarge
            if event.more_data:
                continue
            if is_file:
                files.setdefault(name, content.getvalue())
            elif name == "file":
                nameless = content.getvalue() if nameless is None else nameless
            else:
                fields.append((name, content.getvalue().decode(_charset(part), "replace")))
    return fields, files if nameless is None else {"file": nameless, **files}


def _events(decoder: MultipartDecoder, body: bytes) -> Iterator[object]:
    """Yield what a form consists of.

    :raises ValueError: it is not valid, or not complete.
    """
    for start in range(0, len(body), _BLOCK):
        decoder.receive_data(body[start : start + _BLOCK])
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            yield event
    decoder.receive_data(None)
    decoder.next_event()  # the epilogue; an error if something is missing


#: bytes that the decoder of a form gets at once
_BLOCK = 64 * 1024


def _list_name(name: str) -> str:
    """Return the name of a field; clients write a list as ``include[]``."""
    return name.partition("[")[0] if name.endswith("]") else name


def _charset(part: Field | File) -> str:
    """Return the encoding that a part names, if it is one that forms have; UTF-8 by default."""
    charset = parse_options_header(part.headers.get("content-type"))[1].get("charset", "").lower()
    return charset if charset in ("ascii", "us-ascii", "iso-8859-1") else "utf-8"


#: values that a form has for null: it has only text, and clients convert theirs
_NULLS = ("", "none", "null", "undefined")
#: further values of a field that ask for its default
_DEFAULTS = {"language": ("auto",)}


def _is_given(name: str, text: str) -> bool:
    """Return whether a field asks for something; a model may have any name."""
    value = text.strip().lower()
    return bool(value) if name == "model" else value not in (*_NULLS, *_DEFAULTS.get(name, ()))


#: decimal numbers of any usual length; ``nan`` and ``inf`` are not among them
_DECIMAL = re.compile(r"[-+]?([0-9]{1,9}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,2})?")


def _temperature(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        message = "Invalid type for 'temperature': expected a decimal, but got a string instead."
        raise invalid(message, "temperature", "invalid_type")
    return check_number("temperature", float(text), rows(TranscriptionRequest)["temperature"])


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise invalid("Invalid type for 'stream': expected a boolean.", "stream", "invalid_type")
    return text.lower() in ("true", "1")


#: parsers of fields that are not texts
_PARSERS: dict[str, Callable[[str], object]] = {"temperature": _temperature, "stream": _boolean}


# -- OpenAI → native --------------------------------------------------------------------------


def from_transcription_request(
    request: TranscriptionRequest, settings: Settings, ignored: Ignored
) -> native.ChatRequest:
    """Map a request to a chat with an instruction and the audio, which Ollama expects among a message's images.

    :raises APIError: 400 naming the invalid field.

    Source: ``TranscriptionMiddleware``.
    """
    if not request.model:
        raise invalid("model is required", "model", "missing_required_parameter")
    if request.file is None:
        raise missing("file")
    if not request.file:
        raise invalid("audio file is empty", "file")
    if request.response_format not in (None, *_FORMATS):
        supported = ", ".join(f"'{name}'" for name in _FORMATS)
        text = f"Invalid value: '{request.response_format[:64]}'. Supported values are: {supported}."
        raise invalid(text, "response_format")
    note_effectless(request, ignored)
    defaults = models.defaults(request.model, settings)
    target = native.ChatRequest(
        model=models.native_name(request.model, settings),
        messages=[
            native.Message("system", _instruction(request)),
            native.Message("user", "Transcribe this recording.", images=[base64.b64encode(request.file).decode()]),
        ],
        options={"temperature": 0, **defaults.options},
    )
    if request.temperature is not None:
        target.options["temperature"] = request.temperature
    if defaults.think is not None:
        target.think = defaults.think
    set_beside(target, settings, keep_alive=defaults.keep_alive)
    return target


def _instruction(request: TranscriptionRequest) -> str:
    lines = ["Transcribe the audio word for word. Answer with the transcript alone, without comment."]
    if request.language:
        lines.append(f"The language spoken is: {request.language}.")
    if request.prompt:
        lines.append(f"For context, this was said before, or may occur: {request.prompt}")
    return " ".join(lines)


# -- native → OpenAI --------------------------------------------------------------------------


def to_events(run: Run[native.ChatResponse]) -> Iterator[Sequence[TextDelta | TextDone]]:
    """Map a native stream to events: a delta for each message with text, then the complete text and the usage.

    White space around the complete text is removed, at its beginning also from the deltas.
    """
    texts: list[str] = []
    for _, _, delta in run:
        text = delta.content if texts else delta.content.lstrip()
        events: list[TextDelta | TextDone] = [TextDelta(delta=text)] if text else []
        texts += [text] if text else []
        if run.is_complete:
            events.append(TextDone(text="".join(texts).strip(), usage=_usage(run)))
        yield events


def _usage(run: Run[native.ChatResponse]) -> TokenUsage:
    [final] = run.final_messages
    prompt, completion = count(final.prompt_eval_count), count(final.eval_count)
    return TokenUsage(input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion)
