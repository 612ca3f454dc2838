"""OpenAI's contract as checks: the schemas in ``data/``, the wire facts, and the shared validator where it is there."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"


def shared(path: str) -> Path:
    """A file of the project's shared material; the test is skipped where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"shared/{path} is not here")
    return found


@functools.cache
def validator() -> Any:
    """The module ``validate_openai`` of the shared contract, or None."""
    path = SHARED / "contract" / "validate_openai.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("validate_openai", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.check
    module.check = lambda name, value, **options: _found(found, name, _sample(value), **options)
    return module


#: what differs from one response to the next and means nothing to a schema: most checks are made once then
_VARYING = re.compile(
    r'"((?:resp|msg|rs|fc|ctc|cmp|call|conv|chatcmpl|cmpl|fp)[_-])[0-9A-Za-z_-]+"(?!:)'
    r'|("(?:created|created_at|completed_at|sequence_number)": ?)[0-9.]+'
)


def _sample(value: Any) -> str:
    """A value as JSON, with the same id for all ids, and the same time for all times."""
    return _VARYING.sub(lambda found: f'"{found[1]}x"' if found[1] else f"{found[2]}1", json.dumps(value))


@functools.cache
def _found(check: Callable[..., list[str]], name: str, sample: str, **options: Any) -> list[str]:
    return check(name, json.loads(sample), **options)


def _errors(name: str, value: Any) -> list[str]:
    """What OpenAI's schema *name* finds, each with its path."""
    return [f"{error.json_path}: {error.message[:200]}" for error in _schema(name).iter_errors(value)]


@functools.cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((DATA / f"{name}.json").read_text()))


def check(name: str, value: Any) -> None:
    """Fail unless OpenAI's schema *name* accepts the value, without any forgiveness."""
    found = list(_found(_errors, name, _sample(value)))
    if validator() and name != "Response":  # for which it asks the same again, and takes long
        found += validator().check(name, value, wire=True)
    assert found == []


def frames(body: bytes) -> Iterator[Any]:
    """The data of each SSE frame, decoded; ``"[DONE]"`` as it is. Fails on anything that is no whole data frame."""
    assert body.endswith(b"\n\n")
    for frame in body[:-2].split(b"\n\n"):
        assert frame.startswith(b"data: "), frame
        assert b"\n" not in frame
        assert b"\r" not in frame
        data = frame[6:].decode()
        yield data if data == "[DONE]" else json.loads(data)


