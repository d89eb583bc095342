"""`aurixel check --live`: which upstreams answer, and which refuse our key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Run

KEY = "sk-live-0123456789"


class _Vendor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = KEY in self.headers.get("authorization", "") + self.headers.get("x-api-key", "")
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(503 if self.path.startswith("/ill") else 200 if known else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def vendor() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vendor) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_each_upstream_is_asked(aurixel: Run, folder: Path, vendor: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{vendor.server_port}"
    config = folder / "conf/aurixel.toml"
    blocks = {
        "good": ("openai", f"{url}/v1", KEY),
        "claude": ("anthropic", url, KEY),
        "wrong": ("openai", f"{url}/v1", "sk-another"),
        "ill": ("openai", f"{url}/ill", KEY),
        "gone": ("openai", "http://127.0.0.1:9/v1", KEY),
    }
    text = config.read_text().replace('"limits", ', '"limits", "openai", "anthropic", ')
    for name, (provider, base, key) in blocks.items():
        text += f'[upstreams.{name}]\nprovider = "{provider}"\nbase_url = "{base}"\napi_key = "{key}"\n'
    config.write_text(text)
    assert aurixel("check").code == 0
    assert vendor.asked == []  # type: ignore[attr-defined]
    done = aurixel("check", "--live", "--json")
    assert (done.code, done.json["ok"], done.json["faults"]) == (1, False, [])
    assert {each["upstream"]: (each["ok"], each["answer"]) for each in done.json["live"]} == {
        "demo": (True, "answers by itself, there is nothing to reach"),
        "good": (True, "answers (200)"),
        "claude": (True, "answers (200)"),
        "wrong": (False, "refuses our key (401)"),
        "ill": (False, "is in trouble (503)"),
        "gone": (False, "cannot be reached"),
    }
    assert sorted(vendor.asked) == ["/ill/models", "/v1/models", "/v1/models", "/v1/models"]  # type: ignore[attr-defined]
    shown = aurixel("check", "--live").out
    assert "live       wrong: refuses our key (401)" in shown
    assert KEY not in shown + done.out
