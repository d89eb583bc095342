"""Every golden stream, whole and cut at every place, and every golden reply: the same output, usage and end each time."""

from __future__ import annotations

from typing import Any

import pytest

from aurixel.errors import ProviderError
from aurixel.values import Usage
from tests.dialects.cases import INPUT_TOKENS, Case, Played, cases, name_of, play

STREAMS = cases("upstream.sse")
REPLIES = cases("reply.*")
OUTPUT = ("output", "reasoning", "images.")


def told(meta: dict[str, Any], name: str, *, measured: bool) -> Usage:
    return Usage(
        meta[name],
        measured=meta.get("measured", measured),
        guessed=frozenset(meta.get("guessed", ())),
        tier=meta.get("tier", ""),
    )


def expected(case: Case) -> Played:
    meta = case.meta
    usage = Usage(meta["usage"], tier=meta.get("tier", "")) if "usage" in meta else None
    guessed = "estimate" in meta
    return Played(
        out=case.client,
        error=meta.get("error", ""),
        done="error" not in meta,
        started=meta.get("started", True),
        usage=usage,
        estimate=told(meta, "estimate", measured=False) if guessed else Usage(meta["usage"], tier=meta.get("tier", "")),
        output_bytes=meta["output_bytes"],
    )


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_a_stream_read_at_once(case: Case) -> None:
    reader = case.dialect.stream_reader(case.request(stream=True))
    assert play(reader, [case.upstream]) == expected(case)


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_a_stream_read_byte_by_byte(case: Case) -> None:
    sent = case.upstream
    reader = case.dialect.stream_reader(case.request(stream=True))
    assert play(reader, [sent[at : at + 1] for at in range(len(sent))]) == expected(case)


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_a_stream_cut_in_two_anywhere(case: Case) -> None:
    sent, request, wanted = case.upstream, case.request(stream=True), expected(case)
    for cut in range(1, len(sent)):
        assert play(case.dialect.stream_reader(request), [sent[:cut], sent[cut:]]) == wanted, cut


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_a_stream_that_breaks_off_anywhere(case: Case) -> None:
    """The client got whole events and nothing else, and the meter counted what the client got: never more."""
    sent, whole, request = case.upstream, case.client, case.request(stream=True)
    ends = {case.meta.get("error"), "upstream_died", ""}
    bytes_before = 0
    for cut in range(len(sent)):
        played = play(case.dialect.stream_reader(request), [sent[:cut]])
        assert played.error in ends, cut
        # A last event whose blank line is missing may be completed; the rest is a beginning of the whole.
        assert whole.startswith((played.out, played.out.rstrip(b"\r\n"))), cut
        assert bytes_before <= played.output_bytes <= case.meta["output_bytes"], cut
        assert played.done == (not played.error), cut
        bytes_before = played.output_bytes


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_what_was_delivered_is_a_part_of_what_came(case: Case) -> None:
    """Of any beginning of the output: the same input, never more output than for a longer one, and at its end the whole."""
    reader = case.dialect.stream_reader(case.request(stream=True))
    play(reader, [case.upstream])
    whole = reader.estimate(INPUT_TOKENS)
    assert reader.delivered(INPUT_TOKENS, reader.output_bytes) == whole
    before: dict[str, int] = {}
    for size in range(reader.output_bytes + 1):
        part = reader.delivered(INPUT_TOKENS, size)
        for name in whole.counts:
            count = part.counts.get(name, 0)
            assert count == whole.counts[name] or name.startswith(OUTPUT), (size, name)
            assert before.get(name, 0) <= count <= whole.counts[name], (size, name)
        assert part.counts.keys() <= whole.counts.keys()
        assert part.tier == whole.tier
        before = part.counts


@pytest.mark.parametrize("case", REPLIES, ids=name_of)
def test_a_whole_reply(case: Case) -> None:
    reader = case.dialect.reply_reader(case.request(stream=False), INPUT_TOKENS)
    if code := case.meta.get("error"):
        with pytest.raises(ProviderError) as caught:
            reader.read(case.reply)
        assert caught.value.code == code
    else:
        assert reader.read(case.reply) == told(case.meta, "usage", measured=True)
