"""An order as a value: what is known of one top-up, and what follows from it. Pure; no store, no processor, no credit moves.

An order keeps facts and no state of its own: that the money came, what the processor says was given back, what was asked of
it, which cases are open. The state is read off the facts, so that facts may be learned in any order. What credit must move
is among them: an outbox of moves, each with an id that follows from the payment's, written before any of it is done.

                     begun                                  the processor says no, or nobody paid
      (nothing) ─────────────▶ created ──────────────┬──────────────────────────────▶ cancelled
                                  │                  │                                 expired
                                  │ the payer is     │ no money came                      │
                                  │ done, the money  │                                    │ the money came
                                  ▼ is on its way    │                                    │ all the same
                               pending ──────────────┘                                    │
                                  │                                                       │
                                  │ the money came: credit is put on the account          │
                                  ▼                                                       │
           a code ──────────▶   paid   ◀──────────────────────────────────────────────────┘
                              │   ▲  ▲ │
               a part is      │   │  │ │ the bank wants it back: credit is taken, the account suspended
               given back     │   │  │ └───────────────────────────────▶ disputed (for good, if it is lost)
                              ▼   │  └─────────────────────────────────────┘ won: what was taken returns
                   partly_refunded│ that failed: credit returns
                              │   │
               the rest too   ▼   │
                          refunded┘

`partly_refunded` and `refunded` become `disputed` and come back from it as `paid` does.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from aurixel.storage import MovementKind, OrderDoc
from aurixel.values import NANOS_PER_CENT, Nanos

CENT: Final[Nanos] = NANOS_PER_CENT

State: TypeAlias = Literal["created", "pending", "paid", "partly_refunded", "refunded", "disputed", "expired", "cancelled"]
STATES: Final[tuple[State, ...]] = (
    "created",
    "pending",
    "paid",
    "partly_refunded",
    "refunded",
    "disputed",
    "expired",
    "cancelled",
)
Cause: TypeAlias = Literal["payment", "refund", "returned", "elsewhere", "dispute", "won"]
# How a refund of ours stands. The first three count on being carried out; `refused`: the account did not cover it.
RefundState: TypeAlias = Literal["taking", "asking", "waiting", "done", "failed", "refused"]


class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Credit that must move because of an order. `of` names the refund or the case; `took` is what moved, once it has.

    `fault` is why it never can (the account is gone): the operator has been told, and `took` is 0.
    """

    id: str
    cause: Cause
    of: str = ""
    kind: MovementKind
    amount: Nanos
    at_ms: int
    author: str
    took: Nanos | None = None
    fault: str = ""


class OwnRefund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refund that the operator wants. `key` makes it happen once at the processor, `name` and `attempt` once here.

    `accepted`: the processor has taken it on, so that it is part of what the processor reports.
    """

    key: str
    name: str
    attempt: int
    amount: Nanos
    at_ms: int
    author: str
    state: RefundState = "taking"
    accepted: bool = False
    id: str = ""
    reason: str = ""


class Dispute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A case of the payer's bank. `suspended`: the account has been, because of it."""

    id: str
    amount: Nanos
    at_ms: int
    state: Literal["open", "won", "lost"] = "open"
    suspended: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One top-up of one account through one backend; `amount` in nano-dollars, whole cents but for codes.

    `page` is where it is paid, while it can be; `ref` the backend's id of that. `ended`: that no money was to come, and
    why. `reported` is the most the processor has said was given back of the payment; `elsewhere` how much of that was
    none of our refunds, and has been taken from the account for it. `receipt` is its receipt's number, 0 for none yet.
    """

    id: str
    account: str
    backend: str
    amount: Nanos
    currency: str
    created_ms: int
    author: str = ""
    rev: int = 1
    by_code: bool = False
    page: str = ""
    ref: str = ""
    expires_ms: int | None = None
    waiting: bool = False
    ended: Literal["", "expired", "failed", "refused"] = ""
    payment: str | None = None
    paid_ms: int | None = None
    reported: Nanos = 0
    elsewhere: Nanos = 0
    refunds: tuple[OwnRefund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    moves: tuple[Move, ...] = ()
    receipt: int = 0

    @property
    def state(self) -> State:
        """What all of it comes to."""
        if self.payment is None:
            if self.ended:
                return "expired" if self.ended == "expired" else "cancelled"
            return "pending" if self.waiting else "created"
        if any(dispute.state != "won" for dispute in self.disputes):
            return "disputed"
        given = self.given_back
        return "paid" if not given else "refunded" if given >= self.amount else "partly_refunded"

    @property
    def given_back(self) -> Nanos:
        """What the payer has been given back or is about to be, by us or at the processor."""
        ours = sum(refund.amount for refund in self.refunds if refund.state in ("asking", "waiting", "done"))
        return ours + self.elsewhere

    @property
    def refundable(self) -> Nanos:
        """What a refund of ours may be at most, whatever the account covers."""
        taking = sum(refund.amount for refund in self.refunds if refund.state == "taking")
        return 0 if self.state not in ("paid", "partly_refunded") else self.amount - self.given_back - taking

    @property
    def credit(self) -> Nanos:
        """What the account has had of it so far, less what was taken back."""
        return sum(move.took or 0 for move in self.moves)

    @property
    def loss(self) -> Nanos:
        """What the processor took back, or may keep, and the account did not cover: the operator's loss."""
        won = {dispute.id for dispute in self.disputes if dispute.state == "won"}
        return sum(
            move.took - move.amount
            for move in self.moves
            if move.took is not None and (move.cause == "elsewhere" or (move.cause == "dispute" and move.of not in won))
        )

    @property
    def at_rest(self) -> bool:
        """Whether every move is done, so that more can be decided."""
        return all(move.took is not None for move in self.moves)

    @property
    def here(self) -> bool:
        """Whether there is work left that needs nobody but the store."""
        suspend = any(not dispute.suspended for dispute in self.disputes)
        return not self.at_rest or suspend or (self.payment is not None and not self.receipt)

    @property
    def open(self) -> bool:
        """Whether there is any work left: here, or a refund to ask the processor for."""
        return self.here or any(refund.state == "asking" for refund in self.refunds)

    @property
    def waiting_ms(self) -> int | None:
        """Since when the oldest of the work that is left is there; None for no work."""
        since = [move.at_ms for move in self.moves if move.took is None]
        since += [refund.at_ms for refund in self.refunds if refund.state == "asking"]
        since += [dispute.at_ms for dispute in self.disputes if not dispute.suspended]
        since += [self.paid_ms] if self.paid_ms is not None and not self.receipt else []
        return min(since, default=None)

    def move(self, cause: Cause, of: str = "") -> Move | None:
        """The move for this cause."""
        return next((move for move in self.moves if (move.cause, move.of) == (cause, of)), None)


def next_rev(order: Order, **changes: object) -> Order:
    """The order with these changes, as the next revision of it."""
    return replace(order, rev=order.rev + 1, **changes)


def to_doc(order: Order) -> OrderDoc:
    """An order as the store keeps it."""
    return OrderDoc(
        id=order.id,
        account=order.account,
        backend=order.backend,
        state=order.state,
        payment=order.payment,
        open=order.open,
        created_ms=order.created_ms,
        rev=order.rev,
        body=msgspec.json.encode(order),
    )


def from_doc(doc: OrderDoc) -> Order:
    """An order as the store has it."""
    return _decoder.decode(doc.body)


_decoder: Final = msgspec.json.Decoder(Order)
