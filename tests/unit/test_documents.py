"""What the code says of its documents is true, and what the documents say of the code.

The form of a reference is in `architecture.md, "A document, a heading, a decision"`.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.documents import DOCS, ROOT, renewed

SOURCES = (
    *("guestmtce", "guest", "bin", "tests", "bench"),
    *("rpm", "debian", "packaging", "sm", "init.d", "ocf", "pmon.d", "systemd", "etc", ".ci"),
)
# Of the repository itself, beside what is in docs/.
AT_THE_TOP = ("README.md", "CHANGELOG.md")
DOCUMENTS = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
PAGES = {**DOCUMENTS, "README.md": (ROOT / "README.md").read_text("utf-8")}

_NAME = re.compile(r"(?<![\w/.-])([\w-]+\.md)\b")
_QUOTED = re.compile(r',? (?:and )?"([^"]+)"')
_DECISION = re.compile(r"\bdecisions? ((?:\d+(?:, | and |,? to )?)+)", re.IGNORECASE)
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(
    r"`((?:guestmtce|guest|tests|bench|bin|etc|docs|init\.d|ocf|sm|rpm|debian)/[\w./-]*)`"
)


def headings(text: str) -> list[str]:
    return [heading.strip() for heading in _HEADING.findall(_FENCE.sub("", text))]


def anchor(heading: str) -> str:
    """Return what a link to a heading says, as the usual viewers make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


HEADINGS = {name: headings(text) for name, text in PAGES.items()}
DECISIONS = {int(number) for number in re.findall(r"^(\d+)\. ", DOCUMENTS["decisions.md"], re.M)}


@cache
def said(path: Path) -> tuple[str, ...]:
    """Return what a source file says to people: comments and strings of Python, else all of it."""
    return tuple(_said(path))


def _said(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8", errors="replace")
    if path.suffix != ".py" and not text.startswith("#!/usr/bin/python"):
        yield " ".join(line.lstrip("#; ") for line in text.splitlines())
        return
    comment: list[str] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                comment.append(token.string.lstrip("#: "))
                continue
            if comment and token.type != tokenize.NL:
                yield " ".join(comment)
                comment = []
            if token.type == tokenize.STRING:
                yield " ".join(token.string.replace('\\"', '"').split())


def files() -> list[Path]:
    found = [ROOT / "Makefile"]
    for name in SOURCES:
        found += sorted(path for path in (ROOT / name).rglob("*") if path.is_file())
    return [
        path
        for path in found
        if "data" not in path.parts
        and path != Path(__file__)
        and path.suffix not in (".pyc", ".so", ".gz", ".json")
    ]


FILES = files()


def faults(text: str) -> Iterator[str]:
    """Yield what a text names and nobody has written."""
    for name in _NAME.finditer(text):
        document = name[1]
        if document in AT_THE_TOP:
            continue
        if document not in DOCUMENTS:
            yield f"there is no docs/{document}"
        else:
            yield from _missing_headings(document, text[name.end() :])
    for numbers in _DECISION.findall(text):
        for number in re.findall(r"\d+", numbers):
            if int(number) not in DECISIONS:
                yield f"there is no decision {number}"


def _missing_headings(document: str, rest: str) -> Iterator[str]:
    """Judge what follows a document's name: quoted headings, or one without quotes."""
    if rest[:3] == ', "':
        while quoted := _QUOTED.match(rest):
            if quoted[1] not in HEADINGS[document]:
                yield f'docs/{document} has no heading "{quoted[1]}"'
            rest = rest[quoted.end() :]
    elif rest[:2] == ", " and not re.match(r", (and\b|decision|[\w-]+\.md)", rest):
        known = HEADINGS[document]
        if not any(re.match(re.escape(heading) + r"(?!\w)", rest[2:]) for heading in known):
            yield f"docs/{document} has no heading {rest[2:40]!r}"


def test_there_is_something_to_look_at() -> None:
    """A test that walks nothing would say nothing."""
    texts = [text for path in FILES for text in said(path)]
    assert sum(bool(_NAME.search(text)) for text in texts) > 50
    assert sum(bool(_DECISION.search(text)) for text in texts) > 50
    assert len(DECISIONS) >= 48
    assert max(DECISIONS) == len(DECISIONS)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("as in behaviour.md", 0),
        ('behaviour.md, "Heartbeat" and "Vote": so', 0),
        ("behaviour.md, Heartbeat: so", 0),
        ("behaviour.md, decision 7", 0),
        ("wave.md", 1),
        ('behaviour.md, "Breath"', 1),
        ("behaviour.md, Heart", 1),
        ("decisions 7, 8 and 4711", 1),
    ],
)
def test_a_fault_is_found(text: str, count: int) -> None:
    """The judge itself."""
    assert len(list(faults(text))) == count


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_code_names_is_written(path: Path) -> None:
    """Every document, heading and decision that a comment or string names."""
    assert [fault for text in said(path) for fault in faults(text)] == []


@pytest.mark.parametrize("name", PAGES)
def test_what_the_documents_name_is_there(name: str) -> None:
    """Links, their anchors, files of the repository, decisions."""
    text, base = PAGES[name], ROOT if name == "README.md" else DOCS
    wrong = [target for target in _LINK.findall(text) if not _leads_somewhere(target, name, base)]
    wrong += [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    wrong += [number for number in _numbers(text) if int(number) not in DECISIONS]
    assert wrong == []


def _leads_somewhere(target: str, name: str, base: Path) -> bool:
    page, _, place = target.partition("#")
    if "://" in target:
        return True
    if page and not (base / page).exists():
        return False
    return not place or place in map(anchor, HEADINGS[Path(page).name if page else name])


def _numbers(text: str) -> list[str]:
    return [number for numbers in _DECISION.findall(text) for number in re.findall(r"\d+", numbers)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_tables_are_those_of_the_code(name: str) -> None:
    """State tables, settings: printed from the code."""
    assert renewed(DOCUMENTS[name]) == DOCUMENTS[name], "run: python3 -m tests.documents"
