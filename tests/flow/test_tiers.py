"""Tiers through a whole gateway: an answer is charged at the tier that its upstream echoes, by the amounts worked out by hand
in tests/golden/charges/tiers.json; a tier is asked for only where it is priced, and held for whichever way it falls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.catalog import PriceHistory
from aurixel.ledger import verify
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running, configure, running, upstream

CHARGES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "charges" / "tiers.json").read_text())
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "messages": "/v1/messages",
}
MODELS = "".join(
    f"""
[models."{name}"]
operations = ["chat"]
context = 8000
max_output = 1000
routes = [{{ upstream = "up-{name}", model = "m" }}]
"""
    for name in PATHS
)
PRICES = "".join(
    f"""
[[price]]
model = "{name}"
effective = 2025-01-01
input = "2.00"
cache_read = "0.20"
cache_write_5m = "2.50"
output = "8.00"
tiers.priority = {{ input = "4.00", output = "16.00" }}
tiers.flex = {{ input = "1.00", cache_read = "0.10", output = "4.00" }}
tiers.fast = {{ input = "12.00", output = "48.00" }}
"""
    for name in PATHS
)
CHAT = {"model": "chat", "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
async def gw(tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Running]:
    blocks = upstream("up-messages", "anthropic", up.url)
    for name in ("chat", "responses", "completions"):
        blocks += upstream(f"up-{name}", "openai", f"{up.url}/v1") + f'speaks = ["{name}"]\n'
    async with running(configure(tmp_path, upstreams=blocks, models=MODELS, prices=PRICES)) as gateway:
        yield gateway


async def surprises(gw: Running, http: aiohttp.ClientSession) -> int:
    """How many requests used what has no price."""
    async with http.get(f"{gw.ops_url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    (value,) = (line.split()[-1] for line in lines if line.startswith("aurixel_unpriced_usage_requests_total"))
    return int(float(value))


async def ask(
    gw: Running, http: aiohttp.ClientSession, body: dict[str, Any], headers: dict[str, str] | None = None, *, path: str = ""
) -> tuple[int, bytes, str]:
    """Its status, its body, and what was lost in translation."""
    headers = {"authorization": f"Bearer {await gw.key()}", **(headers or {})}
    async with http.post(gw.url + (path or PATHS[body["model"]]), json=body, headers=headers) as reply:
        return reply.status, await reply.read(), reply.headers.get("x-aurixel-translation", "")


def script(up: ScriptedUpstream, case: dict[str, Any]) -> None:
    if "reply" in case:
        up.reply(json=case["reply"])
    else:
        names = (f"event: {each['type']}\n" if isinstance(each, dict) and "type" in each else "" for each in case["events"])
        data = (each if isinstance(each, str) else json.dumps(each) for each in case["events"])
        up.stream([f"{name}data: {text}\n\n".encode() for name, text in zip(names, data, strict=True)], chunks=11)


@pytest.mark.parametrize("name", CHARGES)
async def test_a_charge_is_the_one_computed_by_hand(
    name: str, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    case = CHARGES[name]
    script(up, case)
    status, body, _ = await ask(gw, http, case["request"])
    assert status == 200, body
    (record,) = await gw.settled()
    assert (record.counts, record.cost, record.cell) == (case["counts"], case["cost"], "ok")
    assert (await gw.account()).spent == case["cost"]
    assert await surprises(gw, http) == case.get("surprises", 0)
    asked = {name: case["request"][name] for name in ("service_tier", "speed") if name in case["request"]}
    sent = up.requests[0].json()
    assert {name: sent[name] for name in ("service_tier", "speed") if name in sent} == asked
    report = await verify(gw.store, charges=PriceHistory(gw.store))
    assert report.ok, report.faults


def test_every_dialect_has_a_whole_answer_and_a_stream_among_them() -> None:
    kinds = {
        (case["request"]["model"], "events" in case) for case in CHARGES.values() if any("." in name for name in case["counts"])
    }
    assert kinds == {(name, streamed) for name in PATHS for streamed in (True, False)}


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("chat", {"service_tier": "scale"}, "service_tier"),
        ("chat", {"service_tier": "no name"}, "service_tier"),
        ("responses", {"service_tier": "scale"}, "service_tier"),
        ("completions", {"service_tier": ""}, "service_tier"),
        ("messages", {"service_tier": "batch"}, None),
        ("messages", {"speed": "faster"}, None),
        ("messages", {"speed": "fast", "service_tier": "priority"}, None),  # both at once have a price of their own, or none
    ],
)
async def test_a_tier_without_a_price_is_refused_before_anything_is_sent(
    model: str, fields: dict[str, Any], param: str | None, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    body = {**CHAT, "model": model, "prompt": "x", "input": "x"}
    body = {name: value for name, value in body.items() if name in WANTED[model]}
    status, text, _ = await ask(gw, http, {**body, **fields})
    error = json.loads(text)["error"]
    assert (status, error.get("param")) == (400, param), text
    assert "has no price here" in error["message"]
    assert up.requests == []
    assert (await gw.account()).spent == 0


WANTED = {
    "chat": ("model", "messages"),
    "responses": ("model", "input"),
    "completions": ("model", "prompt"),
    "messages": ("model", "messages", "max_tokens"),
}


async def test_what_a_request_may_incur_needs_a_price_at_its_tier(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    body = {**CHAT, "model": "messages", "cache_control": {"type": "ephemeral"}, "speed": "fast"}
    status, text, _ = await ask(gw, http, body)
    assert (status, json.loads(text)["error"]["message"]) == (
        400,
        "The model 'messages' has no price here for: cache_write_5m.fast.",
    )
    assert up.requests == []


async def test_a_tier_that_a_translation_cannot_carry_is_told_and_not_charged(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    up.reply(json=CHARGES["messages, plain"]["reply"])
    body = {**CHAT, "model": "messages", "service_tier": "priority"}
    status, text, lost = await ask(gw, http, body, path=PATHS["chat"])
    assert (status, lost) == (200, "openai_chat to anthropic_messages; dropped=service_tier"), text
    assert "service_tier" not in up.requests[0].json()
    (record,) = await gw.settled()
    assert (record.counts, record.cost) == (CHARGES["messages, plain"]["counts"], CHARGES["messages, plain"]["cost"])
    status, text, _ = await ask(gw, http, body, {"x-aurixel-strict": "true"}, path=PATHS["chat"])
    assert (status, json.loads(text)["error"]["code"]) == (400, "translation_lossy")


@pytest.mark.parametrize(("tier", "dearest"), [("", 8_000), ("flex", 8_000), ("priority", 16_000)])
async def test_the_dearer_of_both_tiers_is_held(
    tier: str, dearest: int, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    """Credit for one output token less than the limit at the dearest price, with nothing for the input, is too little."""
    up.reply(json=CHARGES["chat, plain"]["reply"])
    key = await gw.key(usd=f"{1000 * dearest / 10**9:.9f}")
    body = {**CHAT, "max_tokens": 1000, **({"service_tier": tier} if tier else {})}
    async with http.post(gw.url + PATHS["chat"], json=body, headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 429, await reply.text()
    await gw.grant("a@example.com", "0.004")
    async with http.post(gw.url + PATHS["chat"], json=body, headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 200, await reply.text()
