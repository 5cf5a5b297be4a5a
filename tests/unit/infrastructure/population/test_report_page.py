"""The page of a population: whole in itself, harmless whatever agents wrote, and marked as simulated all over."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from application.pages.html_text import shown
from application.ports.population_record import Sample
from application.services.population.intervals import replicates_document
from application.services.population.subgroups import decision_document, subgroups_of
from domain.models.archetype import Archetype, Decision
from domain.models.population import PopulationSpecification
from infrastructure.population.report_page import page_of
from infrastructure.population.tick_curve import MAX_POINTS, CurvePoint, curve_of

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e\x1b[31m&amp;\n=cmd()"
BINS = 100


def spec(**given: Any) -> PopulationSpecification:
    archetypes = (Archetype(HOSTILE, HOSTILE, 0.0, reason=HOSTILE), Archetype("b", "yes", 1.0))
    return PopulationSpecification(
        agents=200, degree=2, archetypes=archetypes, deliberation=HOSTILE, decision=Decision(HOSTILE, 0.0), **given
    )


def sample(tick: int, *, full: int = 50) -> Sample:
    histogram = [0] * BINS
    histogram[full] = 150
    histogram[0] = 50
    return Sample(tick, 1, 0.5, 0.1, tuple(histogram), (0.25, 0.75), 7 << 20)


def report(found: PopulationSpecification, **given: Any) -> dict[str, Any]:
    communities = [
        {"name": one.name, "answer": one.answer, "agents": 100, "mean": one.opinion, "variance": 0.0}
        for one in found.archetypes
    ]
    opinions = {"mean": 0.5, "variance": 0.1, "histogram": list(sample(0).histogram), "communities": communities}
    rows = subgroups_of(found.archetypes, opinions, opinions)
    nothing = {"p50": None, "p99": None}
    document = {
        "simulated": True,
        "agents": found.agents,
        "shards": 2,
        "ticks": 10,
        "kernel": "numpy",
        "seed": 0,
        "tick_ms": {"mean": 1.5, "p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 3.0},
        "messages_routed": 2_000,
        "messages_lost": 0,
        "messages_per_second": 1e6,
        "state_access_us": {"hot": nothing, "warm": nothing, "cold": nothing},
        "hot_hit_rate": {"zipf_1.2": None, "uniform": None},
        "peak_rss_bytes": 1 << 30,
        "cpu_fraction": 0.5,
        "state_hash": "ab" * 32,
        "opinions": {"initial": opinions, "final": opinions},
        "groups": {"initial": 1, "final": 2},
        "subgroups": rows,
        "deliberation_id": found.deliberation,
        "decision": decision_document(found.decision, rows, 0.5),
        "replicates": None,
        "behaviour": HOSTILE,
        "graph": HOSTILE,
        "workers": {"kind": "threads", "count": 2},
        **given,
    }
    if document["replicates"] is True:
        document["replicates"] = replicates_document([document, document], planned=2)
    return document


def page(**given: Any) -> str:
    found = spec()
    samples = [sample(tick, full=tick) for tick in range(11)]
    points = [CurvePoint(tick, tick, 1, 1.5, 2.0, 200) for tick in range(1, 11)]
    return page_of(report(found, **given), found, samples=samples, curve=points)


class Reader(HTMLParser):
    """What stands in a page: its tags, their attributes, its open elements and its text."""

    VOID = frozenset({"meta", "link", "img", "br", "image", "path", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.handle_endtag(tag) if self.open[-1:] == [tag] else None

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words += data


def test_nothing_is_fetched_and_nothing_runs() -> None:
    found = Reader(page(replicates=True))
    assert found.open == []
    assert {tag for tag, _ in found.tags} & {"script", "iframe", "link", "object", "embed", "img", "form"} == set()
    for _, attributes in found.tags:
        assert not {name for name in attributes if name.startswith("on") or name in {"style", "src", "srcset"}}
        assert (attributes.get("href") or "data:").startswith("data:image/png;base64,") or not attributes.get("href")
    assert not re.search(r"https?://|//[a-z]|url\(|@import", page())


def test_the_policy_allows_the_one_style_that_is_there() -> None:
    text = page()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert policy
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_what_agents_wrote_is_text_and_nothing_else() -> None:
    text = page(replicates=True)
    assert "<script" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert HOSTILE.partition("\u202e")[0] in Reader(text).words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a  b\n c", "a b c"),
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("x\u202ey\x00z", "x\\u202ey\\x00z"),
        ("a" * 300, "a" * 200 + "..."),
        ("e" + "\u0301" * 50, "e" + "\u0301" * 4 + "\\u0301" * 46),
        (7, "7"),
    ],
)
def test_text_is_shown_on_one_line_and_hides_nothing(text: object, found: str) -> None:
    assert shown(text) == f"<bdi>{found}</bdi>"


def test_every_section_says_that_it_is_simulated() -> None:
    text = page(replicates=True)
    sections = text.split("<section>")[1:]
    assert len(sections) == 7
    assert all('<span class="badge">simulated</span>' in one for one in sections)
    assert re.search(r"<title>Simulated", text)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert len(captions) == 7
    assert all("simulat" in caption.lower() for caption in captions)


def test_the_picture_of_opinions_is_one_that_browsers_read() -> None:
    encoded = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page())
    assert encoded
    content = base64.b64decode(encoded[1])
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = zlib.decompress(chunks[b"IDAT"])
    assert (width, height, len(rows)) == (11, BINS, (11 + 1) * BINS)
    shades = [rows[line * 12 + 1 : line * 12 + 12] for line in range(BINS)]
    # Opinion 1 is on top; at tick t the bin t is full and the lowest one has a third as many.
    assert all(shades[BINS - 1 - tick][tick] > shades[BINS - 1][tick] > 0 for tick in range(1, 11))
    assert shades[0] == bytes(11)


def test_tiers_are_shown_where_there_are_some() -> None:
    assert "Tiers of state" not in page()
    assert "Tiers of state" not in page(state_access_us=None, hot_hit_rate=None)
    some = {"p50": 1.5, "p99": 2.5}
    text = page(
        state_access_us={"hot": some, "warm": some, "cold": some}, hot_hit_rate={"zipf_1.2": 0.95, "uniform": None}
    )
    assert "Tiers of state" in text
    assert "zipf 1.2</bdi> 95.0%" in text
    visited = page(
        state_access_us={"hot": some, "warm": some, "cold": some},
        tiers={"visits_by_tier": {"hot": 60, "warm": 30, "cold": 10}},
    )
    assert "<td><bdi>hot</bdi></td><td>60.0%</td><td>1.50</td><td>2.50</td>" in visited


def test_whatever_else_took_part_is_shown_by_its_name() -> None:
    text = page(tree={"fan_in": {"most": 100}, "stale": ["a"], "dormant": True, HOSTILE: HOSTILE})
    assert "fan in, most" in text
    assert "<script" not in text


def test_a_population_without_a_deliberation_ticks_or_samples_has_a_page() -> None:
    plain = PopulationSpecification(agents=200, degree=2)
    nothing = {"mean": None, "p50": None, "p95": None, "p99": None, "max": None}
    text = page_of(report(plain, tick_ms=nothing, state_hash=None), plain, samples=[], curve=[])
    assert Reader(text).open == []
    assert "Communities" not in text


def test_a_thousand_archetypes_make_a_page_of_bounded_size() -> None:
    many = tuple(Archetype(f"a{number}" * 20, f"answer {number}" * 20, number / 1_000) for number in range(1_000))
    found = PopulationSpecification(agents=2_000, archetypes=many)
    samples = [Sample(tick, 1, 0.5, 0.1, (1,) * BINS, (0.5,) * 1_000) for tick in range(200)]
    text = page_of(report(found), found, samples=samples, curve=[])
    assert "and 800 more, in report.json" in text
    assert len(text) < 8_000_000


def test_the_times_of_any_number_of_ticks_are_few_points(tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    lines = [
        json.dumps({"tick": tick, "tick_ms": 2.0 if tick == 700 else 1.0, "messages": 10}) for tick in range(1, 1_001)
    ]
    path.write_text("\n".join([*lines, "{", "[]", '{"tick": "x"}', ""]))
    points = curve_of(path)
    assert len(points) <= MAX_POINTS
    assert (points[0].first, points[-1].last, sum(point.ticks for point in points)) == (1, 1_000, 1_000)
    assert all(late.first == early.last + 1 for early, late in pairwise(points))
    assert len({point.ticks for point in points[:-1]}) == 1
    (slow,) = (point for point in points if point.first <= 700 <= point.last)
    assert (slow.longest_ms, slow.mean_ms) == (2.0, 1.0 + 1.0 / slow.ticks)
    assert points[0].messages_per_second == pytest.approx(10_000)
