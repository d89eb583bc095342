"""Makes docs/compatibility.md from the translations themselves: `python -m tests.docs.compatibility_page` (`make docs`).

tests/golden/compatibility/requests.json has one request a feature in each dialect that has it. Each is translated for each
upstream as the gateway would, and what the translation reports is what the page says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from aurixel.app import ROUTES
from aurixel.dialects import register_dialects
from aurixel.dialects.translation import Translation, translates
from aurixel.errors import ClientError
from aurixel.plugin import MODEL_TRAITS, Dialect, ModelRules
from tests.docs.settlement_page import _PART, table

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "compatibility.md"
REQUESTS: Final = ROOT / "tests" / "golden" / "compatibility" / "requests.json"
# A model that can do what any model can; what it lacks without a trait is in dialects.md.
ABLE: Final = ModelRules(
    context=200_000, max_output=32_000, traits=frozenset(MODEL_TRAITS) - {"no_prefill", "no_sampling", "budget_thinking"}
)
DIALECTS: Final[Mapping[str, Dialect]] = {cls.name: cls() for cls in register_dialects()}
CHAT: Final = [name for name, each in DIALECTS.items() if translates(each, each)]


class Cell(NamedTuple):
    """What becomes of one feature on its way; `sent` is the upstream's body, empty where it is refused."""

    text: str
    sent: str = ""

    @property
    def kept(self) -> bool:
        return self.text == "as it is"


def features() -> dict[str, dict[str, Any]]:
    """Feature -> dialect -> the fields of its request, and `marks`: what its upstream's body must show."""
    found: dict[str, dict[str, Any]] = json.loads(REQUESTS.read_text())
    return found


def cell(client: str, upstream: str, fields: Mapping[str, Any]) -> Cell:
    """One feature from one dialect to another."""
    body = {"model": "m", **({"max_tokens": 1000} if client == "anthropic_messages" else {}), **fields}
    try:
        request = DIALECTS[client].parse_request(json.dumps(body).encode(), {})
        translation = Translation(DIALECTS[client], DIALECTS[upstream], request, ABLE)
    except ClientError as error:
        return Cell(f"refused: `{error.code}`")
    losses = translation.losses
    assert losses is not None
    told = [
        f"{kind}: {', '.join(f'`{name}`' for name in names)}"
        for kind, names in (("dropped", losses.dropped), ("emulated", losses.emulated), ("changed", losses.changed))
        if names
    ]
    sent = b"".join(bytes(raw) for raw in translation.request.fields.values())
    return Cell("; ".join(told) or "as it is", sent.decode() + " ".join(translation.request.fields))


def cells() -> Iterator[tuple[str, str, str, Cell]]:
    """Client, upstream, feature, and what becomes of it; for every pair that is translated."""
    for client in CHAT:
        for upstream in CHAT:
            if client == upstream:
                continue
            for feature, by_dialect in features().items():
                if client in by_dialect:
                    yield client, upstream, feature, cell(client, upstream, by_dialect[client])


def parts() -> Mapping[str, str]:
    """The made parts by name."""
    routes = []
    for (method, path), route in ROUTES.items():
        name, _, counting = route.partition("/")
        dialect = DIALECTS[name]
        ways = ", ".join(f"`{other}`" for other in CHAT if other != name) if name in CHAT and not counting else ""
        served = f"`{name}` as it is; translated into {ways}" if ways else f"`{name}` as it is"
        if counting:
            served = f"`{name}` as it is, else an estimate"
        routes.append([f"`{method} {path}`", dialect.family, f"`{dialect.operation}`", served])
    pairs = []
    found = list(cells())
    for client in CHAT:
        upstreams = [name for name in CHAT if name != client]
        rows = {}
        for asked, upstream, feature, each in found:
            if asked == client:
                rows.setdefault(feature, {})[upstream] = each.text
        pairs.append(f"\n### From `{client}`\n\n")
        head = ("feature", *(f"to `{name}`" for name in upstreams))
        pairs.append(table(head, [[feature, *(row[name] for name in upstreams)] for feature, row in rows.items()]))
    return {"routes": table(("endpoint", "family", "operation", "upstreams that speak"), routes), "pairs": "".join(pairs)}


def made(page: str) -> str:
    """The page with its parts as they should be."""
    known = parts()
    return _PART.sub(lambda found: f"{found['name']} -->\n{known[found['name']]}", page)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
