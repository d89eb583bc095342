"""Holds: the bound covers every charge it promises to cover, and an affordable limit fits the credit it came from."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.catalog import PriceBook
from aurixel.dialects import AnthropicMessages, OpenAIChat, OpenAIResponses
from aurixel.dialects.translation import Translation
from aurixel.gateway.sizing import LEAST_OUTPUT, size
from aurixel.plugin import Dialect, InputBound, ModelRules, ParsedRequest

RATES = st.fixed_dictionaries(
    {"input": st.integers(0, 10**11), "output": st.integers(0, 10**11)},
    optional={
        "cache_read": st.integers(0, 10**11),
        "cache_write_5m": st.integers(0, 2 * 10**11),
        "reasoning": st.integers(0, 10**11),
        "requests": st.integers(0, 10**13),
        "input.fast": st.integers(0, 10**11),
        "output.fast": st.integers(0, 10**11),
    },
)


def _request(limit: int | None, choices: int) -> ParsedRequest:
    return ParsedRequest(
        dialect="d",
        model="m",
        stream=False,
        fields={},
        bound=InputBound(0),
        output_limit=limit,
        choices=choices,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[PriceBook, ParsedRequest, ModelRules, int]:
    book = PriceBook(version=1, effective_ms=0, rates=draw(RATES))
    limit = draw(st.none() | st.integers(0, 100_000))
    rules = ModelRules(context=1_000_000, max_output=draw(st.integers(1, 200_000)))
    return book, _request(limit, draw(st.integers(1, 8))), rules, draw(st.integers(0, 1_000_000))


@given(cases(), st.data())
def test_no_usage_within_the_bound_costs_more_than_is_wanted(
    case: tuple[PriceBook, ParsedRequest, ModelRules, int], data: st.DataObject
) -> None:
    book, request, rules, tokens = case
    request = msgspec.structs.replace(request, tier=data.draw(st.sampled_from(["", *book.tiers])))
    bound = size(request, rules, tokens, book)
    limit = request.output_limit if request.output_limit is not None else rules.max_output
    output = data.draw(st.integers(0, limit * request.choices))
    reasoning = data.draw(st.integers(0, output))
    used = data.draw(st.integers(0, tokens))
    cached = data.draw(st.integers(0, used))
    counts = {
        "input": used - cached,
        "cache_read": cached,
        "output": output - reasoning,
        "reasoning": reasoning,
        "requests": 1 if "requests" in book.rates else 0,
    }
    assert book.charge(counts) <= bound.want, "also where the upstream falls back to the plain tier"
    assert book.settle(counts, request.tier)[1] <= bound.want
    assert bound.least <= bound.want


PICTURES = {
    "images.auto": 20,
    "images.1024x1024": 30,
    "images.1024x1024.high": 170,
    "images.512x512.high": 90,
    "images.512x512.low": 10,
}


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("images.auto.auto", 170),
        ("images.auto.low", 30),
        ("images.1024x1024.auto", 170),
        ("images.512x512.auto", 90),
        ("images.512x512.low", 10),
        ("images.1024x1024.low", 30),
    ],
)
def test_a_picture_left_to_the_upstream_is_held_for_at_the_dearest_that_it_may_be(asked: str, held: int) -> None:
    book = PriceBook(version=1, effective_ms=0, rates={name: rate * 10**6 for name, rate in PICTURES.items()} | {"images": 0})
    request = msgspec.structs.replace(_request(0, 2), most={asked: 2})
    assert size(request, ModelRules(context=1, max_output=1), 0, book, by_units=True).want == 2 * held


LIMITS = {"openai_chat": "max_completion_tokens", "openai_responses": "max_output_tokens", "anthropic_messages": "max_tokens"}
TALKS: list[Dialect] = [OpenAIChat(), OpenAIResponses(), AnthropicMessages()]


@pytest.mark.parametrize("upstream", TALKS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("client", TALKS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("most", [9, 1_000])
def test_no_translation_asks_for_a_longer_answer_than_is_held_for(client: Dialect, upstream: Dialect, most: int) -> None:
    """Upstreams of one dialect refuse short limits, so that they are sent longer ones."""
    rules, book = (
        ModelRules(context=10_000, max_output=most),
        PriceBook(version=1, effective_ms=0, rates={"input": 0, "output": 1}),
    )
    words = "input" if client.name == "openai_responses" else "messages"
    for limit in (None, *range(1, 20)):
        if limit is None and client.name == "anthropic_messages":
            continue
        body: dict[str, object] = {"model": "m", words: [{"role": "user", "content": "x"}]}
        request = client.parse_request(json.dumps(body | ({LIMITS[client.name]: limit} if limit else {})).encode(), {})
        sent = Translation(client, upstream, request, rules).request.output_limit
        assert (most if sent is None else sent) <= size(request, rules, 0, book).tokens


@given(cases(), st.data())
def test_an_affordable_limit_fits_the_grant_and_helps(
    case: tuple[PriceBook, ParsedRequest, ModelRules, int], data: st.DataObject
) -> None:
    book, request, rules, tokens = case
    bound = size(request, rules, tokens, book)
    granted = data.draw(st.integers(bound.least, bound.want))
    limit = bound.affordable(granted)
    if request.output_limit is not None or granted == bound.want:
        assert limit is None
        return
    assert limit is not None
    assert limit >= min(LEAST_OUTPUT, rules.max_output)
    lowered = size(_request(limit, request.choices), rules, tokens, book)
    assert lowered.want <= granted
