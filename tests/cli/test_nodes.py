"""`aurixel node`: what it lists, and how a node that never comes back is given up, by people and by machines."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from aurixel.storage import Store, UsageRecord
from tests.cli.conftest import Run
from tests.cli.test_commands import in_store


def test_nodes_are_listed(aurixel: Run, folder: Path) -> None:
    aurixel("reload")
    assert aurixel("node", "list").out == "no nodes\n"

    async def start(store: Store) -> None:
        await store.node_start("i" * 26, "here")

    in_store(folder, start)
    (node,) = aurixel("node", "list", "--json").json
    assert (node["inc"], node["name"], node["state"]) == ("i" * 26, "here", "live")
    assert "live" in aurixel("node", "list").out


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def dead_node(folder: Path, days: float = 1) -> str:
    """A node that died with a lease on a funded account, and with usage in the store that was never posted."""
    inc = "i" * 26

    async def make(store: Store) -> None:
        await store.node_start(inc, "far")
        (profile,) = await store.profiles_page("", 10)
        doc = await store.account_read(profile.account)
        assert doc is not None
        assert await store.lease_open(doc.id, inc, doc.ver, 2_000_000_000, 0)
        record = msgspec.convert(RECORD | {"account": doc.id, "inc": inc}, UsageRecord)
        await store.post([record], [], [])
        assert await store.node_dead(inc, 0)

    in_store(folder, make)
    with closing(sqlite3.connect(folder / "var/aurixel.db")) as connection, connection:
        connection.execute("UPDATE nodes SET since_ms = since_ms - ?", (round(days * 86_400_000),))
    return inc


RECORD = {
    "request_id": "r1",
    "s": 3,
    "key_id": "k",
    "model": "small",
    "upstream": "demo",
    "operation": "chat",
    "dialect": "openai_chat",
    "stream": False,
    "client_ip": "192.0.2.1",
    "at_ms": 1_800_000_000_000,
    "done_ms": 1_800_000_000_001,
    "cell": "ok",
    "measured": True,
    "status": 200,
    "counts": {"input": 500_000},
    "cost": 500_000_000,
    "price_version": 1,
}


def test_a_node_that_never_comes_back_is_given_up(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aurixel("reload")
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "10", "--reason", "x")
    inc = dead_node(folder)
    asked = aurixel("node", "abandon", inc)
    assert (asked.code, asked.out) == (2, "")
    assert "nobody is here to be asked: say --yes" in asked.err
    assert aurixel("node", "abandon", inc, "--json").error["code"] == "usage"
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    asked = aurixel("node", "abandon", inc)
    assert asked.code == 130
    assert f"Node {inc} on far is dead since" in asked.err
    assert "leases on 1 account, together 2.00 USD" in asked.err
    assert "not charged yet is 0.50 USD" in asked.err
    assert "Lost for good" in asked.err
    (node,) = aurixel("node", "list", "--json").json
    assert node["state"] == "dead"
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    done = aurixel("node", "abandon", inc)
    assert (done.code, "0.50 USD charged" in done.out, "1.50 USD back" in done.out) == (0, True, True)
    account = aurixel("account", "show", "a@b", "--json").json
    assert (account["available"], account["leased"], account["spent"]) == ("9.50", "0.00", "0.50")
    assert aurixel("ledger", "verify").code == 0
    assert aurixel("node", "list").out == "no nodes\n"
    assert aurixel("node", "abandon", inc, "--yes", "--json").json == {
        "inc": inc,
        "state": "abandoned",
        "leases": 0,
        "posted": "0.00",
        "written_off": "0.00",
        "returned": "0.00",
    }


def test_a_node_that_may_come_back_is_not_given_up(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "10", "--reason", "x")
    refused = aurixel("node", "abandon", "n" * 26, "--yes", "--json")
    assert (refused.code, refused.error["code"]) == (2, "node_unknown")
    refused = aurixel("node", "abandon", dead_node(folder, 0.9), "--yes", "--json")
    assert (refused.code, refused.error["code"]) == (1, "node_dead_lately")
    assert aurixel("account", "show", "a@b", "--json").json["leased"] == "2.00"
