"""What pages are made of: little, of known origin, readable in every theme, and nothing that runs inline."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

DASHBOARD = Path(str(files("api.dashboard")))
STATIC = DASHBOARD / "static"
VENDOR = STATIC / "vendor"
TEMPLATES = sorted((DASHBOARD / "templates").rglob("*.html"))
SCRIPTS = sorted(path for path in STATIC.glob("*.js"))
MOST_BYTES = 200_000
_SENT = {".js", ".css", ".svg"}
_STATIC = re.compile(r"/static/([\w./-]+\.(?:js|css|svg))")
_IMPORT = re.compile(r"""(?:from|import)[ (]*["'](?:\./|/static/)([\w-]+\.js)["']""")

_TOKEN = re.compile(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})\b")


def theme(opening: str) -> dict[str, str]:
    """The colours in the block of page.css that begins so."""
    css = (STATIC / "page.css").read_text(encoding="utf-8")
    start = css.index(opening) + len(opening)
    return dict(_TOKEN.findall(css[start : css.index("}", start)]))


LIGHT = theme(":root {")
DARK = theme(':root:not([data-theme="light"]) {')
THEMES = {
    "light": LIGHT,
    "dark": DARK,
    "print": {**LIGHT, **theme(':root, :root:not([data-theme="light"]), :root[data-theme="dark"] {')},
}
GROUNDS = ("ground", "surface", "sunken")
POSITIONS = tuple(f"position-{number}" for number in range(8))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio (WCAG 2.2), 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_of_contrast_is_the_standards() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", THEMES)
def test_text_stands_out_in_every_theme(name: str) -> None:
    colours = THEMES[name]
    pairs = [(text, ground) for text in ("ink", "muted", "accent", "good", "warn", "bad") for ground in GROUNDS]
    pairs += [("on-accent", "accent"), ("ground", "ink"), ("ink", "accent-ground"), ("accent", "accent-ground")]
    pairs += [(kind, f"{kind}-ground") for kind in ("good", "warn", "bad")]
    pairs += [("on-position", position) for position in POSITIONS]
    weak = {pair: ratio for pair in pairs if (ratio := contrast(colours[pair[0]], colours[pair[1]])) < 4.5}
    assert weak == {}


@pytest.mark.parametrize("name", THEMES)
def test_edges_seats_and_the_focus_stand_out_in_every_theme(name: str) -> None:
    colours = THEMES[name]
    pairs = [(mark, ground) for mark in ("edge", "focus", *POSITIONS) for ground in GROUNDS]
    weak = {pair: ratio for pair in pairs if (ratio := contrast(colours[pair[0]], colours[pair[1]])) < 3}
    assert weak == {}


def test_the_dark_theme_is_the_same_whoever_chose_it() -> None:
    assert theme(':root[data-theme="dark"] {') == DARK
    assert set(DARK) == set(LIGHT)


def loaded_by(*names: str) -> set[str]:
    """The files of these names and the modules that they import, wherever they do."""
    found = set(names)
    for name in names:
        text = (STATIC / name).read_text(encoding="utf-8")
        found |= loaded_by(*({*_IMPORT.findall(text)} - {name})) if name.count("/") == 0 else set()
    return found


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_page_takes_more_than_200_kb_with_all_that_it_loads(path: Path) -> None:
    layout = (DASHBOARD / "templates/layout.html").read_text(encoding="utf-8")
    page = path.read_text(encoding="utf-8")
    files = loaded_by(*_STATIC.findall(layout), *_STATIC.findall(page))
    sizes = {name: (STATIC / name).stat().st_size for name in files}
    assert sum(sizes.values()) + len(layout) + len(page) < MOST_BYTES, sizes


def test_all_files_together_are_small_as_they_are_sent() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.rglob("*") if path.suffix in _SENT}
    assert sum(sizes.values()) < MOST_BYTES // 2, sizes


def test_every_file_of_others_is_the_published_one_and_its_licence_stands_beside_it() -> None:
    told = (VENDOR / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| .* \| `([0-9a-f]{64})` \|$", told, flags=re.MULTILINE))
    held = [path for path in VENDOR.iterdir() if path.name != "README.md" and path.suffix != ".LICENSE"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in held} == rows
    for path in held:
        licence = VENDOR / f"{path.name.partition('.')[0]}.LICENSE"
        assert "WITHOUT WARRANTY" in licence.read_text(encoding="utf-8") or "DISCLAIMS ALL" in licence.read_text(
            encoding="utf-8"
        )


def test_there_are_pages_to_look_at() -> None:
    assert len(TEMPLATES) >= 5
    assert len(SCRIPTS) >= 3


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_page_runs_or_styles_anything_inline_or_asks_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = {
        "inline script": r"<script(?![^>]*\ssrc=\"/static/)",
        "inline style": r"<style|<[a-z][^<>]*\sstyle\s*=",
        "inline handler": r"<[^>]*\son[a-z]+\s*=|hx-on|js:",
        "script as an address": r"javascript:",
        "another host": r"(?:src|href|action)\s*=\s*\"(?:https?:)?//",
        "unescaped text": r"autoescape false",
    }
    assert [name for name, pattern in forbidden.items() if re.search(pattern, text, flags=re.IGNORECASE)] == []


def test_only_what_is_markup_already_is_put_in_unescaped() -> None:
    found = {
        name for path in TEMPLATES for name in re.findall(r"([\w.]+)\s*\|\s*safe\b", path.read_text(encoding="utf-8"))
    }
    # Parts that a template here has made, and the outcome's headline, which `api.report` escapes.
    assert found <= {"live.html", "live.halt", "live.rest", "side.verdict", "hit.verdict"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    pattern = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]|createContextualFragment|https?://(?!www\.w3\.org/)"
    assert re.findall(pattern, text) == []
