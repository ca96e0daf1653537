"""architecture.md, "Who imports whom", read from the source; and guestServer's import diet."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "guestmtce"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
IO_MODULES = {
    "asyncio",
    "ctypes",
    "fcntl",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
# Their siblings urllib.parse and http.HTTPStatus do no I/O.
WITH_SOCKETS = ("http.client", "http.server", "urllib.request")
SIBLINGS = {
    "guestmtce.server": {"guestmtce.agent", "guestmtce.ctl"},
    "guestmtce.agent": {"guestmtce.server", "guestmtce.ctl"},
    "guestmtce.ctl": {"guestmtce.server", "guestmtce.agent"},
}

# Inside core a module imports from its own tier or a lower one (a higher number).
TIERS = [
    {
        "shared.vocabulary",
        "shared.text",
        "shared.errors",
        "shared.limits",
        "shared.condition",
        "shared.history",
    },
    {"shared.config"},
    {"shared.settings", "shared.mtc_message", "shared.http_framing"},
    {"shared.stamp", "shared.owed", "shared.inbox", "shared.lives", "shared.delivery"},
    {
        "server.guest_protocol",
        "server.worker",
        "server.flow",
        "server.silence",
        "server.saved_loss",
    },
    {"server.machine", "server.memory"},
    {"server.alarms", "server.reports"},
    {"server.heartbeat", "server.connect", "server.vote", "server.instance"},
    {"agent.vim_messages", "agent.vim_commands"},
    {"agent.inventory", "agent.lanes", "agent.presence", "agent.vim_health"},
    {"agent.bursts", "agent.schedule", "agent.unknown_hosts"},
    {"agent.vim_queue", "agent.vim_requests"},
    {"agent.agent"},
    {"agent.audit"},
    {"agent.commands", "agent.events", "agent.mtc_commands", "agent.vim_answers"},
]
TIER_OF = {f"guestmtce.core.{name}": tier for tier, names in enumerate(TIERS) for name in names}
# Each half of core knows what both share, and itself.
HALVES = {"shared": {"shared"}, "server": {"shared", "server"}, "agent": {"shared", "agent"}}


TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def imports(name: str, tree: ast.Module) -> set[str]:
    """Return the modules that one imports anywhere, in functions and for types alone too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                found.add(whole if whole in MODULES else module)
    return found


IMPORTS = {name: imports(name, tree) for name, tree in TREES.items()}


def layer(module: str) -> str:
    return ".".join(module.split(".")[:2])


def of(name: str) -> list[str]:
    return [module for module in MODULES if layer(module) == f"guestmtce.{name}"]


def test_there_is_something_to_look_at():
    """A test that walks nothing would say nothing."""
    assert len(of("core")) >= 12
    assert "guestmtce.core.server.heartbeat" in IMPORTS["guestmtce.core.server.instance"]
    assert len(of("runtime")) >= 5


@pytest.mark.parametrize("module", of("core"))
def test_core_does_no_io(module):
    """core/ never imports socket, select, selectors, os, time, threading, subprocess, ..."""
    assert {name.partition(".")[0] for name in IMPORTS[module]} & IO_MODULES == set()
    assert {name for name in IMPORTS[module] if name.startswith(WITH_SOCKETS)} == set()


@pytest.mark.parametrize("module", of("core"))
def test_core_imports_core_alone(module):
    """core knows nothing of the layers around it."""
    ours = {name for name in IMPORTS[module] if layer(name).startswith("guestmtce")}
    assert {layer(name) for name in ours} <= {"guestmtce.core"}


@pytest.mark.parametrize("module", of("core"))
def test_inside_core(module):
    """vocabulary, text, errors ← codecs ← instance, inventory ← machines ← the agent."""
    own = TIER_OF[module]
    higher = {name for name in IMPORTS[module] if TIER_OF.get(name, 0) > own}
    assert higher == set()


@pytest.mark.parametrize("module", of("core"))
def test_the_halves_of_core_do_not_know_each_other(module):
    """guestServer's half and guestAgent's never import each other; what they share, neither."""
    half = module.split(".")[2]
    ours = {name.split(".")[2] for name in IMPORTS[module] if name.startswith("guestmtce.core.")}
    assert ours <= HALVES[half]


@pytest.mark.parametrize("module", ["vocabulary", "errors", "text", "http_framing", "config"])
def test_foundations(module):
    """vocabulary and errors import nothing of the project; the next tier little more."""
    allowed = {
        "vocabulary": set(),
        "errors": set(),
        "text": set(),
        "http_framing": {"guestmtce.core.shared.errors"},
        "config": {"guestmtce.core.shared.errors"},
    }[module]
    ours = {
        name for name in IMPORTS[f"guestmtce.core.shared.{module}"] if name.startswith("guestmtce")
    }
    assert ours <= allowed


# What runtime may know of core: whose fault it is, how often something may happen, where an
# HTTP request ends, and what a setting is. Nothing of these speaks of guests.
FOR_RUNTIME = {
    f"guestmtce.core.shared.{name}" for name in ("errors", "limits", "http_framing", "config")
}


@pytest.mark.parametrize("module", of("runtime"))
def test_runtime_knows_nothing_of_guests(module):
    """runtime imports itself, and of core what FOR_RUNTIME says."""
    ours = {name for name in IMPORTS[module] if name.startswith("guestmtce.")}
    assert {name for name in ours if layer(name) != "guestmtce.runtime"} <= FOR_RUNTIME


@pytest.mark.parametrize("module", [*of("server"), *of("agent"), *of("ctl")])
def test_programs_do_not_know_each_other(module):
    """server, agent and ctl never import each other."""
    assert {layer(name) for name in IMPORTS[module]} & SIBLINGS[layer(module)] == set()


# What both daemons have, or each state machine has; no module knows two of a kind by this name.
OF_EACH = {"Input", "Instance", "Port", "Row"}


def test_no_class_name_is_used_twice():
    names = Counter(
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in names.items() if times > 1} == OF_EACH


# Of a named tuple, of the standard library: public in all but their names.
UNDERLINED = {"_asdict", "_exit", "_fields", "_make", "_replace"}


def reached_into(path: Path) -> list[str]:
    """Return the private attributes that a file uses of others than its own classes."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    own = {"self", "cls", *(node.name for node in nodes if isinstance(node, ast.ClassDef))}
    return [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute)
        and re.match("_[a-z]", node.attr)
        and node.attr not in UNDERLINED
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
    ]


def test_no_test_reaches_into_what_is_private():
    """Neither of the product nor of what stands in for its peers."""
    files = sorted((PACKAGE.parent / "tests").rglob("*.py"))
    found = {str(path.relative_to(PACKAGE.parent)): reached_into(path) for path in files}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_no_cycles():
    """Following the imports ends, those for the type checker alone included."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " → ".join([*path, module])
        if module in done:
            return
        path.append(module)
        for name in IMPORTS[module] & MODULES.keys():
            visit(name)
        done.add(path.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("program", ["guestmtce.server.app", "guestmtce.server.main"])
def test_guest_server_pulls_in_no_http(program):
    """Import diet: guestServer imports no HTTP module."""
    heavy = ("http", "urllib", "email", "ssl", "asyncio", "xml", "concurrent", "multiprocessing")
    script = (
        f"import sys, {program}\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & set({heavy!r})))\n"
        "http = 'guestmtce.core.shared.http'\n"
        "print(*sorted(name for name in sys.modules if name.startswith(http)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
