"""Mutation run over `guestmtce/core`: `make mutants`; see `testing.md, "Mutants"`.

Cosmic-ray's operators say what can be changed; this chooses by seed, and runs for each mutant the
tests that import its module: those that name it first, the others if it survives these. Each
worker has a copy of the tree, so nothing here is touched.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
CORE = Path("guestmtce/core")
# Processes, sockets in bulk, or texts: they say nothing of the core that others do not.
SLOW = {"test_daemon", "test_guest_client", "test_documents", "test_layers"}
NOT_COPIED = (".*", "build", "__pycache__")
# Tests that take so many times what they take without a mutant do not end: that is noticed, too.
PATIENCE = 4
LEAST_SECS = 120.0
FIRST_SECS = 1200.0
REMOVE = "remove-statement"
Range = tuple[tuple[int, int], tuple[int, int]]


class Mutant(NamedTuple):
    """One small fault: a module's text before and after it, and where it is."""

    module: Path
    operator: str
    line: int
    source: str
    mutated: str

    def __str__(self) -> str:
        """Return the changed lines as a diff shows them."""
        lines = difflib.unified_diff(
            self.source.splitlines(), self.mutated.splitlines(), n=0, lineterm=""
        )
        changed = " ".join(line.strip() for line in lines if line[:3] not in ("---", "+++", "@@ "))
        return f"{self.module}:{self.line} [{self.operator}] {' '.join(changed.split())}"


def silent_ranges(source: str) -> list[Range]:
    """Return the parts that no run can tell: annotations, asserts, imports for types."""
    nodes = ast.walk(ast.parse(source))
    return [
        ((part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0))
        for part in map(_silent_part, nodes)
        if part is not None
    ]


def _silent_part(node: ast.AST) -> ast.expr | ast.stmt | None:
    if isinstance(node, (ast.arg, ast.AnnAssign)):
        return node.annotation
    if isinstance(node, ast.FunctionDef):
        return node.returns
    if isinstance(node, ast.If):
        return node if ast.unparse(node.test) == "TYPE_CHECKING" else None
    return node if isinstance(node, ast.Assert) else None


def places(source: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return for each place in a module the (operator, occurrence) that can change it."""
    tree, silent = get_ast(source), silent_ranges(source)
    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        positions = (
            place for node in ast_nodes(tree) for place in operator.mutation_positions(node)
        )
        for occurrence, (start, _end) in enumerate(positions):
            if not any(first <= start < last for first, last in silent):
                found[start].append((name, occurrence))
    for index, statement in enumerate(removable(source)):
        found[statement.lineno, statement.col_offset].append((REMOVE, index))
    return found


def removable(source: str) -> list[ast.stmt]:
    """Return the calls and assignments inside functions: what `pass` can take the place of."""
    return [
        statement
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for statement in ast.walk(function)
        if (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call))
        or (isinstance(statement, (ast.Assign, ast.AugAssign)))
    ]


def mutate(source: str, operator: str, occurrence: int) -> str | None:
    """Return a module's text with one fault in it."""
    if operator != REMOVE:
        return mutate_code(source, get_operator(operator)(), occurrence)
    statement = removable(source)[occurrence]
    lines = source.splitlines(keepends=True)
    assert statement.end_lineno is not None
    last = statement.end_lineno
    lines[statement.lineno - 1 : last] = [" " * statement.col_offset + "pass\n"]
    return "".join(lines)


def choose(modules: Iterable[Path], number: int, seed: int) -> list[Mutant]:
    """Return so many mutants, at places drawn by seed, one operator drawn at each."""
    chance = random.Random(seed)
    spots = [
        (module, source, place, operators)
        for module in modules
        for source in [(ROOT / module).read_text("utf-8")]
        for place, operators in sorted(places(source).items())
    ]
    chance.shuffle(spots)
    mutants: list[Mutant] = []
    for module, source, (line, _column), operators in spots:
        operator, occurrence = chance.choice(sorted(operators))
        mutated = mutate(source, operator, occurrence)
        if mutated is not None and mutated != source and _is_python(mutated):
            mutants.append(Mutant(module, operator.removeprefix("core/"), line, source, mutated))
        if len(mutants) == number:
            break
    return mutants


def _is_python(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class Tests:
    """Which test files import which module, by reading their imports and those of these."""

    def __init__(self) -> None:
        self._imports = {
            path: set(self._imported(path))
            for top in ("guestmtce", "tests")
            for path in (ROOT / top).rglob("*.py")
        }
        self._files = [
            path
            for path in sorted((ROOT / "tests/unit").glob("test_*.py"))
            if path.stem not in SLOW
        ]

    @staticmethod
    def _imported(path: Path) -> Iterator[Path]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                file = ROOT / (name.replace(".", "/") + ".py")
                if file.exists():
                    yield file

    def of(self, module: Path) -> list[list[Path]]:
        """Return the test files for a module, in two portions: near it, and the rest."""
        target = ROOT / module
        near, far = [], []
        for file in self._files:
            if re.search(rf"(\b|_){re.escape(module.stem)}(\b|_)", file.stem) or (
                target in self._imports[file]
            ):
                near.append(file)
            elif target in self._reached(file):
                far.append(file)
        return [portion for portion in (near, far) if portion]

    def _reached(self, file: Path) -> set[Path]:
        reached: set[Path] = set()
        todo = [file]
        while todo:
            for found in self._imports.get(todo.pop(), ()):
                if found not in reached:
                    reached.add(found)
                    todo.append(found)
        return reached


def run(tree: Path, files: list[Path], seconds: float) -> str:
    """Run tests in a copy of the tree; return what pytest said if one failed, "" if none did."""
    names = [str(file.relative_to(ROOT)) for file in files]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
    # Two mutants of a second may be of one size: bytecode of the one would be taken for the other.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": os.devnull}
    command = [sys.executable, "-m", "pytest", *options, *names]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "too slow"
    return done.stdout or done.stderr if done.returncode else ""


def copy_to(tree: Path) -> None:
    """Copy the repository, without what was made in it."""
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))


