"""A page that is watched for what no page of Conclave may do, and what is asked of every page."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Error, Page, Request

__all__ = ["OpenPage", "Served", "Watch", "scrolls_sideways", "serious_barriers"]

_OWN_SCHEMES = {"data", "blob", "about"}
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Served(Protocol):
    """A server on a port of this machine."""

    @property
    def port(self) -> int:
        """The port."""
        ...


class OpenPage(Protocol):
    """Opens a page of a server; see the fixture `open_page`."""

    def __call__(
        self,
        server: Served,
        path: str,
        *,
        width: int = 1440,
        dark: bool = False,
        allowed: tuple[str, ...] = (),
        beside: Page | None = None,
        **options: object,
    ) -> Page: ...


class Watch:
    """Notes every fault of one page from the moment on at which it is made."""

    def __init__(self, page: Page, *, origin: str, allowed: tuple[str, ...] = ()) -> None:
        self.faults: list[str] = []
        self._host = urlsplit(origin).netloc
        self._allowed = allowed
        page.on("console", self._console)
        page.on("pageerror", self._thrown)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._note(f"console {message.type}: {message.text}")

    def _thrown(self, error: Error) -> None:
        self._note(f"thrown: {error}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in _OWN_SCHEMES and parts.netloc != self._host:
            self._note(f"asked another host: {request.url}")

    def _note(self, fault: str) -> None:
        if not any(part in fault for part in self._allowed):
            self.faults.append(fault)


def serious_barriers(page: Page, axe: str) -> list[str]:
    """What axe-core finds that is serious or critical, each with the rule and the first place."""
    page.evaluate(axe)
    found: Any = page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations']})", _RULES
    )
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def scrolls_sideways(page: Page) -> bool:
    """Whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
