"""Links lead somewhere on a code host and in the site, and every page can be reached."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.documentation.blocks import REPOSITORY, Page, all_pages

PAGES = all_pages()
_LINK = re.compile(r"(?<!\\)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as code hosts and the site make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"`|\[([^\]]*)\]\([^)]*\)", lambda part: part[1] or "", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Page) -> None:
    here = REPOSITORY / page.name
    broken = []
    for found in _LINK.finditer(page.prose):
        target, _, anchor = unquote(found["target"]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (here.parent / target).resolve() if target else here
        if not path.exists() or not path.is_relative_to(REPOSITORY):
            broken.append(target)
        elif anchor and path.suffix == ".md" and anchor not in anchors(_without_blocks(path)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def _without_blocks(path: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_every_page_of_the_site_can_be_reached() -> None:
    docs = REPOSITORY / "docs"
    reached: set[Path] = set()
    waiting = [docs / "index.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for tree in re.findall(r"```\{toctree\}(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            waiting += [found for entry in entries for found in path.parent.glob(f"{entry}.md")]
    assert {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} == {
        path.relative_to(docs).as_posix() for path in reached
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_one_heading_and_skips_none(page: Page) -> None:
    if page.name in {"docs/contributing.md", "docs/changelog.md"}:
        return
    levels = [len(found[0].split(" ")[0]) for found in re.finditer(r"^#{1,6} .+$", page.prose, re.MULTILINE)]
    assert levels[:1] == [1]
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
