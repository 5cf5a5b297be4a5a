"""How Sphinx makes the documentation site: `make docs`, into build/docs."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = Path(__file__).resolve().parents[1]

project = "Conclave"
release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
version = release
copyright = "Apache-2.0"  # noqa: A001 - named by the vendor

extensions = ["myst_parser"]
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
# `--` in a heading is an option and not a dash.
smartquotes = False
nitpicky = True

html_theme = "furo"
html_title = "Conclave"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_favicon = "../src/api/dashboard/static/icon.svg"
# Nothing is asked of another host: no fonts, no scripts, no badges.
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}

# Pages beside `docs/` that others link to; the site shows them as pages of its own.
BESIDE = {"CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
_LINK = re.compile(r"(?P<open>\]\()(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<close>\))")
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def _links_of_the_site(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links that lead out of `docs/` on a code host lead to the site's own pages, where there is one."""
    folder = here = (Path(str(app.srcdir)) / docname).parent
    for name, page in BESIDE.items():
        if docname == page:
            folder = REPOSITORY
            source[0] = (folder / name).read_text(encoding="utf-8")

    def led(found: re.Match[str]) -> str:
        target = unquote(found["target"])
        if not target or "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        path = (folder / target).resolve()
        if path == REPOSITORY / "docs" / "decisions":
            path = path / "index.md"
        for name, page in BESIDE.items():
            if path == REPOSITORY / name:
                path = Path(str(app.srcdir)) / f"{page}.md"
        return f"{found['open']}{_walked(here, path)}{found['anchor'] or ''}{found['close']}"

    source[0] = "".join(
        piece if piece.lstrip().startswith("```") else _LINK.sub(led, piece) for piece in _FENCED.split(source[0])
    )


def _walked(folder: Path, path: Path) -> str:
    """A relative path, upwards where that is needed, which pathlib alone cannot before Python 3.12."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _without_comments(_app: Sphinx, doctree: Any, _docname: str) -> None:
    """Take out what is said to the tests alone."""
    from docutils import nodes

    for node in list(doctree.findall(nodes.raw)):
        if node.astext().lstrip().startswith("<!--"):
            node.parent.remove(node)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _links_of_the_site)
    app.connect("doctree-resolved", _without_comments)
    return {"parallel_read_safe": True}
