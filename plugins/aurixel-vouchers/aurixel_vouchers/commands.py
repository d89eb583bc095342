"""`aurixel voucher`: make codes, see what became of them, revoke them, redeem one for an account.

Codes are printed by `create`, once, and are taken from the terminal or stdin, so that no shell's history has them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click

from aurixel.plugin import BillingDesk, CommandHost, Credited, Instant, Secret, Usd, format_usd, instant
from aurixel_vouchers.backend import Revoked, Told, Unfinished, Vouchers
from aurixel_vouchers.codes import Code, read_id
from aurixel_vouchers.records import STATES, Voucher, batches, vouchers

MOST: Final = 10_000
_WORDS: Final = 500
_WHOLE: Final = "-"


def _words(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A few words for the record: they share a document on the shelf."""
    if value is not None and len(value) > _WORDS:
        raise click.BadParameter(f"at most {_WORDS} characters", ctx, param)
    return value


@click.group()
def voucher() -> None:
    """Voucher codes: credit to give away or to sell, redeemed once."""


@voucher.command()
@click.argument("amount", type=Usd())
@click.option("--count", type=click.IntRange(1, MOST), default=1, show_default=True, help="How many codes.")
@click.option(
    "--expires",
    type=Instant(ahead=True),
    help="Until when: a date (UTC), or a span such as 365d. They are good for ever unless said.",
)
@click.option("--note", callback=_words, default="", help="What they are for, for the record.")
@click.option("--author", callback=_words, help="Who makes them, for the record. [default: the system's user]")
@click.pass_obj
def create(host: CommandHost, amount: int, count: int, expires: int | None, note: str, author: str | None) -> None:
    """Make codes of AMOUNT USD each and print them, this once.

    Each code is alone on its line of stdout. Only hashes of them are kept: a code that is lost can be revoked by its batch,
    and not be shown again.

    \b
    aurixel voucher create 10.00 --count 100 --expires 365d --note "conference" > codes.txt
    """

    async def work() -> tuple[str, list[Code]]:
        async with host.desk(Vouchers.name) as desk:
            backend = _backend(desk)
            if expires is not None and expires <= backend.clock.wall_ms():
                raise click.BadParameter("that is over", param_hint="--expires")
            with _progress(host, "codes") as told:
                return await backend.make(amount, count, author or host.user, expires_ms=expires, note=note, told=told)

    try:
        batch, codes = host.run(work())
    except Unfinished as error:
        raise click.ClickException(
            f"the store gave no answer; no code is printed, and the unfinished batch is {error.batch}: "
            f"`aurixel voucher revoke {error.batch} --reason unfinished`, and make another"
        ) from None
    value = {
        "batch": batch,
        "amount": format_usd(amount),
        "expires": instant(expires),
        "codes": [{"id": code.id, "code": code.text.reveal()} for code in codes],
    }
    host.note(f"batch {batch}, {_many(count, 'code')} of {format_usd(amount)} USD, shown this once:")
    host.show(value, "\n".join(code.text.reveal() for code in codes))


