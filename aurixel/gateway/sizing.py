"""How much credit a request may need at most, and how long an answer a given hold affords; it asks nobody.

The bound never falls below what a well-behaved upstream can report: input by the dialect's safe rule at the dearest
input price of the model, output by its limit (or the model's) at the dearest output price (docs/ledger.md, holds). Of a
request that asks for a tier, whose upstream may fall back, the dearest of both tiers.
"""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.catalog import PER_MILLION, PriceBook
from aurixel.plugin.contracts import ModelRules, ParsedRequest
from aurixel.values import Nanos

# An answer shorter than this helps nobody: below it the request is refused for want of credit. Some upstreams refuse to be
# asked for less, so that a translation asks them for as much: it is held for however little a client asks for.
LEAST_OUTPUT: Final = 16
# How often a hosted tool is assumed to run at most where the request does not say.
TOOL_CALLS: Final = 16


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """`want` and `least` are what to hold, in nano-dollars; `tokens` the most the request may use, both sides.

    `fixed` is the part that does not depend on the output's length and `rate` the dearest price of an output token in
    nanos per million, for `affordable`. `limited` says that the client set the output limit itself, or that nobody can.
    """

    want: Nanos
    least: Nanos
    tokens: int
    fixed: Nanos
    rate: int
    choices: int
    limited: bool

    def affordable(self, granted: Nanos) -> int | None:
        """The output limit to send upstream, in tokens for each choice, where `granted` is less than what was wanted."""
        if self.limited or granted >= self.want or not self.rate:
            return None
        return (granted - self.fixed) * PER_MILLION // (self.rate * self.choices)


def size(request: ParsedRequest, rules: ModelRules, input_tokens: int, price: PriceBook, *, by_units: bool = False) -> Bound:
    """The bound of one request at one price; `input_tokens` is the dialect's upper bound. `by_units`: tokens are free."""
    input_rate, output_rate = (0, 0) if by_units else price.dearest(request.tier)
    fixed = -(-input_tokens * input_rate // PER_MILLION) - (-price.rates.get("requests", 0) // PER_MILLION)
    if by_units:
        fixed += price.charge_at_most(request.most)
    for need in request.needs:
        if need.startswith("tool_calls."):
            most = request.calls.get(need, TOOL_CALLS)
            fixed += price.charge({need: most})
    limited = request.output_limit is not None or not request.limitable
    output = request.output_limit if request.output_limit is not None else rules.max_output
    if output and request.limitable:
        output = max(output, LEAST_OUTPUT)
    shortest = output if limited else min(output, LEAST_OUTPUT)
    return Bound(
        want=fixed - (-output * request.choices * output_rate // PER_MILLION),
        least=fixed - (-shortest * request.choices * output_rate // PER_MILLION),
        tokens=input_tokens + output * request.choices,
        fixed=fixed,
        rate=output_rate,
        choices=request.choices,
        limited=limited,
    )
