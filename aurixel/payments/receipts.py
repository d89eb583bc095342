"""Receipts: one for each order that was paid, numbered without a gap, never changed; as JSON, and as a page to be printed.

What the operator's details and the tax were is kept with the receipt; what was given back since is read from the order.
The page has no script, loads nothing, and shows everything as text. No payer's name or address is known here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import msgspec

from aurixel.errors import StoreUnavailable
from aurixel.payments.orders import CENT, Order
from aurixel.storage import ReceiptDoc, Store
from aurixel.values import Nanos, format_usd

_TRIES: Final = 1000
_HOW: Final[Mapping[str, str]] = {"refund": "refunded", "elsewhere": "refunded", "dispute": "taken back by the payer's bank"}


class ReceiptRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator has printed on receipts. `tax_rate`: percent as a decimal, contained in the amount; "" for none."""

    name: str = ""
    details: tuple[str, ...] = ()
    tax_name: str = ""
    tax_rate: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt as it was issued."""

    number: int
    order: str
    account: str
    at_ms: int
    amount: Nanos
    currency: str
    by_code: bool
    rules: ReceiptRules


class _Body(msgspec.Struct, frozen=True):
    amount: Nanos
    currency: str
    by_code: bool
    rules: ReceiptRules


_decoder: Final = msgspec.json.Decoder(_Body)


async def issue(store: Store, order: Order, rules: ReceiptRules, now_ms: int) -> int:
    """The number of the order's receipt, issued now if it has none. `StoreUnavailable`: issue it again.

    A number is always the next one after the highest there is, so that no number is left out whoever dies on the way.
    """
    for _ in range(_TRIES):
        found = await store.receipt_of(order.id)
        if found is not None:
            return found.number
        if order.by_code:  # nothing was paid for it here, and so no tax either
            rules = msgspec.structs.replace(rules, tax_name="", tax_rate="")
        body = msgspec.json.encode(_Body(order.amount, order.currency, order.by_code, rules))
        number = await store.receipt_last() + 1
        if await store.receipt_put(ReceiptDoc(number=number, order=order.id, account=order.account, at_ms=now_ms, body=body)):
            return number
    raise StoreUnavailable("the numbers of receipts do not come to rest")


def from_doc(doc: ReceiptDoc) -> Receipt:
    """A receipt as the store has it."""
    body = _decoder.decode(doc.body)
    return Receipt(
        number=doc.number,
        order=doc.order,
        account=doc.account,
        at_ms=doc.at_ms,
        amount=body.amount,
        currency=body.currency,
        by_code=body.by_code,
        rules=body.rules,
    )


def contained_tax(amount: Nanos, rate: str) -> Nanos:
    """The tax in an amount, rounded half up to whole cents: a rate of 25 in 10.00 is 2.00."""
    percent = Decimal(rate)
    cents = (Decimal(amount) / CENT * percent / (100 + percent)).quantize(Decimal(1), ROUND_HALF_UP)
    return int(cents) * CENT


def as_json(receipt: Receipt, order: Order, email: str) -> dict[str, Any]:
    """The receipt as it stands now; amounts are exact decimal strings."""
    rules, given = receipt.rules, _given_back(order)
    tax = None
    if rules.tax_rate:
        amount = contained_tax(receipt.amount, rules.tax_rate)
        tax = {"name": rules.tax_name, "rate": rules.tax_rate, "amount": format_usd(amount)}
    return {
        "number": receipt.number,
        "order": receipt.order,
        "date": _day(receipt.at_ms),
        "account": email,
        "operator": {"name": rules.name, "details": list(rules.details)},
        "item": "credit by a code" if receipt.by_code else "prepaid credit",
        "currency": receipt.currency,
        "amount": format_usd(receipt.amount),
        "tax": tax,
        "given_back": [{"date": _day(at_ms), "how": how, "amount": format_usd(amount)} for at_ms, how, amount in given],
        "left": format_usd(receipt.amount - min(receipt.amount, sum(amount for _, _, amount in given))),
    }


def as_html(receipt: Receipt, order: Order, email: str) -> str:
    """The same as a page to be printed."""
    shown = as_json(receipt, order, email)
    unit = shown["currency"].upper()
    rows = [(shown["item"], f"{shown['amount']} {unit}")]
    if tax := shown["tax"]:
        rows.append((f"contains {tax['rate']} % {tax['name']}", f"{tax['amount']} {unit}"))
    rows += [(f"{given['how']} on {given['date']}", f"-{given['amount']} {unit}") for given in shown["given_back"]]
    if shown["given_back"]:
        rows.append(("left", f"{shown['left']} {unit}"))
    head = [
        ("Receipt", f"No. {shown['number']}"),
        ("Date", shown["date"]),
        ("Order", shown["order"]),
        ("Account", shown["account"]),
    ]
    operator = "".join(f"<p>{_text(line)}</p>\n" for line in (shown["operator"]["name"], *shown["operator"]["details"]) if line)
    title = f"Receipt {shown['number']}"
    return _PAGE.format(title=_text(title), operator=operator, head=_rows(head), rows=_rows(rows))


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="content-security-policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
body {{ font: 11pt/1.4 sans-serif; color: #000; background: #fff; max-width: 40em; margin: 3em auto; padding: 0 1em }}
header p {{ margin: 0 }}
table {{ width: 100%; border-collapse: collapse; margin-top: 2em }}
th, td {{ text-align: left; padding: .3em 0; border-bottom: 1px solid #ccc; overflow-wrap: anywhere }}
td {{ text-align: right }}
th {{ font-weight: normal }}
@page {{ margin: 2cm }}
</style>
</head>
<body>
<header>
{operator}</header>
<table>
{head}</table>
<table>
{rows}</table>
</body>
</html>
"""


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>\n' for name, value in rows)


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _given_back(order: Order) -> list[tuple[int, str, Nanos]]:
    """What the payer has had back, in order: when, how, and how much."""
    given = [
        (refund.at_ms, "refund", refund.amount) for refund in order.refunds if refund.state in ("asking", "waiting", "done")
    ]
    given += [(move.at_ms, "elsewhere", -move.amount) for move in order.moves if move.cause == "elsewhere"]
    given += [(dispute.at_ms, "dispute", dispute.amount) for dispute in order.disputes if dispute.state != "won"]
    return [(at_ms, _HOW[how], amount) for at_ms, how, amount in sorted(given)]


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()
