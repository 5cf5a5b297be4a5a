"""The documentation site: built without a warning, and read in a browser that asks no other host for anything."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.watched_page import OpenPage

# What a browser fetches by itself, as against links that a reader follows.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"'](?P<src>[^\"']+)|"
    r"<link\b(?=[^>]*\brel=[\"'](?:stylesheet|icon|preload|prefetch|preconnect|modulepreload|manifest)[\"'])[^>]*\bhref=[\"'](?P<link>[^\"']+)|"
    r"(?:url\(|@import )[\"']?(?P<css>[^\"')\s]+)"
)


@dataclass(frozen=True)
class Site:
    """The built site and the port that it is served at."""

    folder: Path
    port: int


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the library
        """Nobody reads it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository_root: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(folder / "read")]
    built = subprocess.run(
        [*command, str(repository_root / "docs"), str(folder / "html")], capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    handler = functools.partial(_Quiet, directory=str(folder / "html"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield Site(folder / "html", server.server_address[1])
        finally:
            server.shutdown()
            serving.join()


def test_the_built_pages_fetch_nothing_from_elsewhere(site: Site) -> None:
    fetched = {
        found["src"] or found["link"] or found["css"]
        for path in site.folder.rglob("*")
        if path.suffix in {".html", ".css"}
        for found in _FETCHED.finditer(path.read_text(encoding="utf-8"))
    }
    assert sorted(address for address in fetched if address.startswith(("//", "http:", "https:"))) == []


def test_readers_see_nothing_of_what_is_said_to_tests(site: Site) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.folder.rglob("*.html")]
    assert [
        page for page in pages if re.search(r"<!-- (?:not run|given|background|figures vary|is:|page:)", page)
    ] == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "tutorial.html",
        "reference/rest.html",
        "reference/settings.html",
        "decisions/index.html",
        "contributing.html",
    ],
)
def test_a_page_of_the_site_is_read_without_asking_another_host(
    site: Site, open_page: OpenPage, path: str, width: int
) -> None:
    page = open_page(site, f"/{path}", width=width)
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_looked_for_is_found_without_asking_another_host(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "/search.html?q=quorum")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator("#search-results li a").count() > 1


def test_the_site_leads_from_the_tutorial_to_every_part(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "/tutorial.html")
    captions = page.locator(".sidebar-tree .caption").all_inner_texts()
    assert [caption.lower() for caption in captions] == ["tutorial", "guides", "reference", "explanation"]
