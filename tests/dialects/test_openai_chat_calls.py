"""Tool calls in straight streams of `openai_chat`: what vendors do passes, what never began does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurixel.dialects import OpenAIChat
from tests.dialects.cases import Played, play

CHAT = OpenAIChat()
NAMED = {"name": "w", "arguments": ""}
MORE = {"arguments": "{}"}


def played(*deltas: dict[str, Any]) -> Played:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    request = CHAT.parse_request(json.dumps(body).encode(), {})
    ends = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    events = [json.dumps({"id": "r", "choices": [choice]}) for choice in (*choices, ends)]
    stream = "".join(f"data: {event}\n\n" for event in (*events, "[DONE]")).encode()
    return play(CHAT.stream_reader(request), [stream])


def calls(*made: Any) -> list[dict[str, Any]]:
    """A delta for each."""
    return [{"tool_calls": [call]} for call in made]


PASSED: dict[str, list[dict[str, Any]]] = {
    "no_index": calls({"id": "a", "function": NAMED}, {"function": MORE}),
    "an_index_only_later": calls({"id": "a", "function": NAMED}, {"index": 0, "function": MORE}),
    "one_index_for_all": calls(
        {"index": 0, "id": "a", "function": NAMED | MORE}, {"index": 0, "id": "b", "function": NAMED | MORE}
    ),
    "empty_ids": calls({"index": 0, "id": "", "function": NAMED}, {"index": 0, "id": "", "function": {"name": "", **MORE}}),
    "counted_from_elsewhere": calls({"index": 4, "id": "a", "function": NAMED}, {"index": 4, "function": MORE}),
    "a_name_after_its_id": calls(
        {"index": 0, "type": "function"}, {"index": 0, "id": "a"}, {"index": 0, "function": NAMED | MORE}
    ),
    "an_id_that_is_a_number": calls({"index": 0, "id": 7}, {"index": 0, "function": MORE}),
    "custom": calls({"index": 0, "custom": {"name": "w"}}, {"index": 0, "custom": {"input": "x"}}),
    "empty_arguments": calls({"index": 0, "function": {"arguments": ""}}),
    "an_index_in_words": calls({"index": "0", "function": NAMED}, {"index": 0, "function": MORE}),
    "content_in_parts": [{"content": [], **calls({"index": 0, "function": NAMED})[0]}, *calls({"index": 0, "function": MORE})],
    "calls_that_are_none": [{"content": [], "tool_calls": "x"}],
    "a_delta_that_is_a_list": [["x"]],  # type: ignore[list-item]
    "legacy": [{"function_call": {"name": "w"}}, {"function_call": {"arguments": "{}"}}],
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "never_began": calls({"index": 0, "function": MORE}),
    "no_index": calls({"function": MORE}),
    "empty": calls({"index": 0, "id": "", "function": {"name": "", **MORE}}),
    "another_index": calls({"index": 0, "id": "a", "function": NAMED}, {"index": 1, "function": MORE}),
    "custom": calls({"index": 0, "custom": {"input": "x"}}),
    "content_in_parts": [{"content": [], **calls({"index": 0, "function": MORE})[0]}],
}


@pytest.mark.parametrize("deltas", PASSED.values(), ids=PASSED)
def test_what_vendors_do_passes(deltas: list[dict[str, Any]]) -> None:
    found = played(*deltas)
    assert (found.error, found.done) == ("", True)


@pytest.mark.parametrize("deltas", REFUSED.values(), ids=REFUSED)
def test_arguments_of_a_call_that_never_began_do_not(deltas: list[dict[str, Any]]) -> None:
    found = played(*deltas)
    assert (found.error, found.done) == ("upstream_invalid", False)
    assert b"[DONE]" not in found.out


def test_usage_without_an_answer_ends_well() -> None:
    request = CHAT.parse_request(b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}', {})
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0}}\n\n'
    found = play(CHAT.stream_reader(request), [usage + b"data: [DONE]\n\n"])
    assert (found.error, found.done, found.out) == ("", True, b"data: [DONE]\n\n")
