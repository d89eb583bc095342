"""What a client is told of a translation: names only, whatever it has called its fields, and never many."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aurixel.dialects.translation import Translation
from aurixel.gateway.crossing import report
from aurixel.plugin.contracts import ModelRules
from tests.dialects.cases import DIALECTS

RULES = ModelRules(context=100_000, max_output=1000)
TURN = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": TURN},
    "openai_responses": {"model": "m", "input": "hi"},
    "anthropic_messages": {"model": "m", "max_tokens": 99, "messages": TURN},
}
PAIRS = [(client, upstream) for client in BODIES for upstream in BODIES if client != upstream]


def told(client: str, upstream: str, fields: dict[str, Any]) -> str:
    dialect = DIALECTS[client]
    request = dialect.parse_request(json.dumps(BODIES[client] | fields).encode(), {})
    ((_, value),) = report(dialect, Translation(dialect, DIALECTS[upstream], request, RULES))
    return value


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_a_field_that_is_no_name_is_not_repeated(client: str, upstream: str) -> None:
    value = told(client, upstream, {"a\r\nset-cookie: b": 1, "ä": 1, "n" * 65: 1, "made_up": 1})
    assert value == f"{client} to {upstream}; dropped=(other),made_up"


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_not_more_is_told_than_a_header_holds(client: str, upstream: str) -> None:
    value = told(client, upstream, {f"field_{n}": 1 for n in range(500)})
    assert re.fullmatch(r"\w+ to \w+; dropped=(field_\d+,){20}\+480", value)
