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
from aurixel.ledger.settlement import (
    MATRIX,
    MODALITY_OF,
    Matrix,
    Modality,
    Rules,
    matrix_in_force,
    overridden,
)
from aurixel.ledger.slots import slot_folder, slots_beyond
from aurixel.ledger.verify import Fault, Report, verify

__all__ = [
    "MATRIX",
    "MODALITY_OF",
    "AbandonRefused",
    "Fault",
    "Hold",
    "Intent",
    "Ledger",
    "LedgerMetrics",
    "LedgerSettings",
    "Matrix",
    "Modality",
    "MovementError",
    "Movements",
    "NoMetrics",
    "Refused",
    "Report",
    "Rules",
    "Settlement",
    "Totals",
    "abandon",
    "left_behind",
    "matrix_in_force",
    "overridden",
    "slot_folder",
    "slots_beyond",
    "verify",
]
