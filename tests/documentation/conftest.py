"""Follows the pages of this run side by side, each in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.documentation.blocks import all_pages
from tests.documentation.reader import follow, is_done

_SIDE_BY_SIDE = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="session")
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[None]]]:
    """What became of each page that a test of this run asks for."""
    asked = [item.callspec.params.get("page") for item in request.session.items if hasattr(item, "callspec")]
    wanted = {page for page in asked if isinstance(page, str)}
    pages = [page for page in all_pages() if page.name in wanted and is_done(page)]
    futures: dict[str, Future[None]] = {}
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="reader") as readers:
        # The longest first, so that the others fill the time beside it.
        for page in sorted(pages, key=lambda page: -sum(len(block.text) for block in page.blocks)):
            addresses = {}
            for need, fixture in (("postgres", "postgres_server"), ("redis", "redis_server")):
                if need in page.needs:
                    addresses[need] = _address(request, fixture)
            folder = tmp_path_factory.mktemp("page")
            futures[page.name] = readers.submit(follow, page, folder, **addresses)
        yield futures


def _address(request: pytest.FixtureRequest, fixture: str) -> str:
    """An empty database or Redis for one page."""
    server = request.getfixturevalue(fixture)
    if not server.running:
        server.start()
    if fixture == "redis_server":
        server.flush()
        found: str = server.url()
        return found
    name = "documentation"
    server.create_database(name)
    request.addfinalizer(lambda: server.drop_database(name))
    address: str = server.url(name)
    return address
