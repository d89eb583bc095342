"""`aurixel order`: top-ups, what became of them, refunds, receipts, and whether the processor has what we have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aurixel.cli.credit import user
from aurixel.cli.payments import backend_of, fulfilment_of, only_backend
from aurixel.cli.shell import Instant, Shell, Usd, instant, many, shared, table
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.payments import Order, Report
    from aurixel.storage import Store

# What is wrong with an amount that was typed.
_TYPED = ("amount_invalid", "amount_too_small", "amount_too_large")


@click.group()
def order() -> None:
    """Orders: credit that is paid for, refunded and receipted.

    \b
    aurixel order create ada@example.com 25.00
    aurixel order list --since 7d
    aurixel order refund ord_0123456789abcdef01234567 10.00
    """


@order.command()
@click.argument("email")
@click.argument("amount", type=Usd())
@click.option("--backend", help="Which block [payments.NAME] takes the money. [default: the only one]")
@shared
def create(shell: Shell, email: str, amount: int, backend: str | None) -> None:
    """Begin a top-up of AMOUNT USD for EMAIL.

    Prints the address of the page to pay at.

    The credit is there once the processor's webhook says that the money is.
    """
    from aurixel.accounts import AccountRefused, find_account
    from aurixel.payments import OrderRefused, begin_order

    async def work() -> Order:
        settings = shell.settings("store", "payments")
        async with shell.store(settings) as store:
            profile = await find_account(store, email)
            if profile.status != "active":
                raise AccountRefused(f"account_{profile.status}", f"the account is {profile.status}")
            bound = backend_of(settings, store, only_backend(settings, backend))
            fulfilment = fulfilment_of(settings, store)
            return await begin_order(fulfilment, bound, settings.order_rules, profile.account, amount, user())

    try:
        made = shell.run(work())
    except OrderRefused as error:
        if error.code in _TYPED:
            raise click.BadParameter(error.message) from None
        raise
    shell.note(f"order {made.id}: pay {format_usd(made.amount)} USD here")
    value = {
        "order": made.id,
        "url": made.page,
        "backend": made.backend,
        "amount": format_usd(made.amount),
        "currency": made.currency,
        "expires": instant(made.expires_ms),
    }
    shell.show(value, made.page)


@order.command("list")
@click.argument("email", required=False)
@click.option("--since", type=Instant(ahead=False), default="30d", show_default=True, help="A date (UTC), or a span back.")
@click.option("--state", help="Only those in this state.")
@shared
def list_(shell: Shell, email: str | None, since: int, state: str | None) -> None:
    """List orders, of EMAIL or of all accounts, oldest first."""
    from aurixel.accounts import find_account
    from aurixel.payments import STATES, from_doc
    from aurixel.storage import orders_of

    if state is not None and state not in STATES:
        raise click.BadParameter(f"no order is {state!r}; states are {', '.join(STATES)}", param_hint="--state")

    async def work() -> list[dict[str, Any]]:
        async with shell.store(shell.settings("store")) as store:
            account = (await find_account(store, email)).account if email is not None else None
            rows: list[dict[str, Any]] = []
            emails: dict[str, str] = {}
            async for doc in orders_of(store, account, since):
                if state in (None, doc.state):
                    if doc.account not in emails:
                        emails[doc.account] = await _email(store, doc.account)
                    rows.append(_line(from_doc(doc), emails[doc.account]))
            return rows

    rows = shell.run(work())
    head = ("order", "created", "email", "backend", "state", "amount", "given_back")
    shell.show(rows, table(head, [[row[name] for name in head] for row in rows]) if rows else "no orders")


@order.command()
@click.argument("order_id", metavar="ORDER")
@shared
def show(shell: Shell, order_id: str) -> None:
    """Show an order: its facts, and what credit moved for it.

    Also what the operator lost by it.
    """

    async def work() -> dict[str, Any]:
        settings = shell.settings("store")
        async with shell.store(settings) as store:
            found = await fulfilment_of(settings, store).read(order_id)
            return _whole(found, await _email(store, found.account))

    value = shell.run(work())
    lines = [f"{name:12} {text}" for name, text in value.items() if not isinstance(text, list) and text is not None]
    for name in ("refunds", "disputes", "moves"):
        lines += [f"{name[:-1]:12} {'  '.join(str(text) for text in each.values() if text)}" for each in value[name]]
    shell.show(value, "\n".join(lines))


@order.command()
@click.argument("order_id", metavar="ORDER")
@click.argument("amount", type=Usd(), required=False)
@click.option("--id", "name", help="Names this refund of the order: the same one is made once. [default: its amount, or all]")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--author", help="Who refunds it, for the record. [default: the system's user]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def refund(
    shell: Shell, order_id: str, amount: int | None, name: str | None, reason: str, author: str | None, yes: bool
) -> None:
    """Give back AMOUNT USD of an order.

    Without AMOUNT all that is left of it and not used up.

    Asks first. The credit is taken from the account before the processor is asked. Run it again after a crash: a refund
    that was begun goes on, and none is made twice. A second refund of the same amount needs an --id.
    """
    from aurixel.payments import OrderRefused
    from aurixel.payments import refund as make
    from aurixel.payments.machine import known_refund
    from aurixel.payments.orders import OwnRefund
    from aurixel.payments.refunds import to_give_back
    from aurixel.plugin.billing import BillingError

    if shell.json and not yes:
        raise click.UsageError("--json asks nothing: say --yes")
    named = name if name is not None else "all" if amount is None else format_usd(amount)
    if not 0 < len(named) <= 64 or not all(each.isascii() and (each.isalnum() or each in "._-") for each in named):
        raise click.BadParameter("an id is 1 to 64 letters, digits, dots, dashes and underscores", param_hint="--id")

    async def work() -> tuple[Order, OwnRefund, bool]:
        settings = shell.settings("store", "payments")
        async with shell.store(settings) as store:
            fulfilment = fulfilment_of(settings, store)
            found = await fulfilment.finish(await fulfilment.read(order_id))
            bound = backend_of(settings, store, found.backend)
            known = known_refund(found, named)
            before = known is not None and known.state in ("waiting", "done")
            what = format_usd(await to_give_back(fulfilment, found, named, amount))
            if not yes and not before:
                question = f"Give back {what} USD of order {found.id} of {await _email(store, found.account)}?"
                if not shell.ask(question):
                    raise click.Abort
            after, made = await make(
                fulfilment, bound, order_id, amount=amount, name=named, author=author or user(), reason=reason
            )
            return after, made, before

    try:
        after, made, before = shell.run(work())
    except OrderRefused as error:
        if error.code in _TYPED:
            raise click.BadParameter(error.message) from None
        raise
    except BillingError as error:
        taken = "the credit is taken: the same command, or a gateway within a minute, goes on"
        raise BillingError(f"{error.message}; {taken}", again=error.again) from None
    value = {"order": after.id, "refund": made.name, "amount": format_usd(made.amount), "state": made.state}
    value |= {"order_state": after.state, "given_back": format_usd(after.given_back)}
    words = {
        "done": f"{value['amount']} USD was given back",
        "waiting": f"{value['amount']} USD is on its way back",
        "failed": f"the refund of {value['amount']} USD failed at the processor; its credit is back on the account",
    }
    again = ": this refund was made before, and is not again" if before else ""
    shell.show(value, f"{words.get(made.state, made.state)}{again}; the order is {after.state}")
    if made.state == "failed":
        raise click.exceptions.Exit(1)


@order.command()
@click.option("--backend", help="Which block [payments.NAME]. [default: the only one]")
@click.option("--since", type=Instant(ahead=False), default="30d", show_default=True, help="A date (UTC), or a span back.")
@click.option("--apply", "apply", is_flag=True, help="Take in what is lacking here.")
@shared
def reconcile(shell: Shell, backend: str | None, since: int, apply: bool) -> None:
    """Compare our orders with what the processor has.

    Lists what it has and we lack (with --apply it is taken in, as if its webhook had come), what it says that cannot be, and
    orders that are paid here and of which it knows nothing. Exit code 1 while anything is left.
    """
    from aurixel.payments import reconcile as compare

    async def work() -> tuple[str, Report]:
        settings = shell.settings("store", "payments")
        name = only_backend(settings, backend)
        async with shell.store(settings) as store:
            bound = backend_of(settings, store, name)
            return name, await compare(fulfilment_of(settings, store), bound, since, apply=apply)

    name, report = shell.run(work())
    value = {
        "ok": report.ok,
        "backend": name,
        "since": instant(since),
        "applied": report.applied,
        "lacking": [{"what": each.what, "order": each.order, "payment": each.payment} for each in report.lacking],
        "refused": [
            {"what": each.what, "order": each.order, "payment": each.payment, "code": each.code} for each in report.refused
        ],
        "unknown": list(report.unknown),
    }
    verb = "taken in" if report.applied else "lacking here"
    lines = [f"{verb}: {each.what} of {each.order or each.payment}" for each in report.lacking]
    lines += [f"refused: {each.what} of {each.order or each.payment}: {each.code}" for each in report.refused]
    lines += [f"unknown there: {each} is paid here" for each in report.unknown]
    lines.append("nothing differs" if not lines else many(len(lines), "difference"))
    shell.show(value, "\n".join(lines))
    if not report.ok:
        raise click.exceptions.Exit(1)


@order.command()
@click.argument("order_id", metavar="ORDER")
@click.option("--html", "as_html", is_flag=True, help="Print a page for a printer instead.")
@shared
def receipt(shell: Shell, order_id: str, as_html: bool) -> None:
    """Print the receipt of an order that was paid."""
    from aurixel.payments import OrderRefused, receipts

    async def work() -> tuple[dict[str, Any], str]:
        settings = shell.settings("store")
        async with shell.store(settings) as store:
            fulfilment = fulfilment_of(settings, store)
            found = await fulfilment.finish(await fulfilment.read(order_id))
            doc = await store.receipt_of(found.id)
            if doc is None:
                raise OrderRefused("no_receipt", f"an order that is {found.state} has no receipt")
            issued, email = receipts.from_doc(doc), await _email(store, found.account)
            return receipts.as_json(issued, found, email), receipts.as_html(issued, found, email)

    value, page = shell.run(work())
    if as_html:
        click.echo(page, nl=False)
        return
    lines = [
        f"receipt {value['number']} of {value['date']}",
        *[each for each in value["operator"].values() if isinstance(each, str) and each],
    ]
    lines += [*value["operator"]["details"], f"order {value['order']}, account {value['account']}"]
    lines.append(f"{value['item']}: {value['amount']} USD")
    if value["tax"]:
        lines.append(f"contains {value['tax']['rate']} % {value['tax']['name']}: {value['tax']['amount']} USD")
    lines += [f"{each['how']} on {each['date']}: {each['amount']} USD" for each in value["given_back"]]
    shell.show(value, "\n".join(lines))


async def _email(store: Store, account: str) -> str:
    profile = await store.profile_read(account)
    return profile.email if profile is not None else ""


def _line(found: Order, email: str) -> dict[str, Any]:
    return {
        "order": found.id,
        "created": instant(found.created_ms),
        "email": email,
        "backend": found.backend,
        "state": found.state,
        "amount": format_usd(found.amount),
        "given_back": format_usd(found.given_back),
    }


def _whole(found: Order, email: str) -> dict[str, Any]:
    return {
        **_line(found, email),
        "currency": found.currency,
        "paid": instant(found.paid_ms),
        "payment": found.payment,
        "url": found.page or None,
        "expires": instant(found.expires_ms) if found.page else None,
        "receipt": found.receipt or None,
        "credit": format_usd(found.credit),
        "loss": format_usd(found.loss),
        "open": found.open,
        "refunds": [
            {
                "id": each.name,
                "state": each.state,
                "amount": format_usd(each.amount),
                "at": instant(each.at_ms),
                "author": each.author,
                "reason": each.reason,
            }
            for each in found.refunds
        ],
        "disputes": [
            {"id": each.id, "state": each.state, "amount": format_usd(each.amount), "at": instant(each.at_ms)}
            for each in found.disputes
        ],
        "moves": [
            {
                "cause": each.cause,
                "amount": format_usd(each.amount),
                "took": None if each.took is None else format_usd(each.took),
                "at": instant(each.at_ms),
                "author": each.author,
                "fault": each.fault,
            }
            for each in found.moves
        ],
    }
