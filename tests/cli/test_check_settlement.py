"""`aurixel check` on the settlement matrix: what is not as shipped, and what is wrong, by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_check_shows_the_matrix_where_it_is_not_as_shipped(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = aurixel("check", "--json").json
    assert (plain["client_gone"], plain["settlement"]) == ("close", [])
    assert "settlement" not in aurixel("check").out
    config = folder / "conf/aurixel.toml"
    config.write_text(
        config.read_text()
        + "[ledger]\nclient_gone = 'drain'\n[ledger.settlement]\nclient_gone = 'delivered'\nok = 'measured'\n"
    )
    monkeypatch.setenv("AURIXEL_LEDGER__SETTLEMENT__IMAGE__CLIENT_GONE", "nothing")
    shown = aurixel("check", "--json").json
    assert shown["client_gone"] == "drain"
    assert [tuple(each.values()) for each in shown["settlement"]] == [
        ("client_gone", modality, "nothing" if modality == "image" else "delivered", "measured_or_delivered")
        for modality in ("chat", "image", "audio", "embedding")
    ]
    text = aurixel("check").out
    assert "ledger     client_gone = drain\n" in text
    assert "settlement client_gone: delivered for chat, audio, embedding (as shipped: measured_or_delivered)\n" in text
    assert "settlement client_gone: nothing for image (as shipped: measured_or_delivered)\n" in text


def test_check_names_the_line_of_a_wrong_rule(aurixel: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    lines = config.read_text().count("\n")
    config.write_text(config.read_text() + "[ledger.settlement]\nimage.dyed = 'nothing'\ncrash = 'measured'\n")
    found = [(fault["place"], fault["mend"]) for fault in aurixel("check", "--json").json["faults"]]
    assert found == [
        (f"conf/aurixel.toml:{lines + 2} (ledger.settlement.image.dyed)", "did you mean 'died'?"),
        (f"conf/aurixel.toml:{lines + 3} (ledger.settlement.crash)", "leave it out"),
    ]
