"""The channels of gpt-oss, leaked as text: a call is a message to ``functions.name``.

Thinking and an introduction may come before it, in channels of their own. An answer that ends in the channel ``final``
is no call, and stays as it is.
"""

from __future__ import annotations

import re

from openai_compat.structured.written.json_calls import read_arguments
from openai_compat.structured.written.reading import Literals, NoCall, Reader, Source

_RECIPIENT = "to="
_MESSAGE = "<|message|>"
_CHANNEL = "<|channel|>"
_START = "<|start|>assistant"

_AFTER_START = Literals((_CHANNEL, _RECIPIENT))
_AFTER_CHANNEL = Literals((_MESSAGE, _RECIPIENT))
#: what stands between the recipient and the arguments; without the tokens, where a server leaves them out
_HEADER = Literals((_CHANNEL, "<|constrain|>", _MESSAGE, "commentary", "analysis", "json"))
_END_OF_MESSAGE = Literals(("<|end|>", _START, _CHANNEL))
_WORD = re.compile(r"[a-z]*")


def read_start(source: Source) -> Reader[None]:
    """Read a message, after ``<|start|>assistant``."""
    yield from source.blanks()
    if (yield from source.expect(_AFTER_START)) == _RECIPIENT:
        yield from read_recipient(source)
    else:
        yield from read_channel(source)


def read_channel(source: Source) -> Reader[None]:
    """Read messages, after ``<|channel|>``, up to the first call."""
    while True:
        yield from source.blanks()
        channel = yield from source.run(_WORD)
        yield from source.blanks()
        if channel not in ("analysis", "commentary"):
            raise NoCall
        if (yield from source.expect(_AFTER_CHANNEL)) == _RECIPIENT:
            yield from read_recipient(source)
            return
        text, end = yield from source.until(_END_OF_MESSAGE)
        (source.thinking if channel == "analysis" else source.text).add(text)
        if end == "<|end|>":
            yield from source.blanks()
            end = yield from source.expect(_END_OF_MESSAGE)
        if end == "<|end|>":
            raise NoCall
        if end == _START:
            yield from source.blanks()
            if (yield from source.expect(_AFTER_START)) == _RECIPIENT:
                yield from read_recipient(source)
                return


def read_recipient(source: Source) -> Reader[None]:
    """Read a call, after ``to=``."""
    name = source.tool((yield from source.name()))
    while (yield from source.blanks()) != "{":
        yield from source.expect(_HEADER)
    source.add_call(name, (yield from read_arguments(source)))
