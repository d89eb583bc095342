"""Receipts: numbered without a gap, as they were issued, with tax and what was given back; and nothing in them is code."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.errors import StoreUnavailable
from aurixel.payments import CENT, Fulfilment, ReceiptRules, receipts
from aurixel.payments.receipts import Receipt, as_html, as_json, contained_tax, issue
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import TestClock
from tests.payments.kit import RULES, Counted, begun, closed, disputed, fulfilment, paid, refunded, take
from tests.storage.faults import Fault, flaky
from tests.storage.model import MemoryStore


async def receipt_of(store: Store, order: str = "o1") -> dict[str, Any]:
    doc = await store.receipt_of(order)
    assert doc is not None
    return as_json(receipts.from_doc(doc), await fulfilment(store).read(order), "ada@example.com")


async def test_a_receipt_says_what_was_paid_to_whom_with_its_tax(store: Store) -> None:
    await begun(store)
    await take(fulfilment(store), paid())
    assert await receipt_of(store) == {
        "number": 1,
        "order": "o1",
        "date": "2023-11-14",
        "account": "ada@example.com",
        "operator": {"name": "Acme Ltd", "details": ["1 Main Street"]},
        "item": "prepaid credit",
        "currency": "usd",
        "amount": "10.00",
        "tax": {"name": "VAT", "rate": "19", "amount": "1.60"},
        "given_back": [],
        "left": "10.00",
    }


async def test_what_was_given_back_is_shown(memory: MemoryStore, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "is disputed")
    await begun(memory)
    made = fulfilment(memory)
    await take(made, paid(), refunded(250), disputed(300), disputed(100, "d2"), closed(True, "d2"))
    shown = await receipt_of(memory)
    assert sorted((each["how"], each["amount"]) for each in shown["given_back"]) == [
        ("refunded", "2.50"),
        ("taken back by the payer's bank", "3.00"),
    ]
    assert shown["left"] == "4.50"


async def test_a_receipt_stays_as_it_was_issued(memory: MemoryStore) -> None:
    await begun(memory)
    await begun(memory, "o2")
    await take(fulfilment(memory), paid())
    other = ReceiptRules(name="Other Ltd")
    made = Fulfilment(memory, TestClock(), other, Counted())
    await take(made, paid("o2", "p2"), refunded(100))
    first, second = await receipt_of(memory), await receipt_of(memory, "o2")
    assert (first["operator"]["name"], first["tax"]["name"]) == ("Acme Ltd", "VAT")
    assert (second["number"], second["operator"]["name"], second["tax"]) == (2, "Other Ltd", None)


async def test_numbers_have_no_gap_whoever_issues_and_whatever_is_lost(store: Store) -> None:
    for number in range(30):
        await begun(store, f"o{number:02}")
    faults: list[Fault | None] = ["lost", "dropped", "late", None] * 20
    broken, hold = flaky(store, lambda name: faults.pop() if name == "receipt_put" and faults else None)
    orders = [await fulfilment(store).read(f"o{number % 30:02}") for number in range(60)]

    async def one(number: int) -> None:
        while True:
            try:
                await issue(broken, orders[number], RULES, 5)
                return
            except StoreUnavailable:
                continue

    await asyncio.gather(*(one(number) for number in range(60)))
    while hold.late:
        await hold.land()
    numbers = [(await receipt_of(store, f"o{number:02}"))["number"] for number in range(30)]
    assert sorted(numbers) == list(range(1, 31))
    assert await store.receipt_last() == 30


@pytest.mark.parametrize(
    ("cents", "rate", "tax"),
    [(1000, "25", 200), (1000, "19", 160), (1000, "7.7", 71), (1, "50", 0), (3, "100", 2), (999, "0.5", 5)],
)
def test_the_tax_that_is_contained(cents: int, rate: str, tax: int) -> None:
    assert contained_tax(cents * CENT, rate) == tax * CENT


@given(cents=st.integers(1, 10**7), rate=st.decimals("0.0001", "99.9999", places=4))
def test_the_tax_is_within_half_a_cent(cents: int, rate: Any) -> None:
    tax = contained_tax(cents * CENT, str(rate))
    assert tax % CENT == 0
    assert abs(tax // CENT - cents * float(rate) / (100 + float(rate))) <= 0.5 + 1e-6


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


WORDS = st.text(st.sampled_from("<>\"'&;/=script onload{}%\\x é"), min_size=1, max_size=30)


@given(name=WORDS, detail=WORDS, tax=WORDS, email=WORDS)
def test_the_page_has_no_script_and_shows_everything_as_text(name: str, detail: str, tax: str, email: str) -> None:
    rules = ReceiptRules(name=name, details=(detail,), tax_name=tax, tax_rate="19")
    receipt = Receipt(
        number=7, order="o1", account="a", at_ms=5, amount=1000 * CENT, currency="usd", by_code=False, rules=rules
    )
    from tests.payments.test_machine import order

    page = Tags()
    page.feed(as_html(receipt, order(), email))
    assert set(page.tags) <= {"html", "head", "meta", "title", "style", "body", "header", "p", "table", "tr", "th", "td"}
    assert set(page.attributes) <= {"lang", "charset", "http-equiv", "content", "name", "scope"}
    squeezed = page.text.replace("\n", "")
    for word in (name, detail, tax, email):
        assert word in squeezed


async def test_a_codes_receipt_shows_no_tax(memory: MemoryStore) -> None:
    from aurixel.payments.machine import paid_by_code
    from aurixel.payments.orders import to_doc
    from tests.payments.test_machine import order

    code = paid_by_code(order(), "c1", 5)
    await memory.order_new(to_doc(code))
    await fulfilment(memory).finish(code)
    shown = await receipt_of(memory)
    assert (shown["item"], shown["tax"]) == ("credit by a code", None)
