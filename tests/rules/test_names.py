"""No vendor in the core, no registry or machine anywhere, no catch-alls, no module longer than it must be."""

from __future__ import annotations

import ast
import re

from tests.rules.tree import ROOT, files, modules, tree

# The core knows dialects, never vendors: a vendor is a block in conf or a plugin. (models.md has what happens otherwise.)
VENDORS = re.compile(
    r"api\.(openai|anthropic|\w+)\.(com|ai)|azure|bedrock|groq|mistral|openrouter|deepseek|ollama|gemini|vertex|cohere"
    r"|\bgpt-|\bclaude-|\bo[1345]-|\bdall-e|\bwhisper-|\btts-1",
    re.IGNORECASE,
)

# Written in halves, so that this file keeps its own rule.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".", "yarnpkg" + ".", "maven" + ".org", "maven.apache" + ".org")
HOSTS += ("proxy.golang" + ".org", "crates" + ".io", "debian" + ".org", "docker" + ".io")
MACHINE = re.compile(r"(?<![\w.$}/-])/(?:wor" r"k/(?:main|shared|\.library)|roo" r"t/|hom" r"e/|Use" r"rs/|opt/whee" r"ls)")

# A module longer than this says why in its docstring.
LINES = 600
WHY = re.compile(r"stays whole|Long,")


def _text(path: object) -> str:
    try:
        return (ROOT / str(path)).read_text()
    except UnicodeDecodeError:
        return ""


def test_the_core_names_no_vendor() -> None:
    faults = []
    for path in files():
        if path.is_relative_to("aurixel") and path.suffix in {".py", ".toml", ".json", ".sql", ".html"}:
            for number, line in enumerate(_text(path).splitlines(), 1):
                if found := VENDORS.search(line):
                    faults.append(f"{path}:{number}: {found[0]}")
    assert not faults, "the core knows dialects; a vendor is a block in conf or a plugin"


def test_no_file_names_a_registry_or_a_machine() -> None:
    faults = []
    for path in files():
        for number, line in enumerate(_text(path).splitlines(), 1):
            if any(host in line for host in HOSTS) or MACHINE.search(line):
                faults.append(f"{path}:{number}: {line.strip()[:100]}")
    assert not faults


def test_no_module_is_a_catch_all() -> None:
    catch_alls = {"util", "utils", "helper", "helpers", "misc", "common", "tools"}
    assert not [path for path in modules("aurixel", "plugins", "tests") if catch_alls & {path.stem, *path.parent.parts}]


def test_a_long_module_says_why_it_stays_whole() -> None:
    long = [path for path in modules("aurixel", "plugins", "tests") if len(_text(path).splitlines()) > LINES]
    silent = [str(path) for path in long if not WHY.search((ast.get_docstring(tree(path)) or "").replace("\n", " "))]
    assert not silent, f"more than {LINES} lines: split it, or say in its docstring why it `stays whole`"
