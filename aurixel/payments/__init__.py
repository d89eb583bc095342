"""How money becomes credit, and goes back: orders, webhooks, refunds, disputes, codes and receipts; through the ledger only.

`orders` has the drawn machine; `machine` what follows from what; `fulfilment` carries it out. No vendor, no HTTP, no card
details, names or addresses. docs/payments.md is the operator's page.
"""

from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import Fulfilment, NoMetrics, PaymentMetrics, WebhookResult
from aurixel.payments.machine import NotYet, OrderRefused, decide
from aurixel.payments.orders import CENT, STATES, Order, from_doc
from aurixel.payments.receipts import Receipt, ReceiptRules
from aurixel.payments.reconciling import Finding, Report, reconcile
from aurixel.payments.refunds import refund, to_give_back
from aurixel.payments.sweep import Sweep
from aurixel.payments.topups import OrderRules, begin_order, redeem
from aurixel.payments.webhooks import Answer, Webhooks

__all__ = [
    "CENT",
    "STATES",
    "Answer",
    "BoundBackend",
    "Finding",
    "Fulfilment",
    "NoMetrics",
    "NotYet",
    "Order",
    "OrderRefused",
    "OrderRules",
    "PaymentMetrics",
    "Receipt",
    "ReceiptRules",
    "Report",
    "Sweep",
    "WebhookResult",
    "Webhooks",
    "begin_order",
    "decide",
    "from_doc",
    "reconcile",
    "redeem",
    "refund",
    "to_give_back",
]
