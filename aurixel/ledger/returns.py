"""Leases go home: what is idle here, or wanted elsewhere, goes back to its account within seconds."""

from __future__ import annotations

import math

from aurixel.ledger.claim import together
from aurixel.ledger.contracts import patience
from aurixel.ledger.leases import Books, Tab


async def return_round(books: Books) -> None:
    """One look, every `want_look` seconds: answer recalls, give back what is idle, forget accounts without a lease."""
    settings = books.settings
    async with patience(settings.store_patience):
        wanted = await books.store.accounts_wanted(books.inc)
    for account, want in wanted:
        tab = books.tab(account)
        if want > tab.answered:
            tab.answered = want
            # Also what is freed while the other node still tries.
            tab.wanted_looks = 1 + math.ceil(settings.recall_wait / settings.want_look)
    home: list[Tab] = []
    for tab in list(books.tabs.values()):
        tab.idle_looks += 1
        idle = tab.idle_looks * settings.want_look >= settings.idle_return
        if tab.wanted_looks:
            tab.wanted_looks -= 1
            home.append(tab)
        elif idle and tab.seq is not None and (tab.at_rest or tab.free > 0 or not tab.known):
            home.append(tab)
        elif idle and tab.forgettable and books.tabs.get(tab.account) is tab:
            del books.tabs[tab.account]
    busy = {tab: None for tab in home if tab.busy}
    for tab in home:
        if tab not in busy:
            await _home(books, tab)
    await together(_home(books, tab) for tab in busy)  # side by side: one whose turn does not come keeps nobody


async def take_over(books: Books) -> None:
    """Find leases of ours that memory does not know: an open that got no answer and landed late."""
    async with patience(books.settings.store_patience):
        held = await books.store.accounts_held(books.inc)
    for account in held:
        tab = books.tab(account)
        if tab.seq is None:
            async with patience(books.settings.store_patience), tab.lock:
                await tab.look()


async def _home(books: Books, tab: Tab) -> None:
    async with patience(books.settings.store_patience), tab.lock:
        await tab.go_home()
