"""Native requests that admit only a tool call, of a model with native tools; ``forced_choice.py`` reads the answer.

Only the allowed tools are sent, with a ``format`` that admits one call of one of them, thinking off (Ollama does not
apply a format to a model that thinks), and an instruction in the system message. What a format of ours would break, or
has no meaning under it, is not sent: stop sequences, which would cut the JSON text, and log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET, Raw, structs

from openai_compat.errors import invalid
from openai_compat.native import types as native
from openai_compat.structured.call_schema import calls_schema, memory
from openai_compat.structured.instructions import instructed
from openai_compat.structured.tool_choice import ForcedChoice
from openai_compat.translate.native_schema import format_schema
from openai_compat.wire import json


def forced_request(
    request: native.ChatRequest, forced: ForcedChoice, paths: Mapping[str, str], field: str = "tools"
) -> native.ChatRequest:
    """Return a copy of a native request that admits only a call of one of its tools.

    :param paths: the paths of the functions' parameters by the functions' names, for errors.
    :param field: the request's field of the tools, for errors.
    :raises APIError: 400 for tools whose schemas take too much memory.
    """
    schema = calls_schema(tool_schemas(request.tools or [], paths, field))
    text = (
        f'You must call {_which(forced)} now. Answer with the call alone, as JSON: {{"name": …, "parameters": {{…}}}}.'
    )
    return under_own_format(
        request, messages=instructed(request.messages, text), tools=request.tools, format=Raw(json.encode(schema))
    )


def under_own_format(request: native.ChatRequest, **changes: object) -> native.ChatRequest:
    """Return a copy of a native request for a format that is not the client's: without what does not go with it."""
    options = {name: value for name, value in request.options.items() if name != "stop"}
    return structs.replace(request, options=options, think=False, logprobs=UNSET, top_logprobs=UNSET, **changes)


def _which(forced: ForcedChoice) -> str:
    names = sorted(forced.names)
    if len(names) == 1:
        return f'the function "{names[0]}"'
    return "one of the functions " + ", ".join(f'"{name}"' for name in names)


# -- the tools' schemas -----------------------------------------------------------------------

#: bytes that the schema of a call may take: so many for each byte of the tools' schemas, and in addition
_MAX_MEMORY = (12, 8 * 1024 * 1024)


def tool_schemas(
    tools: Sequence[native.Tool], paths: Mapping[str, str], field: str = "tools"
) -> Iterator[tuple[str, bytes]]:
    """Return the name of each tool and the schema of its parameters as llama.cpp can read it, empty for none.

    The schemas are converted one at a time: together they take many times their text's memory.

    :raises APIError: 400 for tools whose schemas take too much memory in a format.
    """
    _check_memory(tools, field)
    return ((tool.function.name, _format_of(tool, paths)) for tool in tools)


def _format_of(tool: native.Tool, paths: Mapping[str, str]) -> bytes:
    name, text = tool.function.name, json.text_of(tool.function.parameters)
    return format_schema(text, paths.get(name, name)) if text else text


def _check_memory(tools: Sequence[native.Tool], field: str) -> None:
    size = needed = 0
    for tool in tools:
        text = json.text_of(tool.function.parameters)
        size, needed = size + len(text), needed + memory(text)
    factor, constant = _MAX_MEMORY
    if needed > factor * size + constant:
        reason = "their schemas hold too many values for a tool call that is required."
        raise invalid(f"Invalid '{field}': {reason}", field, "object_above_max_properties")