def check_stream(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a chat stream that ended well; fails unless every one is sound and they fit together."""
    *chunks, last = frames(body)
    assert last == "[DONE]"
    known = [_as_functions(chunk) for chunk in chunks]
    for chunk in known:
        check("CreateChatCompletionStreamResponse", chunk)
    if validator():
        text = body.decode() if known == chunks else "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in known)
        text = text if known == chunks else f"{text}data: [DONE]\n\n"
        assert validator().check_sse("CreateChatCompletionStreamResponse", text, wire=True) == []
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert deltas[-1] == {}
    return chunks


def _as_functions(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk with calls of custom tools as those of functions: OpenAI's schema of chunks has no others."""
    chunk = json.loads(json.dumps(chunk))
    for choice in chunk["choices"]:
        for call in choice["delta"].get("tool_calls", ()):
            if "custom" in call:
                custom, begins = call.pop("custom"), "id" in call
                assert call.pop("type", None) == ("custom" if begins else None)
                assert set(custom) == ({"name", "input"} if begins else {"input"})
                assert bool(custom["input"]) != begins
                call["function"] = {"arguments": custom["input"]}
    return chunk  # type: ignore[no-any-return]


def check_text_stream(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a completions stream that ended well; fails unless every one is sound and they fit together."""
    *chunks, last = frames(body)
    assert last == "[DONE]"
    for chunk in chunks:
        check_text_chunk(chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    reasons: dict[int, Any] = {}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        assert reasons.get(choice["index"]) is None, "a chunk after the finish reason"
        reasons[choice["index"]] = choice["finish_reason"]
    assert None not in reasons.values()
    return chunks


def check_text_chunk(chunk: dict[str, Any]) -> None:
    """As OpenAI's own chunks, one may have no finish reason yet, and no usage."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    rest = {key: value for key, value in chunk.items() if value is not None}
    check("CreateCompletionResponse", {**rest, "choices": choices})


def merged(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the deltas of a stream add up to, as OpenAI's clients add them up."""
    message: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": [], "finish_reason": None, "usage": None}
    logprobs = []
    for chunk in chunks:
        message["usage"] = chunk.get("usage") or message["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning") or ""
            message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
            logprobs += (choice.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls", ()):
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    return {**message, "logprobs": [(entry["token"], entry["logprob"]) for entry in logprobs]}


def whole(completion: dict[str, Any]) -> dict[str, Any]:
    """The same summary of an answer that was not streamed."""
    choice = completion["choices"][0]
    message = choice["message"]
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.get("tool_calls", ())
    ]
    logprobs = (choice.get("logprobs") or {}).get("content") or []
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning", ""),
        "tool_calls": calls,
        "finish_reason": choice["finish_reason"],
        "usage": completion["usage"],
        "logprobs": [(entry["token"], entry["logprob"]) for entry in logprobs],
    }


# -- the Responses API ------------------------------------------------------------------------

#: the last event of a stream → the status of its response
LAST_EVENTS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
#: what a list of an item's events must be, by the item's type; ``delta`` may come any number of times
_PARTS = {
    "message": (["content_part.added"], "output_text.delta", ["output_text.done", "content_part.done"]),
    "reasoning": (
        ["reasoning_summary_part.added"],
        "reasoning_summary_text.delta",
        ["reasoning_summary_text.done", "reasoning_summary_part.done"],
    ),
    "function_call": ([], "function_call_arguments.delta", ["function_call_arguments.done"]),
    "custom_tool_call": ([], "custom_tool_call_input.delta", ["custom_tool_call_input.done"]),
    "tool_search_call": ([], "", []),
}


def named_frames(body: bytes) -> Iterator[dict[str, Any]]:
    """The data of each frame of a Responses stream. Fails on anything but whole frames with the name of their data."""
    assert body.endswith(b"\n\n")
    for frame in body[:-2].split(b"\n\n"):
        name, data = frame.split(b"\n")
        assert name.startswith(b"event: "), frame
        assert data.startswith(b"data: "), frame
        event = json.loads(data[6:])
        assert name[7:].decode() == event["type"]
        yield event


@functools.cache
def _event_schemas() -> dict[str, jsonschema.Draft202012Validator]:
    """The schema of each event by its type: of all at once the errors would say nothing."""
    whole = json.loads((DATA / "ResponseStreamEvent.json").read_text())
    definitions = whole["$defs"]
    names = [item["$ref"].rsplit("/", 1)[1] for item in definitions["ResponseStreamEvent"]["anyOf"]]
    return {
        definitions[name]["properties"]["type"]["enum"][0]: jsonschema.Draft202012Validator(
            {"$ref": f"#/$defs/{name}", "$defs": definitions}
        )
        for name in names
    }


def check_event(event: dict[str, Any]) -> None:
    """Fail unless OpenAI's schema accepts an event.

    It lacks one code of an error, which Codex reads; and OpenAI's own usage is null while a response is in progress.
    """
    response = dict(event.get("response") or {})
    if response.get("error") and response["error"]["code"] == "context_length_exceeded":
        response["error"] = {**response["error"], "code": "server_error"}
    if response and response["usage"] is None:
        del response["usage"]
    sample = _sample({**event, "response": response} if response else event)
    assert _found(_event_errors, event["type"], sample) == []


def _event_errors(name: str, event: Any) -> list[str]:
    return [f"{name} {error.json_path}: {error.message[:200]}" for error in _event_schemas()[name].iter_errors(event)]


def check_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a Responses stream; fails unless every one is sound, and they fit together."""
    events = list(named_frames(body))
    for number, event in enumerate(events):
        check_event(event)
        assert event["sequence_number"] == number
    if validator() and len(events) < 16:  # it asks the same of every event, and takes six times as long
        found = validator().check_sse("ResponseStreamEvent", body.decode(), wire=True)
        assert [text for text in found if "context_length_exceeded" not in text] == []
    types = [event["type"] for event in events]
    begin = 3 if types[1] == "response.queued" else 2  # in the background
    assert [types[0], types[begin - 1]] == ["response.created", "response.in_progress"]
    assert [name for name in types if name in LAST_EVENTS] == types[-1:]
    assert (types[-2] == "error") == (types[-1] == "response.failed")
    assert types.count("error") == (types[-1] == "response.failed")
    _check_responses(events)
    middle = events[begin : -2 if types[-1] == "response.failed" else -1]
    items = _check_items(middle, is_whole=types[-1] != "response.failed")
    assert events[-1]["response"]["output"] == items
    return events


def _check_responses(events: list[dict[str, Any]]) -> None:
    """The responses in the events are one that goes on."""
    found = [event["response"] for event in events if "response" in event]
    changing = {"status", "output", "usage", "completed_at", "incomplete_details", "error", "store"}
    *begun, last = found
    states = ["queued", "queued", "in_progress"] if len(begun) == 3 else ["in_progress", "in_progress"]
    assert [response["status"] for response in begun] == states
    for response in begun:
        assert (response["output"], response["usage"]) == ([], None)
        assert (response["completed_at"], response["incomplete_details"], response["error"]) == (None, None, None)
    kept = [{key: value for key, value in response.items() if key not in changing} for response in found]
    assert all(values == kept[0] for values in kept)
    check_final(last)
    assert last["status"] == LAST_EVENTS[events[-1]["type"]]
    if last["status"] == "failed":
        error = events[-2]
        assert {key: error["error"][key] for key in ("code", "message", "param")} == {
            key: error[key] for key in ("code", "message", "param")
        }
        assert error["message"] == last["error"]["message"]


def check_final(response: dict[str, Any]) -> None:
    """A response that has ended says how, and nothing else; its items do too."""
    status = response["status"]
    assert (response["error"] is not None) == (status == "failed")
    assert response["incomplete_details"] == ({"reason": "max_output_tokens"} if status == "incomplete" else None)
    assert (response["completed_at"] is not None) == (status == "completed")
    assert (response["usage"] is not None) == (status != "failed")
    ids = [item["id"] for item in response["output"]] + [item["call_id"] for item in calls_of(response)]
    assert len(set(ids)) == len(ids)
    *first, last = [item["status"] for item in response["output"]] or ["completed"]
    assert set(first) <= {"completed"}
    assert last in (("completed", "incomplete") if status != "completed" else ("completed",))


def calls_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a response that are calls."""
    return [item for item in response["output"] if item["type"].endswith("_call")]


def _check_items(events: list[dict[str, Any]], *, is_whole: bool) -> list[dict[str, Any]]:
    """The items that the events of a stream add up to: one after the other, each with its own events in order."""
    items: list[dict[str, Any]] = []
    while events:
        added, *events = events
        assert (added["type"], added["output_index"]) == ("response.output_item.added", len(items))
        ends = [i for i, event in enumerate(events) if event["type"] == "response.output_item.done"]
        if not ends:
            assert not is_whole, "an item that does not end"
            _check_item(added["item"], None, events, len(items))
            return items
        own, end, events = events[: ends[0]], events[ends[0]], events[ends[0] + 1 :]
        assert end["output_index"] == len(items)
        _check_item(added["item"], end["item"], own, len(items))
        items.append(end["item"])
    return items


def _check_item(empty: dict[str, Any], item: dict[str, Any] | None, events: list[dict[str, Any]], index: int) -> None:
    """The events between an item's first and last; *item* is None for one that a failure cut."""
    before, delta, after = _PARTS[empty["type"]]
    assert empty["status"] == "in_progress"
    for event in events:
        assert (event["item_id"], event["output_index"]) == (empty["id"], index)
        assert event.get("content_index", 0) == event.get("summary_index", 0) == 0
    types = [event["type"].removeprefix("response.") for event in events]
    text = "".join(event["delta"] for event in events if "delta" in event)
    logprobs = [entry for event in events if event["type"].endswith("output_text.delta") for entry in event["logprobs"]]
    if item is None:
        assert types == before + [delta] * (len(types) - len(before))
        return
    assert types == before + [delta] * (len(types) - len(before) - len(after)) + after
    for key in ("id", "type", "call_id", "name", "namespace", "role"):
        assert empty.get(key) == item.get(key)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
    done = {event["type"].removeprefix("response."): event for event in events[len(events) - len(after) :]}
    if item["type"] == "message":
        assert (empty["content"], item["content"]) == ([], [part])
        assert events[0]["part"] == {**part, "text": "", "logprobs": []}
        assert (done["output_text.done"]["text"], done["output_text.done"]["logprobs"]) == (text, logprobs)
        assert done["content_part.done"]["part"] == part
    elif item["type"] == "reasoning":
        part = {"type": "summary_text", "text": text}
        assert (empty["summary"], item["summary"], events[0]["part"]) == ([], [part], {**part, "text": ""})
        assert done["reasoning_summary_text.done"]["text"] == text
        assert done["reasoning_summary_part.done"]["part"] == part
    elif item["type"] == "function_call":
        assert (empty["arguments"], item["arguments"]) == ("", text)
        last = done["function_call_arguments.done"]
        assert (last["name"], last["arguments"]) == (item["name"], text)
    elif item["type"] == "tool_search_call":
        assert (empty["arguments"], events) == ({}, [])
    else:
        assert (empty["input"], item["input"], done["custom_tool_call_input.done"]["input"]) == ("", text, text)


def check_response(response: dict[str, Any]) -> dict[str, Any]:
    """A response that was not streamed; fails unless it is sound."""
    check("Response", response)
    check_final(response)
    return response


def said(response: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a response says, item by item, without ids."""
    found: list[tuple[Any, ...]] = []
    for item in response["output"]:
        kind = item["type"]
        if kind == "message":
            [part] = item["content"]
            found.append(("text", part["text"], [entry["token"] for entry in part["logprobs"]], item["status"]))
        elif kind == "reasoning":
            [part] = item["summary"]
            found.append(("thinking", part["text"], item["status"]))
        elif kind == "tool_search_call":
            found.append((kind, item["execution"], item["arguments"], item["status"]))
        else:
            text = item["arguments"] if kind == "function_call" else item["input"]
            found.append((kind, item.get("namespace"), item["name"], text, item["status"]))
    return found
