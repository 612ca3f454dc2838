"""The forms in which models write calls: one table, one row a form.

A form is named after its model or its opener. What follows the opener is read by the row's reader, or, where it has
none, is a body: JSON, an array of it, a name with arguments, a list in Python. Bodies and closers are the same for all
forms, since models mix them. The text of an opener is the same in any place; where a form has no token of its own, it
counts at the start of a line only.

The sources are where the form is described or tested; ``tests/data/written_calls.json`` has a text of each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

from openai_compat.structured.written import harmony, json_calls, tags, tokens
from openai_compat.structured.written.reading import Literals, Reader, Source

Place = Literal["anywhere", "line"]


class Form(NamedTuple):
    """A form of a call."""

    name: str
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    #: where the form is described or tested: a repository, a path in it
    source: str
    read: Callable[[Source], Reader[None]] | None = None
    place: Place = "anywhere"


#: what begins the tags of DeepSeek
_DSML = ("｜DSML｜", "|DSML|")


def _function(*prefixes: str, is_quoted: bool = True) -> Callable[[Source], Reader[None]]:
    return functools.partial(tags.read_function, tags=tags.dialect(*(prefixes or ("",)), is_quoted=is_quoted))


_OLLAMA, _VLLM = "ollama/ollama model/parsers/", "vllm-project/vllm tests/tool_parsers/test_"

#: a Markdown fence; what may be in it is decided where forms are put together
FENCE = "```"

FORMS = (
    Form("hermes", ("<tool_call>",), ("</tool_call>",), _OLLAMA + "qwen3.go"),
    Form("tool_calls", ("<tool_calls>",), ("</tool_calls>",), _VLLM + "hunyuan_a13b_tool_parser.py"),
    Form("function_call", ("<function_call>",), ("</function_call>",), _VLLM + "granite_20b_fc_tool_parser.py"),
    Form(
        "functioncall",
        ("<functioncall>",),
        ("</functioncall>",),
        "huggingface.co/datasets/glaiveai/glaive-function-calling-v2",
    ),
    Form("olmo3", ("<function_calls>",), ("</function_calls>",), _OLLAMA + "olmo3.go"),
    Form("tool_code", ("<tool_code>",), ("</tool_code>",), "ai.google.dev/gemma/docs/capabilities/function-calling"),
    Form("tools", ("<tools>",), ("</tools>",), _VLLM + "qwen2_5_coder_tool_parser.py"),
    Form("nemotron", ("<TOOLCALL>",), ("</TOOLCALL>",), _VLLM + "nemotron_json_tool_parser.py"),
    Form("seed", ("<seed:tool_call>",), ("</seed:tool_call>",), _VLLM + "seed_oss_tool_parser.py"),
    Form("longcat", ("<longcat_tool_call>",), ("</longcat_tool_call>",), _VLLM + "longcat_tool_parser.py"),
    Form("granite", ("<|tool_call|>",), ("<|/tool_call|>",), _VLLM + "granite_tool_parser.py"),
    Form("gemma4", ("<|tool_call>",), ("<tool_call|>",), _OLLAMA + "gemma4.go"),
    Form("functiongemma", ("<start_function_call>",), ("<end_function_call>",), _OLLAMA + "functiongemma.go"),
    Form("lfm2", ("<|tool_call_start|>",), ("<|tool_call_end|>",), _OLLAMA + "lfm2.go"),
    Form("llama", ("<|python_tag|>",), (), _VLLM + "llama3_json_tool_parser.py"),
    Form("llama4", ("<|python_start|>",), ("<|python_end|>",), _VLLM + "llama4_pythonic_tool_parser.py"),
    Form("internlm", ("<|action_start|>", "<|plugin|>"), ("<|action_end|>",), _VLLM + "internlm2_tool_parser.py"),
    Form("mistral", ("[TOOL_CALLS]",), ("[/TOOL_CALLS]",), _VLLM + "mistral_tool_parser.py"),
    Form("command-r7b", ("<|START_ACTION|>",), ("<|END_ACTION|>",), _OLLAMA + "cohere.go"),
    Form("command-r", ("Action:",), (), "ggml-org/llama.cpp tests/test-chat.cpp", place="line"),
    Form("phi", ("functools[",), (), "ggml-org/llama.cpp common/chat.cpp", json_calls.read_array, "line"),
    # -- names and parameters in tags --
    Form("qwen-coder", ("<function=",), ("</function>",), _OLLAMA + "qwen3coder.go", _function(is_quoted=False)),
    Form("function name", ('<function name="',), (), _VLLM + "minicpm5xml_tool_parser.py", _function()),
    Form("minimax", ("<minimax:tool_call>",), ("</minimax:tool_call>",), _VLLM + "minimax_m2_tool_parser.py"),
    Form("invoke", ('<invoke name="',), ("</invoke>",), _VLLM + "minimax_m2_tool_parser.py", _function()),
    Form("glimmer", ("<atem:function_calls>",), ("</atem:function_calls>",), _OLLAMA + "glimmer.go"),
    Form("glimmer invoke", ('<atem:invoke name="',), ("</atem:invoke>",), _OLLAMA + "glimmer.go", _function("atem:")),
    Form(
        "deepseek-v3.2",
        tuple(f"<{prefix}{word}>" for prefix in _DSML for word in ("function_calls", "tool_calls")),
        tuple(f"</{prefix}{word}>" for prefix in _DSML for word in ("function_calls", "tool_calls")),
        _VLLM + "deepseekv32_tool_parser.py",
    ),
    Form(
        "deepseek-v3.2 invoke",
        tuple(f'<{prefix}invoke name="' for prefix in _DSML),
        tuple(f"</{prefix}invoke>" for prefix in _DSML),
        _VLLM + "deepseekv32_tool_parser.py",
        _function(*_DSML),
    ),
    # -- names and JSON between tokens --
    Form(
        "deepseek-v3",
        (*tokens.variants("tool calls begin"), "<|tool_calls_section_begin|>"),
        (*tokens.variants("tool calls end"), "<|tool_calls_section_end|>"),
        _OLLAMA + "deepseek3.go",
    ),
    Form(
        "kimi-k2",
        tokens.variants("tool call begin"),
        tokens.variants("tool call end"),
        _VLLM + "kimi_k2_tool_parser.py",
        tokens.read_between_tokens,
    ),
    Form("harmony", ("<|channel|>",), (), "ollama/ollama harmony/harmonyparser.go", harmony.read_channel),
    Form("harmony start", ("<|start|>assistant",), (), "ollama/ollama harmony/harmonyparser.go", harmony.read_start),
    Form(
        "harmony recipient",
        ("to=functions.", "commentary to=functions.", "assistantcommentary to=functions."),
        (),
        "ollama/ollama harmony/harmonyparser.go",
        harmony.read_recipient,
        "line",
    ),
    # -- what has no token --
    Form("fence", (FENCE,), (), "ollama/ollama model/parsers/parsers_test.go"),
    Form("json", ("{",), (), _VLLM + "llama3_json_tool_parser.py", place="line"),
    Form("array", ("[",), (), _VLLM + "pythonic_tool_parser.py", place="line"),
)

#: what templates end a message with
_ENDS = (
    *tokens.variants("end of sentence"),
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<turn|>",
    "</s>",
)

OPENERS = {opener: form for form in FORMS if form.place == "anywhere" for opener in form.openers}
LINE_OPENERS = {opener: form for form in FORMS if form.place == "line" for opener in form.openers if len(opener) > 1}
CLOSERS = frozenset(closer for form in FORMS for closer in form.closers).union(_ENDS)

ANYWHERE = Literals(OPENERS)
AT_LINE = Literals(LINE_OPENERS)
TOKENS = Literals((*OPENERS, *CLOSERS))
ENDS = Literals(CLOSERS)