@voucher.command("list")
@click.option("--batch", "batch", help="Only of this batch.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.pass_obj
def list_(host: CommandHost, batch: str | None, state: str | None) -> None:
    """List codes, by their ids, with what became of each.

    Who made a batch, when and what for: `aurixel voucher batches`.

    \b
    aurixel voucher list --state redeemed
    aurixel voucher list --batch K7QM --json
    """

    within = None if batch is None else read_id(batch)
    if batch is not None and (within is None or "-" in within):
        raise click.BadParameter(f"{batch!r} is no id of a batch, such as K7QM", param_hint="--batch")

    async def work() -> list[dict[str, Any]]:
        async with host.desk(Vouchers.name) as desk:
            backend = _backend(desk)
            now = backend.clock.wall_ms()
            emails: dict[str, str] = {}
            rows = []
            async for name, one in vouchers(backend.shelf, within or ""):
                if state is not None and one.state(now) != state:
                    continue
                if one.redeemed is not None and (account := one.redeemed.account) not in emails:
                    # An account that was erased is nobody's: then its id is all there is.
                    emails[account] = await desk.email_of(account) or account
                rows.append(_row(name, one, one.state(now), emails))
            return rows

    rows = host.run(work())
    head = ("id", "amount", "state", "expires", "account", "at", "by", "reason")
    lines = [[_cell(row[column]) for column in head] for row in rows]
    host.show(rows, host.table(head, lines) if lines else "no codes")


@voucher.command("batches")
@click.pass_obj
def batches_(host: CommandHost) -> None:
    """List batches, with who made them, when and what for.

    And how many of their codes are in which state.
    """

    async def work() -> list[dict[str, Any]]:
        async with host.desk(Vouchers.name) as desk:
            backend = _backend(desk)
            now = backend.clock.wall_ms()
            rows: dict[str, dict[str, Any]] = {
                name: {
                    "batch": name,
                    "amount": format_usd(batch.amount),
                    "count": batch.count,
                    **dict.fromkeys(STATES, 0),
                    "made": instant(batch.made_ms),
                    "author": batch.author,
                    "expires": instant(batch.expires_ms),
                    "note": batch.note,
                }
                async for name, batch in batches(backend.shelf)
            }
            async for name, one in vouchers(backend.shelf):
                if (row := rows.get(name.partition("-")[0])) is not None:
                    row[one.state(now)] += 1
            return list(rows.values())

    rows = host.run(work())
    head = ("batch", "amount", "count", *STATES, "made", "author", "expires", "note")
    lines = [[_cell(row[column]) for column in head] for row in rows]
    host.show(rows, host.table(head, lines) if lines else "no batches")


@voucher.command()
@click.argument("id")
@click.option("--reason", callback=_words, required=True, help="Why, for the record.")
@click.option("--author", callback=_words, help="Who revokes, for the record. [default: the system's user]")
@click.pass_obj
def revoke(host: CommandHost, id: str, reason: str, author: str | None) -> None:
    """Revoke a code, or all of a batch, by ID. What is redeemed stays redeemed.

    \b
    aurixel voucher revoke K7QM --reason "the list was lost"
    aurixel voucher revoke K7QM-3F9A2C7D --reason "sent to the wrong address"
    """

    if not reason.strip():
        raise click.BadParameter("say why: it is all that anyone will know of it later", param_hint="--reason")
    name = read_id(id)

    async def work() -> Revoked | None:
        if name is None:
            return None
        async with host.desk(Vouchers.name) as desk:
            with _progress(host, "codes") as told:
                return await _backend(desk).revoke(name, author or host.user, reason, told)

    done = host.run(work())
    if done is None:
        raise click.UsageError(f"there is no batch and no code with the id {id!r}")
    value = {"revoked": list(done.ids), "already": done.revoked, "redeemed": done.redeemed, "expired": done.expired}
    left = {"redeemed": done.redeemed, "revoked": done.revoked, "expired": done.expired}
    others = ", ".join(f"{count} {state}" for state, count in left.items() if count)
    host.show(value, f"revoked {_many(len(done.ids), 'code')}" + f"; left as they are: {others}" * bool(others))


@voucher.command()
@click.argument("email")
@click.argument("code", default=_WHOLE)
@click.pass_obj
def redeem(host: CommandHost, email: str, code: str) -> None:
    """Give the account of EMAIL the credit of a code.

    CODE is asked for, or read from stdin where that is no terminal: as an argument it stays in the shell's history. Done
    again for the same account it changes nothing.

    \b
    aurixel voucher redeem ada@example.com
    aurixel voucher redeem ada@example.com < code.txt
    """
    secret = _code(code)

    async def work() -> Credited:
        async with host.desk(Vouchers.name) as desk:
            return await desk.redeem(email, secret)

    done = host.run(work())
    value = {
        "order": done.order,
        "payment": done.payment,
        "amount": format_usd(done.amount),
        "available": format_usd(done.available),
    }
    was = f"{format_usd(done.amount)} USD were credited" + (" before, and are not again" if done.again else "")
    host.show(value, f"{was} (code {done.payment}, order {done.order}); available: {format_usd(done.available)} USD")
    if not done.amount:  # its credit could not be moved: `aurixel order show` says why
        raise click.exceptions.Exit(1)


def _backend(desk: BillingDesk) -> Vouchers:
    backend: Vouchers = desk.backend
    return backend


def _code(typed: str) -> Secret:
    if typed != _WHOLE:
        return Secret(typed)
    if sys.stdin.isatty():
        return Secret(click.prompt("code", err=True))
    return Secret(sys.stdin.readline(1000).strip())


def _row(id: str, one: Voucher, state: str, emails: Mapping[str, str]) -> dict[str, Any]:
    redeemed, revoked = one.redeemed, one.revoked
    return {
        "id": id,
        "amount": format_usd(one.amount),
        "state": state,
        "expires": instant(one.expires_ms),
        "account": None if redeemed is None else emails[redeemed.account],
        "at": instant(redeemed.at_ms if redeemed else revoked.at_ms if revoked else None),
        "by": None if revoked is None else revoked.author,
        "reason": None if revoked is None else revoked.reason,
    }


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


@contextmanager
def _progress(host: CommandHost, label: str) -> Iterator[Told]:
    """A bar on stderr, where a person looks at it: takes (done, of)."""
    if host.json or sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def seen(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield seen
