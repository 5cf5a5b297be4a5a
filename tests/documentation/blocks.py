"""The fenced blocks of the documentation, with what a comment before each says about how it is tried.

A comment right before a block is seen by nobody who reads the page, and says one of these things a line:

    <!-- not run: REASON -->         it cannot be run here; its syntax is checked all the same
    <!-- given: SHELL -->            is done before it, where a reader would have it already
    <!-- background: TEXT -->        it goes on beside what follows, from when it says TEXT; ended with the page
    <!-- exit: N -->                 its last command ends with N
    <!-- in small: A -> B; ... -->   is run with B in place of A, such as fewer agents
    <!-- figures vary -->            numbers and bars of its output are those of one machine on one day
    <!-- file: NAME -->              it is kept under that name, and Python is not run
    <!-- run: ARGUMENTS | ... -->    Python is run with these arguments, each process begun at the first line of the one before
    <!-- is: KIND -->                what JSON, TOML or YAML is (`kinds.py`)
    <!-- synopsis -->                of `text`: what a command takes, with each option known

A comment `<!-- page: WORDS -->` anywhere says what the whole page needs: `models`, `postgres`, `redis`, `keys`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LANGUAGES", "REPOSITORY", "Block", "Page", "all_pages", "read_page"]

REPOSITORY = Path(__file__).resolve().parents[2]

SHELL = frozenset({"sh", "console"})
DATA = frozenset({"json", "toml", "yaml"})
# What is shown and neither run nor read by a program of ours.
SHOWN = frozenset({"text", "nginx", "ini", "html", "diff", "sql", "http"})
LANGUAGES = SHELL | DATA | SHOWN | {"python", "promql", "javascript", "toctree"}

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)$")
_COMMENT = re.compile(r"^ *<!-- (?P<text>.+?) -->$")
_FORMS = ("not run", "given", "background", "exit", "in small", "figures vary", "file", "run", "is", "synopsis")


@dataclass(frozen=True)
class Block:
    """One fenced block: `notes` maps the forms above to what stands after the colon."""

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it stands, as an editor opens it."""
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        """Whether a shell reads it."""
        return self.language in SHELL

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Of `console`: each command with the lines that it is shown to print."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
            elif found:
                found[-1][1].append(line)
            else:
                raise ValueError(f"{self.place}: a console block begins with a command, after `$ `")
        return found

    @property
    def script(self) -> str:
        """What a shell is given of it."""
        return self.text if self.language == "sh" else "\n".join(command for command, _ in self.commands)


@dataclass(frozen=True)
class Page:
    """One page, its blocks in their order and what it needs."""

    name: str
    text: str
    blocks: tuple[Block, ...]
    needs: frozenset[str]

    @property
    def prose(self) -> str:
        """The page without its blocks and comments, line for line."""
        lines = self.text.splitlines()
        fence = ""
        for number, line in enumerate(lines):
            opened = _FENCE.match(line)
            if fence or opened or _COMMENT.match(line):
                lines[number] = ""
            if fence and line.strip() == fence:
                fence = ""
            elif not fence and opened:
                fence = opened["fence"]
        return "\n".join(lines)


def all_pages() -> list[Page]:
    """Every page of the documentation, README and CONTRIBUTING first."""
    paths = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [read_page(path) for path in paths]


def read_page(path: Path) -> Page:
    """What a page says. Raises `ValueError` for a fence that is never closed and a comment that says nothing known."""
    name = path.relative_to(REPOSITORY).as_posix()
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    blocks: list[Block] = []
    needs: set[str] = set()
    notes: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if comment := _COMMENT.match(line):
            form, _, rest = comment["text"].partition(":")
            if form == "page":
                needs.update(rest.split())
            elif form in _FORMS:
                notes[form] = rest.strip()
            else:
                raise ValueError(f"{name}:{at}: nobody knows the comment {comment['text']!r}")
            continue
        if not (opened := _FENCE.match(line)):
            if line.strip():
                notes = {}
            continue
        begin, inside = at, []
        while at < len(lines) and lines[at].strip() != opened["fence"]:
            inside.append(lines[at].removeprefix(opened["indent"]))
            at += 1
        if at == len(lines):
            raise ValueError(f"{name}:{begin}: the block is never closed")
        at += 1
        language = opened["language"].strip().strip("{}").split(" ")[0]
        blocks.append(Block(name, begin, language, "".join(f"{line}\n" for line in inside), notes))
        notes = {}
    return Page(name, text, tuple(blocks), frozenset(needs))
