"""What tests of the pages share: a real Chromium, pages whose faults fail the test, and axe-core's look for barriers."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.watched_page import OpenPage, Served, Watch, serious_barriers

_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MS = 15_000


# A module's, not the session's: while Playwright is there, its event loop is the running one of this thread, and asynchronous
# tests of other modules could not begin.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium: $TEST_BROWSER, or the first on PATH (`make test` sees to it that there is one)."""
    program = next(
        (found for name in (os.environ.get("TEST_BROWSER", ""), *_NAMES) if (found := shutil.which(name))), None
    )
    assert program is not None, "there is no Chromium; install one, or name it in TEST_BROWSER"
    # As long as other waits of a page: what is expected may hang on an agent's time, and on a crowded machine.
    expect.set_options(timeout=_WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """`open_page(server, "/ask", width=390, dark=True)` is a page of a browser context of its own.

    At the end of the test it fails on what a page must not do: log an error or a warning, throw, break the Content-Security-Policy or
    ask another host. `allowed` names parts of console lines that the test means to cause; `beside` is a page whose
    session (cookies, storage) the new one shares, as a second tab does.
    """
    with contextlib.ExitStack() as stack:
        watches: list[Watch] = []

        def open_one(
            server: Served,
            path: str,
            *,
            width: int = 1440,
            dark: bool = False,
            allowed: tuple[str, ...] = (),
            beside: Page | None = None,
            **options: object,
        ) -> Page:
            if beside is None:
                context = chromium.new_context(
                    viewport={"width": width, "height": 900 if width > 600 else 844},
                    color_scheme="dark" if dark else "light",
                    accept_downloads=True,
                    **options,  # type: ignore[arg-type]
                )
                context.set_default_timeout(_WAIT_MS)
                stack.callback(context.close)
            else:
                context = beside.context
            page = context.new_page()
            origin = f"http://127.0.0.1:{server.port}"
            watches.append(Watch(page, origin=origin, allowed=allowed))
            page.goto(f"{origin}{path}", wait_until="load")
            return page

        yield open_one
        for watch in watches:
            assert watch.faults == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    folder = Path(axe_playwright_python.__file__).parent
    (source,) = folder.rglob("axe.min.js")
    return source.read_text(encoding="utf-8")


@pytest.fixture
def barriers(axe: str) -> Callable[[Page], list[str]]:
    """`barriers(page)` is what axe-core finds that is serious or critical under WCAG 2.2 AA: has to be []."""

    def look(page: Page) -> list[str]:
        return serious_barriers(page, axe)

    return look
