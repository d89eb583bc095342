"""`aurixel usage`: what was used, what it cost the customer, and with `--margin` what it cost us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from aurixel.cli.shell import Instant, Shell, count_accounts, instant, many, shared, table
from aurixel.clock import SystemClock
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.catalog import MarginLine, Margins, Unknown

By = Literal["model", "day", "key"]


@click.command()
@click.argument("email", required=False)
@click.option("--since", type=Instant(ahead=False), default="30d", show_default=True, help="A date (UTC), or a span back.")
@click.option("--by", type=click.Choice(get_args(By)), default="model", show_default=True, help="One line for each.")
@click.option("--margin", is_flag=True, help="Revenue, what upstreams charged for it, and what is left.")
@shared
def usage(shell: Shell, email: str | None, since: int, by: By, margin: bool) -> None:
    """Show what an account, or all of them, used and what it cost.

    Counted from the hour of --since on; with --margin from the very instant, and record by record, which takes a while.

    --margin knows what upstreams charge from the [[cost]] blocks of prices.toml. Where they say nothing, it says so: the
    cost and the margin are those of the other requests. docs/prices.md says what is in a cost and what is not.

    \b
    aurixel usage ada@example.com
    aurixel usage ada@example.com --since 2026-01-01 --by day --json
    aurixel usage --margin --by model --since 7d
    """
    if margin:
        _margin(shell, email, since, by)
        return

    async def work() -> dict[str, dict[str, int]]:
        from aurixel.accounts import find_account
        from aurixel.storage import accounts_of

        async with shell.store(shell.settings("store")) as store:
            if email is not None:
                profile = await find_account(store, email)
                return {each.group: each.sums for each in await store.usage_sums(profile.account, since, by)}
            groups: dict[str, dict[str, int]] = {}
            done = 0
            with shell.bar("accounts", await count_accounts(store)) as bar:
                async for doc in accounts_of(store):
                    for each in await store.usage_sums(doc.id, since, by):
                        _add(groups.setdefault(each.group, {}), each.sums)
                    done += 1
                    bar(done, "")
            return dict(sorted(groups.items()))

    groups = shell.run(work())
    total: dict[str, int] = {}
    for sums in groups.values():
        _add(total, sums)
    shown = {
        "email": email,
        "since": instant(since),
        "by": by,
        "rows": [{by: group, **_line(sums)} for group, sums in groups.items()],
        "total": _line(total),
    }
    shell.show(shown, _report(by, groups, total))


def _add(total: dict[str, int], sums: Mapping[str, int]) -> None:
    for name, value in sums.items():
        total[name] = total.get(name, 0) + value


def _line(sums: Mapping[str, int]) -> dict[str, Any]:
    counts = {name: value for name, value in sorted(sums.items()) if name not in ("requests", "cost")}
    return {"requests": sums.get("requests", 0), "cost": format_usd(sums.get("cost", 0)), "counts": counts}


def _report(by: str, groups: Mapping[str, Mapping[str, int]], total: Mapping[str, int]) -> str:
    if not groups:
        return "nothing was used"
    classes = [name for name in sorted(total) if name not in ("requests", "cost")]

    def row(group: str, values: Mapping[str, int]) -> list[str]:
        counts = [str(values.get(name, 0)) for name in classes]
        return [group, str(values.get("requests", 0)), *counts, format_usd(values.get("cost", 0))]

    rows = [*(row(group, sums) for group, sums in groups.items()), row("total", total)]
    return table((by, "requests", *classes, "USD"), rows)


# --- margin -------------------------------------------------------------------------------------------------------------


def _margin(shell: Shell, email: str | None, since: int, by: By) -> None:
    from aurixel.accounts import find_account
    from aurixel.catalog import Catalogue, Margins
    from aurixel.storage import usage_of_all, usage_pages

    async def work() -> Margins:
        async with shell.store(shell.settings("store")) as store:
            catalogue = Catalogue(store, SystemClock())
            await catalogue.refresh()
            margins = Margins(catalogue.current, by)
            if email is not None:
                profile = await find_account(store, email)
                async for page in usage_pages(store, profile.account, since):
                    margins.add(page)
                return margins
            with shell.bar("accounts", await count_accounts(store)) as bar:
                async for done, page in usage_of_all(store, since):
                    margins.add(page)
                    bar(done, f"{margins.total.requests:,} records")
            return margins

    margins = shell.run(work())
    lines, unknown = sorted(margins.lines.items()), sorted(margins.unknown.items())
    shown = {
        "email": email,
        "since": instant(since),
        "by": by,
        "rows": [{by: group, **_plain(line)} for group, line in lines],
        "total": _plain(margins.total),
        "unknown": [
            {"model": why.model, "upstream": why.upstream, "missing": why.missing or "cost", "requests": count}
            for why, count in unknown
        ],
    }
    rows = [_row(group, line) for group, line in (*lines, ("total", margins.total))]
    text = [table((by, "requests", "revenue", "cost", "margin", "cost unknown"), rows)] if lines else ["nothing was used"]
    if unknown:
        revenue = format_usd(margins.total.unknown_revenue)
        text.append(
            f"\n{many(margins.total.unknown, 'request')} of unknown cost, {revenue} USD of revenue, in no cost or margin:"
        )
        text += [
            f"  {many(count, 'request')} of {why.model} at {why.upstream or 'nobody'}: {_why(why)}" for why, count in unknown
        ]
    shell.show(shown, "\n".join(text))


def _plain(line: MarginLine) -> dict[str, Any]:
    known = line.unknown < line.requests
    return {
        "requests": line.requests,
        "revenue": format_usd(line.revenue),
        "cost": format_usd(line.cost) if known else None,
        "margin": format_usd(line.margin) if known else None,
        "unknown_requests": line.unknown,
        "unknown_revenue": format_usd(line.unknown_revenue),
    }


def _row(group: str, line: MarginLine) -> list[str]:
    plain = _plain(line)
    return [
        group,
        str(line.requests),
        plain["revenue"],
        plain["cost"] or "unknown",
        plain["margin"] or "unknown",
        str(line.unknown),
    ]


def _why(unknown: Unknown) -> str:
    if unknown.missing == "counts":
        return "charged nothing, and what the upstream did was not counted"
    return f"no cost for {unknown.missing}" if unknown.missing else "no cost in prices.toml"
