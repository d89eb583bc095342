"""Credit by voucher codes: made in batches, printed once, kept as hashes, redeemed once. It moves no credit itself."""

import click

from aurixel.plugin import BillingBackend, hookimpl
from aurixel_vouchers.backend import Vouchers, VouchersSettings

__all__ = ["Vouchers", "VouchersSettings", "register_billing_backends", "register_commands"]


@hookimpl
def register_billing_backends() -> list[type[BillingBackend]]:
    """The backend `vouchers`."""
    return [Vouchers]


@hookimpl
def register_commands(commands: click.Group) -> None:
    """`aurixel voucher`."""
    from aurixel_vouchers.commands import voucher

    commands.add_command(voucher)
