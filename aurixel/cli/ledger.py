"""`aurixel ledger`: prove that the books add up."""

from __future__ import annotations

import click


@click.group()
def ledger() -> None:
    """The ledger: every account's credit, and the proof that it adds up."""