def judge(
    mutants: list[Mutant], workers: int, seconds: float, patience: float
) -> tuple[int, list[Mutant]]:
    """Run the tests for each mutant; return how many were judged in the time, and who survived.

    `patience` is how many seconds tests may take.
    """
    tests, ends = Tests(), time.monotonic() + seconds
    todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        todo.put(mutant)
    judged: list[Mutant] = []
    survivors: list[Mutant] = []

    def work(tree: Path) -> None:
        copy_to(tree)
        while time.monotonic() < ends:
            try:
                mutant = todo.get_nowait()
            except queue.Empty:
                return
            (tree / mutant.module).write_text(mutant.mutated, "utf-8")
            if not any(run(tree, files, patience) for files in tests.of(mutant.module)):
                survivors.append(mutant)
                print(f"survived: {mutant}", flush=True)
            (tree / mutant.module).write_text(mutant.source, "utf-8")
            judged.append(mutant)

    with tempfile.TemporaryDirectory(prefix="mtce-mutants-") as directory:
        threads = [
            threading.Thread(target=work, args=(Path(directory) / str(number),))
            for number in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return len(judged), survivors


def complaint(modules: Iterable[Path]) -> str:
    """Return what fails without any mutant, for each would seem killed by it."""
    tests = Tests()
    files = {file for module in modules for portion in tests.of(module) for file in portion}
    with tempfile.TemporaryDirectory(prefix="mtce-mutants-") as directory:
        tree = Path(directory) / "tree"
        copy_to(tree)
        return run(tree, sorted(files), FIRST_SECS)


def main() -> int:
    """Run it and print the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=150, help="how many mutants (150)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--seconds", type=float, default=900.0, help="no new one after that (900)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("modules", nargs="*", type=Path, help="of guestmtce/core (all)")
    chosen = parser.parse_args()
    modules = chosen.modules or sorted(
        path.relative_to(ROOT) for path in (ROOT / CORE).rglob("*.py") if path.name != "__init__.py"
    )
    began = time.monotonic()
    failed = complaint(modules)
    patience = max(LEAST_SECS, PATIENCE * (time.monotonic() - began))
    if failed:
        print(f"{failed}\nthe tests fail without any mutant; that has to be mended first")
        return 1
    mutants = choose(modules, chosen.number, chosen.seed)
    judged, survivors = judge(mutants, chosen.workers, chosen.seconds, patience)
    killed = judged - len(survivors)
    print(f"seed {chosen.seed}: {judged} mutants, {killed} killed, {len(survivors)} survived")
    print(f"score: {100 * killed / max(1, judged):.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
