"""Everything that moves money: leases, holds, the journal, posting, replay, movements, the matrix, and their proof.

The gateway enters `Ledger.hold` before it calls an upstream and settles before its last byte goes out; payments and the
operator make `Movements`; `verify` recomputes every account. docs/ledger.md has the documents, operations and order that
all of it follows. It knows no HTTP, no dialect and no price.
"""

from aurixel.ledger.abandonment import AbandonRefused, abandon, left_behind
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, NoMetrics, Settlement, Totals
from aurixel.ledger.holds import Hold
from aurixel.ledger.movements import MovementError, Movements, Refused
from aurixel.ledger.node import Ledger
from aurixel.ledger.settlement import MATRIX, Rule, charge_rule, check_overrides
from aurixel.ledger.slots import slot_folder, slots_beyond
from aurixel.ledger.verify import Fault, Report, verify

__all__ = [
    "MATRIX",
    "AbandonRefused",
    "Fault",
    "Hold",
    "Intent",
    "Ledger",
    "LedgerMetrics",
    "LedgerSettings",
    "MovementError",
    "Movements",
    "NoMetrics",
    "Refused",
    "Report",
    "Rule",
    "Settlement",
    "Totals",
    "abandon",
    "charge_rule",
    "check_overrides",
    "left_behind",
    "slot_folder",
    "slots_beyond",
    "verify",
]
