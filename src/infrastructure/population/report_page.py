"""The report of a population as one page for a browser, a phone and a printer: nothing in it is fetched, and nothing in it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from application.pages.frame import whole_page
from application.pages.html_text import shown
from application.ports.population_record import Sample
from domain.models.population import PopulationSpecification
from infrastructure.population.page_charts import Curve, bars, curves, heat_map
from infrastructure.population.page_communities import communities_of, decision_of, each_community_of, replicates_of
from infrastructure.population.page_parts import BADGE, figure, section, table
from infrastructure.population.page_style import STYLE
from infrastructure.population.tick_curve import CurvePoint

__all__ = ["page_of"]

_SAID = "Simulated: these agents are rows of numbers, and say nothing about what people think."
_MAX_SETTINGS = 60
_UNKNOWN = "-"


def page_of(
    report: Mapping[str, Any], spec: PopulationSpecification, *, samples: Sequence[Sample], curve: Sequence[CurvePoint]
) -> str:
    """The page of a finished population. All text from outside stands in it escaped; a policy (CSP) forbids whatever else is tried."""
    about = f"Simulated population: {report['agents']:,} agents, {report['ticks']:,} ticks"
    parts = [
        _tiles(report),
        _opinions(report, samples),
        communities_of(report, spec, samples),
        decision_of(report),
        replicates_of(report),
        _times(curve, samples),
        _tiers(report),
        *_attached(report),
        each_community_of(report, spec),
        _settings(report, spec),
    ]
    body = (
        '<body><div class="everywhere">Simulated - not people</div><main>'
        f"<h1>{about}{BADGE}</h1><p>{_SAID}</p>\n" + "\n".join(filter(None, parts)) + "\n</main></body>"
    )
    return whole_page(title=about, style=STYLE, body=body, pictures=True)


def _tiles(report: Mapping[str, Any]) -> str:
    tick_ms = report["tick_ms"]
    tiles = (
        ("behaviour", shown(str(report["behaviour"]).replace("_", " "), limit=60)),
        ("graph", shown(str(report["graph"]).replace("_", " "), limit=60)),
        ("tick, mean / p99", f"{_number(tick_ms['mean'], '.1f')} / {_number(tick_ms['p99'], '.1f')} ms"),
        ("messages a second", _large(report["messages_per_second"])),
        ("messages", f"{report['messages_routed']:,}"),
        ("messages lost", f"{report['messages_lost']:,}"),
        ("most memory", f"{report['peak_rss_bytes'] / 2**20:,.0f} MiB"),
        ("of all cores", f"{report['cpu_fraction']:.0%}"),
        ("groups at the end", f"{report['groups']['final']}"),
        ("final mean", f"{report['opinions']['final']['mean']:.4f}"),
        ("final variance", f"{report['opinions']['final']['variance']:.5f}"),
        ("seed", f"{report['seed']}"),
    )
    drawn = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{drawn}</dl>'


def _opinions(report: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    opinions = report["opinions"]
    drawn = ""
    if samples:
        shades = "".join(
            f'<li><i class="box {style}"></i>{share}</li>'
            for style, share in (("o1", "0.1 %"), ("o2", "1 %"), ("o3", "10 %"), ("o4", "all"))
        )
        drawn = figure(
            heat_map(samples, label="Simulated opinions over time, as shares of agents in a hundredth of the scale"),
            f"Simulated opinions from 0 to 1 over ticks, in {len(samples)} samples; the darker, the more agents think so.",
            legend=f'{shades}<li><i class="ink"></i>mean</li>',
        )
    pair = "".join(
        figure(
            bars(opinions[when]["histogram"], label=f"Simulated opinions {words}"),
            f"Simulated opinions {words}: mean {opinions[when]['mean']:.4f}, variance {opinions[when]['variance']:.5f}, "
            f"groups {report['groups'][when]}.",
        )
        for when, words in (("initial", "in the beginning"), ("final", "in the end"))
    )
    said = (
        "A group is a run of hundredths of the scale that each hold at least one agent in a thousand, and together one in "
        "a hundred or more."
    )
    return section("Opinions over time", f'{drawn}<div class="pair">{pair}</div><p class="soft">{said}</p>')


def _times(curve: Sequence[CurvePoint], samples: Sequence[Sample]) -> str:
    if not curve:
        return ""
    first, last = curve[0].first, curve[-1].last
    middles = [((point.first + point.last) / 2, point) for point in curve]
    each = max(point.ticks for point in curve)
    over = f"each point is {each:,} ticks" if each > 1 else "each point is a tick"

    def chart(label: str, drawn: Sequence[Curve], written: Callable[[float], str]) -> str:
        return curves(drawn, label=label, written=written, first_tick=first, last_tick=last)

    times = [Curve("s0", [(tick, point.mean_ms) for tick, point in middles])]
    if each > 1:
        times.insert(0, Curve("s1 faint", [(tick, point.longest_ms) for tick, point in middles]))
    found = figure(
        chart("Times of the ticks of this simulated population", times, lambda value: f"{value:,.4g} ms"),
        f"Times of whole ticks of this simulation; {over}.",
        legend='<li><i class="s0"></i>mean</li><li><i class="s1"></i>longest</li>' if each > 1 else "",
    )
    found += figure(
        chart(
            "Simulated messages a second",
            [Curve("s2", [(tick, point.messages_per_second) for tick, point in middles])],
            _large,
        ),
        f"Simulated messages delivered a second of tick time; {over}.",
    )
    memory = [(sample.tick, sample.resident_bytes / 2**20) for sample in samples if sample.resident_bytes]
    if memory:
        found += figure(
            chart("Memory of the processes that simulate it", [Curve("s3", memory)], lambda value: f"{value:,.4g} MiB"),
            "Memory of all processes of this simulation as it was sampled.",
        )
    return section("Ticks, messages and memory", found)


def _tiers(report: Mapping[str, Any]) -> str:
    access, hits = report["state_access_us"], report["hot_hit_rate"]
    if not isinstance(access, Mapping) or not isinstance(hits, Mapping):
        return ""
    if all(value is None for tier in access.values() for value in tier.values()) and not any(hits.values()):
        return ""
    visits = _visits(report)
    total = sum(visits.values())
    rows = [
        [
            shown(tier, limit=20),
            f"{visits[tier] / total:.1%}" if total and tier in visits else _UNKNOWN,
            _number(found["p50"], ",.2f"),
            _number(found["p99"], ",.2f"),
        ]
        for tier, found in access.items()
    ]
    shares = ", ".join(
        f"{shown(name.replace('_', ' '))} {share:.1%}" for name, share in hits.items() if share is not None
    )
    found = table(("tier of state", "visits", "p50, us", "p99, us"), rows)
    return section("Tiers of state", found + (f"<p>Found in the hot tier: {shares}.</p>" if shares else ""))


def _visits(report: Mapping[str, Any]) -> dict[str, int]:
    """How often each tier was where a state was found, where the tiers say so."""
    tiers = report.get("tiers")
    found = tiers.get("visits_by_tier") if isinstance(tiers, Mapping) else None
    return {str(tier): int(count) for tier, count in found.items()} if isinstance(found, Mapping) else {}


_OWN = frozenset(
    {"tick_ms", "delivery_us", "state_access_us", "hot_hit_rate", "opinions", "groups", "decision", "replicates"}
)


def _attached(report: Mapping[str, Any]) -> list[str]:
    """What else took part in the ticks, each with what it says of itself."""
    return [
        section(
            shown(name.replace("_", " ").capitalize(), limit=40),
            table(
                ("figure", "value"),
                [[shown(key, limit=80), value] for key, value in _leaves(document)],
                text_columns=(1,),
            ),
        )
        for name, document in report.items()
        if name not in _OWN and name != "workers" and isinstance(document, Mapping) and document
    ]


def _leaves(document: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Every number and word in it with the way to it, as many as one can read."""
    found: list[tuple[str, str]] = []
    for name, value in document.items():
        key = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            found += _leaves(value, f"{key}, ")
        elif isinstance(value, bool) or value is None:
            found.append((key, {None: _UNKNOWN, True: "yes", False: "no"}[value]))
        elif isinstance(value, int | float):
            found.append((key, f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"))
        elif isinstance(value, str):
            found.append((key, shown(value)))
    return found[:_MAX_SETTINGS]


def _settings(report: Mapping[str, Any], spec: PopulationSpecification) -> str:
    left_out = {"archetypes", "decision", "deliberation"}
    rows = [[name.replace("_", " "), shown(value)] for name, value in spec.document().items() if name not in left_out]
    workers = report["workers"]
    rows += [
        [
            "ran with",
            f"{report['shards']} shards, kernel {shown(report['kernel'])}, {workers['count']} {shown(workers['kind'])}",
        ],
        ["deliberation", shown(report["deliberation_id"] or _UNKNOWN)],
        ["state hash", f"<code>{shown(report['state_hash'] or _UNKNOWN)}</code>"],
    ]
    return section("What was run", table(("setting", "value"), rows, text_columns=(1,)))


def _number(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _large(value: float) -> str:
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:,.3g} {name}"
    return f"{value:,.3g}"
