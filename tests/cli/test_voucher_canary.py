"""The promise of codes: they are on `create`'s stdout, once, and in no log, file, document, message or order of ours, whatever
happened to them.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from aurixel_vouchers import Vouchers

from tests.cli.conftest import Run
from tests.flow.test_canary import Everything, files, listening

ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture
def log() -> Iterator[Everything]:
    with listening() as everything:
        yield everything


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request: pytest.FixtureRequest) -> str:
    return "sqlite:///var/aurixel.db" if request.param == "sqlite" else str(request.getfixturevalue("mongodb_database"))


def traces(code: str) -> list[str]:
    """What would give a code away: itself in any writing, and half of its secret."""
    plain = code.replace("-", "")
    whole = [code, plain, plain[4:16], plain[14:], code[5:19], code[20:]]
    return whole + [trace.lower() for trace in whole]


def documents(url: str) -> dict[str, str]:
    """Every document of a MongoDB database."""
    if not url.startswith("mongodb"):
        return {}
    with pymongo.MongoClient(url) as client:
        database: Any = client.get_default_database()
        found = {name: str(list(database[name].find())) for name in database.list_collection_names()}
    assert "shelf" in found
    return found


@pytest.mark.deadline(120)
def test_codes_leave_no_trace(
    aurixel: Run, folder: Path, url: str, log: Everything, monkeypatch: pytest.MonkeyPatch, expected_logs: Any
) -> None:
    expected_logs("aurixel.plugins", "plugin vouchers failed in redeem: RuntimeError at ", level=logging.ERROR)
    config = folder / "conf/aurixel.toml"
    text = config.read_text().replace('"limits", ', '"limits", "vouchers", ').replace("sqlite:///var/aurixel.db", url)
    config.write_text(text + "\n[payments.vouchers]\n")
    for email in (ADA, BOB):
        assert aurixel("account", "create", email).code == 0
    made = aurixel("voucher", "create", "5", "--count", "4", "--json").json["codes"]
    used, revoked, free, crashing = (each["code"] for each in made)
    wrong = free[:-1] + ("0" if free[-1] != "0" else "1")
    said = []

    def command(*words: str) -> int:
        done = aurixel(*words)
        said.append(done.out + done.err)
        return done.code

    def redeem(email: str, code: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(code))
        return command("voucher", "redeem", email, "--json")

    assert redeem(ADA, used) == redeem(ADA, used) == 0
    assert command("voucher", "revoke", made[1]["id"], "--reason", "lost") == 0
    assert [redeem(BOB, used), redeem(BOB, revoked), redeem(BOB, wrong)] == [1, 1, 2]
    assert [redeem(BOB, used) for _ in range(9)] == [1] * 9
    assert redeem(BOB, free) == 1  # throttled
    for words in (("voucher", "list"), ("voucher", "batches"), ("order", "list"), ("ledger", "verify")):
        assert command(*words) == 0
        assert command(*words, "--json") == 0

    async def crash(_: Vouchers, account: str, code: Any) -> None:
        raise RuntimeError(f"{account} {code.reveal()}")

    monkeypatch.setattr(Vouchers, "redeem", crash)
    assert redeem(ADA, crashing) == 1

    places = {"what was said": "".join(said), "log": "\n".join(log.lines), **files(folder), **documents(url)}
    found = [
        (place, trace)
        for code in (used, revoked, free, crashing, wrong)
        for trace in traces(code)
        for place, text in places.items()
        if trace in text
    ]
    assert found == []
