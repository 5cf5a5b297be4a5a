"""No page of the room takes more than 200 KB with all that it loads, whatever the texts on it hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.conclave_fixture import RunningServer
from tests.hostile_chamber import HostileChamber, hostile_chamber

MOST_BYTES = 200_000
# Each is spelt out, escaped, or a paragraph of its own, and so many times as long on a page as it was sent.
BAD = ("\u202e", '&\u202e"', '"', "a\n", "<\U000e0041")
_MEMBERS = 72
_STATIC = re.compile(r"""["'](?:\./|/static/)([\w./-]+\.(?:js|css|svg))["']""")


@pytest.fixture(scope="module")
def chamber() -> Iterator[HostileChamber]:
    with hostile_chamber() as found:
        yield found


def ask(chamber: HostileChamber, bad: str, *, options: int) -> str:
    """A deliberation full of it: its question, its context, its options, its personas, and what everybody says and fails with."""
    names = [f"{place:02d} {bad * 40}"[:60].strip() for place in range(options)]
    whole = "q" + bad * (32_000 // len(bad.encode()))
    chamber.mouth.replies = {
        f"voice-{place}": json.dumps(
            {"answer": names[place % options], "confidence": 0.5, "reasoning": f"{place} {bad * 3_000}"}
        )
        for place in range(_MEMBERS)
    }
    body = {
        "question": whole,
        "context": whole,
        "answer": {"kind": "choice", "options": names},
        "agents": {"members": [{"id": f"voice-{n}", "persona": f"{n} {bad * 900}"} for n in range(_MEMBERS)]},
        "limits": {"max_total_tokens": 100_000_000},
    }
    answered = chamber.server.post(body, query="?wait=60")
    assert answered.document.get("status") == "completed", answered.document
    return str(answered.document["id"])


def sizes(server: RunningServer, path: str) -> dict[str, int]:
    """Every file that a browser fetches for that page, with its bytes once it is unpacked."""
    found: dict[str, int] = {}
    left = [path]
    while left:
        name = left.pop()
        if name not in found:
            answered = server.ask("GET", name, headers={"Accept": "text/html, */*"})
            assert answered.status == 200, (name, answered.body[:300])
            found[name] = len(answered.body)
            if not name.endswith(".css"):
                left += [f"/static/{each}" for each in _STATIC.findall(answered.body.decode())]
    return found


@pytest.mark.parametrize("options", [3, 12, 50])
@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_no_page_takes_more_than_200_kb_whatever_the_texts_on_it_hold(
    chamber: HostileChamber, bad: str, options: int
) -> None:
    own = ask(chamber, bad, options=options)
    chamber.server.ask("POST", f"/v1/deliberations/{own}/recount", {"rule": {"kind": "threshold"}})
    for path in (
        f"/deliberations/{own}",
        f"/deliberations/{own}?seat=1",
        f"/archive/compare?a={own}",
        f"/archive/compare?a={own}&b={chamber.asked[0].id if chamber.asked else own}",
        "/archive",
    ):
        found = sizes(chamber.server, path)
        assert sum(found.values()) < MOST_BYTES, (path, found)
    assert len(chamber.server.ask("GET", f"/deliberations/{own}/seats/1").body) <= 41_000


def test_a_page_whose_texts_are_cut_says_where_they_stand_whole(chamber: HostileChamber) -> None:
    own = ask(chamber, "\u202e", options=12)
    for path in (f"/deliberations/{own}", f"/deliberations/{own}/seats/1"):
        page = chamber.server.ask("GET", path, headers={"Accept": "text/html"}).body.decode()
        assert "too long" in page
        assert f'<a href="/v1/deliberations/{own}">document</a>' in page
        assert f'<a href="/v1/deliberations/{own}/outputs">' in page
    small = chamber.choose(["one", "two"])
    page = chamber.server.ask("GET", f"/deliberations/{small.id}", headers={"Accept": "text/html"}).body.decode()
    assert "too long" not in page
