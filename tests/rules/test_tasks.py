"""No task without an owner, and no sleep in the relay or in a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.rules.tree import ROOT, modules, plugin_modules, tree

# The rooms a request passes through: whoever waits there waits for an event, under a deadline.
RELAY = ("aurixel/edge", "aurixel/gateway", "aurixel/dialects", "aurixel/upstream")
SLEEPS = {"asyncio.sleep", "time.sleep", "anyio.sleep", "gen.sleep", "tornado.gen.sleep", "trio.sleep"}
# A bench paces its load by the clock; the test of the harness quotes bad tests.
MAY_SLEEP = ("tests/bench",)


def _calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Each call with what is called, as written: `asyncio.sleep`, `loop.create_task`, `get_running_loop().create_task`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def _naps(path: Path) -> Iterator[str]:
    for call, name in _calls(path):
        nothing = bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        if name in SLEEPS and not nothing:
            yield f"{path}:{call.lineno} {name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and {f"{node.module}.{alias.name}" for alias in node.names} & SLEEPS:
            yield f"{path}:{node.lineno} imports a sleep by name"


def test_nobody_sleeps_in_the_relay() -> None:
    assert not [nap for path in modules(*RELAY) for nap in _naps(path)], "wait for the event, under a deadline"


def test_no_test_sleeps() -> None:
    tests = [path for path in modules("tests", "plugins") if "tests" in path.parts]
    awake = [path for path in tests if not any(path.is_relative_to(folder) for folder in MAY_SLEEP)]
    assert not [nap for path in awake for nap in _naps(path)]


def test_every_task_has_an_owner() -> None:
    """A TaskGroup owns its tasks. Another owner, who awaits the task on every exit, says so on the line of the call:
    `# owner: stop() awaits it`, or after ruff's `# noqa: TID251 - `."""
    faults = []
    for path in [*modules("aurixel"), *plugin_modules()]:
        lines = (ROOT / path).read_text().splitlines()
        for call, name in _calls(path):
            receiver, _, method = name.rpartition(".")
            bare = method == "create_task" and (receiver == "asyncio" or "loop" in receiver.lower())
            if bare or method == "ensure_future":
                written = " ".join(lines[call.lineno - 1 : call.end_lineno])
                if "# owner: " not in written and "# noqa: TID251 - " not in written:
                    faults.append(f"{path}:{call.lineno} {name}")
    assert not faults, "use a TaskGroup, or say on the line who awaits the task on every exit: `# owner: stop() awaits it`"
